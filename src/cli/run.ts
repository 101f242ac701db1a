/**
 * `tunrelay run`: everything is read and checked first, then looked up, then made. What was made goes away with the
 * device, whatever fails.
 */

import type { Offload } from "../device/device.ts";
import { openTun, type TunDevice } from "../device/tun.ts";
import { Engine } from "../engine/engine.ts";
import { linkIndex, setUpInterface, TX_QUEUE_PACKETS } from "../host/interface.ts";
import { type Addon, isAddonProblem, loadAddon } from "../io/addon.ts";
import type { Upstream } from "../proxy/upstream.ts";
import { parseUpstream } from "../proxy/url.ts";
import type { IpBytes } from "../stack/flow/address.ts";
import { CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";
import { LineLogger, type LogLevel } from "./log.ts";
import { refuseLoop } from "./loop.ts";
import type { RunFlags } from "./program.ts";
import { resolveHost } from "./resolve.ts";
import { checkSocketRights } from "./rights.ts";
import { firstSignal } from "./signals.ts";
import {
  type CidrOption,
  parseCidrOption,
  parseDevice,
  parseDuration,
  parseInterfaceName,
  parseLogLevel,
  parseMark,
  parseMtu,
  parseRoutes,
} from "./values.ts";
import { readVersion } from "./version.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** Options of `tunrelay run`, checked. */
interface RunOptions {
  readonly upstream: Upstream;
  readonly device: string;
  /** Bytes. */
  readonly mtu: number;
  readonly addresses: readonly CidrOption[];
  readonly routes: readonly CidrOption[];
  readonly oif: string | null;
  /** 0 for none. */
  readonly mark: number;
  readonly udpTimeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly drainMs: number;
  readonly earlyAccept: boolean;
  readonly level: LogLevel;
}

/** Runs until a signal or the device's end; returns the exit code. */
export async function run(flags: RunFlags): Promise<number> {
  const options = await readFlags(flags);
  const { upstream } = options;
  const upstreams = upstream.server?.kind !== "tcp" ? [] : await resolveHost(upstream.server.host);
  const addon = requireAddon();
  if (options.oif !== null) checkInterface(addon, options.oif);
  checkSocketRights(addon, options);
  const logger = new LineLogger(options.level);
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
      udpTimeoutMs: options.udpTimeoutMs,
      connectTimeoutMs: options.connectTimeoutMs,
      earlyAccept: options.earlyAccept,
      ...(options.mark === 0 ? {} : { fwmark: options.mark }),
      ...(options.oif === null ? {} : { interface: options.oif }),
    });
  } catch (error) {
    device.close();
    throw error;
  }
  const stopped = firstSignal();
  engine.start();
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
  refuseLoop(addon, { device: name, upstreams, dials: !options.upstream.rejects, routes, mark, oif });
}

async function readFlags(flags: RunFlags): Promise<RunOptions> {
  const proxy = flags.proxy ?? process.env["TUNRELAY_PROXY"];
  if (proxy === undefined) {
    throw new CliError(
      ExitCode.usage,
      "--proxy is missing: give a URL such as socks5://127.0.0.1:1080, or set TUNRELAY_PROXY",
    );
  }
  const addresses = flags.address.map((text) => parseCidrOption("--address", text));
  const routes = await parseRoutes(flags.route);
  return {
    upstream: parseUpstream(proxy),
    device: parseDevice(flags.device),
    mtu: parseMtu(flags.mtu, addresses, routes),
    addresses,
    routes,
    oif: flags.interface === undefined ? null : parseInterfaceName("--interface", flags.interface),
    mark: flags.fwmark === undefined ? 0 : parseMark(flags.fwmark),
    udpTimeoutMs: parseDuration("--udp-timeout", flags.udpTimeout, 1000, DAY_MS),
    connectTimeoutMs: parseDuration("--connect-timeout", flags.connectTimeout, 100, 10 * MINUTE_MS),
    drainMs: parseDuration("--drain", flags.drain, 0, 10 * MINUTE_MS),
    earlyAccept: flags.earlyAccept ?? false,
    level: parseLogLevel(flags.loglevel),
  };
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
