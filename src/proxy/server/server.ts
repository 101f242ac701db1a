/**
 * The embedded proxy: SOCKS5 (RFC 1928, RFC 1929) and HTTP CONNECT (RFC 9110 §9.3.6) on one TCP port, told apart by the
 * first byte. It needs nothing but Node.
 *
 * Theory of operation. The server owns the listening socket and a set of `ClientConnection`s, each of which owns
 * everything it opens. Bounds: `maxConnections` connections; some more (`surplusOf`) are let in to be told so, beyond
 * them a client gets a reset. Buffers are bounded in `ReadBuffers`. One timer, from start to close, every 30 s: it turns
 * TCP keep-alive on for the connections that live that long.
 */
import net from "node:net";
import { ListenError } from "../errors.ts";
import { DEFAULT_MAX_CONNECTIONS, surplusOf } from "./capacity.ts";
import { ClientConnection } from "./client-connection.ts";
import type { ServerContext } from "./context.ts";
import { Credentials } from "./credentials.ts";
import { NameCache } from "./name-cache.ts";
import { systemLookup } from "./name-lookup.ts";
import { Counters, type ProxyServerOptions, type ProxyServerStats, type ServerLogger } from "./options.ts";
import { ReadBuffers } from "./read-buffers.ts";
import { TCP_OPTIONS } from "./tcp-end.ts";

/** Connections that may wait for `accept`; the kernel lowers it to `net.core.somaxconn`, 4096 on Linux. */
const BACKLOG = 4_096;
/** How often connections are looked through, ms. */
const SWEEP_MS = 30_000;
const WARN_EVERY_MS = 1_000;

const DEFAULTS = {
  host: "127.0.0.1",
  port: 1080,
  maxConnections: DEFAULT_MAX_CONNECTIONS,
  handshakeTimeoutMs: 10_000,
  connectTimeoutMs: 10_000,
  udpTimeoutMs: 300_000,
} as const;

export class ProxyServer {
  readonly #server: net.Server;
  readonly #context: ServerContext;
  readonly #connections: Set<ClientConnection> = new Set();
  readonly #maxConnections: number;
  #onEmpty: (() => void) | null = null;
  #closing: Promise<void> | null = null;
  #sweep: NodeJS.Timeout | null = null;

  private constructor(options: ProxyServerOptions) {
    const { logger, lookup = systemLookup } = options;
    this.#maxConnections = options.maxConnections ?? DEFAULTS.maxConnections;
    this.#context = {
      handshakeTimeoutMs: options.handshakeTimeoutMs ?? DEFAULTS.handshakeTimeoutMs,
      connectTimeoutMs: options.connectTimeoutMs ?? DEFAULTS.connectTimeoutMs,
      udpTimeoutMs: options.udpTimeoutMs ?? DEFAULTS.udpTimeoutMs,
      allowPrivate: options.allowPrivate ?? true,
      credentials: options.username === undefined ? null : new Credentials(options.username, options.password ?? ""),
      buffers: new ReadBuffers(),
      lookup,
      names: new NameCache(lookup),
      counters: new Counters(),
      logger,
      associations: 0,
      debugs: () => logger?.isEnabled?.("debug") === true,
      warnRarely: rareWarnings(logger),
      onConnectionClosed: (connection) => this.#onConnectionClosed(connection),
    };
    this.#server = net.createServer({ ...TCP_OPTIONS, pauseOnConnect: true }, (socket) => this.#onConnection(socket));
  }

  /**
   * Starts a server and resolves when it accepts connections.
   * @throws ListenError when the address or port cannot be had, or an option is out of range
   * @example const server = await ProxyServer.listen({ host: "127.0.0.1", port: 0 });
   */
  static async listen(options: ProxyServerOptions = {}): Promise<ProxyServer> {
    checkOptions(options);
    const proxy = new ProxyServer(options);
    await proxy.#listen(options.host ?? DEFAULTS.host, options.port ?? DEFAULTS.port);
    return proxy;
  }

  /** Where it listens: the address, without brackets, and the port. */
  get address(): { readonly host: string; readonly port: number } {
    const address = this.#server.address();
    if (address === null || typeof address === "string") return { host: "", port: 0 };
    return { host: address.address, port: address.port };
  }

  /** Counters since the start, and what is open now. */
  stats(): ProxyServerStats {
    return {
      connections: this.#connections.size,
      associations: this.#context.associations,
      ...this.#context.counters,
    };
  }

  /**
   * Stops listening, and ends what is still open after `drainMs` (default 0, at once). Resolves when all is closed; a
   * second call waits for the first, and with a shorter time hurries it.
   */
  close(drainMs = 0): Promise<void> {
    this.#closing ??= this.#close();
    const timer = setTimeout(() => {
      for (const connection of this.#connections) connection.destroy();
    }, drainMs);
    return this.#closing.finally(() => clearTimeout(timer));
  }

  async #close(): Promise<void> {
    if (this.#sweep !== null) clearInterval(this.#sweep);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
      if (this.#connections.size === 0) resolve();
    });
    await Promise.all([closed, empty]);
  }

  async #listen(host: string, port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", (error: NodeJS.ErrnoException) => reject(listenError(error, host, port)));
      this.#server.listen({ host, port, backlog: BACKLOG }, resolve);
    });
    this.#sweep = setInterval(() => {
      for (const connection of this.#connections) connection.keepAlive();
    }, SWEEP_MS).unref();
    this.#server.removeAllListeners("error");
    this.#server.on("error", (error: NodeJS.ErrnoException) => {
      this.#context.warnRarely("accept", `Cannot accept connections: ${error.code}; raise the limit of open files`);
    });
  }

  #onConnection(socket: net.Socket): void {
    const open = this.#connections.size;
    this.#context.counters.accepted++;
    if (this.#closing !== null || open >= this.#maxConnections + surplusOf(this.#maxConnections)) {
      this.#context.counters.refused++;
      this.#context.warnRarely(
        "limit",
        `Reset a client: ${open} connections are open, the limit is ${this.#maxConnections}`,
      );
      socket.resetAndDestroy();
      return;
    }
    this.#connections.add(new ClientConnection(socket, this.#context, open >= this.#maxConnections));
  }

  #onConnectionClosed(connection: ClientConnection): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#onEmpty?.();
  }
}

