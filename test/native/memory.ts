// What tests and workers share: the addon, a slab with views, loopback addresses, and waiting without timed assertions.
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
