/**
 * The relay: joins TCP flows of the stack to streams of an upstream.
 *
 * Theory of operation. A flow is announced at its SYN. The relay connects to the upstream, goes through its handshake,
 * and accepts the flow only when the way is open; a failure is told to the client as what it is. From then on bytes are
 * moved by reference, never copied:
 *
 *   client to upstream   the flow's receive queue is gathered into one write a turn (`flushFlows`); what the socket took
 *                        is released, which opens the client's window. A short write waits for the socket's room.
 *   upstream to client   what was read into the slab is queued on the flow. Above the flow's send buffer the socket is
 *                        paused, until half of the buffer is acknowledged.
 *
 * FIN and end of stream pass through in each direction by itself; a reset on one side resets the other. The socket's
 * handle is the index of everything here: the flow, its handshake while there is one, and bits of progress.
 *
 * What is held: per flow two array entries and a byte; during the handshake one small object. Flows are limited by the
 * stack, bytes by the stack's buffers.
 *
 * Timers: one deadline for the connection to the upstream, one for its answer; expiry refuses the flow.
 */
import { Errno, errnoName } from "../io/addon.ts";
import type { Sockets } from "../io/sockets.ts";
import { formatEndpoint } from "../stack/flow/address.ts";
import { type FlowStack, Ready, type TcpFlow } from "../stack/flow/flow.ts";
import { DeadlineQueue } from "./deadlines.ts";
import type { Logger } from "./logger.ts";
import { REJECT_REASONS, refusalOfErrno } from "./refusals.ts";
import { formatPlace, type ServerAddresses, type ServerPlace } from "./server-addresses.ts";
import { type Handshake, HandshakeStep, Refusal, type Upstream } from "./upstream.ts";

/** The upstream's answer is in: bytes flow. */
const OPEN = 1;
/** The client's FIN went on to the upstream. */
const CLIENT_ENDED = 2;
/** The upstream's end went on to the client. */
const UPSTREAM_ENDED = 4;
/** The socket took less than it was given. */
const BLOCKED = 8;
/** In the list of flows with bytes for the upstream. */
const LISTED = 16;
/** Reading from the upstream stopped until the client has acknowledged more. */
const PAUSED = 32;
/** The stream is connected. */
const CONNECTED = 64;
const BOTH_ENDED = CLIENT_ENDED | UPSTREAM_ENDED;

/** Most pieces gathered into one write. */
const WRITE_REFS = 128;

export interface RelayOptions {
  readonly upstream: Upstream;
  /** Addresses of the upstream's server; empty for `direct://`. */
  readonly servers: ServerAddresses;
  readonly logger: Logger;
  /** Accept flows before the upstream has answered. Default false. */
  readonly earlyAccept: boolean;
  readonly connectTimeoutMs: number;
  readonly handshakeTimeoutMs: number;
}

/** Counters of the relay. */
export interface RelayStats {
  /** Flows joined to a stream now. */
  readonly open: number;
  /** Flows that wait for the upstream now. */
  readonly dialing: number;
  readonly accepted: number;
  readonly refused: number;
  /** Bytes passed on, from clients and to clients. */
  readonly bytesUp: number;
  readonly bytesDown: number;
}

export class Relay {
  readonly #sockets: Sockets;
  readonly #slab: FlowStack["slab"];
  readonly #upstream: Upstream;
  readonly #servers: ServerAddresses;
  readonly #logger: Logger;
  readonly #earlyAccept: boolean;
  readonly #flows: (TcpFlow | null)[] = [];
  readonly #handshakes: (Handshake | null)[] = [];
  #bits: Uint8Array = new Uint8Array(256);
  /** When the flow is given up, by handle; 0 when it is open. */
  #deadlines: Float64Array = new Float64Array(256);
  /** Which of the server's addresses each stream goes to, and how many its flow has tried. */
  #serverOf: Uint8Array = new Uint8Array(256);
  #attempts: Uint8Array = new Uint8Array(256);
  readonly #connects: DeadlineQueue;
  readonly #answers: DeadlineQueue;
  readonly #isVoid: (handle: number, at: number) => boolean;
  #writable: number[] = [];
  #draining = false;
  #now = 0;
  #open = 0;
  #dialing = 0;
  #accepted = 0;
  #refused = 0;
  #bytesUp = 0;
  #bytesDown = 0;

