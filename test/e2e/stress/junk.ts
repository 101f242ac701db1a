/** The program in `junk.c`, compiled for the test. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Owner } from "./lab.ts";

const SOURCE = "test/e2e/stress/junk.c";

/** What the program says in the end. */
export interface JunkReport {
  readonly sent: number;
  /** Packets that the kernel did not take. */
  readonly refused: number;
  /** Packets of others that were seen. */
  readonly live: number;
  /** Connections opened by junk. */
  readonly opened: number;
}

/** Compiles the program into a directory that goes with the test, and returns its path. */
export function compileJunk(owner: Owner): string {
  let root = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(root, SOURCE)) && root !== dirname(root)) root = dirname(root);
  const directory = mkdtempSync(join(tmpdir(), "tunrelay-junk-"));
  owner.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const program = join(directory, "junk");
  const { CC: compiler = "cc" } = process.env;
  execFileSync(compiler, ["-O2", "-o", program, join(root, SOURCE)], { stdio: ["ignore", "inherit", "inherit"] });
  return program;
}
