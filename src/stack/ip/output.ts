/** Finishing packets: IP headers in front, checksums complete or left to the device. */

import type { Slab } from "../memory/slab.ts";
import { MAX_INLINE_BYTES, type TransmitQueue } from "../memory/transmit-queue.ts";
import { checksum, fold, sumBytes } from "../wire/checksum.ts";
import { ICMP_CHECKSUM } from "../wire/icmp.ts";
import { addressSum, pseudoHeaderLengthSum } from "../wire/ip.ts";
import { emitIpv4, IPV4_HEADER_LEN, Ipv4Fragment } from "../wire/ipv4.ts";
import { emitIpv6, emitIpv6Addresses, IPV6_HEADER_LEN } from "../wire/ipv6.ts";
import { Identifications } from "./identification.ts";
import { PathMtus } from "./path-mtu.ts";

/** What the device does for written packets. */
export interface OutputOffload {
  /** The device completes L4 checksums. */
  readonly checksum: boolean;
  /** The device cuts TCP super-segments. */
  readonly tso: boolean;
  /** The device cuts UDP super-datagrams. */
  readonly uso: boolean;
}

/** Largest IPv4 packet: the limit of a super-packet, for both families. */
export const MAX_PACKET_BYTES = 65_535;

/** Writes IP headers and checksums of packets into the transmit queue. */
export class IpOutput {
  readonly slab: Slab;
  readonly queue: TransmitQueue;
  readonly offload: OutputOffload;
  /** Largest IP packet on the device, bytes. */
  readonly mtu: number;
  readonly pathMtus: PathMtus;
  readonly identifications: Identifications;

  constructor(queue: TransmitQueue, mtu: number, offload: OutputOffload, random: () => number) {
    this.slab = queue.slab;
    this.queue = queue;
    this.mtu = mtu;
    this.offload = offload;
    this.pathMtus = new PathMtus(random());
    this.identifications = new Identifications(random);
  }

  /** Length of the IP header in front of the flow's segments. */
  headerLength(isIpv4: boolean): number {
    return isIpv4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN;
  }

  /**
   * Writes the IP header at `at` from big-endian address words; IPv4 addresses are in mapped form. Routers may not cut
   * the packet.
   * @param source index of the four source words in `words`
   * @param payloadLength bytes behind the IP header
   */
  writeHeader(
    at: number,
    isIpv4: boolean,
    protocol: number,
    payloadLength: number,
    words: Int32Array,
    source: number,
    destination: number,
  ): void {
    if (isIpv4) {
      emitIpv4(
        this.slab,
        at,
        IPV4_HEADER_LEN + payloadLength,
        protocol,
        0,
        0,
        Ipv4Fragment.never,
        words[source + 3] as number,
        words[destination + 3] as number,
      );
    } else {
      emitIpv6(this.slab, at, payloadLength, protocol, 0);
      emitIpv6Addresses(this.slab, at, words, source, destination);
    }
  }

  /**
   * Ends a packet begun at `at`: sets the L4 checksum, or its seed for the device, and queues it.
   * @param l4 offset of the L4 header
   * @param headerEnd offset behind the L4 header and inline payload
   * @param l4HeaderLength the L4 header alone
   * @param payloadLength referenced payload bytes
   * @param segmentSize payload bytes per segment of a super-packet, or 0
   * @param addresses sum of the pseudo-header's addresses
   */
  finish(
    at: number,
    l4: number,
    headerEnd: number,
    l4HeaderLength: number,
    payloadLength: number,
    segmentSize: number,
    protocol: number,
    checksumOffset: number,
    addresses: number,
  ): void {
    const pseudo = addresses + pseudoHeaderLengthSum(protocol, headerEnd - l4 + payloadLength);
    const headerLength = l4 - at + l4HeaderLength;
    const queue = this.queue;
    if (this.offload.checksum) {
      // The device wants the folded, not inverted, sum of the pseudo-header in the field.
      this.slab.view.setUint16(l4 + checksumOffset, fold(pseudo));
      queue.end(headerEnd - at, headerLength, segmentSize, l4 - at, checksumOffset);
      return;
    }
    queue.end(headerEnd - at, headerLength, segmentSize, 0, 0);
    const value = checksum(pseudo + this.#sumPieces(queue.count - 1, l4 - at));
    // RFC 768: a UDP checksum of zero is sent as all ones; for TCP both mean the same.
    this.slab.view.setUint16(l4 + checksumOffset, value === 0 ? 0xffff : value);
  }

  /** Sums packet `i` without its first `skip` bytes, across pieces of any parity. */
  #sumPieces(i: number, skip: number): number {
    const { words } = this.slab;
    let at = this.queue.descriptor[i] as number;
    let pieces = words[at] as number;
    let sum = 0;
    let odd = false;
    let drop = skip;
    for (; pieces > 0; pieces--, at += 2) {
      const offset = (words[at + 1] as number) + drop;
      const length = (words[at + 2] as number) - drop;
      drop = 0;
      const part = fold(sumBytes(this.slab, offset, offset + length));
      sum += odd ? ((part & 0xff) << 8) | (part >>> 8) : part;
      if ((length & 1) === 1) odd = !odd;
    }
    return sum;
  }

  /**
   * Sends an ICMP or ICMPv6 message whose first eight bytes and copied data stand at `bodyAt`..; everything is complete,
   * because devices do not finish ICMP checksums. Routers may cut it: who is told something does not look for its MTU.
   * @param body offset of the message in the slab, behind room for the IP header at `at`
   */
  finishIcmp(
    at: number,
    isIpv4: boolean,
    body: number,
    bodyEnd: number,
    payloadOffset: number,
    payloadLength: number,
    protocol: number,
    words: Int32Array,
    source: number,
    destination: number,
  ): void {
    const length = bodyEnd - body + payloadLength;
    if (isIpv4) {
      emitIpv4(
        this.slab,
        at,
        IPV4_HEADER_LEN + length,
        protocol,
        0,
        this.identifications.next16(),
        Ipv4Fragment.allowed,
        words[source + 3] as number,
        words[destination + 3] as number,
      );
    } else {
      this.writeHeader(at, isIpv4, protocol, length, words, source, destination);
    }
    if (payloadLength > 0) this.queue.addPayload(payloadOffset, payloadLength);
    this.queue.end(bodyEnd - at, bodyEnd - at, 0, 0, 0);
    let sum = this.#sumPieces(this.queue.count - 1, body - at);
    if (!isIpv4) {
      // RFC 4443 §2.3: ICMPv6 covers the pseudo-header, ICMP does not.
      sum += pseudoHeaderLengthSum(protocol, length) + wordsSum(words, source) + wordsSum(words, destination);
    }
    this.slab.view.setUint16(body + ICMP_CHECKSUM, checksum(sum));
  }
}

/** Sum of the address in four words at `at`, for pseudo-headers. */
export function wordsSum(words: Int32Array, at: number): number {
  return addressSum(words[at] as number, words[at + 1] as number, words[at + 2] as number, words[at + 3] as number);
}

/** Most bytes that `begin()`'s room takes behind the headers. */
export const INLINE_LIMIT: number = Math.min(1280, MAX_INLINE_BYTES);
