/**
 * The header of every datagram between client and relay (RFC 1928 §7), on bytes that belong to the caller.
 *
 *     +-----+------+------+----------+----------+----------+
 *     | RSV | FRAG | ATYP | DST.ADDR | DST.PORT |   DATA   |
 *     +-----+------+------+----------+----------+----------+
 *     |  2  |  1   |  1   | Variable |    2     | Variable |
 *
 * To the relay the address is the destination; from it, the host that answered.
 */
import type { IpBytes } from "../stack/flow/address.ts";
import { addressFieldLength, emitAddressField, MAX_NAME_LENGTH, Socks5AddressType } from "./socks5-wire.ts";

/** Bytes in front of the payload for an IPv4 address. */
export const UDP_HEADER_IPV4 = 10;
/** Bytes in front of the payload for an IPv6 address. */
export const UDP_HEADER_IPV6 = 22;

const FRAG = 2;
const ATYP = 3;
const ADDR = 4;

/** What `parseUdpHeader` found. Only `ok` and `name` fill the header. */
export const Socks5UdpResult = {
  /** An IPv4 or IPv6 address. */
  ok: 0,
  /** A name: a relay may resolve it; from a relay it cannot be used, because a datagram comes from an address. */
  name: 1,
  /** FRAG is not 0. RFC 1928 §7: drop what is not reassembled. */
  fragment: 2,
  /** Shorter than its own header. */
  truncated: 3,
  /** ATYP is none of 1, 3, 4, or the name is empty. */
  badAddress: 4,
} as const;
export type Socks5UdpResult = (typeof Socks5UdpResult)[keyof typeof Socks5UdpResult];

/** A parsed header, reused for every datagram. Offsets are into the array that was parsed. */
export class Socks5UdpHeader {
  /** First byte of the address or name. */
  addressStart = 0;
  /** 4 or 16, or the name's length. */
  addressLength = 0;
  /** 0..65535 */
  port = 0;
  /** First byte of the payload, which goes on to the end of the datagram and may be empty. */
  payloadStart = 0;
}

/** Parses the header at `bytes[start, end)` into `header`. Never throws, allocates nothing. RSV is not looked at. */
export function parseUdpHeader(
  bytes: Uint8Array,
  start: number,
  end: number,
  header: Socks5UdpHeader,
): Socks5UdpResult {
  if (end > bytes.length || end - start <= ADDR) return Socks5UdpResult.truncated;
  if (bytes[start + FRAG] !== 0) return Socks5UdpResult.fragment;
  const type = bytes[start + ATYP];
  let at = start + ADDR;
  let length = 0;
  if (type === Socks5AddressType.ipv4) length = 4;
  else if (type === Socks5AddressType.ipv6) length = 16;
  else if (type === Socks5AddressType.name) length = bytes[at++] ?? 0;
  if (length === 0) return Socks5UdpResult.badAddress;
  if (at + length + 2 > end) return Socks5UdpResult.truncated;
  header.addressStart = at;
  header.addressLength = length;
  at += length;
  header.port = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  header.payloadStart = at + 2;
  return type === Socks5AddressType.name ? Socks5UdpResult.name : Socks5UdpResult.ok;
}

/** Bytes that the header of a datagram to or from `host` takes: 10, 22, or 7 and the name's length. */
export function udpHeaderLength(host: IpBytes | string): number {
  return ADDR - 1 + addressFieldLength(host);
}

/**
 * Writes a header at `bytes[at]`; the payload goes right behind it. FRAG is 0: nothing is ever fragmented.
 * @param host 4 or 16 address bytes, or an ASCII name of 1 to 255 bytes
 * @returns the header's length, or 0 when there is no room or `host` fits no address type: nothing is written then
 */
export function emitUdpHeader(bytes: Uint8Array, at: number, host: IpBytes | string, port: number): number {
  const fits =
    typeof host === "string"
      ? host.length > 0 && host.length <= MAX_NAME_LENGTH
      : host.length === 4 || host.length === 16;
  const length = udpHeaderLength(host);
  if (!fits || at < 0 || at + length > bytes.length) return 0;
  bytes[at] = 0;
  bytes[at + 1] = 0;
  bytes[at + FRAG] = 0;
  emitAddressField(bytes, at + ATYP, host, port);
  return length;
}
