/** Knobs of TCP, with their defaults. */

/** The two ends of a flow as the ISN function sees them. */
export interface FlowTuple {
  /** Big-endian words: local 4, remote 4 (IPv4 in mapped form), then `localPort << 16 | remotePort`. */
  readonly words: Int32Array;
}

/** Every field is optional; times in ms, sizes in bytes. */
export interface TcpOptions {
  /** Receive buffer a flow: the window offered. Default 2 MiB; without window scaling at most 65,535 is offered. */
  readonly recvBuffer?: number;
  /** Send buffer a flow: unacknowledged and unsent bytes kept. Default 1 MiB. */
  readonly sendBuffer?: number;
  /** RFC 7323 window scaling: false for none, or the shift to offer (0..14). Default: the smallest that fits. */
  readonly windowScale?: boolean | number;
  /** RFC 7323 timestamps, when the peer offers them. Default true. */
  readonly timestamps?: boolean;
  /** RFC 2018 selective acknowledgments to the peer, when it offers them. Default true. */
  readonly sack?: boolean;
  /** Initial congestion window in segments (RFC 6928). Default 10. */
  readonly initialCwnd?: number;
  /** Nagle's algorithm (RFC 9293 §3.7.4). Default false: a relay passes on what it gets. */
  readonly nagle?: boolean;
  /** Longest delay of an acknowledgment. Default 20; 0 acknowledges at once. */
  readonly delayedAckMs?: number;
  /** RTO before any sample (RFC 6298 §2.1). Default 1000. */
  readonly initialRtoMs?: number;
  /** Floor of the RTO. Default 200. */
  readonly minRtoMs?: number;
  /** Ceiling of the RTO (RFC 6298 §2.5). Default 60,000. */
  readonly maxRtoMs?: number;
  /**
   * Flows that may wait in SYN-RECEIVED for the client's ACK. Default 1024. With one more, the oldest of them is reset
   * (RFC 4987 §3.4). Those that wait for their owner to accept them count towards `maxFlows` only.
   */
  readonly synBacklog?: number;
  /** Retransmissions of a SYN-ACK before the flow is forgotten. Default 5. */
  readonly synAckRetries?: number;
  /** Retransmissions of data in a row before the flow times out. Default 15, about 15 min (RFC 9293 §3.8.3, R2). */
  readonly dataRetries?: number;
  /** Length of TIME-WAIT. Default 60,000: one MSL of 30 s each way, as the clients' own kernels. */
  readonly timeWaitMs?: number;
  /** Most flows in TIME-WAIT; the oldest goes first. Default 16,384. */
  readonly maxTimeWait?: number;
  /** How long FIN-WAIT-2 lasts once nobody can read any more. Default 60,000. */
  readonly finWait2Ms?: number;
  /**
   * Silence of a client after which it is asked whether it is still there (RFC 9293 §3.8.4); at least 1000. Default 0:
   * it is never asked (MUST-25), and no shorter time than the two hours of MUST-28 is suggested.
   */
  readonly keepAliveIdleMs?: number;
  /** How long an answer may take before the next question. Default 75,000. */
  readonly keepAliveIntervalMs?: number;
  /** Questions without an answer after which the flow times out. Default 9, as the clients' own kernels. */
  readonly keepAliveProbes?: number;
  /** Most flows, without those in TIME-WAIT; more are reset. 0 for no limit. Default 65,536. */
  readonly maxFlows?: number;
  /** Most flows of one client address, counted like `maxFlows`; more are reset. Default 0: no limit. */
  readonly maxFlowsPerSource?: number;
  /** Initial sequence number of a flow; default RFC 6528 with a secret drawn at start. */
  readonly isn?: (tuple: FlowTuple) => number;
}