  constructor(sockets: Sockets, slab: FlowStack["slab"], options: RelayOptions) {
    this.#sockets = sockets;
    this.#slab = slab;
    this.#upstream = options.upstream;
    this.#servers = options.servers;
    this.#logger = options.logger;
    this.#earlyAccept = options.earlyAccept;
    this.#connects = new DeadlineQueue(options.connectTimeoutMs);
    this.#answers = new DeadlineQueue(options.handshakeTimeoutMs);
    this.#isVoid = (handle, at) => this.#deadlines[handle] !== at;
  }

  stats(): RelayStats {
    return {
      open: this.#open,
      dialing: this.#dialing,
      accepted: this.#accepted,
      refused: this.#refused,
      bytesUp: this.#bytesUp,
      bytesDown: this.#bytesDown,
    };
  }

  /** From now on new flows are refused; those that are open go on. */
  drain(): void {
    this.#draining = true;
  }

  /** The time of the turn that begins, ms. */
  advance(now: number): void {
    this.#now = now;
  }

  /** When `handleTimeout` is wanted. */
  nextTimeout(): number {
    this.#connects.skip(this.#isVoid);
    this.#answers.skip(this.#isVoid);
    return Math.min(this.#connects.next, this.#answers.next);
  }

  /** Gives up flows whose upstream did not answer in time. */
  handleTimeout(): void {
    this.#expire(this.#connects, "did not accept the connection in time");
    this.#expire(this.#answers, "did not answer the request in time");
  }

  #expire(queue: DeadlineQueue, what: string): void {
    for (let handle = queue.takeDue(this.#now); handle >= 0; handle = queue.takeDue(this.#now)) {
      if (this.#deadlines[handle] !== queue.takenAt) continue;
      const reason = `${this.#upstream.label} ${what}`;
      if (this.#upstream.server === null) this.#refuse(handle, Refusal.hostUnreachable, reason);
      else if (queue !== this.#connects || !this.#tryNext(handle)) this.#refuse(handle, Refusal.proxyFault, reason);
    }
  }

  /** A flow of the stack has something to tell. */
  onFlow(flow: TcpFlow): void {
    const ready = flow.takeReady();
    if ((ready & Ready.syn) !== 0) {
      if ((ready & Ready.closed) === 0) this.#dial(flow);
      return;
    }
    const handle = flow.tag;
    if (handle < 0 || this.#flows[handle] !== flow) return;
    if ((ready & Ready.closed) !== 0 && flow.error !== null) {
      // Reset or given up by the client's side: so is the upstream.
      this.#forget(handle);
      this.#sockets.reset(handle);
      flow.close();
      return;
    }
    if ((ready & (Ready.readable | Ready.eof)) !== 0) this.#list(handle);
    if ((ready & Ready.writable) !== 0 && (this.#bit(handle) & PAUSED) !== 0) {
      this.#clear(handle, PAUSED);
      this.#sockets.resume(handle);
    }
  }

  #bit(handle: number): number {
    return this.#bits[handle] as number;
  }

  #set(handle: number, bits: number): void {
    this.#bits[handle] = (this.#bits[handle] as number) | bits;
  }

  #clear(handle: number, bits: number): void {
    this.#bits[handle] = (this.#bits[handle] as number) & ~bits;
  }

  /** Connects to the upstream for a new flow. */
  #dial(flow: TcpFlow): void {
    const upstream = this.#upstream;
    if (upstream.rejects || this.#draining) {
      this.#refused++;
      flow.reject("rst");
      return;
    }
    if (!upstream.carriesIpv6 && flow.local.address.length === 16) {
      this.#refused++;
      flow.reject(REJECT_REASONS[Refusal.netUnreachable]);
      return;
    }
    const { server } = upstream;
    if (server === null) this.#connect(flow, { target: flow.local.address, port: flow.local.port }, 0, 0);
    else this.#connectToServer(flow, this.#servers.preferred, 1);
    if (this.#earlyAccept && flow.tag >= 0) flow.accept();
  }

  /** Connects to the upstream's server at address `index`, or to the next one that does not fail at once. */
  #connectToServer(flow: TcpFlow, index: number, attempt: number): void {
    this.#connect(flow, this.#servers.at(index), index, attempt);
  }

  #connect(flow: TcpFlow, place: ServerPlace, index: number, attempt: number): void {
    const { address, port } = flow.local;
    const handshake = this.#upstream.connect({ host: address, port });
    const first = handshake === null ? null : handshake.start();
    const handle = this.#sockets.connect(place.target, place.port, first);
    if (handle < 0) {
      if (attempt < this.#servers.count && !isOutOfDescriptors(-handle)) {
        this.#connectToServer(flow, this.#servers.after(index), attempt + 1);
      } else {
        this.#refuseUndialled(flow, -handle, place);
      }
      return;
    }
    this.#reserve(handle);
    flow.tag = handle;
    this.#flows[handle] = flow;
    this.#handshakes[handle] = handshake;
    this.#bits[handle] = this.#bit(handle) & LISTED;
    this.#serverOf[handle] = index;
    this.#attempts[handle] = attempt;
    // The greeting left with the connection, or is sent when it stands.
    if (first !== null && this.#sockets.firstSent === first.length) this.#set(handle, CONNECTED);
    this.#deadlines[handle] = this.#connects.add(handle, this.#now);
    this.#dialing++;
  }

  /** Dials again for the flow of `handle`, at the server's next address; false when all were tried. */
  #tryNext(handle: number): boolean {
    const attempt = this.#attempts[handle] as number;
    if (attempt >= this.#servers.count || (this.#bit(handle) & CONNECTED) !== 0) return false;
    const flow = this.#flows[handle] as TcpFlow;
    const index = this.#servers.after(this.#serverOf[handle] as number);
    this.#forget(handle);
    this.#sockets.close(handle);
    flow.tag = -1;
    this.#connectToServer(flow, index, attempt + 1);
    return true;
  }

  #refuseUndialled(flow: TcpFlow, errno: number, place: ServerPlace): void {
    this.#refused++;
    const refusal = this.#upstream.server === null ? refusalOfErrno(errno) : Refusal.proxyFault;
    if (this.#isAccepted(flow)) flow.abort();
    else flow.reject(REJECT_REASONS[refusal]);
    if (isOutOfDescriptors(errno)) {
      this.#logger.warn(`No descriptors left for new flows (${errnoName(-errno)}): raise the limit with "ulimit -n"`);
    } else if (refusal === Refusal.proxyFault) {
      this.#logger.warn(this.#cannotConnect(errno, place));
    }
  }

  /** Whether a flow that is not open yet was accepted early; it can only be reset then. */
  #isAccepted(flow: TcpFlow): boolean {
    return this.#earlyAccept && flow.isAccepted;
  }

  #cannotConnect(errno: number, place: ServerPlace): string {
    const where = formatPlace(place);
    const isForbidden = errno === Errno.EPERM || errno === Errno.EACCES;
    const remedy = isForbidden
      ? "does a firewall or a missing right forbid it?"
      : "is it running, and is the address right?";
    return `Cannot connect to the proxy at ${where} (${errnoName(-errno)}): ${remedy}`;
  }

