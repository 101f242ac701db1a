/**
 * The kit of the stack's tests: packets built and taken apart by plain code of its own, a client in virtual time, and
 * scripts in the notation of packetdrill. Nothing here uses the wire formats of the stack.
 */
import type { Test as Tap } from "tap";
import { BLOCK_BYTES, Slab } from "../../src/stack/memory/slab.ts";
import { Stack, type StackOptions } from "../../src/stack/stack.ts";
import type { TcpConnection } from "../../src/stack/tcp/connection.ts";
import type { TcpOptions } from "../../src/stack/tcp/options.ts";

export type Family = 4 | 6;

export const CLIENT: Readonly<Record<Family, Uint8Array>> = {
  4: Uint8Array.of(10, 0, 0, 2),
  6: Uint8Array.of(0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2),
};
export const SERVER: Readonly<Record<Family, Uint8Array>> = {
  4: Uint8Array.of(93, 184, 216, 34),
  6: Uint8Array.of(0x26, 0x06, 0x28, 0, 2, 0x20, 0, 1, 2, 0x48, 0x18, 0x93, 0x25, 0xc8, 0x19, 0x46),
};
export const CLIENT_PORT = 40_000;
export const SERVER_PORT = 443;

export const Flag = { F: 1, S: 2, R: 4, P: 8, A: 16, U: 32, E: 64, W: 128 } as const;

/** A generator of 32-bit numbers with a seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return (x ^ (x >>> 14)) | 0;
  };
}

/** The byte at `position` of stream 0 (from the client) or 1 (to it). */
export function streamByte(stream: number, position: number): number {
  return (position * 31 + (position >>> 8) * 7 + (position >>> 16) * 3 + stream * 101 + 13) & 0xff;
}

/** `length` bytes of a stream from `position` on. */
export function streamBytes(stream: number, position: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = streamByte(stream, position + i);
  return bytes;
}

/** Whether `bytes` are what the stream has from `position` on. */
export function isStream(stream: number, position: number, bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== streamByte(stream, position + i)) return false;
  return true;
}

// --- Building packets

/** The folded sum of 16-bit words of `parts` put one behind the other. */
export function plainSum(...parts: readonly Uint8Array[]): number {
  let sum = 0;
  let high = true;
  for (const part of parts) {
    for (const byte of part) {
      sum += high ? byte << 8 : byte;
      high = !high;
    }
    while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  }
  return sum;
}

