/** What the parts of one embedded proxy share. */
import type { ClientConnection } from "./client-connection.ts";
import type { Credentials } from "./credentials.ts";
import type { NameCache } from "./name-cache.ts";
import type { NameLookup } from "./name-lookup.ts";
import type { Counters, ServerLogger } from "./options.ts";
import type { ReadBuffers } from "./read-buffers.ts";

export interface ServerContext {
  readonly handshakeTimeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly udpTimeoutMs: number;
  readonly allowPrivate: boolean;
  /** Null lets every client in. */
  readonly credentials: Credentials | null;
  readonly buffers: ReadBuffers;
  readonly lookup: NameLookup;
  readonly names: NameCache;
  readonly counters: Counters;
  readonly logger: ServerLogger | undefined;
  /** UDP associations open now. */
  associations: number;
  /** Whether debug lines are wanted. */
  debugs(): boolean;
  /** Logs a warning at most once a second for each kind. */
  warnRarely(kind: string, message: string): void;
  onConnectionClosed(connection: ClientConnection): void;
}
