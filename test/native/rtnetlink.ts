// rtnetlink requests through the addon: listing interfaces, bringing them up, addresses.
import type { Addon } from "../../src/io/addon.ts";
import type { Memory } from "./memory.ts";

export const RTM_NEWLINK = 16;
export const RTM_GETLINK = 18;
export const RTM_NEWADDR = 20;
export const NLM_F_REQUEST = 1;
export const NLM_F_ACK = 4;
export const NLM_F_DUMP = 0x300;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

/** A netlink message: header and body. */
export function netlinkMessage(type: number, flags: number, body: Uint8Array): Buffer {
  const message = Buffer.alloc(16 + body.length);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(type, 4);
  message.writeUInt16LE(flags | NLM_F_REQUEST, 6);
  message.writeUInt32LE(1, 8);
  message.set(body, 16);
  return message;
}

/** `struct ifinfomsg` */
export function linkBody(index: number, flags: number, change: number): Buffer {
  const body = Buffer.alloc(16);
  body.writeInt32LE(index, 4);
  body.writeUInt32LE(flags, 8);
  body.writeUInt32LE(change, 12);
  return body;
}

/** Send one acknowledged request at the start of `memory`; returns the kernel's error, 0 or negative. */
export function netlinkRequest(addon: Addon, memory: Memory, message: Buffer): number {
  memory.bytes.set(message, 0);
  const n = addon.netlink(memory.id, 0, message.length, 4096);
  if (n < 0) return n;
  return memory.view.getUint16(4, true) === NLMSG_ERROR ? memory.view.getInt32(16, true) : Number.NaN;
}

/** One interface of a link dump. */
export interface Link {
  readonly index: number;
  readonly flags: number;
  readonly name: string;
}

/** All interfaces, by an RTM_GETLINK dump. */
export function listLinks(addon: Addon, memory: Memory): Link[] {
  const request = netlinkMessage(RTM_GETLINK, NLM_F_DUMP, linkBody(0, 0, 0));
  memory.bytes.set(request, 0);
  const n = addon.netlink(memory.id, 0, request.length, 65536);
  if (n < 0) throw new Error(`netlink returned ${n}`);
  const links: Link[] = [];
  for (let at = 0; at + 16 <= n; ) {
    const len = memory.view.getUint32(at, true);
    const end = at + len;
    if (memory.view.getUint16(at + 4, true) === RTM_NEWLINK) {
      let name = "";
      for (let attr = at + 32; attr + 4 <= end; ) {
        const attrLen = memory.view.getUint16(attr, true);
        if (memory.view.getUint16(attr + 2, true) === 3) {
          name = memory.slice(attr + 4, attrLen - 5).toString("latin1");
        }
        attr += (attrLen + 3) & ~3;
      }
      links.push({ index: memory.view.getInt32(at + 20, true), flags: memory.view.getUint32(at + 24, true), name });
    }
    at += (len + 3) & ~3;
  }
  return links;
}

/** Bring an interface up and give it addresses (bytes and prefix length). */
export function setUp(
  addon: Addon,
  memory: Memory,
  name: string,
  addresses: readonly (readonly [bytes: readonly number[], prefix: number])[],
): void {
  const link = listLinks(addon, memory).find((each) => each.name === name);
  if (link === undefined) throw new Error(`No interface ${name}`);
  const up = netlinkRequest(addon, memory, netlinkMessage(RTM_NEWLINK, NLM_F_ACK, linkBody(link.index, 1, 1)));
  if (up !== 0) throw new Error(`Bringing up ${name}: ${up}`);
  for (const [bytes, prefix] of addresses) {
    const body = Buffer.alloc(8 + 2 * (4 + bytes.length));
    body[0] = bytes.length === 4 ? 2 : 10;
    body[1] = prefix;
    body[2] = bytes.length === 4 ? 0 : 2; // IFA_F_NODAD
    body.writeUInt32LE(link.index, 4);
    for (const [i, attribute] of [1, 2].entries()) {
      const at = 8 + i * (4 + bytes.length);
      body.writeUInt16LE(4 + bytes.length, at);
      body.writeUInt16LE(attribute, at + 2);
      body.set(bytes, at + 4);
    }
    const added = netlinkRequest(addon, memory, netlinkMessage(RTM_NEWADDR, NLM_F_ACK | 0x600, body));
    if (added !== 0) throw new Error(`Address ${bytes.join(".")} on ${name}: ${added}`);
  }
}