function complement(sum: number): number {
  return 0xffff - sum;
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function u16(value: number): number[] {
  return [(value >>> 8) & 0xff, value & 0xff];
}

function u32(value: number): number[] {
  return [(value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

function pseudoHeader(source: Uint8Array, destination: Uint8Array, protocol: number, length: number): Uint8Array {
  return join(source, destination, Uint8Array.from([...u32(length), 0, 0, 0, protocol]));
}

/** Header fields of an IP packet; lengths and checksums are right unless they are given. */
export interface IpFields {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly protocol: number;
  readonly ttl?: number;
  readonly options?: Uint8Array;
  /** Total length (IPv4) or payload length (IPv6) to write instead of the right one. */
  readonly length?: number;
  readonly fragment?: number;
  readonly checksum?: number;
  readonly version?: number;
  readonly headerWords?: number;
}

/** Builds an IP packet; the family is that of the addresses. */
export function ipPacket(fields: IpFields, payload: Uint8Array): Uint8Array {
  const { source, destination, protocol, ttl = 64 } = fields;
  if (source.length === 16) {
    const length = fields.length ?? payload.length;
    const head = [((fields.version ?? 6) << 4) | 0, 0, 0, 0, ...u16(length), protocol, ttl];
    return join(Uint8Array.from(head), source, destination, payload);
  }
  const options = fields.options ?? new Uint8Array(0);
  const words = fields.headerWords ?? 5 + Math.ceil(options.length / 4);
  const header = new Uint8Array(20 + Math.ceil(options.length / 4) * 4);
  header.set([((fields.version ?? 4) << 4) | words, 0, ...u16(fields.length ?? header.length + payload.length)]);
  header.set([...u16(0x1234), ...u16(fields.fragment ?? 0x4000), ttl, protocol, 0, 0], 4);
  header.set(source, 12);
  header.set(destination, 16);
  header.set(options, 20);
  header.set(u16(fields.checksum ?? complement(plainSum(header))), 10);
  return join(header, payload);
}

export interface TcpFields {
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly seq: number;
  readonly ack?: number;
  readonly flags: number;
  readonly window?: number;
  readonly urgent?: number;
  readonly options?: Uint8Array;
  readonly payload?: Uint8Array;
  readonly checksum?: number;
  readonly headerWords?: number;
  readonly reserved?: number;
}

/** Builds a TCP segment with its checksum. */
export function tcpSegment(fields: TcpFields, source: Uint8Array, destination: Uint8Array): Uint8Array {
  const options = fields.options ?? new Uint8Array(0);
  const header = new Uint8Array(20 + Math.ceil(options.length / 4) * 4);
  header.set([...u16(fields.sourcePort ?? CLIENT_PORT), ...u16(fields.destinationPort ?? SERVER_PORT)]);
  header.set([...u32(fields.seq), ...u32(fields.ack ?? 0)], 4);
  header.set([((fields.headerWords ?? header.length / 4) << 4) | (fields.reserved ?? 0), fields.flags], 12);
  header.set([...u16(fields.window ?? 65535), 0, 0, ...u16(fields.urgent ?? 0)], 14);
  header.set(options, 20);
  const segment = join(header, fields.payload ?? new Uint8Array(0));
  const sum = plainSum(pseudoHeader(source, destination, 6, segment.length), segment);
  segment.set(u16(fields.checksum ?? complement(sum)), 16);
  return segment;
}

/** Builds a whole TCP packet from the client to the server. */
export function tcpPacket(family: Family, fields: TcpFields, ip: Partial<IpFields> = {}): Uint8Array {
  const source = ip.source ?? CLIENT[family];
  const destination = ip.destination ?? SERVER[family];
  return ipPacket({ ...ip, source, destination, protocol: 6 }, tcpSegment(fields, source, destination));
}

export interface UdpFields {
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly length?: number;
  readonly checksum?: number;
}

/** Builds a whole UDP packet from the client to the server; `padding` bytes follow the datagram. */
export function udpPacket(
  family: Family,
  payload: Uint8Array,
  fields: UdpFields = {},
  ip: Partial<IpFields> = {},
  padding = 0,
): Uint8Array {
  const source = ip.source ?? CLIENT[family];
  const destination = ip.destination ?? SERVER[family];
  const length = 8 + payload.length;
  const header = [...u16(fields.sourcePort ?? CLIENT_PORT), ...u16(fields.destinationPort ?? 53)];
  const datagram = join(Uint8Array.from([...header, ...u16(fields.length ?? length), 0, 0]), payload);
  const sum = complement(plainSum(pseudoHeader(source, destination, 17, length), datagram));
  datagram.set(u16(fields.checksum ?? (sum === 0 ? 0xffff : sum)), 6);
  return ipPacket({ ...ip, source, destination, protocol: 17 }, join(datagram, new Uint8Array(padding)));
}

/** Builds a whole ICMP or ICMPv6 packet from the client to the server. */
export function icmpPacket(
  family: Family,
  type: number,
  code: number,
  rest: number,
  data: Uint8Array,
  checksum?: number,
  ip: Partial<IpFields> = {},
): Uint8Array {
  const source = ip.source ?? CLIENT[family];
  const destination = ip.destination ?? SERVER[family];
  const protocol = family === 4 ? 1 : 58;
  const message = join(Uint8Array.from([type, code, 0, 0, ...u32(rest)]), data);
  const pseudo = family === 4 ? new Uint8Array(0) : pseudoHeader(source, destination, 58, message.length);
  message.set(u16(checksum ?? complement(plainSum(pseudo, message))), 2);
  return ipPacket({ ...ip, source, destination, protocol }, message);
}

// --- Taking packets apart

export interface TcpPart {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  readonly window: number;
  readonly options: ParsedOptions;
  readonly payload: Uint8Array;
  readonly headerLength: number;
}

export interface ParsedOptions {
  mss?: number;
  wscale?: number;
  sackOk?: boolean;
  timestamps?: { val: number; ecr: number };
  sack?: [number, number][];
}

export interface Packet {
  readonly family: Family;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly protocol: number;
  readonly bytes: Uint8Array;
  readonly l4: Uint8Array;
  readonly tcp?: TcpPart;
  readonly udp?: { sourcePort: number; destinationPort: number; payload: Uint8Array };
  readonly icmp?: { type: number; code: number; rest: number; data: Uint8Array };
  /** When it left, ms of virtual time. */
  at: number;
  /** The IP packets that it came in, when there were several. */
  fragments?: Fragment[];
}

/** One fragment of a datagram that the stack sent. */
export interface Fragment {
  readonly key: string;
  readonly id: number;
  readonly offset: number;
  readonly more: boolean;
  readonly bytes: Uint8Array;
  readonly data: Uint8Array;
}

function demand(condition: boolean, text: string): asserts condition {
  if (!condition) throw new Error(`bad packet from the stack: ${text}`);
}

/** The fragment that a packet is, or null; its IP header is checked. */
export function dissectFragment(bytes: Uint8Array): Fragment | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const isIpv4 = (bytes[0] as number) >>> 4 === 4;
  if (isIpv4 ? (view.getUint16(6) & 0x3fff) === 0 : bytes[6] !== 44) return null;
  const data = bytes.subarray(isIpv4 ? 20 : 48);
  let id: number;
  let offset: number;
  let more: boolean;
  if (isIpv4) {
    demand(bytes[0] === 0x45 && view.getUint16(2) === bytes.length, "header of a fragment");
    demand(plainSum(bytes.subarray(0, 20)) === 0xffff, "IPv4 header checksum of a fragment");
    demand((view.getUint16(6) & 0xc000) === 0, "DF in a fragment");
    id = view.getUint16(4);
    demand(id !== 0, "identification 0 in a fragment");
    offset = (view.getUint16(6) & 0x1fff) * 8;
    more = (view.getUint16(6) & 0x2000) !== 0;
  } else {
    demand(view.getUint16(4) === bytes.length - 40, "payload length of a fragment");
    demand((view.getUint16(42) & 6) === 0 && bytes[41] === 0, "reserved bits of a fragment header");
    id = view.getUint32(44);
    offset = view.getUint16(42) & 0xfff8;
    more = (view.getUint16(42) & 1) !== 0;
  }
  demand(data.length > 0 && (!more || data.length % 8 === 0), `${data.length} bytes in a fragment`);
  const key = `${isIpv4 ? `${bytes[9]} ${bytes.slice(12, 20)}` : bytes.slice(8, 40)} ${id}`;
  return { key, id, offset, more, bytes, data };
}

/** The packet that fragments make when they are put together, in any order; null while one is missing. */
export function joinFragments(fragments: readonly Fragment[]): Uint8Array | null {
  const sorted = [...fragments].sort((a, b) => a.offset - b.offset);
  let end = 0;
  for (const { offset, data } of sorted) {
    if (offset !== end) return null;
    end += data.length;
  }
  const [first] = sorted;
  if (first === undefined || sorted[sorted.length - 1]?.more) return null;
  const isIpv4 = (first.bytes[0] as number) >>> 4 === 4;
  const header = first.bytes.slice(0, isIpv4 ? 20 : 40);
  const view = new DataView(header.buffer);
  if (isIpv4) {
    view.setUint16(2, 20 + end);
    view.setUint16(6, 0);
    view.setUint16(10, 0);
    view.setUint16(10, complement(plainSum(header)));
  } else {
    header[6] = first.bytes[40] as number;
    view.setUint16(4, end);
  }
  return join(header, ...sorted.map(({ data }) => data));
}

/**
 * Takes a packet of the stack apart and checks everything in it that can be right or wrong.
 * @param seeded whether the device is to complete the TCP or UDP checksum: then the field holds the pseudo-header's sum
 * @param joined whether it was put together of fragments
 */
export function dissect(bytes: Uint8Array, seeded = false, joined = false): Packet {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const family = (bytes[0] as number) >>> 4;
  demand(family === 4 || family === 6, `IP version ${family}`);
  let l4: Uint8Array;
  let protocol: number;
  let source: Uint8Array;
  let destination: Uint8Array;
  if (family === 4) {
    demand(bytes[0] === 0x45, `IHL ${(bytes[0] as number) & 15}`);
    demand(view.getUint16(2) === bytes.length, `total length ${view.getUint16(2)} of ${bytes.length} bytes`);
    demand(plainSum(bytes.subarray(0, 20)) === 0xffff, "IPv4 header checksum");
    demand((bytes[8] as number) === 64, `TTL ${bytes[8]}`);
    protocol = bytes[9] as number;
    // RFC 6864 §4: what may be cut on the way has an identification.
    if (protocol === 1 || joined) demand(view.getUint16(6) === 0 && view.getUint16(4) !== 0, "ICMP with DF, or no id");
    else demand(view.getUint16(6) === 0x4000 && view.getUint16(4) === 0, "DF is not set, or an id is");
    source = bytes.slice(12, 16);
    destination = bytes.slice(16, 20);
    l4 = bytes.subarray(20);
  } else {
    demand(view.getUint16(4) === bytes.length - 40, `payload length ${view.getUint16(4)} of ${bytes.length - 40}`);
    demand((bytes[7] as number) === 64, `hop limit ${bytes[7]}`);
    protocol = bytes[6] as number;
    source = bytes.slice(8, 24);
    destination = bytes.slice(24, 40);
    l4 = bytes.subarray(40);
  }
  const pseudo = pseudoHeader(source, destination, protocol, l4.length);
  const packet = { family: family as Family, source, destination, protocol, bytes, l4, at: 0 };
  const l4View = new DataView(bytes.buffer, l4.byteOffset, l4.length);
  if (protocol === 6) {
    const seed = l4View.getUint16(16);
    if (seeded) demand(seed === plainSum(pseudo), "TCP checksum seed");
    else demand(plainSum(pseudo, l4) === 0xffff, "TCP checksum");
    return { ...packet, tcp: dissectTcp(l4, l4View) };
  }
  if (protocol === 17) {
    demand(l4View.getUint16(4) === l4.length, "UDP length");
    const seed = l4View.getUint16(6);
    demand(seed !== 0, "UDP checksum is zero");
    if (seeded) demand(seed === plainSum(pseudo), "UDP checksum seed");
    else demand(plainSum(pseudo, l4) === 0xffff, "UDP checksum");
    const udp = { sourcePort: l4View.getUint16(0), destinationPort: l4View.getUint16(2), payload: l4.slice(8) };
    return { ...packet, udp };
  }
  demand(protocol === (family === 4 ? 1 : 58), `protocol ${protocol}`);
  demand(plainSum(family === 4 ? new Uint8Array(0) : pseudo, l4) === 0xffff, "ICMP checksum");
  const icmp = { type: l4[0] as number, code: l4[1] as number, rest: l4View.getUint32(4), data: l4.slice(8) };
  return { ...packet, icmp };
}

function dissectTcp(l4: Uint8Array, view: DataView): TcpPart {
  const headerLength = ((l4[12] as number) >>> 4) * 4;
  demand(headerLength >= 20 && headerLength <= l4.length, `TCP data offset ${headerLength}`);
  demand(((l4[12] as number) & 15) === 0, "reserved bits");
  demand(view.getUint16(18) === 0, "urgent pointer");
  const options: ParsedOptions = {};
  for (let at = 20; at < headerLength; ) {
    const kind = l4[at] as number;
    if (kind === 1) {
      at++;
      continue;
    }
    demand(kind !== 0, "end of options: padding is by NOP here");
    const length = l4[at + 1] as number;
    demand(length >= 2 && at + length <= headerLength, `option ${kind} of length ${length}`);
    if (kind === 2) options.mss = view.getUint16(at + 2);
    else if (kind === 3) options.wscale = l4[at + 2] as number;
    else if (kind === 4) options.sackOk = true;
    else if (kind === 5) {
      options.sack = [];
      for (let i = at + 2; i < at + length; i += 8) options.sack.push([view.getInt32(i), view.getInt32(i + 4)]);
      demand(options.sack.length >= 1 && options.sack.length <= 4, "SACK blocks");
    } else if (kind === 8) options.timestamps = { val: view.getInt32(at + 2), ecr: view.getInt32(at + 6) };
    else demand(false, `unknown option ${kind}`);
    at += length;
  }
  const flags = l4[13] as number;
  if ((flags & Flag.S) === 0) {
    demand(options.mss === undefined && options.wscale === undefined && !options.sackOk, "SYN options without SYN");
  }
  return {
    sourcePort: view.getUint16(0),
    destinationPort: view.getUint16(2),
    seq: view.getInt32(4),
    ack: view.getInt32(8),
    flags,
    window: view.getUint16(14),
    options,
    payload: l4.slice(headerLength),
    headerLength,
  };
}

/** Options in packetdrill's words: `mss 1460,nop,wscale 7,sackOK,TS val 1 ecr 0,sack 1:2 5:6,hex 0204`. */
export function tcpOptions(text: string, irs = 0, tsBase = 0): Uint8Array {
  const bytes: number[] = [];
  for (const part of text.split(",").map((option) => option.trim())) {
    const words = part.split(/\s+/);
    switch (words[0]) {
      case "":
        break;
      case "nop":
        bytes.push(1);
        break;
      case "eol":
        bytes.push(0);
        break;
      case "mss":
        bytes.push(2, 4, ...u16(Number(words[1])));
        break;
      case "wscale":
        bytes.push(3, 3, Number(words[1]));
        break;
      case "sackOK":
        bytes.push(4, 2);
        break;
      case "TS":
        bytes.push(8, 10, ...u32(Number(words[2])), ...u32(Number(words[4]) + tsBase));
        break;
      case "sack":
        bytes.push(5, 2 + 8 * (words.length - 1));
        for (const block of words.slice(1)) {
          const [left = "", right = ""] = block.split(":");
          bytes.push(...u32(Number(left) + irs), ...u32(Number(right) + irs));
        }
        break;
      case "hex":
        bytes.push(...(words[1] ?? "").match(/../g)!.map((pair) => Number.parseInt(pair, 16)));
        break;
      default:
        throw new Error(`script: unknown option ${part}`);
    }
  }
  while (bytes.length % 4 !== 0) bytes.push(0);
  return Uint8Array.from(bytes);
}

// --- The stack in virtual time

export interface KitOptions {
  readonly family?: Family;
  readonly tcp?: TcpOptions;
  readonly mtu?: number;
  readonly offload?: StackOptions["offload"];
  readonly slab?: Slab;
  readonly slabBytes?: number;
  readonly seed?: number;
  /** The client's and the stack's initial sequence number. */
  readonly irs?: number;
  readonly iss?: number;
  /** Whether packets stay in the stack until `take()`. */
  readonly manual?: boolean;
}

/** One slab for most tests: a stack that does not give everything back fails the test it is in. */
let sharedSlab = new Slab(8 << 20);

/** After a failure: what the failed stack holds must not fail the next test. */
export function renewSlab(): void {
  sharedSlab = new Slab(8 << 20);
}

/** A stack, its clock, and what came out of it. */
export class Kit {
  readonly stack: Stack;
  readonly slab: Slab;
  readonly family: Family;
  readonly iss: number;
  readonly #available: number;
  readonly #seeded: boolean;
  readonly #manual: boolean;
  readonly #mtu: number;
  /** Fragments of the stack whose datagrams are not complete. */
  readonly #fragments: Map<string, Fragment[]> = new Map();
  /** Virtual time, ms. */
  now = 1000;
  /** Packets that left and were not looked at. */
  out: Packet[] = [];
  /** Segment sizes of the packets in `out` (0 for plain packets). */
  readonly segmentSizes: Map<Packet, number> = new Map();
  /** Flows that were announced. */
  readonly flows: TcpConnection[] = [];
  /** Ready bits by flow, gathered. */
  readonly ready: Map<TcpConnection, number> = new Map();
  readonly log: string[] = [];

  constructor(options: KitOptions = {}) {
    this.family = options.family ?? 4;
    this.iss = options.iss ?? 0;
    this.slab = options.slab ?? (options.slabBytes === undefined ? sharedSlab : new Slab(options.slabBytes));
    this.#available = this.slab.available;
    this.#seeded = options.offload?.checksum ?? false;
    this.#manual = options.manual ?? false;
    this.#mtu = options.mtu ?? 1500;
    const iss = this.iss;
    this.stack = new Stack({
      random: seededRandom(options.seed ?? 1),
      slab: this.slab,
      ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
      ...(options.offload === undefined ? {} : { offload: options.offload }),
      tcp: options.iss === undefined ? { ...options.tcp } : { isn: () => iss, ...options.tcp },
    });
  }

  /** Gives the stack a packet, then takes what it has to say. */
  deliver(packet: Uint8Array): boolean {
    const taken = this.stack.receive(packet, this.now);
    // The buffer is the caller's again: whatever the stack kept must not change with it.
    packet.fill(0xee);
    this.drain();
    return taken;
  }

  /** Gives the stack a packet as a device does that has checked it and perhaps joined several. */
  deliverReference(packet: Uint8Array, segmentSize: number, trusted = true): boolean {
    const block = this.slab.take();
    if (block < 0) throw new Error("no block left for the device");
    this.slab.bytes.set(packet, block);
    const taken = this.stack.receiveReference(block, block + packet.length, trusted, segmentSize, this.now);
    this.slab.release(block);
    this.drain();
    return taken;
  }

  /** Takes packets and ready flows out of the stack. */
  drain(): void {
    for (let flow = this.stack.nextReady(); flow !== null; flow = this.stack.nextReady()) {
      if (!this.ready.has(flow)) this.flows.push(flow);
      this.ready.set(flow, (this.ready.get(flow) ?? 0) | flow.takeReady());
    }
    if (!this.#manual) this.take();
  }

  /** Moves packets from the stack to `out`. */
  take(): void {
    const { queue } = this.stack;
    for (let count = this.stack.fill(); count > 0; count = this.stack.fill()) {
      for (let i = 0; i < count; i++) {
        const bytes = new Uint8Array(queue.packetLength(i));
        queue.copyPacket(i, bytes);
        const seeded = this.#seeded && (queue.checksumStart[i] as number) > 0;
        const fragment = dissectFragment(bytes);
        if (fragment !== null) {
          demand(bytes.length <= this.#mtu, `a fragment of ${bytes.length} bytes`);
          demand(!seeded && queue.segmentSize[i] === 0, "offload on a fragment");
          this.#addFragment(fragment);
          continue;
        }
        const packet = dissect(bytes, seeded);
        packet.at = this.now;
        this.segmentSizes.set(packet, queue.segmentSize[i] as number);
        this.out.push(packet);
      }
      queue.clear();
    }
  }

  #addFragment(fragment: Fragment): void {
    const fragments = this.#fragments.get(fragment.key) ?? [];
    fragments.push(fragment);
    this.#fragments.set(fragment.key, fragments);
    const bytes = joinFragments(fragments);
    if (bytes === null) return;
    this.#fragments.delete(fragment.key);
    this.out.push({ ...dissect(bytes, false, true), at: this.now, fragments });
  }

  /** Runs timers until `until` ms, or until a packet leaves when `stopAtPacket`. */
  advance(until: number, stopAtPacket = false): void {
    for (let i = 0; ; i++) {
      if (stopAtPacket && this.out.length > 0) return;
      const next = this.stack.nextTimeout();
      if (!(next <= until)) break;
      if (next < this.now && i > 100_000) throw new Error(`nextTimeout() stays at ${next}, now is ${this.now}`);
      if (i > 1_000_000) throw new Error("the clock does not get on");
      if (next === this.now && this.#stuckAt === next) throw new Error(`handleTimeout(${next}) left ${next} armed`);
      this.#stuckAt = next;
      this.now = Math.max(this.now, next);
      this.stack.handleTimeout(this.now);
      this.drain();
    }
    this.#stuckAt = -1;
    this.now = Math.max(this.now, until);
    this.stack.advance(this.now);
    this.drain();
  }
  #stuckAt = -1;

  /** Takes the packets that left. */
  takeOut(): Packet[] {
    return this.out.splice(0);
  }

  /** Checks what must hold at the end of every test. */
  finish(): void {
    const stats = this.stack.stats();
    const complaints: string[] = [];
    const demandZero = (what: string, value: number): void => {
      if (value !== 0) complaints.push(`${what} is ${value} at the end`);
    };
    demandZero("impossibleTransitions", stats.impossibleTransitions);
    if (Object.keys(stats.flows).length === 0) {
      demandZero("timersArmed without flows and fragments", stats.timersArmed - stats.fragments.datagrams);
      const unread = this.flows.reduce((sum, flow) => sum + flow.readable, 0);
      demandZero("bytesBuffered beyond what is unread", stats.bytesBuffered - unread);
    }
    demandZero("fragments that belong to nothing", this.#fragments.size);
    this.stack.close();
    const closed = this.stack.stats();
    demandZero("timersArmed after close()", closed.timersArmed);
    demandZero("bytesBuffered after close()", closed.bytesBuffered);
    demandZero("flows after close()", Object.keys(closed.flows).length);
    demandZero("blocks lost after close()", this.#available - this.slab.available);
    if (complaints.length > 0) throw new Error(complaints.join("; "));
  }
}

// --- Scripts

/** ISN pairs (client, stack) under which scripts run: plain, across 2^31, across 2^32, both at their last number. */
export const ISN_PAIRS: readonly (readonly [number, number])[] = [
  [1000, 5000],
  [0x7ffffff0, 0x7fffff00],
  [0xffffff00, 0xfffffff8],
  [0x7fffffff, 0xffffffff],
];

const LETTERS: readonly (readonly [string, number])[] = [
  ["S", Flag.S],
  ["F", Flag.F],
  ["R", Flag.R],
  ["P", Flag.P],
  ["U", Flag.U],
  ["E", Flag.E],
  ["W", Flag.W],
  [".", Flag.A],
];

function parseFlags(text: string): number {
  if (text === "-") return 0;
  let flags = 0;
  for (const letter of text) {
    const found = LETTERS.find(([name]) => name === letter);
    if (found === undefined) throw new Error(`script: unknown flag ${letter}`);
    flags |= found[1];
  }
  return flags;
}

const SEGMENT =
  /^([A-Z.-]+)\s+(=?)(-?\d+):(-?\d+)\((\d+)\)(?:\s+ack\s+(-?\d+))?(?:\s+win\s+(\d+))?(?:\s+urg\s+(\d+))?(?:\s+seg\s+(\d+))?(?:\s+<([^>]*)>)?$/;
/** A timer may fire this much late: the tick of the wheel. */
const TICK_MS = 4;

/**
 * One flow under a script, in packetdrill's notation: a line is `[+seconds] < segment` (the client sends),
 * `[+seconds] > segment` (the stack must send, and nothing else before it), or a command of the flow's owner. Times are
 * relative to the line before. Sequence numbers are relative to the sender's initial one; before the stack has one its
 * numbers are absolute, as are those marked `=`. What an expected segment leaves out is not looked at, but for its flags,
 * numbers and payload.
 *
 * Commands: `accept`, `reject R`, `write N`, `read N`, `end`, `close`, `abort`, `state S`, `ready a,b`, `gone [error]`,
 * `drops reason N`.
 */
export class Drill extends Kit {
  readonly irs: number;
  #issBase = 0;
  #tsBase: number | null = null;
  /** The flow of the script: the newest. */
  get flow(): TcpConnection {
    const flow = this.flows[this.flows.length - 1];
    if (flow === undefined) throw new Error("no flow was announced");
    return flow;
  }
  #written = 0;
  #read = 0;
  #sourcePort = CLIENT_PORT;

  constructor(options: KitOptions = {}) {
    super({ iss: 5000, ...options });
    this.irs = options.irs ?? 1000;
  }

  /** The MSS that the stack announces. */
  get mss(): number {
    return 1500 - (this.family === 4 ? 40 : 60);
  }

  /** A fresh flow from another port. */
  use(port: number): void {
    this.#sourcePort = port;
    this.#written = 0;
    this.#read = 0;
    this.#issBase = 0;
    this.#tsBase = null;
  }

  /** SYN, accept, SYN-ACK, ACK. */
  establish(options = "mss 1000", window = 65535): void {
    this.run(`
      < S 0:0(0) win ${window} <${options}>
      accept
      > S. 0:0(0) ack 1
      < . 1:1(0) ack 1 win ${window}${options.includes("TS") ? " <TS val 1 ecr 0>" : ""}
      state ESTABLISHED
    `);
  }

  /** Runs the lines of a script. */
  run(script: string): void {
    for (const raw of script.split("\n")) {
      const line = raw.replace(/\/\/.*$/, "").trim();
      if (line === "") continue;
      try {
        this.#line(line);
      } catch (error) {
        // What the kit throws says enough; anything else is a fault of the stack, and its place matters.
        const isOurs = error instanceof Error && error.constructor === Error;
        const text = error instanceof Error ? (isOurs ? error.message : (error.stack ?? "")) : String(error);
        throw new Error(`at "${line}": ${text}\nlog:\n${this.log.join("\n")}`);
      }
    }
    const [extra] = this.out;
    if (extra !== undefined) throw new Error(`unexpected ${this.show(extra)}\nlog:\n${this.log.join("\n")}`);
  }

  #line(line: string): void {
    const [, seconds = "0", rest = ""] = /^(?:\+([\d.]+)\s+)?(.*)$/.exec(line) ?? [];
    const wait = Number(seconds) * 1000;
    if (rest.startsWith(">")) {
      this.#expect(rest.slice(1).trim(), wait);
      return;
    }
    if (wait > 0 && this.out.length === 0) this.advance(this.now + wait, true);
    const [extra] = this.out;
    if (extra !== undefined) throw new Error(`unexpected ${this.show(extra)}`);
    if (rest.startsWith("<")) this.#inject(rest.slice(1).trim());
    else if (rest !== "") this.#command(rest);
  }

  #inject(text: string): void {
    const [, flagText = "", , from = "0", , length = "0", ack, window, urgent, segmentSize, options = ""] =
      SEGMENT.exec(text) ?? [];
    if (flagText === "") throw new Error(`script: not a segment: ${text}`);
    const flags = parseFlags(flagText);
    const seq = Number(from);
    const packet = tcpPacket(this.family, {
      sourcePort: this.#sourcePort,
      seq: seq + this.irs,
      ack: ack === undefined ? 0 : Number(ack) + this.#issBase,
      flags,
      window: Number(window ?? 65535),
      urgent: Number(urgent ?? 0),
      options: tcpOptions(options, this.#issBase, this.#tsBase ?? 0),
      payload: streamBytes(0, seq - 1 + ((flags & Flag.S) !== 0 ? 1 : 0), Number(length)),
    });
    this.log.push(`${(this.now / 1000).toFixed(3)} < ${text}`);
    if (segmentSize === undefined) this.deliver(packet);
    else this.deliverReference(packet, Number(segmentSize));
  }

  #expect(text: string, wait: number): void {
    const due = this.now + wait;
    if (this.out.length === 0) this.drain();
    if (this.out.length === 0 && wait > 0) this.advance(due + TICK_MS, true);
    const packet = this.out.shift();
    if (packet === undefined) throw new Error("nothing was sent");
    this.log.push(`${(packet.at / 1000).toFixed(3)} > ${this.show(packet)}`);
    if (packet.at < due - 0.01 || packet.at > due + TICK_MS) {
      throw new Error(`sent at ${packet.at - due} ms from when it was due: ${this.show(packet)}`);
    }
    const { tcp } = packet;
    if (tcp === undefined) throw new Error(`expected TCP: ${this.show(packet)}`);
    const [, flagText = "", absolute = "", from = "0", to = "0", length = "0", ack, window, , segmentSize, options] =
      SEGMENT.exec(text) ?? [];
    if (flagText === "") throw new Error(`script: not a segment: ${text}`);
    const isSynAck = (tcp.flags & (Flag.S | Flag.A)) === (Flag.S | Flag.A);
    if (isSynAck) this.#issBase = this.iss;
    const { timestamps } = tcp.options;
    if (isSynAck && this.#tsBase === null && timestamps !== undefined) this.#tsBase = timestamps.val;
    const problems: string[] = [];
    const compare = (what: string, found: unknown, wanted: unknown): void => {
      if (String(found) !== String(wanted)) problems.push(`${what} is ${found}, expected ${wanted}`);
    };
    compare("flags", showFlags(tcp.flags), showFlags(parseFlags(flagText)));
    const relative = (tcp.seq - (absolute === "" ? this.#issBase : 0)) | 0;
    compare("seq", relative, Number(from));
    compare("length", tcp.payload.length, Number(length));
    if (Number(to) - Number(from) !== Number(length)) throw new Error(`script: ${from}:${to}(${length})`);
    if (ack === undefined) compare("ACK flag", (tcp.flags & Flag.A) !== 0, false);
    else compare("ack", (tcp.ack - this.irs) | 0, Number(ack));
    if (window !== undefined) compare("window", tcp.window, Number(window));
    if (segmentSize !== undefined) compare("segmentSize", this.segmentSizes.get(packet), Number(segmentSize));
    if (options !== undefined) compare("options", this.#showOptions(tcp.options), options.trim());
    if (tcp.payload.length > 0 && !isStream(1, relative - 1, tcp.payload)) problems.push("payload differs");
    if (tcp.sourcePort !== SERVER_PORT || tcp.destinationPort !== this.#sourcePort) problems.push("ports differ");
    compare("source", packet.source, SERVER[this.family]);
    compare("destination", packet.destination, CLIENT[this.family]);
    if (problems.length > 0) throw new Error(`${problems.join("; ")}; sent: ${this.show(packet)}`);
  }

  #command(text: string): void {
    const [name = "", argument = "", second = ""] = text.split(/\s+/);
    this.log.push(`${(this.now / 1000).toFixed(3)}   ${text}`);
    const equal = (found: unknown, wanted: unknown): void => {
      if (found !== wanted) throw new Error(`${name}: found ${found}, expected ${wanted}`);
    };
    this.stack.advance(this.now);
    switch (name) {
      case "accept":
        this.flow.accept();
        break;
      case "reject":
        this.flow.reject(argument as "rst");
        break;
      case "write":
        equal(this.flow.write(streamBytes(1, this.#written, Number(argument))), Number(argument));
        this.#written += Number(argument);
        break;
      case "read": {
        const bytes = this.flow.read(Number(argument)) ?? new Uint8Array(0);
        equal(bytes.length, Number(argument));
        if (!isStream(0, this.#read, bytes)) throw new Error("bytes read differ from those sent");
        this.#read += bytes.length;
        break;
      }
      case "readable":
        equal(this.flow.readable, Number(argument));
        break;
      case "end":
        this.flow.end();
        break;
      case "close":
        this.flow.close();
        break;
      case "abort":
        this.flow.abort();
        break;
      case "state":
        equal(this.flow.state, argument);
        break;
      case "ready":
        equal(showReady(this.takeReady()), argument);
        break;
      case "gone":
        equal(this.flow.state, "CLOSED");
        equal(this.flow.error ?? "", argument);
        break;
      case "drops":
        equal(this.stack.stats().drops[argument] ?? 0, Number(second));
        break;
      default:
        throw new Error(`script: unknown command ${text}`);
    }
    this.drain();
  }

  /** Takes the ready bits of the script's flow. */
  takeReady(): number {
    const bits = this.ready.get(this.flow) ?? 0;
    this.ready.set(this.flow, 0);
    return bits;
  }

  /** A packet in the words of scripts. */
  show(packet: Packet): string {
    const { tcp } = packet;
    if (tcp === undefined) {
      const { udp, icmp } = packet;
      return udp === undefined ? `icmp ${icmp?.type}/${icmp?.code}` : `udp ${udp.payload.length}`;
    }
    const seq = (tcp.seq - this.#issBase) | 0;
    const ack = (tcp.flags & Flag.A) === 0 ? "" : ` ack ${(tcp.ack - this.irs) | 0}`;
    const length = tcp.payload.length;
    const options = this.#showOptions(tcp.options);
    const tail = `win ${tcp.window}${options === "" ? "" : ` <${options}>`}`;
    return `${showFlags(tcp.flags)} ${seq}:${seq + length}(${length})${ack} ${tail}`;
  }

  #showOptions(options: ParsedOptions): string {
    const words: string[] = [];
    if (options.mss !== undefined) words.push(`mss ${options.mss}`);
    if (options.sackOk) words.push("sackOK");
    if (options.timestamps !== undefined) {
      const { val, ecr } = options.timestamps;
      words.push(`TS val ${(val - (this.#tsBase ?? 0)) | 0} ecr ${ecr >>> 0}`);
    }
    if (options.wscale !== undefined) words.push(`wscale ${options.wscale}`);
    if (options.sack !== undefined) {
      const blocks = options.sack.map(([left, right]) => `${(left - this.irs) | 0}:${(right - this.irs) | 0}`);
      words.push(`sack ${blocks.join(" ")}`);
    }
    return words.join(",");
  }
}

function showFlags(flags: number): string {
  const letters = LETTERS.filter(([, bit]) => (flags & bit) !== 0).map(([letter]) => letter);
  return letters.length === 0 ? "-" : letters.join("");
}

const READY_NAMES = ["syn", "established", "readable", "eof", "writable", "closed"] as const;

/** Ready bits as words, `-` for none. */
export function showReady(bits: number): string {
  const names = READY_NAMES.filter((_, i) => (bits & (1 << i)) !== 0);
  return names.length === 0 ? "-" : names.join(",");
}

/** Variants of a script: both families, and sequence numbers around the places where they wrap. */
export function variants(options: KitOptions): KitOptions[] {
  const families: readonly Family[] = options.family === undefined ? [4, 6] : [options.family];
  return families.flatMap((family) => ISN_PAIRS.map(([irs, iss]) => ({ family, irs, iss, ...options })));
}

/** Runs `body` on a fresh flow in every variant, with the checks of `finish` at the end. */
export function drill(t: Tap, name: string, options: KitOptions, body: string | ((d: Drill) => void)): void {
  t.test(name, async (t) => {
    for (const variant of variants(options)) {
      const title = `IPv${variant.family}, ISN ${variant.irs?.toString(16)} and ${variant.iss?.toString(16)}`;
      try {
        const d = new Drill(variant);
        if (typeof body === "string") d.run(body);
        else body(d);
        d.run("");
        d.finish();
      } catch (error) {
        renewSlab();
        t.fail(`${title}: ${error instanceof Error ? error.message : error}`);
        return;
      }
    }
    t.pass("in every variant");
  });
}

/** Blocks of a slab, for tests that count them. */
export const BLOCK: number = BLOCK_BYTES;

/** Throws unless both print alike; for bodies of `drill`. */
export function same(found: unknown, wanted: unknown): void {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) {
    throw new Error(`found ${JSON.stringify(found)}, expected ${JSON.stringify(wanted)}`);
  }
}
