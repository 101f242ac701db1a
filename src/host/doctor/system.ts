/** What the program itself stands on: Node.js, the kernel, memory, open files, the addon. */
import { ADDON_ABI, errnoName, isAddonProblem } from "../../io/addon.ts";
import type { Examination } from "./examination.ts";
import { ok, problem, type Verdict, warning } from "./finding.ts";

/** Oldest Node.js, as in package.json. */
const MIN_NODE = [20, 19] as const;
/** Linux 4.18 has all that is used without a fallback, and the prebuilt Node.js needs it anyway. */
const MIN_KERNEL = [4, 18] as const;
/** What Node.js itself takes, beside the memory for packets, bytes. */
const OWN_MEMORY = 64 << 20;
const MIB = 1 << 20;

/** Whether a version such as `6.1.0-18-amd64` is at least `least`. */
export function isAtLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [, first = "0", second = "0"] = /^(\d+)(?:\.(\d+))?/.exec(version) ?? [];
  return Number(first) > major || (Number(first) === major && Number(second) >= minor);
}

/** `node` */
export function lookAtNode({ machine: { nodeVersion, arch } }: Examination): Verdict {
  const least = MIN_NODE.join(".");
  if (isAtLeast(nodeVersion, MIN_NODE)) return ok(`${nodeVersion} on ${arch}, ${least} or later is needed`);
  return problem(
    "system",
    `Node.js ${nodeVersion} is too old, ${least} is needed`,
    `install Node.js ${least} or later`,
  );
}

/** `kernel` */
export function lookAtKernel({ machine: { platform, kernelRelease } }: Examination): Verdict {
  if (platform !== "linux") {
    return problem("system", `TUN devices are made on Linux only, this is ${platform}`, "run on Linux");
  }
  const least = MIN_KERNEL.join(".");
  if (isAtLeast(kernelRelease, MIN_KERNEL)) return ok(`Linux ${kernelRelease}, ${least} or later is needed`);
  return problem("system", `Linux ${kernelRelease} is too old, ${least} is needed`, "upgrade the kernel");
}

/** `memory` */
export function lookAtMemory({ machine: { memoryLimit }, needs }: Examination): Verdict {
  // Without a limit it is 0, or a number beyond every machine.
  if (memoryLimit <= 0 || memoryLimit > Number.MAX_SAFE_INTEGER) return ok("no limit");
  const wanted = needs.memoryBytes + OWN_MEMORY;
  const mib = `${Math.floor(memoryLimit / MIB)} MiB`;
  if (memoryLimit >= wanted) return ok(`${mib} at most, ${wanted / MIB} are enough`);
  const rest = Math.floor((memoryLimit - OWN_MEMORY) / MIB);
  return warning(
    `The control group allows ${mib} of memory, and up to ${wanted / MIB} may be used`,
    rest >= 8 ? `raise the limit, or run with --max-memory ${rest}M` : "raise the limit of the container or service",
  );
}

/** With fewer than these the program has not enough to load itself. */
const FEWEST_FLOWS = 24;

/** `descriptors` */
export function lookAtDescriptors({ machine, needs }: Examination): Verdict {
  const found = machine.descriptors();
  if (found === null) return warning("The limit of open files cannot be read (/proc)", "mount /proc");
  const { limit, open } = found;
  // proc(5): allocated, unused, and the most that all processes together may have.
  const [allocated = 0, , most = Number.POSITIVE_INFINITY] = (machine.readText("/proc/sys/fs/file-nr") ?? "")
    .split(/\s+/)
    .filter((word) => word !== "")
    .map(Number);
  const own = limit - open - needs.spareDescriptors;
  const flows = Math.min(own, most - allocated - needs.spareDescriptors);
  if (flows >= needs.flows) return ok(`${limit} open files, enough for ${needs.flows} connections at a time`);
  const cause =
    own <= flows
      ? `The limit of open files is ${limit}`
      : `The machine has ${allocated} of at most ${most} files open (sysctl fs.file-max)`;
  const remedy =
    own <= flows ? "raise it (ulimit -Hn, LimitNOFILE= of the service, --ulimit nofile of the container)" : "raise it";
  if (flows < FEWEST_FLOWS) return problem("system", `${cause}: that is too few for run to start`, remedy);
  return warning(`${cause}: at most ${flows} connections at a time, not ${needs.flows}`, remedy);
}

/** `addon` */
export function lookAtAddon({ machine }: Examination): Verdict {
  const { addon } = machine;
  if (isAddonProblem(addon)) return problem("system", addon.cause, addon.remedy);
  // Inside the program nothing else has opened it yet.
  const opened = addon.pollerOpen(() => {});
  if (opened < 0) {
    return problem(
      "system",
      `The addon cannot open an epoll set (${errnoName(opened)})`,
      "raise the limit of open files, or allow epoll in the seccomp profile",
    );
  }
  addon.pollerClose();
  return ok(`interface ${ADDON_ABI} of ${machine.addonFile}`);
}
