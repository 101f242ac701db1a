/** The fifth step of SEGMENT ARRIVES: the ACK field, the send window, and what loss recovery makes of them. */

import { Ready } from "../flow/flow.ts";
import { FIN, SYN, type TcpSegment } from "../wire/tcp.ts";
import type { TcpContext } from "./context.ts";
import {
  cancelRttTiming,
  restartRetransmitTimer,
  startRetransmitTimer,
  stopRetransmitTimer,
  takeRttSample,
  tsClock,
} from "./rto.ts";
import { finIsOutstanding, sendAck } from "./send.ts";
import { dropAcknowledged, rewindCursor, sendLimit } from "./send-queue.ts";
import { seqAdd, seqDiff, seqLeq, seqLt, seqMax } from "./seq.ts";
import { Event, State } from "./state.ts";
import { NO_TIME, Recovery, type Tcb } from "./tcb.ts";
import { Timer } from "./timer-table.ts";

/** RFC 5681 §3.2: duplicate ACKs that start fast retransmit. */
const DUP_ACK_THRESHOLD = 3;
/** RFC 6298 §5.7: the RTO for data, ms, when the SYN-ACK had to be sent again and there is no sample. */
const RTO_AFTER_LOST_SYN_ACK_MS = 3000;

export const AckResult = {
  ok: 0,
  /** Outside of what RFC 5961 §5.2 accepts. */
  unacceptable: 1,
  /** The connection is over or has left the tables. */
  gone: 2,
} as const;
export type AckResult = (typeof AckResult)[keyof typeof AckResult];

/** Our SYN is acknowledged: ESTABLISHED (RFC 9293 §3.10.7.4). */
export function enterEstablished(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): void {
  ctx.setState(tcb, Event.ackOfSyn);
  ctx.congestion.start(tcb, ctx.settings.initialCwnd);
  // The handshake is a sample when the SYN-ACK went out once (Karn); RFC 6298 §5.7 when its timer fired.
  if (tcb.timestamps && seg.hasTimestamps) sampleTimestamp(ctx, tcb, seg);
  else if (tcb.rttAt !== NO_TIME) takeRttSample(ctx, tcb, ctx.now - tcb.rttAt);
  else if (tcb.retries > 0) tcb.rto = Math.min(ctx.settings.maxRtoMs, Math.max(tcb.rto, RTO_AFTER_LOST_SYN_ACK_MS));
  cancelRttTiming(tcb);
  tcb.retries = 0;
  tcb.sndUna = seqAdd(tcb.iss, 1);
  tcb.synAckNow = false;
  stopRetransmitTimer(ctx, tcb);
  tcb.sndWl1 = seg.seq;
  tcb.sndWl2 = seg.ack;
  tcb.sndWnd = (seg.flags & SYN) !== 0 ? seg.wnd : seg.wnd << tcb.sndShift;
  tcb.maxSndWnd = Math.max(tcb.maxSndWnd, tcb.sndWnd);
  tcb.recover = tcb.iss;
  ctx.markReady(tcb, Ready.established);
  ctx.markDirty(tcb);
}

/** Processes SEG.ACK and SEG.WND of a segment that passed the earlier steps. */
export function acknowledge(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): AckResult {
  const acked = seqDiff(seg.ack, tcb.sndUna);
  if (seqDiff(seg.ack, tcb.sndMax) > 0 || acked < -tcb.maxSndWnd) return AckResult.unacceptable;
  if (acked < 0) return AckResult.ok;
  const isDuplicate = acked === 0 && isDuplicateAck(tcb, seg);
  updateSendWindow(ctx, tcb, seg, acked);
  if (acked > 0) onNewAck(ctx, tcb, seg, acked);
  else if (isDuplicate) onDuplicateAck(ctx, tcb, seg);
  return acked > 0 ? afterFinAcknowledged(ctx, tcb) : AckResult.ok;
}

/**
 * RFC 5681 §2: what counts as a duplicate ACK. One that tells of bytes beyond a gap counts whatever its window says
 * (RFC 6675 §2): the window of a Linux receiver changes with the bytes it holds out of order.
 */
function isDuplicateAck(tcb: Tcb, seg: TcpSegment): boolean {
  return (
    tcb.sndMax !== tcb.sndUna &&
    !tcb.persisting &&
    seg.dataLen === 0 &&
    (seg.flags & FIN) === 0 &&
    (seg.wnd << tcb.sndShift === tcb.sndWnd || sackedBytes(tcb, seg) > 0)
  );
}

