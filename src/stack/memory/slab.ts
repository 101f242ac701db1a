/**
 * One block of memory for all packet bytes: an `ArrayBuffer` cut into counted blocks.
 *
 * A byte is named by its offset in the slab; whoever keeps bytes beyond the current call retains the block that holds
 * them and releases it later. A block returns to the free list when its count reaches zero. Nothing is ever resized:
 * the size of the slab is the limit on buffered bytes of everything that shares it.
 */

export const BLOCK_SHIFT = 18;
/** Bytes in a block: room for four super-segments of 64 KiB packed one after the other. */
export const BLOCK_BYTES: number = 1 << BLOCK_SHIFT;
/** Default size, bytes. Virtual: pages are touched only when used. */
export const DEFAULT_SLAB_BYTES: number = 256 << 20;
/** With fewer free blocks than this, nothing new may be kept (see `scarce`). */
const SCARCE_BLOCKS = 8;
/** What a flow may hold when free memory begins to be short, bytes (see `fairShare`). */
const SHORT_SHARE = 32 * 1024;

/** Views on one `ArrayBuffer`, as the wire formats read and write it. */
export interface Memory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** 32-bit words in host order; for descriptors and checksums. */
  readonly words: Int32Array;
}

/** Counted blocks of packet memory. */
export class Slab implements Memory {
  readonly buffer: ArrayBuffer;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly words: Int32Array;
  /** Number of blocks. */
  readonly blocks: number;
  readonly #counts: Int32Array;
  readonly #free: Int32Array;
  #freeCount: number;
  readonly #scarceBelow: number;
  readonly #shortBelow: number;
  /** Whether each block holds small copies. */
  readonly #isStore: Uint8Array;
  /** The block that small copies are packed into, -1 when there is none, and where the next one goes. */
  #store = -1;
  #storeAt = 0;

  /** @param bytes size, rounded up to whole blocks; at least 8 blocks, half of which a stack needs for itself */
  constructor(bytes: number = DEFAULT_SLAB_BYTES) {
    const blocks = Math.max(8, Math.ceil(bytes / BLOCK_BYTES));
    if (!(blocks <= 0x7fffffff / BLOCK_BYTES)) {
      throw new RangeError(`slab of ${bytes} bytes is too large: offsets are 31 bits, so at most ${2 ** 31 - 1}`);
    }
    this.blocks = blocks;
    this.buffer = new ArrayBuffer(blocks * BLOCK_BYTES);
    this.bytes = new Uint8Array(this.buffer);
    this.view = new DataView(this.buffer);
    this.words = new Int32Array(this.buffer);
    this.#counts = new Int32Array(blocks);
    this.#free = new Int32Array(blocks);
    this.#isStore = new Uint8Array(blocks);
    this.#freeCount = blocks;
    this.#scarceBelow = Math.max(1, Math.min(SCARCE_BLOCKS, blocks >> 5));
    this.#shortBelow = blocks >> 1;
    for (let i = 0; i < blocks; i++) this.#free[i] = blocks - 1 - i;
  }

  /** Number of free blocks. */
  get available(): number {
    return this.#freeCount;
  }

  /** Whether so few blocks are free that receivers must not keep new payload and windows must not open. */
  get scarce(): boolean {
    return this.#freeCount < this.#scarceBelow;
  }

  /** Whether more than half is in use: then a flow that holds its `fairShare` must not keep more. */
  get short(): boolean {
    return this.#freeCount < this.#shortBelow;
  }

  /**
   * How much one flow may hold now, bytes: `SHORT_SHARE` and an eighth of what is free beyond the last half. While
   * memory is plentiful this is more than any buffer; as it fills, everybody's share shrinks. The last half is for
   * flows that move: of it the share falls with the square of what is left, so that flows that wait, be they many
   * hundreds, never take all of it.
   */
  get fairShare(): number {
    const spare = this.#freeCount - this.#shortBelow;
    if (spare >= 0) return SHORT_SHARE + spare * (BLOCK_BYTES / 8);
    return Math.floor(SHORT_SHARE * (this.#freeCount / this.#shortBelow) ** 2);
  }

  /** Takes a free block and returns the offset of its first byte, with a count of one; -1 when none is free. */
  take(): number {
    if (this.#freeCount === 0) return -1;
    const block = this.#free[--this.#freeCount] as number;
    this.#counts[block] = 1;
    this.#isStore[block] = 0;
    return block << BLOCK_SHIFT;
  }

  /** Adds a reference to the block that holds `offset`. */
  retain(offset: number): void {
    const block = offset >> BLOCK_SHIFT;
    this.#counts[block] = (this.#counts[block] as number) + 1;
  }

  /** Gives back a reference to the block that holds `offset`. */
  release(offset: number): void {
    const block = offset >> BLOCK_SHIFT;
    const count = (this.#counts[block] as number) - 1;
    if (count < 0) throw new Error(`block ${block} released more often than retained`);
    this.#counts[block] = count;
    if (count === 0) this.#free[this.#freeCount++] = block;
  }

  /** Whether the block that holds `offset` is one of small copies: what stands there need not be copied again. */
  isCopy(offset: number): boolean {
    return this.#isStore[offset >> BLOCK_SHIFT] === 1;
  }

  /** References to the block that holds `offset`. */
  count(offset: number): number {
    return this.#counts[offset >> BLOCK_SHIFT] as number;
  }

  /**
   * Copies a small run of bytes out of a big block into a shared one, so that a few bytes that are held for long do not
   * pin 256 KiB. The caller owns one reference to the result. Returns -1 when no block is free.
   */
  copyOut(offset: number, length: number): number {
    const at = this.#reserveInStore(length);
    if (at >= 0) this.bytes.copyWithin(at, offset, offset + length);
    return at;
  }

  /**
   * Copies bytes from outside into the block for small copies. The caller owns one reference to the result. Returns -1
   * when no block is free.
   */
  copyIn(source: Uint8Array): number {
    const at = this.#reserveInStore(source.length);
    if (at >= 0) this.bytes.set(source, at);
    return at;
  }

  /** Finds `length` bytes in the block for small copies, and retains it. */
  #reserveInStore(length: number): number {
    if (this.#store < 0 || this.#storeAt + length > this.#store + BLOCK_BYTES) {
      const block = this.take();
      if (block < 0) return -1;
      if (this.#store >= 0) this.release(this.#store);
      this.#store = block;
      this.#storeAt = block;
      this.#isStore[block >> BLOCK_SHIFT] = 1;
    } else if (this.count(this.#store) === 1) {
      this.#storeAt = this.#store;
    }
    const at = this.#storeAt;
    this.#storeAt = at + length;
    this.retain(at);
    return at;
  }

  /** Gives back the block kept for small copies, when nothing else refers to it. For the end of tests and stacks. */
  trim(): void {
    if (this.#store < 0) return;
    this.release(this.#store);
    this.#store = -1;
  }
}
