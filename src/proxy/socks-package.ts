/**
 * SOCKS4, SOCKS4a and the SOCKS5 hops of chains, spoken by the `socks` package as a codec without a socket.
 *
 * Theory of operation. The package wants a socket, starts a timer of 30 s that it never clears, and keeps 6 KB for as
 * long. So no client of it lives longer than one call here: each call gives a fresh one everything that the proxy has
 * sent so far (a dozen bytes), over a stream that ends in memory, and looks at what it writes and whether it is
 * satisfied. That is the same every time, wherever the stream was cut. Its timer is set to 1 ms and finds the client
 * gone; measured, nothing is left of 20,000 handshakes after that. Such a step takes some 20 us.
 *
 * What the package cannot do is done here: it answers passwords in a promise (so RFC 1929 is spoken here, and the
 * package hears that no authentication is wanted), it takes a reply of an unknown address type for the end of the
 * handshake, and it says neither the number of a refusal nor what else the server may be.
 */
import { createRequire } from "node:module";
import { Duplex } from "node:stream";
import { formatAddress, parseAddress } from "../stack/flow/address.ts";
import { refusalOfReply, replyText } from "./socks5.ts";
import { SOCKS5_VERSION, Socks5AddressType, Socks5Method, Socks5Reply, wireName } from "./socks5-wire.ts";
import { type Destination, type Handshake, HandshakeStep, Refusal } from "./upstream.ts";

/** How long the package's client may live, ms: it is gone when the call returns. */
const CLIENT_TIMEOUT_MS = 1;
/** Longest input that means something, bytes: method and reply with a name of 255 bytes. */
const MAX_INPUT = 2 + 4 + 1 + 255 + 2;
/** Offsets in the input: SOCKS5's method answer, and its reply behind it. */
const METHOD = 1;
const REPLY = 2;
/** VN and CD of a SOCKS4 reply. VN is 0; some servers send 4. */
const SOCKS4_GRANTED = 90;
const SOCKS4_CODE = 1;
const NOTHING = new Uint8Array(0);
/** RFC 1928 §3: the proxy wants no authentication. */
const NO_AUTHENTICATION = [SOCKS5_VERSION, Socks5Method.none];

type SocksModule = typeof import("socks");
let loaded: SocksModule | null = null;

/** Loads the package: its 25 ms are for those who need it, and not for their first flow. */
export function loadSocks(): SocksModule {
  loaded ??= createRequire(import.meta.url)("socks") as SocksModule;
  return loaded;
}

/** How a hop is asked, the same for all flows. */
export interface SocksHop {
  readonly version: 4 | 5;
  /** SOCKS4's user ID, without NUL; empty for none. */
  readonly userId: string;
  /** What `emitPasswordAuth` returned; null offers no password. Only for SOCKS5. */
  readonly auth: Uint8Array | null;
}

/**
 * The handshake of CONNECT to `destination`.
 * @throws RangeError when the destination is a name that does not fit, or (SOCKS4) an IPv6 address
 */
export function socksPackageConnect(hop: SocksHop, destination: Destination): Handshake {
  const { host, port } = destination;
  const address = typeof host === "string" ? parseAddress(host) : host;
  if (hop.version === 4 && address?.length === 16) throw new RangeError("SOCKS4 cannot carry an IPv6 address");
  const text = address !== null ? formatAddress(address) : wireName(String(host));
  if (text.includes("\0")) throw new RangeError("Host name has a NUL, which ends it in SOCKS4");
  return new SocksPackageHandshake(hop, text, port);
}

/** The package's socket: what is written stays here, and nobody reads. */
class MemoryStream extends Duplex {
  readonly written: Uint8Array[] = [];

  override _read(): void {
    // Input comes as events, as the package takes it.
  }

  override _write(chunk: Uint8Array, _encoding: string, done: () => void): void {
    this.written.push(chunk);
    done();
  }
}

/** What a client of the package did with an input. */
interface Replay {
  /** All that it wrote. */
  readonly written: Uint8Array;
  /** Bytes it took before it was satisfied or gave up. */
  readonly taken: number;
  readonly verdict: "open" | "established" | "refused";
}

