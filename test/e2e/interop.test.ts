import "../host/in-namespace.ts";
import { createServer } from "node:net";
import t, { type Test } from "tap";
import { hostPort, type IpVersion, PORT, SERVER, UNREACHABLE } from "../../src/cli/demo/network.ts";
import { skipWithoutTun } from "../cli/command.ts";
import { findProgram, Lab, NO_ROUTE, OUTER, type Program, seededDigest, seededStream, streamUrl } from "./harness.ts";
import { PASSWORD, type Peer, startDante, startMicrosocks, startServe, USER } from "./peers.ts";

const { TUNRELAY_TEST_BULK_MIB: bulkMib = "256" } = process.env;
/** Bytes of each bulk transfer; the environment variable TUNRELAY_TEST_BULK_MIB changes it. */
const BULK = Number(bulkMib) * 1024 * 1024;
const HALF_CLOSE_BYTES = 3_000_000;
const PARALLEL = 500;
/** On the link between the namespaces, but nobody has it. */
const SILENT = "10.77.0.99";
const VERSIONS: readonly IpVersion[] = [4, 6];

interface PeerKind {
  readonly name: string;
  /** The program it needs; null for our own. */
  readonly program: string | null;
  readonly port: number;
  readonly start: (lab: Lab, port: number) => Promise<Peer>;
  /** Whether half-closed connections stay open (DESIGN: microsocks loses them). */
  readonly halfClose: boolean;
  readonly udp: boolean;
}

const PEERS: readonly PeerKind[] = [
  { name: "dante", program: "danted", port: 1080, start: startDante, halfClose: true, udp: true },
  { name: "microsocks", program: "microsocks", port: 1081, start: startMicrosocks, halfClose: false, udp: false },
  { name: "tunrelay serve", program: null, port: 1082, start: startServe, halfClose: true, udp: true },
];

t.setTimeout(900_000);
const noTun = skipWithoutTun();
const lab: Lab | null = noTun === false ? await Lab.open(t) : null;

for (const kind of PEERS) {
  const missing = [kind.program, "curl", "dig"].find((name) => name !== null && findProgram(name) === null);
  const skip = missing === undefined ? noTun : `${missing} is not installed`;
  t.test(`through ${kind.name} with user name and password`, { skip, timeout: 600_000 }, async (t) => {
    if (lab === null) return;
    const peer = await kind.start(lab, kind.port);
    const relay = await lab.relay(peer.url);
    try {
      await checkPeer(t, lab, kind);
      t.notMatch(relay.output, PASSWORD, "no password in the log");
    } finally {
      const ended = await relay.stop();
      t.equal(ended.code, 0, `SIGTERM ends the relay with 0: ${relay.output}`);
      await peer.program.stop("SIGKILL");
    }
  });
}

async function checkPeer(t: Test, lab: Lab, kind: PeerKind): Promise<void> {
  for (const version of VERSIONS) {
    await t.test(`curl, ${BULK} bytes down and up, IPv${version}`, async (t) => {
      const seed = 40 + version;
      const digest = await seededDigest(seed, BULK);
      const url = streamUrl(version, `/stream/${seed}/${BULK}`);
      const down = await lab.inClient("sh", ["-c", 'curl -qsSg --noproxy "*" "$0" | sha256sum', url]);
      t.equal(down.stdout.split(" ")[0], digest, `download ${down.stderr}`);
      const sink = streamUrl(version, "/sink");
      const upload = ["-qsSg", "--noproxy", "*", "-T", "-", "-H", "Expect:", sink];
      const up = await lab.inClient("curl", upload, seededStream(seed, BULK));
      t.equal(up.stdout, digest, `upload ${up.stderr}`);
    });

    await t.test(`refused and unreachable are told apart, IPv${version} (DESIGN §4)`, async (t) => {
      for (const { host, port, expected } of [
        { host: SERVER[version], port: PORT.closed, expected: "ECONNREFUSED" },
        { host: UNREACHABLE[version], port: PORT.http, expected: "EHOSTUNREACH" },
        { host: NO_ROUTE[version], port: PORT.http, expected: "ENETUNREACH" },
      ]) {
        const outcome = await lab.job({ kind: "connect-fails", host, port, expected });
        t.equal(outcome.result, "ok", `${hostPort(host, port)} is ${expected}`);
      }
    });

    if (kind.halfClose) {
      await t.test(`half-close in both directions, IPv${version}`, async (t) => {
        for (const side of ["half-close-client", "half-close-server"] as const) {
          const outcome = await lab.job({ kind: side, version, bytes: HALF_CLOSE_BYTES });
          t.equal(outcome.result, "ok", side);
        }
      });
    }

    if (kind.udp) {
      await t.test(`dig and echo by UDP ASSOCIATE, IPv${version} (RFC 1928 §7)`, async (t) => {
        t.equal((await lab.job({ kind: "dns", version, transport: "udp" })).result, "ok", "dig");
        t.equal((await lab.job({ kind: "udp-echo", version, largest: 1400 })).result, "ok", "echo of 1 to 1400 bytes");
      });
    }
  }

  await t.test(`${PARALLEL} curls at once`, async (t) => {
    // The server answers none before all are there.
    const url = streamUrl(4, `/barrier/${PARALLEL}`);
    const script = 'for i in $(seq "$1"); do curl -qsS --noproxy "*" "$0" & done; wait';
    const { stdout, stderr } = await lab.inClient("sh", ["-c", script, url, `${PARALLEL}`]);
    t.equal(stdout, "passed\n".repeat(PARALLEL), stderr);
  });
}

t.test("trouble with the proxy itself is ECONNREFUSED and a log line (DESIGN §4)", { skip: noTun }, async (t) => {
  if (lab === null) return;
  const serve = await startServe(lab, 1083);
  const closing = createServer((socket) => socket.on("error", () => {}).end()).listen(1084, OUTER[4]);
  t.teardown(() => closing.close());
  const credentials = `${USER}:${PASSWORD}@`;
  for (const { name, url, flags, says } of [
    { name: "nobody listens", url: `socks5://${credentials}${OUTER[4]}:1`, flags: [], says: "ECONNREFUSED" },
    { name: "wrong password", url: serve.url.replace(PASSWORD, "wrong"), flags: [], says: "refused user and password" },
    { name: "closes at once", url: `socks5://${credentials}${OUTER[4]}:1084`, flags: [], says: null },
    {
      name: "does not answer",
      url: `socks5://${credentials}${SILENT}:1080`,
      flags: ["--connect-timeout", "500ms"],
      says: "in time",
    },
  ]) {
    const relay: Program = await lab.relay(url, ...flags);
    for (const version of VERSIONS) {
      const job = { kind: "connect-fails", host: SERVER[version], port: PORT.http, expected: "ECONNREFUSED" } as const;
      t.equal((await lab.job(job)).result, "ok", `${name}, IPv${version}`);
    }
    // An end within the handshake may be about this one flow only: it is no news about the proxy.
    if (says !== null) await relay.says(says);
    t.notMatch(relay.output, /s3cret|wrong@/, "no password in the log");
    t.equal((await relay.stop()).code, 0);
  }
});
