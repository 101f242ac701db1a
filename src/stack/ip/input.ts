/** From raw bytes to a parsed IP packet that may be looked at: versions, lengths, and addresses nobody should use. */
import type { Memory } from "../memory/slab.ts";
import { Drop } from "../wire/drop.ts";
import { ICMP_CODES, ICMP_UNREACHABLE, Unreachable } from "../wire/icmp.ts";
import { type IpPacket, isMapped, Protocol } from "../wire/ip.ts";
import { parseIpv4 } from "../wire/ipv4.ts";
import { parseIpv6 } from "../wire/ipv6.ts";
import { checkFirstFragment, walkExtensionHeaders } from "./extension-headers.ts";

/**
 * Parses and checks the packet at bytes [start, end). Afterwards `payload` and `protocol` are those of TCP, UDP or ICMP,
 * or of a fragment. When the sender of a dropped packet is to be told, `errorType` says what.
 */
export function parseIp(memory: Memory, start: number, end: number, packet: IpPacket): Drop {
  packet.errorType = -1;
  if (end <= start) return Drop.ipTruncated;
  const version = memory.view.getUint8(start) >>> 4;
  if (version === 4) {
    let drop = parseIpv4(memory, start, end, packet);
    if (drop === Drop.none) drop = checkIpv4Addresses(packet.source3, packet.destination3);
    return drop === Drop.none ? checkIpv4Protocol(packet) : drop;
  }
  if (version === 6) {
    let drop = parseIpv6(memory, start, end, packet);
    if (drop === Drop.none) drop = checkIpv6Addresses(packet);
    if (drop !== Drop.none) return drop;
    const { protocol } = packet;
    if (protocol === Protocol.tcp || protocol === Protocol.udp || protocol === Protocol.icmpv6) return Drop.none;
    drop = walkExtensionHeaders(memory, packet, true);
    if (drop === Drop.none && packet.isFragment && packet.fragmentOffset === 0) {
      drop = checkFirstFragment(memory, packet);
    }
    return drop;
  }
  return Drop.ipVersion;
}

/** RFC 1122 §3.2.2.1: protocol unreachable for what is not supported. Of fragments the first one asks for it. */
function checkIpv4Protocol(packet: IpPacket): Drop {
  const { protocol } = packet;
  if (protocol === Protocol.tcp || protocol === Protocol.udp || protocol === Protocol.icmp) return Drop.none;
  packet.errorType = ICMP_UNREACHABLE;
  packet.errorCode = ICMP_CODES[Unreachable.protocol] as number;
  return Drop.ipProtocol;
}

/** RFC 1122 §3.2.1.3, RFC 6890: 0/8, 127/8, multicast and class E are no sources; what is sent to them is not ours. */
function checkIpv4Addresses(source: number, destination: number): Drop {
  const sourceNet = source >>> 24;
  if (sourceNet === 0 || sourceNet === 127 || sourceNet >= 224) return Drop.ipMartianSource;
  const destinationNet = destination >>> 24;
  if (destinationNet === 0 || destinationNet === 127 || destinationNet >= 224) return Drop.ipDestination;
  return source === destination ? Drop.ipMartianSource : Drop.none;
}

/** RFC 4291 §2.5, §2.7: unspecified, loopback, mapped and multicast addresses. */
function checkIpv6Addresses(packet: IpPacket): Drop {
  const { source0, source1, source2, source3 } = packet;
  if (source0 >>> 24 === 0xff || isSpecialIpv6(source0, source1, source2, source3)) return Drop.ipMartianSource;
  const { destination0, destination1, destination2, destination3 } = packet;
  // Multicast: neighbour discovery, router solicitation and listener reports of the host's own kernel, among others.
  if (destination0 >>> 24 === 0xff) return Drop.ipDestination;
  if (isSpecialIpv6(destination0, destination1, destination2, destination3)) return Drop.ipDestination;
  const land =
    source0 === destination0 && source1 === destination1 && source2 === destination2 && source3 === destination3;
  return land ? Drop.ipMartianSource : Drop.none;
}

/** ::, ::1 and ::ffff:0:0/96. */
function isSpecialIpv6(a0: number, a1: number, a2: number, a3: number): boolean {
  if (isMapped(a0, a1, a2)) return true;
  return a0 === 0 && a1 === 0 && a2 === 0 && (a3 === 0 || a3 === 1);
}