  /** Handles are shared with others: the first one seen here may be any number. */
  #reserve(handle: number): void {
    let length = this.#bits.length;
    if (handle >= length) {
      while (handle >= length) length *= 2;
      this.#bits = grownBytes(this.#bits, length);
      this.#serverOf = grownBytes(this.#serverOf, length);
      this.#attempts = grownBytes(this.#attempts, length);
      const deadlines = new Float64Array(length);
      deadlines.set(this.#deadlines);
      this.#deadlines = deadlines;
    }
    while (this.#flows.length <= handle) {
      this.#flows.push(null);
      this.#handshakes.push(null);
    }
  }

  /** Whether `handle` is the stream of a flow. */
  has(handle: number): boolean {
    return this.#flows[handle] !== null && this.#flows[handle] !== undefined;
  }

  onConnected(handle: number): void {
    const handshake = this.#handshakes[handle];
    if (handshake === null || handshake === undefined) {
      this.#begin(handle);
      return;
    }
    this.#servers.worked(this.#serverOf[handle] as number);
    this.#deadlines[handle] = this.#answers.add(handle, this.#now);
    if ((this.#bit(handle) & CONNECTED) === 0) {
      this.#set(handle, CONNECTED);
      this.#sendHandshake(handle, handshake.start());
    }
  }

  #sendHandshake(handle: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (this.#sockets.writeBytes(handle, bytes)) return;
    this.#sockets.flush();
    this.#sockets.writeBytes(handle, bytes);
  }

