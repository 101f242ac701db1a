/** Packets that a device has read into the slab, described by columns of integers. */

/** What the device says about the L4 checksum of a packet it read. */
export const ChecksumState = {
  /** Complete in the packet: to be verified. */
  unverified: 0,
  /** Verified by the device, or never computed because the sender is on this machine: not to be looked at. */
  trusted: 1,
} as const;
export type ChecksumState = (typeof ChecksumState)[keyof typeof ChecksumState];

/** Most packets in one batch: bounds the work of one turn. */
export const BATCH_PACKETS = 128;

/** A reusable batch of received packets. */
export class ReceiveBatch {
  /** Packets in the batch. */
  count = 0;
  /** Slab offset of each IP header. */
  readonly start: Int32Array = new Int32Array(BATCH_PACKETS);
  /** Slab offset behind each packet. */
  readonly end: Int32Array = new Int32Array(BATCH_PACKETS);
  readonly checksum: Int32Array = new Int32Array(BATCH_PACKETS);
  /** Payload bytes per segment of a super-packet; 0 for a plain packet. */
  readonly segmentSize: Int32Array = new Int32Array(BATCH_PACKETS);

  /** Empties the batch. */
  clear(): void {
    this.count = 0;
  }

  /** Appends a packet at slab bytes [start, end). Returns false when the batch is full. */
  push(start: number, end: number, checksum: ChecksumState, segmentSize: number): boolean {
    const i = this.count;
    if (i >= BATCH_PACKETS) return false;
    this.start[i] = start;
    this.end[i] = end;
    this.checksum[i] = checksum;
    this.segmentSize[i] = segmentSize;
    this.count = i + 1;
    return true;
  }
}
