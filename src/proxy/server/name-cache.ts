/** Names in UDP datagrams: each datagram carries its name, so addresses are kept for a while. */
import type { NameLookup } from "./name-lookup.ts";

/** The system's resolver tells no TTL; a minute is short enough for names that move. */
const KEEP_MS = 60_000;
/** Oldest names go first beyond this. */
const MAX_NAMES = 1_024;
/** Datagrams that wait for one name; more are dropped, as UDP may. */
const MAX_WAITING = 64;

interface Entry {
  /** Null while looked up, and when the name has no address. */
  address: string | null;
  /** Callers waiting; null once answered. */
  waiting: ((address: string | null) => void)[] | null;
  expiresAt: number;
}

export class NameCache {
  readonly #entries: Map<string, Entry> = new Map();
  readonly #system: NameLookup;

  constructor(lookup: NameLookup) {
    this.#system = lookup;
  }

  /**
   * Calls back with the first address of `name`, at once when it is known; null when there is none.
   * @returns false when too many wait for this name already: there is no call then
   */
  resolve(name: string, now: number, onAddress: (address: string | null) => void): boolean {
    const known = this.#entries.get(name);
    if (known !== undefined && known.waiting !== null) {
      if (known.waiting.length >= MAX_WAITING) return false;
      known.waiting.push(onAddress);
      return true;
    }
    if (known !== undefined && known.expiresAt > now) {
      onAddress(known.address);
      return true;
    }
    this.#lookup(name, now, onAddress);
    return true;
  }

  #lookup(name: string, now: number, onAddress: (address: string | null) => void): void {
    const entry: Entry = { address: null, waiting: [onAddress], expiresAt: now + KEEP_MS };
    this.#entries.delete(name);
    this.#entries.set(name, entry);
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > MAX_NAMES && oldest !== undefined) this.#entries.delete(oldest);
    this.#system(name, (_, addresses) => {
      entry.address = addresses[0] ?? null;
      const { waiting } = entry;
      entry.waiting = null;
      for (const call of waiting ?? []) call(entry.address);
    });
  }
}
