/**
 * Flows in SYN-RECEIVED, oldest first: their number is limited, and the limit hits the oldest (see limits.ts).
 */
import { grown } from "../flow/key-table.ts";

/** Slots in the order in which they were added; any of them can be taken out. */
export class HalfOpenList {
  /** Slot + 1 of the neighbours, 0 for none. */
  #newer: Int32Array = new Int32Array(0);
  #older: Int32Array = new Int32Array(0);
  #oldest = 0;
  #newest = 0;
  size = 0;

  /** Makes room for slots below `capacity`. */
  reserve(capacity: number): void {
    if (capacity <= this.#newer.length) return;
    this.#newer = grown(this.#newer, capacity);
    this.#older = grown(this.#older, capacity);
  }

  /** The slot that has waited longest, or -1. */
  get oldest(): number {
    return this.#oldest - 1;
  }

  /** Adds a slot that is not in the list. */
  add(slot: number): void {
    this.#newer[slot] = 0;
    this.#older[slot] = this.#newest;
    if (this.#newest !== 0) this.#newer[this.#newest - 1] = slot + 1;
    else this.#oldest = slot + 1;
    this.#newest = slot + 1;
    this.size++;
  }

  /** Takes out a slot that is in the list. */
  remove(slot: number): void {
    const newer = this.#newer[slot] as number;
    const older = this.#older[slot] as number;
    if (older !== 0) this.#newer[older - 1] = newer;
    else this.#oldest = newer;
    if (newer !== 0) this.#older[newer - 1] = older;
    else this.#newest = older;
    this.size--;
  }
}
