/**
 * Upstreams as URLs, as users of tun2socks write them:
 *
 *     [socks5://][user[:password]@]host[:1080]     direct://     reject://
 *
 * The parts are taken apart by hand (RFC 3986 §3): the standard `URL` class lets malformed escapes and ports pass, and
 * would put the whole text, password and all, into its error.
 */
import { domainToASCII } from "node:url";
import { formatAddress, parseAddress } from "../stack/flow/address.ts";
import { UpstreamError } from "./errors.ts";
import type { Upstream } from "./upstream.ts";
import { DIRECT, REJECT, Socks5Upstream } from "./upstreams.ts";

/** RFC 1928 §3: "conventionally located on TCP port 1080". */
const SOCKS_PORT = 1080;
const KNOWN = "socks5://, direct://, reject://";
const EXAMPLE = "socks5://user:password@host:1080";

const SCHEME = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//;
const HOST_NAME = /^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$/;

/**
 * Reads an upstream from its URL. Without a scheme it is `socks5://`; `socks5h://` is the same, because names always go
 * to the proxy as names.
 * @throws UpstreamError `UPSTREAM_URL` when the text names no upstream; the message never holds a password
 * @example parseUpstream("socks5://alice:s%40crt@192.0.2.7:1080").label // "socks5://alice@192.0.2.7:1080"
 */
export function parseUpstream(text: string): Upstream {
  const trimmed = text.trim();
  if (trimmed === "") throw invalid(`Proxy URL is empty: write one as ${EXAMPLE}, or direct://`);
  const match = SCHEME.exec(trimmed);
  const scheme = match?.[1]?.toLowerCase() ?? "socks5";
  const rest = match === null ? trimmed : trimmed.slice(match[0].length);
  if (match === null && (rest === "direct" || rest === "reject")) {
    throw invalid(
      `Proxy "${rest}" lacks its scheme mark: write ${rest}://, or socks5://${rest} for a host of that name`,
    );
  }
  switch (scheme) {
    case "socks5":
    case "socks5h":
      return parseSocks5(rest);
    case "direct":
      return bare(scheme, rest, DIRECT);
    case "reject":
      return bare(scheme, rest, REJECT);
    default:
      throw invalid(`Proxy URL has the unknown scheme "${scheme}", known are ${KNOWN}`);
  }
}

function bare(scheme: string, rest: string, upstream: Upstream): Upstream {
  if (rest !== "" && rest !== "/") {
    throw invalid(`Proxy URL ${scheme}:// takes neither host nor path: write just ${scheme}://`);
  }
  return upstream;
}

