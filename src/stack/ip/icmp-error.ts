/**
 * ICMP errors that refuse a flow, or say what was wrong with a packet (RFC 792, RFC 1122 §3.2.2; RFC 4443 §2.4, §3).
 *
 * The packet in error is quoted where it is at hand. While an upstream is being asked it is not kept: then its headers
 * are rebuilt from what the flow is known by, which is what the receiving kernel looks at: addresses, protocol, ports
 * and the sequence number.
 */

import {
  emitIcmp,
  ICMP_CODES,
  ICMP_HEADER_LEN,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  ICMPV6_CODES,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_UNREACHABLE,
  isIcmpError,
  REASSEMBLY_TIME_EXCEEDED,
  type Unreachable,
} from "../wire/icmp.ts";
import { answerAddresses, type IpPacket, Protocol } from "../wire/ip.ts";
import { emitIpv4, IPV4_HEADER_LEN, Ipv4Fragment } from "../wire/ipv4.ts";
import {
  emitIpv6,
  emitIpv6Addresses,
  emitIpv6Fragment,
  IPV6_FRAGMENT_HEADER_LEN,
  IPV6_HEADER_LEN,
} from "../wire/ipv6.ts";
import { emitTcp, SYN, TCP_HEADER_LEN } from "../wire/tcp.ts";
import { emitUdp, UDP_HEADER_LEN } from "../wire/udp.ts";
import { carriesIcmpv6Error } from "./extension-headers.ts";
import type { IpOutput } from "./output.ts";
import { SOURCE_BUCKETS, sourceBucket } from "./source-bucket.ts";

/** Errors a second in all, and the burst. Above it TCP flows get a reset instead, UDP flows nothing (RFC 4443 §2.4 f). */
const ERRORS_PER_SECOND = 1000;
/** Errors a second to one client, and the burst: half of all, so that nobody can use up the others' share. */
const ERRORS_PER_SOURCE = 500;
/** How much of a packet is quoted: errors stay below 576 bytes (RFC 1812 §4.3.2.3) or 1280 (RFC 4443 §3.1). */
const IPV4_QUOTE = 576 - IPV4_HEADER_LEN - ICMP_HEADER_LEN;
const IPV6_QUOTE = 1280 - IPV6_HEADER_LEN - ICMP_HEADER_LEN;
/** Room in the transmit queue for an error whose quote is copied. */
const COPIED_ROOM = 1280;

/** Sends ICMP errors, within token buckets. */
export class IcmpErrors {
  readonly #output: IpOutput;
  readonly #random: () => number;
  readonly #seed: number;
  #tokens = ERRORS_PER_SECOND;
  #refilledAt = 0;
  readonly #sourceTokens: Float64Array = new Float64Array(SOURCE_BUCKETS).fill(ERRORS_PER_SOURCE);
  readonly #sourceRefilledAt: Float64Array = new Float64Array(SOURCE_BUCKETS);
  readonly #words: Int32Array = new Int32Array(8);

  constructor(output: IpOutput, random: () => number) {
    this.#output = output;
    this.#random = random;
    this.#seed = random() | 0;
  }

