/** Whether a TUN device and namespaces of our own can be had here, and how. */
import { closeSync, openSync } from "node:fs";
import { thisMachine } from "../../host/doctor/machine.ts";
import { findNamespace } from "../../host/doctor/namespace.ts";
import { isAddonProblem, loadAddon } from "../../io/addon.ts";

const TUN_NODE = "/dev/net/tun";

/** How to start a process in a network namespace of its own, or why that is not possible. */
export type NamespacePlan = { readonly command: readonly string[] } | { readonly problem: string };

/** Tries what the demo needs. A problem is one line: what is missing, and what helps. */
export function planNamespace(): NamespacePlan {
  const addon = loadAddon();
  if (isAddonProblem(addon)) return { problem: addon.problem };
  const nodeProblem = tryTunNode();
  if (nodeProblem !== null) return { problem: nodeProblem };
  const way = findNamespace(thisMachine());
  if (way.command !== null) return { command: way.command };
  return { problem: `No network namespace can be made: ${way.cause}; ${way.remedy}` };
}

function tryTunNode(): string | null {
  try {
    closeSync(openSync(TUN_NODE, "r+"));
    return null;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    switch (code) {
      case "ENOENT":
        return `No TUN device can be had: ${TUN_NODE} does not exist; load the module (modprobe tun), or give the container --device ${TUN_NODE}`;
      case "ENODEV":
      case "ENXIO":
        return `No TUN device can be had: the kernel has no TUN driver behind ${TUN_NODE} (${code}); load the module (modprobe tun)`;
      case "EACCES":
      case "EPERM":
        return `No TUN device can be had: this user may not open ${TUN_NODE} (${code}); run as root, or chmod 666 ${TUN_NODE}`;
      default:
        return `No TUN device can be had: ${TUN_NODE} cannot be opened (${code})`;
    }
  }
}
