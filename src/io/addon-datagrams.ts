/**
 * The datagram half of the addon's sockets: batched reads into the input block, batched writes, and what the kernel says
 * of datagrams that could not be delivered. Queued datagrams all belong to one handle; another one's flush them first.
 */
import type { IpBytes } from "../stack/flow/address.ts";
import { BLOCK_BYTES, type InputBlock, type Slab } from "../stack/memory/index.ts";
import { type Addon, Errno } from "./addon.ts";
import type { CopyArea } from "./copy-area.ts";
import type { Datagrams } from "./datagrams.ts";
import { type HandleTable, LISTED } from "./handle-table.ts";
import type { OpenRequest } from "./open-request.ts";
import type { Poller } from "./poller.ts";
import type { Sender, SocketSink } from "./sockets.ts";

/** Tokens of datagram sockets differ from those of streams by this bit. */
export const DATAGRAM = 0x4000_0000;
/** The kernel keeps a datagram of this size at most. */
const DATAGRAM_ROOM = 65_536;
const DATAGRAM_META_WORDS = 10;
const DATAGRAM_BATCH = 64;
/** Reads of one datagram socket in a turn, so that a flood does not starve the others. */
const DATAGRAM_ROUNDS = 4;
const DATAGRAM_ENTRY_WORDS = 8;
/** The block of descriptors: what the addon tells of datagrams, then what is queued. */
const META_BYTES = 4096;

export class AddonDatagrams implements Datagrams {
  readonly sender: Sender = { words: new Int32Array(4), port: 0 };
  /** Whether the last `receive` left input in the kernel for want of memory. */
  waitsForMemory = false;
  readonly #addon: Addon;
  readonly #slab: Slab;
  readonly #slabId: number;
  readonly #sink: SocketSink;
  readonly #handles: HandleTable;
  readonly #input: InputBlock;
  readonly #copies: CopyArea;
  readonly #request: OpenRequest;
  readonly #area: number;
  #readable: number[] = [];
  #handle = -1;
  #count = 0;
  #at: number;

  constructor(
    poller: Poller,
    sink: SocketSink,
    handles: HandleTable,
    input: InputBlock,
    copies: CopyArea,
    request: OpenRequest,
  ) {
    this.#addon = poller.addon;
    this.#slab = poller.slab;
    this.#slabId = poller.slabId;
    this.#sink = sink;
    this.#handles = handles;
    this.#input = input;
    this.#copies = copies;
    this.#request = request;
    this.#area = poller.slab.take();
    if (this.#area < 0) throw new RangeError("slab is too small for datagram sockets");
    this.#at = this.#queueAt;
  }

  /** Index of the scratch words for what the addon tells of datagrams. */
  get #metaAt(): number {
    return this.#area >> 2;
  }

  /** Index of the first queued datagram's words. */
  get #queueAt(): number {
    return (this.#area + META_BYTES) >> 2;
  }

  /** Whether sockets are left with input waiting. */
  get hasReadable(): boolean {
    return this.#readable.length > 0;
  }

  /** Opens a socket; with an `address` it sends to and receives from that one only. @returns a handle, or -errno */
  open(family: 4 | 6, address: IpBytes | null, port: number): number {
    const handles = this.#handles;
    const handle = handles.allocate(0);
    const generation = handles.generations[handle] as number;
    const fd = this.#request.openDatagram(family, address, port, handle | DATAGRAM, generation);
    if (fd < 0) {
      handles.forget(handle);
      return fd;
    }
    handles.fds[handle] = fd;
    return handle;
  }

  /** The poller says that a socket has input or an error. */
  onReady(handle: number): void {
    this.#handles.list(handle, this.#readable);
  }

