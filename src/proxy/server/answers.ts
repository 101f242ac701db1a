/** Answers to a request, in the protocol it came in. */
import { Socks5Reply } from "../socks5-wire.ts";
import { unmapAddress, withoutZone } from "./allow.ts";
import { failureOf } from "./failures.ts";
import type { Protocol } from "./handshake.ts";
import { emitHttpFailure, HTTP_ESTABLISHED } from "./http-request.ts";
import { emitReply } from "./socks5-request.ts";

const NOTHING = new Uint8Array(0);

/** The way is open. @param address BND.ADDR (RFC 1928 §6), as a socket tells it; HTTP has no use for it */
export function emitSuccess(protocol: Protocol, address: string | undefined, port: number | undefined): Uint8Array {
  if (protocol === "http") return HTTP_ESTABLISHED;
  const plain = address === undefined ? undefined : withoutZone(unmapAddress(address));
  return emitReply(Socks5Reply.succeeded, plain, port);
}

/** The destination could not be reached. @param code an errno name */
export function emitFailure(protocol: Protocol, code: string): Uint8Array {
  const failure = failureOf(code);
  if (protocol === "socks5") return emitReply(failure.reply);
  const proxyStatus = `Proxy-Status: tunrelay; error=${failure.proxyError}`;
  return emitHttpFailure(failure.status, `Cannot connect to the destination: ${code}`, [proxyStatus]);
}

/** The server has as many connections as it may. */
export function emitBusy(protocol: Protocol): Uint8Array {
  if (protocol === "socks5") return emitReply(Socks5Reply.failure);
  return emitHttpFailure(503, "This proxy has as many connections as it may: try again later");
}

/** The request took too long. SOCKS5 has no words for it. */
export function emitTooSlow(protocol: Protocol): Uint8Array {
  return protocol === "http" ? emitHttpFailure(408, "The request did not arrive in time") : NOTHING;
}