class SocksPackageHandshake implements Handshake {
  out: Uint8Array = NOTHING;
  consumed = 0;
  refusal: Refusal = Refusal.failed;
  reason = "";
  readonly bound: null = null;
  readonly #hop: SocksHop;
  readonly #host: string;
  readonly #port: number;
  /** What the proxy sent, as the package is to hear it. */
  #input: number[] = [];
  /** Bytes of the package's output that were sent. */
  #sent = 0;
  /** Whether the password was sent and its answer (VER, STATUS) comes next; and whether VER is there. */
  #awaitsStatus = false;
  #hasStatusVersion = false;

  constructor(hop: SocksHop, host: string, port: number) {
    this.#hop = hop;
    this.#host = host;
    this.#port = port;
  }

  start(): Uint8Array {
    if (this.#sent === 0) {
      this.out = this.#replay().written;
      this.#sent = this.out.length;
    }
    return this.out;
  }

  receive(bytes: Uint8Array, start: number, end: number): HandshakeStep {
    for (let i = start; i < end; i++) {
      const byte = bytes[i] ?? 0;
      if (this.#awaitsStatus) {
        const step = this.#onStatus(byte);
        if (step !== HandshakeStep.more) return this.#afterTurn(step, end - i - 1);
        continue;
      }
      this.#input.push(byte);
      const problem = this.#hop.version === 5 ? this.#checkSocks5(byte) : this.#checkSocks4(byte);
      if (problem !== HandshakeStep.more) return this.#afterTurn(problem, end - i - 1);
      // The package takes what there is in one go; it says how much of it was its own.
      if (i + 1 < end && this.#input.length < MAX_INPUT && !this.#isAtCheck()) continue;
      const before = this.#input.length;
      const replay = this.#replay();
      const left = before - replay.taken + (end - i - 1);
      switch (replay.verdict) {
        case "established":
          this.consumed = end - start - left;
          return HandshakeStep.done;
        case "refused":
          return this.#refuse();
        case "open":
          if (replay.written.length === this.#sent) continue;
          this.out = replay.written.subarray(this.#sent);
          this.#sent = replay.written.length;
          return this.#afterTurn(HandshakeStep.send, left);
      }
    }
    return HandshakeStep.more;
  }

  /** Whether the last byte completed SOCKS5's method answer, behind which nothing may come yet. */
  #isAtCheck(): boolean {
    return this.#hop.version === 5 && this.#input.length === REPLY;
  }

  /** The proxy speaks when it is asked: bytes that came before are no answer. */
  #afterTurn(step: HandshakeStep, left: number): HandshakeStep {
    if (step !== HandshakeStep.send || left === 0) return step;
    return this.#fail(Refusal.proxyFault, `SOCKS5 proxy sent ${left} bytes before it was asked`);
  }

  /** What the package does not look at, or says nothing about, at the byte just taken. */
  #checkSocks5(byte: number): HandshakeStep {
    const at = this.#input.length - 1;
    if ((at === 0 || at === REPLY) && byte !== SOCKS5_VERSION) {
      return this.#fail(Refusal.proxyFault, `SOCKS5 reply has version ${byte}, expected 5${hintOf(byte)}`);
    }
    if (at === METHOD && byte !== Socks5Method.none) return this.#onMethod(byte);
    // What follows a failure says nothing more, and some proxies leave it out; the package would wait for it.
    if (at === REPLY + 1 && byte !== Socks5Reply.succeeded) {
      return this.#fail(refusalOfReply(byte), `SOCKS5 proxy replied ${byte}: ${replyText(byte)}`);
    }
    const { ipv4, name, ipv6 } = Socks5AddressType;
    if (at === REPLY + 3 && byte !== ipv4 && byte !== name && byte !== ipv6) {
      return this.#fail(Refusal.proxyFault, `SOCKS5 reply has address type ${byte}, expected 1, 3 or 4`);
    }
    return HandshakeStep.more;
  }

