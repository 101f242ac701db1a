/** Flows by client address, for the limit on them. */
import { KeyTable } from "../flow/key-table.ts";

/** Words in the address of a source. */
export const SOURCE_WORDS = 4;

/** How many flows each client address has. */
export class SourceCounts {
  readonly #table: KeyTable;
  readonly #key: Int32Array = new Int32Array(SOURCE_WORDS);
  #counts: Int32Array;

  /** @param seed secret 32 bits, so that nobody can choose colliding addresses */
  constructor(seed: number) {
    this.#table = new KeyTable(SOURCE_WORDS, seed);
    this.#counts = new Int32Array(this.#table.capacity);
  }

  /** Addresses with flows. */
  get size(): number {
    return this.#table.size;
  }

  /** Flows of the address in the four words from `words[at]` on. */
  count(words: Int32Array, at: number): number {
    const slot = this.#find(words, at);
    return slot < 0 ? 0 : (this.#counts[slot] as number);
  }

  /** Counts one more flow of an address. */
  add(words: Int32Array, at: number): void {
    let slot = this.#find(words, at);
    if (slot < 0) {
      slot = this.#table.add(this.#key);
      if (slot >= this.#counts.length) {
        const counts = new Int32Array(this.#table.capacity);
        counts.set(this.#counts);
        this.#counts = counts;
      }
      this.#counts[slot] = 0;
    }
    this.#counts[slot] = (this.#counts[slot] as number) + 1;
  }

  /** Counts one flow less of an address that has one; the last one takes the address out. */
  remove(words: Int32Array, at: number): void {
    const slot = this.#find(words, at);
    const left = (this.#counts[slot] as number) - 1;
    this.#counts[slot] = left;
    if (left === 0) this.#table.remove(slot);
  }

  #find(words: Int32Array, at: number): number {
    for (let i = 0; i < SOURCE_WORDS; i++) this.#key[i] = words[at + i] as number;
    return this.#table.find(this.#key);
  }
}
