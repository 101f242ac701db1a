/** Very many connections through a proxy that can hold them, and what is left when they have ended. */
import "../host/in-namespace.ts";
import { execFileSync, spawn } from "node:child_process";
import { connect } from "node:net";
import t, { type Test } from "tap";
import { SHIM } from "../cli/command.ts";
import type { Snapshot } from "./stress/engine-process.ts";
import { IS_LONG, Lab, MIB, mib, sleep } from "./stress/lab.ts";

const IDLE_FLOWS = 10_000;
const FLOWS_IN_TURN = IS_LONG ? 100_000 : 10_000;
const PARALLEL = 64;
const PROXY_PORTS = [1080, 1081] as const;
/** Beyond what Node.js keeps of its own, bytes: the records of a flow, with room for a collector that is late. */
const MAX_BYTES_PER_FLOW = 4096;
const HEAP_GROWTH = 4 * MIB;

t.setTimeout(300_000);
const lab = await Lab.open(t);
await lab.client.call("writeFile", "/proc/sys/net/ipv4/ip_local_port_range", "2000 65000");
// A process may not have descriptors for all of it, so that the connections to the first port are shared out.
for (const port of PROXY_PORTS) await startProxy(port);
const [firstPort, secondPort] = PROXY_PORTS;
const half = `-t nat -A OUTPUT -p tcp --dport ${firstPort} -m statistic --mode nth --every 2 --packet 0`;
execFileSync("iptables", `${half} -j REDIRECT --to-ports ${secondPort}`.split(" "));

async function startProxy(port: number): Promise<void> {
  const proxy = spawn(SHIM, ["serve", "--listen", `127.0.0.1:${port}`], { stdio: ["ignore", "ignore", "inherit"] });
  t.teardown(() => proxy.kill());
  const isUp = (): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
  while (!(await isUp())) {
    if (proxy.exitCode !== null) throw new Error("the proxy has ended");
    await sleep(50);
  }
}

async function start(): Promise<void> {
  await lab.start({
    tcp: { timeWaitMs: 200, finWait2Ms: 1000, synBacklog: 4096 },
    proxy: { url: `socks5://127.0.0.1:${firstPort}`, address: "127.0.0.1" },
  });
}

function used({ stats }: Snapshot): number {
  return stats.stack.blocks.total - stats.stack.blocks.free;
}

/** The timers, sockets, descriptors and memory are as they were. */
function compare(t: Test, before: Snapshot, after: Snapshot): void {
  t.same(after.stats.stack.flows, {}, "flows");
  t.equal(after.stats.stack.timersArmed, 0, "timers");
  t.equal(after.stats.sockets, 0, "sockets");
  t.equal(after.stats.stack.bytesBuffered, 0, "bytes buffered");
  t.equal(after.descriptors, before.descriptors, "descriptors");
  t.ok(used(after) <= used(before) + 3, `blocks in use: ${used(before)} before, ${used(after)} now`);
  const growth = after.heap - before.heap;
  t.ok(growth <= HEAP_GROWTH, `the heap grew by ${mib(growth)}`);
}

t.test(`${IDLE_FLOWS} idle flows at once`, async (t) => {
  await start();
  // What is made once, as the tables of a flow, is made by the first round and kept.
  await lab.client.call("hold", 100, PARALLEL);
  await lab.client.call("release");
  await lab.untilIdle(20_000);
  const before = await lab.snapshot(true);
  await lab.client.call("hold", IDLE_FLOWS, PARALLEL);
  const full = await lab.snapshot(true);
  t.equal(full.stats.tcp.open, IDLE_FLOWS, "open flows");
  t.equal(full.stats.stack.timersArmed, 0, "an idle flow has no timer");
  t.equal(full.stats.stack.bytesBuffered, 0, "and no buffer");
  const resident = (full.rss - before.rss) / IDLE_FLOWS;
  const heap = (full.heap - before.heap) / IDLE_FLOWS;
  t.comment(`a flow: ${(resident / 1024).toFixed(2)} KiB resident, ${(heap / 1024).toFixed(2)} KiB of it in the heap`);
  t.ok(resident <= MAX_BYTES_PER_FLOW, `${Math.round(resident)} bytes resident for a flow`);
  t.equal(await lab.client.call("release"), IDLE_FLOWS, "all ended in order");
  await lab.untilIdle(30_000);
  compare(t, before, await lab.snapshot(true));
  await lab.engine.call("stop", 0);
});

t.test(`${FLOWS_IN_TURN} flows in turn, ${PARALLEL} at once`, async (t) => {
  await start();
  t.same((await lab.client.call("churn", { count: 2000, parallel: PARALLEL })).wrong, {}, "warming up");
  await lab.untilIdle(20_000);
  const before = await lab.snapshot(true);
  const result = await lab.client.call("churn", { count: FLOWS_IN_TURN, parallel: PARALLEL });
  t.same(result.wrong, {}, "all ended as they should");
  t.equal(result.ok, FLOWS_IN_TURN, "flows");
  t.comment(`${Math.round((FLOWS_IN_TURN * 1000) / result.ms)} flows a second`);
  await lab.untilIdle(20_000);
  const after = await lab.snapshot(true);
  compare(t, before, after);
  t.comment(`resident ${mib(before.rss)} before, ${mib(after.rss)} after`);
  await lab.engine.call("stop", 0);
});
