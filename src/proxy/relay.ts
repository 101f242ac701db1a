/**
 * The relay: joins TCP flows of the stack to streams of an upstream.
 *
 * Theory of operation. A flow is announced at its SYN. A dialer opens the way through the upstream, and the flow is
 * accepted only when it is open; a failure is told to the client as what it is. From then on bytes are moved by
 * reference, never copied:
 *
 *   client to upstream   the flow's receive queue is gathered into one write a turn (`flush`); what the socket took is
 *                        released, which opens the client's window. A short write waits for the socket's room.
 *   upstream to client   what was read into the slab is queued on the flow. Above the flow's send buffer the socket is
 *                        paused, until half of the buffer is acknowledged.
 *
 * FIN and end of stream pass through in each direction by itself; a reset on one side resets the other. The socket's
 * handle is the index of everything here: the flow and bits of progress.
 *
 * What is held: per flow an array entry and a byte; what the dialer holds while the flow is dialled; numbers for its
 * summary when somebody listens. Flows are limited by the stack, bytes by the stack's buffers.
 *
 * Timers: those of the dialer. A sweep looks for flows that were idle for too long, some 16 times in that time and at
 * most once a second, while flows are open; such a flow is reset on both sides.
 */
import { errnoName } from "../io/addon.ts";
import type { Sockets } from "../io/sockets.ts";
import { formatEndpoint } from "../stack/flow/address.ts";
import { type FlowErrorCode, type FlowStack, Ready, type TcpFlow } from "../stack/flow/flow.ts";
import type { DialLimits } from "./dial-limits.ts";
import { Dialer, type DialOwner } from "./dialer.ts";
import { FlowRecords } from "./flow-records.ts";
import type { FlowEnd, Logger } from "./logger.ts";
import { Pipelining, type PipeliningState } from "./pipelining.ts";
import { REJECT_REASONS } from "./refusals.ts";
import type { ServerAddresses, ServerPlace } from "./server-addresses.ts";
import { type Handshake, Refusal, type Upstream } from "./upstream.ts";

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
const BOTH_ENDED = CLIENT_ENDED | UPSTREAM_ENDED;

/** Most pieces gathered into one write. */
const WRITE_REFS = 128;
/** How often idle flows are looked for: in parts of the time allowed, and at most so often, ms. */
const SWEEPS = 16;
const MIN_SWEEP_MS = 1000;

export interface RelayOptions {
  readonly upstream: Upstream;
  /** Addresses of the upstream's server; empty for `direct://`. */
  readonly servers: ServerAddresses;
  readonly logger: Logger;
  /** Shared with the UDP relay. */
  readonly limits: DialLimits;
  /** Accept flows before the upstream has answered. Default false. */
  readonly earlyAccept: boolean;
  readonly connectTimeoutMs: number;
  readonly handshakeTimeoutMs: number;
  /** How long an open flow may be without data in either direction. */
  readonly idleTimeoutMs: number;
}

/** Counters of the relay. */
export interface RelayStats {
  /** Flows joined to a stream now. */
  readonly open: number;
  /** Flows that wait for the upstream now. */
  readonly dialing: number;
  readonly accepted: number;
  readonly refused: number;
  /** Flows ended because they were idle for too long. */
  readonly idled: number;
  /** Bytes passed on, from clients and to clients. */
  readonly bytesUp: number;
  readonly bytesDown: number;
  /** Whether the upstream takes all messages of a handshake together, as far as it has shown. */
  readonly pipelining: PipeliningState;
}

export class Relay implements DialOwner<TcpFlow> {
  readonly #sockets: Sockets;
  readonly #upstream: Upstream;
  readonly #logger: Logger;
  readonly #earlyAccept: boolean;
  readonly #idleTimeoutMs: number;
  readonly #dialer: Dialer<TcpFlow>;
  readonly #pipelining: Pipelining;
  readonly #records: FlowRecords | null;
  readonly #flows: (TcpFlow | null)[] = [];
  #bits: Uint8Array = new Uint8Array(256);
  #writable: number[] = [];
  #draining = false;
  #now = 0;
  #nextSweep = Number.POSITIVE_INFINITY;
  #open = 0;
  #accepted = 0;
  #refused = 0;
  #idled = 0;
  #bytesUp = 0;
  #bytesDown = 0;

