/** Whether a network namespace can be made here, how, and what stands in the way. */

import type { Examination } from "./examination.ts";
import { ok, type Verdict, warning } from "./finding.ts";
import type { CommandResult, Machine } from "./machine.ts";

/** Words that run a command in a network namespace of its own, or why there are none. */
export type NamespaceWay =
  | { readonly command: readonly string[] /** Through a user namespace. */; readonly asUser: boolean }
  | { readonly command: null; readonly cause: string; readonly remedy: string };

/** What is asked of a machine here. */
type Asked = Pick<Machine, "euid" | "readText" | "run">;

/** Arguments of `unshare` for root, and for everybody with user namespaces. */
const AS_ROOT = ["--net"];
const AS_USER = ["--user", "--map-root-user", "--net"];

/** Makes one in the best way there is; nothing happens in it. */
export function findNamespace(machine: Asked): NamespaceWay {
  if (machine.euid !== 0) return tryNamespace(machine, true);
  const asRoot = tryNamespace(machine, false);
  if (asRoot.command !== null) return asRoot;
  const asUser = tryNamespace(machine, true);
  return asUser.command === null ? asRoot : asUser;
}

/** Makes one, in one way. */
export function tryNamespace(machine: Asked, asUser: boolean): NamespaceWay {
  const words = asUser ? AS_USER : AS_ROOT;
  const result = machine.run("unshare", [...words, "--", "true"]);
  return result.status === 0 ? { command: ["unshare", ...words, "--"], asUser } : explain(result, machine);
}

function explain({ status, stderr, error }: CommandResult, machine: Asked): NamespaceWay {
  if (error !== null) {
    return { command: null, cause: `unshare cannot be started (${error})`, remedy: "install util-linux" };
  }
  const said = stderr.trim().split("\n").at(-1) ?? "";
  const cause = said === "" ? `unshare ended with ${status}` : said;
  return { command: null, cause, remedy: remedyFor(said, machine) };
}

function remedyFor(said: string, { euid, readText }: Asked): string {
  const sysctl = (name: string): string | undefined => readText(`/proc/sys/${name.replaceAll(".", "/")}`)?.trim();
  if (said.includes("No space left")) {
    return "raise the sysctls user.max_user_namespaces and user.max_net_namespaces, or run as root";
  }
  if (sysctl("kernel.unprivileged_userns_clone") === "0" && euid !== 0) {
    return "set the sysctl kernel.unprivileged_userns_clone to 1, or run as root";
  }
  if (said.includes("uid_map") || sysctl("kernel.apparmor_restrict_unprivileged_userns") === "1") {
    return "the kernel confines user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns); run as root";
  }
  if (said.includes("not permitted")) {
    return "run as root; in a container give it --cap-add SYS_ADMIN --cap-add NET_ADMIN and a seccomp profile that allows unshare";
  }
  return "run as root";
}

/** `namespaces`: what `demo` needs, and what helps without root. */
export function lookAtNamespaces({ namespace }: Examination): Verdict {
  if (namespace.command === null) {
    return warning(
      `No network namespace can be made, so "tunrelay demo" does not work: ${namespace.cause}`,
      namespace.remedy,
    );
  }
  return ok(`a network namespace can be made ${namespace.asUser ? "through a user namespace" : "by this user"}`);
}
