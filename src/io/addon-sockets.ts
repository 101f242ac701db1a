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
import { type Addon, Epoll, Errno, StreamFlag } from "./addon.ts";
import { AddonDatagrams, DATAGRAM } from "./addon-datagrams.ts";
import { CopyArea } from "./copy-area.ts";
import { HandleTable, LISTED, OPEN } from "./handle-table.ts";
import { OpenRequest } from "./open-request.ts";
import type { Poller } from "./poller.ts";
import type { PolledSockets, Sender, SocketOptions, SocketSink, StreamTarget } from "./sockets.ts";

// Bits of a handle beside those of the table.
const CONNECTING = 4;
/** Input may be waiting. */
const READABLE = 8;
const PAUSED = 16;
/** An error was announced, or urgent data, at whose mark reads stop: read until there is really nothing more. */
const UNSURE = 32;
/** The end of input was reported. */
const ENDED = 64;
/** A write was cut short. */
const BLOCKED = 128;
/** The peer's FIN is behind what can be read: a read that finds less than it asked for has come to the end. */
const ENDING = 256;
const STREAM = 512;
/** Our FIN was sent. */
const FIN_SENT = 1024;

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
// The descriptor block: [0, READ) entries of reads and scratch, [READ, BLOCK) queued writes.
const READ_AREA = 16 * 1024;

export class AddonSockets implements PolledSockets {
  readonly backend: string = "addon";
  readonly errorText: string = "";
  readonly words: Int32Array;
  readonly #addon: Addon;
  readonly #slab: Slab;
  readonly #slabId: number;
  readonly #sink: SocketSink;
  readonly #request: OpenRequest;
  readonly #input: InputBlock;
  readonly #area: number;
  readonly #handles: HandleTable = new HandleTable();
  readonly #copies: CopyArea;
  readonly #datagrams: AddonDatagrams;
  #readable: number[] = [];
  readonly #batch: Int32Array = new Int32Array(READ_BATCH);
  readonly #batchGenerations: Int32Array = new Int32Array(READ_BATCH);
  // Queued stream writes.
  #writeAt: number;
  #writeCount = 0;
  #writeStart = 0;
  readonly #writeHandles: number[] = [];
  /** Streams that wait for memory; datagrams tell by themselves. */
  #streamsWait = false;
  #firstSent = 0;

  constructor(poller: Poller, sink: SocketSink, options: SocketOptions = {}) {
    this.#addon = poller.addon;
    this.#slab = poller.slab;
    this.#slabId = poller.slabId;
    this.#sink = sink;
    this.words = poller.slab.words;
    this.#input = new InputBlock(poller.slab, Math.min(READ_RESERVE, poller.slab.blocks >> 3));
    this.#area = poller.slab.take();
    this.#request = new OpenRequest(poller, this.#area, options);
    this.#copies = new CopyArea(poller.slab);
    this.#datagrams = new AddonDatagrams(poller, sink, this.#handles, this.#input, this.#copies, this.#request);
    this.#writeAt = (this.#area + READ_AREA) >> 2;
  }

  get open(): number {
    return this.#handles.open;
  }

  get sender(): Sender {
    return this.#datagrams.sender;
  }

  connect(target: StreamTarget, port: number, first: Uint8Array | null): number {
    const handle = this.#handles.allocate(STREAM | CONNECTING);
    const length = first === null ? 0 : first.length;
    const offset = first === null || length === 0 ? 0 : this.#copies.copy(first, length);
    const generation = this.#handles.generations[handle] as number;
    // Without room for a copy nothing is sent yet, as when the socket takes nothing.
    const fd = this.#request.connect(target, port, handle, generation, Math.max(offset, 0), offset < 0 ? 0 : length);
    if (fd < 0) {
      this.#handles.forget(handle);
      return fd;
    }
    this.#handles.fds[handle] = fd;
    this.#firstSent = this.#request.sent;
    return handle;
  }

  /** What was written is the kernel's. */
  get lingering(): number {
    return 0;
  }

  get firstSent(): number {
    return this.#firstSent;
  }

  openDatagram(family: 4 | 6, address: IpBytes | null, port: number): number {
    return this.#datagrams.open(family, address, port);
  }

