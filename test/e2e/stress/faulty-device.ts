/** A device that loses, repeats and reorders packets in both directions, by a seed. */
import type { Device, Offload } from "../../../src/device/device.ts";
import { type ChecksumState, ReceiveBatch, type Slab, TransmitQueue } from "../../../src/stack/memory/index.ts";

/** Probabilities, each for every packet by itself. */
export interface FaultOptions {
  readonly seed: number;
  readonly drop: number;
  readonly duplicate: number;
  /** The packet comes behind the others of its batch, or a little later. */
  readonly reorder: number;
}

/** Packets that were treated so. */
export interface FaultStats {
  readonly passed: number;
  readonly dropped: number;
  readonly duplicated: number;
  readonly reordered: number;
}

/** How much later a packet is written at most, ms. */
const LATE_MS = 2;

/** Numbers in [0, 1) by xorshift32 (Marsaglia 2003). */
function randomBy(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** A packet that was read and is held back; its block is retained. */
interface Held {
  readonly start: number;
  readonly end: number;
  readonly checksum: ChecksumState;
  readonly segmentSize: number;
}

export class FaultyDevice implements Device {
  readonly #inner: Device;
  readonly #options: FaultOptions;
  readonly #random: () => number;
  readonly #batch: ReceiveBatch = new ReceiveBatch();
  #timer: NodeJS.Timeout | null = null;
  #slab: Slab | null = null;
  /** Packets to write now, and those to write after them. */
  #now: TransmitQueue | null = null;
  #late: TransmitQueue | null = null;
  #held: Held[] = [];
  /** Packets of the last batch that were held before: theirs until the next read. */
  #delivered: Held[] = [];
  #passed = 0;
  #dropped = 0;
  #duplicated = 0;
  #reordered = 0;

  constructor(inner: Device, options: FaultOptions) {
    this.#inner = inner;
    this.#options = options;
    this.#random = randomBy(options.seed);
  }

  get name(): string {
    return this.#inner.name;
  }
  get description(): string {
    return `${this.#inner.description}, with faults`;
  }
  get mtu(): number {
    return this.#inner.mtu;
  }
  get offload(): Offload {
    return this.#inner.offload;
  }
  get fd(): number {
    return this.#inner.fd;
  }
  get writeErrors(): number {
    return this.#inner.writeErrors;
  }
  get hasMore(): boolean {
    return this.#inner.hasMore;
  }

  stats(): FaultStats {
    return {
      passed: this.#passed,
      dropped: this.#dropped,
      duplicated: this.#duplicated,
      reordered: this.#reordered,
    };
  }

  attach(slab: Slab, slabId: number): void {
    this.#inner.attach(slab, slabId);
    this.#slab = slab;
    this.#now = new TransmitQueue(slab);
    this.#late = new TransmitQueue(slab);
  }

  /** How often the packet at hand goes on: 0, 1 or 2 times. */
  #copies(): number {
    if (this.#random() < this.#options.drop) {
      this.#dropped++;
      return 0;
    }
    this.#passed++;
    if (this.#random() >= this.#options.duplicate) return 1;
    this.#duplicated++;
    return 2;
  }

  #isReordered(): boolean {
    if (this.#random() >= this.#options.reorder) return false;
    this.#reordered++;
    return true;
  }

  read(batch: ReceiveBatch): number {
    batch.clear();
    for (const { start } of this.#delivered) this.#slab?.release(start);
    this.#delivered = this.#held;
    this.#held = [];
    const read = this.#batch;
    this.#inner.read(read);
    for (let i = 0; i < read.count; i++) {
      const packet: Held = {
        start: read.start[i] as number,
        end: read.end[i] as number,
        checksum: read.checksum[i] as ChecksumState,
        segmentSize: read.segmentSize[i] as number,
      };
      for (let copies = this.#copies(); copies > 0; copies--) {
        if (this.#isReordered()) {
          this.#slab?.retain(packet.start);
          this.#held.push(packet);
        } else {
          pushPacket(batch, packet);
        }
      }
    }
    for (const packet of this.#delivered) pushPacket(batch, packet);
    if (!this.#inner.hasMore) this.#deliverHeld(batch);
    return batch.count;
  }

  /** Nothing follows that could overtake the packets held back. */
  #deliverHeld(batch: ReceiveBatch): void {
    for (const packet of this.#held) pushPacket(batch, packet);
    this.#delivered.push(...this.#held.splice(0));
  }

  write(queue: TransmitQueue): void {
    const { now, late } = { now: this.#now, late: this.#late };
    if (now === null || late === null) return;
    for (let i = 0; i < queue.count; i++) {
      for (let copies = this.#copies(); copies > 0; copies--) append(this.#isReordered() ? late : now, queue, i);
    }
    this.#inner.write(now);
    now.clear();
    if (late.count === 0) return;
    if (this.#random() < 0.5) this.#writeLate();
    else this.#timer ??= setTimeout(() => this.#writeLate(), LATE_MS);
  }

  #writeLate(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#late === null) return;
    this.#inner.write(this.#late);
    this.#late.clear();
  }

  close(): void {
    for (const { start } of [...this.#delivered, ...this.#held]) this.#slab?.release(start);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#now?.close();
    this.#late?.close();
    this.#inner.close();
  }
}

function pushPacket(batch: ReceiveBatch, packet: Held): void {
  batch.push(packet.start, packet.end, packet.checksum, packet.segmentSize);
}

/** Appends packet `i` of `from`; it is lost when `to` is full. */
function append(to: TransmitQueue, from: TransmitQueue, i: number): void {
  const { words, bytes } = from.slab;
  const at = from.descriptor[i] as number;
  const headers = words[at + 1] as number;
  const headerBytes = words[at + 2] as number;
  if (!to.hasRoom(headerBytes)) return;
  bytes.copyWithin(to.begin(), headers, headers + headerBytes);
  for (let piece = 1; piece < (words[at] as number); piece++) {
    to.addPayload(words[at + 1 + 2 * piece] as number, words[at + 2 + 2 * piece] as number);
  }
  const { headerLength, segmentSize, checksumStart, checksumOffset } = from;
  to.end(
    headerBytes,
    headerLength[i] as number,
    segmentSize[i] as number,
    checksumStart[i] as number,
    checksumOffset[i] as number,
  );
}
