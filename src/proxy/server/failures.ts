/** A failure on the way to a destination, as SOCKS5 (RFC 1928 §6) and HTTP (RFC 9110 §15, RFC 9209 §2.3) tell it. */
import { Socks5Reply } from "../socks5-wire.ts";

export interface Failure {
  readonly reply: Socks5Reply;
  readonly status: 403 | 502 | 503 | 504;
  /** RFC 9209 error type for `Proxy-Status`, because 502 alone does not tell refused from unreachable. */
  readonly proxyError: string;
}

const REFUSED: Failure = { reply: Socks5Reply.refused, status: 502, proxyError: "connection_refused" };
const HOST: Failure = { reply: Socks5Reply.hostUnreachable, status: 502, proxyError: "destination_ip_unroutable" };
const NET: Failure = { reply: Socks5Reply.netUnreachable, status: 502, proxyError: "destination_ip_unroutable" };
const NAME: Failure = { reply: Socks5Reply.hostUnreachable, status: 502, proxyError: "dns_error" };
const TIMEOUT: Failure = { reply: Socks5Reply.hostUnreachable, status: 504, proxyError: "connection_timeout" };
const NOT_ALLOWED: Failure = { reply: Socks5Reply.notAllowed, status: 403, proxyError: "destination_ip_prohibited" };
const EXHAUSTED: Failure = { reply: Socks5Reply.failure, status: 503, proxyError: "proxy_internal_error" };
const OTHER: Failure = { reply: Socks5Reply.failure, status: 502, proxyError: "proxy_internal_error" };

const FAILURES: ReadonlyMap<string, Failure> = new Map([
  ["ECONNREFUSED", REFUSED],
  ["EHOSTUNREACH", HOST],
  ["EHOSTDOWN", HOST],
  ["ENETUNREACH", NET],
  ["ENETDOWN", NET],
  // No source address of the destination's family: the machine has no IPv6, say.
  ["EADDRNOTAVAIL", NET],
  ["EAFNOSUPPORT", NET],
  ["ETIMEDOUT", TIMEOUT],
  ["EACCES", NOT_ALLOWED],
  ["EPERM", NOT_ALLOWED],
  ["ENOTFOUND", NAME],
  ["EAI_AGAIN", NAME],
  ["EMFILE", EXHAUSTED],
  ["ENFILE", EXHAUSTED],
  ["ENOBUFS", EXHAUSTED],
  ["ENOMEM", EXHAUSTED],
]);

/** @param code an errno name, or one of `dns.lookup`'s */
export function failureOf(code: string | undefined): Failure {
  return FAILURES.get(code ?? "") ?? OTHER;
}

/** Of several failed attempts, the one that says most: a host that refused is there. */
export function worthMore(code: string | undefined, than: string | undefined): boolean {
  return rank(code) > rank(than);
}

function rank(code: string | undefined): number {
  if (code === undefined) return -1;
  if (code === "ECONNREFUSED") return 3;
  const failure = failureOf(code);
  if (failure === HOST || failure === TIMEOUT) return 2;
  return failure === NET ? 0 : 1;
}
