/**
 * Sockets of Node behind the interface of the relay: for TLS, and for systems without the addon.
 *
 * Theory of operation. A handle is an index into the table of streams. Node's callbacks never reach the sink: they put
 * the stream into a list and call `wake`, once; the engine's next turn calls `receive`, which tells what happened, in
 * order: connected, bytes, end, error. Bytes are taken from Node when there is room in the slab, and not at all while
 * a stream is paused: then Node's buffer fills (about 64 KiB), Node stops reading, and the peer's window closes.
 *
 * Writes are copied: Node keeps them until the kernel has them, while the slab's blocks go back at once. `WRITE_SHARE`
 * bytes of a stream may wait in Node, and a little only when `WRITE_TOTAL` wait in all; a stream that has its share is
 * cut short and hears `onWritable` when half of it is gone.
 *
 * With a poller the addon makes the connections, so that mark, interface, keep-alive and first bytes are as they are
 * elsewhere; Node takes the descriptor over when it is connected, and TLS starts on top. The datagram sockets are then
 * the addon's too. A stream whose peer has ended is watched for a reset through a second descriptor, since Node looks no
 * more at its own.
 *
 * What is held: one input block, one block of queued writes, one for small copies; per stream its Node objects and at
 * most its share. A stream that was closed with bytes left to deliver is Node's alone and ends when they are gone, or
 * nothing moves for a minute. No timers of its own.
 */
import { closeSync } from "node:fs";
import type { IpBytes } from "../stack/flow/address.ts";
import { BLOCK_BYTES, InputBlock, type Slab } from "../stack/memory/index.ts";
import { type Addon, Epoll, Errno } from "./addon.ts";
import { AddonDatagrams, DATAGRAM } from "./addon-datagrams.ts";
import { CopyArea } from "./copy-area.ts";
import type { Datagrams } from "./datagrams.ts";
import { HandleTable } from "./handle-table.ts";
import { NodeDatagrams } from "./node-datagrams.ts";
import { NodeStream, StreamEvent, type StreamOwner } from "./node-stream.ts";
import { OpenRequest } from "./open-request.ts";
import { IoError, type Poller } from "./poller.ts";
import type { PolledSockets, Sender, SocketOptions, SocketSink, StreamTarget } from "./sockets.ts";
import { TlsClient } from "./tls-client.ts";

/** A handle's bit beside those of the table: it is a stream. */
const STREAM = 4;

/** Free bytes in the input block that a read needs. */
const READ_ROOM = 16 * 1024;
/** Most bytes of one stream in a turn, so that one does not starve the others. */
const READ_MAX = 256 * 1024;
/** Blocks that stay free for others when sockets read; at most an eighth of the slab. */
const READ_RESERVE = 24;
/** Bytes of a stream that may wait in Node. */
const WRITE_SHARE = 128 * 1024;
/** And when more than half of `WRITE_TOTAL` waits. */
const WRITE_LEAST = 8 * 1024;
/** Bytes that may wait in Node in all, but for `WRITE_LEAST` of each stream. */
const WRITE_TOTAL = 64 * 1024 * 1024;

const ENTRY_WORDS = 4;
/** The block of words: [0, WRITE_AREA) scratch for opening, behind it queued writes. */
const WRITE_AREA = 1024;
const END = 1;

export class NodeSockets implements PolledSockets, StreamOwner {
  readonly backend: string = "node";
  readonly words: Int32Array;
  readonly #slab: Slab;
  readonly #addon: Addon | null;
  readonly #request: OpenRequest | null;
  readonly #sink: SocketSink;
  readonly #wake: () => void;
  readonly #options: SocketOptions;
  readonly #tls: TlsClient | null;
  readonly #input: InputBlock;
  readonly #area: number;
  readonly #copies: CopyArea;
  readonly #handles: HandleTable = new HandleTable();
  readonly #streams: (NodeStream | null)[] = [];
  readonly #datagrams: Datagrams;
  /** Streams with events. */
  #changed: NodeStream[] = [];
  #isAwake = false;
  #streamsWait = false;
  #writeAt: number;
  #writeCount = 0;
  #writeStart = 0;
  readonly #writeHandles: number[] = [];
  /** Bytes that wait in Node for all streams. */
  #waiting = 0;
  #errorText = "";
  #firstSent = 0;
  /** Closed, and not gone. */
  readonly #lingering: Set<NodeStream> = new Set();

