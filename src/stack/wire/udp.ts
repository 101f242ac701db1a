/**
 * UDP header (RFC 768).
 *
 * ```
 * |          Source Port          |       Destination Port        |
 * |            Length             |           Checksum            |
 * ```
 */
import type { Memory } from "../memory/slab.ts";
import { Drop } from "./drop.ts";

export const UDP_HEADER_LEN = 8;
const SOURCE_PORT = 0;
const DESTINATION_PORT = 2;
const LENGTH = 4;
export const UDP_CHECKSUM = 6;

/** A parsed UDP header. One instance is reused for every packet. */
export class UdpDatagram {
  sourcePort = 0;
  destinationPort = 0;
  /** Slab offset of the payload. */
  data = 0;
  /** Payload bytes; of all datagrams together when the device joined several. */
  dataLen = 0;
  /** The checksum field, 0 when the sender computed none. */
  checksum = 0;
}

/**
 * Parses a UDP header at bytes [start, end) of `memory` into `datagram`.
 * @param joined whether the device joined datagrams: then the length field may be that of the whole
 */
export function parseUdp(memory: Memory, start: number, end: number, joined: boolean, datagram: UdpDatagram): Drop {
  const { view } = memory;
  if (end - start < UDP_HEADER_LEN) return Drop.udpTruncated;
  const length = view.getUint16(start + LENGTH);
  // RFC 1122 §4.1.1 and behaviours: shorter than the IP payload is cut, longer or below 8 is dropped.
  if (!joined && (length < UDP_HEADER_LEN || start + length > end)) return Drop.udpLength;
  datagram.sourcePort = view.getUint16(start + SOURCE_PORT);
  datagram.destinationPort = view.getUint16(start + DESTINATION_PORT);
  datagram.data = start + UDP_HEADER_LEN;
  datagram.dataLen = (joined ? end - start : length) - UDP_HEADER_LEN;
  datagram.checksum = view.getUint16(start + UDP_CHECKSUM);
  return Drop.none;
}

/** Writes a UDP header at `at` with checksum zero. */
export function emitUdp(memory: Memory, at: number, sourcePort: number, destinationPort: number, length: number): void {
  const { view } = memory;
  view.setUint16(at + SOURCE_PORT, sourcePort);
  view.setUint16(at + DESTINATION_PORT, destinationPort);
  view.setUint16(at + LENGTH, length);
  view.setUint16(at + UDP_CHECKSUM, 0);
}
