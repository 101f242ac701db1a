/**
 * User and password of an HTTP proxy: Basic (RFC 7617) and Digest (RFC 7616), driven by the proxy's challenge. One
 * object an upstream: what the proxy asked for is remembered, so that later flows need no second request.
 */
import { createHash, randomBytes } from "node:crypto";
import { type Challenge, parseChallenges } from "./http-challenges.ts";

/** Longest realm, nonce or opaque that is taken, bytes: they go into each request. Proxies send 20 to 100. */
const MAX_ECHOED = 512;

/** Hash functions by RFC 7616 §6.1's names, the preferred ones first. */
const HASHES: ReadonlyMap<string, string> = new Map([
  ["SHA-256", "sha256"],
  // Behind SHA-256, as many cut SHA-512 short here in place of FIPS 180-4's SHA-512/256: RFC 7616 §3.9.2 itself does.
  ["SHA-512-256", "sha512-256"],
  ["MD5", "md5"],
]);

/** An answer to a challenge, usable for any number of requests. */
export interface Authorization {
  /** `Basic`, or `Digest` and its algorithm; for messages. */
  readonly name: string;
  /** The value of Proxy-Authorization. @param uri the target of the request, `host:port` */
  value(method: string, uri: string): string;
}

/** What a 407 led to. */
export const ChallengeResult = {
  /** `current` answers the challenge: ask again. */
  retry: 0,
  /** User and password are not taken. */
  wrong: 1,
  /** None of the schemes is known here; `offered` names them. */
  unknown: 2,
} as const;
export type ChallengeResult = (typeof ChallengeResult)[keyof typeof ChallengeResult];

/** User and password towards one proxy. Everything is private, so that no inspection shows it. */
export class HttpCredentials {
  readonly #user: Uint8Array;
  readonly #password: Uint8Array;
  readonly #random: () => string;
  #current: Authorization | null = null;
  /** Whether the proxy has accepted a request with `#current`. */
  #isProven = false;
  #offered = "";

  /**
   * @param user without colon and control characters (RFC 7617 §2)
   * @param random a fresh `cnonce` (RFC 7616 §3.4); by default 128 random bits
   */
  constructor(
    user: Uint8Array,
    password: Uint8Array,
    random: () => string = () => randomBytes(16).toString("base64url"),
  ) {
    this.#user = user;
    this.#password = password;
    this.#random = random;
  }

  /** What the next request should carry; null before the first challenge. */
  get current(): Authorization | null {
    return this.#current;
  }

  /** After `unknown`: the schemes that were offered, fit for a log. */
  get offered(): string {
    return this.#offered;
  }

