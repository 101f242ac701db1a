/** Sockets and flows without a kernel, for tests of the relays: everything is recorded, events come from the test. */
import type { Sender, Sockets } from "../../src/io/sockets.ts";
import type { Endpoint } from "../../src/stack/flow/address.ts";
import {
  DatagramResult,
  type Datagrams,
  type FlowErrorCode,
  type FlowStack,
  Ready,
  type RejectReason,
  type TcpFlow,
} from "../../src/stack/flow/flow.ts";
import type { Slab } from "../../src/stack/memory/index.ts";

export interface FakeSocket {
  readonly kind: "stream" | "datagram";
  readonly address: Uint8Array | null;
  readonly port: number;
  state: "open" | "closed" | "reset";
  paused: boolean;
  /** Bytes written to a stream. */
  written: number[];
  finSent: boolean;
  /** Datagrams sent: header and payload together. */
  readonly datagrams: { readonly address: Uint8Array | null; readonly port: number; readonly bytes: Uint8Array }[];
}

/** Records what the relay does; `limit` bytes are taken of each write. */
export class FakeSockets implements Sockets {
  readonly backend: string = "fake";
  readonly sender: Sender = { words: new Int32Array(4), port: 0 };
  readonly errorText: string = "";
  readonly waitsForMemory: boolean = false;
  readonly words: Int32Array = new Int32Array(4096);
  readonly all: FakeSocket[] = [];
  readonly slab: Slab;
  /** Set to make the next `connect` or `openDatagram` fail. */
  failWith = 0;
  firstSent = 0;
  readonly lingering = 0;
  /** Whether `connect` takes the first bytes at once. */
  takesFirst = false;
  writeLimit: number = Number.POSITIVE_INFINITY;
  onSent: (handle: number, sent: number, length: number, ended: boolean) => void = () => {};
  #queued: { readonly handle: number; readonly bytes: number[]; readonly end: boolean }[] = [];
  #writing = -1;
  #at = 0;

  constructor(slab: Slab) {
    this.slab = slab;
  }

  /** Makes the next handle `handle`, as if others had opened that many. */
  skipTo(handle: number): void {
    const gone: FakeSocket = {
      kind: "stream",
      address: null,
      port: 0,
      state: "closed",
      paused: false,
      written: [],
      finSent: false,
      datagrams: [],
    };
    while (this.all.length < handle) this.all.push(gone);
  }

  get open(): number {
    return this.all.filter(({ state }) => state === "open").length;
  }

  get(handle: number): FakeSocket {
    const socket = this.all[handle];
    if (socket === undefined) throw new Error(`no socket ${handle}`);
    return socket;
  }

