/**
 * Upstreams as URLs, as users of tun2socks write them:
 *
 *     [socks5://][user[:password]@]host[:1080]      socks4://[id@]host[:1080]      socks4a://[id@]host[:1080]
 *     http://[user[:password]@]host[:80]            https://[user[:password]@]host[:443]
 *     scheme:///path/of/socket, scheme://@abstract  direct://                      reject://
 *
 * Several in a row are a chain.
 */
import type { TlsSettings } from "../io/tls-settings.ts";
import { ChainUpstream } from "./chain.ts";
import type { ProxyServerAddress, Upstream } from "./upstream.ts";
import { DIRECT, HttpUpstream, REJECT, Socks5Upstream, SocksPackageUpstream } from "./upstreams.ts";
import { encodeText, invalid, parseUrlParts, type UrlDefaults, type UrlParts } from "./url-parts.ts";

/** Proxies in a row at most. Each adds a round trip or more, and one more that can fail. */
const MAX_HOPS = 8;
/** Longest user or password of SOCKS, bytes: RFC 1929 §2, lengths are one byte. */
const MAX_SOCKS_TEXT = 255;
/** User and password of HTTP together, bytes: what the request that carries them may grow to. */
const MAX_HTTP_TEXT = 1024;

/** RFC 1928 §3: "conventionally located on TCP port 1080"; so is SOCKS4. */
const SOCKS_PORT = 1080;
/** As the schemes say (RFC 9110 §4.2.1, §4.2.2) and browsers do; curl alone takes 1080. */
const HTTP_PORT = 80;
const HTTPS_PORT = 443;

const SOCKS5_DEFAULTS: UrlDefaults = {
  scheme: "socks5",
  port: SOCKS_PORT,
  example: "socks5://user:password@host:1080",
};
const PROXIES: ReadonlyMap<string, UrlDefaults> = new Map([
  ["socks5", SOCKS5_DEFAULTS],
  ["socks5h", SOCKS5_DEFAULTS],
  ["socks4", { scheme: "socks4", port: SOCKS_PORT, example: "socks4://user@host:1080" }],
  ["socks4a", { scheme: "socks4a", port: SOCKS_PORT, example: "socks4a://user@host:1080" }],
  ["http", { scheme: "http", port: HTTP_PORT, example: "http://user:password@host:8080" }],
  ["https", { scheme: "https", port: HTTPS_PORT, example: "https://user:password@host:443" }],
]);
const KNOWN = [...PROXIES.keys(), "direct", "reject"];

const SCHEME = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//;
/** A known scheme whose slashes are missing; digits alone would be a port. */
const SCHEME_WITHOUT_SLASHES = /^(socks5h?|socks4a?|https?|direct|reject):\/?(?!\/)(?!\d+\/?$)/i;
/** Other names of what is meant. */
const ALIASES: Readonly<Record<string, string>> = {
  socks: "socks5",
  socks4h: "socks4a",
  "socks5+tls": "socks5",
  connect: "http",
  "http-connect": "http",
  none: "direct",
  block: "reject",
  drop: "reject",
};

/** TLS towards an `https://` proxy, as contents: files are read by who has them. */
export interface UpstreamTlsOptions {
  /** Name to send (SNI) and to check the certificate for; by default the host of the URL. */
  readonly serverName?: string;
  /** PEM of the only authorities to trust; by default those of Node and the system. */
  readonly ca?: string;
  /** SHA-256 of the proxy's certificate (DER), 32 bytes: it alone is taken then. */
  readonly pinSha256?: Uint8Array;
  /** PEM of the client's certificate and of its key. */
  readonly cert?: string;
  readonly key?: string;
}

/** What belongs to an upstream and does not stand in its URL. */
export interface UpstreamOptions {
  /** The password of the URL that has a user but no password: bytes, or text in UTF-8. */
  readonly password?: string | Uint8Array;
  readonly tls?: UpstreamTlsOptions;
}

/**
 * Reads an upstream from its URL, or a chain from several: the first one is connected to, and each is asked for a way to
 * the next. Without a scheme it is `socks5://`; `socks5h://` is the same, because names always go to the proxy as names.
 * @throws UpstreamError `UPSTREAM_URL` when the text names no upstream; the message never holds a password
 * @example parseUpstream("socks5://alice:s%40crt@192.0.2.7:1080").label // "socks5://alice@192.0.2.7:1080"
 */
