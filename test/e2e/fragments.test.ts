/** Datagrams larger than the MTU, large pings and a smaller link on the way: real kernels cut and reassemble. */
import "../host/in-namespace.ts";
import t, { type Test } from "tap";
import type { OffloadLevel } from "../../src/device/tun.ts";
import { ProxyServer } from "../../src/proxy/server/server.ts";
import { findProgram } from "./harness.ts";
import type { EngineSettings } from "./stress/engine-process.ts";
import { linkForwarded } from "./stress/forwarded.ts";
import { type Client, Lab, MIB } from "./stress/lab.ts";
import { FORWARDED, type IpVersion, SERVER, VERSIONS } from "./stress/network.ts";

/** Echo requests of each ping. */
const PINGS = 5;
const DATAGRAMS = 300;
/** Largest payload of an echoed datagram, bytes: what a kernel takes of IPv4, without a SOCKS5 header for IPv6. */
const LARGEST = 65_507 - 22;
/** What the way behind the device takes in the last test. IPv6 has no less than 1,280 bytes. */
const SMALL_MTU = 1300;
/** What a kernel counts when fragments or checksums are wrong. */
const ERRORS = ["Udp.InCsumErrors", "Udp6InCsumErrors", "Ip.InHdrErrors", "Ip.ReasmFails", "Ip6ReasmFails"];
const REASSEMBLED: Readonly<Record<IpVersion, string>> = { 4: "Ip.ReasmOKs", 6: "Ip6ReasmOKs" };
const CUT: Readonly<Record<IpVersion, string>> = { 4: "Ip.FragCreates", 6: "Ip6FragCreates" };

t.setTimeout(300_000);
const noPing = findProgram("ping") === null ? "ping (iputils-ping) is not installed" : false;
const lab = await Lab.open(t);

/** Datagrams of all sizes to the echo server and back: what comes back is what was sent, and nearly all of it does. */
async function checkEcho(t: Test, client: Client): Promise<void> {
  const before = await client.call("counters");
  for (const version of VERSIONS) {
    for (const largest of [8192, LARGEST]) {
      const echo = await client.call("echo", { version, count: DATAGRAMS, largest, parallel: 2 });
      t.equal(echo.wrong, 0, `IPv${version} datagrams that differ`);
      t.ok(echo.received > DATAGRAMS * 0.9, `IPv${version} up to ${largest} bytes: ${echo.received} of ${echo.sent}`);
    }
  }
  const after = await client.call("counters");
  const grown = (name: string): number => (after[name] ?? 0) - (before[name] ?? 0);
  for (const name of ERRORS) t.equal(grown(name), 0, `${name} of the client's kernel`);
  for (const version of VERSIONS) {
    t.ok(grown(CUT[version]) > DATAGRAMS, `${CUT[version]}: ${grown(CUT[version])} fragments went out`);
    t.ok(
      grown(REASSEMBLED[version]) > DATAGRAMS / 2,
      `${REASSEMBLED[version]}: ${grown(REASSEMBLED[version])} came whole`,
    );
  }
}

/** The stack has dropped no fragment, and holds none. */
async function checkStack(t: Test): Promise<void> {
  const { stack, deviceWriteErrors } = (await lab.snapshot()).stats;
  t.equal(deviceWriteErrors, 0, "packets that the kernel refused");
  const names = Object.keys(stack.drops).filter((name) => /fragment|checksum|udpLength|icmp/i.test(name));
  t.same(names, [], "nothing was dropped");
  t.same(stack.fragments, { datagrams: 0, bytes: 0 });
  t.equal(stack.impossibleTransitions, 0, "impossible transitions");
}

async function ping(t: Test, client: Client, version: IpVersion, size: number): Promise<void> {
  const args = [`-${version}`, "-n", "-c", `${PINGS}`, "-i", "0.05", "-W", "5", "-s", `${size}`, SERVER[version]];
  const { status, stdout, stderr } = await client.call("run", "ping", args);
  t.equal(status, 0, `ping -${version} -s ${size}: ${stderr}`);
  t.match(stdout, `${PINGS} packets transmitted, ${PINGS} received, 0% packet loss`);
  // ping compares the data itself, and says where it differs.
  t.notMatch(stdout, /wrong data byte/);
}

