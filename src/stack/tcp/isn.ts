/**
 * Initial sequence numbers and timestamp offsets (RFC 6528 §3): a clock plus a keyed hash of the flow's ends.
 * The hash is HalfSipHash-2-4, the 32-bit member of the SipHash family, which needs no more than 32-bit additions.
 */

function rotl(x: number, n: number): number {
  return (x << n) | (x >>> (32 - n));
}

/** Keyed hash of 32-bit words with a 64-bit key; returns 32 bits. */
export function halfSipHash(key0: number, key1: number, words: Int32Array, start: number, end: number): number {
  let v0 = key0 | 0;
  let v1 = key1 | 0;
  let v2 = 0x6c796765 ^ key0;
  let v3 = 0x74656462 ^ key1;
  const round = (): void => {
    v0 = (v0 + v1) | 0;
    v1 = rotl(v1, 5) ^ v0;
    v0 = rotl(v0, 16);
    v2 = (v2 + v3) | 0;
    v3 = rotl(v3, 8) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = rotl(v3, 7) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = rotl(v1, 13) ^ v2;
    v2 = rotl(v2, 16);
  };
  for (let i = start; i < end; i++) {
    const word = words[i] as number;
    v3 ^= word;
    round();
    round();
    v0 ^= word;
  }
  const length = ((end - start) * 4) << 24;
  v3 ^= length;
  round();
  round();
  v0 ^= length;
  v2 ^= 0xff;
  round();
  round();
  round();
  round();
  return v1 ^ v3;
}

/** RFC 6528 §3: the clock M ticks every 4 us. */
const CLOCK_TICKS_PER_MS = 250;

/** Draws initial sequence numbers and timestamp offsets for flows. */
export class IsnGenerator {
  readonly #key: Int32Array;

  /** @param random draws 32 secret bits */
  constructor(random: () => number) {
    this.#key = Int32Array.of(random() | 0, random() | 0, random() | 0, random() | 0);
  }

  /** ISN of the flow whose key is `words[start, end)`, at `now` ms. */
  isn(words: Int32Array, start: number, end: number, now: number): number {
    const clock = Math.floor(now * CLOCK_TICKS_PER_MS) % 0x1_0000_0000;
    return (clock + halfSipHash(this.#key[0] as number, this.#key[1] as number, words, start, end)) | 0;
  }

  /** RFC 7323 §5.4: a random offset for each flow's timestamp clock. */
  timestampOffset(words: Int32Array, start: number, end: number): number {
    return halfSipHash(this.#key[2] as number, this.#key[3] as number, words, start, end);
  }
}
