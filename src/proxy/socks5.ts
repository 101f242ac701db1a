/**
 * The client's half of SOCKS5 (RFC 1928) with user and password (RFC 1929), without a socket.
 *
 *     out  05 n METHODS            in  05 METHOD
 *     out  01 n USER n PASSWORD    in  01 STATUS               (only when the proxy chose it)
 *     out  05 CMD 00 ATYP ...      in  05 REP 00 ATYP ...
 *
 * Each message waits for the answer to the one before, because some proxies swallow what follows the greeting; or all go
 * out together, for proxies that have shown that they take that. Neither RFC forbids to send ahead of an answer that can
 * only be one: together, the greeting offers the one method whose messages follow.
 * Answers are taken byte by byte, so where the stream is cut makes no difference; they are some 12 bytes in all.
 */
import { parseAddress } from "../stack/flow/address.ts";
import {
  AUTH_VERSION,
  addressFieldLength,
  emitAddressField,
  SOCKS5_VERSION,
  Socks5AddressType,
  Socks5Command,
  Socks5Method,
  Socks5Reply,
  wireName,
} from "./socks5-wire.ts";
import { type Destination, type Handshake, HandshakeStep, Refusal } from "./upstream.ts";

const GREETING_OPEN = Uint8Array.of(SOCKS5_VERSION, 1, Socks5Method.none);
const GREETING_PASSWORD = Uint8Array.of(SOCKS5_VERSION, 2, Socks5Method.none, Socks5Method.password);
const GREETING_PASSWORD_ONLY = Uint8Array.of(SOCKS5_VERSION, 1, Socks5Method.password);
const NOTHING = new Uint8Array(0);

/** UDP ASSOCIATE from an endpoint not known yet: "MUST use a port number and address of all zeros", RFC 1928 §6. */
const ASSOCIATE_REQUEST = Uint8Array.of(
  SOCKS5_VERSION,
  Socks5Command.associate,
  0,
  Socks5AddressType.ipv4,
  0,
  0,
  0,
  0,
  0,
  0,
);

/** Offset of the first byte of BND.ADDR (the length byte of a name) in a reply. */
const BND_ADDR = 4;

/** Which answer comes next. */
const Phase = { method: 0, auth: 1, reply: 2 } as const;
type Phase = (typeof Phase)[keyof typeof Phase];

/**
 * The user and password message (RFC 1929 §2), the same for every connection of an upstream.
 * Deviation: an empty password is sent as PLEN 0, although §2 says 1 to 255; proxies with token users rely on it.
 * @throws RangeError when the user is not 1 to 255 bytes long or the password longer than 255
 */
export function emitPasswordAuth(user: Uint8Array, password: Uint8Array): Uint8Array {
  if (user.length < 1 || user.length > 255)
    throw new RangeError(`SOCKS5 user has ${user.length} bytes, expected 1-255`);
  if (password.length > 255) throw new RangeError(`SOCKS5 password has ${password.length} bytes, the limit is 255`);
  const message = new Uint8Array(3 + user.length + password.length);
  message[0] = AUTH_VERSION;
  message[1] = user.length;
  message.set(user, 2);
  message[2 + user.length] = password.length;
  message.set(password, 3 + user.length);
  return message;
}

/** CONNECT request (RFC 1928 §4). @throws RangeError when the name does not fit */
function emitConnect(destination: Destination): Uint8Array {
  const host = typeof destination.host === "string" ? wireName(destination.host) : destination.host;
  const request = new Uint8Array(3 + addressFieldLength(host));
  request[0] = SOCKS5_VERSION;
  request[1] = Socks5Command.connect;
  emitAddressField(request, 3, host, destination.port);
  return request;
}

/**
 * The handshake of CONNECT to `destination`.
 * @param auth what `emitPasswordAuth` returned; null offers no password. Shared by all handshakes, never changed.
 * @param together whether all messages go out at once; with `auth` a proxy must take the password then
 * @throws RangeError when the destination is a name that does not fit (RFC 1928 §5)
 */
