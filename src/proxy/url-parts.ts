/**
 * Takes a proxy's URL apart by hand (RFC 3986 §3): the standard `URL` class lets malformed escapes and ports pass, and
 * would put the whole text, password and all, into its error.
 *
 *     scheme://[user[:password]@]host[:port]     scheme://[user[:password]@]/path/of/socket     scheme://@abstract
 */
import { domainToASCII } from "node:url";
import { formatAddress, parseAddress } from "../stack/flow/address.ts";
import { UpstreamError } from "./errors.ts";
import type { ProxyServerAddress } from "./upstream.ts";

const HOST_NAME = /^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$/;
/** Longest path of a Unix socket, bytes: `sun_path` of Linux without its NUL. */
const MAX_PATH_LENGTH = 107;

/** What a scheme brings along. */
export interface UrlDefaults {
  readonly scheme: string;
  readonly port: number;
  /** A whole URL, for errors. */
  readonly example: string;
}

/** The parts of a URL, decoded. */
export interface UrlParts {
  readonly server: ProxyServerAddress;
  /** Null without. */
  readonly user: Uint8Array | null;
  /** Null when there is no colon behind the user. */
  readonly password: Uint8Array | null;
  /** The URL again in one spelling, without the password: printable ASCII in one line. */
  readonly label: string;
}

/**
 * Takes apart what follows `scheme://`. Only what cannot be a password is shown in an error.
 * @throws UpstreamError `UPSTREAM_URL`
 */
