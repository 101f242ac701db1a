/** Resets: the ones that belong to a flow and the ones that belong to none (RFC 9293 §3.5.2). */

import { Drop } from "../wire/drop.ts";
import type { IpPacket } from "../wire/ip.ts";
import { addressSum, answerAddresses, Protocol } from "../wire/ip.ts";
import { ACK_FLAG, emitTcp, RST, TCP_CHECKSUM, TCP_HEADER_LEN, type TcpSegment } from "../wire/tcp.ts";
import { acceptableSeq } from "./acceptable-seq.ts";
import { KEY_REMOTE, type TcpContext } from "./context.ts";
import { seqAdd } from "./seq.ts";
import { State } from "./state.ts";
import type { Tcb } from "./tcb.ts";

const words = new Int32Array(8);

function packetAddressSum(packet: IpPacket): number {
  return (
    addressSum(packet.source0, packet.source1, packet.source2, packet.source3) +
    addressSum(packet.destination0, packet.destination1, packet.destination2, packet.destination3)
  );
}

/**
 * Answers a segment that belongs to no flow (RFC 9293 §3.10.7.1): with an ACK, `<SEQ=SEG.ACK><CTL=RST>`, without,
 * `<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>`. Never called for a RST.
 */
export function sendResetFor(ctx: TcpContext, packet: IpPacket, seg: TcpSegment): void {
  const hasAck = (seg.flags & ACK_FLAG) !== 0;
  answerAddresses(packet, words);
  emitBare(
    ctx,
    packet.version === 4,
    words,
    0,
    KEY_REMOTE,
    packetAddressSum(packet),
    seg.destinationPort,
    seg.sourcePort,
    hasAck ? seg.ack : 0,
    hasAck ? 0 : seqAdd(seg.seq, seg.len),
    hasAck ? RST : RST | ACK_FLAG,
    0,
  );
}

/** Sends a bare segment of `tcb` with the given numbers: a reset. */
export function sendResetOf(ctx: TcpContext, tcb: Tcb, seq: number, ack: number, flags: number): void {
  const key = ctx.keyAt(tcb.slot);
  emitBare(
    ctx,
    tcb.isIpv4,
    ctx.table.keys,
    key,
    key + KEY_REMOTE,
    tcb.addressSum,
    tcb.localPort,
    tcb.remotePort,
    seq,
    ack,
    flags,
    0,
  );
}

/** Ends `tcb` with a reset (RFC 9293 §3.10.5), as soon as the transmit queue has room for it. */
export function endWithReset(ctx: TcpContext, tcb: Tcb): void {
  if (!ctx.output.queue.hasRoom()) {
    tcb.resetOwed = true;
    ctx.markDirty(tcb);
    return;
  }
  // Before accept no number was sent: it is the answer to the SYN.
  sendResetOf(ctx, tcb, tcb.state === State.listen ? 0 : acceptableSeq(tcb), tcb.rcvNxt, RST | ACK_FLAG);
  ctx.detach(tcb, "FLOW_ABORTED");
}

/**
 * Queues a segment without options and payload.
 * @param keys address words, local from `local` on and remote from `remote` on
 */
export function emitBare(
  ctx: TcpContext,
  isIpv4: boolean,
  keys: Int32Array,
  local: number,
  remote: number,
  addresses: number,
  localPort: number,
  remotePort: number,
  seq: number,
  ack: number,
  flags: number,
  wnd: number,
): void {
  const { slab, output } = ctx;
  if (!output.queue.hasRoom()) {
    ctx.drop(Drop.transmitQueueFull);
    return;
  }
  const at = output.queue.begin();
  const l4 = at + output.headerLength(isIpv4);
  emitTcp(slab, l4, localPort, remotePort, seq, ack, flags, wnd, TCP_HEADER_LEN);
  output.writeHeader(at, isIpv4, Protocol.tcp, TCP_HEADER_LEN, keys, local, remote);
  output.finish(at, l4, l4 + TCP_HEADER_LEN, TCP_HEADER_LEN, 0, 0, Protocol.tcp, TCP_CHECKSUM, addresses);
}
