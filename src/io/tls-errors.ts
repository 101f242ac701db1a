/** What went wrong with TLS towards a proxy, in words: what was found, and what to do about it. */
import type { X509Certificate } from "node:crypto";
import { Errno } from "./addon.ts";

/** Why a stream has failed. */
export interface StreamProblem {
  /** Positive; EPROTO for what only the text tells. */
  readonly errno: number;
  /** One clause, cause and remedy; empty when the number says it all. */
  readonly text: string;
}

/** Why a certificate is not trusted. @param code OpenSSL's or Node's name of the reason */
export function describeDistrust(
  code: string,
  certificate: X509Certificate | undefined,
  serverName: string,
): StreamProblem {
  return { errno: Errno.EPROTO, text: distrust(code, certificate, serverName) };
}

function distrust(code: string, certificate: X509Certificate | undefined, serverName: string): string {
  switch (code) {
    case "CERT_HAS_EXPIRED":
      return `its TLS certificate expired on ${certificate?.validTo ?? "an earlier day"}: have it renewed, or check the clock here`;
    case "CERT_NOT_YET_VALID":
      return `its TLS certificate is valid from ${certificate?.validFrom ?? "a later day"} on: check the clocks here and there`;
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return `its TLS certificate is for ${certifiedNames(certificate)}, not for ${serverName}: use its name in the proxy URL, or give it as the TLS server name`;
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "UNABLE_TO_GET_ISSUER_CERT":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
      return `its TLS certificate was issued by an unknown authority (${issuer(certificate)}): give that authority's CA file, or pin the certificate`;
    default:
      return `its TLS certificate is not trusted (${code}): give the CA file of its authority, or pin the certificate`;
  }
}

function certifiedNames(certificate: X509Certificate | undefined): string {
  const names = certificate?.subjectAltName?.replaceAll(/\b(DNS|IP Address):/g, "") ?? "";
  return names === "" ? "no name" : clip(names);
}

function issuer(certificate: X509Certificate | undefined): string {
  return clip(certificate?.issuer.replaceAll("\n", ", ") ?? "unnamed");
}

/** Certificates come from the other side: short and printable before they go into a message. */
function clip(text: string): string {
  const printable = text.replaceAll(/[^\x20-\x7e]/g, "?");
  return printable.length > 100 ? `${printable.slice(0, 100)}...` : printable;
}

/** The certificate is not the pinned one. @param found SHA-256 in hexadecimal, or null when there was no certificate */
export function describePinMismatch(found: string | null): StreamProblem {
  const what = found === null ? "it showed no TLS certificate" : `its TLS certificate has the SHA-256 ${found}`;
  return { errno: Errno.EPROTO, text: `${what}, not the pinned one: correct the pin if the certificate was renewed` };
}

/** OpenSSL's reasons, as they end Node's codes (`ERR_SSL_...`), and what to say. The first that fits counts. */
const REASONS: readonly (readonly [RegExp, string])[] = [
  [
    /WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG|UNKNOWN_PROTOCOL|BAD_RECORD_TYPE|UNEXPECTED_MESSAGE/,
    "it does not answer with TLS: is it a proxy without TLS, or is the port wrong?",
  ],
  [/CERTIFICATE_REQUIRED/, "it wants a client certificate: give one with its key"],
  [
    /ALERT_UNKNOWN_CA|ALERT_BAD_CERTIFICATE|ALERT_CERTIFICATE|ALERT_UNSUPPORTED_CERTIFICATE|ALERT_ACCESS_DENIED/,
    "it does not accept the client certificate: give one that it knows, with its key",
  ],
  [/PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/, "it speaks no TLS version from 1.2 on: have it updated"],
  [/NO_APPLICATION_PROTOCOL/, "it does not speak HTTP/1.1 over TLS (ALPN): is it an HTTPS proxy?"],
  [/UNRECOGNIZED_NAME/, "it does not know the TLS server name: use the proxy's own name"],
  [
    /HANDSHAKE_FAILURE|INSUFFICIENT_SECURITY|NO_SHARED_CIPHER/,
    "it refused the TLS handshake: does it want a client certificate, or other ciphers?",
  ],
];

/** What an error of a Node socket means. */
export function describeError(error: NodeJS.ErrnoException): StreamProblem {
  const code = error.code ?? "";
  if (code.startsWith("ERR_SSL_") || code.startsWith("ERR_TLS_")) {
    const reason = REASONS.find(([pattern]) => pattern.test(code))?.[1];
    return { errno: Errno.EPROTO, text: reason ?? `TLS failed (${code}): is the proxy reachable without a middlebox?` };
  }
  if (typeof error.errno === "number" && error.errno < 0) return { errno: -error.errno, text: "" };
  // A system error without its number.
  const known: number | undefined = (Errno as Readonly<Record<string, number>>)[code];
  return known === undefined
    ? { errno: Errno.EIO, text: `${code}: ${clip(error.message)}` }
    : { errno: known, text: "" };
}

/** The proxy has ended the connection before TLS stood. */
export const CLOSED_IN_HANDSHAKE: StreamProblem = {
  errno: Errno.ECONNRESET,
  text: "it closed the connection during the TLS handshake: is it a proxy without TLS, or does it want a client certificate?",
};
