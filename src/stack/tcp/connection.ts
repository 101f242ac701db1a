/**
 * A TCP flow as its owner sees it.
 *
 * Theory of operation. A connection begins with a SYN from the device: `nextReady()` hands it out with `Ready.syn`, and
 * nothing is answered until `accept()` or `reject()`. After that the owner reads and writes until both directions are
 * closed, or calls `close()` or `abort()`; then the object must not be used any more.
 *
 * What is held: the receive queue (at most `recvBuffer` bytes, the window), reassembly (inside the same window), the send
 * queue (at most `sendBuffer` bytes, until acknowledged). All of it are references to slab blocks.
 *
 * Timers: retransmission (armed while something is unacknowledged or a closed window is probed; expiry sends again and
 * backs off, and gives up after `dataRetries`), delayed ACK, and one for quiet flows: keep-alive where it is on (each
 * segment of the client moves it on; expiry asks the client, and gives up after `keepAliveProbes`), or the end of
 * FIN-WAIT-2 once nobody reads.
 */
import { addressFromWords, type Endpoint, type IpBytes } from "../flow/address.ts";
import { type FlowErrorCode, Ready, type RejectReason, type TcpFlow } from "../flow/flow.ts";
import { NIL } from "../memory/chunks.ts";
import { Unreachable } from "../wire/icmp.ts";
import { Protocol } from "../wire/ip.ts";
import { KEY_REMOTE, KEY_WORDS, type TcpContext } from "./context.ts";
import { isFinWait2Ending, restartKeepAlive } from "./keep-alive.ts";
import { makeHalfOpenRoom } from "./limits.ts";
import { keepAliveMs } from "./options.ts";
import { endWithReset } from "./reset.ts";
import { appendToSendQueue, sendLimit } from "./send-queue.ts";
import { seqAdd, seqDiff } from "./seq.ts";
import { Event, isSynchronized, STATE_NAMES, State, type StateName } from "./state.ts";
import type { Tcb } from "./tcb.ts";
import { Timer } from "./timer-table.ts";
import { windowUpdateIsDue } from "./window.ts";

/** The ICMP errors a flow can be refused with. */
const UNREACHABLE: Readonly<Record<Exclude<RejectReason, "rst" | "drop">, Unreachable>> = {
  "net-unreachable": Unreachable.net,
  "host-unreachable": Unreachable.host,
  prohibited: Unreachable.prohibited,
};

/** What `info()` tells; times in ms, sizes in bytes. */
export interface TcpInfo {
  readonly state: StateName;
  readonly mss: number;
  readonly cwnd: number;
  readonly ssthresh: number;
  /** -1 before the first sample. */
  readonly srtt: number;
  readonly rttvar: number;
  readonly rto: number;
  readonly retries: number;
  readonly unacknowledged: number;
  readonly unsent: number;
  readonly sndWnd: number;
  readonly rcvWnd: number;
  readonly outOfOrderBytes: number;
}

export class TcpConnection implements TcpFlow {
  readonly #ctx: TcpContext;
  readonly #tcb: Tcb;
  /** The key, once the flow has left the tables. */
  #key: Int32Array | null = null;
  /** For the owner: an index into its own tables. The stack does not look at it. */
  tag = -1;

  /** @internal Made by the stack. */
  constructor(ctx: TcpContext, tcb: Tcb) {
    this.#ctx = ctx;
    this.#tcb = tcb;
  }

  /** @internal The flow leaves the tables: keep its addresses. */
  keepKey(): void {
    const at = this.#ctx.keyAt(this.#tcb.slot);
    this.#key = this.#ctx.table.keys.slice(at, at + KEY_WORDS);
  }

  /** 4 or 6. */
  get family(): 4 | 6 {
    return this.#tcb.isIpv4 ? 4 : 6;
  }

