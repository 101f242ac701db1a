/** The words that tell the addon which socket to open: where to, and the options of all sockets towards upstreams. */
import type { IpBytes } from "../stack/flow/address.ts";
import { type Addon, Errno, UdpFlag } from "./addon.ts";
import type { Poller } from "./poller.ts";
import type { KeepAlive, SocketOptions, StreamTarget } from "./sockets.ts";

const WORDS = 20;
/** Bytes of an interface name with its NUL. */
const NAME_BYTES = 16;
/** The family of a Unix socket. */
const UNIX = 1;
/** Bytes of a Unix socket's path or abstract name (unix(7)). */
const MAX_PATH = 108;

// The kernel's limits (tcp(7)).
const MAX_KEEP_SECONDS = 32_767;
const MAX_PROBES = 127;

const ANY_IPV4: IpBytes = new Uint8Array(4);
const ANY_IPV6: IpBytes = new Uint8Array(16);

/** Opens sockets through the addon, watched by its poller. */
export class OpenRequest {
  readonly #addon: Addon;
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;
  readonly #slabId: number;
  readonly #offset: number;
  readonly #mark: number;
  readonly #interface: Uint8Array | null;
  readonly #keepAlive: Int32Array;

  /** @param offset of 256 bytes of the slab that may be written over */
  constructor(poller: Poller, offset: number, options: SocketOptions) {
    this.#addon = poller.addon;
    this.#bytes = poller.slab.bytes;
    this.#words = poller.slab.words;
    this.#slabId = poller.slabId;
    this.#offset = offset;
    this.#mark = options.mark ?? 0;
    this.#interface = options.interface === undefined ? null : Buffer.from(options.interface, "latin1");
    this.#keepAlive = keepAliveWords(options.keepAlive);
  }

  /**
   * Starts connecting a stream and sends it `length` bytes at slab `offset` if it takes them at once.
   * @returns a descriptor, or -errno
   */
  connect(
    target: StreamTarget,
    port: number,
    token: number,
    generation: number,
    offset: number,
    length: number,
  ): number {
    const at = this.#offset >> 2;
    if (typeof target === "string") {
      const problem = this.#fillPath(target);
      if (problem < 0) return problem;
    } else {
      this.#fillAddress(target, port);
    }
    this.#words[at + 9] = token;
    this.#words[at + 10] = generation;
    this.#words[at + 11] = offset;
    this.#words[at + 12] = length;
    return this.#addon.tcpConnect(this.#slabId, this.#offset);
  }

  /** Bytes that the last `connect` sent. */
  get sent(): number {
    return Math.max(0, this.#words[(this.#offset >> 2) + 13] as number);
  }

  /** Opens a datagram socket, bound, or connected to an address. @returns a descriptor, or -errno */
  openDatagram(family: 4 | 6, address: IpBytes | null, port: number, token: number, generation: number): number {
    const at = this.#offset >> 2;
    this.#fillAddress(address ?? (family === 4 ? ANY_IPV4 : ANY_IPV6), port);
    this.#words[at + 9] = token;
    this.#words[at + 10] = generation;
    this.#words[at + 11] = address === null ? UdpFlag.RECVERR : UdpFlag.CONNECT;
    return this.#addon.udpOpen(this.#slabId, this.#offset);
  }

  #fillAddress(address: IpBytes, port: number): void {
    const at = this.#offset >> 2;
    const words = this.#words;
    words.fill(0, at, at + WORDS);
    words[at] = address.length === 4 ? 4 : 6;
    words[at + 1] = port;
    this.#bytes.set(address, this.#offset + 8);
    words[at + 7] = this.#mark;
    words[at + 8] = -1;
    words.set(this.#keepAlive, at + 15);
    if (this.#interface !== null) {
      const nameAt = this.#offset + 4 * WORDS;
      this.#bytes.fill(0, nameAt, nameAt + NAME_BYTES);
      this.#bytes.set(this.#interface.subarray(0, NAME_BYTES - 1), nameAt);
      words[at + 8] = nameAt;
    }
  }

  /** A Unix socket's path; "@" stands for the zero byte that begins an abstract name. */
  #fillPath(path: string): number {
    const bytes = Buffer.from(path, "utf8");
    if (bytes.length > MAX_PATH) return -Errno.ENAMETOOLONG;
    if (path.startsWith("@")) bytes[0] = 0;
    const at = this.#offset >> 2;
    const pathAt = this.#offset + 4 * WORDS;
    this.#words.fill(0, at, at + WORDS);
    this.#words[at] = UNIX;
    this.#words[at + 2] = pathAt;
    this.#words[at + 3] = bytes.length;
    this.#words[at + 8] = -1;
    this.#bytes.set(bytes, pathAt);
    return 0;
  }
}

/** Idle time, interval (s), probes, and the patience with unacknowledged data that amounts to the same (ms). */
function keepAliveWords(keepAlive: KeepAlive | undefined): Int32Array {
  if (keepAlive === undefined) return new Int32Array(4);
  const idle = clamp(Math.round(keepAlive.idleMs / 1000), MAX_KEEP_SECONDS);
  const interval = clamp(Math.round(keepAlive.intervalMs / 1000), MAX_KEEP_SECONDS);
  const probes = clamp(keepAlive.probes, MAX_PROBES);
  return Int32Array.of(idle, interval, probes, Math.min(0x7fff_ffff, 1000 * (idle + interval * probes)));
}

function clamp(value: number, max: number): number {
  return Math.min(max, Math.max(1, value));
}
