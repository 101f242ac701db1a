/** What can be set on the embedded proxy, and what it counts. */

import type { NameLookup } from "./name-lookup.ts";

/** Where the server tells what happens. Structural: any logger with these methods fits. */
export interface ServerLogger {
  warn(message: string): void;
  info(message: string): void;
  debug(message: string): void;
  /** Asked before a debug line is put together; without it none is. */
  isEnabled?(level: "debug"): boolean;
}

export interface ProxyServerOptions {
  /** Address or name to listen on; `::` takes IPv4 and IPv6. Default `127.0.0.1`. */
  readonly host?: string;
  /** TCP port, 0 for any free one. Default 1080. */
  readonly port?: number;
  /** With it every client must give user and password (RFC 1929, HTTP Basic). At most 255 bytes in UTF-8. */
  readonly username?: string;
  /** At most 255 bytes in UTF-8. Default empty; only with `username`. */
  readonly password?: string;
  readonly logger?: ServerLogger;
  /** Open client connections; more are refused. Each takes two open files, or up to four with UDP. Default 10,000. */
  readonly maxConnections?: number;
  /** From accept to a complete request, ms. Default 10,000. */
  readonly handshakeTimeoutMs?: number;
  /** For all addresses of a destination together, ms. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** UDP associations without a datagram end after this, ms. Default 300,000 (RFC 4787 §4.3 recommends 5 minutes). */
  readonly udpTimeoutMs?: number;
  /** Whether loopback, private and link-local destinations may be reached. Default true. */
  readonly allowPrivate?: boolean;
  /** How names become addresses. Default: the system's resolver. */
  readonly lookup?: NameLookup;
}

/** Counters since the start, and what is open now. */
export interface ProxyServerStats {
  /** Client connections open now. */
  readonly connections: number;
  /** UDP associations open now. */
  readonly associations: number;
  /** Client connections accepted. */
  readonly accepted: number;
  /** Requests by protocol. */
  readonly socksRequests: number;
  readonly httpRequests: number;
  /** Tunnels opened. */
  readonly tunnels: number;
  /** Destinations that could not be reached. */
  readonly dialFailures: number;
  /** Requests refused: over the limit, not allowed, a command or method that is not served. */
  readonly refused: number;
  /** Wrong or missing passwords. */
  readonly authFailures: number;
  /** Clients that broke the protocol, were too slow or left before they asked. */
  readonly badHandshakes: number;
  /** Client to destination. */
  readonly bytesUp: number;
  /** Destination to client. */
  readonly bytesDown: number;
  readonly datagramsUp: number;
  readonly datagramsDown: number;
  /** Datagrams dropped: malformed, fragment, wrong source, not allowed, unresolved, queue full. */
  readonly datagramsDropped: number;
}

/** The counters while they count. @internal */
export class Counters {
  accepted = 0;
  socksRequests = 0;
  httpRequests = 0;
  tunnels = 0;
  dialFailures = 0;
  refused = 0;
  authFailures = 0;
  badHandshakes = 0;
  bytesUp = 0;
  bytesDown = 0;
  datagramsUp = 0;
  datagramsDown = 0;
  datagramsDropped = 0;
}
