/** Whether upstream sockets may have the mark and interface that were asked for: tried once on a socket of no use. */
import { type Addon, Errno, errnoName } from "../io/addon.ts";
import { CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";

/** Words of `udpOpen`'s descriptor that differ from 0 here, and where the interface's name follows, bytes. */
const FAMILY = 0;
const MARK = 7;
const NAME_OFFSET = 8;
const TOKEN = 9;
const NAME_AT = 64;

/** What upstream sockets will have. */
export interface SocketWishes {
  /** SO_MARK; 0 for none. */
  readonly mark: number;
  /** Interface to bind to, which exists, or null. */
  readonly oif: string | null;
}

/**
 * Tries both.
 * @throws CliError exit code 77 when the right is missing, 71 when the kernel does not do it
 */
export function checkSocketRights(addon: Addon, { mark, oif }: SocketWishes): void {
  if (mark !== 0) {
    const option = `--fwmark ${mark}`;
    complain(option, tryOpen(addon, mark, ""), "marking packets needs CAP_NET_ADMIN", "NET_ADMIN");
  }
  if (oif !== null) {
    const option = `--interface ${oif}`;
    complain(option, tryOpen(addon, 0, oif), "binding to an interface needs CAP_NET_RAW here", "NET_RAW");
  }
}

/** @returns 0, or `-errno` */
function tryOpen(addon: Addon, mark: number, name: string): number {
  const memory = new ArrayBuffer(128);
  const words = new Int32Array(memory);
  words[FAMILY] = 4;
  words[MARK] = mark;
  words[NAME_OFFSET] = name === "" ? -1 : NAME_AT;
  words[TOKEN] = -1;
  new TextEncoder().encodeInto(name, new Uint8Array(memory, NAME_AT, 15));
  const slab = addon.registerSlab(memory);
  if (slab < 0) return slab;
  const socket = addon.udpOpen(slab, 0);
  addon.unregisterSlab(slab);
  return socket < 0 ? socket : addon.close(socket);
}

function complain(option: string, result: number, need: string, capability: string): void {
  if (result >= 0) return;
  const name = errnoName(result);
  if (result !== -Errno.EPERM && result !== -Errno.EACCES) {
    throw new CliError(ExitCode.system, `${option}: the kernel refused it on a socket (${name}); leave it out`);
  }
  const remedy = `run as root or give the container --cap-add ${capability}`;
  throw new CliError(ExitCode.permission, `${option}: ${need} (${name}); ${remedy}`);
}
