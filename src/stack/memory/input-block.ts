import { BLOCK_BYTES, type Slab } from "./slab.ts";

/**
 * The block that a source (the device, the sockets) reads into, packed one read after the other.
 *
 * ```
 *  offset            position                 limit
 *    |  kept or done    |   room for the next   |
 * ```
 */
export class InputBlock {
  readonly slab: Slab;
  /** First byte of the current block, or -1. */
  offset = -1;
  /** Where the next read goes. */
  position = 0;
  /** Blocks that must stay free for others; this source stops when fewer are left. */
  readonly #reserve: number;

  constructor(slab: Slab, reserve: number) {
    this.slab = slab;
    this.#reserve = reserve;
  }

  /** End of the current block. */
  get limit(): number {
    return this.offset + BLOCK_BYTES;
  }

  /**
   * Makes sure that `room` bytes are free at `position`, taking a new block when they are not.
   * @returns false when the slab has no block to give: the source must wait.
   */
  prepare(room: number): boolean {
    if (this.offset >= 0) {
      // Nobody kept anything: start over where the cache is warm.
      if (this.slab.count(this.offset) === 1) this.position = this.offset;
      if (this.limit - this.position >= room) return true;
    }
    if (this.slab.available <= this.#reserve) return false;
    const block = this.slab.take();
    if (block < 0) return false;
    if (this.offset >= 0) this.slab.release(this.offset);
    this.offset = block;
    this.position = block;
    return true;
  }

  /** Moves `position` to `end`, rounded up to 8. */
  advanceTo(end: number): void {
    this.position = (end + 7) & ~7;
  }

  /** Gives the block back. */
  close(): void {
    if (this.offset >= 0) this.slab.release(this.offset);
    this.offset = -1;
  }
}
