import "../host/in-namespace.ts";
import { fileURLToPath } from "node:url";
import t, { type Test } from "tap";
import { PORT, SERVER } from "../../src/cli/demo/network.ts";
import { skipWithoutTun } from "../cli/command.ts";
import { findProgram, Lab, type Program } from "./harness.ts";
import { type Stage, tryFailures, tryKill, tryMany, tryTraffic } from "./matrix/cases.ts";
import type { MatrixClient } from "./matrix/client-process.ts";
import { type Cells, expectedOf, renderTable } from "./matrix/document.ts";
import { startTransferServers } from "./matrix/servers.ts";
import { BY_CHANCE, ENDS, FAILS, UPSTREAMS, type UpstreamKind, WORKS } from "./matrix/upstreams.ts";
import { kill, PASSWORD } from "./peers/peer.ts";
import { Remote } from "./stress/remote.ts";

const { TUNRELAY_TEST_BULK_MIB: bulkMib = "64" } = process.env;
const FIRST_PORT = 1100;
/** A chain takes two. */
const PORTS_EACH = 2;

t.setTimeout(900_000);
const noTun = skipWithoutTun();
const stage = noTun === false ? await openStage() : null;

async function openStage(): Promise<Stage> {
  const lab = await Lab.open(t);
  await startTransferServers();
  const script = fileURLToPath(new URL("./matrix/client-process.js", import.meta.url));
  const [nsenter, ...prefix] = lab.inClientPrefix;
  const client = new Remote<MatrixClient>("matrix client", nsenter, [...prefix, process.execPath, script]);
  t.teardown(() => client.end());
  // Bytes of each full bulk transfer; the environment variable changes it.
  return { lab, client, bulkBytes: Number(bulkMib) * 1024 * 1024 };
}

const seen = new Map<string, Cells>();
const only = process.env["DEBUG_MATRIX"];
for (const [i, kind] of UPSTREAMS.entries()) {
  if (only !== undefined && !new RegExp(only).test(kind.name)) continue;
  const missing = [...kind.programs, "curl", "dig"].find((name) => findProgram(name) === null);
  const skip = missing === undefined ? noTun : `${missing} is not installed`;
  t.test(`matrix: ${kind.name}`, { skip, timeout: 300_000 }, async (t) => {
    if (stage === null) return;
    const cells = await tryUpstream(t, stage, kind, FIRST_PORT + PORTS_EACH * i);
    seen.set(kind.name, cells);
    const expected = expectedOf(kind);
    for (const [column, wanted] of Object.entries(expected)) {
      const cell = cells[column] ?? "–";
      if (wanted === BY_CHANCE) t.match(cell, /^(kept|lost)$/, column);
      else t.equal(cell, wanted, column);
    }
  });
}

t.teardown(() => {
  if (seen.size === 0) return;
  const tables = [WORKS, FAILS, ENDS].map((columns) => renderTable(columns, seen));
  process.stderr.write(`\nWhat clients saw through each upstream:\n\n${tables.join("\n\n")}\n\n`);
});

/** Starts the upstream and a relay to it, and tries everything. */
async function tryUpstream(t: Test, stage: Stage, kind: UpstreamKind, port: number): Promise<Cells> {
  let peer = await kind.start(stage.lab, port);
  const restart = async (): Promise<void> => {
    peer = await kind.start(stage.lab, port);
  };
  const { urls, flags } = peer;
  const cells: Record<string, string> = {};
  const relay = await stage.lab.relay(urls, ...flags);
  try {
    Object.assign(cells, await tryTraffic(stage, kind, peer));
    Object.assign(cells, await tryFailures(stage, kind, peer));
    if (kind.isFull && !kind.isSlow) t.equal(await tryMany(stage), "ok", "many connections at once");
    if (peer.programs.length > 0) Object.assign(cells, await tryKill(stage, relay, () => kill(peer), restart));
  } finally {
    await end(t, relay);
  }
  const wrong = urls.map((url) => url.replace(PASSWORD, "wrong-secret"));
  if (wrong.join() !== urls.join()) {
    const relay = await stage.lab.relay(wrong, ...flags);
    cells["wrongPassword"] = await stage.client.call("connect", SERVER[4], PORT.http);
    await relay.says(/warn .*password/);
    await end(t, relay);
  }
  await kill(peer);
  return cells;
}

async function end(t: Test, relay: Program): Promise<void> {
  const { code } = await relay.stop();
  t.equal(code, 0, `SIGTERM ends the relay with 0: ${relay.output}`);
  t.notMatch(relay.output, /s3cret|wrong-secret/, "no password in the log");
}
