/**
 * In which order UDP associations make room for new ones: the source that holds most gives up the one it has not used
 * for longest. With one source that is plain least-recently-used; with several, nobody pushes out those who hold less.
 *
 *     by source   oldest <-> ... <-> newest     its associations, in order of use
 *     by count    sources that hold 1, 2, 3 ...  so that the one that holds most is found at once
 *
 * Everything is a list in integer arrays, doubly linked: each operation takes a few steps, however many there are.
 */
import { grown, KeyTable } from "../stack/flow/key-table.ts";

/** Words of a source: its address. */
const SOURCE_WORDS = 4;
const NONE = -1;

export class UdpOrder {
  readonly #sources: KeyTable;
  readonly #key: Int32Array = new Int32Array(SOURCE_WORDS);
  /** By association slot: neighbours in order of use, and its source. */
  #older: Int32Array = new Int32Array(0);
  #newer: Int32Array = new Int32Array(0);
  #sourceOf: Int32Array = new Int32Array(0);
  /** By source slot: both ends of its list, how many it holds, and its neighbours among those that hold as many. */
  #oldest: Int32Array = new Int32Array(0);
  #newest: Int32Array = new Int32Array(0);
  #count: Int32Array = new Int32Array(0);
  #before: Int32Array = new Int32Array(0);
  #after: Int32Array = new Int32Array(0);
  /** By count: the first source that holds as many. */
  readonly #first: Int32Array;
  #most = 0;

  /**
   * @param max most associations at a time
   * @param seed secret 32 bits for the table of sources
   */
  constructor(max: number, seed: number) {
    this.#sources = new KeyTable(SOURCE_WORDS, seed);
    this.#first = new Int32Array(max + 1).fill(NONE);
  }

  /** Sources that hold associations. */
  get sources(): number {
    return this.#sources.size;
  }

  /** A new association in `slot`, of the source whose address words begin `words`; it counts as used. */
  add(slot: number, words: Int32Array): void {
    if (slot >= this.#sourceOf.length) this.#growSlots(slot);
    this.#setKey(words);
    let source = this.#sources.find(this.#key);
    if (source < 0) {
      source = this.#sources.add(this.#key);
      if (source >= this.#count.length) this.#growSources();
      this.#oldest[source] = NONE;
      this.#newest[source] = NONE;
      this.#count[source] = 0;
    }
    this.#sourceOf[slot] = source;
    this.#append(source, slot);
    this.#setCount(source, (this.#count[source] as number) + 1);
  }

  /** The association in `slot` was used. */
  touch(slot: number): void {
    const source = this.#sourceOf[slot] as number;
    if (this.#newest[source] === slot) return;
    this.#unlink(source, slot);
    this.#append(source, slot);
  }

  remove(slot: number): void {
    const source = this.#sourceOf[slot] as number;
    this.#unlink(source, slot);
    const count = (this.#count[source] as number) - 1;
    this.#setCount(source, count);
    if (count === 0) this.#sources.remove(source);
  }

  /** Who makes room for one more association of the source in `words`; -1 when there is none at all. */
  victim(words: Int32Array): number {
    if (this.#most === 0) return NONE;
    this.#setKey(words);
    const own = this.#sources.find(this.#key);
    // Among those that hold most the newcomer's own source comes first: it would hold more than they do.
    const holdsMost = own >= 0 && this.#count[own] === this.#most;
    return this.#oldest[holdsMost ? own : (this.#first[this.#most] as number)] as number;
  }

  #setKey(words: Int32Array): void {
    for (let i = 0; i < SOURCE_WORDS; i++) this.#key[i] = words[i] as number;
  }

  /** Puts `slot` at the newest end of its source's list. */
  #append(source: number, slot: number): void {
    const last = this.#newest[source] as number;
    this.#older[slot] = last;
    this.#newer[slot] = NONE;
    if (last === NONE) this.#oldest[source] = slot;
    else this.#newer[last] = slot;
    this.#newest[source] = slot;
  }

  #unlink(source: number, slot: number): void {
    const older = this.#older[slot] as number;
    const newer = this.#newer[slot] as number;
    if (older === NONE) this.#oldest[source] = newer;
    else this.#newer[older] = newer;
    if (newer === NONE) this.#newest[source] = older;
    else this.#older[newer] = older;
  }

  /** Moves a source to those that hold `count`, one more or one less than before. */
  #setCount(source: number, count: number): void {
    const old = this.#count[source] as number;
    const first = this.#first;
    if (old > 0) {
      const before = this.#before[source] as number;
      const after = this.#after[source] as number;
      if (before === NONE) first[old] = after;
      else this.#after[before] = after;
      if (after !== NONE) this.#before[after] = before;
    }
    this.#count[source] = count;
    if (count > 0) {
      const head = first[count] as number;
      this.#before[source] = NONE;
      this.#after[source] = head;
      if (head !== NONE) this.#before[head] = source;
      first[count] = source;
    }
    if (count > this.#most) this.#most = count;
    else if (old === this.#most && first[old] === NONE) this.#most = count;
  }

  #growSlots(slot: number): void {
    const length = Math.max(64, 2 * this.#sourceOf.length, slot + 1);
    this.#older = grown(this.#older, length);
    this.#newer = grown(this.#newer, length);
    this.#sourceOf = grown(this.#sourceOf, length);
  }

  #growSources(): void {
    const length = this.#sources.capacity;
    this.#oldest = grown(this.#oldest, length);
    this.#newest = grown(this.#newest, length);
    this.#count = grown(this.#count, length);
    this.#before = grown(this.#before, length);
    this.#after = grown(this.#after, length);
  }
}
