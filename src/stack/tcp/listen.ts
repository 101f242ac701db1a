/** Segments that belong to no connection yet: CLOSED and LISTEN (RFC 9293 §3.10.7.1, §3.10.7.2), and TIME-WAIT. */

import { Ready } from "../flow/flow.ts";
import { Drop } from "../wire/drop.ts";
import { addressSum, type IpPacket, isMapped, Protocol } from "../wire/ip.ts";
import {
  ACK_FLAG,
  emitTcp,
  emitTimestampsOption,
  FIN,
  RST,
  SYN,
  TCP_CHECKSUM,
  TCP_HEADER_LEN,
  type TcpSegment,
} from "../wire/tcp.ts";
import { TcpConnection } from "./connection.ts";
import { KEY_REMOTE, type TcpContext } from "./context.ts";
import { isRefusedByLimit } from "./limits.ts";
import { sendResetFor } from "./reset.ts";
import { seqAdd, seqLt } from "./seq.ts";
import { Tcb } from "./tcb.ts";

/** RFC 9293 §3.7.1: the MSS when the peer announces none (MUST-15). */
const DEFAULT_MSS_IPV4 = 536;
const DEFAULT_MSS_IPV6 = 1220;
/** Smaller announcements are raised to this: a peer must not make us send a byte a packet (CVE-2019-11479). */
const MIN_MSS = 64;

/** A segment whose flow is not in the table, `ctx.key` holding its key. */
export function segmentWithoutFlow(ctx: TcpContext, packet: IpPacket, seg: TcpSegment): void {
  const flags = seg.flags;
  if ((flags & RST) !== 0) {
    ctx.drop(Drop.tcpNoFlow);
    return;
  }
  if ((flags & ACK_FLAG) !== 0 || (flags & SYN) === 0) {
    // LISTEN second step: an ACK is reset; CLOSED: so is everything else that is no SYN.
    ctx.drop(Drop.tcpNoFlow);
    sendResetFor(ctx, packet, seg);
    return;
  }
  if ((flags & FIN) !== 0) {
    ctx.drop(Drop.tcpFlags);
    return;
  }
  if (isRefusedByLimit(ctx, packet)) {
    sendResetFor(ctx, packet, seg);
    return;
  }
  announce(ctx, packet, seg);
}

/** Makes a flow of a SYN and tells the owner of the stack; nothing is answered. */
function announce(ctx: TcpContext, packet: IpPacket, seg: TcpSegment): void {
  const { table, settings } = ctx;
  const slot = table.add(ctx.key);
  ctx.timers.reserve(table.capacity);
  ctx.timeWait.reserve(table.capacity);
  ctx.halfOpen.reserve(table.capacity);
  ctx.sources?.add(ctx.key, KEY_REMOTE);
  while (ctx.tcbs.length < table.capacity) ctx.tcbs.push(null);
  const isIpv4 = isMapped(packet.source0, packet.source1, packet.source2);
  const addresses =
    addressSum(packet.source0, packet.source1, packet.source2, packet.source3) +
    addressSum(packet.destination0, packet.destination1, packet.destination2, packet.destination3);
  const tcb = new Tcb(slot, isIpv4, seg.destinationPort, seg.sourcePort, addresses, settings, ctx.now);
  ctx.tcbs[slot] = tcb;
  tcb.irs = seg.seq;
  tcb.rcvNxt = seqAdd(seg.seq, 1);
  tcb.rcvAdv = tcb.rcvNxt;
  const announced = seg.mss === 0 ? (isIpv4 ? DEFAULT_MSS_IPV4 : DEFAULT_MSS_IPV6) : Math.max(MIN_MSS, seg.mss);
  // MUST-16: no larger than the device and the way to the client take either.
  const mtu = ctx.output.pathMtus.to(ctx.key, KEY_REMOTE, ctx.output.mtu, ctx.now);
  tcb.smss = Math.min(announced, mtu - (isIpv4 ? 40 : 60));
  if (seg.windowShift >= 0 && settings.windowShift >= 0) {
    tcb.windowScaling = true;
    tcb.sndShift = seg.windowShift;
    tcb.rcvShift = settings.windowShift;
  }
  tcb.timestamps = settings.timestamps && seg.hasTimestamps;
  tcb.tsRecent = seg.tsVal;
  tcb.tsRecentAt = ctx.now;
  tcb.sackPermitted = settings.sack && seg.sackPermitted;
  // RFC 7323 §2.2: the window of a SYN is not scaled.
  tcb.sndWnd = seg.wnd;
  tcb.maxSndWnd = seg.wnd;
  tcb.connection = new TcpConnection(ctx, tcb);
  ctx.markReady(tcb, Ready.syn);
}