  /** A request with `used` was accepted. */
  onAccepted(used: Authorization): void {
    if (used === this.#current) this.#isProven = true;
  }

  /**
   * A 407 came.
   * @param used what the request carried; null for nothing
   * @param fields values of Proxy-Authenticate
   */
  onChallenge(used: Authorization | null, fields: readonly string[]): ChallengeResult {
    const challenges = parseChallenges(fields);
    const best = this.#choose(challenges);
    if (best === null) {
      this.#offered = [...new Set(challenges.map(describeChallenge))].join(", ").slice(0, 100);
      return ChallengeResult.unknown;
    }
    // Several flows had the same nonce when it died: the first of them has brought a new one already.
    const isLate = used !== null && this.#current !== null && used !== this.#current;
    if (isLate && !best.isStale) return ChallengeResult.retry;
    const wasProven = this.#isProven && used === this.#current;
    const { authorization, isStale } = best;
    const isNew = used === null || used.name !== authorization.name;
    // RFC 7616 §3.3, stale: the nonce is too old, user and password are right. A nonce that has worked and works no
    // more is taken as stale too: a proxy that was started again knows none of its old ones.
    const isObsolete = authorization.name !== BASIC && (isStale || wasProven);
    if (!isNew && !isObsolete) return ChallengeResult.wrong;
    this.#current = authorization;
    this.#isProven = false;
    return ChallengeResult.retry;
  }

  /** RFC 7616 §3.7: the strongest of the schemes offered; Basic only when nothing else can be had. */
  #choose(challenges: readonly Challenge[]): { authorization: Authorization; isStale: boolean } | null {
    for (const algorithm of HASHES.keys()) {
      for (const challenge of challenges) {
        const digest = digestOf(challenge, algorithm);
        if (digest === null) continue;
        const authorization = new DigestAuthorization(digest, this.#user, this.#password, this.#random());
        return { authorization, isStale: challenge.parameters.get("stale")?.toLowerCase() === "true" };
      }
    }
    if (!challenges.some(({ scheme }) => scheme === "basic")) return null;
    return { authorization: new BasicAuthorization(this.#user, this.#password), isStale: false };
  }
}

/** The scheme, and what of a Digest challenge may be what is not known here. */
function describeChallenge({ scheme, parameters }: Challenge): string {
  const algorithm = parameters.get("algorithm");
  const qop = parameters.get("qop");
  const more = scheme !== "digest" ? "" : ` (algorithm ${algorithm ?? "MD5"}, qop ${qop ?? "none"})`;
  return `${scheme}${more}`.replace(/[^\x20-\x7e]/g, "?").slice(0, 60);
}

const BASIC = "Basic";

/** RFC 7617 §2. The bytes are those of the URL, so UTF-8 unless it says otherwise (§2.1). */
class BasicAuthorization implements Authorization {
  readonly name: string = BASIC;
  readonly #value: string;

  constructor(user: Uint8Array, password: Uint8Array) {
    this.#value = `Basic ${Buffer.concat([user, Buffer.from(":"), password]).toString("base64")}`;
  }

  value(): string {
    return this.#value;
  }
}

/** A Digest challenge that can be answered (RFC 7616 §3.3). */
interface DigestChallenge {
  readonly algorithm: string;
  readonly hash: string;
  readonly isSession: boolean;
  readonly realm: string;
  readonly nonce: string;
  readonly opaque: string | null;
  /** False for a proxy of RFC 2069's time, which names no qop. */
  readonly hasQop: boolean;
  readonly isUtf8: boolean;
  readonly hashesUser: boolean;
}

/** The challenge if it is Digest with this hash function and can be answered, else null. */
function digestOf({ scheme, parameters }: Challenge, algorithm: string): DigestChallenge | null {
  if (scheme !== "digest") return null;
  const full = parameters.get("algorithm") ?? "MD5";
  const [, base = "", session = ""] = /^(.*?)(-sess)?$/i.exec(full) ?? [];
  const hash = HASHES.get(algorithm);
  if (hash === undefined || base.toUpperCase() !== algorithm) return null;
  const realm = parameters.get("realm") ?? "";
  const nonce = parameters.get("nonce");
  const opaque = parameters.get("opaque") ?? null;
  if (nonce === undefined || Math.max(realm.length, nonce.length, opaque?.length ?? 0) > MAX_ECHOED) return null;
  const qop = parameters.get("qop");
  // Of the qualities only "auth" is served: a CONNECT has no body whose integrity "auth-int" could cover.
  if (qop !== undefined && !/(^|,)[ \t]*auth[ \t]*(,|$)/i.test(qop)) return null;
  return {
    algorithm: full,
    hash,
    isSession: session !== "",
    realm,
    nonce,
    opaque,
    hasQop: qop !== undefined,
    isUtf8: parameters.get("charset")?.toLowerCase() === "utf-8",
    hashesUser: parameters.get("userhash")?.toLowerCase() === "true",
  };
}

/** RFC 7616 §3.4. Texts of the proxy are kept as latin1, so that their bytes go back as they came. */
class DigestAuthorization implements Authorization {
  readonly name: string;
  readonly #challenge: DigestChallenge;
  readonly #cnonce: string;
  /** H(A1) in hex. */
  readonly #hashedA1: string;
  /** `username` and what goes with it. */
  readonly #username: string;
  /** Requests made with this nonce (§3.4, nc). */
  #count = 0;

  constructor(challenge: DigestChallenge, user: Uint8Array, password: Uint8Array, cnonce: string) {
    this.name = `Digest ${challenge.algorithm}`;
    this.#challenge = challenge;
    this.#cnonce = cnonce;
    const { hash, realm, nonce } = challenge;
    const colon = Buffer.from(":");
    const realmBytes = Buffer.from(realm, "latin1");
    // §3.4.2: A1; for "-sess" with the nonce and cnonce of the first request, which are those of all here.
    const plain = hashOf(hash, Buffer.concat([user, colon, realmBytes, colon, password]));
    this.#hashedA1 = challenge.isSession ? hashOf(hash, latin1(`${plain}:${nonce}:${cnonce}`)) : plain;
    this.#username = usernameOf(challenge, user);
  }

  value(method: string, uri: string): string {
    const { algorithm, hash, realm, nonce, opaque, hasQop } = this.#challenge;
    const nc = (++this.#count).toString(16).padStart(8, "0");
    // §3.4.1, §3.4.3: the response; without qop as in RFC 2069 §2.1.2.
    const hashedA2 = hashOf(hash, latin1(`${method}:${uri}`));
    const middle = hasQop ? `${nc}:${this.#cnonce}:auth:` : "";
    const response = hashOf(hash, latin1(`${this.#hashedA1}:${nonce}:${middle}${hashedA2}`));
    const parts = [
      this.#username,
      `realm=${quoted(realm)}`,
      `nonce=${quoted(nonce)}`,
      `uri=${quoted(uri)}`,
      `algorithm=${algorithm}`,
      // §3.4: qop and nc are sent without quotes.
      ...(hasQop ? ["qop=auth", `nc=${nc}`] : []),
      // A session needs its cnonce even without qop.
      ...(hasQop || this.#challenge.isSession ? [`cnonce=${quoted(this.#cnonce)}`] : []),
      `response="${response}"`,
      ...(opaque === null ? [] : [`opaque=${quoted(opaque)}`]),
    ];
    return `Digest ${parts.join(", ")}`;
  }
}

/** §3.4.4: the hashed name where the proxy asks for it; §3.4: `username*` (RFC 5987) for one beyond ASCII in UTF-8. */
function usernameOf({ hash, realm, isUtf8, hashesUser }: DigestChallenge, user: Uint8Array): string {
  if (hashesUser) {
    return `username="${hashOf(hash, Buffer.concat([user, latin1(`:${realm}`)]))}", userhash=true`;
  }
  const text = Buffer.from(user).toString("latin1");
  if (!isUtf8 || /^[\x20-\x7e]*$/.test(text)) return `username=${quoted(text)}`;
  const encoded = Array.from(user, (byte) => (isUnreserved(byte) ? String.fromCharCode(byte) : percentOf(byte)));
  return `username*=UTF-8''${encoded.join("")}, userhash=false`;
}

/** RFC 5987 §3.2.1, attr-char, without its marks. */
function isUnreserved(byte: number): boolean {
  return /[A-Za-z0-9._-]/.test(String.fromCharCode(byte));
}

function percentOf(byte: number): string {
  return `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
}

/** RFC 9110 §5.6.4. */
function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}

function latin1(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}

function hashOf(hash: string, bytes: Uint8Array): string {
  return createHash(hash).update(bytes).digest("hex");
}
