/** The device node of TUN devices, and the driver behind it. */
import type { Examination } from "./examination.ts";
import { ok, problem, unknown, type Verdict } from "./finding.ts";
import type { Machine } from "./machine.ts";

export const TUN_NODE = "/dev/net/tun";
/** Documentation/admin-guide/devices.txt of Linux. */
const TUN_MAJOR = 10;
const TUN_MINOR = 200;

/** `device-node`: there, of the right kind, and open to us. */
export function lookAtDeviceNode({ machine, container }: Examination): Verdict {
  const kind = machine.kindOf(TUN_NODE);
  const give =
    container === null
      ? 'load the module with "modprobe tun"'
      : `give the container --device ${TUN_NODE}, and on its host "modprobe tun"`;
  if (typeof kind === "string") {
    if (kind === "ENOENT" || kind === "ENOTDIR") return problem("system", `${TUN_NODE} does not exist`, give);
    return problem("right", `${TUN_NODE} cannot be looked at (${kind})`, "make /dev/net accessible, or run as root");
  }
  if (!kind.isCharacterDevice || kind.major !== TUN_MAJOR || kind.minor !== TUN_MINOR) {
    const found = kind.isCharacterDevice ? `character device ${kind.major}:${kind.minor}` : "no character device";
    return problem(
      "system",
      `${TUN_NODE} is ${found}, not ${TUN_MAJOR}:${TUN_MINOR}`,
      `remove it and make it anew: mknod ${TUN_NODE} c ${TUN_MAJOR} ${TUN_MINOR}`,
    );
  }
  const error = machine.tryOpen(TUN_NODE);
  switch (error) {
    case null:
      return ok(`${TUN_NODE} is open to this user (mode ${kind.mode.toString(8)})`);
    case "ENODEV":
    case "ENXIO":
      return problem("system", `The kernel has no TUN driver behind ${TUN_NODE} (${error})`, give);
    case "EACCES":
      if (machine.euid !== 0) {
        const cause = `This user may not open ${TUN_NODE} (EACCES, mode ${kind.mode.toString(8)})`;
        return problem("right", cause, `run as root, or "chmod 666 ${TUN_NODE}" as root`);
      }
      return problem(
        "right",
        `${TUN_NODE} is closed to root (EACCES, mode ${kind.mode.toString(8)}): its file system has no devices (nodev), or this is root of a user namespace only`,
        `mount the file system with dev, "chmod 666 ${TUN_NODE}" as root of the machine, or give the container --device ${TUN_NODE}`,
      );
    case "EPERM":
      return problem(
        "right",
        `${TUN_NODE} is there, but the control group or a security module forbids it (EPERM)`,
        `give the container --device ${TUN_NODE}; for a systemd service DeviceAllow=${TUN_NODE} rw`,
      );
    default:
      return problem("system", `${TUN_NODE} cannot be opened (${error})`, give);
  }
}

/** `module`: asked after `device-node`, whose opening loads the module where that can be done. */
export function lookAtModule(examination: Examination): Verdict {
  const { machine, container } = examination;
  const devices = machine.readText("/proc/misc");
  const isRegistered = devices !== null && new RegExp(`^\\s*${TUN_MINOR} tun$`, "m").test(devices);
  if (isRegistered) return ok("the kernel has its TUN driver");
  if (examination.isFine("device-node")) return ok(`the kernel has its TUN driver: ${TUN_NODE} opens`);
  if (devices === null) {
    return unknown("Whether the kernel has a TUN driver is not known: /proc/misc cannot be read", "mount /proc");
  }
  const where = container === null ? "" : " on the container's host";
  const load = `"modprobe tun"${where}; to have it at every start, write tun into /etc/modules-load.d/tun.conf`;
  if (hasModuleFile(machine)) return problem("system", "The module tun is there and not loaded", load);
  return problem(
    "system",
    "The kernel has no TUN driver loaded",
    `${load}; where the module is missing, install the kernel's extra modules (CONFIG_TUN)`,
  );
}

function hasModuleFile(machine: Machine): boolean {
  const list = machine.readText(`/lib/modules/${machine.kernelRelease}/modules.dep`) ?? "";
  return /(^|\/)tun\.ko/m.test(list);
}
