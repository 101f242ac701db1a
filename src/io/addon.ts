/**
 * The native addon: its functions, typed, and the loader.
 *
 * Every function takes integers and returns an integer: 0 or more is success, below 0 is `-errno`
 * ({@link errnoName}). None ever throws. Wrong kinds or too few arguments give `-EINVAL`. Memory is named by a slab id
 * ({@link Addon.registerSlab}) and byte offsets: an unknown id gives `-EBADF`, a range outside the slab (or a detached
 * one) `-EFAULT`, a word array that is not 4-byte aligned `-EINVAL`. Words are int32 in native byte order; addresses
 * in words are bytes in network order, IPv4 in the first four. Only descriptors that this thread's addon opened or
 * adopted are accepted, others give `-EBADF`; all of them are closed when the thread ends.
 */
import { existsSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { getSystemErrorName } from "node:util";

/** The interface version this file was written for; {@link loadAddon} refuses another one. */
export const ADDON_ABI = 2;

/** Functions of the native addon. See the head of this file for the conventions. */
export interface Addon {
  /** The version of this interface, {@link ADDON_ABI}. */
  abi(): number;

  /** Give memory to the addon. It is kept alive until {@link unregisterSlab}. @returns id 0..15, or `-ENOSPC` */
  registerSlab(buffer: ArrayBuffer): number;
  /** Forget a slab. @returns 0 */
  unregisterSlab(id: number): number;

  /**
   * Take over an open descriptor: made non-blocking and close-on-exec, closed with the rest when the thread ends.
   * 0, 1, 2 are refused with `-EINVAL`, one that is already owned with `-EEXIST`. @returns the descriptor
   */
  adoptFd(fd: number): number;
  /**
   * Own another descriptor of what an open one refers to, close-on-exec (dup(2)). Refuses as {@link adoptFd} does, but
   * for descriptors that are owned. @returns the new descriptor
   */
  copyFd(fd: number): number;
  /** Give a descriptor up without closing it, for another owner. It leaves the epoll set. @returns the descriptor */
  releaseFd(fd: number): number;
  /** Close an owned descriptor. @returns 0 */
  close(fd: number): number;

  /**
   * Open the TUN device node and attach to an interface (made if it does not exist).
   * @param nameOff offset of the 16-byte name, with a NUL in it; an empty name or `tun%d` lets the kernel choose. The
   *   kernel's name is written back there.
   * @param flags {@link TunFlag} bits, exactly one of TUN and TAP
   * @returns a descriptor
   */
  tunOpen(slab: number, nameOff: number, flags: number): number;
  /** The {@link TunFlag} bits this kernel knows. */
  tunGetFeatures(fd: number): number;
  /** Set the length of the vnet header in bytes: 10, 12, 20 or 24. @returns 0 */
  tunSetVnetHdrSize(fd: number, bytes: number): number;
  /** Set what reads may contain, {@link TunOffload} bits. `-EINVAL` when the kernel lacks one. @returns 0 */
  tunSetOffload(fd: number, flags: number): number;
  /** Limit the bytes in flight on the device's transmit side. @returns 0 */
  tunSetSendBuffer(fd: number, bytes: number): number;
  /** Write the interface's 16-byte name at `off`. @returns its {@link TunFlag} bits */
  tunGetIff(fd: number, slab: number, off: number): number;
  /** Keep the interface (1) or not (0) after the last descriptor is closed. @returns 0 */
  tunSetPersist(fd: number, on: number): number;
  /**
   * Read packets, packed one after the other into `[off, limit)`. Each starts at the alignment (modulo 4) of the
   * first. Stops at `max` packets, when fewer than `room` bytes are left, or when the device has no more.
   * @param room bytes that must be free for a packet, 1 or more
   * @param metaOff where two words per packet go: offset, length
   * @param max 1..1024
   * @returns packets read; 0 when there is none; `-errno` if the first read failed
   */
  tunRead(fd: number, slab: number, off: number, limit: number, room: number, metaOff: number, max: number): number;
  /**
   * Write `count` packets, each gathered from pieces of the slab. Words per packet: pieces (1..64), then offset and
   * length of each.
   * @returns packets written, or `-errno` if the first one failed; `-EAGAIN` when the device takes none now
   */
  tunWrite(fd: number, slab: number, descOff: number, descLen: number, count: number): number;

  /**
   * Make this thread's epoll set. `callback` is called from the event loop, without arguments, while at least one
   * descriptor is ready. What it throws becomes an uncaught exception. `-EEXIST` when there is one already.
   */
  pollerOpen(callback: () => void): number;
  /** Drop the epoll set; also from within the callback. `-ENXIO` when there is none (as in all poller calls). */
  pollerClose(): number;
  /** Keep the event loop alive (1, the default) or not (0). @returns 0 */
  pollerRef(on: number): number;
  /** Watch a descriptor for {@link Epoll} bits; `token` and `gen` come back in each event. @returns 0 */
  pollerAdd(fd: number, events: number, token: number, gen: number): number;
  /** Change what {@link pollerAdd} set. @returns 0 */
  pollerModify(fd: number, events: number, token: number, gen: number): number;
  /** Stop watching a descriptor. Closing one does that too. @returns 0 */
  pollerDelete(fd: number): number;
  /**
   * Fetch events as three words each: token, gen, {@link Epoll} bits.
   * @param max 1..1024
   * @param timeoutMs -1 (wait) to 1000; 0 from within the callback
   * @returns the number of events
   */
  pollerWait(slab: number, off: number, max: number, timeoutMs: number): number;

  /**
   * Open a stream socket (non-blocking, no Nagle delay), start connecting, try to send the first bytes at once, and
   * watch it for IN, PRI, OUT, RDHUP, edge-triggered. Words at `descOff` (20):
   * family 4 or 6; port; address (4 words); scope id; mark (0 none); offset of a 16-byte interface name or -1;
   * token (-1: do not watch); gen; data offset; data length; out: bytes sent; out: 1 if already connected;
   * keep-alive: seconds of silence (0: none), seconds between probes, probes; TCP_USER_TIMEOUT in ms (0: none).
   * With family 1 it is a Unix socket: the first two address words are offset and length of its path, or of an abstract
   * name with its leading zero byte; mark, interface and the last four words are not looked at. `-EAGAIN` when its
   * listener has no room.
   * @returns a descriptor; on failure nothing stays open
   */
  tcpConnect(slab: number, descOff: number): number;
  /**
   * Receive from several sockets into `[off, limit)`. An entry is four words: descriptor; out: bytes, 0 at the end of
   * the stream, or `-errno`; out: offset of the bytes; out: bytes asked for. Offsets are rounded up to 8.
   * @param perMax bytes asked of one socket at most
   * @param room stop when fewer bytes are left
   * @returns entries processed
   */
  streamRead(
    slab: number,
    listOff: number,
    count: number,
    off: number,
    limit: number,
    perMax: number,
    room: number,
  ): number;
  /**
   * Send on several sockets. An entry: descriptor; {@link StreamFlag} bits; pieces (0..256); out: bytes taken or
   * `-errno`; then offset and length of each piece. A bad entry gets its own error, the rest goes on.
   * @returns entries processed; `-EINVAL` when the first entry does not fit the list
   */
  streamWrite(slab: number, descOff: number, descLen: number, count: number): number;

  /** shutdown(2): 0 reading, 1 writing, 2 both. @returns 0 */
  socketShutdown(fd: number, how: number): number;
  /** Close with a RST. @returns 0 */
  socketReset(fd: number): number;
  /** Take the socket's pending error. @returns 0 or a positive errno */
  socketError(fd: number): number;
  /**
   * Write the own (0) or the peer's (1) address as six words: family 4 or 6 (0: neither), port, address.
   * @returns 0
   */
  socketName(fd: number, peer: number, slab: number, off: number): number;
  /** setsockopt(2) with an int. @returns 0 */
  setOption(fd: number, level: number, name: number, value: number): number;
  /** getsockopt(2) of an int. @returns the value (a negative one cannot be told from an error) */
  getOption(fd: number, level: number, name: number): number;

  /**
   * Open a UDP socket and watch it for IN, edge-triggered. Words at `descOff` (20) as in {@link tcpConnect}, with
   * {@link UdpFlag} bits instead of the data offset and those after it unused. Without `CONNECT` it is bound to
   * the address and port (0: any). IPv6 sockets take no IPv4.
   * @returns a descriptor
   */
  udpOpen(slab: number, descOff: number): number;
  /**
   * Receive datagrams into `[off, limit)`, packed, each start but the first rounded up to 8. What does not fit is kept
   * and comes first in the next call, so nothing is lost; only a result of 0 says that the socket is empty.
   * Ten words each at `metaOff`: offset; length; family; port; address (4 words); segment size when the kernel merged
   * several datagrams of one sender (0: a single one); flags, bit 0 truncated.
   * @param limit 65536 bytes beyond `off` always suffice for one; `-ENOBUFS` when the next one does not fit
   * @param max 1..1024 (64 per call at most are returned)
   * @returns datagrams, or `-errno` (a pending ICMP error, for instance)
   */
  udpRead(fd: number, slab: number, off: number, limit: number, metaOff: number, max: number): number;
  /**
   * Take the details of one error, of a socket opened with `RECVERR`, after {@link udpRead} or {@link udpWrite}
   * failed. What is not taken is dropped at the next {@link udpRead}. Ten words: errno; origin (2 ICMP, 3 ICMPv6);
   * ICMP type * 256 + code; info (MTU for EMSGSIZE); family, port, address (4 words) of the destination concerned.
   * @returns 1, or 0 when there is none
   */
  udpReadError(fd: number, slab: number, off: number): number;
  /**
   * Send `count` datagrams. An entry: pieces (0..64); family 4 or 6 (0: the connected peer); port; address (4 words);
   * segment size to split at (0: one datagram); then offset and length of each piece.
   * @returns datagrams sent, or `-errno` if the first one failed
   */
  udpWrite(fd: number, slab: number, descOff: number, descLen: number, count: number): number;

  /**
   * Send the rtnetlink request(s) in `[off, off + len)` and overwrite them with the replies, up to `cap` bytes: until
   * each request with ACK or DUMP got its NLMSG_DONE or NLMSG_ERROR, else one datagram. Blocks for 2 s at most
   * (`-ETIMEDOUT`); `-ENOBUFS` when `cap` is too small. The error inside an acknowledgement is for the caller to read.
   * @returns bytes of replies
   */
  netlink(slab: number, off: number, len: number, cap: number): number;
}

/** Why the addon cannot be used. */
export interface AddonProblem {
  /** One line: cause and remedy. */
  readonly problem: string;
  readonly cause: string;
  readonly remedy: string;
}

/** Bits of `tunOpen` (linux/if_tun.h). */
export const TunFlag = {
  TUN: 0x1,
  TAP: 0x2,
  NAPI: 0x10,
  MULTI_QUEUE: 0x100,
  NO_PI: 0x1000,
  VNET_HDR: 0x4000,
  EXCLUSIVE: 0x8000,
} as const;

/** Bits of `tunSetOffload` (linux/if_tun.h). TSO needs CSUM; USO4 and USO6 (Linux 6.2) go together. */
export const TunOffload = { CSUM: 0x1, TSO4: 0x2, TSO6: 0x4, TSO_ECN: 0x8, USO4: 0x20, USO6: 0x40 } as const;

/** Readiness bits of the poller (epoll_ctl(2)). */
export const Epoll = {
  IN: 0x1,
  PRI: 0x2,
  OUT: 0x4,
  ERR: 0x8,
  HUP: 0x10,
  RDHUP: 0x2000,
  ONESHOT: 0x4000_0000,
  /** Edge-triggered; the sign bit of the word. */
  ET: -0x8000_0000,
} as const;

/** Bits of a `streamWrite` entry: more follows soon; FIN after all bytes were taken, riding on the last of them. */
export const StreamFlag = { MORE: 1, SHUTDOWN: 2 } as const;

/** Bits of `udpOpen`. */
export const UdpFlag = { CONNECT: 1, GRO: 2, RECVERR: 4 } as const;

/** Linux error numbers that callers compare with, positive; the addon returns them negated. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  EPIPE: 32,
  ENAMETOOLONG: 36,
  ENOTSOCK: 88,
  EMSGSIZE: 90,
  EPROTO: 71,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  /** What a TUN descriptor says once its interface is gone. */
  EBADFD: 77,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
} as const;

