/**
 * Identifications of datagrams that leave in fragments: nobody can guess the next one (RFC 7739 §5, RFC 6864 §5.3), and
 * IPv4's do not come again before all others were used (RFC 6864 §4.3).
 */
const ROUNDS = 4;

export class Identifications {
  readonly #random: () => number;
  /** Keys of the permutation of 16-bit numbers, drawn anew for every turn through them. */
  readonly #keys: Int32Array = new Int32Array(ROUNDS);
  #count = 0;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** For IPv4: 16 bits, never zero. */
  next16(): number {
    for (;;) {
      if (this.#count === 0) for (let i = 0; i < ROUNDS; i++) this.#keys[i] = this.#random();
      const id = this.#permute(this.#count);
      this.#count = (this.#count + 1) & 0xffff;
      if (id !== 0) return id;
    }
  }

  /** For IPv6: 32 bits. */
  next32(): number {
    return this.#random() | 0;
  }

  /** A Feistel network over two bytes: whatever the round function, no two numbers have the same image. */
  #permute(value: number): number {
    let left = value >>> 8;
    let right = value & 0xff;
    for (let i = 0; i < ROUNDS; i++) {
      let mixed = Math.imul(right ^ (this.#keys[i] as number), 0x9e3779b1);
      mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b);
      const swapped = left ^ (mixed >>> 24);
      left = right;
      right = swapped;
    }
    return (left << 8) | right;
  }
}
