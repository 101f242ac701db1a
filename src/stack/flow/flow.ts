/**
 * Flows as their owner sees them: all that a relay needs to know of the stack. The stack's classes implement these
 * interfaces; nothing here depends on how.
 */
import type { Slab } from "../memory/slab.ts";
import type { Endpoint } from "./address.ts";

/** What the owner of a TCP flow is told by `nextReady()`: bits, gathered until they are taken. */
export const Ready = {
  /** A SYN arrived; nothing is answered until `accept()` or `reject()`. */
  syn: 1,
  /** The handshake is complete. */
  established: 2,
  /** Bytes can be read. */
  readable: 4,
  /** The peer's FIN: after the bytes that can be read there is nothing more. */
  eof: 8,
  /** Room in the send buffer, after `wantWritable()`. */
  writable: 16,
  /** The flow is over: both directions closed in order, or `error` says why not. */
  closed: 32,
} as const;

/**
 * Why a flow ended otherwise than by two FINs: the client's reset, its silence, `abort()` or a limit, or an ICMP error.
 */
export type FlowErrorCode = "FLOW_RESET" | "FLOW_TIMEOUT" | "FLOW_ABORTED" | "FLOW_UNREACHABLE";

/** How a flow is refused: a reset, silence, or an ICMP error that makes `connect()` fail in the same way. */
export type RejectReason = "rst" | "drop" | "net-unreachable" | "host-unreachable" | "prohibited";

/** A TCP flow between a client behind the device and its owner. */
export interface TcpFlow {
  /** For the owner: an index into its own tables. The stack does not look at it. */
  tag: number;
  /** 4 or 6. */
  readonly family: 4 | 6;
  /** Where the client wants to go. */
  readonly local: Endpoint;
  /** The client. */
  readonly remote: Endpoint;
  /** Why the flow ended, or null. */
  readonly error: FlowErrorCode | null;
  /**
   * When the flow last got on, on the stack's clock, ms: its SYN, `accept()`, bytes or a FIN of the client, bytes or
   * `end()` of the owner, or an acknowledgment of something new. Bare acknowledgments, keep-alives and probes of closed
   * windows do not count.
   */
  readonly activeAt: number;
  /** Takes and clears what happened since the last call: bits of `Ready`. */
  takeReady(): number;
  /** Whether the SYN was answered. */
  readonly isAccepted: boolean;
  /** Answers the SYN. */
  accept(): void;
  /** Refuses the flow before it is accepted. */
  reject(reason: RejectReason): void;
  /** Bytes that can be read. */
  readonly readable: number;
  /** Whether the peer has sent FIN; bytes may still wait to be read. */
  readonly finReceived: boolean;
  /**
   * Describes readable bytes as slab references: pairs (offset, length) from `into[at]` on, at most `maxRefs`. They stay
   * valid until `consume`. Returns the number of pairs.
   */
  peek(into: Int32Array, at: number, maxRefs: number): number;
  /** Releases `count` bytes that were read, and opens the window by as much. */
  consume(count: number): void;
  /** Moves small unread runs out of big blocks: for an owner that cannot pass them on at once. */
  compactUnread(): void;
  /** Bytes the send buffer has room for. */
  readonly sendSpace: number;
  /** Asks for `Ready.writable` once half of the send buffer is free. */
  wantWritable(): void;
  /**
   * Queues `length` bytes at slab `offset` without a copy; their block is retained until they are acknowledged.
   * @returns false when the flow is gone or `end()` was called
   */
  writeReference(offset: number, length: number): boolean;
  /** Queues FIN behind what was written. Reading goes on. */
  end(): void;
  /** Gives the flow up: FIN follows what was written; a reset instead when received data was not read. */
  close(): void;
  /** Ends the flow with a reset. */
  abort(): void;
}

/** Datagrams that clients sent, as columns; the owner takes all of them and calls `clear()`. */
export interface Datagrams {
  readonly count: number;
  /** Eight big-endian address words a datagram: the client, then where it wants to go. IPv4 in mapped form. */
  readonly addresses: Int32Array;
  addressesAt(i: number): number;
  readonly remotePort: Int32Array;
  readonly localPort: Int32Array;
  /** Slab offset and length of each payload, valid until `clear()`. */
  readonly offset: Int32Array;
  readonly length: Int32Array;
  clear(): void;
}

/** Where a datagram's words have the client's address, and where its destination. */
export const DATAGRAM_REMOTE = 0;
export const DATAGRAM_LOCAL = 4;

/** How sending a datagram went. */
export const DatagramResult = {
  sent: 0,
  /** The transmit queue is full: write it, then try again. */
  full: 1,
  /** Larger than IP carries, or than the transmit queue takes in fragments of the device's MTU. */
  tooBig: 2,
} as const;
export type DatagramResult = (typeof DatagramResult)[keyof typeof DatagramResult];

/** The stack, as the owner of its flows uses it. */
export interface FlowStack {
  readonly slab: Slab;
  readonly inbox: Datagrams;
  /**
   * Sends a datagram to a client, from `length` bytes at slab `offset`.
   * @param words address words; four from `local` on are the source the client sees, four from `remote` on the client
   */
  sendDatagram(
    words: Int32Array,
    local: number,
    localPort: number,
    remote: number,
    remotePort: number,
    offset: number,
    length: number,
  ): DatagramResult;
  /**
   * Tells a UDP client that its datagram of `length` bytes could not be delivered: port unreachable, the one message its
   * kernel passes on. @returns false when the rate limit is used up
   */
  sendPortUnreachable(
    words: Int32Array,
    local: number,
    localPort: number,
    remote: number,
    remotePort: number,
    length: number,
    now: number,
  ): boolean;
}
