/** How many files this process may still open. */
import { readdirSync, readFileSync } from "node:fs";

/** What {@link readDescriptors} found. */
export interface Descriptors {
  /** RLIMIT_NOFILE: numbers of open files are below this. */
  readonly limit: number;
  /** Open now. */
  readonly open: number;
}

/** Reads the limit of open files, which Node has raised as far as it may, and what is open; null where that is not told. */
export function readDescriptors(): Descriptors | null {
  try {
    const [, text = ""] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    if (text === "") return null;
    const limit = Number(text);
    // What was inherited from beyond the limit takes no number from us.
    const open = readdirSync("/proc/self/fd").filter((name) => Number(name) < limit).length;
    return { limit, open };
  } catch {
    // No /proc here.
    return null;
  }
}