  /** RFC 1928 §3: a method other than none. */
  #onMethod(method: number): HandshakeStep {
    const { auth } = this.#hop;
    if (method === Socks5Method.password && auth !== null) {
      this.#awaitsStatus = true;
      this.out = auth;
      return HandshakeStep.send;
    }
    if (method !== Socks5Method.unacceptable) {
      return this.#fail(
        Refusal.proxyFault,
        `SOCKS5 proxy chose authentication method ${method}, which was not offered`,
      );
    }
    return this.#fail(
      Refusal.proxyFault,
      auth === null
        ? "SOCKS5 proxy wants authentication: put user and password into its URL, as socks5://user:password@host:port"
        : "SOCKS5 proxy takes neither user and password nor no authentication",
    );
  }

  /** RFC 1929 §2; as in our own codec, VER is not looked at. */
  #onStatus(byte: number): HandshakeStep {
    if (!this.#hasStatusVersion) {
      this.#hasStatusVersion = true;
      return HandshakeStep.more;
    }
    if (byte !== 0) {
      return this.#fail(
        Refusal.proxyFault,
        `SOCKS5 proxy refused user and password (status ${byte}): check both in its URL`,
      );
    }
    this.#awaitsStatus = false;
    this.#input = [...NO_AUTHENTICATION];
    const { written } = this.#replay();
    this.out = written.subarray(this.#sent);
    this.#sent = written.length;
    return HandshakeStep.send;
  }

  #checkSocks4(byte: number): HandshakeStep {
    if (this.#input.length > 1 || byte === 0 || byte === 4) return HandshakeStep.more;
    return this.#fail(Refusal.proxyFault, `SOCKS4 reply has version ${byte}, expected 0${hintOf(byte)}`);
  }

  /** The package gives up: all that reaches it has passed the checks, so only SOCKS4's codes are left. */
  #refuse(): HandshakeStep {
    const code = this.#input[SOCKS4_CODE] ?? SOCKS4_GRANTED;
    return this.#fail(refusalOfSocks4(code), `SOCKS4 proxy replied ${code}: ${socks4Text(code)}`);
  }

  /** A client of the package, from its first byte to the last of the input, or to where it has more to say. */
  #replay(): Replay {
    const { SocksClient } = loadSocks();
    const stream = new MemoryStream();
    const { version, userId, auth } = this.#hop;
    const client = new SocksClient({
      // The address of the proxy itself is never used: there is a connection already.
      proxy: {
        host: "proxy",
        port: 1,
        type: version,
        // With any user it offers RFC 1929; what is sent then is not its own.
        ...(version === 4 ? { userId } : auth === null ? {} : { userId: "-" }),
      },
      destination: { host: this.#host, port: this.#port },
      command: "connect",
      timeout: CLIENT_TIMEOUT_MS,
    });
    const seen: { verdict: Replay["verdict"] } = { verdict: "open" };
    client.once("established", () => {
      seen.verdict = "established";
    });
    client.on("error", () => {
      if (seen.verdict === "open") seen.verdict = "refused";
    });
    client.connect(stream);
    let taken = 0;
    while (taken < this.#input.length && seen.verdict === "open") {
      stream.emit("data", Buffer.of(this.#input[taken] ?? 0));
      taken++;
    }
    const result = { written: Buffer.concat(stream.written), taken, verdict: seen.verdict };
    // Whatever it waits for does not come: it lets go of the stream, and its timer finds nothing to do.
    stream.emit("close");
    stream.destroy();
    return result;
  }

  #fail(refusal: Refusal, reason: string): HandshakeStep {
    this.refusal = refusal;
    this.reason = reason;
    return HandshakeStep.failed;
  }
}

/** What else a server may speak, by the first byte of its answer. */
function hintOf(byte: number): string {
  // "HTTP/1.1 400 Bad Request"
  if (byte === 0x48) return ": the server speaks HTTP, write http:// in its URL";
  // RFC 8446 §5.1: an alert.
  if (byte === 0x15) return ": the server speaks TLS";
  if (byte === SOCKS5_VERSION) return ": the server speaks SOCKS5, write socks5:// in its URL";
  if (byte === 0) return ": the server seems to speak SOCKS4, write socks4:// in its URL";
  return "";
}

/** What a code of SOCKS4 other than 90 means for the flow (the table of docs/upstreams.md). */
export function refusalOfSocks4(code: number): Refusal {
  return code === 91 ? Refusal.refused : Refusal.failed;
}

function socks4Text(code: number): string {
  switch (code) {
    case 91:
      return "rejected or failed";
    case 92:
      return "it cannot reach an ident server on this machine";
    case 93:
      return "the ident server on this machine names another user ID";
    default:
      return "a code that SOCKS4 does not assign";
  }
}
