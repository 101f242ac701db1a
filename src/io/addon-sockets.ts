/**
 * Sockets of the native addon.
 *
 * Theory of operation. A handle is an index into columns of integers: descriptor, generation, flags. Streams are watched
 * edge-triggered for input and output from the start, so readiness is remembered here: `readable` until a read finds
 * less than it asked for, `blocked` from a short write until the next output event. Reads of
 * all ready streams go into one input block in one call; writes of all flows leave in one call.
 *
 * What is held: one input block, one block of descriptors, one for small copies. No timers.
 */

import type { IpBytes } from "../stack/flow/address.ts";
import { BLOCK_BYTES, InputBlock, type Slab } from "../stack/memory/index.ts";
import { type Addon, Epoll, Errno, StreamFlag, UdpFlag } from "./addon.ts";
import type { Poller } from "./poller.ts";
import type { Sender, SocketOptions, SocketSink, Sockets } from "./sockets.ts";

/** Tokens of datagram sockets differ from those of streams by this bit. */
const DATAGRAM = 0x4000_0000;

const CONNECTING = 1;
/** Input may be waiting. */
const READABLE = 2;
const PAUSED = 4;
/** In the list of readable handles. */
const LISTED = 8;
/** An error was announced, or urgent data, at whose mark reads stop: read until there is really nothing more. */
const UNSURE = 16;
/** The end of input was reported. */
const ENDED = 32;
/** A write was cut short. */
const BLOCKED = 64;
const OPEN = 128;
/** The peer's FIN is behind what can be read: a read that finds less than it asked for has come to the end. */
const ENDING = 256;
const STREAM = 1024;
/** Our FIN was sent. */
const FIN_SENT = 512;

/** Free bytes a stream read needs: less would make many small reads of a fast stream. */
const READ_ROOM = 32 * 1024;
/** Most bytes read from a stream at once, so that one does not starve the others. */
const READ_MAX = BLOCK_BYTES;
/** And when memory is short. */
const READ_MIN = 4 * 1024;
/** Streams read in one call. */
const READ_BATCH = 256;
/** Blocks that stay free for acknowledgments from the device when sockets read; at most an eighth of the slab. */
const READ_RESERVE = 24;
const ENTRY_WORDS = 4;
const CONNECT_WORDS = 16;
/** The kernel keeps a datagram of this size at most. */
const DATAGRAM_ROOM = 65_536;
const DATAGRAM_META_WORDS = 10;
const DATAGRAM_BATCH = 64;
/** Reads of one datagram socket in a turn, so that a flood does not starve the others. */
const DATAGRAM_ROUNDS = 4;
const DATAGRAM_ENTRY_WORDS = 8;

// The descriptor block: [0, READ) entries of reads and scratch, [READ, BLOCK) queued writes.
const READ_AREA = 16 * 1024;

export class AddonSockets implements Sockets {
  readonly backend: string = "addon";
  readonly sender: Sender = { words: new Int32Array(4), port: 0 };
  readonly words: Int32Array;
  readonly #addon: Addon;
  readonly #slab: Slab;
  readonly #slabId: number;
  readonly #sink: SocketSink;
  readonly #options: SocketOptions;
  readonly #input: InputBlock;
  readonly #area: number;
  readonly #copies: number;
  #copyAt: number;
  #fds: Int32Array = new Int32Array(256).fill(-1);
  #generations: Int32Array = new Int32Array(256);
  #flags: Uint16Array = new Uint16Array(256);
  readonly #free: number[] = [];
  #used = 0;
  #open = 0;
  #readable: number[] = [];
  #readableDatagrams: number[] = [];
  readonly #batch: Int32Array = new Int32Array(READ_BATCH);
  readonly #batchGenerations: Int32Array = new Int32Array(READ_BATCH);
  // Queued stream writes.
  #writeAt: number;
  #writeCount = 0;
  #writeStart = 0;
  readonly #writeHandles: number[] = [];
  // Queued datagrams, all of one handle.
  #datagramHandle = -1;
  #datagramCount = 0;
  #datagramAt: number;
  readonly #datagramArea: number;