async function run(t: Test, settings: EngineSettings, check: (t: Test) => Promise<void>): Promise<void> {
  t.comment(await lab.start(settings));
  await check(t);
  await checkStack(t);
  await lab.engine.call("stop", 0);
}

const RUNS: readonly { readonly offload: OffloadLevel; readonly mtu: number }[] = [
  { offload: "auto", mtu: 1500 },
  { offload: "tso", mtu: 1500 },
  { offload: "checksum", mtu: 1500 },
  { offload: "none", mtu: 1500 },
  { offload: "auto", mtu: 1280 },
  { offload: "none", mtu: 9000 },
];
for (const { offload, mtu } of RUNS) {
  t.test(`UDP datagrams of up to ${LARGEST} bytes there and back, offload ${offload}, MTU ${mtu}`, (t) =>
    run(t, { offload, mtu }, (t) => checkEcho(t, lab.client)),
  );
}

for (const offload of ["auto", "none"] as const) {
  t.test(`large pings are answered, offload ${offload}`, { skip: noPing }, (t) =>
    run(t, { offload }, async (t) => {
      for (const version of VERSIONS) {
        for (const size of [56, 1472, 1473, 8000, 20_000, 65_507 - (version === 4 ? 0 : 20)]) {
          await ping(t, lab.client, version, size);
        }
      }
    }),
  );
}

t.test("the same through a SOCKS5 proxy", async (t) => {
  const proxy = await ProxyServer.listen({ host: "127.0.0.1", port: 0 });
  t.teardown(() => proxy.close());
  const url = `socks5://127.0.0.1:${proxy.address.port}`;
  await run(t, { proxy: { url, address: "127.0.0.1" } }, (t) => checkEcho(t, lab.client));
});

t.test("fragments in any order, and twice", async (t) => {
  t.comment(await lab.start({ faults: { seed: 9, drop: 0, duplicate: 0.05, reorder: 0.2 } }));
  for (const version of VERSIONS) {
    const echo = await lab.client.call("echo", { version, count: DATAGRAMS, largest: 8192, parallel: 2 });
    t.equal(echo.wrong, 0, `IPv${version} datagrams that differ`);
    t.ok(echo.received > DATAGRAMS / 2, `IPv${version}: ${echo.received} of ${echo.sent}`);
  }
  await lab.engine.call("stop", 0);
});

t.test("a client behind another link, without offloads", async (t) => {
  const forwarded = await linkForwarded(t, lab);
  for (const offload of ["auto", "none"] as const) {
    await t.test(`fragments there and back, offload ${offload}`, (t) =>
      run(t, { offload }, async (t) => {
        await checkEcho(t, forwarded);
        if (noPing === false) for (const version of VERSIONS) await ping(t, forwarded, version, 20_000);
      }),
    );
  }
  // Packets to the client have to be small, which it does not know and cannot announce.
  for (const version of VERSIONS) {
    const to = `${FORWARDED[version]}/${version === 4 ? 32 : 128}`;
    await lab.run("ip", "route", "add", to, "dev", "veth0", "mtu", `${SMALL_MTU}`);
  }
  for (const offload of ["auto", "none"] as const) {
    for (const version of VERSIONS) {
      await t.test(`${SMALL_MTU} bytes at most on the way: IPv${version} gets through, offload ${offload}`, (t) =>
        run(t, { offload }, async (t) => {
          const before = await lab.client.call("counters");
          const down = await forwarded.call("download", version, 30 + version, 16 * MIB);
          t.equal(down.result, "ok", `download, ${Math.round(down.ms)} ms`);
          const up = await forwarded.call("upload", version, 40 + version, 4 * MIB);
          t.equal(up.result, "ok", `upload, ${Math.round(up.ms)} ms`);
          const after = await lab.client.call("counters");
          const name = version === 4 ? "IcmpMsg.OutType3" : "Icmp6OutPktTooBigs";
          t.ok((after[name] ?? 0) > (before[name] ?? 0), `${name}: the kernel has told of the small link`);
          const echo = await forwarded.call("echo", { version, count: 100, largest: 1452, parallel: 1 });
          t.equal(echo.wrong, 0, "datagrams that differ");
          // Those under way before the first message about one are lost.
          t.ok(echo.received >= 95, `${echo.received} of ${echo.sent} datagrams`);
        }),
      );
    }
  }
});
