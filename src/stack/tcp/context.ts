/**
 * What all TCP functions of one stack share: memory, tables, timers, settings and the lists of flows that changed.
 * One instance a stack; nothing is shared between stacks.
 */
import { type FlowErrorCode, Ready } from "../flow/flow.ts";
import { KeyTable } from "../flow/key-table.ts";
import type { IcmpErrors } from "../ip/icmp-error.ts";
import type { IpOutput } from "../ip/output.ts";
import { ChunkPool, NIL } from "../memory/chunks.ts";
import type { Slab } from "../memory/slab.ts";
import type { Drop } from "../wire/drop.ts";
import type { Congestion } from "./congestion.ts";
import { HalfOpenList } from "./half-open.ts";
import { IsnGenerator } from "./isn.ts";
import { newReno } from "./new-reno.ts";
import { type FlowTuple, type TcpOptions, type TcpSettings, tcpSettings } from "./options.ts";
import { Refused } from "./refused.ts";
import { seqAdd, seqLt } from "./seq.ts";
import { SourceCounts } from "./source-counts.ts";
import { type Event, nextState, State } from "./state.ts";
import type { Tcb } from "./tcb.ts";
import { TimeWaitTable } from "./time-wait.ts";
import { TimerTable } from "./timer-table.ts";
import { windowUpdateIsDue } from "./window.ts";

/** Words in the key of a TCP flow: local address, remote address, both ports. */
export const KEY_WORDS = 9;
/** Offset of the remote address in a key. */
export const KEY_REMOTE = 4;
/** How far the ISN of a connection lies behind the last number of the one before: more than its old segments reach. */
const ISN_STEP = 0x20000;

/** @internal */
export class TcpContext {
  readonly settings: TcpSettings;
  readonly slab: Slab;
  readonly chunks: ChunkPool;
  readonly output: IpOutput;
  readonly icmpErrors: IcmpErrors;
  readonly congestion: Congestion = newReno;
  readonly table: KeyTable;
  /** The record of each slot; null for free slots and those in TIME-WAIT. */
  readonly tcbs: (Tcb | null)[] = [];
  readonly timers: TimerTable = new TimerTable();
  readonly timeWait: TimeWaitTable = new TimeWaitTable();
  readonly #isn: IsnGenerator;
  readonly #isnOption: ((tuple: FlowTuple) => number) | null;
  /** The instant of the call that is being served, ms. */
  now = 0;
  /** Scratch for the key of the segment at hand. */
  readonly key: Int32Array = new Int32Array(KEY_WORDS);
  /** Flows that may have something to send. */
  readonly dirty: Tcb[] = [];
  /** Flows whose owner has something to learn. */
  readonly ready: Tcb[] = [];
  /** Flows that are over but have bytes which their owner may still read. */
  readonly unread: Set<Tcb> = new Set();
  /** Flows whose window could not open for want of memory. */
  readonly starved: Tcb[] = [];
  /** Free blocks when they were looked at last. */
  #starvedAt = 0;
  readonly halfOpen: HalfOpenList = new HalfOpenList();
  /** Flows by client address; null when there is no limit on them. */
  readonly sources: SourceCounts | null;
  readonly refused: Refused = new Refused();
  /** Dropped packets by reason. */
  readonly drops: Float64Array;
  /** Transitions that the table does not know: always zero, unless this code is wrong. */
  impossibleTransitions = 0;
  /** Segments sent again. */
  retransmits = 0;
  /** Bytes that wait in send and receive queues. */
  bytesBuffered = 0;

  constructor(
    slab: Slab,
    output: IpOutput,
    icmpErrors: IcmpErrors,
    options: TcpOptions,
    random: () => number,
    drops: Float64Array,
  ) {
    this.settings = tcpSettings(options);
    this.slab = slab;
    this.chunks = new ChunkPool(slab);
    this.output = output;
    this.icmpErrors = icmpErrors;
    this.table = new KeyTable(KEY_WORDS, random());
    this.#isn = new IsnGenerator(random);
    this.#isnOption = options.isn ?? null;
    this.sources = Number.isFinite(this.settings.maxFlowsPerSource) ? new SourceCounts(random()) : null;
    this.drops = drops;
  }

  /** Counts a dropped segment. */
  drop(reason: Drop): void {
    this.drops[reason] = (this.drops[reason] as number) + 1;
  }

  /** Index of `slot`'s key words in `table.keys`. */
  keyAt(slot: number): number {
    return slot * KEY_WORDS;
  }