  constructor(poller: Poller, sink: SocketSink, options: SocketOptions = {}) {
    this.#addon = poller.addon;
    this.#slab = poller.slab;
    this.#slabId = poller.slabId;
    this.#sink = sink;
    this.#options = options;
    this.words = poller.slab.words;
    this.#input = new InputBlock(poller.slab, Math.min(READ_RESERVE, poller.slab.blocks >> 3));
    this.#area = poller.slab.take();
    this.#copies = poller.slab.take();
    this.#datagramArea = poller.slab.take();
    if (this.#datagramArea < 0) throw new RangeError("slab is too small for sockets");
    this.#copyAt = this.#copies;
    this.#writeAt = (this.#area + READ_AREA) >> 2;
    this.#datagramAt = this.#datagramArea >> 2;
  }

  get open(): number {
    return this.#open;
  }

  connect(address: IpBytes, port: number, first: Uint8Array | null): number {
    const handle = this.#allocate(OPEN | STREAM | CONNECTING);
    const at = this.#fillAddress(address, port);
    const words = this.words;
    words[at + 9] = handle;
    words[at + 10] = this.#generations[handle] as number;
    words[at + 11] = 0;
    words[at + 12] = 0;
    if (first !== null && first.length > 0) {
      words[at + 11] = this.#copy(first, first.length);
      words[at + 12] = first.length;
    }
    const fd = this.#addon.tcpConnect(this.#slabId, at << 2);
    if (fd < 0) {
      this.#forget(handle);
      return fd;
    }
    this.#fds[handle] = fd;
    this.#firstSent = Math.max(0, words[at + 13] as number);
    return handle;
  }

  #firstSent = 0;

  get firstSent(): number {
    return this.#firstSent;
  }

  openDatagram(family: 4 | 6, address: IpBytes | null, port: number): number {
    const handle = this.#allocate(OPEN);
    const at = this.#fillAddress(address ?? (family === 4 ? ANY_IPV4 : ANY_IPV6), port);
    this.words[at + 9] = handle | DATAGRAM;
    this.words[at + 10] = this.#generations[handle] as number;
    this.words[at + 11] = address === null ? UdpFlag.RECVERR : UdpFlag.CONNECT;
    const fd = this.#addon.udpOpen(this.#slabId, at << 2);
    if (fd < 0) {
      this.#forget(handle);
      return fd;
    }
    this.#fds[handle] = fd;
    return handle;
  }

  /** Writes family, port, address and the options of all sockets into the scratch words; returns their index. */
  #fillAddress(address: IpBytes, port: number): number {
    const at = this.#area >> 2;
    const words = this.words;
    words.fill(0, at, at + CONNECT_WORDS);
    words[at] = address.length === 4 ? 4 : 6;
    words[at + 1] = port;
    this.#slab.bytes.set(address, (at + 2) << 2);
    words[at + 7] = this.#options.mark ?? 0;
    words[at + 8] = -1;
    const name = this.#options.interface;
    if (name !== undefined) {
      const nameAt = (at + CONNECT_WORDS) << 2;
      this.#slab.bytes.fill(0, nameAt, nameAt + 16);
      for (let i = 0; i < Math.min(15, name.length); i++) this.#slab.bytes[nameAt + i] = name.charCodeAt(i);
      words[at + 8] = nameAt;
    }
    return at;
  }

  #allocate(flags: number): number {
    let handle = this.#free.pop();
    if (handle === undefined) {
      handle = this.#used++;
      if (handle === this.#fds.length) this.#grow();
    }
    this.#generations[handle] = ((this.#generations[handle] as number) + 1) | 0;
    this.#flags[handle] = flags;
    this.#open++;
    return handle;
  }

