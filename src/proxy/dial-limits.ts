/** What all dials share, those of flows and those of associations: how many there may be, and the descriptors they need. */
import { Errno, errnoName } from "../io/addon.ts";
import { LimitNotice } from "./limit-notice.ts";
import type { Logger } from "./logger.ts";

export class DialLimits {
  readonly #max: number;
  readonly #logger: Logger;
  readonly #tooMany: LimitNotice = new LimitNotice();
  readonly #noDescriptors: LimitNotice = new LimitNotice();
  #count = 0;
  #now = 0;

  /** @param max most dials at a time */
  constructor(max: number, logger: Logger) {
    this.#max = max;
    this.#logger = logger;
  }

  /** Dials now. */
  get count(): number {
    return this.#count;
  }

  /** The time of the turn that begins, ms. */
  advance(now: number): void {
    this.#now = now;
  }

  /** Counts one more dial; false when there are too many. */
  take(): boolean {
    if (this.#count >= this.#max) {
      if (this.#tooMany.meet(this.#now)) {
        this.#logger.warn(
          `${this.#max} connections wait for the upstream, new ones are refused: it may be slow; --max-dials allows more`,
        );
      }
      return false;
    }
    this.#count++;
    return true;
  }

  /** A dial is over. */
  release(): void {
    this.#count--;
  }

  /** Whether `errno` says that there are no descriptors left. The first time in a while that is told. */
  isOutOfDescriptors(errno: number): boolean {
    if (errno !== Errno.EMFILE && errno !== Errno.ENFILE) return false;
    if (this.#noDescriptors.meet(this.#now)) {
      this.#logger.warn(`No descriptors left for new flows (${errnoName(errno)}): raise the limit with "ulimit -n"`);
    }
    return true;
  }
}
