/** Starts bin/tunrelay as a user would, in a clean environment, and network namespaces for it to work in. */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, readFileSync, readlinkSync } from "node:fs";
import { dirname, join } from "node:path";

const { TUNRELAY_TEST_PROGRAM: installed } = process.env;
/** The program: that of this tree, or an installed one that the environment names. */
export const SHIM: string = installed ?? join(process.cwd(), "bin/tunrelay");

/** Long enough for the slowest machine; only a hanging command meets it. */
const PATIENCE_MS = 60_000;

/** What a finished command left. */
export interface Outcome {
  /** Exit status, or null when a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface StartOptions {
  /** Words before the command, such as those of a namespace. */
  readonly prefix?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly command?: string;
}

/** A command that runs. */
export class Running {
  readonly child: ChildProcess;
  readonly outcome: Promise<Outcome>;
  #stdout = "";
  #stderr = "";
  #watchers: (() => void)[] = [];

  constructor(args: readonly string[], options: StartOptions = {}) {
    const words = [...(options.prefix ?? []), options.command ?? SHIM, ...args];
    this.child = spawn(words[0] ?? "", words.slice(1), {
      env: cleanEnv(options.env),
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#stdout += text;
      for (const check of this.#watchers) check();
    });
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
      for (const check of this.#watchers) check();
    });
    this.outcome = new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.child.kill("SIGKILL");
        reject(new Error(`${words.join(" ")} did not end: ${this.#stdout}${this.#stderr}`));
      }, PATIENCE_MS);
      this.child.on("error", reject);
      this.child.on("close", (status, signal) => {
        clearTimeout(timer);
        resolve({ status, signal, stdout: this.#stdout, stderr: this.#stderr });
      });
    });
    // Whoever asks for the outcome gets the error; until then it must not count as unhandled.
    this.outcome.catch(() => {});
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** Waits until the output (stdout and stderr together) matches; fails when the command ends before. */
  async printed(pattern: RegExp): Promise<RegExpExecArray> {
    const found = new Promise<RegExpExecArray>((resolve) => {
      const check = (): void => {
        const match = pattern.exec(this.#stdout + this.#stderr);
        if (match !== null) resolve(match);
      };
      this.#watchers.push(check);
      check();
    });
    const ended = this.outcome.then((outcome) => {
      const match = pattern.exec(outcome.stdout + outcome.stderr);
      if (match !== null) return match;
      throw new Error(`ended before it printed ${pattern}: ${JSON.stringify(outcome)}`);
    });
    return await Promise.race([found, ended]);
  }

  /** Sends a signal and waits for the end. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<Outcome> {
    this.child.kill(signal);
    return await this.outcome;
  }
}

/** Runs a command to its end. */
export function runCommand(args: readonly string[], options: StartOptions = {}): Promise<Outcome> {
  return new Running(args, options).outcome;
}

/** Only what a command needs, and this Node first: the test runner puts options for Node into ours. */
function cleanEnv(extra: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { PATH: `${dirname(process.execPath)}:${process.env["PATH"] ?? "/usr/bin:/bin"}`, HOME: "/", ...extra };
}

/** Runs as many at once as the machine has use for, in order. */
export async function eachOf<T>(rows: readonly T[], work: (row: T) => Promise<void>): Promise<void> {
  const queue = rows.values();
  const worker = async (): Promise<void> => {
    for (const row of queue) await work(row);
  };
  await Promise.all([worker(), worker(), worker()]);
}

/** Why TUN devices cannot be made here, or false: the option `skip` of a test. */
export function skipWithoutTun(): string | false {
  if (process.platform !== "linux") return "TUN devices need Linux";
  if (process.getuid?.() !== 0) return "namespaces and TUN devices need root here";
  try {
    accessSync("/dev/net/tun", constants.R_OK | constants.W_OK);
    accessSync(join(process.cwd(), "prebuilds", `linux-${process.arch}`, "tunrelay.node"));
  } catch (error) {
    return `no device node or no addon (${error instanceof Error ? error.message : error})`;
  }
  return false;
}

/** A network namespace that lasts until `close`. */
export class NetworkNamespace {
  readonly #holder: ChildProcess;

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }

  static async create(): Promise<NetworkNamespace> {
    // `cat` ends with us, whatever happens: its input closes.
    const holder = spawn("unshare", ["-n", "sh", "-c", "echo ready; exec cat"], { stdio: ["pipe", "pipe", "inherit"] });
    await new Promise((resolve, reject) => {
      holder.stdout?.once("data", resolve);
      holder.once("error", reject);
      holder.once("exit", () => reject(new Error("unshare -n failed")));
    });
    return new NetworkNamespace(holder);
  }

  /** A process in it. */
  get pid(): number {
    return this.#holder.pid ?? -1;
  }

  /** Words that run a command in it. */
  get prefix(): readonly string[] {
    return ["nsenter", `--net=/proc/${this.pid}/ns/net`, "--"];
  }

  /** Names of its interfaces. */
  async interfaces(): Promise<string[]> {
    const { stdout } = await runCommand(["/proc/net/dev"], { prefix: this.prefix, command: "cat" });
    return [...stdout.matchAll(/^\s*([^:\s]+):/gm)].map((match) => match[1] ?? "");
  }

  async run(command: string, ...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await runCommand(args, { prefix: this.prefix, command });
    if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.#holder.once("exit", resolve));
    this.#holder.stdin?.end();
    await gone;
  }
}

/** The command line of a process as `ps` shows it. */
export function commandLineOf(pid: number): string {
  return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
}

/** The program that a process runs. */
export function programOf(pid: number): string {
  return readlinkSync(`/proc/${pid}/exe`);
}
