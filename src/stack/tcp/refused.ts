/** How often each limit was hit. */

/** TCP flows that were refused with a reset because of a limit, since the stack was made. */
export interface RefusedCounts {
  /** By `maxFlows`. */
  readonly flows: number;
  /** By `maxFlowsPerSource`. */
  readonly perSource: number;
  /** By `synBacklog`: the oldest flow in SYN-RECEIVED, for a newer one. */
  readonly halfOpen: number;
  /** For want of packet memory. */
  readonly memory: number;
}

/** @internal The counters behind {@link RefusedCounts}. */
export class Refused implements RefusedCounts {
  flows = 0;
  perSource = 0;
  halfOpen = 0;
  memory = 0;
}
