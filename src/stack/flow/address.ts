/**
 * IP addresses as bytes (4 for IPv4, 16 for IPv6, network order) and as text.
 * Text follows RFC 5952 for IPv6 and dotted decimal for IPv4.
 */

/** 4 bytes (IPv4) or 16 bytes (IPv6), network order. The length is the family. */
export type IpBytes = Uint8Array;

/** An address and a port; for names, see the proxy's `Destination`. */
export interface Endpoint {
  readonly address: IpBytes;
  /** 0..65535 */
  readonly port: number;
}

const DOTTED = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/;

function parseIpv4(text: string): IpBytes | null {
  const match = DOTTED.exec(text);
  if (match === null) return null;
  const bytes = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const part = match[i + 1] ?? "";
    const value = Number(part);
    // A leading zero is read as octal by some programs: refused, because it is ambiguous.
    if (value > 255 || (part.length > 1 && part.startsWith("0"))) return null;
    bytes[i] = value;
  }
  return bytes;
}

function parseIpv6(text: string): IpBytes | null {
  let head = text;
  let tail: IpBytes | null = null;
  const lastColon = text.lastIndexOf(":");
  if (text.includes(".")) {
    // RFC 4291 §2.2 form 3: the last 32 bits in dotted decimal.
    tail = parseIpv4(text.slice(lastColon + 1));
    if (tail === null) return null;
    head = `${text.slice(0, lastColon + 1)}0:0`;
  }
  const halves = head.split("::");
  if (halves.length > 2) return null;
  const left = halves[0] === "" || halves[0] === undefined ? [] : halves[0].split(":");
  const right = halves[1] === "" || halves[1] === undefined ? [] : halves[1].split(":");
  const count = left.length + right.length;
  if (halves.length === 1 ? count !== 8 : count > 7) return null;
  const groups = [...left, ...new Array<string>(8 - count).fill("0"), ...right];
  const bytes = new Uint8Array(16);
  for (let i = 0; i < 8; i++) {
    const group = groups[i] ?? "";
    if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return null;
    const value = Number.parseInt(group, 16);
    bytes[2 * i] = value >>> 8;
    bytes[2 * i + 1] = value & 0xff;
  }
  if (tail !== null) bytes.set(tail, 12);
  return bytes;
}

/** Parses an IPv4 or IPv6 address without brackets, zone or prefix length; `null` when it is none. */
export function parseAddress(text: string): IpBytes | null {
  return text.includes(":") ? parseIpv6(text) : parseIpv4(text);
}

function formatIpv6(bytes: IpBytes): string {
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  // RFC 5952 §4.2: the longest run of two or more zero groups is shortened, the first one on a tie.
  let bestAt = -1;
  let bestLen = 1;
  for (let i = 0; i < 8; i++) {
    let j = i;
    while (j < 8 && groups[j] === 0) j++;
    if (j - i > bestLen) {
      bestAt = i;
      bestLen = j - i;
    }
    if (j > i) i = j;
  }
  const hex = groups.map((group) => group.toString(16));
  if (bestAt < 0) return hex.join(":");
  return `${hex.slice(0, bestAt).join(":")}::${hex.slice(bestAt + bestLen).join(":")}`;
}

/** Formats an address; IPv6 as RFC 5952 recommends. */
export function formatAddress(bytes: IpBytes): string {
  return bytes.length === 4 ? bytes.join(".") : formatIpv6(bytes);
}

/** Formats `address:port`, IPv6 in brackets. */
export function formatEndpoint(address: IpBytes, port: number): string {
  return address.length === 16 ? `[${formatAddress(address)}]:${port}` : `${formatAddress(address)}:${port}`;
}

/** Whether all bytes are zero: the unspecified address (RFC 4291 §2.5.2, RFC 1122 §3.2.1.3). */
export function isUnspecified(address: IpBytes): boolean {
  return address.every((byte) => byte === 0);
}

/**
 * Whether four big-endian address words are an IPv4 address: all keys of flows hold those in mapped form (RFC 4291
 * §2.5.5.2), `0, 0, 0xffff, address`.
 */
export function isIpv4Words(words: Int32Array, at: number): boolean {
  return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0xffff;
}

/** The bytes of the address in four words: 4 when it is in mapped form, else 16. */
export function addressFromWords(words: Int32Array, at: number): IpBytes {
  const isIpv4 = isIpv4Words(words, at);
  const bytes = new Uint8Array(isIpv4 ? 4 : 16);
  const from = isIpv4 ? at + 3 : at;
  for (let i = 0; i < bytes.length; i++) bytes[i] = (words[from + (i >> 2)] as number) >>> (24 - 8 * (i & 3));
  return bytes;
}

/** Writes an address as four words, IPv4 in mapped form. */
export function addressToWords(address: IpBytes, words: Int32Array, at: number): void {
  const isIpv4 = address.length === 4;
  if (isIpv4) words.set([0, 0, 0xffff], at);
  const from = isIpv4 ? at + 3 : at;
  const view = new DataView(address.buffer, address.byteOffset, address.length);
  for (let i = 0; i < address.length; i += 4) words[from + (i >> 2)] = view.getInt32(i);
}
