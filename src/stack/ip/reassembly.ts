/**
 * Reassembly of fragments (RFC 791 §3.2, RFC 815, RFC 8200 §4.5).
 *
 * Theory of operation. A fragment is copied into cells; the cells of a datagram form a list that is sorted and without
 * overlaps. When it has no gap from 0 to the last fragment's end, the datagram is copied into one piece behind an IP
 * header of its own, and goes on as if it had come whole.
 *
 * ```
 *  datagram:  first ──> [0, 1480) ──> [1480, 2960) ──> [4440, 4800)       received 3320, total 4800
 * ```
 *
 * What is held, and its bounds: cells (see fragment-cells), `MAX_DATAGRAMS` datagrams, `MAX_FRAGMENTS` of each, and of
 * all that one source may have half. When a bound is reached the oldest datagram goes, of that source or of all. No step
 * looks at more than the fragments of one datagram. After `settle()` with nothing held, and after `close()`, no memory
 * of the slab is kept.
 *
 * Timers: a datagram lives for `IPV4_TIMEOUT_MS` or `IPV6_TIMEOUT_MS` from its first fragment to arrive.
 *
 * A datagram whose fragments contradict each other stays as a shell without cells until its time is up, so that the
 * fragments still on their way do not make another one (RFC 5722 §4).
 */
import { KeyTable } from "../flow/key-table.ts";
import { InputBlock } from "../memory/input-block.ts";
import type { Slab } from "../memory/slab.ts";
import { Drop } from "../wire/drop.ts";
import { ICMPV6_PARAMETER_PROBLEM, ParameterProblem } from "../wire/icmp.ts";
import { type IpPacket, Protocol } from "../wire/ip.ts";
import { emitIpv4, IPV4_HEADER_LEN, Ipv4Fragment } from "../wire/ipv4.ts";
import { emitIpv6, emitIpv6Addresses, IPV6_HEADER_LEN, IPV6_PAYLOAD_LENGTH_AT } from "../wire/ipv6.ts";
import { TCP_HEADER_LEN } from "../wire/tcp.ts";
import { CELL_BYTES, FragmentCells } from "./fragment-cells.ts";
import type { IcmpErrors } from "./icmp-error.ts";
import { SlotLists } from "./slot-lists.ts";
import { SOURCE_BUCKETS, sourceBucket } from "./source-bucket.ts";

/**
 * Deviation: RFC 1122 §3.3.2 has 60 to 120 s, RFC 791 §3.2 has 15. A flood holds memory for as long as this says, and
 * fragments that are later than half a minute do not come any more; other stacks take 30 s as well.
 */
const IPV4_TIMEOUT_MS = 30_000;
/** RFC 8200 §4.5. */
const IPV6_TIMEOUT_MS = 60_000;
/** Datagrams that may wait for fragments. */
const MAX_DATAGRAMS = 1024;
/** Fragments of a datagram: the largest one over links of 576 bytes has 119. */
const MAX_FRAGMENTS = 128;
const MAX_TOTAL = 65_535;
/** The two bits of the traffic class that are ECN's, and "congestion experienced" (RFC 3168 §5). */
const ECN_MASK = 3;
const ECN_CE = 3;
/** Words of a key: source, destination, identification, protocol (IPv4 only) and version. */
const KEY_WORDS = 10;
const KEY_DESTINATION = 4;

/** What became of a fragment. */
export const FragmentResult = {
  /** Kept, or a copy of one that is. */
  held: 0,
  /** It was the last one missing: the packet is whole now. */
  whole: 1,
  dropped: 2,
} as const;
export type FragmentResult = (typeof FragmentResult)[keyof typeof FragmentResult];

/** Puts datagrams together. */
export class Reassembly {
  readonly #slab: Slab;
  readonly #errors: IcmpErrors;
  readonly #drops: Float64Array;
  readonly #seed: number;
  readonly #table: KeyTable;
  readonly #key: Int32Array = new Int32Array(KEY_WORDS);
  readonly #cells: FragmentCells;
  /** Where datagrams are put together. */
  readonly #whole: InputBlock;
  /** By age: list 0 for IPv4, 1 for IPv6, whose lives differ. */
  readonly #ages: SlotLists = new SlotLists(2, MAX_DATAGRAMS);
  readonly #sources: SlotLists = new SlotLists(SOURCE_BUCKETS, MAX_DATAGRAMS);
  readonly #sourceCells: Int32Array = new Int32Array(SOURCE_BUCKETS);
  readonly #sourceDatagrams: Int32Array = new Int32Array(SOURCE_BUCKETS);