  /**
   * The initial sequence number of the flow in `slot`.
   * @param beyond SND.NXT of a connection of the same ends that was in TIME-WAIT (RFC 9293 §3.6.1, MAY-2), or 0
   */
  isn(slot: number, beyond: number): number {
    const at = this.keyAt(slot);
    const keys = this.table.keys;
    if (this.#isnOption !== null) return this.#isnOption({ words: keys.slice(at, at + KEY_WORDS) }) | 0;
    const isn = this.#isn.isn(keys, at, at + KEY_WORDS, this.now);
    return beyond === 0 || seqLt(beyond, isn) ? isn : seqAdd(beyond, ISN_STEP);
  }

  timestampOffset(slot: number): number {
    const at = this.keyAt(slot);
    return this.#isn.timestampOffset(this.table.keys, at, at + KEY_WORDS);
  }

  /** Asks for a look at `tcb` before the next packets go out. */
  markDirty(tcb: Tcb): void {
    if (tcb.isDirty) return;
    tcb.isDirty = true;
    this.dirty.push(tcb);
  }

  /** The window of `tcb` is to be looked at again when memory has come back. */
  awaitMemory(tcb: Tcb): void {
    if (tcb.awaitsMemory) return;
    tcb.awaitsMemory = true;
    this.starved.push(tcb);
    this.#starvedAt = this.slab.available;
  }

  /** Looks at the windows that wait for memory, when there is more of it than last time. */
  feedStarved(): void {
    if (this.starved.length === 0 || this.slab.available <= this.#starvedAt) return;
    for (const tcb of this.starved.splice(0)) {
      tcb.awaitsMemory = false;
      if (tcb.slot < 0) continue;
      if (windowUpdateIsDue(this, tcb)) this.markDirty(tcb);
      else this.awaitMemory(tcb);
    }
    this.#starvedAt = this.slab.available;
  }

  /** Tells the flow's owner something; a released flow has no owner. */
  markReady(tcb: Tcb, bits: number): void {
    if (tcb.released) return;
    tcb.ready |= bits;
    if (tcb.isReadyListed) return;
    tcb.isReadyListed = true;
    this.ready.push(tcb);
  }

  /** Moves `tcb` along the transition table. The one place where a state changes. */
  setState(tcb: Tcb, event: Event): void {
    const next = nextState(tcb.state, event);
    if (next < 0) {
      this.impossibleTransitions++;
      return;
    }
    if (next === State.synReceived) this.halfOpen.add(tcb.slot);
    else if (tcb.state === State.synReceived) this.halfOpen.remove(tcb.slot);
    tcb.state = next as State;
  }

  /**
   * Takes `tcb` out of all tables and frees what it holds for sending and reassembly. What was received in order stays
   * readable. The owner learns of it, with `error` when the flow did not end in order.
   */
  detach(tcb: Tcb, error: FlowErrorCode | null): void {
    if (tcb.slot < 0) return;
    const slot = tcb.slot;
    this.#leaveTables(tcb);
    this.table.remove(slot);
    tcb.state = State.closed;
    tcb.error = error;
    this.markReady(tcb, Ready.closed);
  }

  /** Moves `tcb` into the TIME-WAIT table: the record itself is not needed any more. */
  enterTimeWait(tcb: Tcb): void {
    const slot = tcb.slot;
    const { timeWaitMs, maxTimeWait } = this.settings;
    if (timeWaitMs === 0 || maxTimeWait === 0) {
      this.detach(tcb, null);
      return;
    }
    if (this.timeWait.size >= maxTimeWait) this.endTimeWait(this.timeWait.oldest);
    const window = Math.min(65535, (tcb.rcvAdv - tcb.rcvNxt) >>> tcb.rcvShift);
    this.timeWait.add(
      slot,
      tcb.sndMax,
      tcb.rcvNxt,
      window,
      tcb.timestamps,
      tcb.tsRecent,
      tcb.tsOffset,
      this.now + timeWaitMs,
    );
    this.#leaveTables(tcb);
    tcb.state = State.timeWait;
    this.markReady(tcb, Ready.closed);
  }

  /** Forgets a flow in TIME-WAIT. */
  endTimeWait(slot: number): void {
    this.timeWait.remove(slot);
    this.table.remove(slot);
  }

  #leaveTables(tcb: Tcb): void {
    const slot = tcb.slot;
    if (!tcb.released) tcb.connection?.keepKey();
    if (tcb.state === State.synReceived) this.halfOpen.remove(slot);
    this.sources?.remove(this.table.keys, this.keyAt(slot) + KEY_REMOTE);
    this.timers.clearAll(slot);
    this.tcbs[slot] = null;
    tcb.slot = -1;
    this.bytesBuffered -= tcb.sndQueued;
    this.chunks.removeAll(tcb.sndHead);
    tcb.sndHead = NIL;
    tcb.sndTail = NIL;
    tcb.sndCursor = NIL;
    tcb.sndQueued = 0;
    this.bytesBuffered -= tcb.oooBytes;
    this.chunks.removeAll(tcb.oooHead);
    tcb.oooHead = NIL;
    tcb.oooTail = NIL;
    tcb.oooCount = 0;
    tcb.oooBytes = 0;
    if (tcb.released) this.discardReceived(tcb);
    else if (tcb.rcvQueued > 0) this.unread.add(tcb);
  }

  /** Frees what was received and not read. */
  discardReceived(tcb: Tcb): void {
    this.unread.delete(tcb);
    this.bytesBuffered -= tcb.rcvQueued;
    this.chunks.removeAll(tcb.rcvHead);
    tcb.rcvHead = NIL;
    tcb.rcvTail = NIL;
    tcb.rcvQueued = 0;
  }
}
