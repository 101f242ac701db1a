/**
 * IPv4 header (RFC 791 §3.1).
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * |Version|  IHL  |Type of Service|          Total Length         |
 * |         Identification        |Flags|      Fragment Offset    |
 * |  Time to Live |    Protocol   |         Header Checksum       |
 * |                       Source Address                          |
 * |                    Destination Address                        |
 * |                    Options                    |    Padding    |
 * ```
 */
import type { Memory } from "../memory/slab.ts";
import { checksum, fold, sumBytes } from "./checksum.ts";
import { Drop } from "./drop.ts";
import type { IpPacket } from "./ip.ts";

export const IPV4_HEADER_LEN = 20;
const TOS = 1;
const TOTAL_LENGTH = 2;
const IDENTIFICATION = 4;
const FRAGMENT = 6;
const TTL = 8;
const PROTOCOL = 9;
const CHECKSUM = 10;
const SOURCE = 12;
const DESTINATION = 16;

const MORE_FRAGMENTS = 0x2000;
const OFFSET_MASK = 0x1fff;
const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_LSRR = 131;
const OPTION_SSRR = 137;

/** Parses the IPv4 header at bytes [start, end) of `memory` into `packet`. */
export function parseIpv4(memory: Memory, start: number, end: number, packet: IpPacket): Drop {
  const { view } = memory;
  if (end - start < IPV4_HEADER_LEN) return Drop.ipTruncated;
  const headerLen = (view.getUint8(start) & 0x0f) << 2;
  if (headerLen < IPV4_HEADER_LEN || start + headerLen > end) return Drop.ipHeaderLength;
  const totalLength = view.getUint16(start + TOTAL_LENGTH);
  if (totalLength < headerLen || start + totalLength > end) return Drop.ipTotalLength;
  // RFC 1122 §3.2.1.2: the header checksum is always verified; a device vouches for the one of L4 only.
  if (fold(sumBytes(memory, start, start + headerLen)) !== 0xffff) return Drop.ipChecksum;
  if (headerLen > IPV4_HEADER_LEN) {
    const drop = checkOptions(view, start + IPV4_HEADER_LEN, start + headerLen);
    if (drop !== Drop.none) return drop;
  }
  const fragment = view.getUint16(start + FRAGMENT);
  packet.isFragment = (fragment & (MORE_FRAGMENTS | OFFSET_MASK)) !== 0;
  packet.moreFragments = (fragment & MORE_FRAGMENTS) !== 0;
  packet.fragmentOffset = (fragment & OFFSET_MASK) << 3;
  packet.identification = view.getUint16(start + IDENTIFICATION);
  packet.protocolAt = PROTOCOL;
  packet.version = 4;
  packet.start = start;
  packet.payload = start + headerLen;
  packet.end = start + totalLength;
  packet.protocol = view.getUint8(start + PROTOCOL);
  packet.hopLimit = view.getUint8(start + TTL);
  packet.trafficClass = view.getUint8(start + TOS);
  packet.source0 = 0;
  packet.source1 = 0;
  packet.source2 = 0xffff;
  packet.source3 = view.getInt32(start + SOURCE);
  packet.destination0 = 0;
  packet.destination1 = 0;
  packet.destination2 = 0xffff;
  packet.destination3 = view.getInt32(start + DESTINATION);
  return Drop.none;
}

/** Walks the options with bounds: source routes are refused (RFC 7126 §4.3, §4.4), all others ignored. */
function checkOptions(view: DataView, start: number, end: number): Drop {
  let at = start;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === OPTION_END) break;
    if (kind === OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 1 >= end) return Drop.ipHeaderLength;
    const length = view.getUint8(at + 1);
    if (length < 2 || at + length > end) return Drop.ipHeaderLength;
    if (kind === OPTION_LSRR || kind === OPTION_SSRR) return Drop.ipSourceRoute;
    at += length;
  }
  return Drop.none;
}

/** What the fragment field of a header that is written holds. */
export const Ipv4Fragment = {
  /** DF: the packet is never cut. */
  never: 0x4000,
  /** Whole, but routers may cut it. */
  allowed: 0,
  more: 0x2000,
} as const;

/**
 * Writes an IPv4 header without options at `at`.
 * @param totalLength header and payload, bytes
 * @param identification zero for packets that are never fragmented (RFC 6864 §4.1)
 * @param fragment the flags of `Ipv4Fragment`, with the offset in units of eight bytes
 * @param source IPv4 address as a big-endian 32-bit integer
 */
export function emitIpv4(
  memory: Memory,
  at: number,
  totalLength: number,
  protocol: number,
  trafficClass: number,
  identification: number,
  fragment: number,
  source: number,
  destination: number,
): void {
  const { view } = memory;
  view.setUint8(at, 0x45);
  view.setUint8(at + TOS, trafficClass);
  view.setUint16(at + TOTAL_LENGTH, totalLength);
  view.setUint16(at + IDENTIFICATION, identification);
  view.setUint16(at + FRAGMENT, fragment);
  view.setUint8(at + TTL, 64);
  view.setUint8(at + PROTOCOL, protocol);
  view.setInt32(at + SOURCE, source);
  view.setInt32(at + DESTINATION, destination);
  const sum =
    0x4500 +
    trafficClass +
    totalLength +
    identification +
    fragment +
    0x4000 + // TTL 64
    protocol +
    (source >>> 16) +
    (source & 0xffff) +
    (destination >>> 16) +
    (destination & 0xffff);
  view.setUint16(at + CHECKSUM, checksum(sum));
}