  /**
   * Takes a token at `now` ms for an error to the address at `words[to]`; false when there is none.
   *
   * An error costs one token on average, and nobody knows how much this one did: by counting what is left of a limit,
   * others could otherwise find out whether packets of theirs in a foreign name were answered (SAD DNS).
   */
  allow(now: number, words: Int32Array, to: number): boolean {
    const cost = 0.5 + (this.#random() >>> 0) / 0x1_0000_0000;
    const earned = ((now - this.#refilledAt) * ERRORS_PER_SECOND) / 1000;
    if (earned >= 1) {
      this.#tokens = Math.min(ERRORS_PER_SECOND, this.#tokens + earned);
      this.#refilledAt = now;
    }
    const bucket = sourceBucket(
      this.#seed,
      words[to] as number,
      words[to + 1] as number,
      words[to + 2] as number,
      words[to + 3] as number,
    );
    const sourceEarned = ((now - (this.#sourceRefilledAt[bucket] as number)) * ERRORS_PER_SOURCE) / 1000;
    let left = this.#sourceTokens[bucket] as number;
    if (sourceEarned >= 1) {
      left = Math.min(ERRORS_PER_SOURCE, left + sourceEarned);
      this.#sourceRefilledAt[bucket] = now;
    }
    const isAllowed = left >= cost && this.#tokens >= cost;
    if (isAllowed) {
      left -= cost;
      this.#tokens -= cost;
    }
    this.#sourceTokens[bucket] = left;
    return isAllowed;
  }

  /**
   * Sends an unreachable message about a segment or datagram. Its source is the address the client dialled: Linux drops
   * errors that come from an address of its own.
   * @param words address words; `local` is where the client wanted to go, `remote` the client
   * @param seq the SYN's sequence number for TCP
   * @param dataLength payload bytes of a datagram
   * @returns false when there was no room for it
   */
  send(
    reason: Unreachable,
    isIpv4: boolean,
    protocol: number,
    words: Int32Array,
    local: number,
    remote: number,
    localPort: number,
    remotePort: number,
    seq: number,
    dataLength: number,
  ): boolean {
    const output = this.#output;
    const { queue, slab } = output;
    if (!queue.hasRoom(128)) return false;
    const at = queue.begin();
    const body = at + output.headerLength(isIpv4);
    const type = isIpv4 ? ICMP_UNREACHABLE : ICMPV6_UNREACHABLE;
    const code = (isIpv4 ? ICMP_CODES : ICMPV6_CODES)[reason] ?? 0;
    emitIcmp(slab, body, type, code, 0);
    const quote = body + ICMP_HEADER_LEN;
    const l4 = quote + output.headerLength(isIpv4);
    const isTcp = protocol === Protocol.tcp;
    const l4Length = isTcp ? TCP_HEADER_LEN : UDP_HEADER_LEN + dataLength;
    output.writeHeader(quote, isIpv4, protocol, l4Length, words, remote, local);
    if (isTcp) emitTcp(slab, l4, remotePort, localPort, seq, 0, SYN, 65535, TCP_HEADER_LEN);
    else emitUdp(slab, l4, remotePort, localPort, l4Length);
    const end = l4 + (isTcp ? TCP_HEADER_LEN : UDP_HEADER_LEN);
    const icmp = isIpv4 ? Protocol.icmp : Protocol.icmpv6;
    output.finishIcmp(at, isIpv4, body, end, 0, 0, icmp, words, local, remote);
    return true;
  }

  /**
   * Tells the sender of a dropped packet what `packet.errorType` says, unless that is never told, the limit is used up,
   * or there is no room. The packet is quoted by reference. @returns whether the limit was the reason against it
   */
  sendAbout(packet: IpPacket, now: number): boolean {
    const output = this.#output;
    const { queue, slab } = output;
    const isIpv4 = packet.version === 4;
    // Multicast and broadcast destinations, and sources that are nobody's, have been dropped without a word before
    // (RFC 1122 §3.2.2, RFC 4443 §2.4 e). Fragments other than the first: RFC 1122 only, RFC 8200 §4.5 wants some told.
    if (isIpv4 && packet.isFragment && packet.fragmentOffset > 0) return false;
    // RFC 4443 §2.4 e.1: never about an error. In IPv4 what has no ICMP protocol number is none.
    if (!isIpv4 && carriesIcmpv6Error(slab, packet.start, packet.end)) return false;
    const words = this.#words;
    answerAddresses(packet, words);
    if (!this.allow(now, words, 4)) return true;
    if (!queue.hasRoom()) return false;
    const at = queue.begin();
    const body = at + output.headerLength(isIpv4);
    emitIcmp(slab, body, packet.errorType, packet.errorCode, packet.errorPointer);
    const quoted = Math.min(packet.end - packet.start, isIpv4 ? IPV4_QUOTE : IPV6_QUOTE);
    const icmp = isIpv4 ? Protocol.icmp : Protocol.icmpv6;
    output.finishIcmp(at, isIpv4, body, body + ICMP_HEADER_LEN, packet.start, quoted, icmp, words, 0, 4);
    return false;
  }

  /**
   * Tells the sender of a datagram that not all of its fragments came in time, with its first fragment, rebuilt.
   * @param words address words of the fragments: `source` of the sender, `destination` of where they went
   * @param offset slab offset of the first fragment's data, of which `length` bytes are there
   * @param fragmentLength bytes of the fragment
   */
  sendReassemblyTimeout(
    isIpv4: boolean,
    protocol: number,
    words: Int32Array,
    source: number,
    destination: number,
    identification: number,
    offset: number,
    length: number,
    fragmentLength: number,
    now: number,
  ): void {
    const output = this.#output;
    const { queue, slab } = output;
    // RFC 1122 §3.2.2, RFC 4443 §2.4 e.1: never about an error. All of RFC 792 but those are questions and answers.
    if (isIpv4 && protocol === Protocol.icmp && isIcmpError(slab.view.getUint8(offset))) return;
    if (!queue.hasRoom(COPIED_ROOM)) return;
    const at = queue.nextHeader;
    const body = at + output.headerLength(isIpv4);
    emitIcmp(slab, body, isIpv4 ? ICMP_TIME_EXCEEDED : ICMPV6_TIME_EXCEEDED, REASSEMBLY_TIME_EXCEEDED, 0);
    const quote = body + ICMP_HEADER_LEN;
    let data = quote;
    if (isIpv4) {
      const from = words[source + 3] as number;
      const to = words[destination + 3] as number;
      const total = IPV4_HEADER_LEN + fragmentLength;
      emitIpv4(slab, quote, total, protocol, 0, identification, Ipv4Fragment.more, from, to);
      data += IPV4_HEADER_LEN;
    } else {
      emitIpv6(slab, quote, IPV6_FRAGMENT_HEADER_LEN + fragmentLength, Protocol.ipv6Fragment, 0);
      emitIpv6Addresses(slab, quote, words, source, destination);
      emitIpv6Fragment(slab, quote + IPV6_HEADER_LEN, protocol, 0, true, identification);
      data += IPV6_HEADER_LEN + IPV6_FRAGMENT_HEADER_LEN;
    }
    const most = (isIpv4 ? IPV4_QUOTE : IPV6_QUOTE) - (data - quote);
    const copied = Math.min(length, most);
    // The cells are given away before the queue is written: a copy it is.
    slab.bytes.copyWithin(data, offset, offset + copied);
    if (!isIpv4 && carriesIcmpv6Error(slab, quote, data + copied)) return;
    if (!this.allow(now, words, source)) return;
    queue.begin();
    const icmp = isIpv4 ? Protocol.icmp : Protocol.icmpv6;
    output.finishIcmp(at, isIpv4, body, data + copied, 0, 0, icmp, words, destination, source);
  }
}