/** Bytes beyond SND.UNA that the segment selectively acknowledges; D-SACK (RFC 2883) and nonsense do not count. */
function sackedBytes(tcb: Tcb, seg: TcpSegment): number {
  let bytes = 0;
  for (let i = 0; i < seg.sackBlocks; i++) {
    const left = seg.sackLeft[i] as number;
    const right = seg.sackRight[i] as number;
    if (seqLt(tcb.sndUna, left) && seqLt(left, right) && seqLeq(right, tcb.sndMax)) bytes += seqDiff(right, left);
  }
  return bytes;
}

/** Whether the segment selectively acknowledges bytes sent after the loss that was dealt with last. */
function sacksBeyondRecover(tcb: Tcb, seg: TcpSegment): boolean {
  for (let i = 0; i < seg.sackBlocks; i++) {
    const right = seg.sackRight[i] as number;
    if (seqLt(tcb.recover, right) && seqLeq(right, tcb.sndMax)) return true;
  }
  return false;
}

/**
 * RFC 9293 §3.10.7.4: the window is taken from the newest segment (SND.WL1, SND.WL2).
 *
 * Deviation: one that acknowledges something new is newer whatever its sequence number. After a timeout a client sends
 * from lower numbers again; with its new ACK and the old window we would send beyond the edge it has offered.
 */
function updateSendWindow(ctx: TcpContext, tcb: Tcb, seg: TcpSegment, acked: number): void {
  const newer = acked > 0 || seqLt(tcb.sndWl1, seg.seq) || (tcb.sndWl1 === seg.seq && seqLeq(tcb.sndWl2, seg.ack));
  if (!newer) return;
  const wnd = seg.wnd << tcb.sndShift;
  const opened = wnd > tcb.sndWnd;
  tcb.sndWnd = wnd;
  tcb.maxSndWnd = Math.max(tcb.maxSndWnd, wnd);
  tcb.sndWl1 = seg.seq;
  tcb.sndWl2 = seg.ack;
  if (!opened) return;
  if (tcb.persisting) leavePersist(ctx, tcb);
  ctx.markDirty(tcb);
}

/** The window opened: what probes carried goes out again with the rest. */
function leavePersist(ctx: TcpContext, tcb: Tcb): void {
  tcb.persisting = false;
  tcb.retries = 0;
  stopRetransmitTimer(ctx, tcb);
  tcb.sndNxt = tcb.sndUna;
  rewindCursor(tcb);
}

function onNewAck(ctx: TcpContext, tcb: Tcb, seg: TcpSegment, acked: number): void {
  if (tcb.timestamps && seg.hasTimestamps) sampleTimestamp(ctx, tcb, seg);
  else sampleTimed(ctx, tcb, seg);
  const finAcked = tcb.finSent && seqDiff(seg.ack, tcb.finSeq) > 0 && finIsOutstanding(tcb);
  const data = finAcked ? acked - 1 : acked;
  // SND.NXT may have gone back behind the ACK after a timeout.
  if (seqLt(tcb.sndNxt, seg.ack)) {
    rewindCursor(tcb);
    tcb.sndNxt = seg.ack;
  }
  if (data > 0) dropAcknowledged(ctx, tcb, data);
  tcb.sndUna = seg.ack;
  tcb.activeAt = ctx.now;
  tcb.retries = 0;
  recoverOrGrow(ctx, tcb, seg.ack, acked);
  tcb.dupAcks = 0;
  if (tcb.sndUna === tcb.sndMax) {
    stopRetransmitTimer(ctx, tcb);
    tcb.persisting = false;
  } else {
    restartRetransmitTimer(ctx, tcb);
  }
  if (data > 0 && tcb.wantsWritable && tcb.sndQueued <= sendLimit(ctx) >>> 1) {
    tcb.wantsWritable = false;
    ctx.markReady(tcb, Ready.writable);
  }
  if (tcb.sndQueued > 0 || tcb.finQueued) ctx.markDirty(tcb);
}

function recoverOrGrow(ctx: TcpContext, tcb: Tcb, ack: number, acked: number): void {
  if (tcb.recovery === Recovery.fast) {
    if (seqLeq(tcb.recover, ack)) {
      tcb.recovery = Recovery.open;
      ctx.congestion.onRecovered(tcb, seqDiff(tcb.sndMax, ack));
    } else {
      // RFC 6582 §3.2: the next hole starts here.
      tcb.retransmitNow = true;
      ctx.congestion.onPartialAck(tcb, acked);
      ctx.markDirty(tcb);
    }
    return;
  }
  if (tcb.recovery === Recovery.timeout && seqLeq(tcb.recover, ack)) tcb.recovery = Recovery.open;
  ctx.congestion.onAck(tcb, acked);
}

