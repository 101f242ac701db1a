/** How long nothing may have met a limit before meeting it is news again, ms: longer than the pauses within one trouble. */
const QUIET_MS = 60_000;

/**
 * Whether meeting a limit is news. It is told once; then not again until nobody has met it for a minute, so that a flood
 * is one line in the log and a later one is another.
 */
export class LimitNotice {
  readonly #quietMs: number;
  #metAt: number = Number.NEGATIVE_INFINITY;

  constructor(quietMs: number = QUIET_MS) {
    this.#quietMs = quietMs;
  }

  /** Something was turned away at `now`, ms; returns whether that is to be told. */
  meet(now: number): boolean {
    const isNews = now - this.#metAt >= this.#quietMs;
    this.#metAt = now;
    return isNews;
  }
}
