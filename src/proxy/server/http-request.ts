/** HTTP CONNECT (RFC 9110 §9.3.6, RFC 9112 §3.2.3) with Basic authentication (RFC 7617), without a socket. */
import { formatAddress, parseAddress } from "../../stack/flow/address.ts";

/** What a request head asks for. */
export interface HttpRequest {
  readonly method: string;
  /** Host and port of CONNECT; null when the target is no `host:port`. */
  readonly target: { readonly host: string; readonly port: number } | null;
  /** `user:password` of `Proxy-Authorization: Basic`, as bytes; null without. */
  readonly credentials: Uint8Array | null;
}

/** Where the head ends: the offset after its empty line, or -1. @param from where to look; earlier bytes were seen */
export function findHeadEnd(bytes: Uint8Array, from: number): number {
  for (let i = bytes.indexOf(0x0a, from); i >= 0; i = bytes.indexOf(0x0a, i + 1)) {
    // RFC 9112 §2.2: a lone LF may be taken as the line's end.
    const before = bytes[i - 1] === 0x0d ? i - 2 : i - 1;
    if (i > 0 && bytes[before] === 0x0a) return i + 1;
  }
  return -1;
}

const REQUEST_LINE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP\/1\.\d$/;
const TARGET = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]/?#@\s]{1,255})):(\d{1,5})$/;
const BASIC = /^basic +([A-Za-z0-9+/=_-]*)$/i;

/** Parses a complete head; null when it is no HTTP/1 request. */
export function parseHttpHead(head: Uint8Array): HttpRequest | null {
  const lines = Buffer.from(head.buffer, head.byteOffset, head.length).toString("latin1").split(/\r?\n/);
  const match = REQUEST_LINE.exec(lines[0] ?? "");
  if (match === null) return null;
  let credentials: Uint8Array | null = null;
  for (const line of lines.slice(1)) {
    const colon = line.indexOf(":");
    if (colon < 0 || line.slice(0, colon).toLowerCase() !== "proxy-authorization") continue;
    const basic = BASIC.exec(line.slice(colon + 1).trim());
    if (basic !== null) credentials = Buffer.from(basic[1] ?? "", "base64");
  }
  return { method: match[1] ?? "", target: parseTarget(match[2] ?? ""), credentials };
}

function parseTarget(text: string): HttpRequest["target"] {
  const match = TARGET.exec(text);
  const port = Number(match?.[3] ?? 0);
  if (match === null || port < 1 || port > 65_535) return null;
  if (match[1] === undefined) return { host: match[2] ?? "", port };
  const address = parseAddress(match[1]);
  return address?.length === 16 ? { host: formatAddress(address), port } : null;
}

/** Reason phrases of the answers given here. */
const REASONS: Readonly<Record<number, string>> = {
  400: "Bad Request",
  403: "Forbidden",
  405: "Method Not Allowed",
  407: "Proxy Authentication Required",
  408: "Request Timeout",
  431: "Request Header Fields Too Large",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
};

/** The answer to a CONNECT that succeeded. No length and no body: the tunnel begins after it (RFC 9110 §9.3.6). */
export const HTTP_ESTABLISHED: Uint8Array = Buffer.from("HTTP/1.1 200 Connection established\r\n\r\n");

/** An answer that ends the connection. @param text one line for people @param headers further header lines */
export function emitHttpFailure(status: number, text: string, headers: readonly string[] = []): Uint8Array {
  const body = `${text}\n`;
  return Buffer.from(
    [
      `HTTP/1.1 ${status} ${REASONS[status] ?? "Error"}`,
      "Content-Type: text/plain; charset=utf-8",
      `Content-Length: ${Buffer.byteLength(body)}`,
      "Connection: close",
      ...headers,
      "",
      body,
    ].join("\r\n"),
  );
}
