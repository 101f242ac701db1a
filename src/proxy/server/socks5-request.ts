/**
 * The server's half of SOCKS5 (RFC 1928, RFC 1929), without a socket: each parser looks at all bytes of its message so
 * far and returns its length when complete, `MORE` while not, `BAD` when it never will be. None throws.
 */
import { formatAddress, type IpBytes, parseAddress } from "../../stack/flow/address.ts";
import {
  AUTH_VERSION,
  addressFieldLength,
  emitAddressField,
  SOCKS5_VERSION,
  Socks5AddressType,
  type Socks5Reply,
} from "../socks5-wire.ts";

/** More bytes are needed. */
export const MORE = 0;
/** The bytes are not this message. */
export const BAD = -1;

/** A parsed request (RFC 1928 §4), filled by `parseRequest`. */
export interface Socks5Request {
  command: number;
  addressType: number;
  /** Address as text, or a name; empty for an unknown address type. */
  host: string;
  port: number;
}

/** `VER NMETHODS METHODS`: the length of the greeting, RFC 1928 §3. */
export function parseGreeting(bytes: Uint8Array): number {
  if (bytes.length < 2) return MORE;
  const length = 2 + (bytes[1] ?? 0);
  if (bytes[0] !== SOCKS5_VERSION || length === 2) return BAD;
  return bytes.length < length ? MORE : length;
}

/** `VER ULEN UNAME PLEN PASSWD`: the length of the message, RFC 1929 §2. Empty fields are let through, to be refused. */
export function parsePasswordAuth(bytes: Uint8Array): number {
  if (bytes.length >= 1 && bytes[0] !== AUTH_VERSION) return BAD;
  if (bytes.length < 2) return MORE;
  const passwordAt = 2 + (bytes[1] ?? 0);
  if (bytes.length <= passwordAt) return MORE;
  const length = passwordAt + 1 + (bytes[passwordAt] ?? 0);
  return bytes.length < length ? MORE : length;
}

/** User and password of a complete message. */
export function passwordAuthParts(message: Uint8Array): { user: Uint8Array; password: Uint8Array } {
  const passwordAt = 2 + (message[1] ?? 0);
  return { user: message.subarray(2, passwordAt), password: message.subarray(passwordAt + 1) };
}

/**
 * `VER CMD RSV ATYP DST.ADDR DST.PORT`, RFC 1928 §4.
 * @returns the length; for an unknown address type, whose length nobody knows, that of all bytes
 */
export function parseRequest(bytes: Uint8Array, request: Socks5Request): number {
  if (bytes.length >= 1 && bytes[0] !== SOCKS5_VERSION) return BAD;
  if (bytes.length < 5) return MORE;
  request.command = bytes[1] ?? 0;
  request.addressType = bytes[3] ?? 0;
  let at = 4;
  let size = 0;
  if (request.addressType === Socks5AddressType.ipv4) size = 4;
  else if (request.addressType === Socks5AddressType.ipv6) size = 16;
  else if (request.addressType === Socks5AddressType.name) size = bytes[at++] ?? 0;
  else {
    request.host = "";
    request.port = 0;
    return bytes.length;
  }
  if (size === 0) return BAD;
  const length = at + size + 2;
  if (bytes.length < length) return MORE;
  const address = bytes.subarray(at, at + size);
  request.host = request.addressType === Socks5AddressType.name ? nameText(address) : formatAddress(address);
  request.port = ((bytes[length - 2] ?? 0) << 8) | (bytes[length - 1] ?? 0);
  return length;
}

/** A name off the wire; bytes beyond ASCII are read as UTF-8, which some clients send against RFC 1928's spirit. */
export function nameText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
}

const UNSPECIFIED: IpBytes = new Uint8Array(4);

/**
 * `VER REP RSV ATYP BND.ADDR BND.PORT`, RFC 1928 §6.
 * @param address BND.ADDR as text, or undefined where there is none: zeros then
 */
export function emitReply(reply: Socks5Reply, address?: string, port = 0): Uint8Array {
  const host = address === undefined ? UNSPECIFIED : (parseAddress(address) ?? UNSPECIFIED);
  const bytes = new Uint8Array(3 + addressFieldLength(host));
  bytes[0] = SOCKS5_VERSION;
  bytes[1] = reply;
  emitAddressField(bytes, 3, host, port);
  return bytes;
}
