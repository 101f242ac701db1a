/**
 * Cutting messages that are larger than the way takes (RFC 791 §3.2, RFC 8200 §4.5): UDP datagrams and echo replies,
 * both of which have a header of eight bytes in front of data that is sent by reference.
 *
 * ```
 *  IP | header, data [0, n)          IP | data [n, 2n)          IP | data [2n, ...)        n + 8 a multiple of 8
 * ```
 *
 * The checksum covers the whole and is complete before anything is cut: no device finishes one in fragments.
 */
import { QUEUE_PACKETS } from "../memory/transmit-queue.ts";
import { checksum, sumBytes } from "../wire/checksum.ts";
import { Protocol, pseudoHeaderLengthSum } from "../wire/ip.ts";
import { emitIpv4, IPV4_HEADER_LEN, Ipv4Fragment } from "../wire/ipv4.ts";
import {
  emitIpv6,
  emitIpv6Addresses,
  emitIpv6Fragment,
  IPV6_FRAGMENT_HEADER_LEN,
  IPV6_HEADER_LEN,
} from "../wire/ipv6.ts";
import { type IpOutput, wordsSum } from "./output.ts";

/** Of UDP and of ICMP. */
const MESSAGE_HEADER_LEN = 8;

export const FragmentsResult = {
  sent: 0,
  /** The transmit queue must be written first; nothing was queued. */
  full: 1,
  /** More fragments than an empty queue takes. */
  tooMany: 2,
} as const;
export type FragmentsResult = (typeof FragmentsResult)[keyof typeof FragmentsResult];

function headersLength(isIpv4: boolean): number {
  return isIpv4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN + IPV6_FRAGMENT_HEADER_LEN;
}

/** Where the caller writes the message's header, checksum zero. Call only when the queue has room. */
export function firstFragmentBody(output: IpOutput, isIpv4: boolean): number {
  return output.queue.nextHeader + headersLength(isIpv4);
}

/**
 * Sends the message whose header stands at `firstFragmentBody` in fragments.
 * @param checksumOffset where its checksum goes, in the message's header
 * @param source index of the four source words in `words`
 * @param offset slab offset of the data behind the header
 * @param mtu largest packet, bytes
 */
export function finishInFragments(
  output: IpOutput,
  isIpv4: boolean,
  protocol: number,
  checksumOffset: number,
  words: Int32Array,
  source: number,
  destination: number,
  offset: number,
  length: number,
  mtu: number,
): FragmentsResult {
  const { queue, slab, identifications } = output;
  const headers = headersLength(isIpv4);
  const total = MESSAGE_HEADER_LEN + length;
  const most = (mtu - headers) & ~7;
  const count = Math.ceil(total / most);
  if (count > QUEUE_PACKETS) return FragmentsResult.tooMany;
  if (!queue.hasRoomFor(count)) return FragmentsResult.full;
  const identification = isIpv4 ? identifications.next16() : identifications.next32();
  const message = firstFragmentBody(output, isIpv4);
  setChecksum(output, message, protocol, checksumOffset, words, source, destination, offset, length);
  for (let from = 0; from < total; from += most) {
    const at = queue.begin();
    const size = Math.min(most, total - from);
    const more = from + size < total;
    if (isIpv4) {
      emitIpv4(
        slab,
        at,
        headers + size,
        protocol,
        0,
        identification,
        (more ? Ipv4Fragment.more : 0) | (from >>> 3),
        words[source + 3] as number,
        words[destination + 3] as number,
      );
    } else {
      emitIpv6(slab, at, IPV6_FRAGMENT_HEADER_LEN + size, Protocol.ipv6Fragment, 0);
      emitIpv6Addresses(slab, at, words, source, destination);
      emitIpv6Fragment(slab, at + IPV6_HEADER_LEN, protocol, from, more, identification);
    }
    const inline = from === 0 ? MESSAGE_HEADER_LEN : 0;
    queue.addPayload(offset + from + inline - MESSAGE_HEADER_LEN, size - inline);
    queue.end(headers + inline, headers + inline, 0, 0, 0);
  }
  return FragmentsResult.sent;
}

function setChecksum(
  output: IpOutput,
  message: number,
  protocol: number,
  checksumOffset: number,
  words: Int32Array,
  source: number,
  destination: number,
  offset: number,
  length: number,
): void {
  const { slab } = output;
  let sum = sumBytes(slab, message, message + MESSAGE_HEADER_LEN) + sumBytes(slab, offset, offset + length);
  // RFC 792: ICMP has no pseudo-header; UDP (RFC 768) and ICMPv6 (RFC 4443 §2.3) have.
  if (protocol !== Protocol.icmp) {
    sum += pseudoHeaderLengthSum(protocol, MESSAGE_HEADER_LEN + length);
    sum += wordsSum(words, source) + wordsSum(words, destination);
  }
  const value = checksum(sum);
  // RFC 768: a UDP checksum of zero is sent as all ones; for ICMP the two are the same.
  slab.view.setUint16(message + checksumOffset, value === 0 ? 0xffff : value);
}
