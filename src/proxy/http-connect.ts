/**
 * The client's half of HTTP CONNECT (RFC 9110 §9.3.6, RFC 9112 §3.2.3), without a socket.
 *
 *     out  CONNECT host:port HTTP/1.1 ...     in  HTTP/1.1 200 ...          then the tunnel
 *                                             in  HTTP/1.1 407 ... body     (a challenge)
 *     out  CONNECT ... Proxy-Authorization    in  HTTP/1.1 200 ...          then the tunnel
 *
 * The second request goes over the same connection where the proxy keeps it, else over another one (`again`).
 */
import { formatAddress, parseAddress } from "../stack/flow/address.ts";
import { AnswerReader, HeadResult } from "./http-answer.ts";
import { type Authorization, ChallengeResult, type HttpCredentials } from "./http-credentials.ts";
import { wireName } from "./socks5-wire.ts";
import { type Destination, type Handshake, HandshakeStep, Refusal } from "./upstream.ts";

/** Requests over one connection: without credentials, with, and once more when the nonce was too old. */
const MAX_REQUESTS = 3;
const METHOD = "CONNECT";
const WRONG_PASSWORD = "HTTP proxy refused user and password: check both in its URL";
/** RFC 3986 §3.2.2, reg-name without escapes: nothing that could end the request line. */
const REGISTERED_NAME = /^[A-Za-z0-9._~!$&'()*+,;=-]+$/;
const NOTHING = new Uint8Array(0);

/**
 * The handshake of CONNECT to `destination`.
 * @param credentials shared by all flows of the upstream, which learn from each other; null without user and password
 * @throws RangeError when the destination is a name that cannot stand in a request
 */
export function httpConnect(destination: Destination, credentials: HttpCredentials | null): Handshake {
  return new HttpConnectHandshake(emitAuthority(destination), credentials);
}

/** RFC 9112 §3.2.3: host and port, IPv6 in brackets (RFC 3986 §3.2.2). */
function emitAuthority({ host, port }: Destination): string {
  const address = typeof host === "string" ? parseAddress(host) : host;
  if (address !== null) {
    const text = formatAddress(address);
    return address.length === 16 ? `[${text}]:${port}` : `${text}:${port}`;
  }
  const name = wireName(String(host));
  if (!REGISTERED_NAME.test(name)) {
    throw new RangeError(`Host name ${JSON.stringify(name)} has characters that no request can carry`);
  }
  return `${name}:${port}`;
}

class HttpConnectHandshake implements Handshake {
  out: Uint8Array = NOTHING;
  consumed = 0;
  refusal: Refusal = Refusal.failed;
  reason = "";
  readonly bound: null = null;
  readonly #authority: string;
  readonly #credentials: HttpCredentials | null;
  readonly #answer = new AnswerReader();
  /** What the last request carried. */
  #used: Authorization | null = null;
  #requests = 0;
  #isInBody = false;

  constructor(authority: string, credentials: HttpCredentials | null) {
    this.#authority = authority;
    this.#credentials = credentials;
  }

  start(): Uint8Array {
    // Asked for twice by a caller whose socket took nothing at first: it is the same request.
    if (this.#requests === 0) this.#makeRequest();
    return this.out;
  }

  /** RFC 9110 §7.2: Host repeats the target. A CONNECT has no body and no length (§9.3.6). */
  #makeRequest(): void {
    this.#requests++;
    this.#used = this.#credentials?.current ?? null;
    const lines = [`${METHOD} ${this.#authority} HTTP/1.1`, `Host: ${this.#authority}`];
    if (this.#used !== null) lines.push(`Proxy-Authorization: ${this.#used.value(METHOD, this.#authority)}`);
    this.out = Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
  }

  receive(bytes: Uint8Array, start: number, end: number): HandshakeStep {
    if (this.#isInBody) return this.#onBody(bytes, start, end);
    switch (this.#answer.readHead(bytes, start, end)) {
      case HeadResult.more:
        return HandshakeStep.more;
      case HeadResult.bad:
        return this.#fail(Refusal.proxyFault, `HTTP proxy ${this.#answer.problem}`);
      case HeadResult.complete:
        return this.#onAnswer(bytes, start, end);
    }
  }

  #onAnswer(bytes: Uint8Array, start: number, end: number): HandshakeStep {
    const { status } = this.#answer;
    if (status < 300) {
      // RFC 9110 §9.3.6: any 2xx opens the tunnel right behind its head; lengths it may state mean nothing.
      if (this.#used !== null) this.#credentials?.onAccepted(this.#used);
      this.consumed = this.#answer.next - start;
      return HandshakeStep.done;
    }
    if (status === 407) return this.#onChallenge(bytes, end);
    // Meant for origin servers (RFC 9110 §15.5.2), but it is what tinyproxy says to a wrong password.
    if (status === 401 && this.#used !== null) return this.#fail(Refusal.proxyFault, WRONG_PASSWORD);
    const { phrase, proxyError } = this.#answer;
    const why = proxyError === "" ? "" : ` (${proxyError})`;
    return this.#fail(refusalOfAnswer(status, proxyError), `HTTP proxy answered ${describe(status, phrase)}${why}`);
  }

  /** RFC 9110 §15.5.8: the proxy wants credentials, or others. */
  #onChallenge(bytes: Uint8Array, end: number): HandshakeStep {
    const credentials = this.#credentials;
    if (credentials === null) {
      return this.#fail(
        Refusal.proxyFault,
        "HTTP proxy wants authentication: put user and password into its URL, as http://user:password@host:port",
      );
    }
    switch (credentials.onChallenge(this.#used, this.#answer.challenges)) {
      case ChallengeResult.unknown:
        return this.#fail(
          Refusal.proxyFault,
          `HTTP proxy offers ${credentials.offered || "no authentication scheme"} for its 407, known here are Basic and Digest (auth with MD5, SHA-256, SHA-512-256)`,
        );
      case ChallengeResult.wrong:
        return this.#fail(Refusal.proxyFault, WRONG_PASSWORD);
      case ChallengeResult.retry:
        if (this.#requests >= MAX_REQUESTS || !this.#answer.beginBody()) return this.#again();
        this.#isInBody = true;
        return this.#onBody(bytes, this.#answer.next, end);
    }
  }

  #onBody(bytes: Uint8Array, start: number, end: number): HandshakeStep {
    switch (this.#answer.skipBody(bytes, start, end)) {
      case HeadResult.more:
        return HandshakeStep.more;
      case HeadResult.bad:
        return this.#again();
      case HeadResult.complete:
        // What follows answers nothing that was asked: the framing is not to be trusted.
        if (this.#answer.next < end) return this.#again();
        this.#isInBody = false;
        this.#answer.restart();
        this.#makeRequest();
        return HandshakeStep.send;
    }
  }

  #again(): HandshakeStep {
    this.#fail(
      Refusal.proxyFault,
      "HTTP proxy asked for authentication, and once more on a second connection: check user and password in its URL",
    );
    return HandshakeStep.again;
  }

  #fail(refusal: Refusal, reason: string): HandshakeStep {
    this.refusal = refusal;
    this.reason = reason;
    return HandshakeStep.failed;
  }
}

