/** The window offered to the peer (RFC 9293 §3.8.6; RFC 7323 §2). */
import type { TcpContext } from "./context.ts";
import { seqAdd, seqDiff } from "./seq.ts";
import type { Tcb } from "./tcb.ts";

/**
 * Right edge of the window that could be offered now. It never lies left of what was offered (SHLD-14), and moves only
 * by worthwhile steps (RFC 9293 §3.8.6.2.2, MUST-39).
 */
function rightEdge(ctx: TcpContext, tcb: Tcb): number {
  const growth = possibleGrowth(ctx, tcb);
  if (growth >= worthwhile(ctx, tcb)) return seqAdd(tcb.rcvAdv, growth);
  // A window that the field limits is large anyway and follows RCV.NXT.
  const isLimitedByField = growth > 0 && seqDiff(tcb.rcvAdv, tcb.rcvNxt) + growth === fieldLimit(tcb);
  return isLimitedByField ? seqAdd(tcb.rcvAdv, growth) : tcb.rcvAdv;
}

/** How many bytes the right edge could move. Nothing while memory is scarce. */
function possibleGrowth(ctx: TcpContext, tcb: Tcb): number {
  if (ctx.slab.scarce || tcb.released) return 0;
  const free = Math.min(ctx.settings.recvBuffer, ctx.slab.fairShare) - tcb.rcvQueued;
  return Math.min(free, fieldLimit(tcb)) - seqDiff(tcb.rcvAdv, tcb.rcvNxt);
}

/** The largest window that the field can tell. */
function fieldLimit(tcb: Tcb): number {
  return 65_535 << tcb.rcvShift;
}

/** The receive buffer, as far as the window field can tell of it. */
function largestWindow(ctx: TcpContext, tcb: Tcb): number {
  return Math.min(ctx.settings.recvBuffer, fieldLimit(tcb));
}

function worthwhile(ctx: TcpContext, tcb: Tcb): number {
  return Math.max(1, Math.min(tcb.smss, Math.min(ctx.settings.recvBuffer, ctx.slab.fairShare) >>> 1));
}

/**
 * Whether `window` may be offered because of rounding, although the buffer has no room for all of it. Each segment that
 * is no multiple of the unit adds up to a unit; without a bound tiny ones would never close the window.
 */
function isWithinSlack(ctx: TcpContext, tcb: Tcb, window: number): boolean {
  const { recvBuffer } = ctx.settings;
  return tcb.rcvQueued + window <= recvBuffer + Math.max(1 << tcb.rcvShift, recvBuffer >>> 3);
}

/**
 * Computes the window field for a segment and moves RCV.NXT + RCV.WND to what it says.
 * @param scaled whether the field is shifted: in every segment but a SYN
 */
export function advertiseWindow(ctx: TcpContext, tcb: Tcb, scaled: boolean): number {
  const edge = rightEdge(ctx, tcb);
  const window = Math.max(0, seqDiff(edge, tcb.rcvNxt));
  const shift = scaled ? tcb.rcvShift : 0;
  let field = Math.min(65535, window >>> shift);
  // RFC 7323 §2.4: rounding down would take back what was offered, so round up instead, while that stays bounded.
  const offered = seqDiff(tcb.rcvAdv, tcb.rcvNxt);
  if (field < 65535 && field << shift < offered && isWithinSlack(ctx, tcb, (field + 1) << shift)) field++;
  const adv = seqAdd(tcb.rcvNxt, field << shift);
  if (seqDiff(adv, tcb.rcvAdv) > 0) tcb.rcvAdv = adv;
  // The window of a SYN-ACK is small because it is not scaled; the next acknowledgment mends that by itself.
  tcb.windowIsShort = scaled && field << shift < largestWindow(ctx, tcb) >>> 1;
  return field;
}

/**
 * Whether the peer should hear of a larger window although nothing else is due: when it was offered less than half of the
 * buffer and could be offered a quarter more, or when it may be stopped by what it was offered.
 */
export function windowUpdateIsDue(ctx: TcpContext, tcb: Tcb): boolean {
  if (tcb.finReceived) return false;
  const growth = possibleGrowth(ctx, tcb);
  if (growth < worthwhile(ctx, tcb)) return false;
  if (tcb.windowIsShort && growth >= largestWindow(ctx, tcb) >>> 2) return true;
  return seqDiff(tcb.rcvAdv, tcb.rcvNxt) < 2 * tcb.smss;
}
