/**
 * The transmission control block: one compact, monomorphic record a flow, shared by the functions of this folder.
 * Integer fields stand under their RFC 9293 names; sequence numbers are signed 32 bits (see seq.ts).
 *
 * ```
 *  send queue (chunks)                             receive queue (chunks)
 *   1        2          3                           1         2              3
 *  ─┼────────┼──────────┼───────>                  ─┼─────────┼──────────────┼───────>
 *   sndUna   sndNxt     sndUna + sndQueued          first     rcvNxt         rcvAdv
 *                                                   unread
 * ```
 */
import type { FlowErrorCode } from "../flow/flow.ts";
import { NIL } from "../memory/chunks.ts";
import type { TcpConnection } from "./connection.ts";
import type { TcpSettings } from "./options.ts";
import { State } from "./state.ts";

/** Loss recovery phases (RFC 5681, RFC 6582). */
export const Recovery = { open: 0, fast: 1, timeout: 2 } as const;
export type Recovery = (typeof Recovery)[keyof typeof Recovery];

/** No time or sequence number is remembered. */
export const NO_TIME: number = -1;

/** @internal */
export class Tcb {
  /** Index into the tables of the stack; -1 once the protocol has no use for this record any more. */
  slot: number;
  state: State = State.listen;
  isIpv4: boolean;
  localPort: number;
  remotePort: number;
  /** Sum of the pseudo-header's addresses. */
  addressSum: number;
  /** The owner's handle. */
  connection: TcpConnection | null = null;

  // Send sequence space, RFC 9293 §3.3.1.
  /** Before `accept()`: what ISS must lie beyond, since the same ends had a connection before; 0 for nothing. */
  iss = 0;
  sndUna = 0;
  sndNxt = 0;
  /** Highest SND.NXT so far: SND.NXT itself goes back to SND.UNA when the retransmission timer fires. */
  sndMax = 0;
  /** SND.WND in bytes (scaled). */
  sndWnd = 0;
  sndWl1 = 0;
  sndWl2 = 0;
  /** Largest SND.WND seen (RFC 9293 §3.8.6.2.1). */
  maxSndWnd = 0;
  /** Snd.Wind.Shift of RFC 7323. */
  sndShift = 0;
  /** SMSS: the largest payload of a segment we send, before options (RFC 5681 §2). */
  smss = 0;

  // Receive sequence space.
  irs = 0;
  rcvNxt = 0;
  /** Right edge of the window last advertised: RCV.NXT + RCV.WND. Never moves left. */
  rcvAdv = 0;
  /** Rcv.Wind.Shift of RFC 7323. */
  rcvShift = 0;
  /** The window offered last was less than half of the buffer: its owner had not read what came. */
  windowIsShort = false;
  /** Whether our SYN-ACK offers window scaling, since the SYN did. */
  windowScaling = false;

  // RFC 7323 timestamps.
  timestamps = false;
  /** TS.Recent and when it was set, ms. */
  tsRecent = 0;
  tsRecentAt = 0;
  /** Added to the clock, so that flows do not share a timestamp clock. */
  tsOffset = 0;
  /** Last.ACK.sent */
  lastAckSent = 0;
  /** RFC 2018: whether SACK blocks may be sent. */
  sackPermitted = false;

  // Congestion control (RFC 5681, 6582), bytes.
  cwnd = 0;
  ssthresh = 0x7fffffff;
  dupAcks = 0;
  recovery: Recovery = Recovery.open;
  /** RFC 6582: highest sequence number sent when recovery began. */
  recover = 0;
  /** Bytes acknowledged since cwnd last grew in congestion avoidance. */
  ackedBytes = 0;

  // RTO (RFC 6298), ms.
  srtt: number = NO_TIME;
  rttvar = 0;
  rto: number;
  /** Retransmissions in a row without progress. */
  retries = 0;
  /** Silence of the peer after which it is asked whether it is there, ms; 0 for never. */
  keepAliveMs: number;
  /** Zero-window probes, or keep-alives, since the peer was heard last. */
  unanswered = 0;
  /** The segment being timed when there are no timestamps: its end and when it was sent, or `NO_TIME`. */
  rttSeq = 0;
  rttAt: number = NO_TIME;
  /** Whether the retransmission timer runs as a zero-window probe timer. */
  persisting = false;

  // Send queue.
  sndHead: number = NIL;
  sndTail: number = NIL;
  /** Data bytes in the queue, from SND.UNA on. */
  sndQueued = 0;
  /** The chunk that holds SND.NXT and the offset in it; NIL when SND.NXT is behind the queue. */
  sndCursor: number = NIL;
  sndCursorAt = 0;
  /** `end()` was called: FIN follows the queue. */
  finQueued = false;
  finSent = false;
  /** Sequence number of our FIN once it was sent. */
  finSeq = 0;
  /** One segment at SND.UNA is to be sent again. */
  retransmitNow = false;
  /** A segment is to be sent into a zero window. */
  probeNow = false;
  synAckNow = false;

  // Receive queue: in order, not yet read.
  rcvHead: number = NIL;
  rcvTail: number = NIL;
  rcvQueued = 0;
  finReceived = false;

  // Reassembly: beyond RCV.NXT, sorted, disjoint.
  oooHead: number = NIL;
  oooTail: number = NIL;
  oooCount = 0;
  oooBytes = 0;
  /** Sequence number of a FIN that came out of order. */
  oooFin = 0;
  oooFinKnown = false;
  /** A sequence number in each block reported last, newest first (RFC 2018 §4); up to four. */
  sackCount = 0;
  sackSeq0 = 0;
  sackSeq1 = 0;
  sackSeq2 = 0;
  sackSeq3 = 0;

  // Acknowledgments due.
  ackNow = false;
  /** ACKs owed for segments out of order to a peer without SACK, which counts them. */
  duplicatesOwed = 0;
  /** Full-sized segments received since the last acknowledgment. */
  ackPending = 0;
  /** Challenge ACKs sent in the running interval (RFC 5961 §7). */
  challengeCount = 0;
  challengeAt = 0;

  // The owner's side.
  ready = 0;
  isReadyListed = false;
  isDirty = false;
  /** In the list of flows whose window could not open for want of memory. */
  awaitsMemory = false;
  /** The flow is to end with a reset, for which the transmit queue had no room. */
  resetOwed = false;
  /** Nobody reads any more: `close()` or `abort()` was called. */
  released = false;
  error: FlowErrorCode | null = null;
  /** When the flow last got on, ms (see `TcpFlow.activeAt`). */
  activeAt: number;
  /** The writer found the send buffer full and is to be told about room. */
  wantsWritable = false;

  constructor(
    slot: number,
    isIpv4: boolean,
    localPort: number,
    remotePort: number,
    addressSum: number,
    settings: TcpSettings,
    now: number,
  ) {
    this.slot = slot;
    this.isIpv4 = isIpv4;
    this.localPort = localPort;
    this.remotePort = remotePort;
    this.addressSum = addressSum;
    this.rto = settings.initialRtoMs;
    this.keepAliveMs = settings.keepAliveIdleMs;
    this.activeAt = now;
  }
}