  /**
   * @param poller makes the connections; without one Node does, and mark and interface cannot be had
   * @param wake asks for a turn soon, never at once: `receive` is to be called from the event loop. May be called again
   *   before it happened
   * @throws IoError when the options cannot be kept, RangeError when the slab is too small
   */
  constructor(slab: Slab, poller: Poller | null, sink: SocketSink, wake: () => void, options: SocketOptions = {}) {
    if (poller === null && ((options.mark ?? 0) !== 0 || options.interface !== undefined)) {
      throw new IoError(
        "IO_ADDON",
        "Marks and interfaces of sockets need the native addon: build it with `npm run build:native`, or leave them out",
      );
    }
    this.#tls = options.tls === undefined ? null : new TlsClient(options.tls);
    this.#slab = slab;
    this.#addon = poller === null ? null : poller.addon;
    this.#sink = sink;
    this.#wake = wake;
    this.#options = options;
    this.words = slab.words;
    this.#input = new InputBlock(slab, Math.min(READ_RESERVE, slab.blocks >> 3));
    this.#area = slab.take();
    if (this.#area < 0) throw new RangeError("slab is too small for sockets");
    this.#copies = new CopyArea(slab);
    this.#request = poller === null ? null : new OpenRequest(poller, this.#area, options);
    this.#datagrams =
      poller === null || this.#request === null
        ? new NodeDatagrams(slab, sink, this.#handles, this.#input, () => this.#wakeUp())
        : new AddonDatagrams(poller, sink, this.#handles, this.#input, this.#copies, this.#request);
    this.#writeAt = (this.#area + WRITE_AREA) >> 2;
  }

  get open(): number {
    return this.#handles.open;
  }

  get sender(): Sender {
    return this.#datagrams.sender;
  }

  get errorText(): string {
    return this.#errorText;
  }

  get lingering(): number {
    return this.#lingering.size;
  }

  get firstSent(): number {
    return this.#firstSent;
  }

  connect(target: StreamTarget, port: number, first: Uint8Array | null): number {
    const handles = this.#handles;
    const handle = handles.allocate(STREAM);
    const stream = new NodeStream(this, handle, target, port, this.#tls);
    this.#firstSent = 0;
    if (this.#request === null) {
      stream.connect(this.#options);
    } else {
      // With TLS the first bytes wait for the handshake.
      const length = first === null || this.#tls !== null ? 0 : first.length;
      const offset = first === null || length === 0 ? 0 : this.#copies.copy(first, length);
      const generation = handles.generations[handle] as number;
      const fd = this.#request.connect(target, port, handle, generation, offset, length);
      if (fd < 0) {
        handles.forget(handle);
        return fd;
      }
      handles.fds[handle] = fd;
      this.#firstSent = this.#request.sent;
    }
    while (this.#streams.length <= handle) this.#streams.push(null);
    this.#streams[handle] = stream;
    return handle;
  }

  openDatagram(family: 4 | 6, address: IpBytes | null, port: number): number {
    return this.#datagrams.open(family, address, port);
  }

  /** An event of the poller for a token of ours. */
  dispatch(token: number, generation: number, events: number): void {
    const handles = this.#handles;
    const handle = token & ~DATAGRAM;
    if (this.#addon === null || !handles.isSame(handle, generation)) return;
    if ((token & DATAGRAM) !== 0) {
      this.#datagrams.onReady(handle);
      return;
    }
    const stream = this.#streams[handle];
    if (stream === null || stream === undefined) return;
    const fd = handles.fd(handle);
    if (stream.fd >= 0) {
      // The second descriptor of a stream whose input has ended.
      if ((events & Epoll.ERR) !== 0) stream.fail({ errno: this.#addon.socketError(fd) || Errno.ECONNRESET, text: "" });
    } else if ((events & (Epoll.ERR | Epoll.HUP)) !== 0) {
      stream.fail({ errno: this.#addon.socketError(fd) || Errno.ECONNRESET, text: "" });
    } else if ((events & Epoll.OUT) !== 0) {
      this.#handOver(this.#addon, stream, fd);
    }
  }

  /** A stream is connected: its descriptor becomes Node's. */
  #handOver(addon: Addon, stream: NodeStream, fd: number): void {
    this.#handles.fds[stream.handle] = -1;
    addon.releaseFd(fd);
    try {
      stream.adopt(fd);
    } catch (error) {
      closeSync(fd);
      const errno = error instanceof Error && "errno" in error ? Number(error.errno) : 0;
      stream.fail({ errno: Math.abs(errno) || Errno.EIO, text: error instanceof Error ? error.message : "" });
    }
  }

  /** @internal */
  onEvent(stream: NodeStream): void {
    if (stream.listed) return;
    stream.listed = true;
    this.#changed.push(stream);
    this.#wakeUp();
  }

  #wakeUp(): void {
    if (this.#isAwake) return;
    this.#isAwake = true;
    this.#wake();
  }

  /** @internal */
  onWritten(stream: NodeStream): void {
    this.#account(stream);
    if (stream.handle < 0 && stream.isGone) this.#lingering.delete(stream);
    if (stream.blocked && stream.handle >= 0 && 2 * stream.waiting <= this.#share) {
      stream.events |= StreamEvent.writable;
      this.onEvent(stream);
    }
  }

  /** @internal */
  takeError(fd: number): number {
    const addon = this.#addon;
    if (addon === null || addon.adoptFd(fd) < 0) return 0;
    const errno = addon.socketError(fd);
    addon.releaseFd(fd);
    return Math.max(0, errno);
  }

  #account(stream: NodeStream): void {
    const waiting = stream.writableLength;
    this.#waiting += waiting - stream.waiting;
    stream.waiting = waiting;
  }

  /** What one stream may have waiting in Node. */
  get #share(): number {
    return this.#waiting < WRITE_TOTAL / 2 ? WRITE_SHARE : WRITE_LEAST;
  }

  pause(handle: number): void {
    const stream = this.#streams[handle];
    if (stream !== null && stream !== undefined) stream.paused = true;
  }

  resume(handle: number): void {
    const stream = this.#streams[handle];
    if (stream === null || stream === undefined || !stream.paused) return;
    stream.paused = false;
    if (stream.events !== 0) this.onEvent(stream);
  }

  get waitsForMemory(): boolean {
    return this.#streamsWait || this.#datagrams.waitsForMemory;
  }

  receive(): boolean {
    this.#streamsWait = false;
    this.#isAwake = false;
    const list = this.#changed;
    this.#changed = [];
    for (const stream of list) {
      stream.listed = false;
      if (stream.handle >= 0) this.#tell(stream);
    }
    this.#datagrams.receive();
    return !this.waitsForMemory && (this.#changed.length > 0 || this.#datagrams.hasReadable);
  }

  /** Tells the sink what happened to a stream. Whatever the sink does may close it, which voids its handle. */
  #tell(stream: NodeStream): void {
    const { connected, writable, readable, ended, failed } = StreamEvent;
    if ((stream.events & connected) !== 0) {
      stream.events &= ~connected;
      this.#sink.onConnected(stream.handle);
    }
    if ((stream.events & writable) !== 0 && stream.handle >= 0) {
      stream.events &= ~writable;
      if (stream.blocked) {
        stream.blocked = false;
        this.#sink.onWritable(stream.handle);
      }
    }
    if ((stream.events & readable) !== 0 && stream.isConnected && !this.#read(stream)) return;
    if (stream.handle < 0) return;
    if ((stream.events & failed) !== 0) {
      this.#fail(stream);
    } else if ((stream.events & ended) !== 0 && !stream.paused && !stream.endTold) {
      stream.events &= ~ended;
      stream.endTold = true;
      this.#watchForReset(stream);
      this.#sink.onEnd(stream.handle);
    }
  }

  /** Passes on what can be read; returns false when that has to go on later. */
  #read(stream: NodeStream): boolean {
    const input = this.#input;
    let left = READ_MAX;
    while (!stream.paused) {
      if (stream.readable > 0) {
        if (left <= 0) {
          this.onEvent(stream);
          return false;
        }
        if (!input.prepare(READ_ROOM)) {
          this.#streamsWait = true;
          this.#relist(stream);
          return false;
        }
      }
      const bytes = stream.read(Math.min(left, input.limit - input.position));
      if (bytes === null) {
        stream.events &= ~StreamEvent.readable;
        return true;
      }
      left -= bytes.length;
      this.#deliver(stream.handle, bytes);
      if (stream.handle < 0) return false;
    }
    // What is left comes before anything else when the stream is resumed.
    return stream.readable === 0;
  }

  #deliver(handle: number, bytes: Buffer): void {
    const input = this.#input;
    const offset = input.position;
    const block = input.offset;
    this.#slab.bytes.set(bytes, offset);
    this.#slab.retain(block);
    input.advanceTo(offset + bytes.length);
    this.#sink.onData(handle, offset, bytes.length);
    this.#slab.release(block);
  }

  /** For the next `receive`, whenever it comes. */
  #relist(stream: NodeStream): void {
    if (stream.listed) return;
    stream.listed = true;
    this.#changed.push(stream);
  }

  /** Input has ended: Node stops looking, but a reset can still come while our own direction is open. */
  #watchForReset(stream: NodeStream): void {
    if (this.#addon === null || stream.fd < 0 || !stream.isHalfOpen || typeof stream.target === "string") return;
    const { handle } = stream;
    const copy = this.#addon.copyFd(stream.fd);
    if (copy < 0) return;
    this.#handles.fds[handle] = copy;
    // ERR and HUP are always reported (epoll_ctl(2)).
    this.#addon.pollerAdd(copy, Epoll.ET, handle, this.#handles.generations[handle] as number);
  }

  #fail(stream: NodeStream): void {
    const { handle, problem } = stream;
    this.reset(handle);
    this.#errorText = problem.text;
    this.#sink.onError(handle, problem.errno);
    this.#errorText = "";
  }

  beginWrite(handle: number, maxRefs: number): number {
    if ((this.#writeAt + ENTRY_WORDS + 2 * maxRefs) << 2 > this.#area + BLOCK_BYTES) return -1;
    this.#writeStart = this.#writeAt;
    this.#writeHandles[this.#writeCount] = handle;
    return this.#writeStart + ENTRY_WORDS;
  }

  endWrite(refs: number, end: boolean): void {
    const at = this.#writeStart;
    this.words[at + 1] = end ? END : 0;
    this.words[at + 2] = refs;
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
    const words = this.words;
    let at = (this.#area + WRITE_AREA) >> 2;
    for (let i = 0; i < count; i++) {
      const refs = words[at + 2] as number;
      const stream = this.#streams[this.#writeHandles[i] as number];
      if (stream !== null && stream !== undefined) this.#write(stream, at + ENTRY_WORDS, refs, words[at + 1] === END);
      at += ENTRY_WORDS + 2 * refs;
    }
    this.#writeAt = (this.#area + WRITE_AREA) >> 2;
    this.#writeCount = 0;
    this.#copies.clear();
  }

  /** Hands Node a copy of what it may hold of the bytes, and FIN when it has all of them. */
  #write(stream: NodeStream, at: number, refs: number, end: boolean): void {
    if ((stream.events & StreamEvent.failed) !== 0) {
      this.#fail(stream);
      return;
    }
    const { words } = this;
    let length = 0;
    for (let i = 0; i < refs; i++) length += words[at + 2 * i + 1] as number;
    const room = stream.isConnected ? Math.max(0, this.#share - stream.waiting) : 0;
    const taken = Math.min(length, room);
    if (taken > 0) {
      stream.write(this.#copy(at, taken));
      this.#account(stream);
    }
    stream.blocked = taken < length;
    const ended = end && taken === length && stream.isConnected;
    if (ended) stream.end();
    this.#sink.onSent(stream.handle, taken, length, ended);
  }

  #copy(at: number, length: number): Buffer {
    // Not from Buffer's pool: what waits for long would pin the pool's slices of others.
    const copy = Buffer.allocUnsafeSlow(length);
    const { bytes } = this.#slab;
    let filled = 0;
    for (let ref = at; filled < length; ref += 2) {
      const offset = this.words[ref] as number;
      const take = Math.min(this.words[ref + 1] as number, length - filled);
      copy.set(bytes.subarray(offset, offset + take), filled);
      filled += take;
    }
    return copy;
  }

  peer(handle: number): { readonly address: IpBytes; readonly port: number } | null {
    return this.#streams[handle]?.peer ?? null;
  }

  close(handle: number): void {
    if (!this.#handles.isOpen(handle)) return;
    const stream = this.#forget(handle);
    if (stream === null) this.#datagrams.close(handle);
    else {
      stream.close();
      if (!stream.isGone) this.#lingering.add(stream);
    }
  }

  reset(handle: number): void {
    if (!this.#handles.isOpen(handle)) return;
    const stream = this.#forget(handle);
    if (stream === null) {
      this.#datagrams.close(handle);
      return;
    }
    stream.reset();
    this.#account(stream);
  }

  /** Takes a stream out of the tables; null when the handle is a datagram socket, which is left alone. */
  #forget(handle: number): NodeStream | null {
    const stream = this.#streams[handle];
    if (stream === null || stream === undefined) return null;
    this.#streams[handle] = null;
    for (let i = 0; i < this.#writeCount; i++) if (this.#writeHandles[i] === handle) this.#writeHandles[i] = -1;
    const fd = this.#handles.fd(handle);
    if (fd >= 0) this.#addon?.close(fd);
    this.#handles.forget(handle);
    return stream;
  }

  closeAll(): void {
    // A stream that is cut off must not look complete to the other end.
    for (let handle = 0; handle < this.#handles.used; handle++) {
      const stream = this.#streams[handle];
      if (stream !== null && stream !== undefined && !stream.finSent) this.reset(handle);
      else this.close(handle);
    }
    this.#datagrams.closeAll();
    this.#input.close();
    this.#slab.release(this.#area);
    this.#copies.close();
  }
}