  // A column each of what is known of a datagram.
  readonly #bornAt: Float64Array = new Float64Array(MAX_DATAGRAMS);
  readonly #version: Uint8Array = new Uint8Array(MAX_DATAGRAMS);
  readonly #bucket: Int32Array = new Int32Array(MAX_DATAGRAMS);
  readonly #first: Int32Array = new Int32Array(MAX_DATAGRAMS);
  readonly #last: Int32Array = new Int32Array(MAX_DATAGRAMS);
  readonly #fragments: Int32Array = new Int32Array(MAX_DATAGRAMS);
  readonly #received: Int32Array = new Int32Array(MAX_DATAGRAMS);
  /** Length, -1 while the last fragment is missing. */
  readonly #total: Int32Array = new Int32Array(MAX_DATAGRAMS);
  /** What the first fragment says follows its header. */
  readonly #protocol: Int32Array = new Int32Array(MAX_DATAGRAMS);
  readonly #trafficClass: Int32Array = new Int32Array(MAX_DATAGRAMS);
  /** Given up: only there to swallow what follows. */
  readonly #isDead: Uint8Array = new Uint8Array(MAX_DATAGRAMS);

  /**
   * @param seed secret 32 bits
   * @param drops counters by reason
   */
  constructor(slab: Slab, errors: IcmpErrors, seed: number, drops: Float64Array) {
    this.#slab = slab;
    this.#errors = errors;
    this.#seed = seed;
    this.#drops = drops;
    this.#table = new KeyTable(KEY_WORDS, seed);
    this.#cells = new FragmentCells(slab);
    this.#whole = new InputBlock(slab, 0);
  }

  /** Datagrams that wait for fragments. */
  get size(): number {
    return this.#table.size;
  }

  /** Bytes of packet memory that waiting fragments hold. */
  get heldBytes(): number {
    return this.#cells.used * CELL_BYTES;
  }