function parseSocks5(rest: string): Upstream {
  // RFC 3986 §3.2: the authority ends at the first slash, question mark or number sign.
  const authorityEnd = rest.search(/[/?#]/);
  const authority = authorityEnd < 0 ? rest : rest.slice(0, authorityEnd);
  const tail = authorityEnd < 0 ? "" : rest.slice(authorityEnd);
  checkTail(authority, tail);
  // The last @ divides: one in the password is then read as meant, though it should be written %40.
  const at = authority.lastIndexOf("@");
  const { host, port } = parseHostPort(authority.slice(at + 1));
  const where = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
  const userinfo = at < 0 ? "" : authority.slice(0, at);
  if (userinfo === "" || userinfo === ":") return new Socks5Upstream({ host, port, label: `socks5://${where}` });

  const colon = userinfo.indexOf(":");
  const userText = colon < 0 ? userinfo : userinfo.slice(0, colon);
  const user = decodePercent(userText, "user");
  const password = decodePercent(colon < 0 ? "" : userinfo.slice(colon + 1), "password");
  if (user.length === 0) throw invalid(`Proxy URL has a password but no user: write both, as ${EXAMPLE}`);
  checkLength(user, "user");
  checkLength(password, "password");
  return new Socks5Upstream({ host, port, user, password, label: `socks5://${encodeText(userText)}@${where}` });
}

/** Nothing but a slash may follow the authority. What follows may be half a password, and is not shown. */
function checkTail(authority: string, tail: string): void {
  if (tail.includes("@")) {
    throw invalid("Proxy URL has a /, ? or # before its @: write them as %2F, %3F and %23 in user and password");
  }
  if (authority === "" && tail.length > 1 && tail.startsWith("/")) {
    throw invalid(`Proxy URL names a path in place of a host: Unix sockets are not served, write ${EXAMPLE}`);
  }
  if (tail !== "" && tail !== "/") {
    const part = tail.startsWith("?") ? "query" : tail.startsWith("#") ? "fragment" : "path";
    throw invalid(`Proxy URL has a ${part} after host and port, which SOCKS5 cannot use: remove it`);
  }
}

/** The host without brackets and the port. Only what cannot be a password is shown in an error. */
function parseHostPort(text: string): { host: string; port: number } {
  if (text.startsWith("[")) {
    const close = text.indexOf("]");
    const inside = close < 0 ? "" : text.slice(1, close);
    const address = inside.includes(":") ? parseAddress(inside) : null;
    if (address === null) {
      throw invalid(`Proxy URL has no valid IPv6 address between [ and ]: write it as socks5://[2001:db8::1]:1080`);
    }
    const after = text.slice(close + 1);
    if (after !== "" && !after.startsWith(":")) {
      throw invalid(`Proxy URL has text between ] and the port: write it as socks5://[2001:db8::1]:1080`);
    }
    return { host: formatAddress(address), port: after === "" ? SOCKS_PORT : parsePort(after.slice(1)) };
  }
  const colon = text.indexOf(":");
  const hostText = colon < 0 ? text : text.slice(0, colon);
  if (hostText === "" && colon < 0) throw invalid(`Proxy URL has no host: write it as ${EXAMPLE}`);
  if (text.indexOf(":", colon + 1) > colon) {
    throw invalid(
      parseAddress(text) !== null || parseAddress(text.slice(0, text.lastIndexOf(":"))) !== null
        ? "Proxy URL has an IPv6 address without brackets: write it as socks5://[2001:db8::1]:1080"
        : `Proxy URL has more than one colon in host and port: write it as ${EXAMPLE}`,
    );
  }
  if (hostText === "") throw invalid(`Proxy URL has a port but no host: write it as ${EXAMPLE}`);
  return { host: parseHost(hostText), port: colon < 0 ? SOCKS_PORT : parsePort(text.slice(colon + 1)) };
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

function parsePort(text: string): number {
  const port = /^\d{1,6}$/.test(text) ? Number(text) : -1;
  if (port >= 1 && port <= 65_535) return port;
  // A port that is no number may be a password whose host was forgotten.
  const shown = port < 0 ? "a port that is not a number" : `port ${port}`;
  throw invalid(`Proxy URL has ${shown}, expected 1 to 65535: write it as ${EXAMPLE}`);
}

/** Percent-decoding (RFC 3986 §2.1) to bytes. A percent sign that starts no escape is an error, never text. */
function decodePercent(text: string, part: "user" | "password"): Uint8Array {
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

/** RFC 1929 §2: lengths are one byte. */
function checkLength(bytes: Uint8Array, part: "user" | "password"): void {
  if (bytes.length > 255) {
    throw invalid(`Proxy URL has a ${part} of ${bytes.length} bytes, the limit of SOCKS5 is 255: use a shorter one`);
  }
}

/** Text from outside made fit for one line of a log: everything but URL characters is percent-encoded. */
function encodeText(text: string): string {
  // Through UTF-8, which turns lone surrogates into U+FFFD: encodeURIComponent throws on them.
  const wellFormed = Buffer.from(text).toString();
  return wellFormed.replace(/[^A-Za-z0-9._~!$&'()*+,;=%-]/gu, (char) => encodeURIComponent(char));
}

function invalid(message: string): UpstreamError {
  return new UpstreamError("UPSTREAM_URL", message);
}