  /** An event of the poller for a token of ours. */
  dispatch(token: number, generation: number, events: number): void {
    const handles = this.#handles;
    const handle = token & ~DATAGRAM;
    if (!handles.isSame(handle, generation)) return;
    if ((token & DATAGRAM) !== 0) {
      this.#datagrams.onReady(handle);
      return;
    }
    let flags = handles.flag(handle);
    if ((flags & CONNECTING) !== 0) {
      if ((events & (Epoll.ERR | Epoll.HUP)) !== 0) {
        this.#failWithError(handle);
        return;
      }
      if ((events & Epoll.OUT) === 0) return;
      this.#handles.flags[handle] = flags & ~CONNECTING;
      this.#sink.onConnected(handle);
      if (!handles.isSame(handle, generation)) return;
      flags = handles.flag(handle);
    }
    if ((events & Epoll.ERR) !== 0 && (flags & ENDED) !== 0) {
      // Nothing is read any more behind the end, so a reset after it shows here only.
      this.#failWithError(handle);
      return;
    }
    if ((events & (Epoll.ERR | Epoll.PRI)) !== 0) flags |= UNSURE;
    if ((events & (Epoll.RDHUP | Epoll.HUP)) !== 0) flags |= ENDING;
    if ((events & (Epoll.IN | Epoll.PRI | Epoll.RDHUP | Epoll.HUP | Epoll.ERR)) !== 0) flags |= READABLE;
    const unblocked = (flags & BLOCKED) !== 0 && (events & (Epoll.OUT | Epoll.ERR | Epoll.HUP)) !== 0;
    if (unblocked) flags &= ~BLOCKED;
    this.#handles.flags[handle] = flags;
    if ((flags & (READABLE | PAUSED)) === READABLE) this.#handles.list(handle, this.#readable);
    if (unblocked) this.#sink.onWritable(handle);
  }

  pause(handle: number): void {
    this.#handles.flags[handle] = this.#handles.flag(handle) | PAUSED;
  }

  resume(handle: number): void {
    const flags = this.#handles.flag(handle) & ~PAUSED;
    this.#handles.flags[handle] = flags;
    if ((flags & (READABLE | ENDED)) === READABLE) this.#handles.list(handle, this.#readable);
  }

  get waitsForMemory(): boolean {
    return this.#streamsWait || this.#datagrams.waitsForMemory;
  }

