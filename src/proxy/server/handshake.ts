/**
 * The server's half of a handshake, without a socket: bytes in, answers and an outcome out.
 *
 *     05 ...  ──> greeting ──> password? ──> request        SOCKS5 (RFC 1928 §3-§4, RFC 1929 §2)
 *     letter  ──> head                                      HTTP CONNECT (RFC 9110 §9.3.6)
 *
 * What a message needs is kept until it is complete, 16 KiB at most. Where the stream is cut makes no difference.
 */
import { AUTH_VERSION, SOCKS5_VERSION, Socks5Command, Socks5Method, Socks5Reply } from "../socks5-wire.ts";
import type { Credentials } from "./credentials.ts";
import { emitHttpFailure, findHeadEnd, parseHttpHead } from "./http-request.ts";
import {
  BAD,
  emitReply,
  MORE,
  parseGreeting,
  parsePasswordAuth,
  parseRequest,
  passwordAuthParts,
  type Socks5Request,
} from "./socks5-request.ts";

/** Bytes of a message, and bytes a client sends ahead, at most. */
export const MAX_HANDSHAKE_BYTES = 16_384;

export type Protocol = "socks5" | "http";

/** What a client wants. */
export interface ProxyRequest {
  readonly protocol: Protocol;
  readonly command: "connect" | "associate";
  /** Address as text, or a name. */
  readonly host: string;
  readonly port: number;
}

/** How a handshake ended: with a request, or with a last answer (which may be empty) before the connection closes. */
export type HandshakeOutcome =
  | { readonly kind: "request"; readonly request: ProxyRequest }
  | {
      readonly kind: "end";
      readonly answer: Uint8Array;
      /** Broken protocol; wrong or missing password; something not served. */
      readonly cause: "bad" | "auth" | "refused";
      readonly reason: string;
    };

const NOTHING = new Uint8Array(0);
const CHALLENGE = 'Proxy-Authenticate: Basic realm="tunrelay", charset="UTF-8"';
/** What SOCKS4 calls "request rejected or failed". */
const SOCKS4_REJECTED = Uint8Array.of(0, 91, 0, 0, 0, 0, 0, 0);

export class ServerHandshake {
  readonly #credentials: Credentials | null;
  #step: "detect" | "greeting" | "password" | "request" | "head" = "detect";
  /** Bytes received and not used yet. */
  #pending: Uint8Array = NOTHING;
  /** Bytes of `#pending` that were searched for the end of an HTTP head. */
  #searched = 0;
  #out: Uint8Array = NOTHING;

  /** @param credentials what clients must give; null lets every client in */
  constructor(credentials: Credentials | null) {
    this.#credentials = credentials;
  }

  /** Known after the first byte; SOCKS5 until then. */
  get protocol(): Protocol {
    return this.#step === "head" ? "http" : "socks5";
  }

  /** Takes the next bytes, which stay the caller's. @returns null when more are needed; not called again after that */
  receive(bytes: Uint8Array): HandshakeOutcome | null {
    this.#pending = this.#pending.length === 0 ? Uint8Array.from(bytes) : Buffer.concat([this.#pending, bytes]);
    for (let before = -1; this.#pending.length > 0 && this.#pending.length !== before; ) {
      before = this.#pending.length;
      const outcome = this.#message();
      if (outcome !== null) return outcome;
    }
    return this.#pending.length > MAX_HANDSHAKE_BYTES ? this.#tooLong() : null;
  }

  /** Answers to send now, before the outcome's; empty when there are none. */
  takeOut(): Uint8Array {
    const out = this.#out;
    this.#out = NOTHING;
    return out;
  }

  /** After a request: what the client sent behind it, to be passed on. */
  takeRest(): Uint8Array {
    const rest = this.#pending;
    this.#pending = NOTHING;
    return rest;
  }

