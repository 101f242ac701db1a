export { ChunkPool, NIL, SMALL_RUN } from "./chunks.ts";
export { InputBlock } from "./input-block.ts";
export { BATCH_PACKETS, ChecksumState, ReceiveBatch } from "./receive-batch.ts";
export { BLOCK_BYTES, BLOCK_SHIFT, DEFAULT_SLAB_BYTES, type Memory, Slab } from "./slab.ts";
export { HEADROOM, MAX_INLINE_BYTES, MAX_PAYLOAD_REFS, QUEUE_PACKETS, TransmitQueue } from "./transmit-queue.ts";
