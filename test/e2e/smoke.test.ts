/**
 * The shortest way through everything: `serve`, `run` with a TUN device, and curl. It is what runs on each Node.js that is
 * supported, on each architecture and from an installed package: TUNRELAY_TEST_PROGRAM names the program then, and
 * TUNRELAY_TEST_NODE the file that must run it.
 */
import "../host/in-namespace.ts";
import { readFileSync, realpathSync } from "node:fs";
import t, { type Test } from "tap";
import { type IpVersion, PORT, SERVER, UNREACHABLE } from "../../src/cli/demo/network.ts";
import { programOf, runCommand, SHIM, skipWithoutTun } from "../cli/command.ts";
import { findProgram, Lab, OUTER, seededDigest, seededStream, streamUrl, untilListening } from "./harness.ts";
import { CREDENTIALS, PASSWORD, USER, writeFile } from "./peers/peer.ts";

const BYTES = 4 * 1024 * 1024;
const VERSIONS: readonly IpVersion[] = [4, 6];
const { TUNRELAY_TEST_NODE: wantedNode = process.execPath } = process.env;

const missing = ["curl", "dig"].find((name) => findProgram(name) === null);
const skip = missing === undefined ? skipWithoutTun() : `${missing} is not installed`;
t.setTimeout(240_000);

t.test("--version is that of package.json", async (t) => {
  const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
  t.match(await runCommand(["--version"]), { status: 0, stdout: `${version}\n`, stderr: "" });
});

t.test("serve and run: TCP and UDP over IPv4 and IPv6", { skip, timeout: 200_000 }, async (t) => {
  const lab = await Lab.open(t);
  const listen = `${OUTER[4]}:1080`;
  const file = writeFile(lab, "password", `${PASSWORD}\n`, 0o600);
  const proxy = lab.start(SHIM, ["serve", "--listen", listen, "--user", USER, "--password-file", file]);
  await untilListening(OUTER[4], 1080, proxy);
  const relay = await lab.relay(`socks5://${CREDENTIALS}${listen}`);
  for (const { process: child } of [proxy, relay]) {
    t.equal(programOf(child.pid ?? -1), realpathSync(wantedNode), `${SHIM} runs on the Node.js that is tried`);
  }
  const devices = async (): Promise<string> => (await lab.inClient("cat", ["/proc/net/dev"])).stdout;
  t.match(await devices(), /\btun0:/, "a real device");
  for (const version of VERSIONS) await checkVersion(t, lab, version);
  t.notMatch(relay.output, PASSWORD, "no password in the log");
  t.equal((await relay.stop()).code, 0, `SIGTERM ends run with 0: ${relay.output}`);
  t.equal((await proxy.stop()).code, 0, `SIGTERM ends serve with 0: ${proxy.output}`);
  t.notMatch(await devices(), /\btun0:/, "the device is gone");
});

async function checkVersion(t: Test, lab: Lab, version: IpVersion): Promise<void> {
  const digest = await seededDigest(version, BYTES);
  const url = streamUrl(version, `/stream/${version}/${BYTES}`);
  const down = await lab.inClient("sh", ["-c", 'curl -qsSg --noproxy "*" "$0" | sha256sum', url]);
  t.equal(down.stdout.split(" ")[0], digest, `IPv${version} download ${down.stderr}`);
  const upload = ["-qsSg", "--noproxy", "*", "-T", "-", "-H", "Expect:", streamUrl(version, "/sink")];
  const up = await lab.inClient("curl", upload, seededStream(version, BYTES));
  t.equal(up.stdout, digest, `IPv${version} upload ${up.stderr}`);
  for (const job of [
    { kind: "connect-fails", host: SERVER[version], port: PORT.closed, expected: "ECONNREFUSED" },
    { kind: "connect-fails", host: UNREACHABLE[version], port: PORT.http, expected: "EHOSTUNREACH" },
    { kind: "half-close-client", version, bytes: 100_000 },
    { kind: "half-close-server", version, bytes: 100_000 },
    { kind: "dns", version, transport: "udp" },
    { kind: "udp-echo", version, largest: 1400 },
  ] as const) {
    t.equal((await lab.job(job)).result, "ok", `IPv${version} ${JSON.stringify(job)}`);
  }
}
