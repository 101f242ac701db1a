/** Selective acknowledgments to the peer (RFC 2018 §3, §4). */
import { NIL } from "../memory/chunks.ts";
import { emitSackOption } from "../wire/tcp.ts";
import type { TcpContext } from "./context.ts";
import { seqAdd, seqLeq, seqLt } from "./seq.ts";
import type { Tcb } from "./tcb.ts";

/** Edges of the block found last by `findBlock`. */
const block = { left: 0, right: 0 };

/** Finds the run of contiguous bytes that holds `seq`, into `block`. */
function findBlock(ctx: TcpContext, tcb: Tcb, seq: number): boolean {
  const { chunks } = ctx;
  let node = tcb.oooHead;
  while (node !== NIL) {
    const left = chunks.seq(node);
    let right = seqAdd(left, chunks.length(node));
    node = chunks.next(node);
    while (node !== NIL && chunks.seq(node) === right) {
      right = seqAdd(right, chunks.length(node));
      node = chunks.next(node);
    }
    if (seqLt(seq, right)) {
      if (seqLt(seq, left)) return false;
      block.left = left;
      block.right = right;
      return true;
    }
  }
  return false;
}

function recent(tcb: Tcb, i: number): number {
  return i === 0 ? tcb.sackSeq0 : i === 1 ? tcb.sackSeq1 : i === 2 ? tcb.sackSeq2 : tcb.sackSeq3;
}

function setRecent(tcb: Tcb, i: number, seq: number): void {
  if (i === 0) tcb.sackSeq0 = seq;
  else if (i === 1) tcb.sackSeq1 = seq;
  else if (i === 2) tcb.sackSeq2 = seq;
  else tcb.sackSeq3 = seq;
}

const kept = new Int32Array(4);

/**
 * Notes that the segment starting at `seq` arrived out of order: its block is reported first from now on, the others
 * keep their order (RFC 2018 §4).
 */
export function noteOutOfOrder(ctx: TcpContext, tcb: Tcb, seq: number): void {
  if (!tcb.sackPermitted || !findBlock(ctx, tcb, seq)) return;
  let count = 0;
  for (let i = 0; i < tcb.sackCount && count < 3; i++) {
    const other = recent(tcb, i);
    const inNewBlock = seqLeq(block.left, other) && seqLt(other, block.right);
    if (!inNewBlock && seqLt(tcb.rcvNxt, other)) kept[count++] = other;
  }
  setRecent(tcb, 0, seq);
  for (let i = 0; i < count; i++) setRecent(tcb, i + 1, kept[i] as number);
  tcb.sackCount = count + 1;
}

/** Forgets the blocks that have come into sequence: reporting another one twice would look like a D-SACK (RFC 2883). */
export function forgetDelivered(tcb: Tcb): void {
  let count = 0;
  for (let i = 0; i < tcb.sackCount; i++) {
    const seq = recent(tcb, i);
    if (seqLt(tcb.rcvNxt, seq)) setRecent(tcb, count++, seq);
  }
  tcb.sackCount = count;
}

/** Length of the SACK option that `emitSack` would write with `room` bytes of option space; 0 for none. */
export function sackOptionLength(tcb: Tcb, room: number): number {
  if (tcb.oooHead === NIL || tcb.sackCount === 0) return 0;
  const blocks = Math.min(tcb.sackCount, (room - 4) >> 3);
  return blocks <= 0 ? 0 : 4 + 8 * blocks;
}

/**
 * Writes the SACK option of `length` bytes at `at`.
 */
export function emitSack(ctx: TcpContext, tcb: Tcb, at: number, length: number): number {
  const { view } = ctx.slab;
  const blocks = (length - 4) >> 3;
  let edge = emitSackOption(ctx.slab, at, blocks);
  for (let i = 0; i < blocks; i++) {
    findBlock(ctx, tcb, recent(tcb, i));
    view.setInt32(edge, block.left);
    view.setInt32(edge + 4, block.right);
    edge += 8;
  }
  return edge;
}
