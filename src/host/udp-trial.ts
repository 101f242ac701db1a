/** Opens a UDP socket of no use to see what the kernel allows and can do. */
import type { Addon } from "../io/addon.ts";

/** Words of `udpOpen`'s descriptor that differ from 0 here, and where the interface's name follows, bytes. */
const FAMILY = 0;
const MARK = 7;
const NAME_OFFSET = 8;
const TOKEN = 9;
const NAME_AT = 64;

/** What the socket is to have. */
export interface UdpTrial {
  /** 4 when left out. */
  readonly family?: 4 | 6;
  /** SO_MARK; none when left out. */
  readonly mark?: number;
  /** Interface to bind to. */
  readonly oif?: string;
  /** Asks the open socket further. @returns 0, or `-errno` */
  readonly look?: (fd: number) => number;
}

/** Opens the socket and closes it. @returns 0, or `-errno` of the first step that failed */
export function tryUdpSocket(addon: Addon, { family = 4, mark = 0, oif = "", look }: UdpTrial): number {
  const memory = new ArrayBuffer(128);
  const words = new Int32Array(memory);
  words[FAMILY] = family;
  words[MARK] = mark;
  words[NAME_OFFSET] = oif === "" ? -1 : NAME_AT;
  words[TOKEN] = -1;
  new TextEncoder().encodeInto(oif, new Uint8Array(memory, NAME_AT, 15));
  const slab = addon.registerSlab(memory);
  if (slab < 0) return slab;
  const socket = addon.udpOpen(slab, 0);
  addon.unregisterSlab(slab);
  if (socket < 0) return socket;
  const found = look?.(socket) ?? 0;
  const closed = addon.close(socket);
  return found < 0 ? found : closed;
}
