/**
 * One end of a tunnel: a TCP socket, read into buffers we choose, and joined to its peer once the tunnel stands.
 *
 * Theory of operation. Before `join` every read goes to the owner. After it, what is read here is written to the peer
 * at once; when the peer's kernel buffer cannot take all of it, reading stops until the rest is written. So at most one
 * read is held per direction. FIN here becomes FIN there and the other direction goes on; an error here (reset,
 * timeout, broken pipe) becomes a reset there; neither is ever taken for the other. No timers.
 */
import net from "node:net";
import type { ReadBuffers } from "./read-buffers.ts";

/** What the owner of an end is told. */
export interface TcpEndOwner {
  /** Before `join`: bytes that are valid during the call only. @returns false to stop reading until `resume` */
  onBytes(bytes: Uint8Array): boolean;
  /** The other side sent FIN. After `join` the peer already got it. */
  onEnd(): void;
  /** The connection broke; `onClose` follows. After `join` the peer is already reset. */
  onError(error: NodeJS.ErrnoException): void;
  /** Nothing more happens on this end. */
  onClose(): void;
}

/** TCP keep-alive's first probe, ms: a connection whose other side vanished ends after minutes, never stays for good. */
const KEEP_ALIVE_MS = 60_000;

interface TcpOptions {
  allowHalfOpen: boolean;
  noDelay: boolean;
}

/** Options for every socket of the server. */
export const TCP_OPTIONS: Readonly<TcpOptions> = {
  allowHalfOpen: true,
  noDelay: true,
};

export class TcpEnd {
  readonly socket: net.Socket;
  readonly #owner: TcpEndOwner;
  readonly #buffers: ReadBuffers;
  readonly #onWritten: () => void = () => this.#continue();
  #buffer: Uint8Array;
  #peer: TcpEnd | null = null;
  #count: (bytes: number) => void = () => {};
  /** Whether reading waits for a write to the peer. */
  #waits = false;
  #keepsAlive = false;

  private constructor(owner: TcpEndOwner, buffers: ReadBuffers, open: (onread: net.OnReadOpts) => net.Socket) {
    this.#owner = owner;
    this.#buffers = buffers;
    this.#buffer = buffers.shared;
    this.socket = open({ buffer: () => this.#buffer, callback: (length, bytes) => this.#onRead(length, bytes) });
    this.socket.on("end", () => {
      this.#peer?.socket.end();
      this.#owner.onEnd();
    });
    this.socket.on("error", (error) => {
      this.#peer?.reset();
      this.#owner.onError(error);
    });
    this.socket.on("close", () => {
      this.#buffers.release(this.#buffer, !this.#waits);
      this.#buffer = this.#buffers.shared;
      this.#owner.onClose();
    });
  }

  /** Dials; the caller listens for `connect` on `socket`. @param address an IP address */
  static connect(address: string, port: number, owner: TcpEndOwner, buffers: ReadBuffers): TcpEnd {
    return new TcpEnd(owner, buffers, (onread) =>
      net.connect({ host: address, port, autoSelectFamily: false, onread, ...TCP_OPTIONS }),
    );
  }

  /** Takes over a socket that `net.Server` accepted. */
  static adopt(accepted: net.Socket, owner: TcpEndOwner, buffers: ReadBuffers): TcpEnd {
    return new TcpEnd(owner, buffers, (onread) => withOnread(accepted, onread));
  }

  /** Reads on, after the owner stopped it. */
  resume(): void {
    this.socket.resume();
  }

  /** Ends the connection with RST. */
  reset(): void {
    if (!this.socket.destroyed) this.socket.resetAndDestroy();
  }

  /** Turns TCP keep-alive on, once. Four system calls: not for connections that end soon. */
  keepAlive(): void {
    if (this.#keepsAlive) return;
    this.#keepsAlive = true;
    this.socket.setKeepAlive(true, KEEP_ALIVE_MS);
  }

  /** From now on every byte goes to `peer`, and `count` is told how many. Both ends join each other. */
  join(peer: TcpEnd, count: (bytes: number) => void): void {
    this.#peer = peer;
    this.#count = count;
  }

  #onRead(length: number, bytes: Uint8Array): boolean {
    if (this.#peer === null) return this.#owner.onBytes(bytes.subarray(0, length));
    this.#count(length);
    const target = this.#peer.socket;
    const shared = bytes === this.#buffers.shared;
    const chunk = length === bytes.length && !shared ? bytes : bytes.subarray(0, length);
    target.write(shared ? Buffer.from(chunk) : chunk, this.#onWritten);
    if (target.writableLength > 0) {
      this.#waits = true;
      return false;
    }
    if (bytes === this.#buffer) this.#buffer = this.#buffers.next(bytes, length);
    return true;
  }

  #continue(): void {
    if (!this.#waits || this.socket.destroyed || (this.#peer?.socket.writableLength ?? 0) > 0) return;
    this.#waits = false;
    this.socket.resume();
  }
}

/**
 * `net.connect` can read into a buffer of ours (`onread`), accepted sockets cannot: so the accepted handle moves into a
 * new socket. `_handle` and the `handle` option are Node's own, unchanged for ten years; a test guards them, and
 * without them the socket is read the ordinary way, at about half the speed.
 */
function withOnread(accepted: net.Socket, onread: net.OnReadOpts): net.Socket {
  const inner = accepted as unknown as { _handle?: object | null };
  const handle = inner._handle;
  if (typeof handle === "object" && handle !== null) {
    inner._handle = null;
    accepted.destroy();
    return new net.Socket({ handle, allowHalfOpen: true, onread } as net.SocketConstructorOpts);
  }
  accepted.on("data", (chunk: Buffer) => {
    if (!onread.callback(chunk.length, chunk)) accepted.pause();
  });
  return accepted;
}