export function parseUrlParts(rest: string, defaults: UrlDefaults): UrlParts {
  // RFC 3986 §3.2: the authority ends at the first slash, question mark or number sign.
  const authorityEnd = rest.search(/[/?#]/);
  const authority = authorityEnd < 0 ? rest : rest.slice(0, authorityEnd);
  const tail = authorityEnd < 0 ? "" : rest.slice(authorityEnd);
  // The last @ divides: one in the password is then read as meant, though it should be written %40.
  const at = authority.lastIndexOf("@");
  const userinfo = at < 0 ? "" : authority.slice(0, at);
  const place = parsePlace(authority.slice(at + 1), at, tail, defaults);
  const { user, password, userText } = parseUserinfo(userinfo, defaults);
  const head = user === null ? "" : `${encodeText(userText)}@`;
  // A user before an abstract name would take its @ away.
  const where = user !== null && place.text.startsWith("@") ? `%40${place.text.slice(1)}` : place.text;
  return { server: place.server, user, password, label: `${defaults.scheme}://${head}${where}` };
}

interface Place {
  readonly server: ProxyServerAddress;
  readonly text: string;
}

function parsePlace(host: string, at: number, tail: string, defaults: UrlDefaults): Place {
  if (host === "" && tail.startsWith("/") && tail !== "/") return parseUnixPath(tail, defaults);
  checkTail(tail, defaults);
  // Nothing before the @ and no port: the way Linux itself shows abstract sockets.
  if (at === 0 && host !== "" && !/[:[\]]/.test(host)) return unixPlace(`@${decodeSocketName(host)}`, defaults);
  if (host.startsWith("%40")) return unixPlace(decodeSocketName(host), defaults);
  const { host: name, port } = parseHostPort(host, defaults);
  const text = name.includes(":") ? `[${name}]:${port}` : `${name}:${port}`;
  return { server: { kind: "tcp", host: name, port }, text };
}

function parseUnixPath(tail: string, defaults: UrlDefaults): Place {
  // One slash too many before user and password would make a path of them, and show them.
  if (tail.includes("@")) {
    throw invalid(
      "Proxy URL has an @ in the path of its Unix socket: write two slashes before user@host, or %40 in a path",
    );
  }
  if (/[?#]/.test(tail)) {
    throw invalid("Proxy URL has a ? or # in the path of its Unix socket: write them as %3F and %23");
  }
  return unixPlace(decodeSocketName(tail), defaults);
}

function unixPlace(path: string, defaults: UrlDefaults): Place {
  const length = Buffer.byteLength(path);
  if (path === "@")
    throw invalid(`Proxy URL has an empty name of a Unix socket: write it as ${defaults.scheme}://@name`);
  if (path.includes("\0")) throw invalid("Proxy URL has a NUL in the path of its Unix socket: remove it");
  if (length > MAX_PATH_LENGTH) {
    throw invalid(
      `Proxy URL has a Unix socket of ${length} bytes, the limit is ${MAX_PATH_LENGTH}: use a shorter path or a link`,
    );
  }
  const text = path.startsWith("@") ? `@${encodeText(path.slice(1))}` : path.split("/").map(encodeText).join("/");
  return { server: { kind: "unix", path }, text };
}

function decodeSocketName(text: string): string {
  const bytes = decodePercent(text, "path");
  const decoded = Buffer.from(bytes).toString();
  if (!Buffer.from(decoded).equals(bytes)) throw invalid("Proxy URL has a path that is not UTF-8: write it in UTF-8");
  return decoded;
}

/** Nothing but a slash may follow the host. What follows may be half a password, and is not shown. */
function checkTail(tail: string, { example }: UrlDefaults): void {
  if (tail.includes("@")) {
    throw invalid("Proxy URL has a /, ? or # before its @: write them as %2F, %3F and %23 in user and password");
  }
  if (tail !== "" && tail !== "/") {
    const part = tail.startsWith("?") ? "query" : tail.startsWith("#") ? "fragment" : "path";
    throw invalid(`Proxy URL has a ${part} after host and port, which means nothing to a proxy: write just ${example}`);
  }
}

interface Userinfo {
  readonly user: Uint8Array | null;
  readonly password: Uint8Array | null;
  readonly userText: string;
}

function parseUserinfo(userinfo: string, { example }: UrlDefaults): Userinfo {
  if (userinfo === "" || userinfo === ":") return { user: null, password: null, userText: "" };
  const colon = userinfo.indexOf(":");
  const userText = colon < 0 ? userinfo : userinfo.slice(0, colon);
  const user = decodePercent(userText, "user");
  const password = colon < 0 ? null : decodePercent(userinfo.slice(colon + 1), "password");
  if (user.length === 0) throw invalid(`Proxy URL has a password but no user: write both, as ${example}`);
  return { user, password, userText };
}

/** The host without brackets and the port. */
function parseHostPort(text: string, { scheme, port, example }: UrlDefaults): { host: string; port: number } {
  const bracketed = `${scheme}://[2001:db8::1]:${port}`;
  if (text.startsWith("[")) {
    const close = text.indexOf("]");
    const inside = close < 0 ? "" : text.slice(1, close);
    const address = inside.includes(":") ? parseAddress(inside) : null;
    if (address === null) {
      throw invalid(`Proxy URL has no valid IPv6 address between [ and ]: write it as ${bracketed}`);
    }
    const after = text.slice(close + 1);
    if (after !== "" && !after.startsWith(":")) {
      throw invalid(`Proxy URL has text between ] and the port: write it as ${bracketed}`);
    }
    return { host: formatAddress(address), port: after === "" ? port : parsePort(after.slice(1), example) };
  }
  const colon = text.indexOf(":");
  const hostText = colon < 0 ? text : text.slice(0, colon);
  if (hostText === "" && colon < 0) throw invalid(`Proxy URL has no host: write it as ${example}`);
  if (text.indexOf(":", colon + 1) > colon) {
    throw invalid(
      parseAddress(text) !== null || parseAddress(text.slice(0, text.lastIndexOf(":"))) !== null
        ? `Proxy URL has an IPv6 address without brackets: write it as ${bracketed}`
        : `Proxy URL has more than one colon in host and port: write it as ${example}`,
    );
  }
  if (hostText === "") throw invalid(`Proxy URL has a port but no host: write it as ${example}`);
  return { host: parseHost(hostText), port: colon < 0 ? port : parsePort(text.slice(colon + 1), example) };
}

function parseHost(text: string): string {
  const ascii = /[^\0-\x7f]/.test(text) ? domainToASCII(text) : text.toLowerCase();
  if (ascii.length > 253 || !HOST_NAME.test(ascii)) {
    throw invalid(`Proxy URL has the host "${encodeText(text)}", which is neither a name nor an address`);
  }
  // RFC 3696 §2: a last label of digits is no name; "10.0.0.300" would be looked up for nothing.
  if (/(^|\.)\d+\.?$/.test(ascii) && parseAddress(ascii) === null) {
    throw invalid(`Proxy URL has the host "${ascii}", which is not a valid IPv4 address`);
  }
  return ascii;
}

function parsePort(text: string, example: string): number {
  const port = /^\d{1,6}$/.test(text) ? Number(text) : -1;
  if (port >= 1 && port <= 65_535) return port;
  // A port that is no number may be a password whose host was forgotten.
  const shown = port < 0 ? "a port that is not a number" : `port ${port}`;
  throw invalid(`Proxy URL has ${shown}, expected 1 to 65535: write it as ${example}`);
}

/** Percent-decoding (RFC 3986 §2.1) to bytes. A percent sign that starts no escape is an error, never text. */
function decodePercent(text: string, part: "user" | "password" | "path"): Uint8Array {
  const bytes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    const char = text.charAt(i);
    if (char !== "%") {
      const codePoint = text.codePointAt(i) ?? 0;
      bytes.push(...new TextEncoder().encode(String.fromCodePoint(codePoint)));
      if (codePoint > 0xffff) i++;
      continue;
    }
    const hex = text.slice(i + 1, i + 3);
    if (!/^[0-9A-Fa-f]{2}$/.test(hex)) {
      throw invalid(`Proxy URL has a % in its ${part} without two hex digits: write a percent sign as %25`);
    }
    bytes.push(Number.parseInt(hex, 16));
    i += 2;
  }
  return Uint8Array.from(bytes);
}

/** Text from outside made fit for one line of a log: everything but URL characters is percent-encoded. */
export function encodeText(text: string): string {
  // Through UTF-8, which turns lone surrogates into U+FFFD: encodeURIComponent throws on them.
  const wellFormed = Buffer.from(text).toString();
  return wellFormed.replace(/[^A-Za-z0-9._~!$&'()*+,;=%-]/gu, (char) => encodeURIComponent(char));
}

/** What is wrong with a URL; the message holds no password. */
export function invalid(message: string): UpstreamError {
  return new UpstreamError("UPSTREAM_URL", message);
}
