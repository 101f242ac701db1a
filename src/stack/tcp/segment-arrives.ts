/** SEGMENT ARRIVES for a connection past LISTEN, in the order of RFC 9293 §3.10.7.4. */

import { Ready } from "../flow/flow.ts";
import { NIL, SMALL_RUN } from "../memory/chunks.ts";
import { Drop } from "../wire/drop.ts";
import { ACK_FLAG, FIN, RST, SYN, type TcpSegment } from "../wire/tcp.ts";
import { acceptableSeq } from "./acceptable-seq.ts";
import { AckResult, acknowledge, enterEstablished, enterTimeWait } from "./acknowledge.ts";
import type { TcpContext } from "./context.ts";
import { restartKeepAlive } from "./keep-alive.ts";
import { appendReceived, deliverInOrder, endOf, insertOutOfOrder, overlapsHeld } from "./reassembly.ts";
import { sendResetOf } from "./reset.ts";
import { forgetDelivered, noteOutOfOrder } from "./sack.ts";
import { seqAdd, seqDiff, seqLeq, seqLt } from "./seq.ts";
import { canReceive, Event, State } from "./state.ts";
import type { Tcb } from "./tcb.ts";
import { NEVER, Timer } from "./timer-table.ts";

/** RFC 5961 §7: challenge ACKs a flow may send in an interval. Per flow, so that one cannot be told from another. */
const CHALLENGE_LIMIT = 10;
const CHALLENGE_INTERVAL_MS = 1000;
/** Duplicate ACKs sent in a row at most. */
const MAX_DUPLICATES = 64;
/** RFC 7323 §5.5: TS.Recent older than 24 days is void. */
const PAWS_LIFETIME_MS = 24 * 24 * 3600 * 1000;

/**
 * @param segments how many segments the device joined into this one
 */
export function segmentArrives(ctx: TcpContext, tcb: Tcb, seg: TcpSegment, segments: number): void {
  if (tcb.state === State.synReceived && isCopyOfSyn(tcb, seg)) {
    tcb.synAckNow = true;
    ctx.markDirty(tcb);
    return;
  }
  if (failsPaws(ctx, tcb, seg)) {
    ctx.drop(Drop.tcpUnacceptable);
    answerUnacceptable(ctx, tcb, seg);
    return;
  }
  // First: check the sequence number.
  const acceptable = isAcceptable(tcb, seg);
  if (!acceptable && !isAtClosedWindow(tcb, seg)) {
    ctx.drop(Drop.tcpUnacceptable);
    if ((seg.flags & RST) === 0) answerUnacceptable(ctx, tcb, seg);
    return;
  }
  updateTsRecent(ctx, tcb, seg);
  // Second: check the RST bit.
  if ((seg.flags & RST) !== 0) {
    onReset(ctx, tcb, seg);
    return;
  }
  // Third, security, does not apply. Fourth: check the SYN bit (RFC 5961 §4.2).
  if ((seg.flags & SYN) !== 0) {
    challenge(ctx, tcb);
    return;
  }
  // Fifth: check the ACK field.
  if ((seg.flags & ACK_FLAG) === 0) {
    ctx.drop(Drop.tcpFlags);
    return;
  }
  if (tcb.state === State.synReceived && !completesHandshake(ctx, tcb, seg)) return;
  const result = acknowledge(ctx, tcb, seg);
  if (result === AckResult.unacceptable) {
    // RFC 5961 §5.2
    ctx.drop(Drop.tcpUnacceptable);
    challenge(ctx, tcb);
    return;
  }
  if (result === AckResult.gone) return;
  tcb.unanswered = 0;
  if (tcb.keepAliveMs > 0) restartKeepAlive(ctx, tcb);
  // Sixth: the urgent pointer changes nothing; urgent data stays in line (RFC 6093 §4).
  if (!acceptable) {
    // Only the control part of a segment into a closed window counts; the answer tells the window.
    ctx.drop(Drop.tcpUnacceptable);
    ackNow(ctx, tcb);
    return;
  }
  // Seventh: process the segment text. Eighth: check the FIN bit.
  if (seg.dataLen > 0) processText(ctx, tcb, seg, segments);
  if ((seg.flags & FIN) !== 0 && tcb.slot >= 0) processFin(ctx, tcb, seg);
  if (tcb.sndQueued > 0 || tcb.finQueued || tcb.ackNow) ctx.markDirty(tcb);
}

