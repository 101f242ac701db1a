/**
 * Opens ways through the upstream, for flows and for UDP associations alike.
 *
 * Theory of operation. A dial connects to the proxy (or the destination itself), goes through the handshake, and ends by
 * telling its owner that the way is open, or why not. One dial may take several connections, one after the other:
 *
 *   the next address of the proxy   when the one before could not be connected to; each is tried once
 *   the same address again          when the handshake asks for it (`HandshakeStep.again`), once a dial;
 *                                   or in sequence, when messages that went together are in doubt (see `pipelining.ts`)
 *
 * What is held: one object a dial, found by the handle of its connection. At most as many as `DialLimits` allows.
 *
 * Timers: a deadline for the connection, one for the answer; expiry ends the dial. Where messages went together, one for
 * the proxy to show that it read them; expiry dials again.
 */
import { Errno, errnoName } from "../io/addon.ts";
import type { Sockets } from "../io/sockets.ts";
import { DeadlineQueue } from "./deadlines.ts";
import type { DialLimits } from "./dial-limits.ts";
import { type Pipelining, Sending } from "./pipelining.ts";
import { refusalOfErrno } from "./refusals.ts";
import { formatPlace, type ServerAddresses, type ServerPlace } from "./server-addresses.ts";
import { type Handshake, HandshakeStep, Refusal, type Upstream } from "./upstream.ts";

/** How long messages that went together may stay without the last answer before they are in doubt, ms. */
const HANG_MS = 2000;
/** Most bytes that sockets take in one copy. */
const COPY_BYTES = 1024;
const NOTHING = new Uint8Array(0);

/** Why a dial in sequence follows one that went together. */
const Doubt = { none: 0, hang: 1, failure: 2 } as const;
type Doubt = (typeof Doubt)[keyof typeof Doubt];

export interface DialerOptions {
  readonly upstream: Upstream;
  /** Where the upstream's proxy can be reached; empty where there is none. */
  readonly servers: ServerAddresses;
  readonly limits: DialLimits;
  /** Shared by all flows; null where messages always go in sequence. */
  readonly pipelining: Pipelining | null;
  readonly connectTimeoutMs: number;
  readonly answerTimeoutMs: number;
}

/** Who wants ways opened for targets of kind `T`: a flow, an association. */
export interface DialOwner<T> {
  /** A new handshake for `target`; null when the connection itself is the way. */
  handshake(target: T, together: boolean): Handshake | null;
  /** Where to connect when there is no proxy. */
  destination(target: T): ServerPlace;
  /** `target` now goes by `handle`; -1: by none. */
  onHandle(target: T, handle: number): void;
  /** The way is open, and the handle the owner's. */
  onOpen(target: T, handle: number, handshake: Handshake | null): void;
  /** The way could not be opened; the handle is gone. `reason` is one sentence, or empty. */
  onRefused(target: T, refusal: Refusal, reason: string): void;
  /** There was no room for one more; the log knows. */
  onTurnedAway(target: T, reason: string): void;
}

/** One target on its way. */
class Dial<T> {
  readonly target: T;
  handle = -1;
  handshake: Handshake | null = null;
  /** Which of the proxy's addresses is tried, and how many were. */
  server = 0;
  attempts = 0;
  /** When it is given up; 0 for never. */
  deadline = 0;
  /** When its messages are in doubt; 0 for never. */
  hangsAt = 0;
  isConnected = false;
  /** Bytes of the first message that left with the connection. */
  sent = 0;
  /** When the last message was handed over. */
  sentAt = 0;
  sending: Sending;
  doubt: Doubt = Doubt.none;
  /** What the proxy had said when messages that went together came into doubt. */
  doubted: Refusal | null = null;
  /** How often the proxy has asked for another connection. */
  agains = 0;
  /** Whether a TLS session that was offered may have been to blame. */
  wasSession = false;

  constructor(target: T, sending: Sending) {
    this.target = target;
    this.sending = sending;
  }
}

export class Dialer<T> {
  readonly #sockets: Sockets;
  readonly #bytes: Uint8Array;
  readonly #options: DialerOptions;
  readonly #owner: DialOwner<T>;
  readonly #dials: (Dial<T> | null)[] = [];
  readonly #connects: DeadlineQueue;
  readonly #answers: DeadlineQueue;
  readonly #hangs: DeadlineQueue = new DeadlineQueue(HANG_MS);
  readonly #isVoid: (handle: number, at: number) => boolean;
  readonly #isNoHang: (handle: number, at: number) => boolean;
  #now = 0;
  #count = 0;