function checkOptions(options: ProxyServerOptions): void {
  const port = options.port ?? DEFAULTS.port;
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new ListenError("LISTEN_OPTION", `Port ${port} is out of range, expected 0 to 65535`);
  }
  if (options.username === undefined && options.password !== undefined) {
    throw new ListenError("LISTEN_OPTION", "A password is set without a user: give both");
  }
  for (const part of ["username", "password"] as const) {
    const length = Buffer.byteLength(options[part] ?? "");
    if (length > 255) {
      throw new ListenError("LISTEN_OPTION", `The ${part} has ${length} bytes, the limit of SOCKS5 is 255`);
    }
  }
  if (options.username === "" || options.username?.includes(":")) {
    throw new ListenError(
      "LISTEN_OPTION",
      "The user is empty or has a colon, which HTTP Basic cannot carry: choose another",
    );
  }
  for (const name of ["maxConnections", "handshakeTimeoutMs", "connectTimeoutMs", "udpTimeoutMs"] as const) {
    const value = options[name];
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= 0x7fffffff)) {
      throw new ListenError("LISTEN_OPTION", `Option ${name} is ${value}, expected a whole number of at least 1`);
    }
  }
}

/** An error of `listen` as a sentence with its remedy. */
function listenError(error: NodeJS.ErrnoException, host: string, port: number): ListenError {
  const where = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
  const options = { cause: error };
  switch (error.code) {
    case "EADDRINUSE":
      return new ListenError(
        "LISTEN_IN_USE",
        `Cannot listen on ${where}: another program has the port; stop it or choose another port`,
        options,
      );
    case "EADDRNOTAVAIL":
    case "EAFNOSUPPORT":
    case "EINVAL":
      return new ListenError(
        "LISTEN_ADDRESS",
        `Cannot listen on ${where}: no interface has this address; see "ip address" for those there are`,
        options,
      );
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return new ListenError(
        "LISTEN_ADDRESS",
        `Cannot listen on ${where}: the name has no address; give an IP address`,
        options,
      );
    case "EACCES":
    case "EPERM":
      return new ListenError(
        "LISTEN_DENIED",
        `Cannot listen on ${where}: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher port`,
        options,
      );
    default:
      return new ListenError("LISTEN_FAILED", `Cannot listen on ${where}: ${error.code ?? error.message}`, options);
  }
}

/** One warning of a kind a second; the next one tells how many were left out. */
function rareWarnings(logger: ServerLogger | undefined): (kind: string, message: string) => void {
  const kinds = new Map<string, { at: number; omitted: number }>();
  return (kind, message) => {
    if (logger === undefined) return;
    const now = Date.now();
    const last = kinds.get(kind);
    if (last !== undefined && now - last.at < WARN_EVERY_MS) {
      last.omitted++;
      return;
    }
    kinds.set(kind, { at: now, omitted: 0 });
    const omitted = last?.omitted ?? 0;
    logger.warn(omitted === 0 ? message : `${message} (and ${omitted} more like it)`);
  };
}
