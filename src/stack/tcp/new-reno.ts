/** NewReno: slow start, congestion avoidance, fast recovery (RFC 5681 §3, RFC 6582 §3.2). */
import type { Congestion } from "./congestion.ts";
import type { Tcb } from "./tcb.ts";

/** Far above any send buffer, far below overflow. */
const MAX_CWND = 1 << 30;

/** RFC 5681 equation (4): half of what is outstanding, at least two segments. */
function halfFlight(tcb: Tcb, flightSize: number): number {
  return Math.max(flightSize >>> 1, 2 * tcb.smss);
}

export const newReno: Congestion = {
  name: "newreno",

  start(tcb: Tcb, initialSegments: number): void {
    // RFC 6928 §2; RFC 5681 §3.1: one segment after the SYN-ACK had to be sent again.
    tcb.cwnd = tcb.retries > 0 ? tcb.smss : initialSegments * tcb.smss;
  },

  onAck(tcb: Tcb, acked: number): void {
    if (tcb.cwnd < tcb.ssthresh) {
      // RFC 5681 §3.1: byte counting, so that split ACKs gain nothing. A super-segment of the device is acknowledged in
      // one piece; it counts with all its bytes, as the segments it stands for would (RFC 3465 with L unbounded).
      tcb.cwnd = Math.min(MAX_CWND, tcb.cwnd + acked);
      return;
    }
    tcb.ackedBytes += acked;
    if (tcb.ackedBytes >= tcb.cwnd) {
      tcb.ackedBytes -= tcb.cwnd;
      tcb.cwnd = Math.min(MAX_CWND, tcb.cwnd + tcb.smss);
    }
  },

  onLoss(tcb: Tcb, flightSize: number): void {
    tcb.ssthresh = halfFlight(tcb, flightSize);
    // RFC 5681 §3.2 step 3: three segments have left the network.
    tcb.cwnd = tcb.ssthresh + 3 * tcb.smss;
    tcb.ackedBytes = 0;
  },

  onDuplicateAck(tcb: Tcb): void {
    tcb.cwnd = Math.min(MAX_CWND, tcb.cwnd + tcb.smss);
  },

  onPartialAck(tcb: Tcb, acked: number): void {
    // RFC 6582 §3.2 step 3, partial acknowledgments.
    tcb.cwnd = Math.max(tcb.smss, tcb.cwnd - acked);
    if (acked >= tcb.smss) tcb.cwnd += tcb.smss;
  },

  onRecovered(tcb: Tcb, flightSize: number): void {
    // RFC 6582 §3.2 step 3, full acknowledgments, option 1: no burst.
    tcb.cwnd = Math.min(tcb.ssthresh, Math.max(flightSize, tcb.smss) + tcb.smss);
  },

  onTimeout(tcb: Tcb, flightSize: number): void {
    tcb.ssthresh = halfFlight(tcb, flightSize);
    tcb.cwnd = tcb.smss;
    tcb.ackedBytes = 0;
  },
};
