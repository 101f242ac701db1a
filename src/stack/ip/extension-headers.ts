/**
 * The chain of IPv6 extension headers (RFC 8200 §4), walked from the IPv6 header to what TCP, UDP or ICMPv6 get.
 *
 * ```
 * |  Next Header  |  Hdr Ext Len  |  options, or routing data ...     8 bytes and Hdr Ext Len times 8 more
 * ```
 *
 * Every length is checked before it is used, and each header makes the rest shorter by eight bytes at least, so that a
 * walk ends; the number of headers, options and bytes is limited besides.
 */
import type { Memory } from "../memory/slab.ts";
import { Drop } from "../wire/drop.ts";
import { ICMPV6_FIRST_INFORMATIONAL, ICMPV6_PARAMETER_PROBLEM, ParameterProblem } from "../wire/icmp.ts";
import { type IpPacket, Protocol } from "../wire/ip.ts";
import { IPV6_FRAGMENT_HEADER_LEN, IPV6_HEADER_LEN, parseIpv6Fragment } from "../wire/ipv6.ts";
import { TCP_HEADER_LEN } from "../wire/tcp.ts";
import { UDP_HEADER_LEN } from "../wire/udp.ts";

/** Most extension headers in a packet: each of the four kinds once, destination options twice, and as many to spare. */
const MAX_HEADERS = 10;
/** Most bytes of extension headers; what is in use today stays far below. */
const MAX_BYTES = 1024;
/** RFC 8504 §5.3: options other than padding in a header, and bytes of padding in a row. */
const MAX_OPTIONS = 8;
const MAX_PADDING = 7;
const OPTION_PAD1 = 0;
const OPTION_PADN = 1;
/** Options that are known and mean nothing here: router alert (RFC 2711). */
const OPTION_ROUTER_ALERT = 5;
/** Of a routing header. */
const SEGMENTS_LEFT = 3;
const ROUTING_TYPE = 2;
/** What a first fragment must have of an ICMPv6 message: type, code and checksum. */
const MIN_ICMP = 4;

/**
 * Walks the headers from `packet.payload`, whose kind is `packet.protocol`, and moves both behind them; stops behind a
 * fragment header that makes the packet a fragment.
 * @param isFirst whether the IPv6 header comes before: else it is the rest of a reassembled packet
 */
export function walkExtensionHeaders(memory: Memory, packet: IpPacket, isFirst: boolean): Drop {
  const { view } = memory;
  const start = packet.payload;
  for (let headers = 0; ; headers++) {
    const at = packet.payload;
    const kind = packet.protocol;
    switch (kind) {
      case Protocol.ipv6HopByHop:
        // RFC 8200 §4: it stands directly behind the IPv6 header, or it is as good as unknown.
        if (headers > 0 || !isFirst) return problem(packet, ParameterProblem.unknownNextHeader, packet.protocolAt);
        break;
      case Protocol.ipv6Routing:
      case Protocol.ipv6DestinationOptions:
        break;
      case Protocol.ipv6Fragment:
        if (packet.isFragment || !isFirst) return Drop.ipFragment;
        if (at + IPV6_FRAGMENT_HEADER_LEN > packet.end) return Drop.ipTruncated;
        parseIpv6Fragment(memory, at, packet);
        break;
      case Protocol.ipv6NoNext:
        // RFC 8200 §4.7: nothing follows, and nothing is wrong.
        return Drop.ipNoNextHeader;
      case Protocol.tcp:
      case Protocol.udp:
      case Protocol.icmpv6:
        return Drop.none;
      default:
        // RFC 8200 §4, RFC 4443 §3.4. ESP and AH are not followed: there is no security association here.
        packet.errorType = ICMPV6_PARAMETER_PROBLEM;
        packet.errorCode = ParameterProblem.unknownNextHeader;
        packet.errorPointer = packet.protocolAt;
        return Drop.ipProtocol;
    }
    if (headers === MAX_HEADERS || at - start > MAX_BYTES) return Drop.ipExtensionHeader;
    if (at + 8 > packet.end) return Drop.ipTruncated;
    const length = kind === Protocol.ipv6Fragment ? IPV6_FRAGMENT_HEADER_LEN : (view.getUint8(at + 1) + 1) << 3;
    if (at + length > packet.end) return Drop.ipTruncated;
    if (kind === Protocol.ipv6Routing) {
      const drop = checkRouting(memory, packet, at);
      if (drop !== Drop.none) return drop;
    } else if (kind !== Protocol.ipv6Fragment) {
      const drop = checkOptions(memory, packet, at + 2, at + length);
      if (drop !== Drop.none) return drop;
    }
    packet.protocol = view.getUint8(at);
    packet.protocolAt = at - packet.start;
    packet.payload = at + length;
    if (packet.isFragment && kind === Protocol.ipv6Fragment) return Drop.none;
  }
}

