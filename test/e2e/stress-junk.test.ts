import "../host/in-namespace.ts";
import t from "tap";
import { compileJunk, type JunkReport } from "./stress/junk.ts";
import { IS_LONG, isIdle, Lab, MIB, TUN } from "./stress/lab.ts";

const JUNK_MS = IS_LONG ? 60_000 : 5000;
const SEED = Number(process.env["TUNRELAY_SEED"] ?? 4711);
const DOWNLOAD_BYTES = 2 * MIB;
/** Blocks that are kept while a fragment waits (`src/stack/ip/fragment-cells.ts`). */
const FRAGMENT_BLOCKS = 16;
/** Kinds of malformed packets, of every layer, that must have been seen. */
const MIN_REASONS = 15;

t.setTimeout(JUNK_MS + 180_000);
const lab = await Lab.open(t);
const junk = compileJunk(t);

for (const { offload, ms } of [
  { offload: "auto", ms: JUNK_MS },
  { offload: "none", ms: JUNK_MS / 2 },
] as const) {
  t.test(`junk out of the device, offload ${offload} (seed ${SEED})`, async (t) => {
    await lab.start({
      offload,
      tcp: {
        initialRtoMs: 100,
        minRtoMs: 50,
        maxRtoMs: 1000,
        // Junk fills the device's queue, so packets of live flows are lost in rows.
        synAckRetries: 4,
        dataRetries: 20,
        timeWaitMs: 200,
        finWait2Ms: 200,
      },
      udpTimeoutMs: 500,
      connectTimeoutMs: 5000,
      maxAssociations: 256,
    });
    const start = await lab.snapshot(true);
    const [report, v4, v6] = await Promise.all([
      lab.run(junk, TUN, `${SEED}`, `${ms}`).then(({ stdout }) => JSON.parse(stdout) as JunkReport),
      lab.client.call("downloadFor", 4, DOWNLOAD_BYTES, ms),
      lab.client.call("downloadFor", 6, DOWNLOAD_BYTES, ms),
    ]);
    const wrong = [...v4, ...v6].filter(({ result }) => result !== "ok");
    t.same(wrong, [], "downloads meanwhile are equal by hash");
    t.ok(report.sent > 1000 && report.live > 0 && report.opened > 0, `there was junk: ${JSON.stringify(report)}`);

    const { stats } = await lab.snapshot();
    t.comment(`${v4.length + v6.length} downloads; drops ${JSON.stringify(stats.stack.drops)}`);
    t.comment(`in ${stats.stack.packetsIn}, tcp ${JSON.stringify(stats.tcp)}, udp ${JSON.stringify(stats.udp)}`);
    const reasons = Object.keys(stats.stack.drops);
    t.ok(reasons.length >= MIN_REASONS, `reasons of drops: ${reasons.join(", ")}`);
    t.equal(stats.stack.impossibleTransitions, 0, "impossible transitions");

    // The connections that junk opened have nobody who would end them; some are still on their way.
    let end = await lab.untilIdle(0);
    for (let tries = 0; tries < 30 && !isIdle(end.stats); tries++) {
      await lab.server.call("resetAll");
      end = await lab.untilIdle(2000);
    }
    t.same(end.stats.stack.flows, {}, "flows");
    const { fragments } = end.stats.stack;
    t.equal(end.stats.stack.timersArmed, fragments.datagrams, "timers beside those of fragments");
    t.equal(end.stats.stack.bytesBuffered, 0, "bytes buffered");
    t.equal(end.stats.sockets, 0, "sockets");
    t.equal(end.stats.udp.associations, 0, "associations");
    t.equal(end.descriptors, start.descriptors, "descriptors");
    const used = ({ total, free }: { total: number; free: number }): number => total - free;
    t.ok(
      used(end.stats.stack.blocks) <=
        used(start.stats.stack.blocks) + 3 + (fragments.datagrams > 0 ? FRAGMENT_BLOCKS : 0),
      `blocks in use: ${used(start.stats.stack.blocks)} at first, ${used(end.stats.stack.blocks)} now`,
    );
    const after = await lab.client.call("download", 4, 5, DOWNLOAD_BYTES);
    t.equal(after.result, "ok", "traffic goes on");
    await lab.engine.call("stop", 0);
  });
}
