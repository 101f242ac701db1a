/**
 * rtnetlink messages (rtnetlink(7), RFC 3549 §2.2), built and parsed as bytes; the addon only carries them.
 *
 *      nlmsghdr (16)             family header (8..16)      attributes, each padded to 4
 *     +------------------------+--------------------------+------------+------------+---
 *     | len type flags seq pid | ifinfomsg/ifaddrmsg/rtmsg | len type.. | len type.. |
 *     +------------------------+--------------------------+------------+------------+---
 *
 * All integers are in the host's byte order.
 */
import { type Addon, Errno } from "../io/addon.ts";

/** struct nlmsghdr. */
const NLMSG_LEN = 0;
const NLMSG_TYPE = 4;
const NLMSG_FLAGS = 6;
const NLMSG_SEQ = 8;
const NLMSG_HEADER_LEN = 16;
/** struct nlmsgerr: the errno, negative, then the header it answers. */
const NLMSGERR_ERROR = NLMSG_HEADER_LEN;
/** struct rtattr. */
const RTA_LEN = 0;
const RTA_TYPE = 2;
const RTA_HEADER_LEN = 4;
/** The two top bits of an attribute type are flags (nested, network byte order). */
const RTA_TYPE_MASK = 0x3fff;

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP = 0x300;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Requests are far smaller; a message that is not is a mistake of ours and throws. */
const REQUEST_CAPACITY = 512;
/** Replies start with this much room, bytes; a link dump of a host with hundreds of interfaces takes more. */
const REPLY_CAPACITY = 64 * 1024;
/** Where growing stops, bytes. */
const MAX_REPLY_CAPACITY = 16 * 1024 * 1024;

/** Writes one request: header, family header, attributes. */
export class NetlinkRequest {
  readonly #bytes: Uint8Array = new Uint8Array(REQUEST_CAPACITY);
  readonly #view: DataView = new DataView(this.#bytes.buffer);
  #length = NLMSG_HEADER_LEN;

  /**
   * @param type RTM_...
   * @param flags NLM_F_...; NLM_F_REQUEST is added
   */
  constructor(type: number, flags: number) {
    this.#view.setUint16(NLMSG_TYPE, type, LITTLE_ENDIAN);
    this.#view.setUint16(NLMSG_FLAGS, flags | NLM_F_REQUEST, LITTLE_ENDIAN);
    this.#view.setUint32(NLMSG_SEQ, 1, LITTLE_ENDIAN);
  }

  u8(value: number): this {
    this.#view.setUint8(this.#length, value);
    this.#length += 1;
    return this;
  }

  u16(value: number): this {
    this.#view.setUint16(this.#length, value, LITTLE_ENDIAN);
    this.#length += 2;
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.#length, value, LITTLE_ENDIAN);
    this.#length += 4;
    return this;
  }

  /** Adds an attribute with `value` as its content, padded to 4. */
  attribute(type: number, value: Uint8Array): this {
    const length = RTA_HEADER_LEN + value.length;
    this.u16(length).u16(type);
    this.#bytes.set(value, this.#length);
    this.#length += (value.length + 3) & ~3;
    return this;
  }

  attributeU32(type: number, value: number): this {
    return this.u16(RTA_HEADER_LEN + 4)
      .u16(type)
      .u32(value);
  }

  /** Adds a NUL-terminated string, ASCII. */
  attributeString(type: number, value: string): this {
    const bytes = new Uint8Array(value.length + 1);
    for (let i = 0; i < value.length; i++) bytes[i] = value.charCodeAt(i);
    return this.attribute(type, bytes);
  }

  /** The message with its length filled in. */
  finish(): Uint8Array {
    this.#view.setUint32(NLMSG_LEN, this.#length, LITTLE_ENDIAN);
    return this.#bytes.subarray(0, this.#length);
  }
}

/** One message of a reply: its type and its bytes after the netlink header. */
export interface NetlinkMessage {
  readonly type: number;
  readonly payload: DataView;
}

/** What a request led to: messages, or the errno (positive) the kernel answered with. */
export type NetlinkReply =
  | { readonly errno: 0; readonly messages: readonly NetlinkMessage[] }
  | { readonly errno: number };

/** Sends `request` in this network namespace and waits (at most 2 s) for the whole reply. */
export function sendNetlink(addon: Addon, request: NetlinkRequest): NetlinkReply {
  const bytes = request.finish();
  for (let capacity = REPLY_CAPACITY; ; capacity *= 4) {
    const buffer = new ArrayBuffer(capacity);
    const slab = addon.registerSlab(buffer);
    if (slab < 0) return { errno: -slab };
    try {
      new Uint8Array(buffer).set(bytes);
      const length = addon.netlink(slab, 0, bytes.length, capacity);
      if (length === -Errno.ENOBUFS && capacity < MAX_REPLY_CAPACITY) continue;
      return length < 0 ? { errno: -length } : parseReply(new DataView(buffer, 0, length));
    } finally {
      addon.unregisterSlab(slab);
    }
  }
}

/** Splits the datagrams of a reply, one after the other, into messages. */
export function parseReply(view: DataView): NetlinkReply {
  const messages: NetlinkMessage[] = [];
  let at = 0;
  while (at + NLMSG_HEADER_LEN <= view.byteLength) {
    const length = view.getUint32(at + NLMSG_LEN, LITTLE_ENDIAN);
    const type = view.getUint16(at + NLMSG_TYPE, LITTLE_ENDIAN);
    if (length < NLMSG_HEADER_LEN || at + length > view.byteLength) return { errno: Errno.EIO };
    if (type === NLMSG_DONE) break;
    if (type === NLMSG_ERROR) {
      if (length < NLMSGERR_ERROR + 4) return { errno: Errno.EIO };
      const errno = -view.getInt32(at + NLMSGERR_ERROR, LITTLE_ENDIAN);
      if (errno !== 0) return { errno };
    } else {
      const start = view.byteOffset + at + NLMSG_HEADER_LEN;
      messages.push({ type, payload: new DataView(view.buffer, start, length - NLMSG_HEADER_LEN) });
    }
    at += (length + 3) & ~3;
  }
  return { errno: 0, messages };
}

/** Finds the attributes of a message whose family header takes `headerLen` bytes. */
export function parseAttributes(payload: DataView, headerLen: number): ReadonlyMap<number, DataView> {
  const attributes = new Map<number, DataView>();
  let at = headerLen;
  while (at + RTA_HEADER_LEN <= payload.byteLength) {
    const length = payload.getUint16(at + RTA_LEN, LITTLE_ENDIAN);
    const type = payload.getUint16(at + RTA_TYPE, LITTLE_ENDIAN) & RTA_TYPE_MASK;
    if (length < RTA_HEADER_LEN || at + length > payload.byteLength) break;
    const value = new DataView(payload.buffer, payload.byteOffset + at + RTA_HEADER_LEN, length - RTA_HEADER_LEN);
    attributes.set(type, value);
    at += (length + 3) & ~3;
  }
  return attributes;
}

/** Reads a u32 in host order; 0 where there is none. */
export function readU32(view: DataView | undefined, offset = 0): number {
  return view === undefined || view.byteLength < offset + 4 ? 0 : view.getUint32(offset, LITTLE_ENDIAN);
}

/** Reads a NUL-terminated ASCII string; empty where there is none. */
export function readString(view: DataView | undefined): string {
  let text = "";
  for (let i = 0; view !== undefined && i < view.byteLength && view.getUint8(i) !== 0; i++) {
    text += String.fromCharCode(view.getUint8(i));
  }
  return text;
}

/** A copy of the bytes of an attribute. */
export function readBytes(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
}
