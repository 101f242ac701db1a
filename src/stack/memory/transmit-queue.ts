import { BLOCK_BYTES, type Slab } from "./slab.ts";

/** Bytes in front of each IP header, for the device's own header (virtio-net: 10), so that the IP header is aligned. */
export const HEADROOM = 12;
/** Room for the headers of one packet: IPv6 40 + TCP 60, and 4 for alignment. */
const HEADER_ROOM = 104;
/** Most payload references in one packet. */
export const MAX_PAYLOAD_REFS = 48;
/** Most packets in the queue before it must be written. */
export const QUEUE_PACKETS = 1024;
const INLINE_LIMIT = BLOCK_BYTES - HEADROOM - HEADER_ROOM;

/**
 * Packets ready for the device: headers in a ring of their own, payload by reference.
 *
 * Each packet is a run of 32-bit words in the slab, as the addon's gathered write takes them:
 * `[pieces, offset, length, offset, length, ...]`; the first piece is the headers. The queue holds a reference to every
 * payload block until `clear()`.
 */
export class TransmitQueue {
  readonly slab: Slab;
  readonly #headers: number;
  readonly #words: number;
  #headerAt: number;
  #wordAt: number;
  #pieceCountAt = 0;
  #pieces = 0;
  /** Packets in the queue. */
  count = 0;
  /** Packets that were ever put into the queue. */
  total = 0;
  /** Index into `slab.words` of each packet's piece count. */
  readonly descriptor: Int32Array = new Int32Array(QUEUE_PACKETS);
  /** Payload bytes per segment when the packet is a super-packet; else 0. */
  readonly segmentSize: Int32Array = new Int32Array(QUEUE_PACKETS);
  /** Offset of the L4 header behind the IP header when the device completes the checksum; 0 when it is complete. */
  readonly checksumStart: Int32Array = new Int32Array(QUEUE_PACKETS);
  /** Offset of the checksum field in the L4 header. */
  readonly checksumOffset: Int32Array = new Int32Array(QUEUE_PACKETS);
  /** Length of IP and L4 headers together. */
  readonly headerLength: Int32Array = new Int32Array(QUEUE_PACKETS);

  constructor(slab: Slab) {
    this.slab = slab;
    this.#headers = slab.take();
    this.#words = slab.take();
    if (this.#headers < 0 || this.#words < 0) throw new RangeError("slab has no blocks left for a transmit queue");
    this.#headerAt = this.#headers;
    this.#wordAt = this.#words >> 2;
  }

  /** Slab offset of the first descriptor word, for the addon. */
  get descriptorOffset(): number {
    return this.#words;
  }

  /** Bytes of descriptors in use. */
  get descriptorBytes(): number {
    return (this.#wordAt << 2) - this.#words;
  }

  /** Whether another packet with up to `MAX_PAYLOAD_REFS` references, and `inline` copied bytes, fits. */
  hasRoom(inline = 0): boolean {
    return (
      this.count < QUEUE_PACKETS &&
      this.#headerAt + HEADROOM + HEADER_ROOM + inline <= this.#headers + BLOCK_BYTES &&
      (this.#wordAt << 2) + 8 * (MAX_PAYLOAD_REFS + 2) <= this.#words + BLOCK_BYTES
    );
  }

  /** Whether `packets` more with one payload reference each fit. */
  hasRoomFor(packets: number): boolean {
    return (
      this.count + packets <= QUEUE_PACKETS &&
      this.#headerAt + packets * (HEADROOM + HEADER_ROOM) <= this.#headers + BLOCK_BYTES &&
      (this.#wordAt << 2) + packets * 20 + 8 * MAX_PAYLOAD_REFS <= this.#words + BLOCK_BYTES
    );
  }

  /** Where the IP header of the next packet goes. */
  get nextHeader(): number {
    return this.#headerAt + HEADROOM;
  }

  /** Begins a packet and returns the slab offset where its IP header goes. Call only after `hasRoom()`. */
  begin(): number {
    this.#pieceCountAt = this.#wordAt;
    this.#wordAt += 3;
    this.#pieces = 1;
    return this.#headerAt + HEADROOM;
  }

  /** Whether another payload reference fits into the packet. */
  get hasPayloadRoom(): boolean {
    return this.#pieces <= MAX_PAYLOAD_REFS;
  }

  /** Adds `length` payload bytes at slab `offset`, and keeps their block until `clear()`. */
  addPayload(offset: number, length: number): void {
    const words = this.slab.words;
    words[this.#wordAt] = offset;
    words[this.#wordAt + 1] = length;
    this.#wordAt += 2;
    this.#pieces++;
    this.slab.retain(offset);
  }

  /**
   * Ends the packet whose headers (and inline payload) fill `headerBytes` from `begin()`'s offset.
   * @param headerLength IP and L4 headers together, bytes
   * @param segmentSize payload bytes per segment of a super-packet, or 0
   * @param checksumStart offset of the L4 header when the device completes its checksum, or 0
   * @param checksumOffset offset of the checksum in the L4 header
   */
  end(
    headerBytes: number,
    headerLength: number,
    segmentSize: number,
    checksumStart: number,
    checksumOffset: number,
  ): void {
    const words = this.slab.words;
    words[this.#pieceCountAt] = this.#pieces;
    words[this.#pieceCountAt + 1] = this.#headerAt + HEADROOM;
    words[this.#pieceCountAt + 2] = headerBytes;
    this.#headerAt = (this.#headerAt + HEADROOM + headerBytes + 3) & ~3;
    const i = this.count++;
    this.total++;
    this.descriptor[i] = this.#pieceCountAt;
    this.headerLength[i] = headerLength;
    this.segmentSize[i] = segmentSize;
    this.checksumStart[i] = checksumStart;
    this.checksumOffset[i] = checksumOffset;
  }

  /** Total bytes of packet `i`, headers included. */
  packetLength(i: number): number {
    const words = this.slab.words;
    let at = this.descriptor[i] as number;
    let pieces = words[at] as number;
    let total = 0;
    for (; pieces > 0; pieces--, at += 2) total += words[at + 2] as number;
    return total;
  }

  /** Copies packet `i` into `target` at `at` and returns its length. */
  copyPacket(i: number, target: Uint8Array, at = 0): number {
    const words = this.slab.words;
    const bytes = this.slab.bytes;
    let word = this.descriptor[i] as number;
    let pieces = words[word] as number;
    let end = at;
    for (; pieces > 0; pieces--, word += 2) {
      const offset = words[word + 1] as number;
      const length = words[word + 2] as number;
      target.set(bytes.subarray(offset, offset + length), end);
      end += length;
    }
    return end - at;
  }

  /** Forgets all packets and gives their payload references back. */
  clear(): void {
    const words = this.slab.words;
    for (let i = 0; i < this.count; i++) {
      const at = this.descriptor[i] as number;
      const pieces = words[at] as number;
      for (let piece = 1; piece < pieces; piece++) this.slab.release(words[at + 1 + 2 * piece] as number);
    }
    this.count = 0;
    this.#headerAt = this.#headers;
    this.#wordAt = this.#words >> 2;
  }

  /** Gives everything back, its own blocks too. The queue must not be used any more. */
  close(): void {
    this.clear();
    this.slab.release(this.#headers);
    this.slab.release(this.#words);
  }
}

/** Most payload bytes that may be copied behind the headers of one packet. */
export const MAX_INLINE_BYTES: number = INLINE_LIMIT;
