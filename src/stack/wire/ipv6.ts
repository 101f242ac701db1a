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
import { type IpPacket, Protocol } from "./ip.ts";

export const IPV6_HEADER_LEN = 40;
const PAYLOAD_LENGTH = 4;
const NEXT_HEADER = 6;
const HOP_LIMIT = 7;
const SOURCE = 8;
const DESTINATION = 24;
/** Hop-by-hop, routing, fragment, destination options, mobility: headers that may stand before the payload. */
const EXTENSION_HEADERS: ReadonlySet<number> = new Set([0, 43, 60, 135]);

/** Parses the IPv6 header at bytes [start, end) of `memory` into `packet`. */
export function parseIpv6(memory: Memory, start: number, end: number, packet: IpPacket): Drop {
  const { view } = memory;
  if (end - start < IPV6_HEADER_LEN) return Drop.ipTruncated;
  const payloadLength = view.getUint16(start + PAYLOAD_LENGTH);
  // RFC 2675 jumbograms (payload length 0 with a hop-by-hop option) are refused with the hop-by-hop header below.
  if (start + IPV6_HEADER_LEN + payloadLength > end) return Drop.ipTotalLength;
  const nextHeader = view.getUint8(start + NEXT_HEADER);
  if (nextHeader === Protocol.ipv6Fragment) return Drop.ipFragment;
  if (EXTENSION_HEADERS.has(nextHeader)) return Drop.ipExtensionHeader;
  packet.version = 6;
  packet.start = start;
  packet.payload = start + IPV6_HEADER_LEN;
  packet.end = start + IPV6_HEADER_LEN + payloadLength;
  packet.protocol = nextHeader;
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
