/**
 * What a flow sends, as named questions in order of priority: the SYN-ACK, what was lost, a probe, new data, FIN, and
 * at last an acknowledgment that nothing else carried (RFC 9293 §3.8, §3.10.2).
 */

import { MAX_PACKET_BYTES } from "../ip/output.ts";
import { NIL } from "../memory/chunks.ts";
import { Protocol } from "../wire/ip.ts";
import { IPV4_HEADER_LEN } from "../wire/ipv4.ts";
import { IPV6_HEADER_LEN } from "../wire/ipv6.ts";
import {
  ACK_FLAG,
  emitMssOption,
  emitSackPermittedOption,
  emitTcp,
  emitTimestampsOption,
  emitWindowScaleOption,
  FIN,
  PSH,
  SYN,
  TCP_CHECKSUM,
  TCP_HEADER_LEN,
} from "../wire/tcp.ts";
import { acceptableSeq } from "./acceptable-seq.ts";
import { KEY_REMOTE, type TcpContext } from "./context.ts";
import { endWithReset } from "./reset.ts";
import { backedOffRto, restartRetransmitTimer, startRetransmitTimer, tsClock } from "./rto.ts";
import { emitSack, sackOptionLength } from "./sack.ts";
import { gather, gatherable, gathered } from "./send-queue.ts";
import { seqAdd, seqDiff, seqLt, seqMax } from "./seq.ts";
import { canSend, Event, isSynchronized, State } from "./state.ts";
import { NO_TIME, Recovery, type Tcb } from "./tcb.ts";
import { NEVER, Timer } from "./timer-table.ts";
import { advertiseWindow, windowUpdateIsDue } from "./window.ts";

/** TCP options fill at most 40 bytes (RFC 9293 §3.1). */
const MAX_OPTIONS = 40;
const TIMESTAMPS_OPTION = 12;

/** The MSS to announce: what fits the device (RFC 9293 §3.7.1, MUST-67). */
export function ownMss(ctx: TcpContext, tcb: Tcb): number {
  return Math.min(65535, ctx.output.mtu - (tcb.isIpv4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN) - TCP_HEADER_LEN);
}

/** Payload of one segment: SMSS less the options that every segment carries (RFC 9293 §3.7.1, MUST-16). */
function segmentPayload(tcb: Tcb): number {
  return tcb.timestamps ? tcb.smss - TIMESTAMPS_OPTION : tcb.smss;
}

/**
 * Puts into the transmit queue what `tcb` may send now.
 * @returns false when the queue was too full to take everything
 */
export function sendPending(ctx: TcpContext, tcb: Tcb): boolean {
  const { queue } = ctx.output;
  if (tcb.slot < 0) return true;
  if (tcb.resetOwed) {
    if (!queue.hasRoom()) return false;
    endWithReset(ctx, tcb);
    return true;
  }
  if (tcb.state === State.listen) return true;
  if (tcb.synAckNow) {
    if (!queue.hasRoom()) return false;
    sendSynAck(ctx, tcb);
    return true;
  }
  if (tcb.ackNow && (!isSynchronized(tcb.state) || tcb.oooHead !== NIL)) {
    // A challenge during the handshake; or the duplicate ACK for a gap, which counts at the peer only without data
    // (RFC 5681 §2) and has the room for SACK blocks.
    do {
      if (!queue.hasRoom()) return false;
      sendAck(ctx, tcb);
    } while (--tcb.duplicatesOwed > 0);
    tcb.duplicatesOwed = 0;
  }
  if (!isSynchronized(tcb.state)) return true;
  if (tcb.retransmitNow) {
    if (!queue.hasRoom()) return false;
    tcb.retransmitNow = false;
    retransmitFirst(ctx, tcb);
  }
  if (tcb.probeNow) {
    if (!queue.hasRoom()) return false;
    tcb.probeNow = false;
    sendProbe(ctx, tcb);
  }
  for (;;) {
    const length = sendableData(ctx, tcb);
    const fin = finIsDue(tcb, length);
    if (length === 0 && !fin) break;
    if (!queue.hasRoom()) return false;
    sendNew(ctx, tcb, length, fin);
  }
  armPersistTimer(ctx, tcb);
  if (tcb.ackNow || windowUpdateIsDue(ctx, tcb)) {
    if (!queue.hasRoom()) return false;
    sendAck(ctx, tcb);
  }
  return true;
}

