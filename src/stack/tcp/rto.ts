/** The retransmission timer: RTT samples and the RTO (RFC 6298). */
import type { TcpContext } from "./context.ts";
import { NO_TIME, type Tcb } from "./tcb.ts";
import { Timer } from "./timer-table.ts";

/** RFC 6298 §2: K. */
const K = 4;
/** Clock granularity G, ms: the wheel's tick. */
const GRANULARITY_MS = 4;

/** Takes an RTT sample of `rttMs` and computes the RTO (RFC 6298 §2.2, §2.3). */
export function takeRttSample(ctx: TcpContext, tcb: Tcb, rttMs: number): void {
  if (tcb.srtt < 0) {
    tcb.srtt = rttMs;
    tcb.rttvar = rttMs / 2;
  } else {
    tcb.rttvar = 0.75 * tcb.rttvar + 0.25 * Math.abs(tcb.srtt - rttMs);
    tcb.srtt = 0.875 * tcb.srtt + 0.125 * rttMs;
  }
  const { minRtoMs, maxRtoMs } = ctx.settings;
  // Deviation: the floor is below the second of RFC 6298 §2.4, as in all current stacks; a TUN link answers in well
  // under a millisecond, and clients delay ACKs by at most 200 ms. `minRtoMs` undoes it.
  tcb.rto = Math.min(maxRtoMs, Math.max(minRtoMs, tcb.srtt + Math.max(GRANULARITY_MS, K * tcb.rttvar)));
}

/** The delay until the next retransmission: the RTO, doubled for each one since progress (RFC 6298 §5.5). */
export function backedOffRto(ctx: TcpContext, tcb: Tcb): number {
  return Math.min(ctx.settings.maxRtoMs, tcb.rto * 2 ** Math.min(tcb.retries, 16));
}

/** RFC 6298 §5.1: starts the timer when it is not running. */
export function startRetransmitTimer(ctx: TcpContext, tcb: Tcb): void {
  if (ctx.timers.at(tcb.slot, Timer.retransmit) !== Number.POSITIVE_INFINITY) return;
  restartRetransmitTimer(ctx, tcb);
}

/** RFC 6298 §5.3: restarts the timer. */
export function restartRetransmitTimer(ctx: TcpContext, tcb: Tcb): void {
  ctx.timers.set(tcb.slot, Timer.retransmit, ctx.now + backedOffRto(ctx, tcb));
}

/** RFC 6298 §5.2: nothing is outstanding. */
export function stopRetransmitTimer(ctx: TcpContext, tcb: Tcb): void {
  ctx.timers.clear(tcb.slot, Timer.retransmit);
}

/** Karn's algorithm (RFC 6298 §3): the segment being timed was sent again, so it says nothing. */
export function cancelRttTiming(tcb: Tcb): void {
  tcb.rttAt = NO_TIME;
}

/** The flow's timestamp clock: milliseconds (RFC 7323 §5.4). */
export function tsClock(tcb: Tcb, now: number): number {
  return (Math.floor(now) + tcb.tsOffset) | 0;
}
