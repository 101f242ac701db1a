/**
 * The states of a connection and the only table that changes them (RFC 9293 §3.3.2, figure 5).
 *
 * ```
 *                 passive SYN                    ACK of SYN
 *   LISTEN ─────────────────> SYN-RECEIVED ─────────────────> ESTABLISHED
 *                                                  send FIN │     │ receive FIN
 *                                                           v     v
 *                                FIN-WAIT-1 <───────────────┘   CLOSE-WAIT
 *          ACK of FIN │          │ receive FIN │ FIN and its ACK               │ send FIN
 *                     v          v             v                               v
 *               FIN-WAIT-2    CLOSING ──> TIME-WAIT <── FIN-WAIT-2         LAST-ACK ──> CLOSED
 * ```
 */

export const State = {
  closed: 0,
  listen: 1,
  synSent: 2,
  synReceived: 3,
  established: 4,
  finWait1: 5,
  finWait2: 6,
  closeWait: 7,
  closing: 8,
  lastAck: 9,
  timeWait: 10,
} as const;
export type State = (typeof State)[keyof typeof State];

/** Names as RFC 9293 spells them. */
export const STATE_NAMES = [
  "CLOSED",
  "LISTEN",
  "SYN-SENT",
  "SYN-RECEIVED",
  "ESTABLISHED",
  "FIN-WAIT-1",
  "FIN-WAIT-2",
  "CLOSE-WAIT",
  "CLOSING",
  "LAST-ACK",
  "TIME-WAIT",
] as const;
export type StateName = (typeof STATE_NAMES)[number];

/** What can move a connection from one state to another. */
export const Event = {
  /** The flow whose SYN arrived is accepted: SYN-ACK is sent. */
  accept: 0,
  /** Our SYN is acknowledged. */
  ackOfSyn: 1,
  /** The peer's FIN is in sequence. */
  finReceived: 2,
  /** Our FIN is sent for the first time. */
  finSent: 3,
  /** Our FIN is acknowledged. */
  ackOfFin: 4,
  /** The connection ends: reset, timeout, 2 MSL over. */
  gone: 5,
} as const;
export type Event = (typeof Event)[keyof typeof Event];

const X = -1;
/** `TRANSITIONS[state][event]`: the next state; -1 where the pair cannot happen. */
export const TRANSITIONS: readonly (readonly (State | -1)[])[] = [
  /*                    accept             ackOfSyn           finReceived      finSent          ackOfFin        gone */
  /* CLOSED       */ [X, X, X, X, X, State.closed],
  /* LISTEN       */ [State.synReceived, X, X, X, X, State.closed],
  /* SYN-SENT     */ [X, X, X, X, X, State.closed],
  /* SYN-RECEIVED */ [X, State.established, X, X, X, State.closed],
  /* ESTABLISHED  */ [X, X, State.closeWait, State.finWait1, X, State.closed],
  /* FIN-WAIT-1   */ [X, X, State.closing, X, State.finWait2, State.closed],
  /* FIN-WAIT-2   */ [X, X, State.timeWait, X, X, State.closed],
  /* CLOSE-WAIT   */ [X, X, X, State.lastAck, X, State.closed],
  /* CLOSING      */ [X, X, X, X, State.timeWait, State.closed],
  /* LAST-ACK     */ [X, X, X, X, State.closed, State.closed],
  /* TIME-WAIT    */ [X, X, X, X, X, State.closed],
];

/** The state after `event` in `state`, or -1 for a pair that cannot happen. */
export function nextState(state: State, event: Event): State | -1 {
  return TRANSITIONS[state]?.[event] ?? -1;
}

/** Whether the peer's FIN can still come: it has not been received. */
export function canReceive(state: State): boolean {
  return state === State.established || state === State.finWait1 || state === State.finWait2;
}

/** Whether data may still be queued for sending or retransmitted. */
export function canSend(state: State): boolean {
  return state === State.established || state === State.closeWait;
}

/** Synchronized states (RFC 9293 §3.3.2): both SYNs have been acknowledged. */
export function isSynchronized(state: State): boolean {
  return state >= State.established;
}
