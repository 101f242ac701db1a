/** Datagrams that arrived from clients and wait for their owner, as columns of integers and counted references. */
import type { Datagrams } from "../flow/flow.ts";
import type { Slab } from "../memory/slab.ts";
import type { IpPacket } from "../wire/ip.ts";

/** Words of a datagram's key: client address, destination address. */
const ADDRESS_WORDS = 8;
/** Most datagrams waiting: what one batch of the device holds, super-datagrams of 1,200 bytes each counted by their parts. */
const CAPACITY = 8192;

/** A bounded queue; drained as a whole by `clear()`. */
export class DatagramInbox implements Datagrams {
  readonly #slab: Slab;
  /** Datagrams waiting. */
  count = 0;
  /** Eight address words a datagram: remote (the client) then local (where it wants to go). */
  readonly addresses: Int32Array = new Int32Array(CAPACITY * ADDRESS_WORDS);
  readonly remotePort: Int32Array = new Int32Array(CAPACITY);
  readonly localPort: Int32Array = new Int32Array(CAPACITY);
  /** Slab offset of the payload, valid until `clear()`. */
  readonly offset: Int32Array = new Int32Array(CAPACITY);
  readonly length: Int32Array = new Int32Array(CAPACITY);

  constructor(slab: Slab) {
    this.#slab = slab;
  }

  /** Index of datagram `i`'s first address word. */
  addressesAt(i: number): number {
    return i * ADDRESS_WORDS;
  }

  /** Appends a datagram and retains its block; false when the queue is full. */
  push(packet: IpPacket, remotePort: number, localPort: number, offset: number, length: number): boolean {
    const i = this.count;
    if (i >= CAPACITY) return false;
    const words = this.addresses;
    const at = i * ADDRESS_WORDS;
    words[at] = packet.source0;
    words[at + 1] = packet.source1;
    words[at + 2] = packet.source2;
    words[at + 3] = packet.source3;
    words[at + 4] = packet.destination0;
    words[at + 5] = packet.destination1;
    words[at + 6] = packet.destination2;
    words[at + 7] = packet.destination3;
    this.remotePort[i] = remotePort;
    this.localPort[i] = localPort;
    // An empty payload may stand behind the last byte of its block: then any offset in the packet does.
    const kept = length > 0 ? offset : packet.start;
    this.offset[i] = kept;
    this.length[i] = length;
    this.#slab.retain(kept);
    this.count = i + 1;
    return true;
  }

  /** Forgets all datagrams and gives their blocks back. */
  clear(): void {
    for (let i = 0; i < this.count; i++) this.#slab.release(this.offset[i] as number);
    this.count = 0;
  }
}
