/** Whether upstream sockets may have the mark and interface that were asked for: tried once on a socket of no use. */
import { tryUdpSocket } from "../host/udp-trial.ts";
import { type Addon, Errno, errnoName } from "../io/addon.ts";
import { CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";

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
    complain(option, tryUdpSocket(addon, { mark }), "marking packets needs CAP_NET_ADMIN", "NET_ADMIN");
  }
  if (oif !== null) {
    const option = `--interface ${oif}`;
    complain(option, tryUdpSocket(addon, { oif }), "binding to an interface needs CAP_NET_RAW here", "NET_RAW");
  }
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
