import { BLOCK_SHIFT, type Slab } from "./slab.ts";

/** Runs up to this length are copied together when they have to wait, so that they do not pin big blocks. */
export const SMALL_RUN = 4096;

/** No chunk: the end of a list. */
export const NIL = 0;
const STRIDE = 4;
const OFFSET = 0;
const LENGTH = 1;
const NEXT = 2;
const SEQ = 3;

/**
 * List nodes for queues of byte runs in the slab: `[offset, length, next, seq]` in one integer array shared by all
 * flows, so that an empty queue costs nothing. A node holds one reference to the block of its bytes.
 */
export class ChunkPool {
  readonly slab: Slab;
  #nodes: Int32Array = new Int32Array(STRIDE * 1024);
  #free: number = NIL;
  #used = 1; // node 0 is NIL
  #live = 0;

  constructor(slab: Slab) {
    this.slab = slab;
  }

  /** Nodes in use. */
  get live(): number {
    return this.#live;
  }

  /** Makes a node for `length` bytes at `offset`, and retains their block. */
  add(offset: number, length: number, seq: number): number {
    let node = this.#free;
    if (node !== NIL) {
      this.#free = this.#nodes[node * STRIDE + NEXT] as number;
    } else {
      node = this.#used++;
      if (this.#used * STRIDE > this.#nodes.length) {
        const grown = new Int32Array(this.#nodes.length * 2);
        grown.set(this.#nodes);
        this.#nodes = grown;
      }
    }
    const at = node * STRIDE;
    this.#nodes[at + OFFSET] = offset;
    this.#nodes[at + LENGTH] = length;
    this.#nodes[at + NEXT] = NIL;
    this.#nodes[at + SEQ] = seq;
    this.slab.retain(offset);
    this.#live++;
    return node;
  }

  /** Frees a node and its reference; returns the node behind it. */
  remove(node: number): number {
    const at = node * STRIDE;
    const next = this.#nodes[at + NEXT] as number;
    this.slab.release(this.#nodes[at + OFFSET] as number);
    this.#nodes[at + NEXT] = this.#free;
    this.#free = node;
    this.#live--;
    return next;
  }

  /** Frees a whole list. */
  removeAll(head: number): void {
    let node = head;
    while (node !== NIL) node = this.remove(node);
  }

  offset(node: number): number {
    return this.#nodes[node * STRIDE + OFFSET] as number;
  }

  length(node: number): number {
    return this.#nodes[node * STRIDE + LENGTH] as number;
  }

  next(node: number): number {
    return this.#nodes[node * STRIDE + NEXT] as number;
  }

  seq(node: number): number {
    return this.#nodes[node * STRIDE + SEQ] as number;
  }

  setNext(node: number, next: number): void {
    this.#nodes[node * STRIDE + NEXT] = next;
  }

  /** Drops `count` bytes at the front of a node's run; its sequence number moves along. */
  trimFront(node: number, count: number): void {
    const at = node * STRIDE;
    // A run never leaves its block, so the reference stays right; an empty run would, hence the caller removes it.
    this.#nodes[at + OFFSET] = (this.#nodes[at + OFFSET] as number) + count;
    this.#nodes[at + LENGTH] = (this.#nodes[at + LENGTH] as number) - count;
    this.#nodes[at + SEQ] = ((this.#nodes[at + SEQ] as number) + count) | 0;
  }

  /**
   * Lengthens a node by `length` bytes at `offset` when they stand right behind its run, in the same block.
   * @returns false when they stand elsewhere
   */
  extend(node: number, offset: number, length: number): boolean {
    const at = node * STRIDE;
    const start = this.#nodes[at + OFFSET] as number;
    const held = this.#nodes[at + LENGTH] as number;
    if (start + held !== offset || start >> BLOCK_SHIFT !== offset >> BLOCK_SHIFT) return false;
    this.#nodes[at + LENGTH] = held + length;
    return true;
  }

  /**
   * Makes a node for a small run that has to wait, from a copy of it, or lengthens `tail` when the copy stands right
   * behind it. Returns the node that ends the list now; without memory for a copy the run is kept where it is.
   * @param tail the end of the list so far, or NIL
   */
  addCopy(tail: number, offset: number, length: number, seq: number): number {
    const copy = this.slab.copyOut(offset, length);
    if (copy < 0) return this.add(offset, length, seq);
    let node = tail;
    if (tail === NIL || !this.extend(tail, copy, length)) node = this.add(copy, length, seq);
    this.slab.release(copy);
    return node;
  }

  /** Moves small runs into the slab's block for copies: for a list that has to wait after all. */
  compact(head: number): void {
    for (let node = head; node !== NIL; node = this.next(node)) {
      const length = this.length(node);
      const from = this.offset(node);
      if (length > SMALL_RUN || this.slab.isCopy(from)) continue;
      const to = this.slab.copyOut(from, length);
      if (to < 0) return;
      this.slab.release(from);
      this.#nodes[node * STRIDE + OFFSET] = to;
    }
  }
}
