/** Sequence numbers of segments without text. */
import { seqAdd, seqLt } from "./seq.ts";
import { isSynchronized } from "./state.ts";
import type { Tcb } from "./tcb.ts";

/**
 * A sequence number that the peer accepts: the highest sent, but not beyond the peer's window, where the byte of a
 * zero-window probe lies. A peer drops an ACK or a reset from there (RFC 9293 §3.10.7.4, first step).
 */
export function acceptableSeq(tcb: Tcb): number {
  // During the handshake nothing but SYN was sent, and that needs no window.
  if (!isSynchronized(tcb.state)) return tcb.sndMax;
  const edge = seqAdd(tcb.sndUna, tcb.sndWnd);
  return seqLt(edge, tcb.sndMax) ? edge : tcb.sndMax;
}
