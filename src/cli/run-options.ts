/** Options of `tunrelay run`: everything that was written, checked before anything is made. */
import type { EngineOptions } from "../engine/engine.ts";
import { readDescriptors } from "../host/descriptors.ts";
import type { Upstream } from "../proxy/upstream.ts";
import type { LogOptions } from "./log.ts";
import type { RunFlags } from "./program.ts";
import { readProxyOptions } from "./secrets.ts";
import {
  type CidrOption,
  parseCidrOption,
  parseCount,
  parseDevice,
  parseDuration,
  parseInterfaceName,
  parseLogOptions,
  parseMark,
  parseMtu,
  parseRoutes,
  parseSize,
} from "./values.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** What the stack's tables take. */
const MAX_COUNT = 1 << 24;
/** Flows at a time without `--max-flows`. */
export const DEFAULT_MAX_FLOWS = 65_536;
/** UDP clients need two descriptors each, and a block of memory holds the order of all. */
const MAX_UDP = 1 << 20;
const MIB = 1 << 20;
/** Smallest packet memory that leaves room for traffic, and the largest that offsets of 31 bits reach, bytes. */
const MIN_MEMORY = 8 * MIB;
const MAX_MEMORY = 2047 * MIB;
/** Open files kept for the device, the poller, look-ups and a few more. */
export const SPARE_DESCRIPTORS = 32;
/** A peer that is asked by keep-alive is given up after so many questions without an answer, */
const KEEP_ALIVE_PROBES = 5;
/** and is asked again so soon, ms, or after the time of silence when that is shorter. */
const KEEP_ALIVE_INTERVAL_MS = 10_000;

/** Options of `tunrelay run`, checked. */
export interface RunOptions {
  readonly upstream: Upstream;
  readonly device: string;
  /** Bytes. */
  readonly mtu: number;
  readonly addresses: readonly CidrOption[];
  readonly routes: readonly CidrOption[];
  readonly oif: string | null;
  /** 0 for none. */
  readonly mark: number;
  readonly drainMs: number;
  readonly log: LogOptions;
  /** What goes to the engine as it is. */
  readonly engine: EngineLimits;
  /** What the log is to say at the start. */
  readonly notes: readonly Note[];
}

/** Times and limits of the engine. */
export type EngineLimits = Pick<
  EngineOptions,
  | "connectTimeoutMs"
  | "earlyAccept"
  | "handshakeTimeoutMs"
  | "keepAlive"
  | "maxAssociations"
  | "maxDials"
  | "slabBytes"
  | "tcp"
  | "tcpTimeoutMs"
  | "udpTimeoutMs"
>;

export interface Note {
  readonly level: "warn" | "info";
  readonly text: string;
}

/**
 * Reads the options of `run` and what belongs to them in files and environment.
 * @throws CliError or UpstreamError
 */
export async function readRunOptions(flags: RunFlags): Promise<RunOptions> {
  const { upstream, warnings } = readProxyOptions(flags);
  const addresses = flags.address.map((text) => parseCidrOption("--address", text));
  const routes = await parseRoutes(flags.route);
  const flows = readMaxFlows(flags, upstream);
  return {
    upstream,
    device: parseDevice(flags.device),
    mtu: parseMtu(flags.mtu, addresses, routes),
    addresses,
    routes,
    oif: flags.interface === undefined ? null : parseInterfaceName("--interface", flags.interface),
    mark: flags.fwmark === undefined ? 0 : parseMark(flags.fwmark),
    drainMs: parseDuration("--drain", flags.drain, 0, 10 * MINUTE_MS),
    log: parseLogOptions(flags),
    engine: readEngineLimits(flags, flows.maxFlows),
    notes: [...warnings.map((text): Note => ({ level: "warn", text })), ...(flows.note === null ? [] : [flows.note])],
  };
}

function readEngineLimits(flags: RunFlags, maxFlows: number): EngineLimits {
  const { keepalive, maxFlowsPerSource: perSource } = flags;
  const idleMs = keepalive === undefined ? 0 : parseDuration("--keepalive", keepalive, 1000, DAY_MS);
  const intervalMs = Math.min(KEEP_ALIVE_INTERVAL_MS, idleMs);
  const probes = KEEP_ALIVE_PROBES;
  return {
    udpTimeoutMs: parseDuration("--udp-timeout", flags.udpTimeout, 1000, DAY_MS),
    connectTimeoutMs: parseDuration("--connect-timeout", flags.connectTimeout, 100, 10 * MINUTE_MS),
    handshakeTimeoutMs: parseDuration("--answer-timeout", flags.answerTimeout, 100, 10 * MINUTE_MS),
    tcpTimeoutMs: parseDuration("--tcp-timeout", flags.tcpTimeout, 1000, 30 * DAY_MS),
    earlyAccept: flags.earlyAccept ?? false,
    maxDials: parseCount("--max-dials", flags.maxDials, 1, MAX_COUNT),
    maxAssociations: parseCount("--max-udp", flags.maxUdp, 1, MAX_UDP),
    slabBytes: parseSize("--max-memory", flags.maxMemory, MIN_MEMORY, MAX_MEMORY),
    ...(idleMs === 0 ? {} : { keepAlive: { idleMs, intervalMs, probes } }),
    tcp: {
      maxFlows,
      synBacklog: parseCount("--max-half-open", flags.maxHalfOpen, 1, 1 << 20),
      ...(perSource === undefined
        ? {}
        : { maxFlowsPerSource: parseCount("--max-flows-per-source", perSource, 1, MAX_COUNT) }),
      ...(idleMs === 0 ? {} : { keepAliveIdleMs: idleMs, keepAliveIntervalMs: intervalMs, keepAliveProbes: probes }),
    },
  };
}

interface MaxFlows {
  readonly maxFlows: number;
  /** That it is less than what was asked for; null when it is not. */
  readonly note: Note | null;
}

/** As many as were asked for, or as many as can be opened: each flow is a connection to the upstream. */
function readMaxFlows(flags: RunFlags, upstream: Upstream): MaxFlows {
  const asked = parseCount("--max-flows", flags.maxFlows ?? `${DEFAULT_MAX_FLOWS}`, 1, MAX_COUNT);
  const descriptors = upstream.rejects ? null : readDescriptors();
  if (descriptors === null) return { maxFlows: asked, note: null };
  const { limit, open } = descriptors;
  const maxFlows = Math.max(1, Math.min(asked, limit - open - SPARE_DESCRIPTORS));
  if (maxFlows === asked) return { maxFlows, note: null };
  const most = `at most ${maxFlows} connections at a time, not ${asked}`;
  const text = `${most}: the limit of open files is ${limit}; raise it (ulimit -n)`;
  // Who asked for a number must know that it is not met; the default is as good as what the machine allows.
  return { maxFlows, note: { level: flags.maxFlows === undefined ? "info" : "warn", text } };
}
