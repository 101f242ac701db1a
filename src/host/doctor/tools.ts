/** Programs of the system. `run` itself needs none: it asks the kernel. */
import type { Examination } from "./examination.ts";
import { ok, type Verdict, warning } from "./finding.ts";

interface Tool {
  readonly command: string;
  /** What it is for. */
  readonly use: string;
  readonly package: string;
}

const TOOLS: readonly Tool[] = [
  { command: "unshare", use: "namespaces of demo and doctor", package: "util-linux" },
  { command: "ip", use: "rules and routes beyond --route", package: "iproute2" },
];

/** `tools`: whether each can be started. */
export function lookAtTools({ machine }: Examination): Verdict {
  const tried = TOOLS.map((tool) => ({ ...tool, error: machine.run(tool.command, ["-V"]).error }));
  const missing = tried.filter(({ error }) => error !== null);
  if (missing.length === 0) return ok(TOOLS.map(({ command }) => command).join(", "));
  const causes = missing.map(({ command, use, error }) => `${command} (${error}), for ${use}`);
  const isAbsent = missing.every(({ error }) => error === "ENOENT");
  const packages = missing.map((tool) => tool.package).join(" and ");
  return warning(
    `${missing.length === 1 ? "A tool" : "Tools"} cannot be started: ${causes.join("; ")}`,
    isAbsent
      ? `install ${packages}, or correct the PATH`
      : `make it executable for this user, or reinstall ${packages}`,
  );
}
