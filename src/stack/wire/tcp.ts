/**
 * TCP header (RFC 9293 §3.1) and options.
 *
 * ```
 * |          Source Port          |       Destination Port        |
 * |                        Sequence Number                        |
 * |                    Acknowledgment Number                      |
 * | Data  |       |C|E|U|A|P|R|S|F|                               |
 * | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
 * |           Checksum            |         Urgent Pointer        |
 * |                           [Options]                           |
 * ```
 */
import type { Memory } from "../memory/slab.ts";
import { Drop } from "./drop.ts";

export const TCP_HEADER_LEN = 20;
const SOURCE_PORT = 0;
const DESTINATION_PORT = 2;
const SEQ = 4;
const ACK = 8;
const DATA_OFFSET = 12;
const FLAGS = 13;
const WINDOW = 14;
export const TCP_CHECKSUM = 16;
const URGENT = 18;

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const PSH = 0x08;
export const ACK_FLAG = 0x10;
export const URG = 0x20;
export const ECE = 0x40;
export const CWR = 0x80;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const OPTION_WINDOW_SCALE = 3;
const OPTION_SACK_PERMITTED = 4;
const OPTION_SACK = 5;
const OPTION_TIMESTAMPS = 8;
/** Two NOPs and the timestamps option, as RFC 7323 appendix A lays them out. */
const TIMESTAMPS_WORD = (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_TIMESTAMPS << 8) | 10;
/** Header length of a segment whose only option is the padded timestamps. */
const TIMESTAMPS_HEADER_LEN = 32;
/** RFC 7323 §2.3: a larger shift counts as 14. */
export const MAX_WINDOW_SHIFT = 14;

/** A parsed segment; the numbers of RFC 9293 under their names. One instance is reused for every packet. */
export class TcpSegment {
  sourcePort = 0;
  destinationPort = 0;
  /** SEG.SEQ */
  seq = 0;
  /** SEG.ACK */
  ack = 0;
  flags = 0;
  /** SEG.WND, not scaled. */
  wnd = 0;
  /** Length of the payload without SYN and FIN. */
  dataLen = 0;
  /** SEG.LEN: payload, SYN and FIN (RFC 9293 §3.3.1). */
  len = 0;
  /** Slab offset of the payload. */
  data = 0;
  /** MSS option, or 0. */
  mss = 0;
  /** Window scale option, or -1. */
  windowShift = -1;
  sackPermitted = false;
  hasTimestamps = false;
  tsVal = 0;
  tsEcr = 0;
  /** Number of SACK blocks, 0..4, and their edges (RFC 2018 §3). */
  sackBlocks = 0;
  readonly sackLeft: Int32Array = new Int32Array(4);
  readonly sackRight: Int32Array = new Int32Array(4);
}

/** Parses a TCP header with its options at bytes [start, end) of `memory` into `seg`. */
export function parseTcp(memory: Memory, start: number, end: number, seg: TcpSegment): Drop {
  const { view } = memory;
  if (end - start < TCP_HEADER_LEN) return Drop.tcpTruncated;
  const headerLen = (view.getUint8(start + DATA_OFFSET) >>> 4) << 2;
  if (headerLen < TCP_HEADER_LEN || start + headerLen > end) return Drop.tcpDataOffset;
  seg.sourcePort = view.getUint16(start + SOURCE_PORT);
  seg.destinationPort = view.getUint16(start + DESTINATION_PORT);
  seg.seq = view.getInt32(start + SEQ);
  seg.ack = view.getInt32(start + ACK);
  const flags = view.getUint8(start + FLAGS);
  seg.flags = flags;
  seg.wnd = view.getUint16(start + WINDOW);
  seg.data = start + headerLen;
  seg.dataLen = end - seg.data;
  seg.len = seg.dataLen + (flags & FIN) + ((flags & SYN) >>> 1);
  seg.mss = 0;
  seg.windowShift = -1;
  seg.sackPermitted = false;
  seg.hasTimestamps = false;
  seg.sackBlocks = 0;
  if (headerLen === TIMESTAMPS_HEADER_LEN && view.getInt32(start + TCP_HEADER_LEN) === TIMESTAMPS_WORD) {
    seg.hasTimestamps = true;
    seg.tsVal = view.getInt32(start + TCP_HEADER_LEN + 4);
    seg.tsEcr = view.getInt32(start + TCP_HEADER_LEN + 8);
  } else if (headerLen > TCP_HEADER_LEN) {
    parseOptions(view, start + TCP_HEADER_LEN, seg.data, seg);
  }
  return Drop.none;
}

