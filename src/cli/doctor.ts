/** `tunrelay doctor`: what this machine lacks for `run`, and what helps. */
import { examine } from "../host/doctor/checks.ts";
import type { Finding } from "../host/doctor/finding.ts";
import { thisMachine } from "../host/doctor/machine.ts";
import { ExitCode } from "./exit-codes.ts";
import { safeText } from "./log-text.ts";
import { print } from "./print.ts";
import { DEFAULT_MAX_MEMORY, type DoctorFlags } from "./program.ts";
import { DEFAULT_MAX_FLOWS, SPARE_DESCRIPTORS } from "./run-options.ts";
import { parseSize } from "./values.ts";
import { readVersion } from "./version.ts";

/** Looks, prints, and returns the exit code. */
export function doctor(flags: DoctorFlags): ExitCode {
  const findings = examine(thisMachine(), {
    flows: DEFAULT_MAX_FLOWS,
    spareDescriptors: SPARE_DESCRIPTORS,
    memoryBytes: parseSize("--max-memory", DEFAULT_MAX_MEMORY, 1, Number.MAX_SAFE_INTEGER),
  });
  print(flags.json === true ? formatJson(findings) : formatTable(findings));
  return exitCodeFor(findings);
}

/** 0 without a problem, 77 when only rights are missing, 71 otherwise. */
export function exitCodeFor(findings: readonly Finding[]): ExitCode {
  const problems = findings.filter(({ state }) => state === "problem");
  if (problems.length === 0) return ExitCode.ok;
  return problems.every(({ lacks }) => lacks === "right") ? ExitCode.permission : ExitCode.system;
}

/** The findings for programs; docs/cli.md describes it. */
export function formatJson(findings: readonly Finding[]): string {
  const rows = findings.map(({ name, state, detail, cause, remedy }) => ({
    name,
    state,
    detail: safe(detail),
    cause: safe(cause),
    remedy: safe(remedy),
  }));
  const ok = exitCodeFor(findings) === ExitCode.ok;
  return `${JSON.stringify({ ok, version: readVersion(), findings: rows }, null, 2)}\n`;
}

/** The findings for people: a line each, with the remedy on a line of its own, and the sum. */
export function formatTable(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const stateWidth = "problem".length;
  const lines = findings.flatMap(({ name, state, detail, cause, remedy }) => {
    const start = `${state.padEnd(stateWidth)}  ${name.padEnd(width)}  `;
    if (cause === null) return [`${start}${safe(detail)}`];
    return [`${start}${safe(cause)}`, `${" ".repeat(start.length)}remedy: ${safe(remedy)}`];
  });
  return `${[...lines, "", summaryOf(findings)].join("\n")}\n`;
}

function summaryOf(findings: readonly Finding[]): string {
  const count = (state: Finding["state"]): number => findings.filter((finding) => finding.state === state).length;
  const parts = [
    ...numbered(count("problem"), "problem"),
    ...numbered(count("warning"), "warning"),
    ...(count("unknown") === 0 ? [] : [`${count("unknown")} not tried`]),
  ];
  if (count("problem") > 0) return `${parts.join(", ")}: "tunrelay run" cannot work here`;
  return parts.length === 0 ? "All is there" : `${parts.join(", ")}: "tunrelay run" works here`;
}

function numbered(count: number, word: string): string[] {
  if (count === 0) return [];
  return [`${count} ${word}${count === 1 ? "" : "s"}`];
}

/** Paths and what tools say may have anything in them. */
function safe(text: string | null): string | null {
  return text === null ? null : safeText(text);
}
