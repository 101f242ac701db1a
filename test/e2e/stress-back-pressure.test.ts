import "../host/in-namespace.ts";
import t, { type Test } from "tap";
import type { Snapshot } from "./stress/engine-process.ts";
import { IS_LONG, Lab, MIB, mib, sleep } from "./stress/lab.ts";
import { VERSIONS } from "./stress/network.ts";

/** How long the slow side is slow, ms. */
const SLOW_MS = IS_LONG ? 30_000 : 6000;
const DEFAULT_SEND_BUFFER = MIB;
const DEFAULT_RECV_BUFFER = 2 * MIB;
/** One read of an upstream may exceed the send buffer. */
const ONE_READ = 256 * 1024;
const RSS_GROWTH = 32 * MIB;
const SMALL_SLAB = 32 * MIB;
const STALLED = 200;

t.setTimeout(300_000);
const lab = await Lab.open(t);

/** The largest values while something runs. */
interface Peak {
  buffered: number;
  rss: number;
}

async function watch(ms: number, peak: Peak): Promise<void> {
  const end = performance.now() + ms;
  while (performance.now() < end) {
    note(peak, await lab.snapshot());
    await sleep(100);
  }
}

function note(peak: Peak, { stats, rss }: Snapshot): void {
  peak.buffered = Math.max(peak.buffered, stats.stack.bytesBuffered);
  peak.rss = Math.max(peak.rss, rss);
}

/** Everything is given back: flows, blocks, timers, sockets, descriptors. */
function checkIdle(t: Test, start: Snapshot, now: Snapshot): void {
  t.equal(now.stats.sockets, 0, "sockets");
  t.same(now.stats.stack.flows, {}, "flows");
  t.equal(now.stats.stack.bytesBuffered, 0, "bytes buffered");
  t.equal(now.stats.stack.timersArmed, 0, "timers");
  t.equal(now.stats.stack.impossibleTransitions, 0, "impossible transitions");
  t.equal(now.descriptors, start.descriptors, "descriptors");
  // The input blocks of device and sockets, and the block for small copies, are kept once they are made.
  const used = (snapshot: Snapshot): number => snapshot.stats.stack.blocks.total - snapshot.stats.stack.blocks.free;
  t.ok(used(now) <= used(start) + 3, `blocks in use: ${used(start)} at first, ${used(now)} now`);
}

for (const direction of ["down", "up"] as const) {
  t.test(`a slow ${direction === "down" ? "client" : "server"} at 1 KiB a second (DESIGN §4)`, async (t) => {
    await lab.server.call("setSlow", true);
    await lab.start({ tcp: { timeWaitMs: 100, finWait2Ms: 100 } });
    const start = await lab.snapshot();
    const peak: Peak = { buffered: 0, rss: 0 };
    for (const version of VERSIONS) {
      await lab.client.call("openSlow", { direction, version, count: 1, bytes: 1024 * MIB, seed: version });
    }
    await watch(SLOW_MS, peak);
    const limit =
      VERSIONS.length * (direction === "down" ? DEFAULT_SEND_BUFFER + ONE_READ : (DEFAULT_RECV_BUFFER * 9) / 8);
    t.ok(peak.buffered <= limit, `${peak.buffered} bytes buffered, at most ${limit}`);
    t.ok(peak.buffered > 0, "something is buffered at all");

    const others: string[] = [];
    for (const version of VERSIONS) {
      const [down, up] = await Promise.all([
        lab.client.call("download", version, 10, 64 * MIB),
        lab.client.call("upload", version, 11, 64 * MIB),
      ]);
      others.push(down.result, up.result);
      t.comment(`others meanwhile, IPv${version}: down ${rate(64, down.ms)}, up ${rate(64, up.ms)}`);
    }
    t.same(others, ["ok", "ok", "ok", "ok"], "other flows");
    note(peak, await lab.snapshot());
    t.ok(peak.rss - start.rss <= RSS_GROWTH, `resident memory grew by ${mib(peak.rss - start.rss)}`);
    t.comment(`${direction}: ${peak.buffered} bytes buffered, RSS +${mib(peak.rss - start.rss)}`);
    await lab.client.call("resetSlow");

    await t.test("and when it speeds up everything arrives", async (t) => {
      for (const version of VERSIONS) {
        await lab.client.call("openSlow", { direction, version, count: 2, bytes: 16 * MIB, seed: 20 + version });
      }
      await sleep(1500);
      await lab.server.call("setSlow", false);
      t.same(await lab.client.call("finishSlow"), [], "equal by hash");
    });
    checkIdle(t, start, await lab.untilIdle(10_000));
    await lab.engine.call("stop", 0);
  });
}

t.test(`${STALLED} stalled flows and a small slab`, async (t) => {
  await lab.server.call("setSlow", true);
  await lab.start({ slabBytes: SMALL_SLAB, tcp: { timeWaitMs: 100, finWait2Ms: 100 } });
  const start = await lab.snapshot();
  const count = STALLED / 4;
  for (const version of VERSIONS) {
    await lab.client.call("openSlow", { direction: "down", version, count, bytes: 2 * MIB, seed: 100 });
    await lab.client.call("openSlow", { direction: "up", version, count, bytes: 2 * MIB, seed: 300 });
  }
  await sleep(2000);
  const stalled = await lab.snapshot();
  t.equal(stalled.stats.tcp.open, STALLED, "all are open");
  t.comment(`${mib(stalled.stats.stack.bytesBuffered)} buffered, ${stalled.stats.stack.blocks.free} blocks free`);
  for (const version of VERSIONS) {
    const down = await lab.client.call("download", version, 10, 64 * MIB);
    t.equal(down.result, "ok", `another flow down, IPv${version}`);
    const up = await lab.client.call("upload", version, 11, 64 * MIB);
    t.equal(up.result, "ok", `another flow up, IPv${version}`);
    t.comment(`others meanwhile, IPv${version}: down ${rate(64, down.ms)}, up ${rate(64, up.ms)}`);
  }
  await lab.server.call("setSlow", false);
  t.same(await lab.client.call("finishSlow"), [], "the stalled flows are equal by hash in the end");
  const idle = await lab.untilIdle(10_000);
  checkIdle(t, start, idle);
  t.comment(`drops ${JSON.stringify(idle.stats.stack.drops)}, retransmits ${idle.stats.stack.retransmits}`);

  await t.test("and reset instead of finished, all is given back as well", async (t) => {
    await lab.server.call("setSlow", true);
    for (const direction of ["down", "up"] as const) {
      await lab.client.call("openSlow", { direction, version: 4, count: STALLED / 2, bytes: 2 * MIB, seed: 500 });
    }
    await sleep(1000);
    await lab.client.call("resetSlow");
    checkIdle(t, start, await lab.untilIdle(10_000));
  });
  await lab.engine.call("stop", 0);
});

function rate(mebibytes: number, ms: number): string {
  return `${((mebibytes * 8 * 1.048576) / ms).toFixed(2)} Gbit/s`;
}