  /** @param bytes the memory that answers are read into */
  constructor(sockets: Sockets, bytes: Uint8Array, options: DialerOptions, owner: DialOwner<T>) {
    this.#sockets = sockets;
    this.#bytes = bytes;
    this.#options = options;
    this.#owner = owner;
    this.#connects = new DeadlineQueue(options.connectTimeoutMs);
    this.#answers = new DeadlineQueue(options.answerTimeoutMs);
    this.#isVoid = (handle, at) => this.#dials[handle]?.deadline !== at;
    this.#isNoHang = (handle, at) => this.#dials[handle]?.hangsAt !== at;
  }

  /** Targets on their way. */
  get count(): number {
    return this.#count;
  }

  /** The time of the turn that begins, ms. */
  advance(now: number): void {
    this.#now = now;
  }

  /** When `handleTimeout` is wanted. */
  nextTimeout(): number {
    this.#connects.skip(this.#isVoid);
    this.#answers.skip(this.#isVoid);
    this.#hangs.skip(this.#isNoHang);
    return Math.min(this.#connects.next, this.#answers.next, this.#hangs.next);
  }

  /** Gives up what took too long. */
  handleTimeout(): void {
    const hangs = this.#hangs;
    for (let handle = hangs.takeDue(this.#now); handle >= 0; handle = hangs.takeDue(this.#now)) {
      const dial = this.#dials[handle];
      if (dial?.hangsAt === hangs.takenAt) this.#onHang(dial);
    }
    this.#expire(this.#connects, "did not accept the connection in time");
    this.#expire(this.#answers, "did not answer the request in time");
  }

  #expire(queue: DeadlineQueue, what: string): void {
    const { upstream } = this.#options;
    for (let handle = queue.takeDue(this.#now); handle >= 0; handle = queue.takeDue(this.#now)) {
      const dial = this.#dials[handle];
      if (dial?.deadline !== queue.takenAt) continue;
      const reason = `${upstream.label} ${what}`;
      if (upstream.server === null) this.#fail(dial, Refusal.hostUnreachable, reason);
      else if (!this.#tryNext(dial)) this.#fail(dial, Refusal.proxyFault, reason);
    }
  }

  /** Opens a way for `target`; what comes of it is told to the owner, now or later. */
  dial(target: T): void {
    const { upstream, servers, limits, pipelining } = this.#options;
    if (!limits.take()) {
      this.#owner.onTurnedAway(target, "too many connections wait for the upstream");
      return;
    }
    this.#count++;
    const dial = new Dial(target, pipelining === null ? Sending.sequence : pipelining.take());
    if (upstream.server !== null) dial.server = servers.preferred;
    this.#connect(dial);
  }

  /** Connects to the address at hand, or to the next one that does not fail at once. */
  #connect(dial: Dial<T>): void {
    const { upstream, servers, limits } = this.#options;
    for (;;) {
      const place = upstream.server === null ? this.#owner.destination(dial.target) : servers.at(dial.server);
      const handshake = this.#owner.handshake(dial.target, dial.sending !== Sending.sequence);
      const first = handshake === null ? NOTHING : handshake.start();
      const head = first.length > COPY_BYTES ? first.subarray(0, COPY_BYTES) : first;
      dial.attempts++;
      const handle = this.#sockets.connect(place.target, place.port, head.length === 0 ? null : head);
      if (handle >= 0) {
        dial.handshake = handshake;
        dial.sent = head.length === 0 ? 0 : this.#sockets.firstSent;
        this.#begin(dial, handle);
        return;
      }
      if (limits.isOutOfDescriptors(-handle)) {
        this.#judge(dial, false);
        this.#end();
        this.#owner.onTurnedAway(dial.target, "no descriptors left");
        return;
      }
      if (dial.attempts >= servers.count) {
        this.#failToConnect(dial, -handle, place);
        return;
      }
      dial.server = servers.after(dial.server);
    }
  }

  #begin(dial: Dial<T>, handle: number): void {
    dial.handle = handle;
    // What left with the connection proves that it stands.
    dial.isConnected = dial.sent > 0;
    dial.sentAt = this.#now;
    dial.deadline = this.#connects.add(handle, this.#now);
    while (this.#dials.length <= handle) this.#dials.push(null);
    this.#dials[handle] = dial;
    this.#owner.onHandle(dial.target, handle);
  }

  /** Takes the dial off its connection. */
  #leave(dial: Dial<T>): void {
    const { handle } = dial;
    if (handle < 0) return;
    this.#dials[handle] = null;
    dial.handle = -1;
    dial.deadline = 0;
    dial.hangsAt = 0;
    this.#owner.onHandle(dial.target, -1);
    this.#sockets.close(handle);
  }

  /** Connects to the proxy's next address; false when this one was reached, or all were tried. */
  #tryNext(dial: Dial<T>): boolean {
    const { servers } = this.#options;
    if (dial.isConnected || dial.attempts >= servers.count) return false;
    this.#leave(dial);
    dial.server = servers.after(dial.server);
    this.#connect(dial);
    return true;
  }

