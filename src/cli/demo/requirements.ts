/** Whether a TUN device and namespaces of our own can be had here, and how. */
import { spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { isAddonProblem, loadAddon } from "../../io/addon.ts";

const TUN_NODE = "/dev/net/tun";

/** How to start a process in a network namespace of its own, or why that is not possible. */
export type NamespacePlan = { readonly command: readonly string[] } | { readonly problem: string };

/** Arguments of `unshare` for root, and for everybody with user namespaces. */
const AS_ROOT = ["--net"];
const AS_USER = ["--user", "--map-root-user", "--net"];

/** Tries what the demo needs. A problem is one line: what is missing, and what helps. */
export function planNamespace(): NamespacePlan {
  const addon = loadAddon();
  if (isAddonProblem(addon)) return { problem: addon.problem };
  const nodeProblem = tryTunNode();
  if (nodeProblem !== null) return { problem: nodeProblem };
  const ways = process.geteuid?.() === 0 ? [AS_ROOT, AS_USER] : [AS_USER];
  let problem = "";
  for (const way of ways) {
    const failure = tryUnshare(way);
    if (failure === null) return { command: ["unshare", ...way, "--"] };
    problem ||= failure;
  }
  return { problem };
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

function tryUnshare(args: readonly string[]): string | null {
  const result = spawnSync("unshare", [...args, "--", "true"], {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C" },
  });
  if (result.error !== undefined) {
    return `No network namespace can be made: unshare cannot be started (${result.error.message}); install util-linux`;
  }
  if (result.status === 0) return null;
  const said = result.stderr.trim().split("\n").at(-1) ?? "";
  return `No network namespace can be made: ${said === "" ? `unshare ended with ${result.status}` : said}; ${remedyFor(said)}`;
}

function remedyFor(said: string): string {
  if (said.includes("No space left")) {
    return "raise the sysctls user.max_user_namespaces and user.max_net_namespaces, or run as root";
  }
  if (said.includes("uid_map")) {
    return "the kernel confines user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns); run as root";
  }
  if (said.includes("not permitted")) {
    return "run as root; in a container give it --cap-add SYS_ADMIN --cap-add NET_ADMIN and a seccomp profile that allows unshare";
  }
  return "run as root";
}
