/**
 * The joint between the relay and the sockets towards upstreams. Sockets are named by small integers ("handles"), and
 * what happens to them is told to one sink: no object, closure or buffer per socket. The addon's sockets are one
 * implementation; a `node:net` one can stand beside it.
 */
import type { IpBytes } from "../stack/flow/address.ts";
import type { TlsSettings } from "./tls-settings.ts";

/**
 * What happened to a handle. Callbacks come from `receive()`, `flush()` and the poller's events, never out of the blue.
 * Those that come from `flush()` must not queue writes: they note what is left for the next round.
 */
export interface SocketSink {
  /** A stream is connected. */
  onConnected(handle: number): void;
  /** Bytes of a stream at slab `offset`: valid until the callback returns, unless their block is retained. */
  onData(handle: number, offset: number, length: number): void;
  /** The peer has ended its direction. */
  onEnd(handle: number): void;
  /** The socket has failed with `errno` (positive) and is closed; `sockets.errorText` may say more. */
  onError(handle: number, errno: number): void;
  /** A queued write was carried out: `sent` of `length` bytes were taken, and FIN when `ended`. */
  onSent(handle: number, sent: number, length: number, ended: boolean): void;
  /** A socket that took less than it was given has room again. */
  onWritable(handle: number): void;
  /**
   * A datagram at slab `offset`: valid until the callback returns. The sender stands in `sender`.
   */
  onDatagram(handle: number, offset: number, length: number): void;
  /**
   * A datagram socket reported an error, for instance that nobody listens; it stays open. For a socket that is not
   * connected `sender` is the destination concerned; its port is 0 when that is not known.
   */
  onDatagramError(handle: number, errno: number): void;
}

/** The address of the last datagram's sender: big-endian words (IPv4 in mapped form) and port. Reused. */
export interface Sender {
  readonly words: Int32Array;
  port: number;
}

/** Options that go for all sockets towards upstreams. */
export interface SocketOptions {
  /** SO_MARK, 0 for none. */
  readonly mark?: number;
  /** SO_BINDTODEVICE. */
  readonly interface?: string;
  /** Keep-alive probes on streams; none by default. */
  readonly keepAlive?: KeepAlive;
  /** TLS on every stream; only for implementations that can. */
  readonly tls?: TlsSettings;
}

/** Sockets that take part in a poller's events. */
export interface PolledSockets extends Sockets {
  /** An event of the poller for a token of theirs: the handle, for datagram sockets with a bit of its own. */
  dispatch(token: number, generation: number, events: number): void;
}

/** When the kernel asks whether the peer of a silent stream is still there (RFC 9293 §3.8.4). */
export interface KeepAlive {
  /** Silence before the first probe, ms. */
  readonly idleMs: number;
  /** Between probes, ms. */
  readonly intervalMs: number;
  /** Probes without an answer after which the stream has failed with ETIMEDOUT. */
  readonly probes: number;
}

/** Where a stream goes: an address, or the path of a Unix socket (abstract when it begins with `@`). */
export type StreamTarget = IpBytes | string;

/** Streams and datagram sockets by handle. */
export interface Sockets {
  /** Names the implementation, for `stats()`. */
  readonly backend: string;
  /** Open handles. */
  readonly open: number;
  readonly sender: Sender;
  /**
   * Starts connecting a stream, and hands it `first` (a few KiB at most, copied) if it takes bytes at once.
   * @param port not looked at for a Unix socket
   * @returns a handle, or -errno
   */
  connect(target: StreamTarget, port: number, first: Uint8Array | null): number;
  /** What the last `onError` meant beyond its number, such as what is wrong with a certificate; else empty. */
  readonly errorText: string;
  /** Streams that were closed in order and whose last bytes the kernel has not taken yet. */
  readonly lingering: number;
  /** Bytes of `first` that the last `connect` got rid of at once; the rest is the caller's to send when connected. */
  readonly firstSent: number;
  /** Opens a datagram socket; with an `address` it sends to and receives from that one only. @returns handle or -errno */
  openDatagram(family: 4 | 6, address: IpBytes | null, port: number): number;
  /** Stops `onData` for a handle: what arrives stays in the kernel. */
  pause(handle: number): void;
  resume(handle: number): void;
  /** The array that `beginWrite` indexes into. */
  readonly words: Int32Array;
  /**
   * Begins a gathered write: the caller puts pairs (slab offset, length) into `words` from the returned index on, at most
   * `maxRefs` pairs, and calls `endWrite`. @returns -1 when `flush()` is needed first
   */
  beginWrite(handle: number, maxRefs: number): number;
  /** Queues the write begun; `end` sends FIN behind the bytes. */
  endWrite(refs: number, end: boolean): void;
  /** Queues a copy of a few bytes, at most 1 KiB. @returns false when `flush()` is needed first */
  writeBytes(handle: number, bytes: Uint8Array): boolean;
  /**
   * Queues a datagram of `head` (copied) and `length` bytes at slab `offset`, which must stay until `flush()`.
   * @param address null for a connected socket
   */
  sendDatagram(
    handle: number,
    address: IpBytes | null,
    port: number,
    head: Uint8Array | null,
    headLength: number,
    offset: number,
    length: number,
  ): void;
  /** Carries out the queued writes; the sink hears of each. */
  flush(): void;
  /** Reads what is there, within limits of one turn; the sink hears of it. @returns whether more may be waiting */
  receive(): boolean;
  /** Whether the last `receive` left input in the kernel because the slab had no block to give. */
  readonly waitsForMemory: boolean;
  /** The remote address of a stream, or null (also for a Unix socket). */
  peer(handle: number): { readonly address: IpBytes; readonly port: number } | null;
  /** Closes in order: what was sent is delivered. The handle is void afterwards. */
  close(handle: number): void;
  /** Closes a stream with a reset. */
  reset(handle: number): void;
  /** Closes everything; streams whose end was not sent are reset. */
  closeAll(): void;
}
