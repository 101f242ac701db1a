import { BLOCK_BYTES, type Slab } from "../stack/memory/index.ts";

/** A block for a few bytes that are to be sent and must stay where they are until then. */
export class CopyArea {
  readonly #slab: Slab;
  readonly #block: number;
  #at: number;

  /** @throws RangeError when the slab has no block */
  constructor(slab: Slab) {
    this.#slab = slab;
    this.#block = slab.take();
    if (this.#block < 0) throw new RangeError("slab is too small for sockets");
    this.#at = this.#block;
  }

  /** Copies the first `length` of `bytes`; returns their slab offset, or -1 when there is no room. */
  copy(bytes: Uint8Array, length: number): number {
    if (this.#at + length > this.#block + BLOCK_BYTES) return -1;
    const at = this.#at;
    this.#slab.bytes.set(length === bytes.length ? bytes : bytes.subarray(0, length), at);
    this.#at = at + length;
    return at;
  }

  /** All of it was sent. */
  clear(): void {
    this.#at = this.#block;
  }

  close(): void {
    this.#slab.release(this.#block);
  }
}
