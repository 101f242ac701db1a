/**
 * Whether an upstream takes all messages of a handshake together, found out by trial.
 *
 * Together they save round trips, but some proxies swallow what follows the first message and then wait for ever. So one
 * flow tries. Whenever messages that went together are not answered in time, or the way they are answered may be the
 * fault of going together, the same flow is dialled again in sequence. Its client never sees the trial fail, and the
 * second dial is the control: when it is answered where the first was not, it was going together; when it fares no
 * better, that was the destination, and nothing is learned.
 *
 *     unknown --trial--> trying --answered--> yes <--acquitted--+
 *                          |                   |                |
 *                          +------doubt--------+-----doubt--> judging --convicted--> no
 *
 * While it is not `yes`, other flows go in sequence.
 */

/** What is known. `yes` and `no` hold for the life of the upstream, `yes` until doubts prove right. */
export type PipeliningState = "unknown" | "trying" | "yes" | "judging" | "no";

/** How a flow sends the messages of its handshake. */
export const Sending = {
  /** Each after the answer to the one before. */
  sequence: 0,
  /** All at once, to find out. */
  trial: 1,
  /** All at once. */
  together: 2,
} as const;
export type Sending = (typeof Sending)[keyof typeof Sending];

/** Trials without a verdict after which none follows. */
const MAX_TRIALS = 3;

export class Pipelining {
  #state: PipeliningState;
  #trials = 0;
  /** What the doubt is about: a trial, or what was known. */
  #hadWorked = false;
  #workedAt: number = Number.NEGATIVE_INFINITY;

  /** @param canPipeline whether the upstream's handshake can be sent together at all */
  constructor(canPipeline: boolean) {
    this.#state = canPipeline ? "unknown" : "no";
  }

  get state(): PipeliningState {
    return this.#state;
  }

  /** How the next flow is to send. A trial must end in `worked`, `doubt` or `abandon`. */
  take(): Sending {
    if (this.#state === "yes") return Sending.together;
    if (this.#state !== "unknown") return Sending.sequence;
    this.#state = "trying";
    this.#trials++;
    return Sending.trial;
  }

  /** Messages that went together were answered at `now`, ms. */
  worked(now: number): void {
    this.#workedAt = now;
    if (this.#state !== "no") this.#state = "yes";
  }

  /** Whether messages that went together later than `sentAt` were answered: then a slow answer is the destination's. */
  hasWorkedSince(sentAt: number): boolean {
    return this.#workedAt > sentAt;
  }

  /** A flow whose messages went together is dialled again in sequence; `convict` or `acquit` follows. */
  doubt(): void {
    if (this.#state !== "trying" && this.#state !== "yes") return;
    this.#hadWorked = this.#state === "yes";
    this.#state = "judging";
  }

  /** In sequence the flow was answered: going together was the fault. */
  convict(): void {
    this.#state = "no";
  }

  /** In sequence the flow fared no better. */
  acquit(): void {
    if (this.#state !== "judging") return;
    if (this.#hadWorked) this.#state = "yes";
    else this.#state = this.#trials < MAX_TRIALS ? "unknown" : "no";
  }

  /** A trial ended without having been one: its client gave up, or the proxy could not be reached. */
  abandon(): void {
    if (this.#state !== "trying") return;
    this.#trials--;
    this.#state = "unknown";
  }
}
