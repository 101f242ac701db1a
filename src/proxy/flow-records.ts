/**
 * What summaries of flows need beyond the relay's own tables: columns by handle, made only when somebody listens. A flow
 * may change its handle while it is dialled: `leave` takes its numbers out of the columns, `enter` puts them in again,
 * and `tell` reports those that were taken out last.
 */
import { formatEndpoint } from "../stack/flow/address.ts";
import type { TcpFlow } from "../stack/flow/flow.ts";
import type { FlowEnd, Logger } from "./logger.ts";

export class FlowRecords {
  readonly #upstream: string;
  readonly #logger: Logger;
  #startedAt: Float64Array = new Float64Array(256);
  #up: Float64Array = new Float64Array(256);
  #down: Float64Array = new Float64Array(256);
  #since = 0;
  #bytesUp = 0;
  #bytesDown = 0;

  /** @param upstream its URL without the password */
  constructor(upstream: string, logger: Logger) {
    this.#upstream = upstream;
    this.#logger = logger;
  }

  /** A flow begins at `now`, ms; `enter` follows, or `tell` when it gets no handle. */
  start(now: number): void {
    this.#since = now;
    this.#bytesUp = 0;
    this.#bytesDown = 0;
  }

  enter(handle: number): void {
    if (handle >= this.#startedAt.length) {
      let length = this.#startedAt.length;
      while (handle >= length) length *= 2;
      this.#startedAt = grownFloats(this.#startedAt, length);
      this.#up = grownFloats(this.#up, length);
      this.#down = grownFloats(this.#down, length);
    }
    this.#startedAt[handle] = this.#since;
    this.#up[handle] = this.#bytesUp;
    this.#down[handle] = this.#bytesDown;
  }

  leave(handle: number): void {
    this.#since = this.#startedAt[handle] as number;
    this.#bytesUp = this.#up[handle] as number;
    this.#bytesDown = this.#down[handle] as number;
  }

  countUp(handle: number, length: number): void {
    this.#up[handle] = (this.#up[handle] as number) + length;
  }

  countDown(handle: number, length: number): void {
    this.#down[handle] = (this.#down[handle] as number) + length;
  }

  /** Tells how `flow`, which has just left its handle, ended at `now`, ms. @param reason empty for none */
  tell(flow: TcpFlow, end: FlowEnd, reason: string, now: number): void {
    const { local, remote } = flow;
    this.#logger.flow?.({
      protocol: "tcp",
      client: formatEndpoint(remote.address, remote.port),
      destination: formatEndpoint(local.address, local.port),
      upstream: this.#upstream,
      end,
      ...(reason === "" ? {} : { reason }),
      durationMs: Math.round(now - this.#since),
      bytesUp: this.#bytesUp,
      bytesDown: this.#bytesDown,
    });
  }
}

/** A copy of `array` with room for `length` entries. */
function grownFloats(array: Float64Array, length: number): Float64Array {
  const copy = new Float64Array(length);
  copy.set(array);
  return copy;
}
