/** What an ICMP error quotes of a packet we sent (RFC 792, RFC 4443 §3): as much as says which one it was. */
import type { Memory } from "../memory/slab.ts";
import { Protocol } from "../wire/ip.ts";
import { IPV4_HEADER_LEN } from "../wire/ipv4.ts";
import { IPV6_FRAGMENT_HEADER_LEN, IPV6_HEADER_LEN } from "../wire/ipv6.ts";

/** RFC 792: the quote has eight bytes behind the IP header at least. */
const L4_QUOTE = 8;
const IPV4_OFFSET_MASK = 0x1fff;

/** A quoted packet. One instance is reused. */
export class IcmpQuote {
  /** Where it came from (us) and went to (the client), four words each, IPv4 in mapped form. */
  readonly words: Int32Array = new Int32Array(8);
  protocol = 0;
  /** Its IP header's idea of its length, bytes. */
  packetLength = 0;
  /** Both ports, source first, or what stands there: of ICMP type and code alone. */
  ports = 0;
  /** SEG.SEQ when it was TCP. */
  seq = 0;
  /** The path MTU that TCP has to look at; 0 for none. */
  mtu = 0;
}

/** Parses the quote at bytes [start, end). @returns false when it is cut short, or no packet of ours */
export function parseQuote(memory: Memory, start: number, end: number, isIpv4: boolean, quote: IcmpQuote): boolean {
  const l4 = isIpv4 ? parseIpv4Quote(memory, start, end, quote) : parseIpv6Quote(memory, start, end, quote);
  if (l4 < 0 || l4 + L4_QUOTE > end) return false;
  const { view } = memory;
  const first = view.getInt32(l4);
  const hasPorts = quote.protocol === Protocol.tcp || quote.protocol === Protocol.udp;
  // The checksum of an echo reply is nothing to know it by.
  quote.ports = hasPorts ? first : first & ~0xffff;
  quote.seq = view.getInt32(l4 + 4);
  return true;
}

/** @returns where the quoted L4 header stands, or -1 */
function parseIpv4Quote(memory: Memory, start: number, end: number, quote: IcmpQuote): number {
  const { view } = memory;
  if (end - start < IPV4_HEADER_LEN + L4_QUOTE) return -1;
  // We send no options.
  if (view.getUint8(start) !== 0x45) return -1;
  if ((view.getUint16(start + 6) & IPV4_OFFSET_MASK) !== 0) return -1;
  const { words } = quote;
  words[0] = 0;
  words[1] = 0;
  words[2] = 0xffff;
  words[3] = view.getInt32(start + 12);
  words[4] = 0;
  words[5] = 0;
  words[6] = 0xffff;
  words[7] = view.getInt32(start + 16);
  quote.packetLength = view.getUint16(start + 2);
  quote.protocol = view.getUint8(start + 9);
  return start + IPV4_HEADER_LEN;
}

/** @returns where the quoted L4 header stands, or -1 */
function parseIpv6Quote(memory: Memory, start: number, end: number, quote: IcmpQuote): number {
  const { view } = memory;
  if (end - start < IPV6_HEADER_LEN + L4_QUOTE) return -1;
  if (view.getUint8(start) >>> 4 !== 6) return -1;
  for (let i = 0; i < 8; i++) quote.words[i] = view.getInt32(start + 8 + 4 * i);
  quote.packetLength = IPV6_HEADER_LEN + view.getUint16(start + 4);
  quote.protocol = view.getUint8(start + 6);
  const l4 = start + IPV6_HEADER_LEN;
  if (quote.protocol !== Protocol.ipv6Fragment) return l4;
  // The one extension header that we send; only the first fragment has what we know the datagram by.
  if (end - l4 < IPV6_FRAGMENT_HEADER_LEN || (view.getUint16(l4 + 2) & 0xfff8) !== 0) return -1;
  quote.protocol = view.getUint8(l4);
  return l4 + IPV6_FRAGMENT_HEADER_LEN;
}