  onData(handle: number, offset: number, length: number): void {
    const handshake = this.#handshakes[handle];
    if (handshake !== null && handshake !== undefined) {
      this.#onAnswer(handle, handshake, offset, length);
      return;
    }
    this.#toClient(handle, offset, length);
  }

  #onAnswer(handle: number, handshake: Handshake, offset: number, length: number): void {
    switch (handshake.receive(this.#slab.bytes, offset, offset + length)) {
      case HandshakeStep.more:
        return;
      case HandshakeStep.send:
        this.#sendHandshake(handle, handshake.out);
        return;
      case HandshakeStep.done: {
        const { consumed } = handshake;
        this.#begin(handle);
        if (consumed < length) this.#toClient(handle, offset + consumed, length - consumed);
        return;
      }
      default:
        this.#refuse(handle, handshake.refusal, handshake.reason);
    }
  }

  /** The way is open. */
  #begin(handle: number): void {
    const flow = this.#flows[handle] as TcpFlow;
    this.#handshakes[handle] = null;
    this.#deadlines[handle] = 0;
    this.#set(handle, OPEN | CONNECTED);
    this.#dialing--;
    this.#open++;
    this.#accepted++;
    flow.accept();
    // With early accept the client may have sent already.
    if (flow.readable > 0 || flow.finReceived) this.#list(handle);
  }

  #toClient(handle: number, offset: number, length: number): void {
    const flow = this.#flows[handle] as TcpFlow;
    this.#bytesDown += length;
    if (!flow.writeReference(offset, length)) {
      // The client's side is over; its own event says how.
      return;
    }
    if (flow.sendSpace === 0) {
      this.#set(handle, PAUSED);
      this.#sockets.pause(handle);
      flow.wantWritable();
    }
  }

  onEnd(handle: number): void {
    if ((this.#bit(handle) & OPEN) === 0) {
      const what = this.#upstream.server === null ? "" : "The proxy closed the connection during the handshake";
      this.#refuse(handle, Refusal.failed, what);
      return;
    }
    this.#set(handle, UPSTREAM_ENDED);
    (this.#flows[handle] as TcpFlow).end();
    this.#finishIfDone(handle);
  }

  onError(handle: number, errno: number): void {
    const flow = this.#flows[handle] as TcpFlow;
    if ((this.#bit(handle) & OPEN) === 0) {
      if (this.#upstream.server === null) {
        this.#refuse(handle, refusalOfErrno(errno), errnoName(-errno));
      } else if ((this.#bit(handle) & CONNECTED) !== 0 && errno !== Errno.ECONNREFUSED) {
        this.#refuse(handle, Refusal.failed, "The proxy reset the connection during the handshake");
      } else if (!this.#tryNext(handle)) {
        const place = this.#servers.at(this.#serverOf[handle] as number);
        this.#refuse(handle, Refusal.proxyFault, this.#cannotConnect(errno, place));
      }
      return;
    }
    this.#forget(handle);
    flow.abort();
  }

  /** Ends a flow that the upstream did not open. */
  #refuse(handle: number, refusal: Refusal, reason: string): void {
    const flow = this.#flows[handle] as TcpFlow;
    this.#refused++;
    if (refusal === Refusal.proxyFault) this.#logger.warn(reason);
    else if (this.#logger.isEnabled("debug")) {
      this.#logger.debug(`${formatEndpoint(flow.local.address, flow.local.port)}: ${refusal}: ${reason}`);
    }
    this.#forget(handle);
    this.#sockets.close(handle);
    if (this.#isAccepted(flow)) flow.abort();
    else flow.reject(REJECT_REASONS[refusal]);
  }

  #list(handle: number): void {
    const bits = this.#bit(handle);
    if ((bits & (OPEN | BLOCKED | LISTED | CLIENT_ENDED)) !== OPEN) return;
    this.#set(handle, LISTED);
    this.#writable.push(handle);
  }

  onWritable(handle: number): void {
    this.#clear(handle, BLOCKED);
    const flow = this.#flows[handle] as TcpFlow;
    if (flow.readable > 0 || flow.finReceived) this.#list(handle);
  }

  /** Queues one gathered write for each flow with bytes or an end for its upstream, and carries them out. */
  flush(): void {
    const list = this.#writable;
    this.#writable = [];
    for (const handle of list) {
      this.#clear(handle, LISTED);
      const flow = this.#flows[handle];
      if (flow === null || flow === undefined || (this.#bit(handle) & (OPEN | BLOCKED)) !== OPEN) continue;
      let at = this.#sockets.beginWrite(handle, WRITE_REFS);
      if (at < 0) {
        this.#sockets.flush();
        at = this.#sockets.beginWrite(handle, WRITE_REFS);
      }
      this.#gather(handle, flow, at);
    }
    this.#sockets.flush();
  }

  #gather(handle: number, flow: TcpFlow, at: number): void {
    const { words } = this.#sockets;
    const refs = flow.peek(words, at, WRITE_REFS);
    let length = 0;
    for (let i = 0; i < refs; i++) length += words[at + 2 * i + 1] as number;
    const end = flow.finReceived && length === flow.readable;
    // When the upstream has ended already, closing says the same as FIN and then closing.
    const fin = end && (this.#bit(handle) & UPSTREAM_ENDED) === 0;
    if (refs > 0 || fin) this.#sockets.endWrite(refs, fin);
    else if (end) this.#onClientEnded(handle);
  }

  onSent(handle: number, sent: number, length: number, ended: boolean): void {
    if (this.#handshakes[handle] !== null) {
      // A few bytes that a fresh socket has no room for: something is very wrong with it.
      if (sent < length) this.#refuse(handle, Refusal.proxyFault, "The proxy's socket took only a part of the request");
      return;
    }
    const flow = this.#flows[handle] as TcpFlow;
    this.#bytesUp += sent;
    if (sent > 0) flow.consume(sent);
    if (ended) {
      this.#onClientEnded(handle);
    } else if (sent < length) {
      this.#set(handle, BLOCKED);
      flow.compactUnread();
    } else if (flow.readable > 0) {
      this.#list(handle);
    } else if (flow.finReceived) {
      if ((this.#bit(handle) & UPSTREAM_ENDED) !== 0) this.#onClientEnded(handle);
      else this.#list(handle);
    }
  }

  #onClientEnded(handle: number): void {
    this.#set(handle, CLIENT_ENDED);
    this.#finishIfDone(handle);
  }

  /** Whether flows still wait for `flush`. */
  get hasPending(): boolean {
    return this.#writable.length > 0;
  }

  /** Both directions have ended: the stream is closed; the stack delivers what the client has not yet acknowledged. */
  #finishIfDone(handle: number): void {
    if ((this.#bit(handle) & BOTH_ENDED) !== BOTH_ENDED) return;
    const flow = this.#flows[handle] as TcpFlow;
    this.#forget(handle);
    this.#sockets.close(handle);
    flow.close();
  }

  #forget(handle: number): void {
    if ((this.#bit(handle) & OPEN) !== 0) this.#open--;
    else this.#dialing--;
    this.#flows[handle] = null;
    this.#handshakes[handle] = null;
    this.#deadlines[handle] = 0;
    this.#bits[handle] = this.#bit(handle) & LISTED;
  }
}

function isOutOfDescriptors(errno: number): boolean {
  return errno === Errno.EMFILE || errno === Errno.ENFILE;
}

function grownBytes(bytes: Uint8Array, length: number): Uint8Array {
  const copy = new Uint8Array(length);
  copy.set(bytes);
  return copy;
}
