/** What IPv4 and IPv6 packets have in common once parsed. */

/** Protocol and next header numbers (IANA). */
export const Protocol = {
  ipv6HopByHop: 0,
  icmp: 1,
  tcp: 6,
  udp: 17,
  ipv6Routing: 43,
  ipv6Fragment: 44,
  icmpv6: 58,
  ipv6NoNext: 59,
  ipv6DestinationOptions: 60,
} as const;

/**
 * A parsed IP packet: offsets into the packet memory and addresses as big-endian 32-bit words. IPv4 addresses are held
 * IPv4-mapped (0, 0, 0xffff, address), so that one key and one comparison serve both families; a mapped address on the
 * wire of IPv6 is refused by ip/input. One instance is reused for every packet.
 */
export class IpPacket {
  /** 4 or 6. */
  version = 4;
  /** Offset of the IP header. */
  start = 0;
  /** Offset of the first byte behind the IP header and its options. */
  payload = 0;
  /** Offset behind the last byte by the header's own length; bytes beyond are ignored. */
  end = 0;
  protocol = 0;
  hopLimit = 0;
  trafficClass = 0;
  source0 = 0;
  source1 = 0;
  source2 = 0;
  source3 = 0;
  destination0 = 0;
  destination1 = 0;
  destination2 = 0;
  destination3 = 0;
  /** Whether this is one of several fragments of a datagram; then the next four fields hold. */
  isFragment = false;
  /** Bytes of the datagram in front of this fragment's. */
  fragmentOffset = 0;
  moreFragments = false;
  /** 16 bits for IPv4, 32 for IPv6. */
  identification = 0;
  /** Offset of the field that names the protocol of `payload`, in bytes from `start`: what an error points at. */
  protocolAt = 0;
  /** ICMP message that the sender of a dropped packet is due: its type, or -1 for none. */
  errorType = -1;
  errorCode = 0;
  /** Pointer of a parameter problem, in bytes from `start`. */
  errorPointer = 0;
  /** Payload bytes per segment when the device joined several; else 0. */
  segmentSize = 0;
  /** Whether the L4 checksum was verified by the device (or never needed). */
  checksumTrusted = false;
}

/** The pseudo-header's sum without the addresses: protocol and L4 length (RFC 9293 §3.1, RFC 8200 §8.1). */
export function pseudoHeaderLengthSum(protocol: number, length: number): number {
  return protocol + (length >>> 16) + (length & 0xffff);
}

/** Sum of the 16-bit halves of four address words; mapped IPv4 addresses count their 32 bits only. */
export function addressSum(a0: number, a1: number, a2: number, a3: number): number {
  const low = (a3 >>> 16) + (a3 & 0xffff);
  if (isMapped(a0, a1, a2)) return low;
  return low + (a0 >>> 16) + (a0 & 0xffff) + (a1 >>> 16) + (a1 & 0xffff) + (a2 >>> 16) + (a2 & 0xffff);
}

/** The pseudo-header's sum for the addresses of `packet`, in either direction. */
export function pseudoHeaderSum(packet: IpPacket, protocol: number, length: number): number {
  return (
    pseudoHeaderLengthSum(protocol, length) +
    addressSum(packet.source0, packet.source1, packet.source2, packet.source3) +
    addressSum(packet.destination0, packet.destination1, packet.destination2, packet.destination3)
  );
}

/** Whether address words are an IPv4 address in the mapped form used for keys (RFC 4291 §2.5.5.2). */
export function isMapped(a0: number, a1: number, a2: number): boolean {
  return a2 === 0xffff && a0 === 0 && a1 === 0;
}

/** Fills `words` with the packet's destination and source, four words each: the ends as an answer has them. */
export function answerAddresses(packet: IpPacket, words: Int32Array): void {
  words[0] = packet.destination0;
  words[1] = packet.destination1;
  words[2] = packet.destination2;
  words[3] = packet.destination3;
  words[4] = packet.source0;
  words[5] = packet.source1;
  words[6] = packet.source2;
  words[7] = packet.source3;
}