function isCopyOfSyn(tcb: Tcb, seg: TcpSegment): boolean {
  return (seg.flags & (SYN | ACK_FLAG | RST)) === SYN && seg.seq === tcb.irs;
}

/** RFC 7323 §5.3 R1: an older timestamp than TS.Recent marks an old duplicate; resets are exempt. */
function failsPaws(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): boolean {
  if (!tcb.timestamps || !seg.hasTimestamps || (seg.flags & RST) !== 0) return false;
  if (((seg.tsVal - tcb.tsRecent) | 0) >= 0) return false;
  return ctx.now - tcb.tsRecentAt < PAWS_LIFETIME_MS;
}

/** RFC 7323 §4.3: TS.Recent follows segments that span Last.ACK.sent. */
function updateTsRecent(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): void {
  if (!tcb.timestamps || !seg.hasTimestamps) return;
  if (((seg.tsVal - tcb.tsRecent) | 0) >= 0 && seqLeq(seg.seq, tcb.lastAckSent)) {
    tcb.tsRecent = seg.tsVal;
    tcb.tsRecentAt = ctx.now;
  }
}

/** The acceptability test, table 6 of RFC 9293 §3.10.7.4. RCV.WND is what was advertised. */
function isAcceptable(tcb: Tcb, seg: TcpSegment): boolean {
  const offset = seqDiff(seg.seq, tcb.rcvNxt);
  const wnd = seqDiff(tcb.rcvAdv, tcb.rcvNxt);
  if (seg.len === 0) {
    // Deviation: a segment without text at the right edge is taken too. A client that has filled the window
    // acknowledges from there, and its ACKs count although the bytes in between are still on their way; its RST, of
    // which there is no second, comes from there when those bytes are lost, and is challenged (RFC 5961 §3.2).
    return offset === 0 || (offset > 0 && offset <= wnd);
  }
  if (wnd === 0) return false;
  const last = offset + seg.len - 1;
  return (offset >= 0 && offset < wnd) || (last >= 0 && last < wnd) || (offset < 0 && last >= wnd);
}

/** Text at RCV.NXT while the window is closed: "special allowance should be made to accept valid ACKs, URGs, and RSTs". */
function isAtClosedWindow(tcb: Tcb, seg: TcpSegment): boolean {
  return tcb.rcvAdv === tcb.rcvNxt && seg.seq === tcb.rcvNxt;
}

/** RFC 5961 §3.2: exactly RCV.NXT resets; elsewhere in the window a challenge asks whether it is meant. */
function onReset(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): void {
  if (seg.seq === tcb.rcvNxt) {
    ctx.detach(tcb, "FLOW_RESET");
    return;
  }
  challenge(ctx, tcb);
}

/** RFC 9293 §3.10.7.4, fifth step, SYN-RECEIVED: our SYN is acknowledged, or the segment is reset. */
function completesHandshake(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): boolean {
  if (seqLt(tcb.sndUna, seg.ack) && seqLeq(seg.ack, tcb.sndNxt)) {
    enterEstablished(ctx, tcb, seg);
    return true;
  }
  ctx.drop(Drop.tcpUnacceptable);
  sendResetOf(ctx, tcb, seg.ack, 0, RST);
  return false;
}

/** Owes an acknowledgment at once. */
export function ackNow(ctx: TcpContext, tcb: Tcb): void {
  tcb.ackNow = true;
  ctx.markDirty(tcb);
}

