/**
 * One client of the embedded proxy, from accept to close.
 *
 * Theory of operation.
 *
 *     handshake ──CONNECT──> dialing ──connected──> tunnel       TcpEnd moves the bytes
 *         │                     └──failed──> closing             the answer is sent, then FIN
 *         ├──UDP ASSOCIATE──> association                        lives as long as this connection
 *         └──bad, slow, left──> closing
 *
 * Held: the bytes of the handshake (at most 16 KiB), and while dialing what the client sent early (16 KiB, then reading
 * stops). Timers: the handshake's (armed at accept, cleared by the complete request; expiry answers as the protocol can
 * and closes), the dial's, and the closing one (armed with the answer; expiry destroys the socket, so that a client who
 * keeps its side open cannot hold the connection). All are cleared on close.
 */
import type net from "node:net";
import { unmapAddress } from "./allow.ts";
import { emitBusy, emitFailure, emitSuccess, emitTooSlow } from "./answers.ts";
import { Association } from "./association.ts";
import type { ServerContext } from "./context.ts";
import { Dial } from "./dial.ts";
import { failureOf } from "./failures.ts";
import { type HandshakeOutcome, MAX_HANDSHAKE_BYTES, type ProxyRequest, ServerHandshake } from "./handshake.ts";
import { TcpEnd, type TcpEndOwner } from "./tcp-end.ts";

/** How long a refused client may take to read the answer, ms. RFC 1928 §6 allows 10 s. */
const CLOSING_MS = 2_000;
const NOTHING = new Uint8Array(0);

/** The far end of a tunnel: its bytes, end and errors travel from `TcpEnd` to `TcpEnd`, so nothing is left to do. */
const UPSTREAM_OWNER: TcpEndOwner = { onBytes: () => false, onEnd: () => {}, onError: () => {}, onClose: () => {} };

export class ClientConnection implements TcpEndOwner {
  readonly #context: ServerContext;
  readonly #end: TcpEnd;
  /** Over the limit: the request is answered with a refusal. */
  readonly #surplus: boolean;
  #state: "handshake" | "dialing" | "tunnel" | "association" | "closing" = "handshake";
  readonly #handshake: ServerHandshake;
  /** What the client sent behind its request while we dial. */
  #early: Uint8Array = NOTHING;
  #sawEnd = false;
  /** Reading stopped because `#early` is full. */
  #stopped = false;
  #timer: NodeJS.Timeout | null;
  #dial: Dial | null = null;
  #upstream: TcpEnd | null = null;
  #association: Association | null = null;

  constructor(accepted: net.Socket, context: ServerContext, surplus: boolean) {
    this.#context = context;
    this.#surplus = surplus;
    this.#handshake = new ServerHandshake(context.credentials);
    this.#timer = setTimeout(() => this.#onSlow(), context.handshakeTimeoutMs);
    this.#end = TcpEnd.adopt(accepted, this, context.buffers);
  }

  /** Ends everything at once; a tunnel by resets, because a FIN would say that all bytes came through. */
  destroy(): void {
    if (this.#state === "tunnel") {
      this.#end.reset();
      this.#upstream?.reset();
    } else this.#end.socket.destroy();
  }

  /** Asked every half minute: what is still open then is worth probing for a peer that vanished. */
  keepAlive(): void {
    this.#end.keepAlive();
    this.#upstream?.keepAlive();
  }

