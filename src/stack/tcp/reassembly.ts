/** Bytes beyond RCV.NXT: a sorted list of disjoint runs (RFC 9293 §3.10.7.4, seventh step, SHLD-31). */
import { NIL, SMALL_RUN } from "../memory/chunks.ts";
import { Drop } from "../wire/drop.ts";
import type { TcpContext } from "./context.ts";
import { seqAdd, seqDiff, seqLeq, seqLt } from "./seq.ts";
import type { Tcb } from "./tcb.ts";

/** Most runs a flow may hold: a 2 MiB window in segments of 1 KiB. Bounds the walk that finds a place. */
const MAX_RUNS = 2048;

/**
 * Keeps `length` bytes at slab `offset` that start at sequence number `seq`, beyond RCV.NXT. Where they overlap what is
 * held already, the bytes that came first stay.
 */
export function insertOutOfOrder(ctx: TcpContext, tcb: Tcb, seq: number, offset: number, length: number): void {
  const { chunks } = ctx;
  let previous: number = NIL;
  let node = tcb.oooHead;
  if (tcb.oooTail !== NIL && seqLeq(endOf(ctx, tcb.oooTail), seq)) {
    previous = tcb.oooTail;
    node = NIL;
  }
  while (node !== NIL && seqLeq(endOf(ctx, node), seq)) {
    previous = node;
    node = chunks.next(node);
  }
  let from = seq;
  let at = offset;
  let left = length;
  while (left > 0) {
    const gap = node === NIL ? left : seqDiff(chunks.seq(node), from);
    if (gap > 0) {
      const run = Math.min(gap, left);
      if (tcb.oooCount >= MAX_RUNS) {
        ctx.drop(Drop.tcpMemory);
        return;
      }
      previous = link(ctx, tcb, previous, node, from, at, run);
      from = seqAdd(from, run);
      at += run;
      left -= run;
      if (left === 0) break;
    }
    const overlap = seqDiff(endOf(ctx, node), from);
    if (overlap >= left) break;
    from = seqAdd(from, overlap);
    at += overlap;
    left -= overlap;
    previous = node;
    node = chunks.next(node);
  }
}

function link(
  ctx: TcpContext,
  tcb: Tcb,
  previous: number,
  next: number,
  seq: number,
  offset: number,
  length: number,
): number {
  const { chunks, slab } = ctx;
  const copy = length <= SMALL_RUN ? slab.copyOut(offset, length) : -1;
  const node = chunks.add(copy >= 0 ? copy : offset, length, seq);
  if (copy >= 0) slab.release(copy);
  chunks.setNext(node, next);
  if (previous === NIL) tcb.oooHead = node;
  else chunks.setNext(previous, node);
  if (next === NIL) tcb.oooTail = node;
  tcb.oooCount++;
  tcb.oooBytes += length;
  ctx.bytesBuffered += length;
  return node;
}

/** Whether bytes from RCV.NXT to `end` overlap what is held, and there is room to fill the gaps in front of it. */
export function overlapsHeld(ctx: TcpContext, tcb: Tcb, end: number): boolean {
  return tcb.oooHead !== NIL && seqLt(ctx.chunks.seq(tcb.oooHead), end) && tcb.oooCount < MAX_RUNS;
}

/** Moves what has come into sequence from the list to the receive queue and advances RCV.NXT. */
export function deliverInOrder(ctx: TcpContext, tcb: Tcb): void {
  const { chunks } = ctx;
  while (tcb.oooHead !== NIL) {
    const node = tcb.oooHead;
    const ahead = seqDiff(tcb.rcvNxt, chunks.seq(node));
    if (ahead < 0) return;
    const length = chunks.length(node);
    tcb.oooHead = chunks.next(node);
    if (tcb.oooHead === NIL) tcb.oooTail = NIL;
    tcb.oooCount--;
    tcb.oooBytes -= length;
    if (ahead >= length) {
      ctx.bytesBuffered -= length;
      chunks.remove(node);
      continue;
    }
    if (ahead > 0) chunks.trimFront(node, ahead);
    ctx.bytesBuffered -= ahead;
    appendReceived(ctx, tcb, node);
    tcb.rcvQueued += length - ahead;
    tcb.rcvNxt = seqAdd(tcb.rcvNxt, length - ahead);
  }
}

/** Links a node at the end of the receive queue. */
export function appendReceived(ctx: TcpContext, tcb: Tcb, node: number): void {
  ctx.chunks.setNext(node, NIL);
  if (tcb.rcvTail === NIL) tcb.rcvHead = node;
  else ctx.chunks.setNext(tcb.rcvTail, node);
  tcb.rcvTail = node;
}

/** Sequence number behind the run of a node. */
export function endOf(ctx: TcpContext, node: number): number {
  return seqAdd(ctx.chunks.seq(node), ctx.chunks.length(node));
}