/**
 * Sends a segment that carries nothing but the acknowledgment; the queue must have room. Its sequence number is the
 * highest sent, also while SND.NXT has gone back after a timeout: a lower one would not be acceptable to the peer.
 */
export function sendAck(ctx: TcpContext, tcb: Tcb): void {
  sendSegment(ctx, tcb, acceptableSeq(tcb), NIL, 0, 0, ACK_FLAG);
}

/**
 * Asks the peer whether it is there: a segment that it must answer, because its number lies before what the peer expects
 * (RFC 9293 §3.8.4), without text (SHLD-12). Nothing may be in flight; the queue must have room.
 */
export function sendKeepAlive(ctx: TcpContext, tcb: Tcb): void {
  sendSegment(ctx, tcb, seqAdd(tcb.sndNxt, -1), NIL, 0, 0, ACK_FLAG);
}

/** How many bytes of new data may go into the next packet; 0 when nothing may or should be sent. */
function sendableData(ctx: TcpContext, tcb: Tcb): number {
  if (tcb.sndCursor === NIL) return 0;
  const flightSize = seqDiff(tcb.sndNxt, tcb.sndUna);
  const unsent = tcb.sndQueued - flightSize;
  if (unsent <= 0) return 0;
  const usable = Math.min(tcb.sndWnd, tcb.cwnd + limitedTransmit(tcb)) - flightSize;
  if (usable <= 0) return 0;
  const payload = segmentPayload(tcb);
  let length = Math.min(unsent, usable);
  if (length >= payload) {
    // Whole segments, as many as one super-packet takes.
    const headers = ctx.output.headerLength(tcb.isIpv4) + TCP_HEADER_LEN + MAX_OPTIONS;
    const segments = ctx.output.offload.tso ? Math.floor((MAX_PACKET_BYTES - headers) / payload) : 1;
    // At the largest MTU one segment is all that a packet takes.
    const most = Math.max(1, segments) * payload;
    if (length > most) length = most;
    else if (length < unsent || (ctx.settings.nagle && !tcb.finQueued)) length -= length % payload;
    return gatherable(ctx, tcb.sndCursor, tcb.sndCursorAt, length);
  }
  // Sender's silly window avoidance (RFC 9293 §3.8.6.2.1) and Nagle (§3.7.4).
  if (length === unsent) {
    if (ctx.settings.nagle && flightSize > 0 && !tcb.finQueued) return 0;
  } else if (flightSize > 0 || (length < tcb.maxSndWnd >>> 1 && tcb.sndNxt === tcb.sndMax)) {
    // What is sent again goes out whatever the window takes: the peer may have shrunk it (MUST-34).
    return 0;
  }
  return gatherable(ctx, tcb.sndCursor, tcb.sndCursorAt, length);
}

/** RFC 3042: each of the first two duplicate ACKs lets one segment more out than the congestion window. */
function limitedTransmit(tcb: Tcb): number {
  return tcb.dupAcks > 0 && tcb.recovery === Recovery.open ? Math.min(tcb.dupAcks, 2) * tcb.smss : 0;
}

/** Whether FIN goes out with the next `length` bytes: all data is sent then, and FIN has not been. */
function finIsDue(tcb: Tcb, length: number): boolean {
  if (!tcb.finQueued) return false;
  const dataEnd = seqAdd(tcb.sndUna, tcb.sndQueued);
  if (seqAdd(tcb.sndNxt, length) !== dataEnd) return false;
  if (!tcb.finSent) return canSend(tcb.state);
  // Sent before; again only when SND.NXT went back.
  return finIsOutstanding(tcb) && seqLt(tcb.sndNxt, seqAdd(tcb.finSeq, 1));
}

/** Whether our FIN was sent and not yet acknowledged. */
export function finIsOutstanding(tcb: Tcb): boolean {
  return tcb.finSent && seqLt(tcb.sndUna, seqAdd(tcb.finSeq, 1));
}

