/**
 * Deadlines of all flows: a few named slots each, and a hashed wheel over the earliest of them.
 *
 * Moving a deadline later, as every acknowledgment does with the RTO, is one store: the wheel entry stays where it is and
 * finds the new deadline when it comes up. A flow without a deadline is not in the wheel and costs nothing.
 */
import { grown } from "../flow/key-table.ts";

/** No deadline. */
export const NEVER: number = Number.POSITIVE_INFINITY;

/** The timers of a flow. */
export const Timer = {
  /** Retransmission of data, FIN or SYN-ACK (RFC 6298), or the zero-window probe (RFC 9293 §3.8.6.1). */
  retransmit: 0,
  /** Delayed acknowledgment. */
  ack: 1,
  /** For a quiet flow: keep-alive (RFC 9293 §3.8.4), or the end of FIN-WAIT-2 once nobody reads; never both. */
  quiet: 2,
} as const;
export type Timer = (typeof Timer)[keyof typeof Timer];
const TIMERS = 3;

/** Width of a bucket, ms: how late a timer may fire. A quarter of the shortest delay in use (20 ms delayed ACK). */
const TICK_MS = 4;
/** Buckets: one turn of the wheel is 8 s; later deadlines go round again. */
const BUCKETS = 2048;
const MASK = BUCKETS - 1;

export class TimerTable {
  #deadlines: Float64Array = new Float64Array(0);
  /** Bucket + 1 a slot is linked into, 0 when it is not in the wheel. */
  #bucketOf: Int32Array = new Int32Array(0);
  #next: Int32Array = new Int32Array(0);
  #previous: Int32Array = new Int32Array(0);
  /** Slot + 1 at the head of each bucket. */
  readonly #heads: Int32Array = new Int32Array(BUCKETS);
  /** The tick each linked slot is filed under, so that buckets can be visited in order. */
  #tickOf: Float64Array = new Float64Array(0);
  /** First tick that may still hold something. */
  #tick = 0;
  #linked = 0;

  /** Deadlines that are set, over all flows. Zero when nothing is armed. For tests and `stats()`. */
  get armed(): number {
    let count = 0;
    for (const deadline of this.#deadlines) if (deadline !== NEVER) count++;
    return count;
  }

  /** Makes room for slots below `capacity`. */
  reserve(capacity: number): void {
    const old = this.#bucketOf.length;
    if (capacity <= old) return;
    const deadlines = new Float64Array(capacity * TIMERS).fill(NEVER);
    deadlines.set(this.#deadlines);
    this.#deadlines = deadlines;
    this.#bucketOf = grown(this.#bucketOf, capacity);
    this.#next = grown(this.#next, capacity);
    this.#previous = grown(this.#previous, capacity);
    const ticks = new Float64Array(capacity);
    ticks.set(this.#tickOf);
    this.#tickOf = ticks;
  }

  /** When `timer` of `slot` is due; `NEVER` when it is not set. */
  at(slot: number, timer: Timer): number {
    return this.#deadlines[slot * TIMERS + timer] as number;
  }

  /** Sets `timer` of `slot` to fire at `at`, ms. */
  set(slot: number, timer: Timer, at: number): void {
    this.#deadlines[slot * TIMERS + timer] = at;
    if (this.#bucketOf[slot] === 0) {
      // While its timers fire a slot is not in the wheel, and another one of them may be due before this one.
      this.rearm(slot);
      return;
    }
    const tick = Math.max(this.#tick, Math.ceil(at / TICK_MS));
    if ((this.#tickOf[slot] as number) <= tick) return;
    this.#unlink(slot);
    this.#link(slot, tick);
  }

  /** Clears `timer` of `slot`. */
  clear(slot: number, timer: Timer): void {
    this.#deadlines[slot * TIMERS + timer] = NEVER;
  }

  /** Clears all timers of `slot` and takes it out of the wheel. */
  clearAll(slot: number): void {
    for (let timer = 0; timer < TIMERS; timer++) this.#deadlines[slot * TIMERS + timer] = NEVER;
    if (this.#bucketOf[slot] !== 0) this.#unlink(slot);
  }

  /** The instant at which something may be due, or `NEVER`. May be early, never late. */
  next(): number {
    if (this.#linked === 0) return NEVER;
    // Entries later than one turn share buckets with earlier ones; an early wake-up finds nothing due and looks on.
    for (let i = 0; i < BUCKETS; i++) {
      if (this.#heads[(this.#tick + i) & MASK] !== 0) return (this.#tick + i) * TICK_MS;
    }
    return NEVER;
  }

  /**
   * Takes one slot that has a deadline at or before `now`, or returns -1. The caller reads and clears the deadlines
   * that are due, then calls `rearm`.
   */
  takeDue(now: number): number {
    const last = Math.floor(now / TICK_MS);
    if (this.#linked === 0) {
      this.#tick = Math.max(this.#tick, last + 1);
      return -1;
    }
    // After a jump of more than one turn every bucket is visited once.
    if (last - this.#tick >= BUCKETS) this.#tick = last - BUCKETS + 1;
    for (; this.#tick <= last; this.#tick++) {
      let entry = this.#heads[this.#tick & MASK] as number;
      while (entry !== 0) {
        const slot = entry - 1;
        entry = this.#next[slot] as number;
        if ((this.#tickOf[slot] as number) > last) continue;
        this.#unlink(slot);
        if (this.#earliest(slot) <= now) return slot;
        this.rearm(slot);
      }
    }
    // The tick after `last` is the next to look at: staying would find far entries of the same bucket again and again.
    return -1;
  }

  /** Files `slot` under its earliest deadline, if it has one and is not filed already. */
  rearm(slot: number): void {
    if (this.#bucketOf[slot] !== 0) return;
    const at = this.#earliest(slot);
    if (at !== NEVER) this.#link(slot, Math.max(this.#tick, Math.ceil(at / TICK_MS)));
  }

  #earliest(slot: number): number {
    const at = slot * TIMERS;
    let earliest = NEVER;
    for (let timer = 0; timer < TIMERS; timer++) {
      const deadline = this.#deadlines[at + timer] as number;
      if (deadline < earliest) earliest = deadline;
    }
    return earliest;
  }

  #link(slot: number, tick: number): void {
    const bucket = tick & MASK;
    const head = this.#heads[bucket] as number;
    this.#tickOf[slot] = tick;
    this.#bucketOf[slot] = bucket + 1;
    this.#next[slot] = head;
    this.#previous[slot] = 0;
    if (head !== 0) this.#previous[head - 1] = slot + 1;
    this.#heads[bucket] = slot + 1;
    this.#linked++;
  }

  #unlink(slot: number): void {
    const bucket = (this.#bucketOf[slot] as number) - 1;
    const next = this.#next[slot] as number;
    const previous = this.#previous[slot] as number;
    if (previous !== 0) this.#next[previous - 1] = next;
    else this.#heads[bucket] = next;
    if (next !== 0) this.#previous[next - 1] = previous;
    this.#bucketOf[slot] = 0;
    this.#linked--;
  }
}
