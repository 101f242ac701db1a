/**
 * Reads the head of an HTTP/1 answer (RFC 9112 §4, §5) and skips its body (§6), bounded, wherever the stream is cut.
 * Only what a CONNECT client needs is kept: the status, the challenges, and how the body ends.
 *
 *     HTTP/1.1 407 Proxy Authentication Required     status line
 *     Proxy-Authenticate: Basic realm="x"            header section
 *
 *     ....                                           body, when a second request is to go over the same connection
 */

/** Limits of a head, interim answers included: bytes, bytes of a line (folded lines together), lines, interim answers. */
const MAX_HEAD_BYTES = 65_536;
const MAX_LINE_BYTES = 8192;
const MAX_LINES = 256;
const MAX_INTERIM = 8;
/** Longest body that is skipped, bytes. Error pages of proxies have 1 to 10 KiB. */
const MAX_BODY_BYTES = 65_536;
/** Longest reason phrase that is shown. */
const MAX_PHRASE = 60;

const LF = 0x0a;
const PREFIX = "HTTP/";
/** RFC 9112 §4, as proxies send it: a minor version of any kind, no reason, more white space. */
const STATUS_LINE = /^HTTP\/1\.\d[ \t]+([1-9]\d\d)(?:[ \t]+(.*))?$/;
const CHUNK_SIZE = /^([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?$/;
/** The parameter of a list member (RFC 8941 §3.1.2); its value is a token. */
const PROXY_ERROR = /;[ ]*error=([a-z_]{1,64})(?=[ \t]*(?:[;,]|$))/;

/** What `AnswerReader` is at. */
const Phase = { head: 0, length: 1, chunkSize: 2, chunk: 3, chunkEnd: 4, trailers: 5 } as const;
type Phase = (typeof Phase)[keyof typeof Phase];

/** What `AnswerReader.readHead` found at the end of the bytes it took. */
export const HeadResult = {
  /** Everything was taken and more is needed. */
  more: 0,
  /** The head of a final answer is complete. */
  complete: 1,
  /** `problem` says why this is no answer. */
  bad: 2,
} as const;
export type HeadResult = (typeof HeadResult)[keyof typeof HeadResult];

/** One answer at a time; `restart` makes it ready for the next one. */
export class AnswerReader {
  /** Of the last complete head. */
  status = 0;
  /** Reason phrase, fit for a log; may be empty. */
  phrase = "";
  /** Values of the Proxy-Authenticate fields, in order. */
  challenges: string[] = [];
  /** RFC 9209 §2.1.1: the `error` that the proxy nearest to the destination gives in Proxy-Status; empty without. */
  proxyError = "";
  /** After `bad`: what is wrong, as the rest of a sentence that begins with the proxy. */
  problem = "";
  /** After any call: offset behind the last byte taken. */
  next = 0;
  /** RFC 9112 §9.3: whether the connection lasts beyond this answer, as far as the head says. */
  #persists = false;
  /** Content-Length; -1 without. */
  #contentLength = -1;
  #isChunked = false;
  /** Whether the framing contradicts itself, so that nothing behind the head can be trusted. */
  #isAmbiguous = false;

  #phase: Phase = Phase.head;
  /** The line that is being received, without its LF; the last field line is held back, as it may go on (obs-fold). */
  #line: number[] = [];
  #field: string | null = null;
  #lines = 0;
  #headBytes = 0;
  #interim = 0;
  /** Bytes left of the body, or of the chunk. */
  #left = 0;
  #bodyBytes = 0;

  /** Forgets the last answer; the next byte begins another one. */
  restart(): void {
    this.#phase = Phase.head;
    this.#headBytes = 0;
    this.#interim = 0;
    this.#clearHead();
  }

  #clearHead(): void {
    this.status = 0;
    this.phrase = "";
    this.challenges = [];
    this.proxyError = "";
    this.#persists = false;
    this.#contentLength = -1;
    this.#isChunked = false;
    this.#isAmbiguous = false;
    this.#line = [];
    this.#field = null;
    this.#lines = 0;
  }

  /** Takes bytes until the head of a final answer is complete. Interim answers (RFC 9110 §15.2) are skipped. */
  readHead(bytes: Uint8Array, start: number, end: number): HeadResult {
    for (let i = start; i < end; i++) {
      const byte = bytes[i] ?? 0;
      this.next = i + 1;
      if (++this.#headBytes > MAX_HEAD_BYTES) return this.#bad(`sent a head of more than ${MAX_HEAD_BYTES} bytes`);
      if (byte !== LF) {
        if (this.#lines === 0 && this.#line.length < PREFIX.length && byte !== PREFIX.charCodeAt(this.#line.length)) {
          return this.#bad(`does not answer in HTTP (${describeByte(byte, this.#line.length)}`);
        }
        if (this.#line.push(byte) > MAX_LINE_BYTES)
          return this.#bad(`sent a line of more than ${MAX_LINE_BYTES} bytes`);
        continue;
      }
      const result = this.#onHeadLine(this.#takeLine());
      if (result !== HeadResult.more) return result;
    }
    return HeadResult.more;
  }

  /** RFC 9112 §2.2: a lone LF ends a line as well; a CR elsewhere counts as a space. */
  #takeLine(): string {
    const line = Buffer.from(this.#line).toString("latin1");
    this.#line = [];
    return (line.endsWith("\r") ? line.slice(0, -1) : line).replaceAll("\r", " ");
  }

  #onHeadLine(line: string): HeadResult {
    if (++this.#lines > MAX_LINES) return this.#bad(`sent a head of more than ${MAX_LINES} lines`);
    if (this.#lines === 1) return this.#onStatusLine(line);
    if (line === "") return this.#onHeadEnd();
    if (line.startsWith(" ") || line.startsWith("\t")) {
      // RFC 9112 §5.2: a folded line goes on with a space; before the first field it is left out (§2.2).
      if (this.#field === null) return HeadResult.more;
      this.#field += ` ${line.trim()}`;
      return this.#field.length > MAX_LINE_BYTES
        ? this.#bad(`sent a field of more than ${MAX_LINE_BYTES} bytes`)
        : HeadResult.more;
    }
    this.#onField();
    this.#field = line;
    return HeadResult.more;
  }

  #onStatusLine(line: string): HeadResult {
    const match = STATUS_LINE.exec(line);
    if (match === null) return this.#bad(`sent the status line "${printable(line)}", expected HTTP/1.1 and a status`);
    this.status = Number(match[1]);
    this.phrase = printable(match[2] ?? "");
    // RFC 9112 §9.3: HTTP/1.1 and later persist unless they say close; HTTP/1.0 does not unless it says keep-alive.
    this.#persists = !line.startsWith("HTTP/1.0");
    return HeadResult.more;
  }

  /** The field line held back is complete. Lines without a colon are left out, as user agents do. */
  #onField(): void {
    const field = this.#field ?? "";
    this.#field = null;
    const colon = field.indexOf(":");
    if (colon < 0) return;
    const value = field.slice(colon + 1).trim();
    // Deviation: white space before the colon is let pass (RFC 9112 §5.1 forbids it); old proxies send it.
    switch (field.slice(0, colon).trimEnd().toLowerCase()) {
      case "proxy-authenticate":
        this.challenges.push(value);
        return;
      case "proxy-status":
        // §2: the list grows at its end from proxy to proxy, so that the first error is the one that happened.
        this.proxyError ||= PROXY_ERROR.exec(value)?.[1] ?? "";
        return;
      case "content-length":
        this.#onContentLength(value);
        return;
      case "transfer-encoding":
        // RFC 9112 §6.1: with anything but a single "chunked" only the end of the connection ends the body.
        if (this.#isChunked || value.toLowerCase() !== "chunked") this.#isAmbiguous = true;
        this.#isChunked = true;
        return;
      case "connection":
      case "proxy-connection":
        if (/(^|,)\s*close\s*(,|$)/i.test(value)) this.#persists = false;
        else if (/(^|,)\s*keep-alive\s*(,|$)/i.test(value)) this.#persists = true;
        return;
    }
  }

  /** RFC 9112 §6.3, rule 5: several equal values are one; anything else is an error. */
  #onContentLength(value: string): void {
    for (const item of value.split(",")) {
      const text = item.trim();
      const length = /^\d{1,15}$/.test(text) ? Number(text) : -1;
      if (length < 0 || (this.#contentLength >= 0 && this.#contentLength !== length)) this.#isAmbiguous = true;
      this.#contentLength = length;
    }
  }

  #onHeadEnd(): HeadResult {
    this.#onField();
    if (this.status >= 200) return HeadResult.complete;
    // RFC 9110 §15.2.2: 101 needs an Upgrade that was never asked for.
    if (this.status === 101) return this.#bad("switched protocols without being asked");
    if (++this.#interim > MAX_INTERIM) return this.#bad(`sent more than ${MAX_INTERIM} interim answers`);
    this.#clearHead();
    return HeadResult.more;
  }

  #bad(problem: string): HeadResult {
    this.problem = problem;
    return HeadResult.bad;
  }

  /**
   * Whether another request can follow on this connection once the body was skipped (RFC 9112 §9.3, §6.3); then
   * `skipBody` does it. Not when the body has no end of its own, or is longer than it is worth.
   */
  beginBody(): boolean {
    if (!this.#persists || this.#isAmbiguous || (this.#isChunked && this.#contentLength >= 0)) return false;
    this.#bodyBytes = 0;
    if (this.#isChunked) {
      this.#phase = Phase.chunkSize;
      return true;
    }
    if (this.#contentLength < 0 || this.#contentLength > MAX_BODY_BYTES) return false;
    this.#phase = Phase.length;
    this.#left = this.#contentLength;
    return true;
  }

  /** Takes bytes of the body; `complete` when it has ended, `bad` when it cannot be followed. */
  skipBody(bytes: Uint8Array, start: number, end: number): HeadResult {
    this.next = start;
    if (this.#phase === Phase.length) {
      const taken = Math.min(this.#left, end - start);
      this.#left -= taken;
      this.next = start + taken;
      return this.#left === 0 ? HeadResult.complete : HeadResult.more;
    }
    while (this.next < end) {
      if (this.#phase === Phase.chunk) {
        const taken = Math.min(this.#left, end - this.next);
        this.#left -= taken;
        this.next += taken;
        if (this.#left === 0) this.#phase = Phase.chunkEnd;
        continue;
      }
      const byte = bytes[this.next++] ?? 0;
      // What frames the chunks counts as well, so that empty lines without end are no way around the limit.
      if (++this.#bodyBytes > MAX_BODY_BYTES) return this.#bad("sent a body that is too long");
      if (byte !== LF) {
        if (this.#line.push(byte) > MAX_LINE_BYTES) return this.#bad("sent a chunk line that is too long");
        continue;
      }
      const result = this.#onChunkLine(this.#takeLine());
      if (result !== HeadResult.more) return result;
    }
    return HeadResult.more;
  }

  /** RFC 9112 §7.1: size, data, line end; at last size 0, trailers and an empty line. */
  #onChunkLine(line: string): HeadResult {
    switch (this.#phase) {
      case Phase.chunkEnd:
        if (line !== "") return this.#bad("sent a chunk without an end");
        this.#phase = Phase.chunkSize;
        return HeadResult.more;
      case Phase.trailers:
        return line === "" ? HeadResult.complete : HeadResult.more;
      default: {
        const match = CHUNK_SIZE.exec(line);
        if (match === null) return this.#bad("sent a chunk without a size");
        this.#left = Number.parseInt(match[1] ?? "", 16);
        this.#bodyBytes += this.#left;
        if (this.#bodyBytes > MAX_BODY_BYTES) return this.#bad("sent a body that is too long");
        this.#phase = this.#left === 0 ? Phase.trailers : Phase.chunk;
        return HeadResult.more;
      }
    }
  }
}

/** What speaks instead of HTTP, judged by its first byte; closes the bracket of the sentence. */
function describeByte(byte: number, at: number): string {
  const first = `its first byte is ${byte}`;
  if (at > 0) return `its byte ${at + 1} is ${byte}): is it a proxy?`;
  // RFC 8446 §5.1: content type 21 is an alert, 22 a handshake message.
  if (byte === 0x15 || byte === 0x16) return `${first}): the server speaks TLS, write https:// in its URL`;
  // RFC 1928 §3, and version 0 of a SOCKS4 reply.
  if (byte === 5) return `${first}): the server speaks SOCKS, write socks5:// in its URL`;
  if (byte === 0 || byte === 4) return `${first}): the server seems to speak SOCKS4, write socks4:// in its URL`;
  // RFC 4253 §4.2.
  if (byte === 0x53) return `${first}): the server seems to speak SSH`;
  return `${first}): is it a proxy?`;
}

/** Text of the proxy made fit for one line of a log. */
function printable(text: string): string {
  const clean = text.replace(/[^\x20-\x7e]/g, "?").trim();
  return clean.length > MAX_PHRASE ? `${clean.slice(0, MAX_PHRASE)}...` : clean;
}
