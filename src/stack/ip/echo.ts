/** ICMP and ICMPv6 from clients: echo is answered (RFC 1122 §3.2.2.6, RFC 4443 §4.2), the rest is counted. */
import type { TransmitQueue } from "../memory/transmit-queue.ts";
import { fold, sumBytes } from "../wire/checksum.ts";
import { Drop } from "../wire/drop.ts";
import { emitIcmp, ICMP_ECHO, ICMP_ECHO_REPLY, ICMP_HEADER_LEN, ICMPV6_ECHO, ICMPV6_ECHO_REPLY } from "../wire/icmp.ts";
import { type IpPacket, Protocol, pseudoHeaderSum } from "../wire/ip.ts";
import type { IpOutput } from "./output.ts";

const words = new Int32Array(8);

/** Takes an ICMP packet; the reply refers to the packet's own data in the slab. */
export function receiveIcmp(output: IpOutput, packet: IpPacket): Drop {
  const { slab } = output;
  const isIpv4 = packet.version === 4;
  const start = packet.payload;
  const length = packet.end - start;
  if (length < ICMP_HEADER_LEN) return Drop.icmpTruncated;
  const pseudo = isIpv4 ? 0 : pseudoHeaderSum(packet, Protocol.icmpv6, length);
  if (fold(pseudo + sumBytes(slab, start, packet.end)) !== 0xffff) return Drop.icmpChecksum;
  const type = slab.view.getUint8(start);
  if (type !== (isIpv4 ? ICMP_ECHO : ICMPV6_ECHO) || slab.view.getUint8(start + 1) !== 0) return Drop.icmpType;
  return sendReply(output, output.queue, packet, isIpv4, slab.view.getInt32(start + 4));
}

function sendReply(output: IpOutput, queue: TransmitQueue, packet: IpPacket, isIpv4: boolean, rest: number): Drop {
  if (!queue.hasRoom()) return Drop.transmitQueueFull;
  words[0] = packet.destination0;
  words[1] = packet.destination1;
  words[2] = packet.destination2;
  words[3] = packet.destination3;
  words[4] = packet.source0;
  words[5] = packet.source1;
  words[6] = packet.source2;
  words[7] = packet.source3;
  const at = queue.begin();
  const body = at + output.headerLength(isIpv4);
  emitIcmp(output.slab, body, isIpv4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY, 0, rest);
  const data = packet.payload + ICMP_HEADER_LEN;
  output.finishIcmp(
    at,
    isIpv4,
    body,
    body + ICMP_HEADER_LEN,
    data,
    packet.end - data,
    isIpv4 ? Protocol.icmp : Protocol.icmpv6,
    words,
    0,
    4,
  );
  return Drop.none;
}
