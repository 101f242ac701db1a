/** Path MTU discovery for TCP (RFC 1191 §6, RFC 8201 §5), with the checks of RFC 5927. */
import { Drop } from "../wire/drop.ts";
import { IPV4_HEADER_LEN } from "../wire/ipv4.ts";
import { IPV6_HEADER_LEN } from "../wire/ipv6.ts";
import { TCP_HEADER_LEN } from "../wire/tcp.ts";
import { KEY_REMOTE, KEY_WORDS, type TcpContext } from "./context.ts";
import { cancelRttTiming } from "./rto.ts";
import { rewindCursor } from "./send-queue.ts";
import { seqLeq, seqLt, seqMax } from "./seq.ts";
import { isSynchronized } from "./state.ts";
import { Recovery } from "./tcb.ts";

/**
 * A router says that a segment did not get through: the flow sends smaller ones from now on, and what is outstanding at
 * once again. Flows to the same client that begin later know of it.
 * @param ends eight address words of the segment: source (us), destination
 * @param ports both ports, the source's in the upper half
 * @param seq SEG.SEQ of the segment
 * @param mtu largest packet that gets through; smaller than the segment was
 */
export function onPathMtu(ctx: TcpContext, ends: Int32Array, ports: number, seq: number, mtu: number): Drop {
  const { key } = ctx;
  for (let i = 0; i < KEY_WORDS - 1; i++) key[i] = ends[i] as number;
  key[KEY_WORDS - 1] = ports;
  const slot = ctx.table.find(key);
  const tcb = slot < 0 ? null : ctx.tcbs[slot];
  if (tcb === null || tcb === undefined || !isSynchronized(tcb.state)) return Drop.icmpIgnored;
  // RFC 5927 §4.1: it must be about something in flight.
  if (!(seqLeq(tcb.sndUna, seq) && seqLt(seq, tcb.sndMax))) return Drop.icmpIgnored;
  ctx.output.pathMtus.learn(key, KEY_REMOTE, mtu, ctx.now);
  const smss = mtu - (tcb.isIpv4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN) - TCP_HEADER_LEN;
  if (smss >= tcb.smss) return Drop.none;
  tcb.smss = smss;
  if (tcb.persisting) return Drop.none;
  // RFC 1191 §6.5, RFC 8201 §5.4: sent again without waiting for the timer; the congestion window stays, since nothing
  // was lost to congestion. Duplicate ACKs for what did get through mean nothing until all of it is acknowledged.
  if (tcb.recovery === Recovery.fast) tcb.cwnd = tcb.ssthresh;
  tcb.recovery = Recovery.timeout;
  tcb.recover = seqMax(tcb.recover, tcb.sndMax);
  tcb.dupAcks = 0;
  tcb.retransmitNow = false;
  cancelRttTiming(tcb);
  tcb.sndNxt = tcb.sndUna;
  rewindCursor(tcb);
  ctx.markDirty(tcb);
  return Drop.none;
}