  onBytes(bytes: Uint8Array): boolean {
    if (this.#state === "handshake") this.#onHandshakeBytes(bytes);
    else if (this.#state === "dialing") this.#early = Buffer.concat([this.#early, bytes]);
    // What comes while closing, or on an association's connection, is thrown away.
    this.#stopped = this.#state === "dialing" && this.#early.length >= MAX_HANDSHAKE_BYTES;
    return !this.#stopped;
  }

  onEnd(): void {
    this.#sawEnd = true;
    // Half-close is for tunnels: no request can follow, and an association ends with its connection (RFC 1928 §6).
    if (this.#state === "association") this.#close(NOTHING);
    else if (this.#state === "handshake") {
      this.#context.counters.badHandshakes++;
      this.#close(NOTHING);
    }
  }

  onError(): void {
    if (this.#state === "handshake") this.#context.counters.badHandshakes++;
  }

  onClose(): void {
    this.#clearTimer();
    this.#dial?.cancel();
    this.#association?.close();
    this.#early = NOTHING;
    this.#context.onConnectionClosed(this);
  }

  #onHandshakeBytes(bytes: Uint8Array): void {
    const outcome = this.#handshake.receive(bytes);
    const out = this.#handshake.takeOut();
    if (out.length > 0) this.#end.socket.write(out);
    if (outcome?.kind === "request") this.#onRequest(outcome.request);
    else if (outcome?.kind === "end") this.#onHandshakeEnd(outcome);
  }

  #onHandshakeEnd(outcome: Extract<HandshakeOutcome, { kind: "end" }>): void {
    const { counters } = this.#context;
    if (outcome.cause === "bad") counters.badHandshakes++;
    else {
      if (outcome.cause === "auth") counters.authFailures++;
      else counters.refused++;
      this.#context.warnRarely(outcome.cause, `Refused ${this.#client()}: ${outcome.reason}`);
    }
    this.#debug(`closed: ${outcome.reason}`);
    this.#close(outcome.answer);
  }

  #onRequest(request: ProxyRequest): void {
    const { counters } = this.#context;
    this.#clearTimer();
    if (request.protocol === "http") counters.httpRequests++;
    else counters.socksRequests++;
    if (this.#surplus) {
      counters.refused++;
      this.#context.warnRarely("limit", `Refused ${this.#client()}: too many connections`);
      this.#close(emitBusy(request.protocol));
    } else if (request.command === "connect") this.#connect(request);
    else this.#associate(request);
  }

  #connect(request: ProxyRequest): void {
    this.#state = "dialing";
    this.#early = this.#handshake.takeRest();
    this.#dial = new Dial(request.host, request.port, this.#context, {
      owner: UPSTREAM_OWNER,
      onConnected: (end) => this.#onConnected(request, end),
      onFailed: (code) => this.#onDialFailed(request, code),
    });
  }

  #onConnected(request: ProxyRequest, upstream: TcpEnd): void {
    const { counters } = this.#context;
    this.#dial = null;
    this.#upstream = upstream;
    this.#state = "tunnel";
    counters.tunnels++;
    this.#end.socket.write(emitSuccess(request.protocol, upstream.socket.localAddress, upstream.socket.localPort));
    this.#end.join(upstream, (bytes) => {
      counters.bytesUp += bytes;
    });
    upstream.join(this.#end, (bytes) => {
      counters.bytesDown += bytes;
    });
    if (this.#early.length > 0) {
      counters.bytesUp += this.#early.length;
      upstream.socket.write(this.#early);
      this.#early = NOTHING;
    }
    if (this.#sawEnd) upstream.socket.end();
    if (this.#stopped) this.#end.resume();
    this.#debug("connected", request);
  }

  #onDialFailed(request: ProxyRequest, code: string): void {
    const { counters } = this.#context;
    const { status } = failureOf(code);
    this.#dial = null;
    if (status === 403) counters.refused++;
    else counters.dialFailures++;
    if (status === 503) {
      this.#context.warnRarely("resources", `Cannot open connections: ${code}; raise the limit of open files`);
    }
    this.#debug(code, request);
    this.#close(emitFailure(request.protocol, code));
  }

  /** RFC 1928 §6: the association lives until this connection ends. */
  #associate(request: ProxyRequest): void {
    const { localAddress, remoteAddress } = this.#end.socket;
    if (localAddress === undefined || remoteAddress === undefined) {
      this.#end.socket.destroy();
      return;
    }
    const clientAddress = unmapAddress(remoteAddress);
    // A port is worth believing when it comes with no address or the one we see: a NAT in between would change it.
    const believed = /^[0.:]+$/.test(request.host) || unmapAddress(request.host) === clientAddress;
    this.#state = "association";
    const clientPort = believed ? request.port : 0;
    this.#association = new Association(this.#context, clientAddress, clientPort, unmapAddress(localAddress), {
      onOpen: (port) => this.#end.socket.write(emitSuccess("socks5", localAddress, port)),
      onFailed: (code) => this.#onDialFailed(request, code),
      onIdle: () => this.#close(NOTHING),
    });
    this.#debug("UDP association", request);
  }

  #onSlow(): void {
    this.#context.counters.badHandshakes++;
    this.#debug("closed: the request did not arrive in time");
    this.#close(emitTooSlow(this.#handshake.protocol));
  }

  /** Sends the last answer and FIN, then reads on for a while: closing with bytes unread would reset the answer away. */
  #close(answer: Uint8Array): void {
    this.#state = "closing";
    this.#clearTimer();
    this.#association?.close();
    this.#timer = setTimeout(() => this.#end.socket.destroy(), CLOSING_MS);
    if (answer.length > 0) this.#end.socket.write(answer);
    this.#end.socket.end();
    if (this.#stopped) this.#end.resume();
  }

  #clearTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #debug(what: string, request?: ProxyRequest): void {
    if (!this.#context.debugs()) return;
    // Quoted: the host is a client's text.
    const target = request === undefined ? "" : ` -> ${JSON.stringify(request.host)} port ${request.port}`;
    this.#context.logger?.debug(`${this.#client()}${target}: ${what}`);
  }

  #client(): string {
    const { remoteAddress, remotePort } = this.#end.socket;
    return `${unmapAddress(remoteAddress ?? "?")} port ${remotePort ?? 0}`;
  }
}
