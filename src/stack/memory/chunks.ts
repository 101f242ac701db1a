import { BLOCK_SHIFT, type Slab } from "./slab.ts";

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
   * Moves runs of at most `limit` bytes into the slab's block for small copies, so that a list that has to wait
   * does not pin big blocks.
   */
  compact(head: number, limit: number): void {
    for (let node = head; node !== NIL; node = this.next(node)) {
      const length = this.length(node);
      if (length > limit) continue;
      const from = this.offset(node);
      const to = this.slab.copyOut(from, length);
      if (to < 0) return;
      this.slab.release(from);
      this.#nodes[node * STRIDE + OFFSET] = to;
    }
  }
}