/** RFC 9293 §3.1, MUST-6 and MUST-7: unknown options are skipped, an illegal length ends the walk. */
function parseOptions(view: DataView, start: number, end: number, seg: TcpSegment): void {
  let at = start;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === OPTION_END) return;
    if (kind === OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 1 >= end) return;
    const length = view.getUint8(at + 1);
    if (length < 2 || at + length > end) return;
    switch (kind) {
      case OPTION_MSS:
        if (length === 4 && (seg.flags & SYN) !== 0) seg.mss = view.getUint16(at + 2);
        break;
      case OPTION_WINDOW_SCALE:
        if (length === 3 && (seg.flags & SYN) !== 0) {
          seg.windowShift = Math.min(MAX_WINDOW_SHIFT, view.getUint8(at + 2));
        }
        break;
      case OPTION_SACK_PERMITTED:
        if (length === 2 && (seg.flags & SYN) !== 0) seg.sackPermitted = true;
        break;
      case OPTION_SACK:
        if ((length - 2) % 8 === 0) parseSackBlocks(view, at + 2, (length - 2) >>> 3, seg);
        break;
      case OPTION_TIMESTAMPS:
        if (length === 10) {
          seg.hasTimestamps = true;
          seg.tsVal = view.getInt32(at + 2);
          seg.tsEcr = view.getInt32(at + 6);
        }
        break;
      default:
        break;
    }
    at += length;
  }
}

function parseSackBlocks(view: DataView, start: number, count: number, seg: TcpSegment): void {
  const blocks = Math.min(4, count);
  for (let i = 0; i < blocks; i++) {
    seg.sackLeft[i] = view.getInt32(start + 8 * i);
    seg.sackRight[i] = view.getInt32(start + 8 * i + 4);
  }
  seg.sackBlocks = blocks;
}

/**
 * Writes a TCP header at `at`; checksum and urgent pointer are zero, options are the caller's (see the `emit...Option`
 * functions).
 * @param headerLen 20 plus options, a multiple of 4
 * @param wnd the window field, already shifted
 */
export function emitTcp(
  memory: Memory,
  at: number,
  sourcePort: number,
  destinationPort: number,
  seq: number,
  ack: number,
  flags: number,
  wnd: number,
  headerLen: number,
): void {
  const { view } = memory;
  view.setUint16(at + SOURCE_PORT, sourcePort);
  view.setUint16(at + DESTINATION_PORT, destinationPort);
  view.setInt32(at + SEQ, seq);
  view.setInt32(at + ACK, ack);
  view.setUint8(at + DATA_OFFSET, headerLen << 2);
  view.setUint8(at + FLAGS, flags);
  view.setUint16(at + WINDOW, wnd);
  view.setUint16(at + TCP_CHECKSUM, 0);
  view.setUint16(at + URGENT, 0);
}

/** Writes an MSS option, 4 bytes; returns the offset behind it. */
export function emitMssOption(memory: Memory, at: number, mss: number): number {
  memory.view.setInt32(at, (OPTION_MSS << 24) | (4 << 16) | mss);
  return at + 4;
}

/** Writes a NOP and a window scale option, 4 bytes. */
export function emitWindowScaleOption(memory: Memory, at: number, shift: number): number {
  memory.view.setInt32(at, (OPTION_NOP << 24) | (OPTION_WINDOW_SCALE << 16) | (3 << 8) | shift);
  return at + 4;
}

/** Writes two NOPs and SACK-permitted, 4 bytes. */
export function emitSackPermittedOption(memory: Memory, at: number): number {
  memory.view.setInt32(at, (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK_PERMITTED << 8) | 2);
  return at + 4;
}

/** Writes two NOPs and the timestamps option, 12 bytes. */
export function emitTimestampsOption(memory: Memory, at: number, tsVal: number, tsEcr: number): number {
  const { view } = memory;
  view.setInt32(at, TIMESTAMPS_WORD);
  view.setInt32(at + 4, tsVal);
  view.setInt32(at + 8, tsEcr);
  return at + 12;
}

/** Writes two NOPs and the head of a SACK option for `blocks` blocks, 4 bytes; the edges follow. */
export function emitSackOption(memory: Memory, at: number, blocks: number): number {
  memory.view.setInt32(at, (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK << 8) | (2 + 8 * blocks));
  return at + 4;
}