  #message(): HandshakeOutcome | null {
    switch (this.#step) {
      case "detect":
        return this.#onFirstByte(this.#pending[0] ?? 0);
      case "greeting":
        return this.#onGreeting();
      case "password":
        return this.#onPassword();
      case "request":
        return this.#onRequest();
      case "head":
        return this.#onHead();
    }
  }

  /** SOCKS5 starts with 5, HTTP with a letter of its method. */
  #onFirstByte(first: number): HandshakeOutcome | null {
    if (first === SOCKS5_VERSION) {
      this.#step = "greeting";
      return this.#onGreeting();
    }
    if ((first >= 0x41 && first <= 0x5a) || (first >= 0x61 && first <= 0x7a)) {
      this.#step = "head";
      return this.#onHead();
    }
    if (first === 4) return end("bad", "SOCKS4 is not served, use SOCKS5", SOCKS4_REJECTED);
    return end("bad", `First byte is ${first}, expected 5 (SOCKS5) or a letter (HTTP)`);
  }

  /** RFC 1928 §3. */
  #onGreeting(): HandshakeOutcome | null {
    const length = parseGreeting(this.#pending);
    if (length === BAD) return end("bad", "SOCKS5 greeting offers no method");
    if (length === MORE) return null;
    const offered = this.#take(length).subarray(2);
    const method = this.#credentials === null ? Socks5Method.none : Socks5Method.password;
    if (!offered.includes(method)) {
      const answer = Uint8Array.of(SOCKS5_VERSION, Socks5Method.unacceptable);
      return end("auth", `SOCKS5 method ${method} was not offered`, answer);
    }
    this.#step = method === Socks5Method.none ? "request" : "password";
    this.#send(Uint8Array.of(SOCKS5_VERSION, method));
    return null;
  }

  /** RFC 1929 §2. */
  #onPassword(): HandshakeOutcome | null {
    const length = parsePasswordAuth(this.#pending);
    if (length === BAD) return end("bad", `User and password message is not version ${AUTH_VERSION}`);
    if (length === MORE) return null;
    const { user, password } = passwordAuthParts(this.#take(length));
    if (this.#credentials?.matches(user, password) !== true) {
      return end("auth", "wrong user or password", Uint8Array.of(AUTH_VERSION, 1));
    }
    this.#step = "request";
    this.#send(Uint8Array.of(AUTH_VERSION, 0));
    return null;
  }

  /** RFC 1928 §4. */
  #onRequest(): HandshakeOutcome | null {
    const request: Socks5Request = { command: 0, addressType: 0, host: "", port: 0 };
    const length = parseRequest(this.#pending, request);
    if (length === BAD) return end("bad", "SOCKS5 request has a wrong version or an empty name");
    if (length === MORE) return null;
    this.#take(length);
    const { host, port } = request;
    if (host === "") {
      const answer = emitReply(Socks5Reply.addressTypeNotSupported);
      return end("refused", `SOCKS5 address type ${request.addressType} is not served`, answer);
    }
    if (request.command === Socks5Command.connect)
      return wanted({ protocol: "socks5", command: "connect", host, port });
    if (request.command === Socks5Command.associate) {
      return wanted({ protocol: "socks5", command: "associate", host, port });
    }
    const answer = emitReply(Socks5Reply.commandNotSupported);
    return end("refused", `SOCKS5 command ${request.command} is not served`, answer);
  }

  #onHead(): HandshakeOutcome | null {
    const headEnd = findHeadEnd(this.#pending, this.#searched);
    this.#searched = this.#pending.length;
    if (headEnd < 0) return null;
    if (headEnd > MAX_HANDSHAKE_BYTES) return this.#tooLong();
    const request = parseHttpHead(this.#take(headEnd));
    if (request === null) return httpEnd("bad", 400, "This is no HTTP/1 request");
    if (this.#credentials !== null) {
      if (request.credentials === null) return httpEnd("auth", 407, "User and password are needed", [CHALLENGE]);
      if (!this.#credentials.matchesBasic(request.credentials)) {
        return httpEnd("auth", 407, "Wrong user or password", [CHALLENGE]);
      }
    }
    if (request.method !== "CONNECT") {
      const text = "Only CONNECT is served here: use this proxy for https, or as a SOCKS5 proxy";
      return httpEnd("refused", 405, text, ["Allow: CONNECT"]);
    }
    if (request.target === null) return httpEnd("bad", 400, "CONNECT needs host:port with a port of 1 to 65535");
    return wanted({ protocol: "http", command: "connect", ...request.target });
  }

  #tooLong(): HandshakeOutcome {
    const text = `Request is longer than ${MAX_HANDSHAKE_BYTES} bytes`;
    return this.#step === "head" ? httpEnd("bad", 431, text) : end("bad", text);
  }

  /** Uses up the first `length` bytes of `#pending`. */
  #take(length: number): Uint8Array {
    const message = this.#pending.subarray(0, length);
    this.#pending = this.#pending.subarray(length);
    return message;
  }

  #send(answer: Uint8Array): void {
    this.#out = this.#out.length === 0 ? answer : Buffer.concat([this.#out, answer]);
  }
}

function wanted(request: ProxyRequest): HandshakeOutcome {
  return { kind: "request", request };
}

function end(cause: "bad" | "auth" | "refused", reason: string, answer: Uint8Array = NOTHING): HandshakeOutcome {
  return { kind: "end", cause, reason, answer };
}

function httpEnd(
  cause: "bad" | "auth" | "refused",
  status: number,
  text: string,
  headers: readonly string[] = [],
): HandshakeOutcome {
  return end(cause, text, emitHttpFailure(status, text, headers));
}
