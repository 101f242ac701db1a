/** Bytes that look random, are the same everywhere for the same seed, and so can be checked by hash at the other end. */
import { createCipheriv, createHash } from "node:crypto";

const BLOCK = 1024 * 1024;

/** The first `length` bytes of the stream of `seed`: the AES-128-CTR key stream with the seed as key. */
export function seededContent(seed: number, length: number): Buffer {
  const content = Buffer.alloc(length);
  const key = Buffer.alloc(16);
  key.writeUInt32BE(seed >>> 0);
  const cipher = createCipheriv("aes-128-ctr", key, Buffer.alloc(16));
  const zeros = Buffer.alloc(Math.min(BLOCK, length));
  for (let at = 0; at < length; at += BLOCK) {
    cipher.update(zeros.subarray(0, Math.min(BLOCK, length - at))).copy(content, at);
  }
  return content;
}

/** SHA-256 in hexadecimal. */
export function sha256(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}
