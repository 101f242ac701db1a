/** As much of DNS (RFC 1035) as the demo needs: one question, fixed answers, no compression but a pointer to it. */
import { formatAddress, parseAddress } from "../../stack/flow/address.ts";
import type { IpVersion } from "./network.ts";

/** Header (RFC 1035 §4.1.1): id, flags, then four counts, 16 bits each. */
const HEADER_LEN = 12;
const QDCOUNT = 4;
const ANCOUNT = 6;
const FLAG_RESPONSE = 0x8000;
const FLAG_AUTHORITATIVE = 0x0400;
const FLAG_RECURSION_DESIRED = 0x0100;
const NAME_ERROR = 3;
const CLASS_IN = 1;
/** Type, class, TTL, length: what stands between the name and the data of a record (RFC 1035 §4.1.3). */
const RECORD_FIXED_LEN = 10;
/** A name that is a pointer to the question's, which always starts after the header (RFC 1035 §4.1.4). */
const POINTER_TO_QUESTION = 0xc000 | HEADER_LEN;
/** Seconds. */
const TTL = 60;

/** The record type for addresses of a family: A (RFC 1035) or AAAA (RFC 3596). */
export function addressType(version: IpVersion): number {
  return version === 4 ? 1 : 28;
}

/** A query for one name and type. */
export function emitQuery(id: number, name: string, type: number): Buffer {
  const labels = name.split(".").map((label) => Buffer.from(`${String.fromCharCode(label.length)}${label}`, "latin1"));
  const header = Buffer.alloc(HEADER_LEN);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(FLAG_RECURSION_DESIRED, 2);
  header.writeUInt16BE(1, QDCOUNT);
  const tail = Buffer.from([0, type >>> 8, type & 0xff, 0, CLASS_IN]);
  return Buffer.concat([header, ...labels, tail]);
}

interface Question {
  readonly name: string;
  readonly type: number;
  /** Offset after it. */
  readonly end: number;
}

function parseQuestion(message: Buffer): Question | null {
  if (message.length < HEADER_LEN || message.readUInt16BE(QDCOUNT) !== 1) return null;
  const labels: string[] = [];
  let at = HEADER_LEN;
  for (;;) {
    const length = message[at];
    if (length === undefined || length > 63 || at + 1 + length > message.length) return null;
    at += 1 + length;
    if (length === 0) break;
    labels.push(message.toString("latin1", at - length, at));
  }
  if (at + 4 > message.length) return null;
  return { name: labels.join(".").toLowerCase(), type: message.readUInt16BE(at), end: at + 4 };
}

/** The answer of a server that knows one name; null for what is no query. */
export function answerQuery(
  query: Buffer,
  name: string,
  addresses: Readonly<Record<IpVersion, string>>,
): Buffer | null {
  const question = parseQuestion(query);
  if (question === null || (query.readUInt16BE(2) & FLAG_RESPONSE) !== 0) return null;
  const known = question.name === name;
  const version = ([4, 6] as const).find((candidate) => addressType(candidate) === question.type);
  const address = known && version !== undefined ? parseAddress(addresses[version]) : null;
  const header = Buffer.alloc(HEADER_LEN);
  query.copy(header, 0, 0, 2);
  const asked = query.readUInt16BE(2) & FLAG_RECURSION_DESIRED;
  header.writeUInt16BE(FLAG_RESPONSE | FLAG_AUTHORITATIVE | asked | (known ? 0 : NAME_ERROR), 2);
  header.writeUInt16BE(1, QDCOUNT);
  const parts = [header, query.subarray(HEADER_LEN, question.end)];
  if (address !== null) {
    header.writeUInt16BE(1, ANCOUNT);
    const fixed = Buffer.alloc(2 + RECORD_FIXED_LEN);
    fixed.writeUInt16BE(POINTER_TO_QUESTION, 0);
    fixed.writeUInt16BE(question.type, 2);
    fixed.writeUInt16BE(CLASS_IN, 4);
    fixed.writeUInt32BE(TTL, 6);
    fixed.writeUInt16BE(address.length, 10);
    parts.push(fixed, Buffer.from(address));
  }
  return Buffer.concat(parts);
}

/** The address in the first record of an answer of {@link answerQuery}; null when there is none. */
export function parseAnswer(answer: Buffer, id: number): string | null {
  const question = parseQuestion(answer);
  if (question === null || answer.readUInt16BE(0) !== id || answer.readUInt16BE(ANCOUNT) !== 1) return null;
  const dataAt = question.end + 2 + RECORD_FIXED_LEN;
  if (dataAt > answer.length) return null;
  const data = answer.subarray(dataAt, dataAt + answer.readUInt16BE(dataAt - 2));
  return data.length === 4 || data.length === 16 ? formatAddress(data) : null;
}