/** A segment for a flow that has not been accepted: a copy of the SYN joins it, a reset ends it. */
export function segmentBeforeAccept(ctx: TcpContext, tcb: Tcb, packet: IpPacket, seg: TcpSegment): void {
  if ((seg.flags & RST) !== 0) {
    // The client sees no sequence number of ours yet; its own must be the one of the SYN or the next.
    if (seg.seq === tcb.irs || seg.seq === tcb.rcvNxt) ctx.detach(tcb, "FLOW_RESET");
    else ctx.drop(Drop.tcpUnacceptable);
    return;
  }
  if ((seg.flags & (SYN | ACK_FLAG)) === SYN) {
    if ((seg.flags & FIN) !== 0) {
      ctx.drop(Drop.tcpFlags);
      return;
    }
    if (seg.seq === tcb.irs) return;
    // A new SYN on the same ports: the client gave the first one up. Its owner hears of the end, then of a new flow.
    ctx.detach(tcb, "FLOW_RESET");
    segmentWithoutFlow(ctx, packet, seg);
    return;
  }
  ctx.drop(Drop.tcpNoFlow);
  if ((seg.flags & ACK_FLAG) !== 0) sendResetFor(ctx, packet, seg);
}

/** RFC 9293 §3.10.7.4 and §3.10.7.8 for a flow in TIME-WAIT. */
export function segmentInTimeWait(ctx: TcpContext, slot: number, packet: IpPacket, seg: TcpSegment): void {
  const { timeWait } = ctx;
  // RFC 1337: a reset must not end TIME-WAIT.
  if ((seg.flags & RST) !== 0) {
    ctx.drop(Drop.tcpUnacceptable);
    return;
  }
  if ((seg.flags & (SYN | ACK_FLAG | FIN)) === SYN && isNewer(ctx, slot, seg)) {
    // RFC 6191 §2, RFC 9293 §3.6.1 MAY-2: a SYN that cannot be an old copy starts a new connection, with an ISN beyond
    // what the old one used.
    const sndNxt = timeWait.sndNxt(slot);
    ctx.endTimeWait(slot);
    segmentWithoutFlow(ctx, packet, seg);
    const tcb = ctx.tcbs[ctx.table.find(ctx.key)];
    if (tcb !== null && tcb !== undefined) tcb.iss = sndNxt;
    return;
  }
  // RFC 9293 §3.10.7.4, fifth step: without ACK it is dropped.
  if ((seg.flags & (SYN | ACK_FLAG)) === 0) {
    ctx.drop(Drop.tcpFlags);
    return;
  }
  if ((seg.flags & FIN) !== 0) timeWait.restart(slot, ctx.now + ctx.settings.timeWaitMs);
  if (seg.len === 0) {
    // An acceptable ACK without text wants no answer; others get a few only, lest two ends answer each other for ever.
    if (seg.seq === timeWait.rcvNxt(slot) || !timeWait.takeAnswer(slot)) return;
  }
  sendTimeWaitAck(ctx, slot, packet, seg);
}

function isNewer(ctx: TcpContext, slot: number, seg: TcpSegment): boolean {
  const { timeWait } = ctx;
  if (timeWait.hasTimestamps(slot) && seg.hasTimestamps) {
    const step = (seg.tsVal - timeWait.tsRecent(slot)) | 0;
    if (step !== 0) return step > 0;
  }
  return seqLt(timeWait.rcvNxt(slot), seg.seq);
}

function sendTimeWaitAck(ctx: TcpContext, slot: number, packet: IpPacket, seg: TcpSegment): void {
  const { timeWait, slab, output } = ctx;
  if (!output.queue.hasRoom()) {
    ctx.drop(Drop.transmitQueueFull);
    return;
  }
  const isIpv4 = packet.version === 4;
  const at = output.queue.begin();
  const l4 = at + output.headerLength(isIpv4);
  let end = l4 + TCP_HEADER_LEN;
  if (timeWait.hasTimestamps(slot)) {
    const clock = (Math.floor(ctx.now) + timeWait.tsOffset(slot)) | 0;
    end = emitTimestampsOption(slab, end, clock, timeWait.tsRecent(slot));
  }
  emitTcp(
    slab,
    l4,
    seg.destinationPort,
    seg.sourcePort,
    timeWait.sndNxt(slot),
    timeWait.rcvNxt(slot),
    ACK_FLAG,
    timeWait.window(slot),
    end - l4,
  );
  const key = ctx.keyAt(slot);
  const addresses =
    addressSum(packet.source0, packet.source1, packet.source2, packet.source3) +
    addressSum(packet.destination0, packet.destination1, packet.destination2, packet.destination3);
  output.writeHeader(at, isIpv4, Protocol.tcp, end - l4, ctx.table.keys, key, key + KEY_REMOTE);
  output.finish(at, l4, end, end - l4, 0, 0, Protocol.tcp, TCP_CHECKSUM, addresses);
}
