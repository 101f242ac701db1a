/**
 * TIME-WAIT (RFC 9293 §3.3.2, §3.10.7.8) in a few integers a flow: enough to acknowledge what still arrives. Bounded:
 * when the table is full the oldest entry goes. All entries wait equally long, so the list is in order of expiry.
 */
import { grown } from "../flow/key-table.ts";
import { NEVER } from "./timer-table.ts";

const WORDS = 8;
const SND_NXT = 0;
const RCV_NXT = 1;
const WINDOW = 2;
const TS_RECENT = 3;
const TS_OFFSET = 4;
const FLAGS = 5;
const NEXT = 6;
const PREVIOUS = 7;
const HAS_TIMESTAMPS = 1;
const PRESENT = 2;
/** One answer to a segment without text; the count stands above the flags. */
const ANSWER = 4;
/** Most answers to segments without text in one TIME-WAIT. */
const MAX_ANSWERS = 32;

export class TimeWaitTable {
  #words: Int32Array = new Int32Array(0);
  #expiry: Float64Array = new Float64Array(0);
  /** Slot + 1 of the oldest and the newest. */
  #head = 0;
  #tail = 0;
  /** Flows in TIME-WAIT. */
  size = 0;

  /** Makes room for slots below `capacity`. */
  reserve(capacity: number): void {
    if (capacity * WORDS <= this.#words.length) return;
    this.#words = grown(this.#words, capacity * WORDS);
    const expiry = new Float64Array(capacity);
    expiry.set(this.#expiry);
    this.#expiry = expiry;
  }

  has(slot: number): boolean {
    return ((this.#words[slot * WORDS + FLAGS] as number) & PRESENT) !== 0;
  }

  /** Files `slot` until `expiry`. */
  add(
    slot: number,
    sndNxt: number,
    rcvNxt: number,
    window: number,
    timestamps: boolean,
    tsRecent: number,
    tsOffset: number,
    expiry: number,
  ): void {
    const at = slot * WORDS;
    const words = this.#words;
    words[at + SND_NXT] = sndNxt;
    words[at + RCV_NXT] = rcvNxt;
    words[at + WINDOW] = window;
    words[at + TS_RECENT] = tsRecent;
    words[at + TS_OFFSET] = tsOffset;
    words[at + FLAGS] = PRESENT | (timestamps ? HAS_TIMESTAMPS : 0);
    this.size++;
    this.#append(slot, expiry);
  }

  /** RFC 9293 §3.10.7.8: a retransmitted FIN restarts the wait. */
  restart(slot: number, expiry: number): void {
    this.#unlink(slot);
    this.#append(slot, expiry);
  }

  /** Counts an answer to a segment without text; false when there were too many. */
  takeAnswer(slot: number): boolean {
    const at = slot * WORDS + FLAGS;
    const flags = this.#words[at] as number;
    if (flags >= MAX_ANSWERS * ANSWER) return false;
    this.#words[at] = flags + ANSWER;
    return true;
  }

  remove(slot: number): void {
    this.#unlink(slot);
    this.#words[slot * WORDS + FLAGS] = 0;
    this.size--;
  }

  /** The slot that has waited longest, or -1. */
  get oldest(): number {
    return this.#head - 1;
  }

  /** When the oldest entry expires, or `NEVER`. */
  get nextExpiry(): number {
    return this.#head === 0 ? NEVER : (this.#expiry[this.#head - 1] as number);
  }

  sndNxt(slot: number): number {
    return this.#words[slot * WORDS + SND_NXT] as number;
  }

  rcvNxt(slot: number): number {
    return this.#words[slot * WORDS + RCV_NXT] as number;
  }

  /** The window field last advertised. */
  window(slot: number): number {
    return this.#words[slot * WORDS + WINDOW] as number;
  }

  hasTimestamps(slot: number): boolean {
    return ((this.#words[slot * WORDS + FLAGS] as number) & HAS_TIMESTAMPS) !== 0;
  }

  tsRecent(slot: number): number {
    return this.#words[slot * WORDS + TS_RECENT] as number;
  }

  tsOffset(slot: number): number {
    return this.#words[slot * WORDS + TS_OFFSET] as number;
  }

  #append(slot: number, expiry: number): void {
    const at = slot * WORDS;
    this.#expiry[slot] = expiry;
    this.#words[at + NEXT] = 0;
    this.#words[at + PREVIOUS] = this.#tail;
    if (this.#tail !== 0) this.#words[(this.#tail - 1) * WORDS + NEXT] = slot + 1;
    else this.#head = slot + 1;
    this.#tail = slot + 1;
  }

  #unlink(slot: number): void {
    const next = this.#words[slot * WORDS + NEXT] as number;
    const previous = this.#words[slot * WORDS + PREVIOUS] as number;
    if (previous !== 0) this.#words[(previous - 1) * WORDS + NEXT] = next;
    else this.#head = next;
    if (next !== 0) this.#words[(next - 1) * WORDS + PREVIOUS] = previous;
    else this.#tail = previous;
  }
}
