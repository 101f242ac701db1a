import "../host/in-namespace.ts";
import t from "tap";
import type { Snapshot } from "./stress/engine-process.ts";
import { IS_LONG, Lab, MIB, mib } from "./stress/lab.ts";
import { VERSIONS } from "./stress/network.ts";

const FLOWS = IS_LONG ? 100_000 : 20_000;
/** Flows after which memory counts: what is made once has been made then. */
const WARM_UP = 4000;
const PARALLEL = 64;
const HEAP_GROWTH = 4 * MIB;
const DATAGRAM_SOCKETS = 500;

t.setTimeout(300_000);
const lab = await Lab.open(t);
// Ports of the client and of the engine's side come round faster than TIME-WAIT of either kernel ends.
await lab.client.call("writeFile", "/proc/sys/net/ipv4/ip_local_port_range", "2000 65000");

function used({ stats }: Snapshot): number {
  return stats.stack.blocks.total - stats.stack.blocks.free;
}

t.test(`${FLOWS} short flows, ${PARALLEL} at once, ended in every way`, async (t) => {
  await lab.start({ tcp: { timeWaitMs: 200, finWait2Ms: 1000 }, udpTimeoutMs: 500 });
  const first = await lab.snapshot(true);
  const warm = await lab.client.call("churn", { count: WARM_UP, parallel: PARALLEL });
  t.same(warm.wrong, {}, "warming up");
  await lab.untilIdle(20_000);
  const before = await lab.snapshot(true);

  const result = await lab.client.call("churn", { count: FLOWS, parallel: PARALLEL });
  t.same(result.wrong, {}, "all ended as they should");
  t.equal(result.ok, FLOWS, "flows");
  t.comment(`${Math.round((FLOWS * 1000) / result.ms)} flows a second`);
  for (const version of VERSIONS) {
    const options = { version, count: 4 * DATAGRAM_SOCKETS, largest: 1000, parallel: 1, sockets: DATAGRAM_SOCKETS };
    const echo = await lab.client.call("echo", options);
    t.equal(echo.wrong, 0, `IPv${version} datagrams that differ`);
    t.ok(echo.received > options.count / 2, `IPv${version} datagrams that came back: ${echo.received} of ${echo.sent}`);
  }

  await lab.untilIdle(20_000);
  const after = await lab.snapshot(true);
  t.same(after.stats.stack.flows, {}, "flows");
  t.equal(after.stats.stack.timersArmed, 0, "timers");
  t.equal(after.stats.sockets, 0, "sockets");
  t.equal(after.stats.udp.associations, 0, "associations");
  t.equal(after.stats.stack.bytesBuffered, 0, "bytes buffered");
  t.equal(after.stats.stack.impossibleTransitions, 0, "impossible transitions");
  t.equal(after.descriptors, first.descriptors, "descriptors");
  t.ok(used(after) <= used(first) + 3, `blocks in use: ${used(first)} at first, ${used(after)} now`);
  const growth = after.heap - before.heap;
  t.ok(growth <= HEAP_GROWTH, `the heap grew by ${mib(growth)}`);
  t.comment(`heap ${mib(first.heap)}, ${mib(before.heap)}, ${mib(after.heap)}; RSS +${mib(after.rss - first.rss)}`);
  await lab.engine.call("stop", 0);
});
