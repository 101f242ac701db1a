/** The engine on a real device, without traffic: what it says of itself, and what is left when it stops. */
import "../host/in-namespace.ts";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import t from "tap";
import { openTun } from "../../src/device/tun.ts";
import { Engine } from "../../src/engine/engine.ts";
import { linkIndex, setUpInterface } from "../../src/host/interface.ts";
import { type Addon, isAddonProblem, loadAddon } from "../../src/io/addon.ts";
import { SILENT } from "../../src/proxy/logger.ts";
import { parseUpstream } from "../../src/proxy/url.ts";

function addonForTest(): Addon {
  const addon = loadAddon();
  if (isAddonProblem(addon)) throw new Error(addon.problem);
  return addon;
}

const addon = addonForTest();

/** How many descriptors are open, once the event loop has let go of those it was told to close. */
async function descriptors(): Promise<number> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  return readdirSync("/proc/self/fd").length;
}

t.test("stats() names device and backend: the addon's sockets are the default on Linux", async (t) => {
  const device = openTun(addon, { name: "tun0" });
  setUpInterface(addon, { name: "tun0", mtu: 1500, addresses: ["198.18.0.1/15"], routes: [] });
  const engine = new Engine({
    addon,
    device,
    upstream: parseUpstream("direct://"),
    serverAddresses: [],
    logger: SILENT,
  });
  engine.start();
  const stats = engine.stats();
  t.equal(stats.backend, "addon");
  t.match(stats.device, /^tun0 \(linux tun, offloads /);
  t.match(stats, { sockets: 0, stack: { flows: {}, impossibleTransitions: 0, timersArmed: 0 } });
  await engine.stop(0);
  t.throws(() => linkIndex(addon, "tun0"), "the device is gone");
});

t.test("engines one after the other leave no descriptors behind", async (t) => {
  const before = await descriptors();
  for (let i = 0; i < 5; i++) {
    const device = openTun(addon, { name: "tun%d" });
    const engine = new Engine({
      addon,
      device,
      upstream: parseUpstream("reject://"),
      serverAddresses: [],
      logger: SILENT,
    });
    engine.start();
    await engine.stop(100);
    await engine.stop(0);
  }
  t.equal(await descriptors(), before);
});

t.test("a device that is deleted ends the engine with a DeviceError", async (t) => {
  const device = openTun(addon, { name: "tun7" });
  const engine = new Engine({
    addon,
    device,
    upstream: parseUpstream("reject://"),
    serverAddresses: [],
    logger: SILENT,
  });
  setUpInterface(addon, { name: "tun7", mtu: 1500, addresses: [], routes: [] });
  engine.start();
  t.equal(spawnSync("ip", ["link", "del", "tun7"]).status, 0);
  const error = await engine.failed;
  t.match(error, { name: "DeviceError", code: "DEVICE_GONE" });
  await engine.stop(0);
});