  #grow(): void {
    const length = this.#fds.length * 2;
    const fds = new Int32Array(length).fill(-1);
    fds.set(this.#fds);
    this.#fds = fds;
    const generations = new Int32Array(length);
    generations.set(this.#generations);
    this.#generations = generations;
    const flags = new Uint16Array(length);
    flags.set(this.#flags);
    this.#flags = flags;
  }

  #forget(handle: number): void {
    this.#fds[handle] = -1;
    this.#flags[handle] = (this.#flags[handle] as number) & LISTED;
    this.#open--;
    // A handle still in a list of readable ones is given away again only after the list was walked.
    if ((this.#flags[handle] as number) === 0) this.#free.push(handle);
    else this.#parked.push(handle);
  }

  readonly #parked: number[] = [];

  #isOpen(handle: number): boolean {
    return ((this.#flags[handle] as number) & OPEN) !== 0;
  }

  /** An event of the poller for a token of ours. */
  dispatch(token: number, generation: number, events: number): void {
    const handle = token & ~DATAGRAM;
    if (this.#generations[handle] !== generation || !this.#isOpen(handle)) return;
    if ((token & DATAGRAM) !== 0) {
      this.#list(handle, this.#readableDatagrams);
      return;
    }
    let flags = this.#flags[handle] as number;
    if ((flags & CONNECTING) !== 0) {
      if ((events & (Epoll.ERR | Epoll.HUP)) !== 0) {
        const errno = this.#addon.socketError(this.#fds[handle] as number);
        this.#fail(handle, errno > 0 ? errno : Errno.ECONNRESET);
        return;
      }
      if ((events & Epoll.OUT) === 0) return;
      this.#flags[handle] = flags & ~CONNECTING;
      this.#sink.onConnected(handle);
      if (this.#generations[handle] !== generation || !this.#isOpen(handle)) return;
      flags = this.#flags[handle] as number;
    }
    if ((events & (Epoll.ERR | Epoll.PRI)) !== 0) flags |= UNSURE;
    if ((events & (Epoll.RDHUP | Epoll.HUP)) !== 0) flags |= ENDING;
    if ((events & (Epoll.IN | Epoll.PRI | Epoll.RDHUP | Epoll.HUP | Epoll.ERR)) !== 0) flags |= READABLE;
    const unblocked = (flags & BLOCKED) !== 0 && (events & (Epoll.OUT | Epoll.ERR | Epoll.HUP)) !== 0;
    if (unblocked) flags &= ~BLOCKED;
    this.#flags[handle] = flags;
    if ((flags & (READABLE | PAUSED)) === READABLE) this.#list(handle, this.#readable);
    if (unblocked) this.#sink.onWritable(handle);
  }

  #list(handle: number, list: number[]): void {
    const flags = this.#flags[handle] as number;
    if ((flags & LISTED) !== 0) return;
    this.#flags[handle] = flags | LISTED;
    list.push(handle);
  }

  pause(handle: number): void {
    this.#flags[handle] = (this.#flags[handle] as number) | PAUSED;
  }

  resume(handle: number): void {
    const flags = (this.#flags[handle] as number) & ~PAUSED;
    this.#flags[handle] = flags;
    if ((flags & (READABLE | ENDED)) === READABLE) this.#list(handle, this.#readable);
  }

  waitsForMemory = false;

  receive(): boolean {
    this.waitsForMemory = false;
    if (this.#readable.length > 0) this.#receiveStreams();
    if (this.#readableDatagrams.length > 0) this.#receiveDatagrams();
    return !this.waitsForMemory && (this.#readable.length > 0 || this.#readableDatagrams.length > 0);
  }

  #receiveStreams(): void {
    const list = this.#readable;
    this.#readable = [];
    let i = 0;
    while (i < list.length) {
      if (!this.#input.prepare(READ_ROOM)) {
        // No memory: the rest waits for blocks to come back.
        this.waitsForMemory = true;
        for (; i < list.length; i++) this.#readable.push(list[i] as number);
        return;
      }
      i = this.#receiveBatch(list, i);
    }
    this.#unpark();
  }

  /** Handles that were closed while listed can be given away once no list names them. */
  #unpark(): void {
    let kept = 0;
    for (const handle of this.#parked) {
      if (((this.#flags[handle] as number) & LISTED) === 0) this.#free.push(handle);
      else this.#parked[kept++] = handle;
    }
    this.#parked.length = kept;
  }

  /** Reads a batch of streams from `list[from]` on into the input block; returns where to go on. */
  #receiveBatch(list: readonly number[], from: number): number {
    const words = this.words;
    const listAt = this.#area >> 2;
    let count = 0;
    let i = from;
    for (; i < list.length && count < READ_BATCH; i++) {
      const handle = list[i] as number;
      const flags = (this.#flags[handle] as number) & ~LISTED;
      this.#flags[handle] = flags;
      if ((flags & OPEN) === 0 || (flags & (PAUSED | READABLE | ENDED)) !== READABLE) continue;
      words[listAt + count * ENTRY_WORDS] = this.#fds[handle] as number;
      this.#batch[count] = handle;
      this.#batchGenerations[count] = this.#generations[handle] as number;
      count++;
    }
    if (count === 0) return i;
    const input = this.#input;
    const done = this.#addon.streamRead(
      this.#slabId,
      listAt << 2,
      count,
      input.position,
      input.limit,
      Math.min(READ_MAX, Math.max(READ_MIN, this.#slab.fairShare)),
      READ_ROOM,
    );
    // The callbacks may reuse the scratch words: note where reading ended before they run.
    let end = input.position;
    const results = this.#results;
    for (let k = 0; k < done * ENTRY_WORDS; k++) results[k] = words[listAt + k] as number;
    for (let k = 0; k < done; k++) {
      const result = results[k * ENTRY_WORDS + 1] as number;
      if (result > 0) end = (results[k * ENTRY_WORDS + 2] as number) + result;
    }
    // What did not fit comes first next time.
    for (let k = Math.max(0, done); k < count; k++) this.#list(this.#batch[k] as number, this.#readable);
    const block = input.offset;
    this.#slab.retain(block);
    input.advanceTo(end);
    for (let k = 0; k < done; k++) {
      const handle = this.#batch[k] as number;
      if (this.#generations[handle] !== this.#batchGenerations[k] || !this.#isOpen(handle)) continue;
      this.#deliver(
        handle,
        results[k * ENTRY_WORDS + 1] as number,
        results[k * ENTRY_WORDS + 2] as number,
        results[k * ENTRY_WORDS + 3] as number,
      );
    }
    this.#slab.release(block);
    return i;
  }

  readonly #results: Int32Array = new Int32Array(READ_BATCH * ENTRY_WORDS);

  #deliver(handle: number, result: number, offset: number, asked: number): void {
    const flags = this.#flags[handle] as number;
    if (result > 0) {
      const generation = this.#generations[handle];
      // Less than asked for: the socket is empty. FIN had arrived before the read, so then this was the last of it.
      const isLast = result < asked && (flags & (ENDING | UNSURE)) === ENDING;
      if (isLast) this.#flags[handle] = (flags | ENDED) & ~READABLE;
      else if (result < asked && (flags & UNSURE) === 0) this.#flags[handle] = flags & ~READABLE;
      else if ((flags & PAUSED) === 0) this.#list(handle, this.#readable);
      this.#sink.onData(handle, offset, result);
      if (isLast && this.#generations[handle] === generation && this.#isOpen(handle)) this.#sink.onEnd(handle);
    } else if (result === 0) {
      this.#flags[handle] = (flags | ENDED) & ~READABLE;
      this.#sink.onEnd(handle);
    } else if (result === -Errno.EAGAIN) {
      this.#flags[handle] = flags & ~READABLE;
    } else {
      this.#fail(handle, -result);
    }
  }

  #fail(handle: number, errno: number): void {
    this.close(handle);
    this.#sink.onError(handle, errno);
  }

  #receiveDatagrams(): void {
    const list = this.#readableDatagrams;
    this.#readableDatagrams = [];
    for (const handle of list) {
      this.#flags[handle] = (this.#flags[handle] as number) & ~LISTED;
      const generation = this.#generations[handle];
      for (let round = 0; ; round++) {
        if (!this.#isOpen(handle) || this.#generations[handle] !== generation) break;
        const hasRoom = this.#input.prepare(DATAGRAM_ROOM);
        if (!hasRoom) this.waitsForMemory = true;
        if (round === DATAGRAM_ROUNDS || !hasRoom) {
          this.#list(handle, this.#readableDatagrams);
          break;
        }
        if (!this.#receiveDatagramBatch(handle)) break;
      }
    }
    this.#unpark();
  }

  /** Scratch words for what the addon tells of datagrams. */
  get #metaAt(): number {
    return (this.#area >> 2) + READ_BATCH * ENTRY_WORDS;
  }

  /** Reads one batch; returns false when the socket is empty or failed. */
  #receiveDatagramBatch(handle: number): boolean {
    const input = this.#input;
    const metaAt = this.#metaAt;
    const count = this.#addon.udpRead(
      this.#fds[handle] as number,
      this.#slabId,
      input.position,
      input.limit,
      metaAt << 2,
      DATAGRAM_BATCH,
    );
    if (count === 0) return false;
    if (count < 0) {
      if (!this.#reportQueuedErrors(handle) && this.#isOpen(handle)) {
        this.sender.port = 0;
        this.#sink.onDatagramError(handle, -count);
      }
      return true;
    }
    const words = this.words;
    const last = metaAt + (count - 1) * DATAGRAM_META_WORDS;
    const block = input.offset;
    this.#slab.retain(block);
    input.advanceTo((words[last] as number) + (words[last + 1] as number));
    for (let i = 0; i < count && this.#isOpen(handle); i++) {
      const at = metaAt + i * DATAGRAM_META_WORDS;
      this.#takeSender(at);
      this.#sink.onDatagram(handle, words[at] as number, words[at + 1] as number);
    }
    this.#slab.release(block);
    return true;
  }

  /** Tells the sink of the errors that the kernel has kept, each with the destination concerned. @returns whether any */
  #reportQueuedErrors(handle: number): boolean {
    const { words } = this;
    const metaAt = this.#metaAt;
    const fd = this.#fds[handle] as number;
    let told = false;
    while (this.#isOpen(handle) && this.#addon.udpReadError(fd, this.#slabId, metaAt << 2) === 1) {
      // Ten words: errno, origin, type and code, info, then family, port and address as of a sender.
      this.#takeSender(metaAt + 2);
      told = true;
      this.#sink.onDatagramError(handle, words[metaAt] as number);
    }
    return told;
  }

  /** Takes the address whose family stands at `words[at + 2]`, with port and address behind it. */
  #takeSender(at: number): void {
    const { sender, words } = this;
    const { view } = this.#slab;
    sender.port = words[at + 3] as number;
    const address = (at + 4) << 2;
    if (words[at + 2] === 4) {
      sender.words[0] = 0;
      sender.words[1] = 0;
      sender.words[2] = 0xffff;
      sender.words[3] = view.getInt32(address);
    } else {
      for (let i = 0; i < 4; i++) sender.words[i] = view.getInt32(address + 4 * i);
    }
  }

  /** Copies a few bytes to where they stay until the next `flush`; returns their offset, or -1 when there is no room. */
  #copy(bytes: Uint8Array, length: number): number {
    if (this.#copyAt + length > this.#copies + BLOCK_BYTES) return -1;
    const at = this.#copyAt;
    this.#slab.bytes.set(length === bytes.length ? bytes : bytes.subarray(0, length), at);
    this.#copyAt = at + length;
    return at;
  }

  beginWrite(handle: number, maxRefs: number): number {
    if ((this.#writeAt + ENTRY_WORDS + 2 * maxRefs) << 2 > this.#area + BLOCK_BYTES) return -1;
    this.#writeStart = this.#writeAt;
    this.words[this.#writeStart] = this.#fds[handle] as number;
    this.#writeHandles[this.#writeCount] = handle;
    return this.#writeStart + ENTRY_WORDS;
  }

  endWrite(refs: number, end: boolean): void {
    const at = this.#writeStart;
    this.words[at + 1] = end ? StreamFlag.SHUTDOWN : 0;
    this.words[at + 2] = refs;
    this.words[at + 3] = 0;
    this.#writeAt = at + ENTRY_WORDS + 2 * refs;
    this.#writeCount++;
  }

  writeBytes(handle: number, bytes: Uint8Array): boolean {
    const at = this.beginWrite(handle, 1);
    if (at < 0) return false;
    const offset = this.#copy(bytes, bytes.length);
    if (offset < 0) return false;
    this.words[at] = offset;
    this.words[at + 1] = bytes.length;
    this.endWrite(1, false);
    return true;
  }

  sendDatagram(
    handle: number,
    address: IpBytes | null,
    port: number,
    head: Uint8Array | null,
    headLength: number,
    offset: number,
    length: number,
  ): void {
    const full = (this.#datagramAt + DATAGRAM_ENTRY_WORDS + 4) << 2 > this.#datagramArea + BLOCK_BYTES;
    if (this.#datagramHandle !== handle || full) this.#flushDatagrams();
    let headAt = -1;
    if (head !== null) {
      headAt = this.#copy(head, headLength);
      if (headAt < 0) {
        this.flush();
        headAt = this.#copy(head, headLength);
      }
    }
    // What was flushed may have closed this very socket.
    if (!this.#isOpen(handle)) return;
    this.#datagramHandle = handle;
    const words = this.words;
    const at = this.#datagramAt;
    words[at + 1] = address === null ? 0 : address.length === 4 ? 4 : 6;
    words[at + 2] = port;
    if (address !== null) this.#slab.bytes.set(address, (at + 3) << 2);
    words[at + 7] = 0;
    let ref = at + DATAGRAM_ENTRY_WORDS;
    if (headAt >= 0) {
      words[ref++] = headAt;
      words[ref++] = headLength;
    }
    if (length > 0) {
      words[ref++] = offset;
      words[ref++] = length;
    }
    words[at] = (ref - at - DATAGRAM_ENTRY_WORDS) >> 1;
    this.#datagramAt = ref;
    this.#datagramCount++;
  }

  #flushDatagrams(): void {
    const handle = this.#datagramHandle;
    let left = this.#datagramCount;
    let at = this.#datagramArea >> 2;
    const end = this.#datagramAt;
    this.#datagramHandle = -1;
    this.#datagramCount = 0;
    this.#datagramAt = at;
    if (left === 0 || !this.#isOpen(handle)) return;
    const fd = this.#fds[handle] as number;
    let isRetry = false;
    while (left > 0) {
      const sent = this.#addon.udpWrite(fd, this.#slabId, at << 2, (end - at) << 2, left);
      if (sent < 0 && sent !== -Errno.EAGAIN) {
        // An error that was pending is of an earlier datagram: then this one has not been tried yet.
        const wasPending = this.#reportQueuedErrors(handle);
        if (!this.#isOpen(handle)) return;
        if (wasPending && !isRetry) {
          isRetry = true;
          continue;
        }
        if (!wasPending) {
          this.#takeSender(at - 1);
          this.#sink.onDatagramError(handle, -sent);
        }
      }
      isRetry = false;
      // A datagram that the kernel does not take is lost, as datagrams may be; the ones behind it are not.
      const skip = Math.max(1, sent);
      for (let i = 0; i < skip && left > 0; i++, left--) {
        at += DATAGRAM_ENTRY_WORDS + 2 * (this.words[at] as number);
      }
      if (!this.#isOpen(handle)) return;
    }
  }

  flush(): void {
    this.#flushDatagrams();
    const count = this.#writeCount;
    if (count > 0) this.#flushStreams(count);
    this.#copyAt = this.#copies;
  }

  #flushStreams(count: number): void {
    const start = (this.#area + READ_AREA) >> 2;
    const end = this.#writeAt;
    const words = this.words;
    this.#writeCount = 0;
    this.#addon.streamWrite(this.#slabId, start << 2, (end - start) << 2, count);
    let at = start;
    for (let i = 0; i < count; i++) {
      const handle = this.#writeHandles[i] as number;
      const flags = words[at + 1] as number;
      const refs = words[at + 2] as number;
      const result = words[at + 3] as number;
      let length = 0;
      for (let ref = 0; ref < refs; ref++) length += words[at + ENTRY_WORDS + 2 * ref + 1] as number;
      at += ENTRY_WORDS + 2 * refs;
      if (handle < 0 || !this.#isOpen(handle)) continue;
      if (result < 0 && result !== -Errno.EAGAIN) {
        this.#fail(handle, -result);
        continue;
      }
      const sent = Math.max(0, result);
      const ended = (flags & StreamFlag.SHUTDOWN) !== 0 && sent === length;
      if (sent < length) this.#flags[handle] = (this.#flags[handle] as number) | BLOCKED;
      if (ended) this.#flags[handle] = (this.#flags[handle] as number) | FIN_SENT;
      this.#sink.onSent(handle, sent, length, ended);
    }
    this.#writeAt = start;
    this.#writeCount = 0;
  }

  peer(handle: number): { readonly address: IpBytes; readonly port: number } | null {
    const at = this.#area >> 2;
    if (this.#addon.socketName(this.#fds[handle] as number, 1, this.#slabId, at << 2) < 0) return null;
    const length = this.words[at] === 4 ? 4 : 16;
    const from = (at + 2) << 2;
    return { address: this.#slab.bytes.slice(from, from + length), port: this.words[at + 1] as number };
  }

  close(handle: number): void {
    if (!this.#isOpen(handle)) return;
    if (this.#datagramHandle === handle) this.#flushDatagrams();
    this.#cancelWrites(handle);
    this.#addon.close(this.#fds[handle] as number);
    this.#forget(handle);
  }

  reset(handle: number): void {
    if (!this.#isOpen(handle)) return;
    this.#cancelWrites(handle);
    this.#addon.socketReset(this.#fds[handle] as number);
    this.#forget(handle);
  }

  /** Voids queued writes of a handle: its descriptor's number may belong to another socket when they are carried out. */
  #cancelWrites(handle: number): void {
    const { words } = this;
    let at = (this.#area + READ_AREA) >> 2;
    for (let i = 0; i < this.#writeCount; i++) {
      if (this.#writeHandles[i] === handle) {
        words[at] = -1;
        this.#writeHandles[i] = -1;
      }
      at += ENTRY_WORDS + 2 * (words[at + 2] as number);
    }
  }

  closeAll(): void {
    // A stream that is cut off must not look complete to the other end.
    for (let handle = 0; handle < this.#used; handle++) {
      const flags = this.#flags[handle] as number;
      if ((flags & (STREAM | FIN_SENT)) === STREAM) this.reset(handle);
      else this.close(handle);
    }
    this.#input.close();
    this.#slab.release(this.#area);
    this.#slab.release(this.#copies);
    this.#slab.release(this.#datagramArea);
  }
}

const ANY_IPV4: IpBytes = new Uint8Array(4);
const ANY_IPV6: IpBytes = new Uint8Array(16);
