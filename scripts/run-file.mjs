// Runs one compiled test file as a program of its own, with a time limit, and reads what it says.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { TapTree } from "./tap-tree.mjs";
import { ROOT } from "./tools.mjs";

/** A file that takes longer hangs, s: several times what the longest needs (the matrix at full size, on two cores). */
const TIMEOUT_S = 900;

/** Process groups of the files that run now. */
const running = new Set();
function killGroup(pid) {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    for (const pid of running) killGroup(pid);
    process.exit(1);
  });
}

/**
 * Runs `command`, which runs one test file.
 * @param name what to call it
 * @param env variables beside ours
 * @returns its result, shaped like that of a subtest, with `seconds`
 */
export async function runFile(name, command, env = {}) {
  const startedAt = performance.now();
  const child = spawn(command[0], command.slice(1), {
    cwd: ROOT,
    env: { ...process.env, TAP_TIMEOUT: `${TIMEOUT_S - 10}`, ...env },
    stdio: ["ignore", "pipe", "inherit"],
    // A process group of its own, so that nothing of it outlives the time limit.
    detached: true,
  });
  running.add(child.pid);
  let problem = null;
  const timer = setTimeout(() => {
    problem = `it did not end within ${TIMEOUT_S} s`;
    killGroup(child.pid);
  }, TIMEOUT_S * 1000);
  const exited = new Promise((done, failed) => {
    child.on("error", failed);
    child.on("exit", (code, signal) => {
      if (code !== 0) problem ??= signal === null ? `exit status ${code}` : `ended by ${signal}`;
      done();
    });
  });
  const tree = new TapTree();
  const lines = createInterface({ input: child.stdout });
  lines.on("line", (line) => tree.line(line));
  const closed = new Promise((done) => lines.once("close", done));
  await exited;
  clearTimeout(timer);
  killGroup(child.pid);
  running.delete(child.pid);
  await closed;
  if (tree.bailout !== null) problem = `it bailed out: ${tree.bailout}`;
  if (tree.plan === null) problem ??= "it ended before all of its tests had";
  const skipped = problem === null && tree.results.length === 0 && tree.skipReason !== null;
  return {
    name,
    ok: problem === null,
    directive: skipped ? "skip" : null,
    reason: tree.skipReason ?? "",
    isSubtest: true,
    children: tree.results,
    diagnostic: problem === null ? [] : [problem],
    seconds: (performance.now() - startedAt) / 1000,
  };
}

/** Runs `run` for each file, two at a time, and prints a line for each. */
export async function runFiles(files, run) {
  const results = [];
  const queue = files.values();
  const worker = async () => {
    for (const file of queue) {
      const result = await run(file);
      const verdict = result.ok ? (result.directive === null ? "ok  " : "skip") : "FAIL";
      console.log(`${verdict} ${result.name} (${result.seconds.toFixed(1)} s)`);
      results.push(result);
    }
  };
  await Promise.all([worker(), worker()]);
  return results;
}

/** Prints what was skipped and what failed, and why. */
export function printCount({ failed, skipped }) {
  for (const { path, reason } of skipped) {
    console.log(`skipped: ${path.join(" > ")}${reason === "" ? "" : `: ${reason}`}`);
  }
  for (const { path, diagnostic } of failed) {
    console.log(`\nfailed: ${path.join(" > ")}`);
    for (const line of diagnostic) console.log(`    ${line}`);
  }
}

/** Prints the closing line. @returns the exit status: 1 on a failure, without a test, and with CI=true on a skip */
export function close({ passed, failed, skipped }) {
  const skipFails = process.env.CI === "true" && skipped.length > 0;
  if (skipFails) console.log("\nCI=true: a skipped test is a failure");
  if (passed === 0) console.log("\nno test passed");
  console.log(`\n${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
  return failed.length > 0 || passed === 0 || skipFails ? 1 : 0;
}