/** `TcpOptions` with every field set. */
export interface TcpSettings {
  readonly recvBuffer: number;
  readonly sendBuffer: number;
  /** Shift to offer, or -1 for none. */
  readonly windowShift: number;
  readonly timestamps: boolean;
  readonly sack: boolean;
  readonly initialCwnd: number;
  readonly nagle: boolean;
  readonly delayedAckMs: number;
  readonly initialRtoMs: number;
  readonly minRtoMs: number;
  readonly maxRtoMs: number;
  readonly synBacklog: number;
  readonly synAckRetries: number;
  readonly dataRetries: number;
  readonly timeWaitMs: number;
  readonly maxTimeWait: number;
  readonly finWait2Ms: number;
  readonly keepAliveIdleMs: number;
  readonly keepAliveIntervalMs: number;
  readonly keepAliveProbes: number;
  /** `Infinity` for no limit, as the next. */
  readonly maxFlows: number;
  readonly maxFlowsPerSource: number;
}

const MIB = 1 << 20;
/** Longest times of keep-alive, ms: 24 days. */
const MAX_KEEP_ALIVE_MS = 24 * 24 * 3600 * 1000;

/**
 * Checks options and fills in the defaults.
 * @throws RangeError naming the field, its value and the limits
 */
export function tcpSettings(options: TcpOptions): TcpSettings {
  const recvBuffer = within("recvBuffer", options.recvBuffer ?? 2 * MIB, 1, 1 << 30);
  return {
    recvBuffer,
    sendBuffer: within("sendBuffer", options.sendBuffer ?? MIB, 1, 1 << 30),
    windowShift: windowShift(options.windowScale ?? true, recvBuffer),
    timestamps: options.timestamps ?? true,
    sack: options.sack ?? true,
    initialCwnd: within("initialCwnd", options.initialCwnd ?? 10, 1, 65535),
    nagle: options.nagle ?? false,
    delayedAckMs: within("delayedAckMs", options.delayedAckMs ?? 20, 0, 500),
    initialRtoMs: within("initialRtoMs", options.initialRtoMs ?? 1000, 1, 60_000),
    minRtoMs: within("minRtoMs", options.minRtoMs ?? 200, 1, 60_000),
    maxRtoMs: within("maxRtoMs", options.maxRtoMs ?? 60_000, 1000, 3_600_000),
    synBacklog: within("synBacklog", options.synBacklog ?? 1024, 1, 1 << 20),
    synAckRetries: within("synAckRetries", options.synAckRetries ?? 5, 0, 255),
    dataRetries: within("dataRetries", options.dataRetries ?? 15, 1, 255),
    timeWaitMs: within("timeWaitMs", options.timeWaitMs ?? 60_000, 0, 600_000),
    maxTimeWait: within("maxTimeWait", options.maxTimeWait ?? 16_384, 0, 1 << 24),
    finWait2Ms: within("finWait2Ms", options.finWait2Ms ?? 60_000, 0, 3_600_000),
    keepAliveIdleMs: keepAliveMs(options.keepAliveIdleMs ?? 0),
    keepAliveIntervalMs: within("keepAliveIntervalMs", options.keepAliveIntervalMs ?? 75_000, 1000, MAX_KEEP_ALIVE_MS),
    keepAliveProbes: within("keepAliveProbes", options.keepAliveProbes ?? 9, 1, 255),
    maxFlows: limit("maxFlows", options.maxFlows ?? 65_536),
    maxFlowsPerSource: limit("maxFlowsPerSource", options.maxFlowsPerSource ?? 0),
  };
}

/**
 * Checks the idle time of keep-alive, ms; 0 is off.
 * @throws RangeError
 */
export function keepAliveMs(idleMs: number): number {
  return idleMs === 0 ? 0 : within("keepAliveIdleMs", idleMs, 1000, MAX_KEEP_ALIVE_MS);
}

/** A limit of which 0 means that there is none. */
function limit(field: string, value: number): number {
  return within(field, value, 0, 1 << 24) === 0 ? Number.POSITIVE_INFINITY : value;
}

function within(field: string, value: number, min: number, max: number): number {
  if (!(Number.isInteger(value) && value >= min && value <= max)) {
    throw new RangeError(`${field} is ${value}, expected an integer from ${min} to ${max}`);
  }
  return value;
}

function windowShift(option: boolean | number, recvBuffer: number): number {
  if (option === false) return -1;
  if (option !== true) return within("windowScale", option, 0, 14);
  let shift = 0;
  while (shift < 14 && 65535 * 2 ** shift < recvBuffer) shift++;
  return shift;
}
