/** One epoll set under the event loop: who is ready, in one call a wake-up. */

import type { Slab } from "../stack/memory/index.ts";
import { type Addon, Epoll, errnoName } from "./addon.ts";

/** Most events fetched at once. */
const MAX_EVENTS = 512;
const EVENT_WORDS = 3;

/** Hears of ready descriptors. */
export interface PollSink {
  /** @param token what `add` was given */
  onPoll(token: number, generation: number, events: number): void;
}

/** What is the matter: the addon, the poller, or files for TLS that cannot be used. */
export type IoErrorCode = "IO_ADDON" | "IO_POLLER" | "IO_TLS";

/** Errors that are known when sockets are set up, and that nobody can act on but by stopping. */
export class IoError extends Error {
  override readonly name = "IoError";
  /** Stable, for programs. */
  readonly code: IoErrorCode;

  constructor(code: IoErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** The thread's poller. There is one a thread: a second `open` fails until `close`. */
export class Poller {
  readonly addon: Addon;
  readonly slab: Slab;
  /** The slab's number in the addon. */
  readonly slabId: number;
  readonly #events: number;

  private constructor(addon: Addon, slab: Slab, slabId: number, events: number) {
    this.addon = addon;
    this.slab = slab;
    this.slabId = slabId;
    this.#events = events;
  }

  /**
   * Makes the epoll set; `onReady` is called on the event loop while something is ready.
   * @throws IoError
   */
  static open(addon: Addon, slab: Slab, onReady: () => void): Poller {
    const slabId = addon.registerSlab(slab.buffer);
    if (slabId < 0) throw new IoError("IO_ADDON", `Cannot register packet memory with the addon: ${errnoName(slabId)}`);
    const events = slab.take();
    const result = events < 0 ? -12 : addon.pollerOpen(onReady);
    if (result < 0) {
      addon.unregisterSlab(slabId);
      if (events >= 0) slab.release(events);
      throw new IoError("IO_POLLER", `Cannot open the poller of this thread: ${errnoName(result)}`);
    }
    return new Poller(addon, slab, slabId, events);
  }

  /** Watches a descriptor for input, level-triggered. @returns 0 or -errno */
  addReader(fd: number, token: number): number {
    return this.addon.pollerAdd(fd, Epoll.IN, token, 0);
  }

  /** Fetches the events that are there and tells `sink`. Returns how many there were. */
  poll(sink: PollSink): number {
    const count = this.addon.pollerWait(this.slabId, this.#events, MAX_EVENTS, 0);
    const words = this.slab.words;
    let at = this.#events >> 2;
    for (let i = 0; i < count; i++, at += EVENT_WORDS) {
      sink.onPoll(words[at] as number, words[at + 1] as number, words[at + 2] as number);
    }
    return count;
  }

  close(): void {
    this.addon.pollerClose();
    this.addon.unregisterSlab(this.slabId);
    this.slab.release(this.#events);
  }
}
