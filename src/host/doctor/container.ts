/** Whether this is a container, and whether it was given what it needs. */
import { CAP_NET_ADMIN, hasCapability } from "./capabilities.ts";
import type { Examination } from "./examination.ts";
import { ok, type Verdict, warning } from "./finding.ts";
import type { Machine } from "./machine.ts";

/** Files that mark a container for what is in it. */
const MARKS: readonly (readonly [path: string, name: string])[] = [
  ["/run/.containerenv", "podman"],
  ["/.dockerenv", "docker"],
];
/** Names in the path of a control group of process 1. */
const CGROUPS: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/kubepods/, "kubernetes"],
  [/libpod/, "podman"],
  [/docker/, "docker"],
  [/\/lxc|lxc\.payload/, "lxc"],
  [/cri-?containerd|\/containerd/, "containerd"],
];
/** The kind of container this runs in, or null. */
export function containerOf(machine: Machine): string | null {
  const { env } = machine;
  if (env["KUBERNETES_SERVICE_HOST"] !== undefined) return "kubernetes";
  // systemd-nspawn, podman and lxc say it to process 1, and systemd writes it down.
  const said = (env["container"] || machine.readText("/run/systemd/container") || "").trim();
  if (/^[\w-]+$/.test(said)) return said;
  const mark = MARKS.find(([path]) => machine.hasFile(path));
  if (mark !== undefined) return mark[1];
  const groups = machine.readText("/proc/1/cgroup") ?? "";
  const group = CGROUPS.find(([pattern]) => pattern.test(groups));
  if (group !== undefined) return group[1];
  return /microsoft/i.test(machine.kernelRelease) ? "wsl" : null;
}

/** `container`: asked after `device-node` and `rights`. */
export function lookAtContainer(examination: Examination): Verdict {
  const { container } = examination;
  if (container === null) return ok("none");
  // A virtual machine of its own kind: its user can do what is needed inside.
  if (container === "wsl") return ok("wsl");
  const missing = [
    ...(lacksNode(examination) ? [{ what: "the device node", flag: "--device /dev/net/tun" }] : []),
    ...(lacksRights(examination) ? [{ what: "CAP_NET_ADMIN", flag: "--cap-add NET_ADMIN" }] : []),
  ];
  if (missing.length === 0) return ok(`${container}, with device node and CAP_NET_ADMIN`);
  const things = missing.map(({ what }) => what).join(" and ");
  const flags = missing.map(({ flag }) => flag).join(" ");
  return warning(`This is a container (${container}), and it lacks ${things}`, `start it with ${flags}`);
}

/** That a user may not open it says nothing of the container; that root may not does. */
function lacksNode({ findings, machine }: Examination): boolean {
  const node = findings.get("device-node");
  return node?.lacks === "system" || (node?.lacks === "right" && machine.euid === 0);
}

/** The same for rights: what a user could have as root is in the bounding set. */
function lacksRights({ findings, machine }: Examination): boolean {
  if (machine.euid === 0 && findings.get("rights")?.state === "problem") return true;
  return hasCapability(machine.readText("/proc/self/status"), "CapBnd", CAP_NET_ADMIN) === false;
}