/** Sends `length` bytes at SND.NXT, with FIN when `fin`. */
function sendNew(ctx: TcpContext, tcb: Tcb, length: number, fin: boolean): void {
  const seq = tcb.sndNxt;
  const isLast = seqDiff(seqAdd(seq, length), tcb.sndUna) === tcb.sndQueued;
  const flags = ACK_FLAG | (isLast && length > 0 ? PSH : 0) | (fin ? FIN : 0);
  sendSegment(ctx, tcb, seq, tcb.sndCursor, tcb.sndCursorAt, length, flags);
  if (length > 0) {
    tcb.sndCursor = gathered.node;
    tcb.sndCursorAt = gathered.at;
  }
  tcb.sndNxt = seqAdd(seq, length + (fin ? 1 : 0));
  if (fin && !tcb.finSent) {
    tcb.finSent = true;
    tcb.finSeq = seqAdd(seq, length);
    ctx.setState(tcb, Event.finSent);
  }
  if (seqLt(seq, tcb.sndMax)) ctx.retransmits++;
  else if (!tcb.timestamps && tcb.rttAt === NO_TIME) {
    tcb.rttAt = ctx.now;
    tcb.rttSeq = tcb.sndNxt;
  }
  tcb.sndMax = seqMax(tcb.sndMax, tcb.sndNxt);
  if (tcb.persisting) {
    tcb.persisting = false;
    restartRetransmitTimer(ctx, tcb);
  } else {
    startRetransmitTimer(ctx, tcb);
  }
}

/** Sends the first unacknowledged segment again; SND.NXT stays (RFC 5681 §3.2, RFC 6582 §3.2). */
function retransmitFirst(ctx: TcpContext, tcb: Tcb): void {
  const outstanding = seqDiff(tcb.sndMax, tcb.sndUna);
  if (outstanding <= 0) return;
  const fin = finIsOutstanding(tcb);
  const data = fin ? outstanding - 1 : outstanding;
  // SND.WND may have shrunk below what was sent (MUST-34): trim, but always send something.
  const limit = Math.min(segmentPayload(tcb), Math.max(1, tcb.sndWnd));
  const want = Math.min(data, limit);
  const length = want > 0 ? gatherable(ctx, tcb.sndHead, 0, want) : 0;
  const withFin = fin && length === data;
  const flags = ACK_FLAG | (length > 0 ? PSH : 0) | (withFin ? FIN : 0);
  sendSegment(ctx, tcb, tcb.sndUna, tcb.sndHead, 0, length, flags);
  ctx.retransmits++;
  startRetransmitTimer(ctx, tcb);
}

/** Sends one byte at SND.UNA into a closed window (RFC 9293 §3.8.6.1, MUST-36). */
function sendProbe(ctx: TcpContext, tcb: Tcb): void {
  if (tcb.sndQueued === 0) return;
  // SHLD-8 of silly window avoidance: after the timer, what the window takes is sent; at least one byte.
  const length = gatherable(
    ctx,
    tcb.sndHead,
    0,
    Math.min(tcb.sndQueued, Math.max(1, Math.min(tcb.sndWnd, segmentPayload(tcb)))),
  );
  sendSegment(ctx, tcb, tcb.sndUna, tcb.sndHead, 0, length, ACK_FLAG | PSH);
  const end = seqAdd(tcb.sndUna, length);
  if (seqLt(tcb.sndNxt, end)) {
    tcb.sndNxt = end;
    tcb.sndCursor = gathered.node;
    tcb.sndCursorAt = gathered.at;
  }
  tcb.sndMax = seqMax(tcb.sndMax, tcb.sndNxt);
}

/** RFC 9293 §3.8.6.1: data waits, nothing is in flight, and the window does not let it go: probe for ever. */
function armPersistTimer(ctx: TcpContext, tcb: Tcb): void {
  if (tcb.sndQueued === 0 || tcb.sndNxt !== tcb.sndUna) return;
  if (ctx.timers.at(tcb.slot, Timer.retransmit) !== NEVER) return;
  tcb.persisting = true;
  ctx.timers.set(tcb.slot, Timer.retransmit, ctx.now + backedOffRto(ctx, tcb));
}

