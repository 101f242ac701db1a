/**
 * What is known of the way to clients: the largest packet that gets through, where it is smaller than the device's, and
 * which large packets have gone out lately, so that only messages about those are believed.
 */
import { grown, KeyTable } from "../flow/key-table.ts";
import { isMapped } from "../wire/ip.ts";

/** Destinations that are remembered; the oldest goes first. */
const MAX_DESTINATIONS = 256;
/** RFC 8201 §5.4, RFC 1191 §6.3: how long before a larger packet is tried again. */
const LIFETIME_MS = 600_000;
/** Smallest path MTU that is believed. IPv6 links take 1280 (RFC 8200 §5), so a smaller one is a lie (RFC 8201 §4). */
const IPV6_FLOOR = 1280;
/** For IPv4 the least is 68 (RFC 791); below 552 an attack is likelier than such a link (RFC 5927 §7). */
const IPV4_FLOOR = 552;
/** Large datagrams that are remembered, by hash; a power of two. */
const SENT_SLOTS = 1024;
/** Plateaus of RFC 1191 §7.1, for routers that do not tell their MTU. */
const PLATEAUS: readonly number[] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 552];

/** The smallest path MTU in use. */
export function pathMtuFloor(isIpv4: boolean): number {
  return isIpv4 ? IPV4_FLOOR : IPV6_FLOOR;
}

/**
 * The path MTU that a message means: what it says, but no less than the floor.
 * @param said the MTU in the message; 0 when the router does not know of the field (RFC 1191 §5)
 * @param packetLength length of the packet that did not get through
 * @returns 0 when the message makes no sense: the packet was no larger than that
 */
export function claimedMtu(isIpv4: boolean, said: number, packetLength: number): number {
  let mtu = said;
  if (isIpv4 && said === 0) mtu = PLATEAUS.find((plateau) => plateau < packetLength) ?? IPV4_FLOOR;
  return mtu >= packetLength ? 0 : Math.max(pathMtuFloor(isIpv4), mtu);
}

export class PathMtus {
  readonly #seed: number;
  readonly #table: KeyTable;
  readonly #key: Int32Array = new Int32Array(4);
  #mtu: Int32Array = new Int32Array(0);
  #learnedAt: Float64Array = new Float64Array(0);
  /** Slots in the order in which they were learned. */
  readonly #order: number[] = [];
  readonly #sent: Int32Array = new Int32Array(SENT_SLOTS);

  /** @param seed secret 32 bits */
  constructor(seed: number) {
    this.#seed = seed | 0;
    this.#table = new KeyTable(4, seed);
  }

  /** Destinations with a path MTU of their own. */
  get size(): number {
    return this.#table.size;
  }

  /** The path MTU to the address at `words[at]`, at most `most`. */
  to(words: Int32Array, at: number, most: number, now: number): number {
    if (this.#table.size === 0) return most;
    const slot = this.#find(words, at);
    if (slot < 0) return most;
    if ((this.#learnedAt[slot] as number) + LIFETIME_MS <= now) {
      this.#forget(slot);
      return most;
    }
    return Math.min(most, this.#mtu[slot] as number);
  }

  /** Notes that packets to the address at `words[at]` may have `mtu` bytes. A larger one than is known changes nothing. */
  learn(words: Int32Array, at: number, mtu: number, now: number): void {
    const known = this.to(words, at, 65_535, now);
    if (mtu >= known) return;
    const slot = this.#find(words, at);
    if (slot >= 0) this.#forget(slot);
    else if (this.#table.size >= MAX_DESTINATIONS) this.#forget(this.#order[0] as number);
    for (let i = 0; i < 4; i++) this.#key[i] = words[at + i] as number;
    const added = this.#table.add(this.#key);
    if (added >= this.#mtu.length) {
      const learnedAt = new Float64Array(this.#table.capacity);
      learnedAt.set(this.#learnedAt);
      this.#learnedAt = learnedAt;
      this.#mtu = grown(this.#mtu, this.#table.capacity);
    }
    this.#mtu[added] = mtu;
    this.#learnedAt[added] = now;
    this.#order.push(added);
  }

  #find(words: Int32Array, at: number): number {
    const key = this.#key;
    for (let i = 0; i < 4; i++) key[i] = words[at + i] as number;
    return this.#table.find(key);
  }

  #forget(slot: number): void {
    this.#table.remove(slot);
    this.#order.splice(this.#order.indexOf(slot), 1);
  }

  /**
   * Notes that a packet larger than the floor went out.
   * @param ports what tells it from others of the same ends
   */
  noteSent(protocol: number, words: Int32Array, source: number, destination: number, ports: number): void {
    const hash = this.#hash(protocol, words, source, destination, ports);
    this.#sent[hash & (SENT_SLOTS - 1)] = hash;
  }

  /** Whether such a packet went out lately: a message about another one is forged, or too old to matter (RFC 5927 §4). */
  wasSent(protocol: number, words: Int32Array, source: number, destination: number, ports: number): boolean {
    const hash = this.#hash(protocol, words, source, destination, ports);
    return this.#sent[hash & (SENT_SLOTS - 1)] === hash;
  }

  #hash(protocol: number, words: Int32Array, source: number, destination: number, ports: number): number {
    let hash = Math.imul(this.#seed ^ protocol, 0x9e3779b1) ^ ports;
    // Mapped IPv4 addresses differ in their last word only.
    const isIpv4 = isMapped(words[source] as number, words[source + 1] as number, words[source + 2] as number);
    for (let i = isIpv4 ? 3 : 0; i < 4; i++) {
      hash = Math.imul(hash ^ (words[source + i] as number), 0x85ebca6b);
      hash ^= hash >>> 13;
      hash = Math.imul(hash ^ (words[destination + i] as number), 0xc2b2ae35);
      hash ^= hash >>> 16;
    }
    // Zero is an empty slot.
    return hash === 0 ? 1 : hash;
  }
}
