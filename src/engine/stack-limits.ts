/** Puts into words which limits of the stack turn flows away: each once, and again when it has been quiet for a while. */
import { LimitNotice } from "../proxy/limit-notice.ts";
import type { Logger } from "../proxy/logger.ts";
import type { RefusedCounts } from "../stack/tcp/refused.ts";

/** One limit: how often it was met when it was looked at last. */
class Watch {
  readonly #text: string;
  readonly #notice: LimitNotice = new LimitNotice();
  #seen = 0;

  constructor(text: string) {
    this.#text = text;
  }

  look(count: number, now: number, logger: Logger): void {
    if (count === this.#seen) return;
    this.#seen = count;
    if (this.#notice.meet(now)) logger.warn(this.#text);
  }
}

export class StackLimits {
  readonly #logger: Logger;
  readonly #flows: Watch = new Watch("No room for more connections, new ones are refused: --max-flows allows more");
  readonly #perSource: Watch = new Watch(
    "A client has as many connections as one may have, its new ones are refused: --max-flows-per-source allows more",
  );
  readonly #halfOpen: Watch = new Watch(
    "Too many connections wait for clients that do not answer, the oldest are reset: --max-half-open allows more",
  );
  readonly #memory: Watch = new Watch(
    "Memory for packets is used up, new connections are refused: --max-memory allows more",
  );

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Looks at the counters; to be called often, costs nothing while they stand still. */
  look({ flows, perSource, halfOpen, memory }: RefusedCounts, now: number): void {
    this.#flows.look(flows, now, this.#logger);
    this.#perSource.look(perSource, now, this.#logger);
    this.#halfOpen.look(halfOpen, now, this.#logger);
    this.#memory.look(memory, now, this.#logger);
  }
}