/** Sends SYN-ACK with the options that the SYN allows (RFC 9293 §3.10.7.2, RFC 7323, RFC 2018). */
function sendSynAck(ctx: TcpContext, tcb: Tcb): void {
  tcb.synAckNow = false;
  const { slab, output } = ctx;
  const at = output.queue.begin();
  const l4 = at + output.headerLength(tcb.isIpv4);
  let end = emitMssOption(slab, l4 + TCP_HEADER_LEN, ownMss(ctx, tcb));
  if (tcb.sackPermitted) end = emitSackPermittedOption(slab, end);
  if (tcb.timestamps) end = emitTimestampsOption(slab, end, tsClock(tcb, ctx.now), tcb.tsRecent);
  if (tcb.windowScaling) end = emitWindowScaleOption(slab, end, tcb.rcvShift);
  const headerLen = end - l4;
  const wnd = advertiseWindow(ctx, tcb, false);
  emitTcp(slab, l4, tcb.localPort, tcb.remotePort, tcb.iss, tcb.rcvNxt, SYN | ACK_FLAG, wnd, headerLen);
  const key = ctx.keyAt(tcb.slot);
  output.writeHeader(at, tcb.isIpv4, Protocol.tcp, headerLen, ctx.table.keys, key, key + KEY_REMOTE);
  output.finish(at, l4, end, headerLen, 0, 0, Protocol.tcp, TCP_CHECKSUM, tcb.addressSum);
  noteAckSent(ctx, tcb);
  // Karn (RFC 6298 §3): no sample when it was sent before, by the timer or for a copy of the SYN.
  if (tcb.retries === 0 && ctx.timers.at(tcb.slot, Timer.retransmit) === NEVER) tcb.rttAt = ctx.now;
  else tcb.rttAt = NO_TIME;
  startRetransmitTimer(ctx, tcb);
}

/** Builds one packet of `length` bytes of the send queue from `node` on; it carries everything an ACK would. */
function sendSegment(
  ctx: TcpContext,
  tcb: Tcb,
  seq: number,
  node: number,
  nodeAt: number,
  length: number,
  flags: number,
): void {
  const { slab, output } = ctx;
  const { queue } = output;
  const at = queue.begin();
  const l4 = at + output.headerLength(tcb.isIpv4);
  let end = l4 + TCP_HEADER_LEN;
  if (tcb.timestamps) end = emitTimestampsOption(slab, end, tsClock(tcb, ctx.now), tcb.tsRecent);
  // SACK blocks ride on pure ACKs: data segments are filled up to the MSS.
  if (length === 0) {
    const sackLength = sackOptionLength(tcb, MAX_OPTIONS - (end - l4 - TCP_HEADER_LEN));
    if (sackLength > 0) end = emitSack(ctx, tcb, end, sackLength);
  }
  const headerLen = end - l4;
  const wnd = advertiseWindow(ctx, tcb, true);
  emitTcp(slab, l4, tcb.localPort, tcb.remotePort, seq, tcb.rcvNxt, flags, wnd, headerLen);
  const key = ctx.keyAt(tcb.slot);
  output.writeHeader(at, tcb.isIpv4, Protocol.tcp, headerLen + length, ctx.table.keys, key, key + KEY_REMOTE);
  if (length > 0) gather(ctx, queue, node, nodeAt, length);
  const payload = segmentPayload(tcb);
  output.finish(
    at,
    l4,
    end,
    headerLen,
    length,
    length > payload ? payload : 0,
    Protocol.tcp,
    TCP_CHECKSUM,
    tcb.addressSum,
  );
  noteAckSent(ctx, tcb);
}

/** A segment with ACK left: nothing is owed any more (RFC 7323 §4.3: Last.ACK.sent). */
function noteAckSent(ctx: TcpContext, tcb: Tcb): void {
  tcb.lastAckSent = tcb.rcvNxt;
  tcb.ackNow = false;
  tcb.ackPending = 0;
  ctx.timers.clear(tcb.slot, Timer.ack);
}