export function socks5Connect(destination: Destination, auth: Uint8Array | null, together = false): Handshake {
  return new Socks5Handshake(emitConnect(destination), auth, false, together);
}

/** The handshake of UDP ASSOCIATE; after `done` its `bound` is set, with a port that is not zero. */
export function socks5Associate(auth: Uint8Array | null): Handshake {
  return new Socks5Handshake(ASSOCIATE_REQUEST, auth, true, false);
}

class Socks5Handshake implements Handshake {
  out: Uint8Array = NOTHING;
  consumed = 0;
  refusal: Refusal = Refusal.failed;
  reason = "";
  bound: Destination | null = null;
  readonly #request: Uint8Array;
  readonly #auth: Uint8Array | null;
  readonly #together: boolean;
  /** BND.ADDR and BND.PORT as they come; null when nobody asks for them. */
  readonly #bnd: number[] | null;
  #phase: Phase = Phase.method;
  /** Bytes of the current answer taken so far. */
  #at = 0;
  #addressType = 0;
  /** Length of the reply, known after the first byte of BND.ADDR. */
  #length = 0;

  constructor(request: Uint8Array, auth: Uint8Array | null, wantsBound: boolean, together: boolean) {
    this.#request = request;
    this.#auth = auth;
    this.#together = together;
    this.#bnd = wantsBound ? [] : null;
  }

  start(): Uint8Array {
    if (this.#together) {
      return this.#auth === null
        ? joined(GREETING_OPEN, NOTHING, this.#request)
        : joined(GREETING_PASSWORD_ONLY, this.#auth, this.#request);
    }
    return this.#auth === null ? GREETING_OPEN : GREETING_PASSWORD;
  }

  receive(bytes: Uint8Array, start: number, end: number): HandshakeStep {
    for (let i = start; i < end; i++) {
      const step = this.#onByte(bytes[i] ?? 0);
      if (step === HandshakeStep.more) continue;
      if (step === HandshakeStep.send && i + 1 < end) {
        return this.#fail(Refusal.proxyFault, `SOCKS5 proxy sent ${end - i - 1} bytes before it was asked`);
      }
      this.consumed = i + 1 - start;
      return step;
    }
    return HandshakeStep.more;
  }

  #onByte(byte: number): HandshakeStep {
    const at = this.#at++;
    switch (this.#phase) {
      case Phase.method:
        return at === 0 ? this.#onVersion(byte) : this.#onMethod(byte);
      case Phase.auth:
        // Deviation: VER of this answer is not looked at; RFC 1929 §2 says 1, several proxies send 5.
        return at === 0 ? HandshakeStep.more : this.#onAuthStatus(byte);
      case Phase.reply:
        return this.#onReply(at, byte);
    }
  }

  #onVersion(byte: number): HandshakeStep {
    if (byte === SOCKS5_VERSION) return HandshakeStep.more;
    // 0x48 is the H of "HTTP/1.1 400 Bad Request".
    const hint = byte === 0x48 ? ": the server speaks HTTP" : "";
    return this.#fail(Refusal.proxyFault, `SOCKS5 reply has version ${byte}, expected ${SOCKS5_VERSION}${hint}`);
  }