  constructor(sockets: Sockets, slab: FlowStack["slab"], options: RelayOptions) {
    const { upstream, servers, limits, logger } = options;
    this.#sockets = sockets;
    this.#upstream = upstream;
    this.#logger = logger;
    this.#earlyAccept = options.earlyAccept;
    this.#idleTimeoutMs = options.idleTimeoutMs;
    this.#pipelining = new Pipelining(upstream.canPipeline);
    this.#records = logger.flow === undefined ? null : new FlowRecords(upstream.label, logger);
    const { connectTimeoutMs, handshakeTimeoutMs: answerTimeoutMs } = options;
    const pipelining = this.#pipelining;
    this.#dialer = new Dialer<TcpFlow>(
      sockets,
      slab.bytes,
      { upstream, servers, limits, pipelining, connectTimeoutMs, answerTimeoutMs },
      this,
    );
  }

  stats(): RelayStats {
    return {
      open: this.#open,
      dialing: this.#dialer.count,
      accepted: this.#accepted,
      refused: this.#refused,
      idled: this.#idled,
      bytesUp: this.#bytesUp,
      bytesDown: this.#bytesDown,
      pipelining: this.#pipelining.state,
    };
  }

  /** From now on new flows are refused; those that are open go on. */
  drain(): void {
    this.#draining = true;
  }

  /** Gives up everything: what the clients hear is the stack's matter, the sockets are their owner's. */
  stop(): void {
    for (let handle = 0; handle < this.#flows.length; handle++) {
      const flow = this.#flows[handle];
      if (flow === null || flow === undefined) continue;
      if (this.#isOpen(handle)) this.#forget(handle, flow, "stopped", "");
      else this.#cancel(handle, flow, "stopped");
    }
  }

  /** The time of the turn that begins, ms. */
  advance(now: number): void {
    this.#now = now;
    this.#dialer.advance(now);
  }

  /** When `handleTimeout` is wanted. */
  nextTimeout(): number {
    return Math.min(this.#dialer.nextTimeout(), this.#nextSweep);
  }

  /** Gives up flows whose upstream did not answer in time, and those that were idle for too long. */
  handleTimeout(): void {
    this.#dialer.handleTimeout();
    if (this.#now >= this.#nextSweep) this.#sweep();
  }

  #sweep(): void {
    const idleSince = this.#now - this.#idleTimeoutMs;
    for (let handle = 0; handle < this.#flows.length; handle++) {
      const flow = this.#flows[handle];
      if (flow === null || flow === undefined || !this.#isOpen(handle)) continue;
      if (flow.activeAt > idleSince) continue;
      this.#idled++;
      this.#forget(handle, flow, "idle", "");
      this.#sockets.reset(handle);
      flow.abort();
    }
    this.#nextSweep = this.#open === 0 ? Number.POSITIVE_INFINITY : this.#now + this.#sweepMs;
  }

  get #sweepMs(): number {
    return Math.max(MIN_SWEEP_MS, this.#idleTimeoutMs / SWEEPS);
  }

  /** A flow of the stack has something to tell. */
  onFlow(flow: TcpFlow): void {
    const ready = flow.takeReady();
    if ((ready & Ready.syn) !== 0) {
      if ((ready & Ready.closed) === 0) this.#begin(flow);
      return;
    }
    const handle = flow.tag;
    if (handle < 0 || this.#flows[handle] !== flow) return;
    if ((ready & Ready.closed) !== 0 && flow.error !== null) {
      // Reset or given up by the client's side: so is the upstream.
      const end = END_OF_ERROR[flow.error];
      if (this.#isOpen(handle)) {
        this.#forget(handle, flow, end, "");
        this.#sockets.reset(handle);
      } else {
        this.#cancel(handle, flow, end);
      }
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

  #isOpen(handle: number): boolean {
    return (this.#bit(handle) & OPEN) !== 0;
  }

  /** Asks for a way for a new flow. */
  #begin(flow: TcpFlow): void {
    this.#records?.start(this.#now);
    if (this.#upstream.rejects || this.#draining) {
      this.#refused++;
      this.#records?.tell(flow, "refused", this.#draining ? "tunrelay is ending" : "", this.#now);
      flow.reject("rst");
      return;
    }
    if (!this.#upstream.carriesIpv6 && flow.local.address.length === 16) {
      this.#refused++;
      this.#records?.tell(flow, "refused", "the proxy's protocol has no IPv6 addresses", this.#now);
      flow.reject(REJECT_REASONS[Refusal.netUnreachable]);
      return;
    }
    this.#dialer.dial(flow);
    if (this.#earlyAccept && flow.tag >= 0) flow.accept();
  }

  /** @hidden */
  handshake(flow: TcpFlow, together: boolean): Handshake | null {
    const { address: host, port } = flow.local;
    return this.#upstream.connect({ host, port }, together);
  }

  /** @hidden */
  destination(flow: TcpFlow): ServerPlace {
    const { address: target, port } = flow.local;
    return { target, port };
  }

  /** @hidden */
  onHandle(flow: TcpFlow, handle: number): void {
    const old = flow.tag;
    if (old >= 0) {
      this.#flows[old] = null;
      this.#records?.leave(old);
    }
    flow.tag = handle;
    if (handle < 0) return;
    this.#reserve(handle);
    this.#flows[handle] = flow;
    this.#bits[handle] = this.#bit(handle) & LISTED;
    this.#records?.enter(handle);
  }

  /** @hidden */
  onRefused(flow: TcpFlow, refusal: Refusal, reason: string): void {
    this.#refused++;
    if (refusal === Refusal.proxyFault) this.#logger.warn(reason);
    else if (this.#logger.isEnabled("debug")) {
      this.#logger.debug(`${formatEndpoint(flow.local.address, flow.local.port)}: ${refusal}: ${reason}`);
    }
    this.#turnAway(flow, refusal, reason === "" ? refusal : reason);
  }

  /** @hidden */
  onTurnedAway(flow: TcpFlow, reason: string): void {
    this.#refused++;
    this.#turnAway(flow, Refusal.failed, reason);
  }

  #turnAway(flow: TcpFlow, refusal: Refusal, reason: string): void {
    this.#records?.tell(flow, "refused", reason, this.#now);
    // A flow that was accepted early can only be reset.
    if (this.#earlyAccept && flow.isAccepted) flow.abort();
    else flow.reject(REJECT_REASONS[refusal]);
  }

  /** Handles are shared with others: the first one seen here may be any number. */
  #reserve(handle: number): void {
    let length = this.#bits.length;
    if (handle >= length) {
      while (handle >= length) length *= 2;
      const bits = new Uint8Array(length);
      bits.set(this.#bits);
      this.#bits = bits;
    }
    while (this.#flows.length <= handle) this.#flows.push(null);
  }

  /** Whether `handle` is the stream of a flow. */
  has(handle: number): boolean {
    return this.#flows[handle] !== null && this.#flows[handle] !== undefined;
  }

  onConnected(handle: number): void {
    this.#dialer.onConnected(handle);
  }

  onData(handle: number, offset: number, length: number): void {
    if (this.#isOpen(handle)) {
      this.#toClient(handle, offset, length);
      return;
    }
    const consumed = this.#dialer.onData(handle, offset, length);
    if (consumed >= 0 && consumed < length) this.#toClient(handle, offset + consumed, length - consumed);
  }

  /** @hidden */
  onOpen(flow: TcpFlow, handle: number): void {
    this.#set(handle, OPEN);
    if (this.#nextSweep === Number.POSITIVE_INFINITY) this.#nextSweep = this.#now + this.#sweepMs;
    this.#open++;
    this.#accepted++;
    flow.accept();
    // With early accept the client may have sent already.
    if (flow.readable > 0 || flow.finReceived) this.#list(handle);
  }

  #toClient(handle: number, offset: number, length: number): void {
    const flow = this.#flows[handle] as TcpFlow;
    this.#bytesDown += length;
    if (this.#records !== null) this.#records.countDown(handle, length);
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
    if (!this.#isOpen(handle)) {
      this.#dialer.onEnd(handle);
      return;
    }
    this.#set(handle, UPSTREAM_ENDED);
    (this.#flows[handle] as TcpFlow).end();
    this.#finishIfDone(handle);
  }

  onError(handle: number, errno: number): void {
    if (!this.#isOpen(handle)) {
      this.#dialer.onError(handle, errno);
      return;
    }
    const flow = this.#flows[handle] as TcpFlow;
    this.#forget(handle, flow, "reset-by-upstream", this.#sockets.errorText || errnoName(errno));
    flow.abort();
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
    if (!this.#isOpen(handle)) {
      this.#dialer.onSent(handle, sent, length);
      return;
    }
    const flow = this.#flows[handle] as TcpFlow;
    this.#bytesUp += sent;
    if (sent > 0) {
      if (this.#records !== null) this.#records.countUp(handle, sent);
      flow.consume(sent);
    }
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
    this.#forget(handle, flow, "closed", "");
    this.#sockets.close(handle);
    flow.close();
  }

  /** An open flow is over. */
  #forget(handle: number, flow: TcpFlow, end: FlowEnd, reason: string): void {
    this.#open--;
    if (this.#open === 0) this.#nextSweep = Number.POSITIVE_INFINITY;
    this.#flows[handle] = null;
    this.#bits[handle] = this.#bit(handle) & LISTED;
    if (this.#records === null) return;
    this.#records.leave(handle);
    this.#records.tell(flow, end, reason, this.#now);
  }

  /** A flow that waits for the upstream is over. */
  #cancel(handle: number, flow: TcpFlow, end: FlowEnd): void {
    this.#dialer.cancel(handle);
    this.#records?.tell(flow, end, "the upstream had not answered yet", this.#now);
  }
}

const END_OF_ERROR: Readonly<Record<FlowErrorCode, FlowEnd>> = {
  FLOW_RESET: "reset-by-client",
  FLOW_TIMEOUT: "client-gone",
  FLOW_UNREACHABLE: "client-gone",
  FLOW_ABORTED: "evicted",
};
