/** User and password that clients must give, compared in a time that does not depend on them. */
import { createHash, timingSafeEqual } from "node:crypto";

export class Credentials {
  readonly #digest: Buffer;

  constructor(username: string, password: string) {
    this.#digest = digest(Buffer.from(username), Buffer.from(password));
  }

  matches(user: Uint8Array, password: Uint8Array): boolean {
    return timingSafeEqual(this.#digest, digest(user, password));
  }

  /** `user:password` as HTTP Basic carries it: the first colon divides (RFC 7617 §2). */
  matchesBasic(pair: Uint8Array): boolean {
    const colon = pair.indexOf(0x3a);
    return colon >= 0 && this.matches(pair.subarray(0, colon), pair.subarray(colon + 1));
  }
}

/** The user's length goes in as well, so that no other split of the same bytes matches. */
function digest(user: Uint8Array, password: Uint8Array): Buffer {
  return createHash("sha256").update(`${user.length}:`).update(user).update(password).digest();
}
