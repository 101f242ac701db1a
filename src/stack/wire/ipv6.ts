/**
 * IPv6 header (RFC 8200 §3).
 *
 * ```
 * |Version| Traffic Class |           Flow Label                  |
 * |         Payload Length        |  Next Header  |   Hop Limit   |
 * |                        Source Address (16)                    |
 * |                     Destination Address (16)                  |
 * ```
 */
import type { Memory } from "../memory/slab.ts";
import { Drop } from "./drop.ts";
import type { IpPacket } from "./ip.ts";

export const IPV6_HEADER_LEN = 40;
const PAYLOAD_LENGTH = 4;
const NEXT_HEADER = 6;
const HOP_LIMIT = 7;
const SOURCE = 8;
const DESTINATION = 24;
/** Of a fragment header. */
const FRAGMENT_HEADER_NEXT = 0;
const FRAGMENT_HEADER_OFFSET = 2;
const FRAGMENT_HEADER_ID = 4;
export const IPV6_FRAGMENT_HEADER_LEN = 8;
/** Where the Payload Length field stands: parameter problems point at it. */
export const IPV6_PAYLOAD_LENGTH_AT: number = PAYLOAD_LENGTH;

/**
 * Parses the IPv6 header at bytes [start, end) of `memory` into `packet`; `payload` and `protocol` are those of what
 * follows, be it an extension header (see ip/extension-headers).
 */
export function parseIpv6(memory: Memory, start: number, end: number, packet: IpPacket): Drop {
  const { view } = memory;
  if (end - start < IPV6_HEADER_LEN) return Drop.ipTruncated;
  const payloadLength = view.getUint16(start + PAYLOAD_LENGTH);
  // A jumbogram (RFC 2675) has length 0 here: nothing is left of it then, so its option is never seen.
  if (start + IPV6_HEADER_LEN + payloadLength > end) return Drop.ipTotalLength;
  packet.isFragment = false;
  packet.protocolAt = NEXT_HEADER;
  packet.version = 6;
  packet.start = start;
  packet.payload = start + IPV6_HEADER_LEN;
  packet.end = start + IPV6_HEADER_LEN + payloadLength;
  packet.protocol = view.getUint8(start + NEXT_HEADER);
  packet.hopLimit = view.getUint8(start + HOP_LIMIT);
  packet.trafficClass = (view.getUint16(start) >>> 4) & 0xff;
  packet.source0 = view.getInt32(start + SOURCE);
  packet.source1 = view.getInt32(start + SOURCE + 4);
  packet.source2 = view.getInt32(start + SOURCE + 8);
  packet.source3 = view.getInt32(start + SOURCE + 12);
  packet.destination0 = view.getInt32(start + DESTINATION);
  packet.destination1 = view.getInt32(start + DESTINATION + 4);
  packet.destination2 = view.getInt32(start + DESTINATION + 8);
  packet.destination3 = view.getInt32(start + DESTINATION + 12);
  return Drop.none;
}

/** Writes an IPv6 header at `at`, but for the addresses (see `emitIpv6Addresses`). */
export function emitIpv6(
  memory: Memory,
  at: number,
  payloadLength: number,
  nextHeader: number,
  trafficClass: number,
): void {
  const { view } = memory;
  view.setInt32(at, (6 << 28) | (trafficClass << 20));
  view.setUint16(at + PAYLOAD_LENGTH, payloadLength);
  view.setUint8(at + NEXT_HEADER, nextHeader);
  view.setUint8(at + HOP_LIMIT, 64);
}

/** Writes source and destination, eight big-endian words of `words` from `source` and `destination` on. */
export function emitIpv6Addresses(
  memory: Memory,
  at: number,
  words: Int32Array,
  source: number,
  destination: number,
): void {
  const { view } = memory;
  for (let i = 0; i < 4; i++) {
    view.setInt32(at + SOURCE + 4 * i, words[source + i] as number);
    view.setInt32(at + DESTINATION + 4 * i, words[destination + i] as number);
  }
}

/**
 * Parses the fragment header at `at`, which is known to fit (RFC 8200 §4.5). One that is first and last is no fragment
 * (RFC 6946 §4).
 *
 * ```
 * |  Next Header  |   Reserved    |      Fragment Offset    |Res|M|
 * |                         Identification                        |
 * ```
 */
export function parseIpv6Fragment(memory: Memory, at: number, packet: IpPacket): void {
  const { view } = memory;
  const field = view.getUint16(at + FRAGMENT_HEADER_OFFSET);
  packet.fragmentOffset = field & 0xfff8;
  packet.moreFragments = (field & 1) !== 0;
  packet.isFragment = packet.fragmentOffset > 0 || packet.moreFragments;
  packet.identification = view.getInt32(at + FRAGMENT_HEADER_ID);
}

/** Writes a fragment header at `at`. @param offset bytes of the datagram in front, a multiple of 8 */
export function emitIpv6Fragment(
  memory: Memory,
  at: number,
  nextHeader: number,
  offset: number,
  more: boolean,
  identification: number,
): void {
  const { view } = memory;
  view.setUint16(at + FRAGMENT_HEADER_NEXT, nextHeader << 8);
  view.setUint16(at + FRAGMENT_HEADER_OFFSET, offset | (more ? 1 : 0));
  view.setInt32(at + FRAGMENT_HEADER_ID, identification);
}
