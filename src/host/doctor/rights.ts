/** What this process may do in its network namespace: the kernel is asked, with requests that change nothing. */
import { Errno, errnoName } from "../../io/addon.ts";
import { HostError } from "../errors.ts";
import { setLink } from "../interface.ts";
import { tryUdpSocket } from "../udp-trial.ts";
import { CAP_NET_ADMIN, hasCapability } from "./capabilities.ts";
import type { Examination } from "./examination.ts";
import { ok, problem, unknown, type Verdict, warning } from "./finding.ts";

/** linux/udp.h: SOL_UDP is the protocol's number. */
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
/** A mark of no meaning. */
const ANY_MARK = 1;

/** `rights`: CAP_NET_ADMIN over this network namespace. */
export function lookAtRights(examination: Examination): Verdict {
  const { addon, machine } = examination;
  const has = hasCapability(machine.readText("/proc/self/status"), "CapEff", CAP_NET_ADMIN);
  if (addon === null) {
    // Without the addon the kernel cannot be asked; a process without the capability has no rights in any case.
    if (has === false) return problem("right", `User ${machine.euid} has no CAP_NET_ADMIN`, remedyFor(examination));
    return unknown("The kernel cannot be asked without the addon", "follow the remedy of addon, then look again");
  }
  try {
    // A change of nothing: refused to those who may not change anything.
    setLink(addon, "lo", {});
    return ok(`user ${machine.euid} may make interfaces and routes here (CAP_NET_ADMIN)`);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (error.code !== "HOST_PERMISSION") {
      return problem(
        "system",
        `The kernel does not answer about interfaces: ${error.message}`,
        "allow netlink sockets",
      );
    }
    const cause =
      has === true
        ? "CAP_NET_ADMIN is held in another user namespace than the one that owns this network namespace (EPERM)"
        : `User ${machine.euid} has no CAP_NET_ADMIN (EPERM)`;
    const remedy =
      has === true ? `make both at once (unshare --user --net), or ${remedyFor(examination)}` : remedyFor(examination);
    return problem("right", cause, remedy);
  }
}

function remedyFor({ machine, container }: Examination): string {
  if (container !== null && container !== "wsl") {
    return `${machine.euid === 0 ? "start the container" : "run as root in the container, started"} with --cap-add NET_ADMIN`;
  }
  return machine.euid === 0 ? "run without dropping the capability (capsh --print shows it)" : "run as root (sudo)";
}

/** `socket-options`: whether `--fwmark` and `--interface` can be used. */
export function lookAtSocketOptions({ addon, container }: Examination): Verdict {
  if (addon === null)
    return unknown("It cannot be tried without the addon", "follow the remedy of addon, then look again");
  const mark = tryUdpSocket(addon, { mark: ANY_MARK });
  const bind = tryUdpSocket(addon, { oif: "lo" });
  const refused = [
    ...(mark < 0 ? [{ option: "--fwmark", errno: mark, capability: "NET_ADMIN" }] : []),
    ...(bind < 0 ? [{ option: "--interface", errno: bind, capability: "NET_RAW" }] : []),
  ];
  if (refused.length === 0) return ok("--fwmark and --interface can be used");
  const options = refused.map(({ option, errno }) => `${option} (${errnoName(errno)})`).join(" and ");
  const add = refused.map(({ capability }) => `--cap-add ${capability}`).join(" ");
  return warning(
    `The kernel refuses ${options}`,
    container === null ? "run as root, or without" : `run as root in the container, started with ${add}`,
  );
}

/** `sockets`: what the UDP relay does with the kernel's help. */
export function lookAtSockets({ addon }: Examination): Verdict {
  if (addon === null)
    return unknown("It cannot be tried without the addon", "follow the remedy of addon, then look again");
  const plain = tryUdpSocket(addon, {});
  if (plain < 0) {
    return problem(
      plain === -Errno.EACCES || plain === -Errno.EPERM ? "right" : "system",
      `A UDP socket cannot be opened (${errnoName(plain)})`,
      "allow sockets in the seccomp profile, or raise the limit of open files",
    );
  }
  const lacks = [["UDP_SEGMENT", UDP_SEGMENT, 1400] as const, ["UDP_GRO", UDP_GRO, 1] as const].filter(
    ([, option, value]) => tryUdpSocket(addon, { look: (fd) => addon.setOption(fd, SOL_UDP, option, value) }) < 0,
  );
  if (lacks.length === 0) return ok("UDP sockets take many datagrams at once (GSO, GRO)");
  const names = lacks.map(([name]) => name).join(" and ");
  return warning(`The kernel has no ${names}; UDP costs more`, "use Linux 5.0 or later");
}
