import "../host/in-namespace.ts";
import t, { type Test } from "tap";
import type { OffloadLevel } from "../../src/device/tun.ts";
import type { EngineSettings } from "./stress/engine-process.ts";
import { linkForwarded } from "./stress/forwarded.ts";
import { type Client, Lab, MIB } from "./stress/lab.ts";
import { VERSIONS } from "./stress/network.ts";

/** What a kernel counts when a checksum is wrong. */
const ERRORS = [
  "Tcp.InCsumErrors",
  "Tcp.InErrs",
  "Udp.InCsumErrors",
  "Udp6InCsumErrors",
  "Ip.InHdrErrors",
  "Ip.ReasmFails",
  "Ip6ReasmFails",
];
const BYTES = 64 * MIB;
/** What the forwarded client transfers in all with each offload; TUNRELAY_TEST_BULK_MIB=1024 for a whole gibibyte. */
const FORWARDED_BYTES = Number(process.env["TUNRELAY_TEST_BULK_MIB"] ?? 256) * MIB;
const DATAGRAMS = 2000;
/** Datagrams that need fragments with most MTUs, and their largest payload. */
const LARGE_DATAGRAMS = 200;
const LARGEST = 60_000;
/** IP and UDP headers. */
const UDP_OVERHEAD = 48;

t.setTimeout(300_000);
const lab = await Lab.open(t);

/** Both protocols in both directions and both families, and nobody finds a wrong checksum. */
async function checkTraffic(t: Test, client: Client, bytes: number, mtu: number): Promise<void> {
  const before = await client.call("counters");
  for (const version of VERSIONS) {
    const down = await client.call("download", version, 30 + version, bytes);
    t.equal(down.result, "ok", `IPv${version} down, ${Math.round(down.ms)} ms`);
    const up = await client.call("upload", version, 40 + version, bytes);
    t.equal(up.result, "ok", `IPv${version} up, ${Math.round(up.ms)} ms`);
    const largest = Math.min(mtu, 9000) - UDP_OVERHEAD;
    const echo = await client.call("echo", { version, count: DATAGRAMS, largest, parallel: 8 });
    t.equal(echo.wrong, 0, `IPv${version} datagrams that differ`);
    t.ok(echo.received > DATAGRAMS / 2, `IPv${version} datagrams that came back: ${echo.received} of ${echo.sent}`);
    const large = await client.call("echo", { version, count: LARGE_DATAGRAMS, largest: LARGEST, parallel: 2 });
    t.equal(large.wrong, 0, `IPv${version} large datagrams that differ`);
    t.ok(large.received > LARGE_DATAGRAMS / 2, `IPv${version} large datagrams: ${large.received} of ${large.sent}`);
  }
  const after = await client.call("counters");
  for (const name of ERRORS) t.equal(after[name], before[name], `${name} of the client's kernel`);
  const { stack, deviceWriteErrors } = (await lab.snapshot()).stats;
  t.equal(deviceWriteErrors, 0, "packets that the kernel refused");
  t.equal(stack.drops["tcpChecksum"] ?? 0, 0, "wrong TCP checksums in the stack");
  t.equal(stack.drops["udpChecksum"] ?? 0, 0, "wrong UDP checksums in the stack");
  t.equal(stack.drops["ipChecksum"] ?? 0, 0, "wrong IP checksums in the stack");
  t.equal(stack.impossibleTransitions, 0, "impossible transitions");
}

const RUNS: readonly { readonly offload: OffloadLevel; readonly mtu: number }[] = [
  { offload: "auto", mtu: 1500 },
  { offload: "tso", mtu: 1500 },
  { offload: "checksum", mtu: 1500 },
  { offload: "none", mtu: 1500 },
  { offload: "auto", mtu: 1280 },
  { offload: "auto", mtu: 9000 },
  { offload: "auto", mtu: 65535 },
  { offload: "none", mtu: 9000 },
  { offload: "none", mtu: 65535 },
];

for (const { offload, mtu } of RUNS) {
  t.test(`offload ${offload}, MTU ${mtu}`, async (t) => {
    const description = await lab.start({ offload, mtu });
    t.comment(description);
    await checkTraffic(t, lab.client, BYTES, mtu);
    await lab.engine.call("stop", 0);
  });
}

t.test("a client behind another link without offloads verifies every checksum", async (t) => {
  const forwarded = await linkForwarded(t, lab);
  const settings: EngineSettings[] = (["auto", "tso", "checksum", "none"] as const).map((offload) => ({ offload }));
  for (const setting of settings) {
    await t.test(`offload ${setting.offload}`, async (t) => {
      await lab.start(setting);
      await checkTraffic(t, forwarded, FORWARDED_BYTES / 4, 1500);
      await lab.engine.call("stop", 0);
    });
  }
});