export function parseUpstream(text: string | readonly string[], options: UpstreamOptions = {}): Upstream {
  const texts = typeof text === "string" ? [text] : text;
  if (texts.length === 0) throw invalid(`Proxy URL is missing: write one as ${SOCKS5_DEFAULTS.example}, or direct://`);
  if (texts.length > MAX_HOPS) {
    throw invalid(`Proxy chain has ${texts.length} proxies, the limit is ${MAX_HOPS}: leave some out`);
  }
  const secrets = new Secrets(options);
  const upstreams = texts.map((item, index) => {
    if (texts.length === 1) return parseOne(item, secrets, false);
    try {
      return parseOne(item, secrets, true);
    } catch (error) {
      throw invalid(`Proxy ${index + 1} of ${texts.length}: ${error instanceof Error ? error.message : error}`);
    }
  });
  secrets.checkUsed(upstreams);
  const [first] = upstreams;
  if (first !== undefined && upstreams.length === 1) return first;
  try {
    return new ChainUpstream(upstreams);
  } catch (error) {
    throw invalid(`Proxy chain cannot be: ${error instanceof Error ? error.message : error}`);
  }
}

/** What came beside the URLs, and whether it was needed. */
class Secrets {
  readonly #password: Uint8Array | null;
  readonly #tls: UpstreamTlsOptions | null;
  #passwordUses = 0;
  #tlsUses = 0;

  constructor({ password, tls }: UpstreamOptions) {
    this.#password = password === undefined ? null : Buffer.from(password);
    this.#tls = tls === undefined || Object.values(tls).every((value) => value === undefined) ? null : tls;
  }