/** The name of an error number of either sign: `errnoName(-111)` is `ECONNREFUSED`. */
export function errnoName(errno: number): string {
  const n = Math.abs(errno);
  const known = n > 0 ? getSystemErrorName(-n) : "";
  if (/^E[A-Z0-9]+$/.test(known)) return known;
  // libuv does not name every errno, EBADFD for one.
  for (const [name, value] of [...Object.entries(Errno), ...Object.entries(constants.errno)]) {
    if (value === n) return name;
  }
  return `errno ${n}`;
}

let loaded: Addon | AddonProblem | null = null;

/**
 * Load the addon, once per thread. The environment variable TUNRELAY_ADDON names another file to load.
 * @returns the addon, or why there is none
 */
export function loadAddon(): Addon | AddonProblem {
  loaded ??= load();
  return loaded;
}

/** Whether `loadAddon` failed. */
export function isAddonProblem(addon: Addon | AddonProblem): addon is AddonProblem {
  return "problem" in addon;
}

/** The file that {@link loadAddon} loads. */
export function addonFile(): string {
  const { TUNRELAY_ADDON: override = "" } = process.env;
  return override !== "" ? override : join(packageRoot(), "prebuilds", `linux-${process.arch}`, "tunrelay.node");
}

function addonProblem(cause: string, remedy: string): AddonProblem {
  return { problem: `${cause}; ${remedy}`, cause, remedy };
}

