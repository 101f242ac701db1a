import "../host/in-namespace.ts";
import t from "tap";
import type { EngineSettings, Snapshot } from "./stress/engine-process.ts";
import { IS_LONG, Lab, MIB } from "./stress/lab.ts";
import { VERSIONS } from "./stress/network.ts";

const BYTES = (IS_LONG ? 64 : 8) * MIB;
/** Where nearly every loss costs the sender a timeout. */
const FEWER_BYTES = BYTES / 4;
const SEED = Number(process.env["TUNRELAY_SEED"] ?? 20_601);

t.setTimeout(IS_LONG ? 900_000 : 200_000);
const lab = await Lab.open(t);

const RUNS: readonly { readonly name: string; readonly settings: EngineSettings; readonly bytes: number }[] = [
  {
    name: "2 % loss, 1 % duplicates, 3 % reordering, packet by packet",
    bytes: BYTES,
    settings: { offload: "none", faults: { seed: SEED, drop: 0.02, duplicate: 0.01, reorder: 0.03 } },
  },
  {
    name: "2 % loss, 1 % duplicates, 3 % reordering of super-segments",
    bytes: BYTES,
    settings: { offload: "auto", faults: { seed: SEED + 1, drop: 0.02, duplicate: 0.01, reorder: 0.03 } },
  },
  {
    name: "no loss, 20 % reordering, 10 % duplicates",
    bytes: BYTES,
    settings: { offload: "none", faults: { seed: SEED + 2, drop: 0, duplicate: 0.1, reorder: 0.2 } },
  },
  {
    name: "2 % loss without SACK, timestamps and window scaling",
    bytes: FEWER_BYTES,
    settings: {
      offload: "none",
      tcp: { sack: false, timestamps: false, windowScale: false },
      faults: { seed: SEED + 3, drop: 0.02, duplicate: 0.01, reorder: 0.03 },
    },
  },
];

for (const { name, settings, bytes } of RUNS) {
  t.test(`${name}: everything arrives (seed ${settings.faults?.seed})`, async (t) => {
    await lab.start({ ...settings, tcp: { ...settings.tcp, timeWaitMs: 100, finWait2Ms: 1000 } });
    const start = await lab.snapshot();
    for (const version of VERSIONS) {
      const down = await lab.client.call("download", version, SEED + version, bytes);
      t.equal(down.result, "ok", `IPv${version} down`);
      const up = await lab.client.call("upload", version, SEED + version, bytes);
      t.equal(up.result, "ok", `IPv${version} up`);
      t.comment(`IPv${version}: down ${goodput(bytes, down.ms)}, up ${goodput(bytes, up.ms)}`);
    }
    const end = await lab.untilIdle(20_000);
    t.comment(
      JSON.stringify({ ...end.faults, retransmits: end.stats.stack.retransmits, drops: end.stats.stack.drops }),
    );
    t.ok((end.faults?.reordered ?? 0) > 0, "there were faults");
    t.equal(end.stats.stack.impossibleTransitions, 0, "impossible transitions");
    t.same(end.stats.stack.flows, {}, "flows");
    t.equal(end.stats.stack.timersArmed, 0, "timers");
    t.equal(end.stats.stack.bytesBuffered, 0, "bytes buffered");
    t.ok(used(end) <= used(start) + 3, `blocks in use: ${used(start)} at first, ${used(end)} now`);
    await lab.engine.call("stop", 0);
  });
}

function used({ stats }: Snapshot): number {
  return stats.stack.blocks.total - stats.stack.blocks.free;
}

function goodput(bytes: number, ms: number): string {
  return `${((bytes * 8) / ms / 1000).toFixed(0)} Mbit/s`;
}
