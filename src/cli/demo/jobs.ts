/** What the client process is asked to do, and what it answers: plain data that crosses a process boundary. */
import type { IpVersion } from "./network.ts";

/** One thing a client does. All times are limits after which the job fails, ms. */
export type Job =
  | { readonly kind: "download" | "upload"; readonly version: IpVersion; readonly bytes: number; readonly seed: number }
  | { readonly kind: "echo"; readonly version: IpVersion; readonly connections: number; readonly bytes: number }
  | { readonly kind: "half-close-client" | "half-close-server"; readonly version: IpVersion; readonly bytes: number }
  | {
      readonly kind: "connect-fails";
      readonly host: string;
      readonly port: number;
      /** Such as `ECONNREFUSED`. */
      readonly expected: string;
    }
  | { readonly kind: "dns"; readonly version: IpVersion; readonly transport: "udp" | "tcp" }
  | { readonly kind: "udp-echo"; readonly version: IpVersion; readonly largest: number }
  | { readonly kind: "ping"; readonly version: IpVersion; readonly count: number };

/** How a job went. */
export interface Outcome {
  /** `ok`, or a sentence that says what differed. */
  readonly result: string;
  /** Payload that arrived and was checked. */
  readonly bytes: number;
  /** How long the bytes took, ms; 0 where a rate says nothing. */
  readonly ms: number;
}

/** Which programs of the system the clients use; what is missing is done by own code. */
export interface Tools {
  readonly curl: boolean;
  readonly dig: boolean;
  readonly ping: boolean;
}

/** From the demo to the client process. */
export type ClientRequest =
  | { readonly do: "set-up" }
  | { readonly do: "job"; readonly id: number; readonly job: Job; readonly timeoutMs: number };

/** From the client process. */
export type ClientReply =
  | { readonly is: "ready"; readonly tools: Tools }
  | { readonly is: "set-up"; readonly problem: string | null }
  | { readonly is: "done"; readonly id: number; readonly outcome: Outcome };