function load(): Addon | AddonProblem {
  if (process.platform !== "linux") {
    const cause = `The native addon needs Linux, this is ${process.platform}`;
    return addonProblem(cause, "TUN devices cannot be used here");
  }
  const { TUNRELAY_ADDON: override = "" } = process.env;
  const file = addonFile();
  const remedy = override !== "" ? "correct or unset TUNRELAY_ADDON" : "run `npm run build:native` in a clone";
  if (!existsSync(file)) return addonProblem(`The native addon is missing: no file ${file}`, remedy);
  const module = { exports: {} };
  try {
    // Not require(), which would run a file of another kind as a script.
    process.dlopen(module, file);
  } catch (error) {
    const cause = error instanceof Error ? error.message.split("\n", 1)[0] : String(error);
    return addonProblem(`The native addon cannot be loaded: ${cause}`, remedy);
  }
  const addon = module.exports as Addon;
  const abi: unknown = typeof addon.abi === "function" ? addon.abi() : undefined;
  if (abi !== ADDON_ABI) {
    return addonProblem(`The native addon ${file} has interface ${abi}, expected ${ADDON_ABI}`, remedy);
  }
  return addon;
}

/** The nearest directory above this file whose package.json is ours; works from src, .build/src and dist. */
function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    try {
      const manifest: unknown = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
      if (typeof manifest === "object" && manifest !== null && "name" in manifest && manifest.name === "tunrelay") {
        return directory;
      }
    } catch {
      // No manifest here, or not a readable one: look further up.
    }
    const parent = dirname(directory);
    if (parent === directory) return directory;
    directory = parent;
  }
}
