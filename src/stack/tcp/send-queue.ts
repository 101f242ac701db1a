/** Bytes on their way to the client: kept as slab references from SND.UNA on until they are acknowledged. */
import { NIL, SMALL_RUN } from "../memory/chunks.ts";
import { MAX_PAYLOAD_REFS, type TransmitQueue } from "../memory/transmit-queue.ts";
import type { TcpContext } from "./context.ts";
import type { Tcb } from "./tcb.ts";

/** Bytes a flow's send queue may hold now: the send buffer, or its share when memory is short. */
export function sendLimit(ctx: TcpContext): number {
  return Math.min(ctx.settings.sendBuffer, ctx.slab.fairShare);
}

/** Appends `length` bytes at slab `offset` to the queue; their block is retained. */
export function appendToSendQueue(ctx: TcpContext, tcb: Tcb, offset: number, length: number): void {
  const { chunks } = ctx;
  let at = 0;
  const tail = tcb.sndTail;
  let node = tail;
  // Small writes may stand one behind the other in their block: one node serves them all. Otherwise a small run behind
  // others is copied, because it may wait for long.
  if (tail === NIL || !chunks.extend(tail, offset, length)) {
    const mayWait = tail !== NIL && length <= SMALL_RUN;
    node = mayWait ? chunks.addCopy(tail, offset, length, 0) : chunks.add(offset, length, 0);
  }
  if (node === tail) {
    at = chunks.length(tail) - length;
  } else {
    if (tail === NIL) tcb.sndHead = node;
    else chunks.setNext(tail, node);
    tcb.sndTail = node;
  }
  if (tcb.sndCursor === NIL) {
    tcb.sndCursor = tcb.sndTail;
    tcb.sndCursorAt = at;
  }
  tcb.sndQueued += length;
  ctx.bytesBuffered += length;
}

/** How many of `want` bytes from `node` on, `at` bytes into it, fit into the references of one packet. */
export function gatherable(ctx: TcpContext, node: number, at: number, want: number): number {
  const { chunks } = ctx;
  let length = -at;
  let current = node;
  for (let refs = 0; refs < MAX_PAYLOAD_REFS && current !== NIL; refs++) {
    length += chunks.length(current);
    if (length >= want) return want;
    current = chunks.next(current);
  }
  return length;
}

/** Where `gather` stopped: the chunk and the offset in it of the next byte. */
export const gathered = { node: NIL as number, at: 0 };

/** Adds `length` bytes from `node` on, `at` bytes into it, to the packet being built, and notes the end in `gathered`. */
export function gather(ctx: TcpContext, queue: TransmitQueue, node: number, at: number, length: number): void {
  const { chunks } = ctx;
  let current = node;
  let skip = at;
  let left = length;
  while (left > 0) {
    const run = chunks.length(current) - skip;
    const take = run < left ? run : left;
    queue.addPayload(chunks.offset(current) + skip, take);
    left -= take;
    if (take === run) {
      current = chunks.next(current);
      skip = 0;
    } else {
      skip += take;
    }
  }
  gathered.node = current;
  gathered.at = skip;
}

/** Drops `count` acknowledged bytes from the front. The cursor is the caller's matter when it was behind them. */
export function dropAcknowledged(ctx: TcpContext, tcb: Tcb, count: number): void {
  const { chunks } = ctx;
  let left = count;
  while (left > 0) {
    const head = tcb.sndHead;
    const length = chunks.length(head);
    if (length > left) {
      chunks.trimFront(head, left);
      if (tcb.sndCursor === head) tcb.sndCursorAt = Math.max(0, tcb.sndCursorAt - left);
      break;
    }
    if (tcb.sndCursor === head) {
      tcb.sndCursor = chunks.next(head);
      tcb.sndCursorAt = 0;
    }
    tcb.sndHead = chunks.remove(head);
    left -= length;
  }
  if (tcb.sndHead === NIL) tcb.sndTail = NIL;
  tcb.sndQueued -= count;
  ctx.bytesBuffered -= count;
}

/** Puts the cursor back to SND.UNA: everything unacknowledged may be sent again. */
export function rewindCursor(tcb: Tcb): void {
  tcb.sndCursor = tcb.sndHead;
  tcb.sndCursorAt = 0;
}
