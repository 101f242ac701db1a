/** Bytes that look random and are the same everywhere for the same seed, made while they are sent. */
import { type Cipher, createCipheriv, createHash } from "node:crypto";

const ZEROS = Buffer.alloc(128 * 1024);

/** The first `length` bytes of the AES-128-CTR key stream whose key is `seed`. */
export class Content {
  readonly #cipher: Cipher;
  #left: number;

  constructor(seed: number, length: number) {
    const key = Buffer.alloc(16);
    key.writeUInt32BE(seed >>> 0);
    this.#cipher = createCipheriv("aes-128-ctr", key, Buffer.alloc(16));
    this.#left = length;
  }

  /** The next piece; null at the end. */
  next(): Buffer | null {
    if (this.#left === 0) return null;
    const size = Math.min(this.#left, ZEROS.length);
    this.#left -= size;
    return this.#cipher.update(ZEROS.subarray(0, size));
  }
}

const digests = new Map<string, string>();

/** SHA-256 of a {@link Content}, hexadecimal. */
export function contentDigest(seed: number, length: number): string {
  const key = `${seed} ${length}`;
  const known = digests.get(key);
  if (known !== undefined) return known;
  const content = new Content(seed, length);
  const hash = createHash("sha256");
  for (let piece = content.next(); piece !== null; piece = content.next()) hash.update(piece);
  const digest = hash.digest("hex");
  digests.set(key, digest);
  return digest;
}