  receive(): boolean {
    this.#streamsWait = false;
    if (this.#readable.length > 0) this.#receiveStreams();
    this.#datagrams.receive();
    return !this.waitsForMemory && (this.#readable.length > 0 || this.#datagrams.hasReadable);
  }

  #receiveStreams(): void {
    const list = this.#readable;
    this.#readable = [];
    let i = 0;
    while (i < list.length) {
      if (!this.#input.prepare(READ_ROOM)) {
        // No memory: the rest waits for blocks to come back.
        this.#streamsWait = true;
        for (; i < list.length; i++) this.#readable.push(list[i] as number);
        return;
      }
      i = this.#receiveBatch(list, i);
    }
    this.#handles.unpark();
  }

  /** Reads a batch of streams from `list[from]` on into the input block; returns where to go on. */
  #receiveBatch(list: readonly number[], from: number): number {
    const words = this.words;
    const listAt = this.#area >> 2;
    let count = 0;
    let i = from;
    for (; i < list.length && count < READ_BATCH; i++) {
      const handle = list[i] as number;
      const flags = this.#handles.flag(handle) & ~LISTED;
      this.#handles.flags[handle] = flags;
      if ((flags & OPEN) === 0 || (flags & (PAUSED | READABLE | ENDED)) !== READABLE) continue;
      words[listAt + count * ENTRY_WORDS] = this.#handles.fd(handle);
      this.#batch[count] = handle;
      this.#batchGenerations[count] = this.#handles.generations[handle] as number;
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
    for (let k = Math.max(0, done); k < count; k++) this.#handles.list(this.#batch[k] as number, this.#readable);
    const block = input.offset;
    this.#slab.retain(block);
    input.advanceTo(end);
    for (let k = 0; k < done; k++) {
      const handle = this.#batch[k] as number;
      if (!this.#handles.isSame(handle, this.#batchGenerations[k] as number)) continue;
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
    const flags = this.#handles.flag(handle);
    if (result > 0) {
      const generation = this.#handles.generations[handle] as number;
      // Less than asked for: the socket is empty. FIN had arrived before the read, so then this was the last of it.
      const isLast = result < asked && (flags & (ENDING | UNSURE)) === ENDING;
      if (isLast) this.#handles.flags[handle] = (flags | ENDED) & ~READABLE;
      else if (result < asked && (flags & UNSURE) === 0) this.#handles.flags[handle] = flags & ~READABLE;
      else if ((flags & PAUSED) === 0) this.#handles.list(handle, this.#readable);
      this.#sink.onData(handle, offset, result);
      if (isLast && this.#handles.isSame(handle, generation)) this.#sink.onEnd(handle);
    } else if (result === 0) {
      this.#handles.flags[handle] = (flags | ENDED) & ~READABLE;
      this.#sink.onEnd(handle);
    } else if (result === -Errno.EAGAIN) {
      this.#handles.flags[handle] = flags & ~READABLE;
    } else {
      this.#fail(handle, -result);
    }
  }

  /** Fails a socket with the error that the kernel has for it. */
  #failWithError(handle: number): void {
    const errno = this.#addon.socketError(this.#handles.fd(handle));
    this.#fail(handle, errno > 0 ? errno : Errno.ECONNRESET);
  }

  #fail(handle: number, errno: number): void {
    this.close(handle);
    this.#sink.onError(handle, errno);
  }

  beginWrite(handle: number, maxRefs: number): number {
    if ((this.#writeAt + ENTRY_WORDS + 2 * maxRefs) << 2 > this.#area + BLOCK_BYTES) return -1;
    this.#writeStart = this.#writeAt;
    this.words[this.#writeStart] = this.#handles.fd(handle);
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
    const offset = this.#copies.copy(bytes, bytes.length);
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
    if (this.#datagrams.send(handle, address, port, head, headLength, offset, length)) return;
    this.flush();
    this.#datagrams.send(handle, address, port, head, headLength, offset, length);
  }

  flush(): void {
    this.#datagrams.flush();
    const count = this.#writeCount;
    if (count > 0) this.#flushStreams(count);
    this.#copies.clear();
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
      if (handle < 0 || !this.#handles.isOpen(handle)) continue;
      if (result < 0 && result !== -Errno.EAGAIN) {
        this.#fail(handle, -result);
        continue;
      }
      const sent = Math.max(0, result);
      const ended = (flags & StreamFlag.SHUTDOWN) !== 0 && sent === length;
      if (sent < length) this.#handles.flags[handle] = this.#handles.flag(handle) | BLOCKED;
      if (ended) this.#handles.flags[handle] = this.#handles.flag(handle) | FIN_SENT;
      this.#sink.onSent(handle, sent, length, ended);
    }
    this.#writeAt = start;
    this.#writeCount = 0;
  }

  peer(handle: number): { readonly address: IpBytes; readonly port: number } | null {
    const at = this.#area >> 2;
    if (this.#addon.socketName(this.#handles.fd(handle), 1, this.#slabId, at << 2) < 0) return null;
    if (this.words[at] === 0) return null;
    const length = this.words[at] === 4 ? 4 : 16;
    const from = (at + 2) << 2;
    return { address: this.#slab.bytes.slice(from, from + length), port: this.words[at + 1] as number };
  }

  close(handle: number): void {
    if (!this.#handles.isOpen(handle)) return;
    if ((this.#handles.flag(handle) & STREAM) === 0) {
      this.#datagrams.close(handle);
      return;
    }
    this.#cancelWrites(handle);
    this.#addon.close(this.#handles.fd(handle));
    this.#handles.forget(handle);
  }

  reset(handle: number): void {
    if (!this.#handles.isOpen(handle)) return;
    this.#cancelWrites(handle);
    this.#addon.socketReset(this.#handles.fd(handle));
    this.#handles.forget(handle);
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
    for (let handle = 0; handle < this.#handles.used; handle++) {
      const flags = this.#handles.flag(handle);
      if ((flags & (STREAM | FIN_SENT)) === STREAM) this.reset(handle);
      else this.close(handle);
    }
    this.#input.close();
    this.#slab.release(this.#area);
    this.#copies.close();
    this.#datagrams.closeAll();
  }
}
