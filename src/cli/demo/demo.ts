/** `tunrelay demo`: real programs, a real TUN device, the stack and a proxy, all in namespaces of its own. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { LogOptions } from "../log.ts";
import { parseLogOptions } from "../values.ts";
import { planNamespace } from "./requirements.ts";

/** Options of {@link runDemo}. */
export interface DemoOptions {
  /** Least severe messages of the relay to show on standard error; `warn` when left out. */
  readonly loglevel?: string;
  /** How they are written, `human` or `json`; `human` when left out. */
  readonly logFormat?: string;
  /** Print the rows as JSON instead of a table. */
  readonly json?: boolean;
}

/** What the process in the namespace gets as its only argument, in JSON. */
export interface StageOptions {
  readonly log: LogOptions;
  readonly json: boolean;
  /** For files of the clients; removed at the end. */
  readonly directory: string;
}

/** Signals that end the demo early. */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Runs the demo in a process of its own inside a fresh network namespace and waits for it. Everything it makes goes
 * away with that process, also on a signal.
 * @returns the exit code: 0 all rows are ok, 1 something differs or no TUN device can be had, 128+n ended by signal n
 */
export async function runDemo(options: DemoOptions = {}): Promise<number> {
  const log = parseLogOptions({ loglevel: options.loglevel ?? "warn", logFormat: options.logFormat ?? "human" });
  const plan = planNamespace();
  if ("problem" in plan) {
    process.stderr.write(`tunrelay demo: ${plan.problem}\n`);
    return 1;
  }
  const directory = mkdtempSync(join(tmpdir(), "tunrelay-demo-"));
  const stageOptions: StageOptions = {
    log,
    json: options.json ?? false,
    directory,
  };
  const stage = fileURLToPath(new URL("./stage.js", import.meta.url));
  const [command = "unshare", ...args] = plan.command;
  const child = spawn(command, [...args, process.execPath, stage, JSON.stringify(stageOptions)], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  // Ctrl-C reaches the child by itself; a second copy does no harm. It cleans up, so that we only wait.
  const onSignal = (signal: NodeJS.Signals): void => void child.kill(signal);
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    return await new Promise<number>((resolve, reject) => {
      child.on("error", reject);
      child.on("exit", (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
    });
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
    rmSync(directory, { recursive: true, force: true });
  }
}
