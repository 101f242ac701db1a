/**
 * ICMP and ICMPv6 from clients, and from routers in front of them: echo is answered (RFC 1122 §3.2.2.6, RFC 4443 §4.2),
 * a path MTU is learned (RFC 1191, RFC 8201), the rest is counted. Other errors about what we sent are soft, whatever
 * their code: they end no flow (RFC 1122 §4.2.3.9, RFC 5927 §5.2), since whoever is really gone stops acknowledging.
 */
import { fold, sumBytes } from "../wire/checksum.ts";
import { Drop } from "../wire/drop.ts";
import {
  emitIcmp,
  ICMP_CHECKSUM,
  ICMP_ECHO,
  ICMP_ECHO_REPLY,
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HEADER_LEN,
  ICMP_UNREACHABLE,
  ICMPV6_ECHO,
  ICMPV6_ECHO_REPLY,
  ICMPV6_PACKET_TOO_BIG,
} from "../wire/icmp.ts";
import { answerAddresses, type IpPacket, Protocol, pseudoHeaderSum } from "../wire/ip.ts";
import { FragmentsResult, finishInFragments, firstFragmentBody } from "./fragmentation.ts";
import { type IcmpQuote, parseQuote } from "./icmp-quote.ts";
import type { IpOutput } from "./output.ts";
import { claimedMtu, pathMtuFloor } from "./path-mtu.ts";

const words = new Int32Array(8);

/**
 * Takes an ICMP packet. An echo reply refers to the packet's own data in the slab. A path MTU for TCP is the matter of
 * TCP, which knows the sequence numbers: then `quote.mtu` is set.
 */
export function receiveIcmp(output: IpOutput, packet: IpPacket, quote: IcmpQuote, now: number): Drop {
  const { slab } = output;
  const { view } = slab;
  const isIpv4 = packet.version === 4;
  const start = packet.payload;
  const length = packet.end - start;
  quote.mtu = 0;
  if (length < ICMP_HEADER_LEN) return Drop.icmpTruncated;
  const pseudo = isIpv4 ? 0 : pseudoHeaderSum(packet, Protocol.icmpv6, length);
  if (fold(pseudo + sumBytes(slab, start, packet.end)) !== 0xffff) return Drop.icmpChecksum;
  const type = view.getUint8(start);
  const code = view.getUint8(start + 1);
  if (type === (isIpv4 ? ICMP_ECHO : ICMPV6_ECHO) && code === 0) {
    return sendReply(output, packet, isIpv4, view.getInt32(start + 4), now);
  }
  // RFC 1191 §4: the MTU in the low half; RFC 4443 §3.2: in all of the word, the code is not looked at.
  if (isIpv4 && type === ICMP_UNREACHABLE && code === ICMP_FRAGMENTATION_NEEDED) {
    return learnPathMtu(output, packet, quote, view.getUint16(start + 6), now);
  }
  if (!isIpv4 && type === ICMPV6_PACKET_TOO_BIG) {
    return learnPathMtu(output, packet, quote, view.getUint32(start + 4), now);
  }
  return Drop.icmpType;
}

function learnPathMtu(output: IpOutput, packet: IpPacket, quote: IcmpQuote, said: number, now: number): Drop {
  const isIpv4 = packet.version === 4;
  if (!parseQuote(output.slab, packet.payload + ICMP_HEADER_LEN, packet.end, isIpv4, quote)) return Drop.icmpIgnored;
  if (!isFromDestination(packet, quote.words)) return Drop.icmpIgnored;
  const mtu = claimedMtu(isIpv4, said, quote.packetLength);
  if (mtu === 0) return Drop.icmpIgnored;
  if (quote.protocol === Protocol.tcp) {
    quote.mtu = mtu;
    return Drop.none;
  }
  if (!output.pathMtus.wasSent(quote.protocol, quote.words, 0, 4, quote.ports)) return Drop.icmpIgnored;
  output.pathMtus.learn(quote.words, 4, mtu, now);
  return Drop.none;
}

/** An error goes to the sender of what it quotes. */
function isFromDestination(packet: IpPacket, quoted: Int32Array): boolean {
  return (
    quoted[0] === packet.destination0 &&
    quoted[1] === packet.destination1 &&
    quoted[2] === packet.destination2 &&
    quoted[3] === packet.destination3
  );
}

function sendReply(output: IpOutput, packet: IpPacket, isIpv4: boolean, rest: number, now: number): Drop {
  const { queue, slab, pathMtus } = output;
  if (!queue.hasRoom()) return Drop.transmitQueueFull;
  answerAddresses(packet, words);
  const type = isIpv4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
  const protocol = isIpv4 ? Protocol.icmp : Protocol.icmpv6;
  const data = packet.payload + ICMP_HEADER_LEN;
  const length = packet.end - data;
  const ipLength = output.headerLength(isIpv4) + ICMP_HEADER_LEN + length;
  if (ipLength > pathMtuFloor(isIpv4)) pathMtus.noteSent(protocol, words, 0, 4, type << 24);
  const mtu = pathMtus.to(words, 4, output.mtu, now);
  if (ipLength > mtu) {
    emitIcmp(slab, firstFragmentBody(output, isIpv4), type, 0, rest);
    const result = finishInFragments(output, isIpv4, protocol, ICMP_CHECKSUM, words, 0, 4, data, length, mtu);
    return result === FragmentsResult.sent ? Drop.none : Drop.transmitQueueFull;
  }
  const at = queue.begin();
  const body = at + output.headerLength(isIpv4);
  emitIcmp(slab, body, type, 0, rest);
  output.finishIcmp(at, isIpv4, body, body + ICMP_HEADER_LEN, data, length, protocol, words, 0, 4);
  return Drop.none;
}
