/** What the library says of itself goes here; the command line writes lines, others may do what they like. */
export interface Logger {
  isEnabled(level: "error" | "warn" | "info" | "debug"): boolean;
  error(message: string): void;
  warn(message: string): void;
  info(message: string): void;
  debug(message: string): void;
  /** A flow or UDP association has ended. Without this method nothing is gathered for it. */
  readonly flow?: ((summary: FlowSummary) => void) | undefined;
}

/**
 * How a flow ended:
 * - `closed`: both directions in order; UDP: idle for its time, or ended by the proxy.
 * - `refused`: never opened; `reason` has why.
 * - `reset-by-client`, `reset-by-upstream`: by one of its ends.
 * - `client-gone`: the client did not acknowledge any more.
 * - `idle`: no data in either direction for the time that is allowed.
 * - `evicted`: to make room for another one: a UDP client, or a connection whose client did not answer.
 * - `stopped`: the engine ended.
 */
export type FlowEnd =
  | "closed"
  | "refused"
  | "reset-by-client"
  | "reset-by-upstream"
  | "client-gone"
  | "idle"
  | "evicted"
  | "stopped";

/** One finished flow of TCP, or one UDP association. */
export interface FlowSummary {
  readonly protocol: "tcp" | "udp";
  /** Address and port of the client, such as `10.0.0.2:50000` or `[fd00::2]:50000`. */
  readonly client: string;
  /** Where the client wanted to go. UDP: the one destination, `*` when there were several. */
  readonly destination: string;
  /** The upstream's URL without its password. */
  readonly upstream: string;
  readonly end: FlowEnd;
  /** One sentence more, where there is one to say. */
  readonly reason?: string;
  /** From the SYN or the first datagram to the end, ms. */
  readonly durationMs: number;
  /** Payload that the upstream took, and that came from it, bytes. */
  readonly bytesUp: number;
  readonly bytesDown: number;
}

/** Says nothing. */
export const SILENT: Logger = {
  isEnabled: () => false,
  error: () => {},
  warn: () => {},
  info: () => {},
  debug: () => {},
};
