/** How failures of an upstream are told to clients (the table of docs/upstreams.md). */
import { Errno } from "../io/addon.ts";
import type { RejectReason } from "../stack/flow/flow.ts";
import { Refusal } from "./upstream.ts";

/** What a TCP client gets for each refusal. */
export const REJECT_REASONS: Readonly<Record<Refusal, RejectReason>> = {
  [Refusal.refused]: "rst",
  [Refusal.hostUnreachable]: "host-unreachable",
  [Refusal.netUnreachable]: "net-unreachable",
  [Refusal.prohibited]: "prohibited",
  [Refusal.failed]: "rst",
  [Refusal.proxyFault]: "rst",
};

/** What the errno of a `connect()` to the destination itself says. */
export function refusalOfErrno(errno: number): Refusal {
  switch (errno) {
    case Errno.ECONNREFUSED:
      return Refusal.refused;
    case Errno.EHOSTUNREACH:
    case Errno.ETIMEDOUT:
      return Refusal.hostUnreachable;
    case Errno.ENETUNREACH:
    case Errno.ENETDOWN:
    case Errno.EADDRNOTAVAIL:
      return Refusal.netUnreachable;
    case Errno.EACCES:
    case Errno.EPERM:
      return Refusal.prohibited;
    default:
      return Refusal.failed;
  }
}
