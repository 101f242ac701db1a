/** What the checks ask the machine. Tests put a made-up one in its place. */
import { spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { release } from "node:os";
import { type Addon, type AddonProblem, addonFile, loadAddon } from "../../io/addon.ts";
import { type Descriptors, readDescriptors } from "../descriptors.ts";

/** A command that takes longer hangs, ms. */
const COMMAND_MS = 20_000;

/** What a command did. */
export interface CommandResult {
  /** Exit status; null when it was not started or a signal ended it. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Why it did not start or end in time, such as `ENOENT`, or null. */
  readonly error: string | null;
}

/** What kind of file a path is. */
export interface FileKind {
  readonly isCharacterDevice: boolean;
  readonly major: number;
  readonly minor: number;
  /** Permission bits. */
  readonly mode: number;
}

export interface Machine {
  readonly platform: string;
  readonly arch: string;
  /** Without the leading `v`. */
  readonly nodeVersion: string;
  /** Such as `6.1.0-18-amd64`. */
  readonly kernelRelease: string;
  /** Effective user; -1 where there are none. */
  readonly euid: number;
  readonly addon: Addon | AddonProblem;
  readonly addonFile: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What the process may use at most, by its control group, bytes; 0 or a huge number when there is no limit. */
  readonly memoryLimit: number;
  /** The content of a file, or null when it cannot be read. */
  readText(path: string): string | null;
  hasFile(path: string): boolean;
  /** The kind of a file, or the name of the error, such as `ENOENT`. */
  kindOf(path: string): FileKind | string;
  /** Opens a file for reading and writing and closes it. @returns null, or the name of the error */
  tryOpen(path: string): string | null;
  /** Runs a command to its end; after some time it is killed. */
  run(command: string, args: readonly string[]): CommandResult;
  descriptors(): Descriptors | null;
}

/** The machine this runs on. */
export function thisMachine(): Machine {
  return {
    platform: process.platform,
    arch: process.arch,
    nodeVersion: process.versions.node,
    kernelRelease: release(),
    euid: process.geteuid?.() ?? -1,
    addon: loadAddon(),
    addonFile: addonFile(),
    env: process.env,
    memoryLimit: process.constrainedMemory(),
    readText,
    hasFile: (path) => typeof kindOf(path) !== "string",
    kindOf,
    tryOpen,
    run,
    descriptors: readDescriptors,
  };
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // Not there, or not for us: the checks know what that means.
    return null;
  }
}

function kindOf(path: string): FileKind | string {
  try {
    const { rdev, mode } = statSync(path);
    // linux/kdev_t.h as glibc shows it: 12 bits of major above 8 of minor, and the high ones of the minor above both.
    const major = (rdev >>> 8) & 0xfff;
    const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
    return { isCharacterDevice: (mode & 0o170000) === 0o020000, major, minor, mode: mode & 0o777 };
  } catch (error) {
    return codeOf(error);
  }
}

function tryOpen(path: string): string | null {
  try {
    closeSync(openSync(path, "r+"));
    return null;
  } catch (error) {
    return codeOf(error);
  }
}

function run(command: string, args: readonly string[]): CommandResult {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C" },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: COMMAND_MS,
    killSignal: "SIGKILL",
  });
  // Node gives null in place of the output when nothing was started.
  return { status, stdout: stdout ?? "", stderr: stderr ?? "", error: error === undefined ? null : codeOf(error) };
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}