function onDuplicateAck(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): void {
  tcb.dupAcks++;
  if (tcb.recovery === Recovery.fast) {
    ctx.congestion.onDuplicateAck(tcb);
    ctx.markDirty(tcb);
    return;
  }
  if (tcb.recovery !== Recovery.open) return;
  // RFC 6582 §3.2 step 1: not again for the window in which loss was dealt with already.
  if (seqLeq(tcb.sndUna, tcb.recover) && !sacksBeyondRecover(tcb, seg)) return;
  // RFC 6675 §4: a super-segment of the device is answered once, and its bytes tell as much as many duplicates.
  if (tcb.dupAcks < DUP_ACK_THRESHOLD && sackedBytes(tcb, seg) <= (DUP_ACK_THRESHOLD - 1) * tcb.smss) {
    ctx.markDirty(tcb); // RFC 3042: new data keeps the ACKs coming.
    return;
  }
  tcb.recovery = Recovery.fast;
  tcb.recover = tcb.sndMax;
  cancelRttTiming(tcb);
  // RFC 5681 §3.2 step 2: what limited transmit sent beyond the window does not count.
  ctx.congestion.onLoss(tcb, Math.min(tcb.cwnd, seqDiff(tcb.sndMax, tcb.sndUna)));
  tcb.retransmitNow = true;
  restartRetransmitTimer(ctx, tcb);
  ctx.markDirty(tcb);
}

/** The transitions that wait for our FIN's acknowledgment. */
function afterFinAcknowledged(ctx: TcpContext, tcb: Tcb): AckResult {
  if (!tcb.finSent || finIsOutstanding(tcb)) return AckResult.ok;
  switch (tcb.state) {
    case State.finWait1:
      ctx.setState(tcb, Event.ackOfFin);
      if (tcb.released) ctx.timers.set(tcb.slot, Timer.quiet, ctx.now + ctx.settings.finWait2Ms);
      return AckResult.ok;
    case State.closing:
      ctx.setState(tcb, Event.ackOfFin);
      enterTimeWait(ctx, tcb);
      return AckResult.gone;
    case State.lastAck:
      ctx.detach(tcb, null);
      return AckResult.gone;
    default:
      return AckResult.ok;
  }
}

/** TIME-WAIT begins: the acknowledgment that is owed goes out before the record is given up. */
export function enterTimeWait(ctx: TcpContext, tcb: Tcb): void {
  if (tcb.ackNow && ctx.output.queue.hasRoom()) sendAck(ctx, tcb);
  ctx.enterTimeWait(tcb);
}

/** RFC 7323 §4.1: the echoed timestamp gives a sample, for retransmissions too. */
function sampleTimestamp(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): void {
  if (seg.tsEcr === 0) return;
  const rtt = (tsClock(tcb, ctx.now) - seg.tsEcr) | 0;
  if (rtt >= 0 && rtt <= ctx.settings.maxRtoMs) takeRttSample(ctx, tcb, rtt);
}

/** RFC 6298 §3: one segment at a time is timed, never one that was sent twice. */
function sampleTimed(ctx: TcpContext, tcb: Tcb, seg: TcpSegment): void {
  if (tcb.rttAt === NO_TIME || seqLt(seg.ack, tcb.rttSeq)) return;
  takeRttSample(ctx, tcb, ctx.now - tcb.rttAt);
  cancelRttTiming(tcb);
}

/** The retransmission timer fired: everything unacknowledged may go out again, from SND.UNA on. */
export function onRetransmitTimeout(ctx: TcpContext, tcb: Tcb): void {
  const flightSize = seqDiff(tcb.sndMax, tcb.sndUna);
  if (tcb.retries === 0 || tcb.recovery !== Recovery.timeout) ctx.congestion.onTimeout(tcb, flightSize);
  tcb.retries++;
  tcb.recovery = Recovery.timeout;
  // RFC 6582 §4.2: remember how far the window went.
  tcb.recover = seqMax(tcb.recover, tcb.sndMax);
  tcb.dupAcks = 0;
  cancelRttTiming(tcb);
  // Bytes that have waited for a whole RTO may wait for long: do not let a few of them pin big blocks.
  ctx.chunks.compact(tcb.sndHead);
  tcb.sndNxt = tcb.sndUna;
  rewindCursor(tcb);
  startRetransmitTimer(ctx, tcb);
  ctx.markDirty(tcb);
}