  /** Where the client wants to go. */
  get local(): Endpoint {
    return { address: this.#address(0), port: this.#tcb.localPort };
  }

  /** The client. */
  get remote(): Endpoint {
    return { address: this.#address(KEY_REMOTE), port: this.#tcb.remotePort };
  }

  #address(from: number): IpBytes {
    const kept = this.#key;
    const words = kept ?? this.#ctx.table.keys;
    const at = (kept === null ? this.#ctx.keyAt(this.#tcb.slot) : 0) + from;
    return addressFromWords(words, at);
  }

  /** State as RFC 9293 names it. */
  get state(): StateName {
    return STATE_NAMES[this.#tcb.state];
  }

  /** Why the flow ended, or null. */
  get error(): FlowErrorCode | null {
    return this.#tcb.error;
  }

  /** When the flow last got on, ms: see {@link TcpFlow.activeAt}. */
  get activeAt(): number {
    return this.#tcb.activeAt;
  }

  /** Takes and clears what happened since the last call: bits of `Ready`. */
  takeReady(): number {
    const bits = this.#tcb.ready;
    this.#tcb.ready = 0;
    return bits;
  }

  get isAccepted(): boolean {
    return this.#tcb.state !== State.listen;
  }

  /** Answers the SYN. No effect on a flow that was accepted or has gone. */
  accept(): void {
    const ctx = this.#ctx;
    const tcb = this.#tcb;
    if (tcb.slot < 0 || tcb.state !== State.listen) return;
    const iss = ctx.isn(tcb.slot, tcb.iss);
    tcb.iss = iss;
    tcb.sndUna = iss;
    tcb.sndNxt = seqAdd(iss, 1);
    tcb.sndMax = tcb.sndNxt;
    tcb.tsOffset = ctx.timestampOffset(tcb.slot);
    tcb.rcvAdv = seqAdd(tcb.rcvNxt, Math.min(65535, ctx.settings.recvBuffer, ctx.slab.fairShare));
    tcb.activeAt = ctx.now;
    makeHalfOpenRoom(ctx);
    ctx.setState(tcb, Event.accept);
    tcb.synAckNow = true;
    ctx.markDirty(tcb);
  }

  /**
   * Refuses the flow before it is accepted: with a reset, an ICMP error, or silence. When the rate limit of ICMP errors
   * is used up, a reset is sent instead. The object is done with afterwards. No effect on a flow that was accepted.
   */
  reject(reason: RejectReason): void {
    const ctx = this.#ctx;
    const tcb = this.#tcb;
    if (tcb.slot >= 0 && tcb.state !== State.listen) return;
    tcb.released = true;
    if (tcb.slot < 0) return;
    if (reason === "drop" || (reason !== "rst" && this.#sendUnreachable(UNREACHABLE[reason]))) {
      ctx.detach(tcb, "FLOW_ABORTED");
    } else {
      endWithReset(ctx, tcb);
    }
  }

  #sendUnreachable(reason: Unreachable): boolean {
    const ctx = this.#ctx;
    const tcb = this.#tcb;
    const at = ctx.keyAt(tcb.slot);
    const { keys } = ctx.table;
    if (!ctx.icmpErrors.allow(ctx.now, keys, at + KEY_REMOTE)) return false;
    return ctx.icmpErrors.send(
      reason,
      tcb.isIpv4,
      Protocol.tcp,
      keys,
      at,
      at + KEY_REMOTE,
      tcb.localPort,
      tcb.remotePort,
      tcb.irs,
      0,
    );
  }

  /** Bytes that can be read. */
  get readable(): number {
    return this.#tcb.rcvQueued;
  }

  /** Whether the peer has sent FIN and everything before it was read. */
  get eof(): boolean {
    return this.#tcb.finReceived && this.#tcb.rcvQueued === 0;
  }

  /** Whether the peer has sent FIN, read or not. */
  get finReceived(): boolean {
    return this.#tcb.finReceived;
  }

  /** Reads up to `max` bytes into a new array; null when there are none. Reading opens the window. */
  read(max: number): Uint8Array | null {
    const length = Math.min(max, this.#tcb.rcvQueued);
    if (length <= 0) return null;
    const { chunks, slab } = this.#ctx;
    const bytes = new Uint8Array(length);
    let at = 0;
    for (let node = this.#tcb.rcvHead; at < length; node = chunks.next(node)) {
      const run = Math.min(chunks.length(node), length - at);
      const offset = chunks.offset(node);
      bytes.set(slab.bytes.subarray(offset, offset + run), at);
      at += run;
    }
    this.consume(length);
    return bytes;
  }

  /**
   * Describes readable bytes as slab references: pairs (offset, length) from `into[at]` on, at most `maxRefs`. They stay
   * valid until `consume`. Returns the number of pairs.
   */
  peek(into: Int32Array, at: number, maxRefs: number): number {
    const { chunks } = this.#ctx;
    let refs = 0;
    for (let node = this.#tcb.rcvHead; node !== NIL && refs < maxRefs; node = chunks.next(node)) {
      into[at + 2 * refs] = chunks.offset(node);
      into[at + 2 * refs + 1] = chunks.length(node);
      refs++;
    }
    return refs;
  }

  /**
   * Releases `count` bytes that were read, and opens the window by as much.
   * @throws RangeError when fewer are readable
   */
  consume(count: number): void {
    const ctx = this.#ctx;
    const tcb = this.#tcb;
    if (count > tcb.rcvQueued) throw new RangeError(`consume(${count}): only ${tcb.rcvQueued} bytes are readable`);
    const { chunks } = ctx;
    let left = count;
    while (left > 0) {
      const head = tcb.rcvHead;
      const length = chunks.length(head);
      if (length > left) {
        chunks.trimFront(head, left);
        break;
      }
      tcb.rcvHead = chunks.remove(head);
      left -= length;
    }
    if (tcb.rcvHead === NIL) tcb.rcvTail = NIL;
    tcb.rcvQueued -= count;
    ctx.bytesBuffered -= count;
    if (tcb.slot < 0 && tcb.rcvQueued === 0) ctx.unread.delete(tcb);
    if (tcb.slot < 0 || tcb.finReceived) return;
    if (windowUpdateIsDue(ctx, tcb)) ctx.markDirty(tcb);
    else if (tcb.windowIsShort && ctx.slab.short) ctx.awaitMemory(tcb);
  }

  /** Moves small unread runs out of big blocks: for an owner that cannot pass them on at once. */
  compactUnread(): void {
    this.#ctx.chunks.compact(this.#tcb.rcvHead);
  }

  /** Bytes that `write` takes now. */
  get sendSpace(): number {
    return Math.max(0, sendLimit(this.#ctx) - this.#tcb.sndQueued);
  }

  /** Bytes written and not yet acknowledged. */
  get sendQueued(): number {
    return this.#tcb.sndQueued;
  }

  /** Asks for `Ready.writable` once half of the send buffer is free. */
  wantWritable(): void {
    const tcb = this.#tcb;
    if (tcb.sndQueued <= sendLimit(this.#ctx) >>> 1) this.#ctx.markReady(tcb, Ready.writable);
    else tcb.wantsWritable = true;
  }

  /**
   * Queues a copy of `bytes` and returns how many were taken: as many as the send buffer and the slab have room for,
   * none when the flow is gone.
   * @throws Error after `end()`
   */
  write(bytes: Uint8Array): number {
    if (this.#tcb.finQueued) throw new Error("write() after end()");
    if (this.#tcb.slot < 0) return 0;
    const { slab } = this.#ctx;
    const want = Math.min(bytes.length, this.sendSpace);
    let taken = 0;
    while (taken < want) {
      const run = Math.min(COPY_BYTES, want - taken);
      const copy = slab.scarce ? -1 : slab.copyIn(bytes.subarray(taken, taken + run));
      if (copy < 0) break;
      this.writeReference(copy, run);
      slab.release(copy);
      taken += run;
    }
    if (taken < bytes.length) this.#tcb.wantsWritable = true;
    return taken;
  }

  /**
   * Queues `length` bytes at slab `offset` without a copy; their block is retained until they are acknowledged. May
   * exceed the send buffer: a caller that minds `sendSpace` overshoots by one read at most.
   * @returns false when the flow is gone or `end()` was called
   */
  writeReference(offset: number, length: number): boolean {
    const tcb = this.#tcb;
    if (tcb.slot < 0 || tcb.finQueued) return false;
    appendToSendQueue(this.#ctx, tcb, offset, length);
    tcb.activeAt = this.#ctx.now;
    this.#ctx.markDirty(tcb);
    return true;
  }

  /** Queues FIN behind what was written (RFC 9293 §3.10.4). Reading goes on. */
  end(): void {
    const tcb = this.#tcb;
    if (tcb.slot < 0 || tcb.finQueued) return;
    tcb.finQueued = true;
    tcb.activeAt = this.#ctx.now;
    this.#ctx.markDirty(tcb);
  }

  /**
   * Gives the flow up: FIN follows what was written; a reset instead when received data was not read (RFC 9293 §3.10.4,
   * SHLD-3). Later events are not reported.
   */
  close(): void {
    const ctx = this.#ctx;
    const tcb = this.#tcb;
    if (tcb.released) return;
    const lost = tcb.rcvQueued > 0;
    if (lost || tcb.state === State.listen) {
      this.abort();
      return;
    }
    tcb.released = true;
    if (tcb.slot < 0) return;
    this.end();
    if (tcb.state === State.finWait2) {
      ctx.timers.set(tcb.slot, Timer.quiet, ctx.now + ctx.settings.finWait2Ms);
    }
  }

  /** Ends the flow with a reset (RFC 9293 §3.10.5). Later events are not reported. */
  abort(): void {
    const ctx = this.#ctx;
    const tcb = this.#tcb;
    tcb.released = true;
    ctx.discardReceived(tcb);
    if (tcb.slot < 0) return;
    endWithReset(ctx, tcb);
  }

  /**
   * Turns keep-alive of this flow on or off (RFC 9293 §3.8.4, MUST-24); the option `keepAliveIdleMs` is what it begins
   * with.
   * @param idleMs silence of the client after which it is asked, at least 1000; 0 is off
   * @throws RangeError
   */
  setKeepAlive(idleMs: number): void {
    const ctx = this.#ctx;
    const tcb = this.#tcb;
    tcb.keepAliveMs = keepAliveMs(idleMs);
    if (tcb.slot < 0 || !isSynchronized(tcb.state) || isFinWait2Ending(tcb)) return;
    if (idleMs === 0) ctx.timers.clear(tcb.slot, Timer.quiet);
    else restartKeepAlive(ctx, tcb);
  }

  /** A snapshot of the flow's numbers. */
  info(): TcpInfo {
    const tcb = this.#tcb;
    const unacknowledged = tcb.slot < 0 ? 0 : seqDiff(tcb.sndNxt, tcb.sndUna);
    return {
      state: this.state,
      mss: tcb.smss,
      cwnd: tcb.cwnd,
      ssthresh: tcb.ssthresh,
      srtt: tcb.srtt,
      rttvar: tcb.rttvar,
      rto: tcb.rto,
      retries: tcb.retries,
      unacknowledged,
      unsent: Math.max(0, tcb.sndQueued - unacknowledged),
      sndWnd: tcb.sndWnd,
      rcvWnd: seqDiff(tcb.rcvAdv, tcb.rcvNxt),
      outOfOrderBytes: tcb.oooBytes,
    };
  }
}

/** Most bytes that `write` copies in one piece: what the end of a block may be wasted by. */
const COPY_BYTES = 16 * 1024;
