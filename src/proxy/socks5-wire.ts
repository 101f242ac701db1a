/**
 * SOCKS5 numbers and the address field (RFC 1928 §3-§6, RFC 1929 §2), shared by client, UDP codec and server.
 *
 *     +------+----------+----------+
 *     | ATYP |   ADDR   |   PORT   |   the tail of every request, reply and UDP header
 *     +------+----------+----------+
 *     |  1   | Variable |    2     |
 */
import { domainToASCII } from "node:url";
import type { IpBytes } from "../stack/flow/address.ts";

/** VER of every SOCKS5 message. RFC 1928 §3. */
export const SOCKS5_VERSION = 5;
/** VER of the user and password messages. RFC 1929 §2. */
export const AUTH_VERSION = 1;

/** METHOD values. RFC 1928 §3. */
export const Socks5Method = { none: 0, password: 2, unacceptable: 0xff } as const;

/** CMD values. RFC 1928 §4. */
export const Socks5Command = { connect: 1, bind: 2, associate: 3 } as const;

/** ATYP values. RFC 1928 §5. */
export const Socks5AddressType = { ipv4: 1, name: 3, ipv6: 4 } as const;

/** REP values. RFC 1928 §6. */
export const Socks5Reply = {
  succeeded: 0,
  failure: 1,
  notAllowed: 2,
  netUnreachable: 3,
  hostUnreachable: 4,
  refused: 5,
  ttlExpired: 6,
  commandNotSupported: 7,
  addressTypeNotSupported: 8,
} as const;
export type Socks5Reply = (typeof Socks5Reply)[keyof typeof Socks5Reply];

/** Longest name the address field can carry, bytes: its length is one byte. RFC 1928 §5. */
export const MAX_NAME_LENGTH = 255;

const NON_ASCII = /[^\0-\x7f]/;

/**
 * The name as it goes over the wire: ASCII, other scripts in punycode (RFC 3492).
 * @throws RangeError when it is empty, longer than 255 bytes, or no name at all
 */
export function wireName(name: string): string {
  const ascii = NON_ASCII.test(name) ? domainToASCII(name) : name;
  if (ascii.length === 0) throw new RangeError(`Host name "${name}" has no ASCII form, expected 1 to 255 bytes`);
  if (ascii.length > MAX_NAME_LENGTH) {
    throw new RangeError(`Host name has ${ascii.length} bytes, the limit of SOCKS5 is ${MAX_NAME_LENGTH}`);
  }
  return ascii;
}

/** Bytes of ATYP, ADDR and PORT together for `host`: 7, 19, or 4 and the name's length. */
export function addressFieldLength(host: IpBytes | string): number {
  return typeof host === "string" ? 4 + host.length : 3 + host.length;
}

/**
 * Writes ATYP, ADDR and PORT at `bytes[at]`; there must be room for `addressFieldLength(host)` bytes.
 * @param host 4 or 16 address bytes, or a name that `wireName` returned
 * @returns the offset after the field
 */
export function emitAddressField(bytes: Uint8Array, at: number, host: IpBytes | string, port: number): number {
  let next = at + 1;
  if (typeof host === "string") {
    bytes[at] = Socks5AddressType.name;
    bytes[next++] = host.length;
    for (let i = 0; i < host.length; i++) bytes[next++] = host.charCodeAt(i);
  } else {
    bytes[at] = host.length === 4 ? Socks5AddressType.ipv4 : Socks5AddressType.ipv6;
    // A loop beats `set` for these few bytes.
    for (let i = 0; i < host.length; i++) bytes[next++] = host[i] ?? 0;
  }
  bytes[next++] = port >>> 8;
  bytes[next++] = port;
  return next;
}
