/**
 * Memory of fragments that wait for others: cells of a fixed size in blocks of the slab, so that a fragment of a few
 * bytes holds one cell and no block to itself. The blocks go back when nothing waits.
 */
import { BLOCK_BYTES, type Slab } from "../memory/slab.ts";

/** Holds a fragment of an Ethernet packet, for either version. */
export const CELL_BYTES = 1536;
const CELLS_PER_BLOCK = Math.floor(BLOCK_BYTES / CELL_BYTES);
/** Most blocks: 4 MiB, as Linux allows its fragments, and no more than a sixteenth of the slab. */
const MAX_BLOCKS = 16;

/** A pool of cells. Cell numbers start at 1; 0 is none. */
export class FragmentCells {
  /** Most cells there can be. */
  readonly capacity: number;
  readonly #slab: Slab;
  readonly #maxBlocks: number;
  readonly #blocks: number[] = [];
  /** The next cell of the same datagram, or of the free list. */
  readonly next: Int32Array;
  /** Where the bytes of a cell stand in the datagram, and how many they are. */
  readonly at: Int32Array;
  readonly length: Int32Array;
  /** End of the fragment that begins with this cell; 0 when it is a later part. */
  readonly fragmentEnd: Int32Array;
  #free = 0;
  /** Cells in use. */
  used = 0;

  constructor(slab: Slab) {
    this.#slab = slab;
    this.#maxBlocks = Math.max(1, Math.min(MAX_BLOCKS, slab.blocks >> 4));
    this.capacity = this.#maxBlocks * CELLS_PER_BLOCK;
    this.next = new Int32Array(this.capacity + 1);
    this.at = new Int32Array(this.capacity + 1);
    this.length = new Int32Array(this.capacity + 1);
    this.fragmentEnd = new Int32Array(this.capacity + 1);
  }

  /** Slab offset of a cell. */
  offset(cell: number): number {
    const index = cell - 1;
    const block = Math.floor(index / CELLS_PER_BLOCK);
    return (this.#blocks[block] as number) + (index - block * CELLS_PER_BLOCK) * CELL_BYTES;
  }

  /** Takes a cell for `length` bytes from slab `from`, which stand at `at` in the datagram; 0 when there is none. */
  take(from: number, length: number, at: number, fragmentEnd: number): number {
    if (this.#free === 0 && !this.#addBlock()) return 0;
    const cell = this.#free;
    this.#free = this.next[cell] as number;
    this.used++;
    this.next[cell] = 0;
    this.at[cell] = at;
    this.length[cell] = length;
    this.fragmentEnd[cell] = fragmentEnd;
    this.#slab.bytes.copyWithin(this.offset(cell), from, from + length);
    return cell;
  }

  /** Gives back the list of cells that begins with `first`; returns how many they were. */
  release(first: number): number {
    let count = 0;
    for (let cell = first; cell !== 0; count++) {
      const next = this.next[cell] as number;
      this.next[cell] = this.#free;
      this.#free = cell;
      cell = next;
    }
    this.used -= count;
    return count;
  }

  #addBlock(): boolean {
    if (this.#blocks.length === this.#maxBlocks || this.#slab.scarce) return false;
    const block = this.#slab.take();
    if (block < 0) return false;
    const first = this.#blocks.length * CELLS_PER_BLOCK + 1;
    this.#blocks.push(block);
    for (let cell = first + CELLS_PER_BLOCK - 1; cell >= first; cell--) {
      this.next[cell] = this.#free;
      this.#free = cell;
    }
    return true;
  }

  /** Gives all blocks back; no cell may be in use. */
  releaseBlocks(): void {
    for (const block of this.#blocks) this.#slab.release(block);
    this.#blocks.length = 0;
    this.#free = 0;
  }
}