  /** Connects to the same address again. */
  #redial(dial: Dial<T>): void {
    this.#leave(dial);
    dial.attempts--;
    this.#connect(dial);
  }

  /** The messages that went together are in doubt: the same in sequence. */
  #redialInSequence(dial: Dial<T>, doubt: Doubt): void {
    this.#options.pipelining?.doubt();
    dial.doubt = doubt;
    dial.sending = Sending.sequence;
    this.#redial(dial);
  }

  #onHang(dial: Dial<T>): void {
    dial.hangsAt = 0;
    if (this.#options.pipelining?.hasWorkedSince(dial.sentAt) !== true) this.#redialInSequence(dial, Doubt.hang);
  }

  /** Ends a dial whose target does not want it any more; the connection is reset. */
  cancel(handle: number): void {
    const dial = this.#dials[handle];
    if (dial === null || dial === undefined) return;
    this.#dials[handle] = null;
    this.#sockets.reset(handle);
    this.#owner.onHandle(dial.target, -1);
    this.#judge(dial, false);
    this.#end();
  }

  #end(): void {
    this.#count--;
    this.#options.limits.release();
  }

  #fail(dial: Dial<T>, refusal: Refusal, reason: string, wasAnswered = false): void {
    this.#leave(dial);
    this.#judge(dial, wasAnswered);
    this.#end();
    this.#owner.onRefused(dial.target, refusal, reason);
  }

  /** What the end of a dial says about sending together. */
  #judge(dial: Dial<T>, wasAnswered: boolean): void {
    const { pipelining } = this.#options;
    if (pipelining === null) return;
    if (dial.sending !== Sending.sequence) {
      if (wasAnswered) pipelining.worked(this.#now);
      else if (dial.sending === Sending.trial) pipelining.abandon();
    } else if (dial.doubt !== Doubt.none) {
      // Answered just as late in sequence: it is the destination that is slow.
      const isSlow = dial.doubt === Doubt.hang && this.#now - dial.sentAt >= HANG_MS;
      if (wasAnswered && !isSlow) pipelining.convict();
      else pipelining.acquit();
    }
  }

  #failToConnect(dial: Dial<T>, errno: number, place: ServerPlace): void {
    if (this.#options.upstream.server === null) {
      this.#fail(dial, refusalOfErrno(errno), errnoName(errno));
    } else {
      this.#fail(dial, Refusal.proxyFault, this.#cannotConnect(errno, place));
    }
  }

  #cannotConnect(errno: number, place: ServerPlace): string {
    const where = formatPlace(place);
    const { errorText } = this.#sockets;
    if (errorText !== "") return `Cannot use the proxy at ${where}: ${errorText}`;
    const isForbidden = errno === Errno.EPERM || errno === Errno.EACCES;
    const remedy = isForbidden
      ? "does a firewall or a missing right forbid it?"
      : "is it running, and is the address right?";
    return `Cannot connect to the proxy at ${where} (${errnoName(errno)}): ${remedy}`;
  }

  onConnected(handle: number): void {
    const dial = this.#dials[handle] as Dial<T>;
    const { handshake } = dial;
    dial.isConnected = true;
    if (handshake === null) {
      this.#open(dial, null);
      return;
    }
    this.#options.servers.worked(dial.server);
    dial.deadline = this.#answers.add(handle, this.#now);
    dial.sentAt = this.#now;
    if (dial.sending !== Sending.sequence) dial.hangsAt = this.#hangs.add(handle, this.#now);
    const first = handshake.start();
    if (dial.sent < first.length) this.#send(handle, first, dial.sent);
  }

  #send(handle: number, bytes: Uint8Array, from: number): void {
    for (let at = from; at < bytes.length; at += COPY_BYTES) {
      const piece = bytes.subarray(at, at + COPY_BYTES);
      if (this.#sockets.writeBytes(handle, piece)) continue;
      this.#sockets.flush();
      // What was flushed may have failed and ended this very dial.
      if (this.#dials[handle]?.handle !== handle) return;
      this.#sockets.writeBytes(handle, piece);
    }
  }

  /** Takes an answer. @returns how many of its bytes belong to the handshake once the way is open, else -1 */
  onData(handle: number, offset: number, length: number): number {
    const dial = this.#dials[handle] as Dial<T>;
    const { handshake } = dial;
    if (handshake === null) return -1;
    switch (handshake.receive(this.#bytes, offset, offset + length)) {
      case HandshakeStep.more:
        return -1;
      case HandshakeStep.send:
        dial.sentAt = this.#now;
        this.#send(handle, handshake.out, 0);
        return -1;
      case HandshakeStep.done:
        this.#open(dial, handshake);
        return handshake.consumed;
      case HandshakeStep.again:
        // Each hop of a chain may ask once.
        if (dial.agains >= (this.#options.upstream.hops ?? 1)) break;
        dial.agains++;
        this.#redial(dial);
        return -1;
      default:
        break;
    }
    this.#onRefusal(dial, handshake.refusal, handshake.reason);
    return -1;
  }

  /** The proxy has said no. */
  #onRefusal(dial: Dial<T>, refusal: Refusal, reason: string): void {
    // A proxy that was never seen to take messages together may have misread them; one that was may still be another now.
    const isInDoubt =
      dial.sending === Sending.trial || (dial.sending === Sending.together && refusal === Refusal.proxyFault);
    if (isInDoubt) {
      if (saysMuch(refusal)) dial.doubted = refusal;
      this.#redialInSequence(dial, Doubt.failure);
      return;
    }
    // In sequence the same as together: they were read rightly. Another answer than none: they were not read at all.
    if (dial.doubt === Doubt.failure && refusal === dial.doubted) this.#options.pipelining?.worked(this.#now);
    this.#fail(dial, refusal, reason, dial.doubt !== Doubt.failure && refusal !== Refusal.proxyFault);
  }

  #open(dial: Dial<T>, handshake: Handshake | null): void {
    const { handle } = dial;
    this.#dials[handle] = null;
    this.#judge(dial, true);
    this.#end();
    this.#owner.onOpen(dial.target, handle, handshake);
  }

  /** The connection ended before the way was open. */
  onEnd(handle: number): void {
    const dial = this.#dials[handle] as Dial<T>;
    const isDirect = this.#options.upstream.server === null;
    this.#onCutOff(dial, isDirect ? "" : "The proxy closed the connection during the handshake");
  }

  #onCutOff(dial: Dial<T>, reason: string): void {
    if (dial.sending !== Sending.sequence) this.#redialInSequence(dial, Doubt.failure);
    else this.#fail(dial, Refusal.failed, reason);
  }

  /** The connection failed, or could not be made. */
  onError(handle: number, errno: number): void {
    const dial = this.#dials[handle] as Dial<T>;
    const { upstream, servers } = this.#options;
    if (errno === Errno.EAGAIN && !dial.wasSession) {
      dial.wasSession = true;
      this.#redial(dial);
      return;
    }
    if (upstream.server !== null && dial.isConnected && errno !== Errno.ECONNREFUSED) {
      this.#onCutOff(dial, "The proxy reset the connection during the handshake");
      return;
    }
    // Before the handle is left: what the error means is kept until the next one only.
    const place = upstream.server === null ? this.#owner.destination(dial.target) : servers.at(dial.server);
    const reason = upstream.server === null ? errnoName(errno) : this.#cannotConnect(errno, place);
    const refusal = upstream.server === null ? refusalOfErrno(errno) : Refusal.proxyFault;
    if (upstream.server === null || !this.#tryNext(dial)) this.#fail(dial, refusal, reason);
  }

  /** A write was carried out. */
  onSent(handle: number, sent: number, length: number): void {
    const dial = this.#dials[handle];
    // A few bytes that a fresh socket has no room for: something is very wrong with it.
    if (dial === null || dial === undefined || sent === length) return;
    this.#fail(dial, Refusal.proxyFault, "The proxy's socket took only a part of the request");
  }
}

/** Whether a refusal is about the destination: no proxy says so of a request that it could not read. */
function saysMuch(refusal: Refusal): boolean {
  return refusal !== Refusal.failed && refusal !== Refusal.proxyFault;
}