  /**
   * Takes a fragment; the bytes are copied. When the datagram is complete, `packet` becomes the whole, valid until
   * `settle()`; its checksum is then to be verified whatever the device said of fragments, because none of them holds
   * what the checksum covers.
   */
  receive(packet: IpPacket, now: number): FragmentResult {
    const drop = this.#check(packet);
    if (drop !== Drop.none) return this.#drop(drop);
    const slot = this.#find(packet, now);
    if (this.#isDead[slot] === 1) return this.#drop(Drop.ipFragmentOverlap);
    const start = packet.fragmentOffset;
    const length = packet.end - packet.payload;
    const end = start + length;
    const previous = this.#place(slot, start);
    const next = previous === 0 ? (this.#first[slot] as number) : (this.#cells.next[previous] as number);
    if (this.#isCopy(slot, next, packet, start, end)) return FragmentResult.held;
    if (this.#contradicts(slot, previous, next, start, end, packet.moreFragments)) {
      this.#kill(slot);
      return this.#drop(Drop.ipFragmentOverlap);
    }
    if ((this.#fragments[slot] as number) >= MAX_FRAGMENTS) {
      this.#kill(slot);
      return this.#drop(Drop.ipFragmentLimit);
    }
    if (!this.#keep(slot, previous, next, packet.payload, start, end)) return this.#drop(Drop.ipFragmentLimit);
    if (!packet.moreFragments) this.#total[slot] = end;
    if (start === 0) {
      this.#protocol[slot] = packet.protocol;
      this.#trafficClass[slot] = (this.#trafficClass[slot] as number) | packet.trafficClass;
    } else if ((packet.trafficClass & ECN_MASK) === ECN_CE) {
      // RFC 3168 §5.3: one marked fragment marks the whole.
      this.#trafficClass[slot] = (this.#trafficClass[slot] as number) | ECN_CE;
    }
    if (this.#received[slot] !== this.#total[slot]) return FragmentResult.held;
    const made = this.#assemble(slot, packet);
    this.#remove(slot);
    return made ? FragmentResult.whole : this.#drop(Drop.ipFragmentLimit);
  }

  #drop(reason: Drop): FragmentResult {
    this.#drops[reason] = (this.#drops[reason] as number) + 1;
    return FragmentResult.dropped;
  }

  /** What is wrong with a fragment by itself. */
  #check(packet: IpPacket): Drop {
    const { version, fragmentOffset } = packet;
    const length = packet.end - packet.payload;
    if (packet.moreFragments && (length & 7) !== 0) {
      // RFC 791 §3.2, RFC 8200 §4.5: all but the last are cut at multiples of eight bytes.
      return this.#problem(packet, Drop.ipFragment, IPV6_PAYLOAD_LENGTH_AT);
    }
    if (length === 0) return Drop.ipFragment;
    const most = version === 4 ? MAX_TOTAL - IPV4_HEADER_LEN : MAX_TOTAL;
    if (fragmentOffset + length > most) {
      // The ping of death. RFC 8200 §4.5: the pointer is at the Fragment Offset field, two bytes into the header before.
      return this.#problem(packet, Drop.ipFragmentTooLarge, packet.payload - packet.start - 6);
    }
    if (version === 4 && packet.protocol === Protocol.tcp) {
      // RFC 1858 §3, RFC 3128: no TCP header in several pieces, lest the pieces be of different opinion.
      const isShort = fragmentOffset === 0 ? length < TCP_HEADER_LEN : fragmentOffset < TCP_HEADER_LEN;
      if (isShort) return Drop.ipFragment;
    }
    return Drop.none;
  }

  #problem(packet: IpPacket, drop: Drop, pointer: number): Drop {
    if (packet.version === 6) {
      packet.errorType = ICMPV6_PARAMETER_PROBLEM;
      packet.errorCode = ParameterProblem.erroneousField;
      packet.errorPointer = pointer;
    }
    return drop;
  }

  /** The datagram that the fragment belongs to; a new one when there is none. */
  #find(packet: IpPacket, now: number): number {
    const key = this.#key;
    key[0] = packet.source0;
    key[1] = packet.source1;
    key[2] = packet.source2;
    key[3] = packet.source3;
    key[4] = packet.destination0;
    key[5] = packet.destination1;
    key[6] = packet.destination2;
    key[7] = packet.destination3;
    key[8] = packet.identification;
    // RFC 791 §3.2: the protocol tells datagrams apart; RFC 8200 §4.5: it does not.
    key[9] = packet.version === 4 ? packet.protocol : -1;
    const found = this.#table.find(key);
    if (found >= 0) return found;
    const bucket = sourceBucket(this.#seed, packet.source0, packet.source1, packet.source2, packet.source3);
    if ((this.#sourceDatagrams[bucket] as number) >= MAX_DATAGRAMS >> 1) this.#evict(this.#sources.first(bucket));
    if (this.#table.size >= MAX_DATAGRAMS) this.#evict(this.#oldest());
    const slot = this.#table.add(key);
    this.#bornAt[slot] = now;
    this.#version[slot] = packet.version;
    this.#bucket[slot] = bucket;
    this.#first[slot] = 0;
    this.#last[slot] = 0;
    this.#fragments[slot] = 0;
    this.#received[slot] = 0;
    this.#total[slot] = -1;
    this.#trafficClass[slot] = 0;
    this.#isDead[slot] = 0;
    this.#ages.append(packet.version === 4 ? 0 : 1, slot);
    this.#sources.append(bucket, slot);
    this.#sourceDatagrams[bucket] = (this.#sourceDatagrams[bucket] as number) + 1;
    return slot;
  }

  /** The last cell that begins before `start`, or 0. Fragments mostly come in order: the end is looked at first. */
  #place(slot: number, start: number): number {
    const { at, next } = this.#cells;
    const last = this.#last[slot] as number;
    if (last !== 0 && (at[last] as number) < start) return last;
    let previous = 0;
    for (let cell = this.#first[slot] as number; cell !== 0; cell = next[cell] as number) {
      if ((at[cell] as number) >= start) break;
      previous = cell;
    }
    return previous;
  }

  /** Whether `cell` begins a fragment that is the same as the one at hand: duplicates are normal (RFC 8200 §4.5). */
  #isCopy(slot: number, cell: number, packet: IpPacket, start: number, end: number): boolean {
    const cells = this.#cells;
    if (cell === 0 || cells.at[cell] !== start || cells.fragmentEnd[cell] !== end) return false;
    if (packet.moreFragments === (this.#total[slot] === end)) return false;
    const { bytes } = this.#slab;
    let from = packet.payload;
    for (let part = cell; from < packet.end; part = cells.next[part] as number) {
      const offset = cells.offset(part);
      const length = cells.length[part] as number;
      for (let i = 0; i < length; i++) if (bytes[offset + i] !== bytes[from + i]) return false;
      from += length;
    }
    return true;
  }

  /** Whether the fragment cannot belong to the same datagram as the others: overlaps, or another end. */
  #contradicts(slot: number, previous: number, next: number, start: number, end: number, more: boolean): boolean {
    const { at, length } = this.#cells;
    if (previous !== 0 && (at[previous] as number) + (length[previous] as number) > start) return true;
    if (next !== 0 && (at[next] as number) < end) return true;
    const total = this.#total[slot] as number;
    if (more) return total >= 0 && end >= total;
    return next !== 0 || (total >= 0 && total !== end);
  }

  /** Copies the fragment into cells between `previous` and `next`; false when there is no room for it. */
  #keep(slot: number, previous: number, next: number, from: number, start: number, end: number): boolean {
    const cells = this.#cells;
    const bucket = this.#bucket[slot] as number;
    const count = Math.ceil((end - start) / CELL_BYTES);
    const share = cells.capacity >> 1;
    while ((this.#sourceCells[bucket] as number) + count > share) {
      const oldest = this.#sources.first(bucket);
      this.#evict(oldest);
      if (oldest === slot) return false;
    }
    let tail = previous;
    for (let at = start; at < end; at += CELL_BYTES) {
      const length = Math.min(CELL_BYTES, end - at);
      let cell = cells.take(from + at - start, length, at, at === start ? end : 0);
      while (cell === 0) {
        const oldest = this.#oldest();
        this.#evict(oldest);
        if (oldest === slot) return false;
        cell = cells.take(from + at - start, length, at, at === start ? end : 0);
      }
      cells.next[cell] = next;
      if (tail === 0) this.#first[slot] = cell;
      else cells.next[tail] = cell;
      tail = cell;
      this.#sourceCells[bucket] = (this.#sourceCells[bucket] as number) + 1;
    }
    if (next === 0) this.#last[slot] = tail;
    this.#received[slot] = (this.#received[slot] as number) + end - start;
    this.#fragments[slot] = (this.#fragments[slot] as number) + 1;
    return true;
  }

  /** Puts the datagram into one piece and describes it in `packet`; false when there is no memory. */
  #assemble(slot: number, packet: IpPacket): boolean {
    const slab = this.#slab;
    const cells = this.#cells;
    const total = this.#total[slot] as number;
    const isIpv4 = packet.version === 4;
    const header = isIpv4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN;
    if (!this.#whole.prepare(header + total)) return false;
    const start = this.#whole.position;
    const payload = start + header;
    this.#whole.advanceTo(payload + total);
    for (let cell = this.#first[slot] as number; cell !== 0; cell = cells.next[cell] as number) {
      const offset = cells.offset(cell);
      slab.bytes.copyWithin(payload + (cells.at[cell] as number), offset, offset + (cells.length[cell] as number));
    }
    const protocol = this.#protocol[slot] as number;
    const trafficClass = this.#trafficClass[slot] as number;
    if (isIpv4) {
      const { identification, source3, destination3 } = packet;
      const length = header + total;
      emitIpv4(
        slab,
        start,
        length,
        protocol,
        trafficClass,
        identification,
        Ipv4Fragment.allowed,
        source3,
        destination3,
      );
      packet.protocolAt = 9;
    } else {
      emitIpv6(slab, start, total, protocol, trafficClass);
      emitIpv6Addresses(slab, start, this.#key, 0, KEY_DESTINATION);
      packet.protocolAt = 6;
    }
    packet.start = start;
    packet.payload = payload;
    packet.end = payload + total;
    packet.protocol = protocol;
    packet.trafficClass = trafficClass;
    packet.isFragment = false;
    packet.moreFragments = false;
    packet.fragmentOffset = 0;
    packet.checksumTrusted = false;
    packet.segmentSize = 0;
    return true;
  }

  #oldest(): number {
    const ipv4 = this.#ages.first(0);
    const ipv6 = this.#ages.first(1);
    if (ipv4 < 0) return ipv6;
    return ipv6 < 0 || (this.#bornAt[ipv4] as number) <= (this.#bornAt[ipv6] as number) ? ipv4 : ipv6;
  }

  #evict(slot: number): void {
    if (this.#isDead[slot] === 0) this.#drop(Drop.ipFragmentLimit);
    this.#remove(slot);
  }

  /** Gives the datagram up but keeps its place, until its time is up. */
  #kill(slot: number): void {
    this.#releaseCells(slot);
    this.#isDead[slot] = 1;
  }

  #releaseCells(slot: number): void {
    const bucket = this.#bucket[slot] as number;
    const count = this.#cells.release(this.#first[slot] as number);
    this.#sourceCells[bucket] = (this.#sourceCells[bucket] as number) - count;
    this.#first[slot] = 0;
    this.#last[slot] = 0;
  }

  #remove(slot: number): void {
    const bucket = this.#bucket[slot] as number;
    this.#releaseCells(slot);
    this.#ages.remove(this.#version[slot] === 4 ? 0 : 1, slot);
    this.#sources.remove(bucket, slot);
    this.#sourceDatagrams[bucket] = (this.#sourceDatagrams[bucket] as number) - 1;
    this.#table.remove(slot);
  }

  #expiresAt(list: number): number {
    const slot = this.#ages.first(list);
    if (slot < 0) return Number.POSITIVE_INFINITY;
    return (this.#bornAt[slot] as number) + (list === 0 ? IPV4_TIMEOUT_MS : IPV6_TIMEOUT_MS);
  }

  /** When the next datagram is given up, ms; `Infinity` when none waits. */
  nextTimeout(): number {
    return Math.min(this.#expiresAt(0), this.#expiresAt(1));
  }

  /** Gives up the datagrams whose time is up, and tells their senders when the first fragment is there to be quoted. */
  handleTimeout(now: number): void {
    for (let list = 0; list < 2; list++) {
      while (this.#expiresAt(list) <= now) {
        const slot = this.#ages.first(list);
        if (this.#isDead[slot] === 0) {
          this.#drop(Drop.ipFragmentTimeout);
          this.#tellTimeout(slot, now);
        }
        this.#remove(slot);
      }
    }
    this.settle();
  }

  /** RFC 1122 §3.3.2, RFC 8200 §4.5: time exceeded, unless fragment zero is missing. */
  #tellTimeout(slot: number, now: number): void {
    const cells = this.#cells;
    const first = this.#first[slot] as number;
    if (first === 0 || cells.at[first] !== 0) return;
    const at = slot * KEY_WORDS;
    const { keys } = this.#table;
    this.#errors.sendReassemblyTimeout(
      this.#version[slot] === 4,
      this.#protocol[slot] as number,
      keys,
      at,
      at + KEY_DESTINATION,
      keys[at + 8] as number,
      cells.offset(first),
      cells.length[first] as number,
      cells.fragmentEnd[first] as number,
      now,
    );
  }

  /** The whole packet was dealt with: memory that nothing waits in goes back. */
  settle(): void {
    if (this.#cells.used > 0) return;
    this.#cells.releaseBlocks();
    this.#whole.close();
  }

  /** Forgets all fragments and gives all memory back. */
  close(): void {
    for (let slot = this.#oldest(); slot >= 0; slot = this.#oldest()) this.#remove(slot);
    this.settle();
  }
}