/** Sends a challenge ACK unless the flow has sent too many lately (RFC 5961 §7). */
function challenge(ctx: TcpContext, tcb: Tcb): void {
  if (ctx.now - tcb.challengeAt >= CHALLENGE_INTERVAL_MS) {
    tcb.challengeAt = ctx.now;
    tcb.challengeCount = 0;
  }
  if (tcb.challengeCount >= CHALLENGE_LIMIT) return;
  tcb.challengeCount++;
  ackNow(ctx, tcb);
}

/**
 * The acknowledgment that an unacceptable segment is due. Without text it may be the answer to one of ours, from an end
 * that disagrees on the numbers: those answers are limited, or both would go on for ever.
 */
function answerUnacceptable(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): void {
  if (seg.dataLen > 0) ackNow(ctx, tcb);
  else challenge(ctx, tcb);
}

/** Seventh step: keep what is new and in the window. */
function processText(ctx: TcpContext, tcb: Tcb, seg: TcpSegment, segments: number): void {
  if (!canReceive(tcb.state)) return;
  if (tcb.released) {
    // RFC 1122 §4.2.2.13, RFC 9293 §3.10.4: nobody will read this; tell the peer that data was lost.
    sendResetOf(ctx, tcb, acceptableSeq(tcb), tcb.rcvNxt, RST | ACK_FLAG);
    ctx.detach(tcb, "FLOW_ABORTED");
    return;
  }
  if (ctx.slab.scarce) {
    ctx.drop(Drop.tcpMemory);
    seg.flags &= ~FIN;
    return;
  }
  let { seq, data: offset, dataLen: length } = seg;
  const old = seqDiff(tcb.rcvNxt, seq);
  if (old > 0) {
    // A part, or all of it, was received before.
    if (old >= length) {
      ackNow(ctx, tcb);
      return;
    }
    seq = tcb.rcvNxt;
    offset += old;
    length -= old;
  }
  const beyond = seqDiff(seqAdd(seq, length), tcb.rcvAdv);
  if (beyond > 0) {
    length -= beyond;
    // A FIN behind the window is cut off with the text in front of it.
    seg.flags &= ~FIN;
    if (length <= 0) return;
  }
  // Nothing follows a FIN, in order or out of it.
  if (tcb.oooFinKnown && seqLt(tcb.oooFin, seqAdd(seq, length))) length = Math.max(0, seqDiff(tcb.oooFin, seq));
  let copy = -1;
  if (ctx.slab.short && length > 0) {
    const room = roomInShare(ctx, tcb, seq);
    if (length > room) {
      // More was offered than there is memory for: the peer sends again what is cut off here.
      ctx.drop(Drop.tcpMemory);
      seg.flags &= ~FIN;
      length = room;
      if (room > 0 || seq !== tcb.rcvNxt) ackNow(ctx, tcb);
      if (room === 0) return;
    }
    copy = ctx.slab.copyOut(offset, length);
    if (copy >= 0) offset = copy;
  }
  keepText(ctx, tcb, seq, offset, length, segments);
  if (copy >= 0) ctx.slab.release(copy);
}

/**
 * How many bytes from `seq` on a flow may keep while memory is short: what is missing to its share, and nothing out of
 * order, which would wait for the peer to fill the gap.
 */
function roomInShare(ctx: TcpContext, tcb: Tcb, seq: number): number {
  return seq === tcb.rcvNxt ? Math.max(0, ctx.slab.fairShare - tcb.rcvQueued) : 0;
}

