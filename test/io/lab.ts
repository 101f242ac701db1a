/** Each implementation of `Sockets` with its events written down, and servers for it to talk to. */
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import type { Test } from "tap";
import { type Addon, isAddonProblem, loadAddon } from "../../src/io/addon.ts";
import { AddonSockets } from "../../src/io/addon-sockets.ts";
import { NodeSockets } from "../../src/io/node-sockets.ts";
import { Poller } from "../../src/io/poller.ts";
import type { SocketOptions, SocketSink, Sockets } from "../../src/io/sockets.ts";
import { Slab } from "../../src/stack/memory/index.ts";

export const LOOPBACK: Uint8Array = Uint8Array.of(127, 0, 0, 1);

/** The implementations: the addon, Node with descriptors from the addon, Node alone. */
export const KINDS = ["addon", "node with addon", "node"] as const;
export type Kind = (typeof KINDS)[number];

export function addonForTest(): Addon {
  const addon = loadAddon();
  if (isAddonProblem(addon)) throw new Error(addon.problem);
  return addon;
}

/** Open descriptors of this process. */
export function descriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

/** Waits for something that no event tells. The test's own time limit ends it. */
export async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((resolve) => setTimeout(resolve, 2));
}

/** Sockets whose events are written down as text. */
export class Lab implements SocketSink {
  readonly slab: Slab;
  readonly sockets: Sockets;
  readonly events: string[] = [];
  /** All bytes received, in order, whatever the stream. */
  readonly received: Buffer[] = [];
  /** Errors with what was said of them. */
  readonly errorTexts: string[] = [];
  /** More to do with bytes than to keep them. */
  hearData: ((handle: number, bytes: Buffer) => void) | null = null;
  hearWritable: ((handle: number) => void) | null = null;
  hearSent: ((handle: number, sent: number) => void) | null = null;
  readonly #poller: Poller | null;
  readonly #dispatch: (token: number, generation: number, events: number) => void;
  readonly #blocks: number;
  #immediate: NodeJS.Immediate | null = null;
  #wake: () => void = () => {};
  #closed = false;

  constructor(t: Test, kind: Kind, options: SocketOptions = {}, slabBytes: number = 16 << 20) {
    this.slab = new Slab(slabBytes);
    this.#blocks = this.slab.available;
    this.#poller = kind === "node" ? null : Poller.open(addonForTest(), this.slab, () => this.turn());
    t.teardown(() => this.close(null));
    try {
      if (kind === "addon" && this.#poller !== null) {
        const sockets = new AddonSockets(this.#poller, this, options);
        this.#dispatch = (...event) => sockets.dispatch(...event);
        this.sockets = sockets;
      } else {
        const sockets = new NodeSockets(this.slab, this.#poller, this, () => this.#turnSoon(), options);
        this.#dispatch = (...event) => sockets.dispatch(...event);
        this.sockets = sockets;
      }
    } catch (error) {
      this.#poller?.close();
      this.#closed = true;
      throw error;
    }
  }

  #turnSoon(): void {
    this.#immediate ??= setImmediate(() => {
      this.#immediate = null;
      if (!this.#closed) this.turn();
    });
  }

  turn(): void {
    this.#poller?.poll({ onPoll: (...event) => this.#dispatch(...event) });
    while (this.sockets.receive());
    this.sockets.flush();
    this.#wake();
  }

  /** Waits until `done` holds, which only events can bring about. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Waits for an event, or one that begins like this. */
  async heard(event: string): Promise<void> {
    await this.until(() => this.events.some((one) => one === event || one.startsWith(`${event} `)));
  }

  /** Opens a stream and waits until it is connected. */
  async connected(target: Uint8Array | string, port: number, first: Uint8Array | null = null): Promise<number> {
    const from = this.events.length;
    const handle = this.sockets.connect(target, port, first);
    await this.until(() => this.events.indexOf(`connected ${handle}`, from) >= 0);
    if (first !== null && this.sockets.firstSent < first.length) this.write(handle, first);
    return handle;
  }

  /** Queues bytes from a block of their own and flushes. */
  write(handle: number, bytes: Uint8Array, end = false): void {
    const block = this.slab.take();
    this.slab.bytes.set(bytes, block);
    const at = this.sockets.beginWrite(handle, 1);
    this.sockets.words[at] = block;
    this.sockets.words[at + 1] = bytes.length;
    this.sockets.endWrite(bytes.length > 0 ? 1 : 0, end);
    this.sockets.flush();
    this.slab.release(block);
  }

  get text(): string {
    return Buffer.concat(this.received).toString();
  }

  close(t: Test | null): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    this.sockets.closeAll();
    this.#poller?.close();
    this.slab.trim();
    t?.equal(this.slab.available, this.#blocks, "all blocks are free again");
    t?.equal(this.sockets.open, 0, "no handle is open");
  }

  onConnected(handle: number): void {
    this.events.push(`connected ${handle}`);
  }
  onData(handle: number, offset: number, length: number): void {
    const bytes = Buffer.from(this.slab.bytes.slice(offset, offset + length));
    if (this.hearData !== null) this.hearData(handle, bytes);
    else this.received.push(bytes);
    if (this.events.at(-1) !== `data ${handle}`) this.events.push(`data ${handle}`);
  }
  onEnd(handle: number): void {
    this.events.push(`end ${handle}`);
  }
  onError(handle: number, errno: number): void {
    this.errorTexts.push(this.sockets.errorText);
    this.events.push(`error ${handle} ${errno}`);
  }
  onSent(handle: number, sent: number, length: number, ended: boolean): void {
    this.hearSent?.(handle, sent);
    if (ended || sent < length) this.events.push(`sent ${handle} ${sent}/${length}${ended ? " end" : ""}`);
  }
  onWritable(handle: number): void {
    this.events.push(`writable ${handle}`);
    this.hearWritable?.(handle);
  }
  onDatagram(handle: number, offset: number, length: number): void {
    const bytes = this.slab.bytes.subarray(offset, offset + length);
    this.events.push(`datagram ${handle} ${Buffer.from(bytes)} from ${this.sockets.sender.port}`);
  }
  onDatagramError(handle: number, errno: number): void {
    this.events.push(`datagram error ${handle} ${errno} at ${this.sockets.sender.port}`);
  }
}

/** A server for one test, on a port of loopback or a path. */
export async function listen(t: Test, onSocket: (socket: Socket) => void, path: string | null = null): Promise<number> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on("error", () => {});
    onSocket(socket);
  });
  t.teardown(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  if (path === null) server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 });
  else server.listen(path);
  await once(server, "listening");
  const address = server.address();
  return typeof address === "object" ? (address as AddressInfo).port : 0;
}

/** How the server saw a stream end. */
export function ending(socket: Socket): Promise<string> {
  socket.resume();
  return Promise.race([
    once(socket, "end").then(() => "end"),
    new Promise<string>((resolve) => socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "?"))),
  ]);
}