  /** The password of a URL that has none. */
  takePassword(): Uint8Array | null {
    if (this.#password !== null) this.#passwordUses++;
    return this.#password;
  }

  tlsFor(server: ProxyServerAddress): TlsSettings {
    this.#tlsUses++;
    const { ca, pinSha256, cert, key } = this.#tls ?? {};
    const serverName = this.#tls?.serverName ?? (server.kind === "tcp" ? server.host : "");
    if (serverName === "") {
      throw invalid(
        "Proxy URL with https:// and a Unix socket names no host to check the certificate for: give it (SNI)",
      );
    }
    if ((cert === undefined) !== (key === undefined)) {
      const [has, lacks] = cert === undefined ? ["key", "certificate"] : ["certificate", "key"];
      throw invalid(`TLS for the proxy has a client ${has} but no ${lacks}: give both`);
    }
    return Object.freeze({
      // RFC 6066 §3: without a trailing dot.
      serverName: serverName.replace(/\.$/, ""),
      ca: ca ?? null,
      pinSha256: pinSha256 ?? null,
      cert: cert ?? null,
      key: key ?? null,
    });
  }

  /** What was given and not used was meant for something else. */
  checkUsed(upstreams: readonly Upstream[]): void {
    const labels = upstreams.map(({ label }) => label).join(" -> ");
    if (this.#password !== null && this.#passwordUses === 0) {
      throw invalid(
        `A proxy password is given beside ${labels}, which needs none: write its user as user@host, or leave it`,
      );
    }
    if (this.#passwordUses > 1) {
      throw invalid(
        `A proxy password is given beside ${labels}, where ${this.#passwordUses} lack one: write one into the URL`,
      );
    }
    if (this.#tls !== null && this.#tlsUses === 0) {
      throw invalid(
        `TLS settings are given beside ${labels}: they are for https:// proxies, leave them out or write https://`,
      );
    }
  }
}

function parseOne(text: string, secrets: Secrets, isHop: boolean): Upstream {
  const trimmed = text.trim();
  if (trimmed === "") throw invalid(`Proxy URL is empty: write one as ${SOCKS5_DEFAULTS.example}, or direct://`);
  const match = SCHEME.exec(trimmed);
  const scheme = match?.[1]?.toLowerCase() ?? "socks5";
  const rest = match === null ? trimmed : trimmed.slice(match[0].length);
  if (match === null) checkSchemeless(rest);
  if (scheme === "direct") return bare(scheme, rest, DIRECT);
  if (scheme === "reject") return bare(scheme, rest, REJECT);
  const defaults = PROXIES.get(scheme);
  if (defaults === undefined) throw unknownScheme(scheme);
  const parts = parseUrlParts(rest, defaults);
  switch (defaults.scheme) {
    case "socks4":
    case "socks4a":
      return socks4(defaults.scheme, parts);
    case "http":
    case "https": {
      const options = { ...placeOf(parts), ...httpSecrets(parts, secrets) };
      return new HttpUpstream(defaults.scheme === "http" ? options : { ...options, tls: secrets.tlsFor(parts.server) });
    }
    default: {
      const options = { ...placeOf(parts), ...socks5Secrets(parts, secrets) };
      return isHop ? new SocksPackageUpstream({ ...options, scheme: "socks5" }) : new Socks5Upstream(options);
    }
  }
}

/** Mistakes that would be taken for a host. */
function checkSchemeless(text: string): void {
  if (text === "direct" || text === "reject") {
    throw invalid(
      `Proxy "${text}" lacks its scheme mark: write ${text}://, or socks5://${text} for a host of that name`,
    );
  }
  const scheme = SCHEME_WITHOUT_SLASHES.exec(text)?.[1]?.toLowerCase();
  if (scheme !== undefined) {
    throw invalid(`Proxy URL has ${scheme}: without two slashes behind it: write ${scheme}://`);
  }
}

function unknownScheme(scheme: string): Error {
  const shown = encodeText(scheme.slice(0, 40));
  if (scheme === "unix") {
    return invalid(`Proxy URL has the scheme "unix": write what the socket speaks, as socks5:///path or http:///path`);
  }
  const meant = ALIASES[scheme] ?? KNOWN.find((known) => isNear(scheme, known));
  const hint = meant === undefined ? "" : `: did you mean ${meant}://?`;
  return invalid(
    `Proxy URL has the unknown scheme "${shown}", known are ${KNOWN.map((known) => `${known}://`).join(", ")}${hint}`,
  );
}

/** Whether one character added, left out, changed, or two neighbours swapped make `text` into `known`. */
function isNear(text: string, known: string): boolean {
  if (Math.abs(text.length - known.length) > 1) return false;
  let start = 0;
  while (start < known.length && text[start] === known[start]) start++;
  const [a, b] = [text.slice(start), known.slice(start)];
  if (a.slice(1) === b || a === b.slice(1) || a.slice(1) === b.slice(1)) return true;
  return a.slice(2) === b.slice(2) && a[0] === b[1] && a[1] === b[0];
}

function bare(scheme: string, rest: string, upstream: Upstream): Upstream {
  if (rest !== "" && rest !== "/") {
    throw invalid(`Proxy URL ${scheme}:// takes neither host nor path: write just ${scheme}://`);
  }
  return upstream;
}

function placeOf({ server, label }: UrlParts): { readonly server: ProxyServerAddress; readonly label: string } {
  return { server, label };
}

interface UserAndPassword {
  readonly user?: Uint8Array;
  readonly password?: Uint8Array;
}

function socks5Secrets(parts: UrlParts, secrets: Secrets): UserAndPassword {
  const { user } = parts;
  if (user === null) return {};
  const password = parts.password ?? secrets.takePassword() ?? new Uint8Array(0);
  checkLength(user, "user");
  checkLength(password, "password");
  return { user, password };
}

function checkLength(bytes: Uint8Array, part: "user" | "password"): void {
  if (bytes.length <= MAX_SOCKS_TEXT) return;
  throw invalid(
    `Proxy URL has a ${part} of ${bytes.length} bytes, the limit of SOCKS is ${MAX_SOCKS_TEXT}: use a shorter one`,
  );
}

function socks4(scheme: "socks4" | "socks4a", parts: UrlParts): Upstream {
  const { user, password } = parts;
  if (password !== null) {
    throw invalid(`Proxy URL has a password, and SOCKS4 knows none: write ${scheme}://user@host, or use socks5://`);
  }
  if (user === null) return new SocksPackageUpstream({ ...placeOf(parts), scheme });
  checkLength(user, "user");
  if (user.includes(0)) throw invalid("Proxy URL has a NUL in its user, where SOCKS4 ends it: remove it");
  if (!Buffer.from(Buffer.from(user).toString()).equals(user)) {
    throw invalid("Proxy URL has a user that is not UTF-8: SOCKS4 users are sent as UTF-8 here");
  }
  return new SocksPackageUpstream({ ...placeOf(parts), scheme, user });
}

/** RFC 7617 §2: no control characters, and no colon in the user. */
function httpSecrets(parts: UrlParts, secrets: Secrets): UserAndPassword {
  const { user } = parts;
  if (user === null) return {};
  const password = parts.password ?? secrets.takePassword() ?? new Uint8Array(0);
  if (user.includes(0x3a))
    throw invalid("Proxy URL has a colon in its user, which HTTP cannot carry: use another user");
  for (const [part, bytes] of [
    ["user", user],
    ["password", password],
  ] as const) {
    if (bytes.some((byte) => byte < 0x20 || byte === 0x7f)) {
      throw invalid(`Proxy URL has a control character in its ${part}, which HTTP cannot carry: remove it`);
    }
  }
  const length = user.length + password.length;
  if (length > MAX_HTTP_TEXT) {
    throw invalid(
      `Proxy URL has user and password of ${length} bytes, the limit is ${MAX_HTTP_TEXT}: use shorter ones`,
    );
  }
  return { user, password };
}
