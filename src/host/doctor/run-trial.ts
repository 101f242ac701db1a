/** Starts the process that tries a device, and reads what it found. */
import { fileURLToPath } from "node:url";
import { type DeviceTrial, failedTrial } from "./device-trial.ts";
import type { Machine } from "./machine.ts";

/**
 * Tries a device in a process of its own.
 * @param prefix words that run a command in a fresh network namespace, or null to try it in this one
 */
export function runTrial(machine: Pick<Machine, "run">, prefix: readonly string[] | null): DeviceTrial {
  const script = fileURLToPath(new URL("./trial-process.js", import.meta.url));
  const [command = process.execPath, ...args] = [...(prefix ?? []), process.execPath, script];
  const { status, stdout, stderr, error } = machine.run(command, [...args, prefix === null ? "here" : "apart"]);
  if (status !== 0) {
    const said = stderr.trim().split("\n").at(-1) ?? "";
    return failedTrial(`the trial ended with ${error ?? `status ${status}`}${said === "" ? "" : `: ${said}`}`);
  }
  return JSON.parse(stdout) as DeviceTrial;
}
