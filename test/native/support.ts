// What the tests of the native addon share: a slab with views, waiting without timed assertions, rtnetlink requests,
// and a private network namespace to run in.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import t from "tap";
import { type Addon, isAddonProblem, loadAddon } from "../../src/io/addon.ts";

/** The addon of this thread; a test without it is a failure. */
export function addonForTest(): Addon {
  const addon = loadAddon();
  if (isAddonProblem(addon)) throw new Error(addon.problem);
  return addon;
}

/** A registered slab and its views. */
export class Memory {
  readonly buffer: ArrayBuffer;
  readonly id: number;
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly view: DataView;

  constructor(addon: Addon, size: number) {
    this.buffer = new ArrayBuffer(size);
    this.id = addon.registerSlab(this.buffer);
    if (this.id < 0) throw new Error(`registerSlab returned ${this.id}`);
    this.bytes = new Uint8Array(this.buffer);
    this.words = new Int32Array(this.buffer);
    this.view = new DataView(this.buffer);
  }

  /** Write words at a byte offset. */
  put(off: number, words: readonly number[]): void {
    this.words.set(words, off / 4);
  }

  /** The word at a byte offset. */
  word(off: number): number {
    return this.words[off / 4] ?? Number.NaN;
  }

  /** Write text, with a NUL behind it; returns its length. */
  text(off: number, text: string): number {
    const bytes = Buffer.from(text, "latin1");
    this.bytes.set(bytes, off);
    this.bytes[off + bytes.length] = 0;
    return bytes.length;
  }

  /** A copy of some bytes. */
  slice(off: number, len: number): Buffer {
    return Buffer.from(this.bytes.slice(off, off + len));
  }
}

/** The four address words of an IPv4 or IPv6 address given as bytes. */
export function addressWords(bytes: readonly number[]): number[] {
  const padded = new Uint8Array(16);
  padded.set(bytes);
  return [...new Int32Array(padded.buffer)];
}

/** 127.0.0.1 and ::1 as address words, by family. */
export const LOOPBACK: Readonly<Record<4 | 6, number[]>> = {
  4: addressWords([127, 0, 0, 1]),
  6: addressWords([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
};

/** Let the event loop turn until `done` says true. The limit only keeps a broken test from hanging. */
export async function until(what: string, done: () => boolean): Promise<void> {
  const limit = performance.now() + 30_000;
  while (!done()) {
    if (performance.now() > limit) throw new Error(`Waited too long until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

const NETNS_MARK = "TUNRELAY_TEST_NETNS";

/** Whether this process runs in a namespace made by {@link inNamespace}. */
export function isInNamespace(): boolean {
  return process.env[NETNS_MARK] === "1";
}

/**
 * Run the calling test file again in a network namespace of its own (as root, or as root of a user namespace), where
 * `define` then declares the tests. Where no namespace can be made the tests are skipped with the reason, which
 * counts as a failure under CI.
 */
export function inNamespace(fileUrl: string, define: () => void): void {
  if (isInNamespace()) {
    define();
    return;
  }
  const ways = [["-n"], ["-rn"]];
  let reason = "";
  for (const way of ways) {
    const probe = spawnSync("unshare", [...way, "true"], { encoding: "utf8" });
    if (probe.status === 0) {
      const args = [...way, process.execPath, fileURLToPath(fileUrl)];
      void t.spawn("unshare", args, { env: { ...process.env, [NETNS_MARK]: "1" } }, "in a network namespace");
      return;
    }
    reason = probe.error?.message ?? probe.stderr.trim();
  }
  skipOrFail("in a network namespace", `no network namespace can be made here: ${reason}`);
}

/** A test that cannot run: skipped with its reason, a failure under CI. */
export function skipOrFail(name: string, reason: string): void {
  const { CI } = process.env;
  if (CI === "true") {
    t.fail(`${name}: ${reason}`);
  } else {
    t.comment(`skipped, ${name}: ${reason}`);
    t.test(name, { skip: reason }, () => {});
  }
}

// ---- rtnetlink ----

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