/**
 * Whether the first fragment at hand has the whole chain, upper-layer header included (RFC 7112 §5). Walks a copy of the
 * position: `packet` stays behind its fragment header.
 */
export function checkFirstFragment(memory: Memory, packet: IpPacket): Drop {
  const { payload, protocol, protocolAt } = packet;
  const drop = walkExtensionHeaders(memory, packet, false);
  const room = packet.end - packet.payload;
  const isShort = drop === Drop.ipTruncated || (drop === Drop.none && room < upperHeaderLength(packet.protocol));
  packet.payload = payload;
  packet.protocol = protocol;
  packet.protocolAt = protocolAt;
  if (isShort) {
    packet.errorType = ICMPV6_PARAMETER_PROBLEM;
    packet.errorCode = ParameterProblem.incompleteFirstFragment;
    packet.errorPointer = 0;
    return Drop.ipFragment;
  }
  return drop;
}

function upperHeaderLength(protocol: number): number {
  if (protocol === Protocol.tcp) return TCP_HEADER_LEN;
  return protocol === Protocol.udp ? UDP_HEADER_LEN : MIN_ICMP;
}

function problem(packet: IpPacket, code: ParameterProblem, pointer: number): Drop {
  packet.errorType = ICMPV6_PARAMETER_PROBLEM;
  packet.errorCode = code;
  packet.errorPointer = pointer;
  return Drop.ipExtensionHeader;
}

/** RFC 8200 §4.4, RFC 5095 §3: a route that is not at its end would have us forward; one at its end is ignored. */
function checkRouting(memory: Memory, packet: IpPacket, at: number): Drop {
  if (memory.view.getUint8(at + SEGMENTS_LEFT) === 0) return Drop.none;
  problem(packet, ParameterProblem.erroneousField, at + ROUTING_TYPE - packet.start);
  return Drop.ipRoutingHeader;
}

/** Walks the options of a hop-by-hop or destination options header (RFC 8200 §4.2). */
function checkOptions(memory: Memory, packet: IpPacket, from: number, end: number): Drop {
  const { view } = memory;
  let options = 0;
  let padding = 0;
  for (let at = from; at < end; ) {
    const type = view.getUint8(at);
    if (type === OPTION_PAD1) {
      if (++padding > MAX_PADDING) return Drop.ipExtensionHeader;
      at++;
      continue;
    }
    if (at + 2 > end) return Drop.ipExtensionHeader;
    const length = view.getUint8(at + 1);
    const next = at + 2 + length;
    if (next > end) return Drop.ipExtensionHeader;
    if (type === OPTION_PADN) {
      padding += 2 + length;
      if (padding > MAX_PADDING) return Drop.ipExtensionHeader;
    } else {
      padding = 0;
      if (++options > MAX_OPTIONS) return Drop.ipExtensionHeader;
      // The two highest bits say what becomes of a packet with an option that is not known.
      const action = type === OPTION_ROUTER_ALERT ? 0 : type >>> 6;
      if (action > 0) {
        // 3 asks for an error unless the destination is multicast, 2 in any case; those have been dropped before.
        if (action > 1) problem(packet, ParameterProblem.unknownOption, at - packet.start);
        return Drop.ipOption;
      }
    }
    at = next;
  }
  return Drop.none;
}

/**
 * Whether the IPv6 packet at bytes [start, end), whose headers may be wrong, ends in an ICMPv6 error: about those no
 * error is sent (RFC 4443 §2.4 e.1).
 */
export function carriesIcmpv6Error(memory: Memory, start: number, end: number): boolean {
  const { view } = memory;
  let kind = view.getUint8(start + 6);
  let at = start + IPV6_HEADER_LEN;
  let isLater = false;
  for (let headers = 0; headers <= MAX_HEADERS && at < end; headers++) {
    // Behind the first fragment there is no telling: then it may be one.
    if (kind === Protocol.icmpv6) return isLater || view.getUint8(at) < ICMPV6_FIRST_INFORMATIONAL;
    const isFragment = kind === Protocol.ipv6Fragment;
    const hasOptions =
      kind === Protocol.ipv6HopByHop || kind === Protocol.ipv6Routing || kind === Protocol.ipv6DestinationOptions;
    if ((!hasOptions && !isFragment) || at + 8 > end) return false;
    kind = view.getUint8(at);
    if (isFragment) isLater = (view.getUint16(at + 2) & 0xfff8) !== 0;
    at += isFragment ? IPV6_FRAGMENT_HEADER_LEN : (view.getUint8(at + 1) + 1) << 3;
  }
  return false;
}
