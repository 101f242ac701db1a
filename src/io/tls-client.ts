/**
 * TLS towards a proxy: one context for all connections, what is checked before a byte is sent, and the session that
 * saves later connections a round trip.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP, type Socket } from "node:net";
import * as tls from "node:tls";
import { Errno } from "./addon.ts";
import { IoError } from "./poller.ts";
import {
  CLOSED_IN_HANDSHAKE,
  describeDistrust,
  describeError,
  describePinMismatch,
  type StreamProblem,
} from "./tls-errors.ts";
import type { TlsSettings } from "./tls-settings.ts";

/** Where distributions keep the authorities that this machine trusts, in one file. */
const SYSTEM_BUNDLES = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

export class TlsClient {
  readonly #settings: TlsSettings;
  readonly #context: tls.SecureContext;
  /** Of the last connection that was accepted. */
  #session: Buffer | null = null;
  /** Until the server has failed at one: some cannot take sessions up again. */
  #resumes = true;

  /** @throws IoError when CA, certificate or key cannot be used */
  constructor(settings: TlsSettings) {
    this.#settings = settings;
    try {
      this.#context = tls.createSecureContext({
        ca: settings.ca ?? trustedAuthorities(),
        // RFC 8996: nothing older.
        minVersion: "TLSv1.2",
        ...(settings.cert === null ? {} : { cert: settings.cert }),
        ...(settings.key === null ? {} : { key: settings.key }),
      });
    } catch (error) {
      const cause = error instanceof Error ? error.message : String(error);
      throw new IoError(
        "IO_TLS",
        `Cannot use the TLS files for the proxy (${cause}): CA, certificate and key must be PEM, and key and certificate a pair`,
      );
    }
  }

  /**
   * Starts TLS on a connected socket.
   * @param done hears once: null when the peer is who it has to be, else why not; then nothing was sent to it. EAGAIN: it
   * may have been the session that was offered; from now on none is
   */
  start(raw: Socket, done: (problem: StreamProblem | null) => void): tls.TLSSocket {
    const { serverName } = this.#settings;
    let isAccepted = false;
    let isOver = false;
    let session: Buffer | null = null;
    const offered = this.#resumes ? this.#session : null;
    const socket = tls.connect({
      socket: raw,
      secureContext: this.#context,
      host: serverName,
      // RFC 6066 §3: no addresses in SNI.
      servername: isIP(serverName) === 0 ? serverName : "",
      ALPNProtocols: ["http/1.1"],
      checkServerIdentity: (_host, certificate) => tls.checkServerIdentity(serverName, certificate),
      // `#verify` decides: it can say what is wrong with the certificate, and knows of the pin.
      rejectUnauthorized: false,
      ...(offered === null ? {} : { session: offered }),
    });
    const finish = (problem: StreamProblem | null): void => {
      if (isOver) return;
      isOver = true;
      isAccepted = problem === null;
      if (problem === null) {
        this.#session = session ?? this.#session;
        done(null);
        return;
      }
      this.#session = null;
      if (offered !== null) this.#resumes = false;
      done(offered === null ? problem : { errno: Errno.EAGAIN, text: problem.text });
    };
    socket.on("session", (ticket: Buffer) => {
      if (isAccepted) this.#session = ticket;
      else session = ticket;
    });
    socket.once("secureConnect", () => finish(this.#verify(socket)));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      // Node's own error for an end of stream has no number.
      const isClosed = error.code === "ECONNRESET";
      finish(isClosed ? CLOSED_IN_HANDSHAKE : describeError(error));
    });
    return socket;
  }

  #verify(socket: tls.TLSSocket): StreamProblem | null {
    const { pinSha256, serverName } = this.#settings;
    // Only sessions of accepted connections are kept, so a resumed one was checked when it began.
    if (socket.isSessionReused()) return null;
    const certificate = socket.getPeerX509Certificate();
    if (pinSha256 !== null) {
      if (certificate === undefined) return describePinMismatch(null);
      const digest = createHash("sha256").update(certificate.raw).digest();
      return digest.equals(pinSha256) ? null : describePinMismatch(digest.toString("hex"));
    }
    if (socket.authorized) return null;
    return describeDistrust(String(socket.authorizationError), certificate, serverName);
  }
}

/** The authorities that come with Node, and those of the system where they can be found. */
function trustedAuthorities(): string[] {
  const trusted = [...tls.rootCertificates];
  const { SSL_CERT_FILE: chosen = "" } = process.env;
  for (const file of chosen === "" ? SYSTEM_BUNDLES : [chosen]) {
    try {
      trusted.push(readFileSync(file, "utf8"));
      break;
    } catch {
      // Not this distribution's place.
    }
  }
  return trusted;
}