  #add(kind: "stream" | "datagram", address: Uint8Array | null, port: number): number {
    if (this.failWith !== 0) {
      const errno = this.failWith;
      this.failWith = 0;
      return -errno;
    }
    this.all.push({ kind, address, port, state: "open", paused: false, written: [], finSent: false, datagrams: [] });
    return this.all.length - 1;
  }

  connect(target: Uint8Array | string, port: number, first: Uint8Array | null): number {
    const handle = this.#add("stream", typeof target === "string" ? null : target.slice(), port);
    this.firstSent = 0;
    if (handle >= 0 && this.takesFirst && first !== null) {
      this.get(handle).written.push(...first);
      this.firstSent = first.length;
    }
    return handle;
  }

  openDatagram(_family: 4 | 6, address: Uint8Array | null, port: number): number {
    return this.#add("datagram", address?.slice() ?? null, port);
  }

  pause(handle: number): void {
    this.get(handle).paused = true;
  }

  resume(handle: number): void {
    this.get(handle).paused = false;
  }

  beginWrite(handle: number): number {
    this.#writing = handle;
    this.#at = 0;
    return this.#at;
  }

  endWrite(refs: number, end: boolean): void {
    const bytes: number[] = [];
    for (let i = 0; i < refs; i++) {
      const offset = this.words[this.#at + 2 * i] as number;
      bytes.push(...this.slab.bytes.subarray(offset, offset + (this.words[this.#at + 2 * i + 1] as number)));
    }
    this.#queued.push({ handle: this.#writing, bytes, end });
  }

  writeBytes(handle: number, bytes: Uint8Array): boolean {
    this.#queued.push({ handle, bytes: [...bytes], end: false });
    return true;
  }

  sendDatagram(
    handle: number,
    address: Uint8Array | null,
    port: number,
    head: Uint8Array | null,
    headLength: number,
    offset: number,
    length: number,
  ): void {
    const bytes = new Uint8Array(headLength + length);
    if (head !== null) bytes.set(head.subarray(0, headLength));
    bytes.set(this.slab.bytes.subarray(offset, offset + length), headLength);
    this.get(handle).datagrams.push({ address: address?.slice() ?? null, port, bytes });
  }

  flush(): void {
    const queued = this.#queued;
    this.#queued = [];
    for (const { handle, bytes, end } of queued) {
      const socket = this.get(handle);
      if (socket.state !== "open") continue;
      const sent = Math.min(bytes.length, this.writeLimit);
      socket.written.push(...bytes.slice(0, sent));
      const ended = end && sent === bytes.length;
      if (ended) socket.finSent = true;
      this.onSent(handle, sent, bytes.length, ended);
    }
  }

  receive(): boolean {
    return false;
  }

  peer(handle: number): { readonly address: Uint8Array; readonly port: number } | null {
    const { address, port } = this.get(handle);
    return address === null ? null : { address, port };
  }

  close(handle: number): void {
    this.get(handle).state = "closed";
  }

  reset(handle: number): void {
    this.get(handle).state = "reset";
  }

  closeAll(): void {
    for (const socket of this.all) socket.state = "closed";
  }
}

/** A flow that records what the relay does to it. */
export class FakeFlow implements TcpFlow {
  tag = -1;
  readonly family: 4 | 6;
  readonly local: Endpoint;
  readonly remote: Endpoint = { address: Uint8Array.of(10, 0, 0, 2), port: 50_000 };
  error: FlowErrorCode | null = null;
  activeAt = 0;
  finReceived = false;
  sendSpace: number = 1 << 20;
  readonly done: string[] = [];
  sent: number[] = [];
  readonly #slab: Slab;
  readonly #at: number;
  #unread = 0;
  #ready: number = Ready.syn;

  constructor(slab: Slab, local: Endpoint) {
    this.#slab = slab;
    this.#at = slab.take();
    this.local = local;
    this.family = local.address.length === 4 ? 4 : 6;
  }

  /** The client sends bytes (and FIN). */
  arrive(bytes: readonly number[], fin = false): void {
    this.#slab.bytes.set(bytes, this.#at + this.#unread);
    this.#unread += bytes.length;
    this.#ready |= Ready.readable | (fin ? Ready.eof : 0);
    this.finReceived ||= fin;
  }

  mark(bits: number): void {
    this.#ready |= bits;
  }

  takeReady(): number {
    const ready = this.#ready;
    this.#ready = 0;
    return ready;
  }

  get readable(): number {
    return this.#unread;
  }

  peek(into: Int32Array, at: number): number {
    if (this.#unread === 0) return 0;
    into[at] = this.#at;
    into[at + 1] = this.#unread;
    return 1;
  }

  consume(count: number): void {
    this.#slab.bytes.copyWithin(this.#at, this.#at + count, this.#at + this.#unread);
    this.#unread -= count;
  }

  writeReference(offset: number, length: number): boolean {
    this.sent.push(...this.#slab.bytes.subarray(offset, offset + length));
    this.sendSpace = Math.max(0, this.sendSpace - length);
    return true;
  }

  isAccepted = false;

  accept(): void {
    this.isAccepted = true;
    this.done.push("accept");
  }

  reject(reason: RejectReason): void {
    this.done.push(`reject ${reason}`);
  }

  compactUnread(): void {
    this.done.push("compact");
  }

  wantWritable(): void {
    this.done.push("want writable");
  }

  end(): void {
    this.done.push("end");
  }

  close(): void {
    this.done.push("close");
  }

  abort(): void {
    this.done.push("abort");
  }
}

/** A stack of which only datagrams are used. */
export class FakeStack implements FlowStack {
  readonly slab: Slab;
  readonly sent: {
    readonly words: number[];
    readonly localPort: number;
    readonly remotePort: number;
    readonly bytes: number[];
  }[] = [];
  readonly unreachable: { readonly words: number[]; readonly localPort: number; readonly remotePort: number }[] = [];
  readonly #block: number;
  readonly #count = { value: 0 };
  readonly inbox: Datagrams;

  constructor(slab: Slab) {
    this.slab = slab;
    this.#block = slab.take();
    const count = this.#count;
    this.inbox = {
      get count(): number {
        return count.value;
      },
      addresses: new Int32Array(8 * 64),
      addressesAt: (i: number): number => 8 * i,
      remotePort: new Int32Array(64),
      localPort: new Int32Array(64),
      offset: new Int32Array(64),
      length: new Int32Array(64),
      clear: (): void => {
        count.value = 0;
      },
    };
  }

  /** A client sends a datagram; the addresses are four words each. */
  arrive(
    remote: readonly number[],
    remotePort: number,
    local: readonly number[],
    localPort: number,
    bytes: readonly number[],
  ): void {
    const i = this.#count.value++;
    const { inbox } = this;
    inbox.addresses.set([...remote, ...local], 8 * i);
    inbox.remotePort[i] = remotePort;
    inbox.localPort[i] = localPort;
    inbox.offset[i] = this.#block + 2048 * i;
    inbox.length[i] = bytes.length;
    this.slab.bytes.set(bytes, this.#block + 2048 * i);
  }

  sendDatagram(
    words: Int32Array,
    local: number,
    localPort: number,
    remote: number,
    remotePort: number,
    offset: number,
    length: number,
  ): DatagramResult {
    this.sent.push({
      words: [...words.subarray(local, local + 4), ...words.subarray(remote, remote + 4)],
      localPort,
      remotePort,
      bytes: [...this.slab.bytes.subarray(offset, offset + length)],
    });
    return DatagramResult.sent;
  }

  sendPortUnreachable(
    words: Int32Array,
    local: number,
    localPort: number,
    remote: number,
    remotePort: number,
  ): boolean {
    this.unreachable.push({
      words: [...words.subarray(local, local + 4), ...words.subarray(remote, remote + 4)],
      localPort,
      remotePort,
    });
    return true;
  }
}
