/**
 * Deadlines that all lie equally far ahead when they are set: a queue in order of time. An entry that is not wanted any
 * more is skipped when it comes up, so that cancelling costs nothing.
 */
export class DeadlineQueue {
  readonly #delayMs: number;
  #handles: number[] = [];
  #times: number[] = [];
  #head = 0;

  /** @param delayMs from `add` to expiry */
  constructor(delayMs: number) {
    this.#delayMs = delayMs;
  }

  /** Sets a deadline for `handle`; returns the instant, which tells this deadline from an older one. */
  add(handle: number, now: number): number {
    const at = now + this.#delayMs;
    this.#handles.push(handle);
    this.#times.push(at);
    return at;
  }

  /** When the first entry comes up; `Infinity` when there is none. */
  get next(): number {
    return this.#times[this.#head] ?? Number.POSITIVE_INFINITY;
  }

  /** Takes an entry that is due and returns its handle, or -1. Its instant is left in `takenAt`. */
  takeDue(now: number): number {
    const at = this.next;
    if (at > now) return -1;
    const handle = this.#handles[this.#head++] as number;
    this.takenAt = at;
    if (this.#head > 1024 && this.#head * 2 > this.#times.length) {
      this.#handles = this.#handles.slice(this.#head);
      this.#times = this.#times.slice(this.#head);
      this.#head = 0;
    }
    if (this.#head === this.#times.length) {
      this.#handles.length = 0;
      this.#times.length = 0;
      this.#head = 0;
    }
    return handle;
  }

  /** Drops entries at the front for which `isVoid` holds, so that they wake nobody. */
  skip(isVoid: (handle: number, at: number) => boolean): void {
    while (this.#head < this.#times.length && isVoid(this.#handles[this.#head] as number, this.next)) {
      this.takeDue(Number.POSITIVE_INFINITY);
    }
  }

  /** The instant of the entry taken last. */
  takenAt = 0;
}
