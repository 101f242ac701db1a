/** Doubly linked lists of small integers, oldest first: each slot stands in one list at most. No objects. */
export class SlotLists {
  readonly #first: Int32Array;
  readonly #last: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;

  /** @param lists number of lists @param slots slots are below this */
  constructor(lists: number, slots: number) {
    this.#first = new Int32Array(lists).fill(-1);
    this.#last = new Int32Array(lists).fill(-1);
    this.#next = new Int32Array(slots).fill(-1);
    this.#previous = new Int32Array(slots).fill(-1);
  }

  /** The slot that was appended first, or -1. */
  first(list: number): number {
    return this.#first[list] as number;
  }

  append(list: number, slot: number): void {
    const last = this.#last[list] as number;
    this.#previous[slot] = last;
    this.#next[slot] = -1;
    if (last < 0) this.#first[list] = slot;
    else this.#next[last] = slot;
    this.#last[list] = slot;
  }

  remove(list: number, slot: number): void {
    const previous = this.#previous[slot] as number;
    const next = this.#next[slot] as number;
    if (previous < 0) this.#first[list] = next;
    else this.#next[previous] = next;
    if (next < 0) this.#last[list] = previous;
    else this.#previous[next] = previous;
  }
}
