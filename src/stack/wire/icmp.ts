/**
 * ICMP (RFC 792) and ICMPv6 (RFC 4443): echo and the errors a flow can be refused with.
 *
 * ```
 * |     Type      |     Code      |          Checksum             |
 * |           Identifier or unused, MTU                           |
 * |     Data: echo data, or the start of the packet in error      |
 * ```
 */
import type { Memory } from "../memory/slab.ts";

export const ICMP_HEADER_LEN = 8;
const TYPE = 0;
const CODE = 1;
export const ICMP_CHECKSUM = 2;
const REST = 4;

export const ICMP_ECHO_REPLY = 0;
export const ICMP_UNREACHABLE = 3;
export const ICMP_ECHO = 8;
export const ICMP_TIME_EXCEEDED = 11;
export const ICMPV6_UNREACHABLE = 1;
export const ICMPV6_PACKET_TOO_BIG = 2;
export const ICMPV6_TIME_EXCEEDED = 3;
export const ICMPV6_PARAMETER_PROBLEM = 4;
export const ICMPV6_ECHO = 128;
export const ICMPV6_ECHO_REPLY = 129;
/** ICMPv6 types below this are errors (RFC 4443 §2.1). */
export const ICMPV6_FIRST_INFORMATIONAL = 128;

/** Code of ICMP type 3: fragmentation needed and DF set (RFC 1191 §4). */
export const ICMP_FRAGMENTATION_NEEDED = 4;
/** Code of time exceeded, for both versions: fragment reassembly time exceeded. */
export const REASSEMBLY_TIME_EXCEEDED = 1;

/** Codes of ICMPv6 parameter problems (RFC 4443 §3.4, RFC 7112 §6). */
export const ParameterProblem = {
  erroneousField: 0,
  unknownNextHeader: 1,
  unknownOption: 2,
  incompleteFirstFragment: 3,
} as const;
export type ParameterProblem = (typeof ParameterProblem)[keyof typeof ParameterProblem];

/** Why a packet could not be delivered. */
export const Unreachable = {
  net: 0,
  host: 1,
  protocol: 2,
  port: 3,
  prohibited: 4,
} as const;
export type Unreachable = (typeof Unreachable)[keyof typeof Unreachable];

/** Codes of ICMP type 3 (RFC 792, RFC 1812 §5.2.7.1) by `Unreachable`. */
export const ICMP_CODES: readonly number[] = [0, 1, 2, 3, 13];
/**
 * Codes of ICMPv6 type 1 (RFC 4443 §3.1) by `Unreachable`: no route, address unreachable, (a parameter problem would say
 * it for protocols), port, administratively prohibited.
 */
export const ICMPV6_CODES: readonly number[] = [0, 3, 3, 4, 1];

/** Whether an ICMP type is an error message, about which no error is sent (RFC 1122 §3.2.2). */
export function isIcmpError(type: number): boolean {
  return type === 3 || type === 4 || type === 5 || type === 11 || type === 12;
}

/** Writes the first eight bytes of a message, checksum zero. */
export function emitIcmp(memory: Memory, at: number, type: number, code: number, rest: number): void {
  const { view } = memory;
  view.setUint8(at + TYPE, type);
  view.setUint8(at + CODE, code);
  view.setUint16(at + ICMP_CHECKSUM, 0);
  view.setInt32(at + REST, rest);
}