  /** Reads what is there, within limits of one turn. */
  receive(): void {
    const handles = this.#handles;
    const list = this.#readable;
    this.waitsForMemory = false;
    this.#readable = [];
    for (const handle of list) {
      handles.flags[handle] = handles.flag(handle) & ~LISTED;
      const generation = handles.generations[handle] as number;
      for (let round = 0; ; round++) {
        if (!handles.isSame(handle, generation)) break;
        const hasRoom = this.#input.prepare(DATAGRAM_ROOM);
        if (!hasRoom) this.waitsForMemory = true;
        if (round === DATAGRAM_ROUNDS || !hasRoom) {
          handles.list(handle, this.#readable);
          break;
        }
        if (!this.#receiveBatch(handle)) break;
      }
    }
    handles.unpark();
  }

  /** Reads one batch; returns false when the socket is empty or failed. */
  #receiveBatch(handle: number): boolean {
    const input = this.#input;
    const metaAt = this.#metaAt;
    const count = this.#addon.udpRead(
      this.#handles.fd(handle),
      this.#slabId,
      input.position,
      input.limit,
      metaAt << 2,
      DATAGRAM_BATCH,
    );
    if (count === 0) return false;
    if (count < 0) {
      if (!this.#reportQueuedErrors(handle) && this.#handles.isOpen(handle)) {
        this.sender.port = 0;
        this.#sink.onDatagramError(handle, -count);
      }
      return true;
    }
    const { words } = this.#slab;
    const last = metaAt + (count - 1) * DATAGRAM_META_WORDS;
    const block = input.offset;
    this.#slab.retain(block);
    input.advanceTo((words[last] as number) + (words[last + 1] as number));
    for (let i = 0; i < count && this.#handles.isOpen(handle); i++) {
      const at = metaAt + i * DATAGRAM_META_WORDS;
      this.#takeSender(at);
      this.#sink.onDatagram(handle, words[at] as number, words[at + 1] as number);
    }
    this.#slab.release(block);
    return true;
  }

  /** Tells the sink of the errors that the kernel has kept, each with the destination concerned. @returns whether any */
  #reportQueuedErrors(handle: number): boolean {
    const { words } = this.#slab;
    const metaAt = this.#metaAt;
    const fd = this.#handles.fd(handle);
    let told = false;
    while (this.#handles.isOpen(handle) && this.#addon.udpReadError(fd, this.#slabId, metaAt << 2) === 1) {
      // Ten words: errno, origin, type and code, info, then family, port and address as of a sender.
      this.#takeSender(metaAt + 2);
      told = true;
      this.#sink.onDatagramError(handle, words[metaAt] as number);
    }
    return told;
  }

  /** Takes the address whose family stands at `words[at + 2]`, with port and address behind it. */
  #takeSender(at: number): void {
    const { sender } = this;
    const { view, words } = this.#slab;
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

  /** Queues a datagram; `flush` must have been called when there is no room for its head. @returns false then */
  send(
    handle: number,
    address: IpBytes | null,
    port: number,
    head: Uint8Array | null,
    headLength: number,
    offset: number,
    length: number,
  ): boolean {
    const full = (this.#at + DATAGRAM_ENTRY_WORDS + 4) << 2 > this.#area + BLOCK_BYTES;
    if (this.#handle !== handle || full) this.flush();
    const headAt = head === null ? -1 : this.#copies.copy(head, headLength);
    if (head !== null && headAt < 0) return false;
    // What was flushed may have closed this very socket.
    if (!this.#handles.isOpen(handle)) return true;
    this.#handle = handle;
    const { words } = this.#slab;
    const at = this.#at;
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
    this.#at = ref;
    this.#count++;
    return true;
  }

  /** Sends what is queued. */
  flush(): void {
    const handle = this.#handle;
    let left = this.#count;
    let at = this.#queueAt;
    const end = this.#at;
    this.#handle = -1;
    this.#count = 0;
    this.#at = at;
    if (left === 0 || !this.#handles.isOpen(handle)) return;
    const fd = this.#handles.fd(handle);
    let isRetry = false;
    while (left > 0) {
      const sent = this.#addon.udpWrite(fd, this.#slabId, at << 2, (end - at) << 2, left);
      if (sent < 0 && sent !== -Errno.EAGAIN) {
        // An error that was pending is of an earlier datagram: then this one has not been tried yet.
        const wasPending = this.#reportQueuedErrors(handle);
        if (!this.#handles.isOpen(handle)) return;
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
        at += DATAGRAM_ENTRY_WORDS + 2 * (this.#slab.words[at] as number);
      }
      if (!this.#handles.isOpen(handle)) return;
    }
  }

  close(handle: number): void {
    if (this.#handle === handle) this.flush();
    // What was flushed may have closed this very socket.
    if (!this.#handles.isOpen(handle)) return;
    this.#addon.close(this.#handles.fd(handle));
    this.#handles.forget(handle);
  }

  closeAll(): void {
    this.#slab.release(this.#area);
  }
}
