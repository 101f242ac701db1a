/**
 * One stream of `NodeSockets`: Node's socket, with TLS on top where it is wanted, and what happened to it since its owner
 * last looked. Node's callbacks only set bits here and tell the owner that there are some.
 */
import { connect, Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { formatAddress, type IpBytes } from "../stack/flow/address.ts";
import { Errno } from "./addon.ts";
import type { SocketOptions, StreamTarget } from "./sockets.ts";
import type { TlsClient } from "./tls-client.ts";
import { describeError, type StreamProblem } from "./tls-errors.ts";

/** What happened to a stream. */
export const StreamEvent = {
  connected: 1,
  /** Bytes can be read, or were. */
  readable: 2,
  ended: 4,
  failed: 8,
  /** Node has got rid of enough bytes for a stream that was cut short. */
  writable: 16,
} as const;

/** How long a closed stream may go without any progress in delivering what was sent, ms. The kernel waits about as long. */
const LINGER_MS = 60_000;

/** Hears of streams with new events, and of written bytes. */
export interface StreamOwner {
  onEvent(stream: NodeStream): void;
  /** Fewer bytes wait in Node than before. */
  onWritten(stream: NodeStream): void;
  /** The error that the kernel has for a descriptor of Node's, and forgets; 0 for none, or when it cannot be asked. */
  takeError(fd: number): number;
}

export class NodeStream {
  /** -1 once it is closed: nothing of it is told any more. */
  handle: number;
  /** {@link StreamEvent} bits. */
  events = 0;
  paused = false;
  /** A write was cut short. */
  blocked = false;
  /** The owner has it in its list. */
  listed = false;
  isConnected = false;
  endTold = false;
  finSent = false;
  /** Bytes that wait in Node as of the last look; the owner keeps it. */
  waiting = 0;
  /** After `failed`. */
  problem: StreamProblem = { errno: Errno.EIO, text: "" };
  readonly target: StreamTarget;
  readonly port: number;
  /** The descriptor, when the addon made it; Node's to close. */
  fd = -1;
  readonly #owner: StreamOwner;
  readonly #tls: TlsClient | null;
  /** What carries the bytes; the same as `#raw` without TLS. */
  #socket: Socket | TLSSocket | null = null;
  #raw: Socket | null = null;
  readonly #onWritten: () => void;

  constructor(owner: StreamOwner, handle: number, target: StreamTarget, port: number, tls: TlsClient | null) {
    this.#owner = owner;
    this.handle = handle;
    this.target = target;
    this.port = port;
    this.#tls = tls;
    this.#onWritten = () => owner.onWritten(this);
  }

  /** Connects through Node. */
  connect(options: SocketOptions): void {
    const { target, port } = this;
    const where =
      typeof target === "string"
        ? { path: target.startsWith("@") ? `\0${target.slice(1)}` : target }
        : { host: formatAddress(target), port };
    const raw = connect({ ...where, allowHalfOpen: true });
    raw.setNoDelay(true);
    if (options.keepAlive !== undefined) raw.setKeepAlive(true, options.keepAlive.idleMs);
    raw.once("connect", () => this.#onRawConnected(raw));
    this.#watchRaw(raw);
  }

  /**
   * Takes over a connected descriptor.
   * @throws when Node cannot use it; it is still open then
   */
  adopt(fd: number): void {
    const raw = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
    this.fd = fd;
    this.#watchRaw(raw);
    this.#onRawConnected(raw);
  }

  #watchRaw(raw: Socket): void {
    this.#raw = raw;
    raw.on("error", (error) => this.fail(describeError(error)));
  }

  #onRawConnected(raw: Socket): void {
    if (this.handle < 0) return;
    if (this.#tls === null) {
      this.#carry(raw);
      this.#onConnected();
      return;
    }
    const socket = this.#tls.start(raw, (problem) => {
      if (problem === null) this.#onConnected();
      else this.fail(problem);
    });
    this.#carry(socket);
  }

  #onConnected(): void {
    this.isConnected = true;
    this.#note(StreamEvent.connected);
  }

  #carry(socket: Socket): void {
    this.#socket = socket;
    socket.on("readable", () => this.#note(StreamEvent.readable));
    socket.on("end", () => this.#onEnd());
    if (socket !== this.#raw) socket.on("error", (error) => this.fail(describeError(error)));
    socket.once("close", () => this.#owner.onWritten(this));
  }

  /**
   * Input has ended, or so it seems: libuv tells an end when a reset is there already at the time it has read the bytes
   * before it. The kernel knows better.
   */
  #onEnd(): void {
    const isOpen = this.fd >= 0 && this.#raw !== null && !this.#raw.destroyed;
    const errno = isOpen ? this.#owner.takeError(this.fd) : 0;
    if (errno > 0) this.fail({ errno, text: "" });
    else this.#note(StreamEvent.ended);
  }

  #note(event: number): void {
    if (this.handle < 0) return;
    this.events |= event;
    this.#owner.onEvent(this);
  }

  /** Notes that the stream has failed; the first reason counts. */
  fail(problem: StreamProblem): void {
    if ((this.events & StreamEvent.failed) !== 0) return;
    this.problem = problem;
    this.#note(StreamEvent.failed);
  }

  /** Whether the peer's FIN or reset can still come unseen: Node does not look at a stream whose input has ended. */
  get isHalfOpen(): boolean {
    return this.#raw !== null && !this.#raw.destroyed && !this.finSent;
  }

  /** Bytes that can be read at once. */
  get readable(): number {
    return this.#socket === null ? 0 : this.#socket.readableLength;
  }

  /** Takes at most `max` bytes; null when there are none. Without any left, Node is asked for more. */
  read(max: number): Buffer | null {
    const socket = this.#socket;
    if (socket === null) return null;
    const length = Math.min(max, socket.readableLength);
    const bytes: unknown = length > 0 ? socket.read(length) : socket.read();
    return bytes instanceof Buffer ? bytes : null;
  }

  /** Bytes that Node holds until the kernel takes them. */
  get writableLength(): number {
    const socket = this.#socket;
    return socket === null || socket.destroyed ? 0 : socket.writableLength;
  }

  /** Hands bytes to Node, whose they are from now on. */
  write(bytes: Buffer): void {
    this.#socket?.write(bytes, this.#onWritten);
  }

  /** Sends FIN behind the bytes written (with TLS a close_notify before it: RFC 8446 §6.1). */
  end(): void {
    this.finSent = true;
    this.#socket?.end();
  }

  /** Whether nothing of it is left, in Node either. */
  get isGone(): boolean {
    return this.#socket === null || this.#socket.destroyed;
  }

  /** Closes in order: what was written is delivered first, if the peer takes it. */
  close(): void {
    this.handle = -1;
    const socket = this.#socket;
    if (socket === null || !this.isConnected || socket.destroyed) {
      this.#destroy();
      return;
    }
    socket.setTimeout(LINGER_MS, () => this.reset());
    socket.destroySoon();
  }

  /** Closes at once, a TCP stream with a reset. */
  reset(): void {
    this.handle = -1;
    const raw = this.#raw;
    // Unix sockets have no reset.
    if (raw !== null && !raw.destroyed && typeof this.target !== "string") raw.resetAndDestroy();
    this.#destroy();
  }

  #destroy(): void {
    this.#socket?.destroy();
    this.#raw?.destroy();
  }

  /** The peer's address, or null for a Unix socket. */
  get peer(): { readonly address: IpBytes; readonly port: number } | null {
    return typeof this.target === "string" ? null : { address: this.target, port: this.port };
  }
}
