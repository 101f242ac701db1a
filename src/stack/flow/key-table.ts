/**
 * A hash table from keys of a fixed number of 32-bit words to small integers ("slots") that index everything else about
 * a flow. Open addressing with linear probing and backward-shift deletion: no tombstones, no objects, no strings.
 */

const MIN_SLOTS = 64;

export class KeyTable {
  readonly #keyWords: number;
  readonly #seed: number;
  #keys: Int32Array;
  #hashes: Int32Array;
  #generations: Int32Array;
  /** Slot + 1 by bucket, 0 when empty; twice as many buckets as slots. */
  #buckets: Int32Array;
  #mask: number;
  /** Free slots, linked through `#hashes`; -1 ends the list. */
  #freeHead = -1;
  #used = 0;
  /** Keys in the table. */
  size = 0;

  /**
   * @param keyWords words in a key
   * @param seed secret 32 bits, so that nobody can choose colliding keys
   */
  constructor(keyWords: number, seed: number) {
    this.#keyWords = keyWords;
    this.#seed = seed | 0;
    this.#keys = new Int32Array(MIN_SLOTS * keyWords);
    this.#hashes = new Int32Array(MIN_SLOTS);
    this.#generations = new Int32Array(MIN_SLOTS);
    this.#buckets = new Int32Array(MIN_SLOTS * 2);
    this.#mask = MIN_SLOTS * 2 - 1;
  }

  /** The words of all keys: those of slot `s` start at `s * keyWords`. Replaced when the table grows: do not keep it. */
  get keys(): Int32Array {
    return this.#keys;
  }

  /** Slots that exist, in use or free: the length that side arrays need. */
  get capacity(): number {
    return this.#hashes.length;
  }

  /** How often `slot` was given away; tells a new flow in an old slot apart. */
  generation(slot: number): number {
    return this.#generations[slot] as number;
  }

  /** Returns the slot of `key`, or -1. */
  find(key: Int32Array): number {
    const hash = this.#hash(key);
    const buckets = this.#buckets;
    for (let bucket = hash & this.#mask; ; bucket = (bucket + 1) & this.#mask) {
      const slot = (buckets[bucket] as number) - 1;
      if (slot < 0) return -1;
      if (this.#hashes[slot] === hash && this.#equals(slot, key)) return slot;
    }
  }

  /** Adds a key that is not in the table and returns its slot. */
  add(key: Int32Array): number {
    const hash = this.#hash(key);
    let slot = this.#freeHead;
    if (slot >= 0) {
      this.#freeHead = this.#hashes[slot] as number;
    } else {
      if (this.#used === this.#hashes.length) this.#grow();
      slot = this.#used++;
    }
    this.#keys.set(key, slot * this.#keyWords);
    this.#hashes[slot] = hash;
    this.#generations[slot] = ((this.#generations[slot] as number) + 1) | 0;
    this.size++;
    this.#link(slot, hash);
    return slot;
  }

  /** Removes the key in `slot`; the slot may be given away again. */
  remove(slot: number): void {
    const buckets = this.#buckets;
    const mask = this.#mask;
    let hole = (this.#hashes[slot] as number) & mask;
    while (buckets[hole] !== slot + 1) hole = (hole + 1) & mask;
    // Move later entries of the same run back over the hole, but never in front of where they belong.
    for (let next = (hole + 1) & mask; ; next = (next + 1) & mask) {
      const other = (buckets[next] as number) - 1;
      if (other < 0) break;
      const home = (this.#hashes[other] as number) & mask;
      if (((next - home) & mask) >= ((next - hole) & mask)) {
        buckets[hole] = other + 1;
        hole = next;
      }
    }
    buckets[hole] = 0;
    this.#hashes[slot] = this.#freeHead;
    this.#freeHead = slot;
    this.size--;
  }

  #link(slot: number, hash: number): void {
    let bucket = hash & this.#mask;
    while (this.#buckets[bucket] !== 0) bucket = (bucket + 1) & this.#mask;
    this.#buckets[bucket] = slot + 1;
  }

  #equals(slot: number, key: Int32Array): boolean {
    const keys = this.#keys;
    const at = slot * this.#keyWords;
    for (let i = 0; i < this.#keyWords; i++) if (keys[at + i] !== key[i]) return false;
    return true;
  }

  #hash(key: Int32Array): number {
    let hash = this.#seed;
    for (let i = 0; i < this.#keyWords; i++) {
      hash = Math.imul(hash ^ (key[i] as number), 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    hash = Math.imul(hash, 0x85ebca6b);
    return hash ^ (hash >>> 13);
  }

  #grow(): void {
    const slots = this.#hashes.length * 2;
    this.#keys = grown(this.#keys, slots * this.#keyWords);
    this.#hashes = grown(this.#hashes, slots);
    this.#generations = grown(this.#generations, slots);
    const old = this.#buckets;
    this.#buckets = new Int32Array(slots * 2);
    this.#mask = slots * 2 - 1;
    for (const entry of old) if (entry !== 0) this.#link(entry - 1, this.#hashes[entry - 1] as number);
  }
}

/** A copy of `array` with room for `length` entries. */
export function grown(array: Int32Array, length: number): Int32Array {
  const copy = new Int32Array(length);
  copy.set(array);
  return copy;
}
