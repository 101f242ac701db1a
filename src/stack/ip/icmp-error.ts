/**
 * ICMP errors that refuse a flow (RFC 792, RFC 1122 §3.2.2.1; RFC 4443 §3.1).
 *
 * The packet in error is not kept while an upstream is being asked; its headers are rebuilt from what the flow is known
 * by, which is what the receiving kernel looks at: addresses, protocol, ports and the sequence number.
 */

import {
  emitIcmp,
  ICMP_CODES,
  ICMP_HEADER_LEN,
  ICMP_UNREACHABLE,
  ICMPV6_CODES,
  ICMPV6_UNREACHABLE,
  type Unreachable,
} from "../wire/icmp.ts";
import { Protocol } from "../wire/ip.ts";
import { emitTcp, SYN, TCP_HEADER_LEN } from "../wire/tcp.ts";
import { emitUdp, UDP_HEADER_LEN } from "../wire/udp.ts";
import type { IpOutput } from "./output.ts";

/** Errors a second, and the burst. Above it TCP flows get a reset instead, UDP flows nothing (RFC 4443 §2.4 f). */
const ERRORS_PER_SECOND = 1000;
const BURST = 1000;

/** Sends unreachable messages, within a token bucket. */
export class IcmpErrors {
  readonly #output: IpOutput;
  #tokens = BURST;
  #refilledAt = 0;

  constructor(output: IpOutput) {
    this.#output = output;
  }

  /** Takes a token at `now` ms; false when there is none. */
  allow(now: number): boolean {
    const earned = ((now - this.#refilledAt) * ERRORS_PER_SECOND) / 1000;
    if (earned >= 1) {
      this.#tokens = Math.min(BURST, this.#tokens + earned);
      this.#refilledAt = now;
    }
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
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
}
