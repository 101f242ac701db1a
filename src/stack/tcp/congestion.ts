/** The joint for congestion control algorithms (RFC 5681 is the frame; NewReno is the default). */
import type { Tcb } from "./tcb.ts";

/** Sets `cwnd` and `ssthresh` of a flow. All sizes in bytes. */
export interface Congestion {
  readonly name: string;
  /** The handshake is complete. */
  start(tcb: Tcb, initialSegments: number): void;
  /** `acked` new bytes were acknowledged outside of loss recovery. */
  onAck(tcb: Tcb, acked: number): void;
  /** Fast retransmit begins with `flightSize` bytes outstanding. */
  onLoss(tcb: Tcb, flightSize: number): void;
  /** A further duplicate ACK during fast recovery. */
  onDuplicateAck(tcb: Tcb): void;
  /** A partial ACK of `acked` bytes during fast recovery. */
  onPartialAck(tcb: Tcb, acked: number): void;
  /** Everything outstanding at the loss is acknowledged. */
  onRecovered(tcb: Tcb, flightSize: number): void;
  /** The retransmission timer fired for the first time in a row. */
  onTimeout(tcb: Tcb, flightSize: number): void;
}