/** Keeps `length` bytes at slab `offset`, all of them new and in the window. */
function keepText(ctx: TcpContext, tcb: Tcb, seq: number, offset: number, length: number, segments: number): void {
  tcb.activeAt = ctx.now;
  if (seq !== tcb.rcvNxt) {
    if (length > 0) {
      insertOutOfOrder(ctx, tcb, seq, offset, length);
      noteOutOfOrder(ctx, tcb, seq);
    }
    // RFC 5681 §4.2: a gap is told at once, by a duplicate ACK; without SACK by one for each segment.
    ackNow(ctx, tcb);
    if (!tcb.sackPermitted) tcb.duplicatesOwed = Math.min(MAX_DUPLICATES, tcb.duplicatesOwed + segments);
    return;
  }
  if (overlapsHeld(ctx, tcb, seqAdd(seq, length))) {
    // The bytes that came first stay, whichever way round they came.
    insertOutOfOrder(ctx, tcb, seq, offset, length);
  } else {
    keepInOrder(ctx, tcb, seq, offset, length);
    tcb.rcvQueued += length;
    ctx.bytesBuffered += length;
    tcb.rcvNxt = seqAdd(seq, length);
  }
  tcb.duplicatesOwed = 0;
  ctx.markReady(tcb, Ready.readable);
  if (tcb.oooHead !== NIL) {
    deliverInOrder(ctx, tcb);
    forgetDelivered(tcb);
    ackNow(ctx, tcb); // RFC 5681 §4.2: and so is its end.
  } else {
    delayAck(ctx, tcb, segments);
  }
  if (tcb.oooFinKnown && tcb.rcvNxt === tcb.oooFin) receiveFin(ctx, tcb);
}

/** Queues text for the owner: by reference, but for small runs behind others, which may wait for long. */
function keepInOrder(ctx: TcpContext, tcb: Tcb, seq: number, offset: number, length: number): void {
  const { chunks } = ctx;
  if (tcb.rcvQueued === 0 || length > SMALL_RUN) {
    appendReceived(ctx, tcb, chunks.add(offset, length, seq));
    return;
  }
  const node = chunks.addCopy(tcb.rcvTail, offset, length, seq);
  if (node !== tcb.rcvTail) appendReceived(ctx, tcb, node);
}

/** RFC 9293 §3.8.6.3: every second full-sized segment is acknowledged, anything else within the delay. */
function delayAck(ctx: TcpContext, tcb: Tcb, segments: number): void {
  tcb.ackPending += segments;
  if (tcb.ackPending >= 2 || ctx.settings.delayedAckMs === 0) {
    ackNow(ctx, tcb);
    return;
  }
  if (ctx.timers.at(tcb.slot, Timer.ack) === NEVER) {
    ctx.timers.set(tcb.slot, Timer.ack, ctx.now + ctx.settings.delayedAckMs);
  }
}

/** Eighth step: a FIN in sequence ends the peer's direction; one out of order waits for the gap to close. */
function processFin(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): void {
  if (tcb.finReceived) {
    ackNow(ctx, tcb);
    return;
  }
  const finSeq = seqAdd(seg.seq, seg.dataLen);
  if (finSeq === tcb.rcvNxt) {
    receiveFin(ctx, tcb);
    return;
  }
  if (seqLt(tcb.rcvNxt, finSeq)) {
    // Bytes held beyond it contradict it: they came first, so they stay.
    if (tcb.oooTail === NIL || seqLeq(endOf(ctx, tcb.oooTail), finSeq)) {
      tcb.oooFin = finSeq;
      tcb.oooFinKnown = true;
    }
    ackNow(ctx, tcb);
  }
}

function receiveFin(ctx: TcpContext, tcb: Tcb): void {
  tcb.finReceived = true;
  tcb.activeAt = ctx.now;
  tcb.oooFinKnown = false;
  tcb.rcvNxt = seqAdd(tcb.rcvNxt, 1);
  // The window closes with the last byte: nothing may follow a FIN.
  if (seqLt(tcb.rcvAdv, tcb.rcvNxt)) tcb.rcvAdv = tcb.rcvNxt;
  ctx.markReady(tcb, Ready.eof);
  ctx.setState(tcb, Event.finReceived);
  ackNow(ctx, tcb);
  if (tcb.state === State.timeWait) enterTimeWait(ctx, tcb);
}