/**
 * RFC 9209 §2.3: what the errors mean that a proxy may meet on its way to a destination. Where nothing stands here, the
 * status alone says what it says.
 */
const PROXY_ERRORS: ReadonlyMap<string, Refusal> = new Map([
  ["connection_refused", Refusal.refused],
  ["connection_terminated", Refusal.refused],
  ["connection_timeout", Refusal.hostUnreachable],
  ["destination_ip_unroutable", Refusal.hostUnreachable],
  ["destination_not_found", Refusal.hostUnreachable],
  ["destination_unavailable", Refusal.hostUnreachable],
  ["dns_error", Refusal.hostUnreachable],
  ["dns_timeout", Refusal.hostUnreachable],
  ["destination_ip_prohibited", Refusal.prohibited],
  ["http_request_denied", Refusal.prohibited],
]);

/** What an answer other than 2xx and 407 means for the flow: Proxy-Status tells more than a status does. */
function refusalOfAnswer(status: number, proxyError: string): Refusal {
  return PROXY_ERRORS.get(proxyError) ?? refusalOfStatus(status);
}

/** What a status other than 2xx and 407 means for the flow (the table of docs/upstreams.md). */
export function refusalOfStatus(status: number): Refusal {
  switch (status) {
    case 403:
      return Refusal.prohibited;
    case 502:
    case 504:
      return Refusal.hostUnreachable;
    default:
      return Refusal.failed;
  }
}

/** The status, the proxy's words, and what helps where the cause is clear. */
function describe(status: number, phrase: string): string {
  const text = phrase === "" ? String(status) : `${status} ${phrase}`;
  // RFC 9110 §15.5.6, §15.6.2; web servers send them.
  if (status === 405 || status === 501) return `${text}: it does not allow CONNECT; is it a proxy?`;
  if (status < 400) return `${text}: a redirection cannot be followed by CONNECT`;
  return text;
}
