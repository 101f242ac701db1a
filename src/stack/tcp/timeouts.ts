/** What the timers of a flow do when they expire. */

import { ACK_FLAG, RST } from "../wire/tcp.ts";
import { acceptableSeq } from "./acceptable-seq.ts";
import { onRetransmitTimeout } from "./acknowledge.ts";
import type { TcpContext } from "./context.ts";
import { isFinWait2Ending, onKeepAliveTimer } from "./keep-alive.ts";
import { sendResetOf } from "./reset.ts";
import { rewindCursor } from "./send-queue.ts";
import { State } from "./state.ts";
import type { Tcb } from "./tcb.ts";
import { Timer } from "./timer-table.ts";

/** Fires everything that is due at `ctx.now`. */
export function expireTimers(ctx: TcpContext): void {
  const { timers, timeWait, now } = ctx;
  for (let slot = timers.takeDue(now); slot >= 0; slot = timers.takeDue(now)) {
    const tcb = ctx.tcbs[slot];
    if (tcb === null || tcb === undefined) {
      timers.clearAll(slot);
      continue;
    }
    if (timers.at(slot, Timer.ack) <= now) {
      timers.clear(slot, Timer.ack);
      tcb.ackNow = true;
      ctx.markDirty(tcb);
    }
    if (timers.at(slot, Timer.retransmit) <= now) {
      timers.clear(slot, Timer.retransmit);
      onRetransmitTimer(ctx, tcb);
    }
    if (tcb.slot >= 0 && timers.at(slot, Timer.quiet) <= now) {
      timers.clear(slot, Timer.quiet);
      if (isFinWait2Ending(tcb)) ctx.detach(tcb, null);
      else onKeepAliveTimer(ctx, tcb);
    }
    if (tcb.slot >= 0) timers.rearm(slot);
  }
  while (timeWait.nextExpiry <= now) ctx.endTimeWait(timeWait.oldest);
}

function onRetransmitTimer(ctx: TcpContext, tcb: Tcb): void {
  const { synAckRetries, dataRetries } = ctx.settings;
  if (tcb.state === State.synReceived) {
    if (tcb.retries >= synAckRetries) {
      ctx.detach(tcb, "FLOW_TIMEOUT");
      return;
    }
    tcb.retries++;
    tcb.synAckNow = true;
    ctx.retransmits++;
    ctx.markDirty(tcb);
    return;
  }
  if (tcb.sndWnd === 0 && tcb.sndQueued > 0) enterPersist(tcb);
  if (tcb.persisting) {
    // RFC 9293 §3.8.6.1, MUST-37: for ever, as long as the peer answers.
    // Deviation: not once the owner has closed the flow. Nobody could end it then, and the peer would hold our memory for
    // as long as it likes; it has as many probes as it would have without an answer, and is reset.
    if ((tcb.released ? tcb.retries : tcb.unanswered) >= dataRetries) {
      if (tcb.unanswered < dataRetries) sendResetOf(ctx, tcb, acceptableSeq(tcb), tcb.rcvNxt, RST | ACK_FLAG);
      ctx.detach(tcb, "FLOW_TIMEOUT");
      return;
    }
    ctx.chunks.compact(tcb.sndHead);
    tcb.unanswered++;
    tcb.retries++;
    tcb.probeNow = true;
    ctx.timers.set(tcb.slot, Timer.retransmit, ctx.now + probeInterval(ctx, tcb));
    ctx.markDirty(tcb);
    return;
  }
  // RFC 9293 §3.8.3, R2; for a FIN before a closed window only silence counts (MUST-37).
  const tries = tcb.sndWnd === 0 && !tcb.released ? tcb.unanswered++ : tcb.retries;
  if (tries >= dataRetries) {
    ctx.detach(tcb, "FLOW_TIMEOUT");
    return;
  }
  onRetransmitTimeout(ctx, tcb);
}

/** The window closed over bytes in flight (MUST-34): from here on it is probed, as if they had not been sent. */
function enterPersist(tcb: Tcb): void {
  tcb.persisting = true;
  tcb.sndNxt = tcb.sndUna;
  rewindCursor(tcb);
}

function probeInterval(ctx: TcpContext, tcb: Tcb): number {
  return Math.min(ctx.settings.maxRtoMs, tcb.rto * 2 ** Math.min(tcb.retries, 16));
}
