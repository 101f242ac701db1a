/** The Internet checksum (RFC 1071) over bytes of packet memory. */
import type { Memory } from "../memory/slab.ts";

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Folds a sum to 16 bits with end-around carry; `sum` is any non-negative integer below 2^53. */
export function fold(sum: number): number {
  let folded = ((sum % 0x1_0000_0000) >>> 0) + Math.floor(sum / 0x1_0000_0000);
  folded = (folded % 0x1_0000) + Math.floor(folded / 0x1_0000);
  folded = (folded & 0xffff) + (folded >>> 16);
  return (folded & 0xffff) + (folded >>> 16);
}

/**
 * Returns the one's complement sum, not inverted, of bytes [start, end) as big-endian 16-bit words. An odd last byte
 * counts as the high byte of a word (RFC 1071 §4.1). The result is below 2^17 and can be added to others before `fold`.
 */
export function sumBytes(memory: Memory, start: number, end: number): number {
  const { view, words } = memory;
  let at = start;
  let edges = 0;
  // Whole words only from the next 4-byte boundary on; an odd start has no such boundary in phase, so bytes it is.
  if ((at & 1) === 0) {
    if ((at & 2) !== 0 && at + 2 <= end) {
      edges += view.getUint16(at);
      at += 2;
    }
    let word = at >> 2;
    const lastWord = end >> 2;
    // Each word as an unsigned double: 2^14 of them stay far below 2^53.
    let sum = 0;
    for (; word + 8 <= lastWord; word += 8) {
      sum +=
        ((words[word] as number) >>> 0) +
        ((words[word + 1] as number) >>> 0) +
        ((words[word + 2] as number) >>> 0) +
        ((words[word + 3] as number) >>> 0) +
        ((words[word + 4] as number) >>> 0) +
        ((words[word + 5] as number) >>> 0) +
        ((words[word + 6] as number) >>> 0) +
        ((words[word + 7] as number) >>> 0);
    }
    for (; word < lastWord; word++) sum += (words[word] as number) >>> 0;
    if (word << 2 > at) at = word << 2;
    const folded = fold(sum);
    // RFC 1071 §2 (B): the sum does not depend on byte order, but for the order of its own two bytes.
    edges += LITTLE_ENDIAN ? ((folded & 0xff) << 8) | (folded >>> 8) : folded;
  }
  for (; at + 2 <= end; at += 2) edges += view.getUint16(at);
  if (at < end) edges += view.getUint8(at) << 8;
  return edges < 0x20000 ? edges : fold(edges);
}

/** The plain version of `sumBytes`, kept as its oracle. @internal */
export function sumBytesPlain(view: DataView, start: number, end: number): number {
  let sum = 0;
  let at = start;
  for (; at + 2 <= end; at += 2) sum += view.getUint16(at);
  if (at < end) sum += view.getUint8(at) << 8;
  return fold(sum);
}

/** The checksum field's value for a sum: its folded complement. */
export function checksum(sum: number): number {
  return ~fold(sum) & 0xffff;
}