  /** RFC 1928 §3: the method the proxy chose among those offered. */
  #onMethod(method: number): HandshakeStep {
    // Together only one method was offered, and what follows was made for it.
    const offersNone = this.#auth === null || !this.#together;
    if (method === Socks5Method.none && offersNone) return this.#send(Phase.reply, this.#request);
    if (method === Socks5Method.password && this.#auth !== null) return this.#send(Phase.auth, this.#auth);
    if (method !== Socks5Method.unacceptable) {
      return this.#fail(
        Refusal.proxyFault,
        `SOCKS5 proxy chose authentication method ${method}, which was not offered`,
      );
    }
    return this.#fail(
      Refusal.proxyFault,
      this.#auth === null
        ? "SOCKS5 proxy wants authentication: put user and password into its URL, as socks5://user:password@host:port"
        : "SOCKS5 proxy takes neither user and password nor no authentication",
    );
  }

  /** RFC 1929 §2: any status but 0 is a failure. */
  #onAuthStatus(status: number): HandshakeStep {
    if (status === 0) return this.#send(Phase.reply, this.#request);
    return this.#fail(
      Refusal.proxyFault,
      `SOCKS5 proxy refused user and password (status ${status}): check both in its URL`,
    );
  }

  /** RFC 1928 §6, one byte of the reply at offset `at`. */
  #onReply(at: number, byte: number): HandshakeStep {
    switch (at) {
      case 0:
        return this.#onVersion(byte);
      case 1:
        // What follows a failure says nothing more, and some proxies leave it out.
        return byte === Socks5Reply.succeeded ? HandshakeStep.more : this.#refuse(byte);
      case 2:
        return HandshakeStep.more;
      case 3:
        this.#addressType = byte;
        if (byte === Socks5AddressType.ipv4) this.#length = BND_ADDR + 4 + 2;
        else if (byte === Socks5AddressType.ipv6) this.#length = BND_ADDR + 16 + 2;
        else if (byte !== Socks5AddressType.name) {
          return this.#fail(Refusal.proxyFault, `SOCKS5 reply has address type ${byte}, expected 1, 3 or 4`);
        }
        return HandshakeStep.more;
      default:
        if (at === BND_ADDR && this.#addressType === Socks5AddressType.name) this.#length = BND_ADDR + 1 + byte + 2;
        else if (this.#bnd !== null) this.#bnd.push(byte);
        return at + 1 < this.#length ? HandshakeStep.more : this.#finish();
    }
  }

  #finish(): HandshakeStep {
    if (this.#bnd !== null) {
      const port = ((this.#bnd.at(-2) ?? 0) << 8) | (this.#bnd.at(-1) ?? 0);
      if (port === 0) return this.#fail(Refusal.proxyFault, "SOCKS5 proxy gave port 0 for UDP, expected 1-65535");
      const address = Uint8Array.from(this.#bnd.slice(0, -2));
      this.bound = { host: this.#addressType === Socks5AddressType.name ? nameOrAddress(address) : address, port };
    }
    return HandshakeStep.done;
  }

  #send(next: Phase, out: Uint8Array): HandshakeStep {
    this.#phase = next;
    this.#at = 0;
    if (this.#together) return HandshakeStep.more;
    this.out = out;
    return HandshakeStep.send;
  }

  #refuse(reply: number): HandshakeStep {
    return this.#fail(refusalOfReply(reply), `SOCKS5 proxy replied ${reply}: ${replyText(reply)}`);
  }

  #fail(refusal: Refusal, reason: string): HandshakeStep {
    this.refusal = refusal;
    this.reason = reason;
    return HandshakeStep.failed;
  }
}

function joined(a: Uint8Array, b: Uint8Array, c: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length + c.length);
  bytes.set(a);
  bytes.set(b, a.length);
  bytes.set(c, a.length + b.length);
  return bytes;
}

/** A name in BND.ADDR; addresses written as text come as what they are. */
function nameOrAddress(bytes: Uint8Array): Destination["host"] {
  const text = String.fromCharCode(...bytes);
  return parseAddress(text) ?? text;
}

/** What a reply other than 0 means for the flow (RFC 1928 §6). */
export function refusalOfReply(reply: number): Refusal {
  switch (reply) {
    case Socks5Reply.refused:
      return Refusal.refused;
    case Socks5Reply.hostUnreachable:
    case Socks5Reply.ttlExpired:
      return Refusal.hostUnreachable;
    case Socks5Reply.netUnreachable:
      return Refusal.netUnreachable;
    case Socks5Reply.notAllowed:
      return Refusal.prohibited;
    default:
      return Refusal.failed;
  }
}

const REPLY_TEXT: readonly string[] = [
  "succeeded",
  "general failure",
  "not allowed by its rules",
  "network unreachable",
  "host unreachable",
  "connection refused",
  "TTL expired",
  "command not supported",
  "address type not supported",
];

/** RFC 1928 §6's words for a reply. */
export function replyText(reply: number): string {
  return REPLY_TEXT[reply] ?? "a code that RFC 1928 does not assign";
}
