/**
 * Keep-alive: a client that has said nothing for long is asked whether it is still there (RFC 9293 §3.8.4). Off unless
 * the owner wants it (MUST-25), and then only while nothing else would find out that the client has gone (MUST-26).
 */
import { ACK_FLAG, RST } from "../wire/tcp.ts";
import { acceptableSeq } from "./acceptable-seq.ts";
import type { TcpContext } from "./context.ts";
import { sendResetOf } from "./reset.ts";
import { sendKeepAlive } from "./send.ts";
import { isSynchronized, State } from "./state.ts";
import type { Tcb } from "./tcb.ts";
import { NEVER, Timer } from "./timer-table.ts";

/** The client was heard: the next question is due a whole interval later. */
export function restartKeepAlive(ctx: TcpContext, tcb: Tcb): void {
  // Once nobody reads, FIN-WAIT-2 ends at a time of its own, and the timer is that one.
  if (tcb.keepAliveMs === 0 || isFinWait2Ending(tcb)) return;
  ctx.timers.set(tcb.slot, Timer.quiet, ctx.now + tcb.keepAliveMs);
}

/** Whether the flow waits for no more than the end of FIN-WAIT-2. */
export function isFinWait2Ending(tcb: Tcb): boolean {
  return tcb.released && tcb.state === State.finWait2;
}

/** Nothing was heard for the interval, or no answer came to the last question. */
export function onKeepAliveTimer(ctx: TcpContext, tcb: Tcb): void {
  const { keepAliveIntervalMs, keepAliveProbes } = ctx.settings;
  if (tcb.keepAliveMs === 0) return;
  // MUST-26: what is on its way, or waits for a window, has a timer that finds out as well.
  if (!isSynchronized(tcb.state) || tcb.isDirty || ctx.timers.at(tcb.slot, Timer.retransmit) !== NEVER) {
    restartKeepAlive(ctx, tcb);
    return;
  }
  // MUST-29: one answer that does not come means nothing.
  if (tcb.unanswered >= keepAliveProbes) {
    // Should the client be there after all, it learns that the connection is not.
    sendResetOf(ctx, tcb, acceptableSeq(tcb), tcb.rcvNxt, RST | ACK_FLAG);
    ctx.detach(tcb, "FLOW_TIMEOUT");
    return;
  }
  if (ctx.output.queue.hasRoom()) {
    tcb.unanswered++;
    sendKeepAlive(ctx, tcb);
  }
  ctx.timers.set(tcb.slot, Timer.quiet, ctx.now + keepAliveIntervalMs);
}
