import "../host/in-namespace.ts";
import t from "tap";
import { Lab, MIB, sleep, TUN } from "./stress/lab.ts";
import { VERSIONS } from "./stress/network.ts";

/** Far longer than any of the flows that end by themselves. */
const PATIENT_MS = 60_000;
const OPEN_FLOWS = 100;

t.setTimeout(120_000);
const lab = await Lab.open(t);

/** Whether the client has the device. */
async function hasDevice(): Promise<boolean> {
  return (await lab.client.call("run", "ip", ["link", "show", TUN])).status === 0;
}

t.test("stop waits for flows that end, and not longer", async (t) => {
  await lab.start({});
  const download = lab.client.call("download", 4, 1, 64 * MIB);
  const upload = lab.client.call("upload", 6, 2, 64 * MIB);
  await lab.until(({ stats }) => stats.tcp.open === 2, 5000);
  const ms = await lab.engine.call("stop", PATIENT_MS);
  t.equal((await download).result, "ok", "download");
  t.equal((await upload).result, "ok", "upload");
  t.ok(ms < PATIENT_MS, `stopped after ${Math.round(ms)} ms`);
  t.notOk(await hasDevice(), "the device is gone");
});

t.test("stop resets what does not end in time", async (t) => {
  await lab.server.call("setSlow", true);
  await lab.start({});
  for (const version of VERSIONS) {
    for (const direction of ["down", "up"] as const) {
      await lab.client.call("openSlow", { direction, version, count: OPEN_FLOWS / 4, bytes: 64 * MIB, seed: 1 });
    }
  }
  // Long enough for windows to close and to be probed.
  await sleep(1000);
  t.equal((await lab.snapshot()).stats.tcp.open, OPEN_FLOWS, "flows are open");
  const ms = await lab.engine.call("stop", 300);
  t.ok(ms >= 300, "the flows had their time");
  t.equal((await lab.run("ss", "-Htn", "state", "established")).stdout, "", "every client's kernel has seen the reset");
  // Behind unread bytes Node tells of an end only; where it writes, of the reset itself.
  const ends = await lab.client.call("finishSlow");
  t.equal(ends.length, OPEN_FLOWS, "every client sees an early end");
  t.ok(ends.filter((end) => end === "ECONNRESET").length >= OPEN_FLOWS / 2, "uploads see a reset");
  t.notOk(await hasDevice(), "the device is gone");
});

t.test("another engine takes the place of one that was stopped", async (t) => {
  for (let i = 0; i < 3; i++) {
    await lab.start({});
    for (const version of VERSIONS) t.equal((await lab.client.call("download", version, 3, MIB)).result, "ok");
    const { descriptors, stats } = await lab.snapshot();
    t.comment(`${descriptors} descriptors, ${stats.stack.blocks.free} blocks free`);
    await lab.engine.call("stop", 0);
  }
});
