/**
 * Opens a connection to a destination: looks the name up, tries all addresses, and takes the first that answers.
 *
 * Happy Eyeballs (RFC 8305): families alternate (§4); the next attempt starts when one fails or after 250 ms (§5), and
 * earlier attempts go on meanwhile. (Node's own version gives an attempt up when the next starts.)
 */
import { isIP } from "node:net";
import { isPrivateAddress, unmapAddress } from "./allow.ts";
import { worthMore } from "./failures.ts";
import type { NameLookup } from "./name-lookup.ts";
import type { ReadBuffers } from "./read-buffers.ts";
import { TcpEnd, type TcpEndOwner } from "./tcp-end.ts";

/** "Connection Attempt Delay", ms. RFC 8305 §5 recommends 250. */
const ATTEMPT_DELAY_MS = 250;

export interface DialOptions {
  /** For the look-up and all attempts together, ms. */
  readonly connectTimeoutMs: number;
  readonly allowPrivate: boolean;
  readonly buffers: ReadBuffers;
  readonly lookup: NameLookup;
}

/** Called once, and never from within the constructor. */
export interface DialResult {
  /** Owns the end from the first moment; its calls before `onConnected` are not passed on. */
  readonly owner: TcpEndOwner;
  onConnected(end: TcpEnd): void;
  /** @param code an errno name, `EACCES` for an address that is not allowed */
  onFailed(code: string): void;
}

export class Dial {
  readonly #port: number;
  readonly #buffers: ReadBuffers;
  readonly #allowPrivate: boolean;
  readonly #result: DialResult;
  readonly #open: Set<TcpEnd> = new Set();
  #addresses: string[] = [];
  #nextAttempt: NodeJS.Timeout | null = null;
  #deadline: NodeJS.Timeout | null = null;
  #code: string | undefined = undefined;
  #done = false;

  /** @param host an IP address, or a name */
  constructor(host: string, port: number, options: DialOptions, result: DialResult) {
    this.#port = port;
    this.#buffers = options.buffers;
    this.#allowPrivate = options.allowPrivate;
    this.#result = result;
    this.#deadline = setTimeout(() => this.#fail("ETIMEDOUT"), options.connectTimeoutMs);
    if (isIP(host) !== 0) this.#start([host]);
    else options.lookup(host, (error, addresses) => this.#onAddresses(error, addresses));
  }

  /** Gives up without a call of the result. */
  cancel(): void {
    this.#settle();
  }

  #onAddresses(error: NodeJS.ErrnoException | null, addresses: readonly string[]): void {
    if (this.#done) return;
    if (error !== null) this.#fail(error.code ?? "ENOTFOUND");
    else if (addresses.length === 0) this.#fail("ENOTFOUND");
    else this.#start(alternate(addresses));
  }

  #start(addresses: readonly string[]): void {
    const unmapped = addresses.map(unmapAddress);
    this.#addresses = this.#allowPrivate ? unmapped : unmapped.filter((address) => !isPrivateAddress(address));
    if (this.#addresses.length === 0) setImmediate(() => this.#fail("EACCES"));
    else this.#attempt();
  }

  #attempt(): void {
    if (this.#nextAttempt !== null) clearTimeout(this.#nextAttempt);
    this.#nextAttempt = null;
    const address = this.#addresses.shift();
    if (address === undefined) return;
    if (this.#addresses.length > 0) this.#nextAttempt = setTimeout(() => this.#attempt(), ATTEMPT_DELAY_MS);
    const owner = new AttemptOwner((error) => this.#onFailed(end, error), this.#result.owner);
    const end = TcpEnd.connect(address, this.#port, owner, this.#buffers);
    this.#open.add(end);
    end.socket.once("connect", () => {
      if (this.#done) return;
      this.#open.delete(end);
      owner.won = true;
      this.#settle();
      this.#result.onConnected(end);
    });
  }

  #onFailed(end: TcpEnd, error: NodeJS.ErrnoException): void {
    this.#open.delete(end);
    if (this.#done) return;
    if (worthMore(error.code, this.#code)) this.#code = error.code;
    if (this.#addresses.length > 0) this.#attempt();
    else if (this.#open.size === 0) this.#fail(this.#code ?? "EIO");
  }

  #fail(code: string): void {
    if (this.#done) return;
    this.#settle();
    this.#result.onFailed(code);
  }

  #settle(): void {
    this.#done = true;
    if (this.#nextAttempt !== null) clearTimeout(this.#nextAttempt);
    if (this.#deadline !== null) clearTimeout(this.#deadline);
    for (const end of this.#open) end.socket.destroy();
    this.#open.clear();
  }
}

/** Keeps the calls of an attempt to itself until it has won. */
class AttemptOwner implements TcpEndOwner {
  won = false;
  readonly #onFailed: (error: NodeJS.ErrnoException) => void;
  readonly #owner: TcpEndOwner;

  constructor(onFailed: (error: NodeJS.ErrnoException) => void, owner: TcpEndOwner) {
    this.#onFailed = onFailed;
    this.#owner = owner;
  }

  onBytes(bytes: Uint8Array): boolean {
    return this.won ? this.#owner.onBytes(bytes) : false;
  }

  onEnd(): void {
    if (this.won) this.#owner.onEnd();
  }

  onError(error: NodeJS.ErrnoException): void {
    if (this.won) this.#owner.onError(error);
    else this.#onFailed(error);
  }

  onClose(): void {
    if (this.won) this.#owner.onClose();
  }
}

/** RFC 8305 §4: alternating families, in the resolver's order (RFC 6724), its first family first. */
export function alternate(addresses: readonly string[]): string[] {
  const isFirstKind = (address: string) => address.includes(":") === addresses[0]?.includes(":");
  const first = addresses.filter(isFirstKind);
  const second = addresses.filter((address) => !isFirstKind(address));
  const mixed: string[] = [];
  for (let i = 0; i < Math.max(first.length, second.length); i++) {
    mixed.push(...first.slice(i, i + 1), ...second.slice(i, i + 1));
  }
  return mixed;
}
