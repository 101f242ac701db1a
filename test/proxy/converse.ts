/** Drives a handshake with the answers of a proxy that is not there, and tells everything that can be seen of it. */
import { type Destination, type Handshake, HandshakeStep, type Refusal } from "../../src/proxy/upstream.ts";
import { formatAddress } from "../../src/stack/flow/address.ts";

/** Offsets at which an answer of `length` bytes is cut. */
export type Cut = (length: number) => readonly number[];

export interface Conversation {
  /** What was sent, one entry a message. */
  readonly sent: readonly string[];
  readonly step: HandshakeStep;
  /** Bytes of the last answer that belonged to the handshake. */
  readonly used: number;
  readonly refusal: Refusal;
  readonly reason: string;
  readonly bound: { readonly host: string; readonly port: number } | null;
}

export const whole: Cut = () => [];
export const eachByte: Cut = (length) => Array.from({ length }, (_, at) => at);

function isOver(step: HandshakeStep): boolean {
  return step === HandshakeStep.done || step === HandshakeStep.failed || step === HandshakeStep.again;
}

/** @param encoding of `sent` */
export function converse(
  handshake: Handshake,
  answers: readonly (string | Uint8Array)[],
  cut: Cut = whole,
  encoding: "latin1" | "hex" = "latin1",
): Conversation {
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString(encoding);
  const sent = [text(handshake.start())];
  let step: HandshakeStep = HandshakeStep.more;
  let used = 0;
  for (const item of answers) {
    const answer = typeof item === "string" ? Buffer.from(item, "latin1") : item;
    let start = 0;
    for (const end of [...cut(answer.length), answer.length]) {
      if (end <= start || isOver(step)) continue;
      step = handshake.receive(answer, start, end);
      if (step === HandshakeStep.send) sent.push(text(handshake.out));
      if (step === HandshakeStep.done) used = start + handshake.consumed;
      start = end;
    }
  }
  const { refusal, reason, bound } = handshake;
  return { sent, step, used, refusal, reason, bound: bound === null ? null : show(bound) };
}

function show({ host, port }: Destination): { host: string; port: number } {
  return { host: typeof host === "string" ? host : formatAddress(host), port };
}
