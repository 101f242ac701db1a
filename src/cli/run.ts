/**
 * `tunrelay run`: everything is read and checked first, then looked up, then made. What was made goes away with the
 * device, whatever fails.
 */

import type { Offload } from "../device/device.ts";
import { openTun, type TunDevice } from "../device/tun.ts";
import { Engine } from "../engine/engine.ts";
import { linkIndex, setUpInterface, TX_QUEUE_PACKETS } from "../host/interface.ts";
import { type Addon, isAddonProblem, loadAddon } from "../io/addon.ts";
import type { IpBytes } from "../stack/flow/address.ts";
import { CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";
import { openLogger } from "./log.ts";
import { refuseLoop } from "./loop.ts";
import type { RunFlags } from "./program.ts";
import { resolveHost } from "./resolve.ts";
import { checkSocketRights } from "./rights.ts";
import { type RunOptions, readRunOptions } from "./run-options.ts";
import { firstSignal } from "./signals.ts";
import type { CidrOption } from "./values.ts";
import { readVersion } from "./version.ts";

/** Runs until a signal or the device's end; returns the exit code. */
export async function run(flags: RunFlags): Promise<number> {
  const options = await readRunOptions(flags);
  const { upstream } = options;
  const upstreams = upstream.server?.kind !== "tcp" ? [] : await resolveHost(upstream.server.host);
  const addon = requireAddon();
  if (options.oif !== null) checkInterface(addon, options.oif);
  checkSocketRights(addon, options);
  const logger = await openLogger(options.log);
  const device = openTun(addon, { name: options.device, mtu: options.mtu });
  let engine: Engine;
  try {
    setUp(addon, device, options, upstreams);
    engine = new Engine({
      addon,
      device,
      upstream,
      serverAddresses: upstreams,
      logger,
      ...options.engine,
      ...(options.mark === 0 ? {} : { fwmark: options.mark }),
      ...(options.oif === null ? {} : { interface: options.oif }),
    });
  } catch (error) {
    device.close();
    throw error;
  }
  const stopped = firstSignal();
  engine.start();
  for (const { level, text } of options.notes) logger[level](text);
  const offload = describeOffload(device.offload);
  logger.info(`tunrelay ${readVersion()}: ${device.name} (mtu ${device.mtu}, ${offload}) -> ${upstream.label}`);
  const end = await Promise.race([stopped, engine.failed]);
  if (typeof end === "string") logger.debug(`${end}: ending within ${options.drainMs} ms`);
  await engine.stop(typeof end === "string" ? options.drainMs : 0);
  logger.close();
  if (typeof end === "string") return ExitCode.ok;
  throw end;
}

function setUp(addon: Addon, device: TunDevice, options: RunOptions, upstreams: readonly IpBytes[]): void {
  const { name } = device;
  const { mtu, addresses, routes, mark, oif } = options;
  const textOf = ({ text }: CidrOption): string => text;
  setUpInterface(addon, {
    name,
    mtu,
    ...(device.persistent ? {} : { txQueueLen: TX_QUEUE_PACKETS }),
    addresses: addresses.map(textOf),
    routes: routes.map(textOf),
  });
  const { rejects, server } = options.upstream;
  // What goes to a Unix socket is routed by nobody.
  refuseLoop(addon, { device: name, upstreams, dials: !rejects && server?.kind !== "unix", routes, mark, oif });
}

function requireAddon(): Addon {
  const addon = loadAddon();
  if (isAddonProblem(addon)) throw new CliError(ExitCode.system, addon.problem);
  return addon;
}

function checkInterface(addon: Addon, name: string): void {
  try {
    linkIndex(addon, name);
  } catch (error) {
    throw new CliError(ExitCode.usage, `--interface ${name}: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}

function describeOffload({ checksum, tso, uso }: Offload): string {
  const names = [...(tso ? ["tso"] : []), ...(uso ? ["uso"] : [])];
  if (names.length > 0) return `offload ${names.join("+")}`;
  return checksum ? "offload checksum" : "no offload";
}
