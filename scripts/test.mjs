// npm test [-- FILTER...]: compiles, builds the addon if it is missing, runs the test files and counts the tests in them.
// A filter is a folder or file below test/. The last line is `N passed, N failed, N skipped`.
// It fails on any failure, when nothing passed, and with CI=true on a skip.
//
// The files are run as plain Node programs, which tap allows, and not by `tap run`: that puts a module loader into every
// Node process that a test starts, and most of ours start the program itself and look at its start, memory and exit.
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { createInterface } from "node:readline";
import { prune } from "./prune.mjs";
import { countTests, TapTree } from "./tap-tree.mjs";
import { addonPath, binOf, findCompiler, missingForTun, ROOT, runNode, tapIsBuilt } from "./tools.mjs";

const BUILD = join(ROOT, ".build");
/** Files at a time. */
const JOBS = 2;
/** A file that takes longer hangs, s: several times what the longest needs (the matrix at full size, on two cores). */
const TIMEOUT_S = 600;

function fail(text) {
  console.error(`test: ${text}`);
  process.exit(1);
}

/** Compiles src and test into .build (for the tests) and src into dist (for bin/tunrelay, which tests start). */
function compile() {
  const tsc = binOf("typescript", "tsc");
  if (tsc === null) fail("typescript is not installed: run npm ci");
  if (runNode(tsc, ["-p", "tsconfig.json"]) !== 0) fail("the sources or tests do not compile");
  prune(BUILD, ROOT);
  if (runNode(join(ROOT, "scripts/build.mjs"), []) !== 0) fail("the sources do not compile");
}

function buildAddon() {
  if (process.platform !== "linux" || findCompiler() === null) return;
  if (runNode(join(ROOT, "scripts/build-native.mjs"), ["--if-missing"]) !== 0) {
    if (!existsSync(addonPath())) fail("the native addon does not build");
    console.error("test: the native addon does not build; an older build is used");
  }
}

/** The test files that `filters` name, as paths below .build without their suffix; all of them without filters. */
function testFiles(filters) {
  const all = readdirSync(join(BUILD, "test"), { recursive: true })
    .filter((name) => name.endsWith(".test.js"))
    .map((name) => join("test", name.slice(0, -".js".length)));
  const wanted = filters.map((filter) => relative(ROOT, resolve(filter)).replace(/(\.test)?\.[jt]s$/, ""));
  const files = all.filter(
    (file) => wanted.length === 0 || wanted.some((path) => file === `${path}.test` || file.startsWith(`${path}/`)),
  );
  if (files.length === 0) fail(`no test file matches ${filters.join(" ") || "test/"}`);
  return files.sort();
}

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

/** Runs one file and returns its result, shaped like that of a subtest. */
async function runFile(file) {
  const startedAt = performance.now();
  const child = spawn(process.execPath, ["--enable-source-maps", join(BUILD, `${file}.js`)], {
    cwd: ROOT,
    env: { ...process.env, TAP_TIMEOUT: `${TIMEOUT_S - 10}` },
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
    name: `${file}.ts`,
    ok: problem === null,
    directive: skipped ? "skip" : null,
    reason: tree.skipReason ?? "",
    isSubtest: true,
    children: tree.results,
    diagnostic: problem === null ? [] : [problem],
    seconds: (performance.now() - startedAt) / 1000,
  };
}

async function runAll(files) {
  const results = [];
  const queue = files.values();
  const worker = async () => {
    for (const file of queue) {
      const result = await runFile(file);
      const verdict = result.ok ? (result.directive === null ? "ok  " : "skip") : "FAIL";
      console.log(`${verdict} ${result.name} (${result.seconds.toFixed(1)} s)`);
      results.push(result);
    }
  };
  await Promise.all(Array.from({ length: JOBS }, worker));
  return results;
}

if (binOf("tap", "tap") === null) fail("tap is not installed: run npm ci");
for (const sentence of missingForTun()) console.error(`test: ${sentence}`);
compile();
buildAddon();
if (!tapIsBuilt() && runNode(binOf("tap", "tap"), ["build"], { stdio: ["ignore", "ignore", "inherit"] }) !== 0) {
  fail("`tap build` failed");
}

const { passed, failed, skipped } = countTests(await runAll(testFiles(process.argv.slice(2))));
for (const { path, reason } of skipped) {
  console.log(`skipped: ${path.join(" > ")}${reason === "" ? "" : `: ${reason}`}`);
}
for (const { path, diagnostic } of failed) {
  console.log(`\nfailed: ${path.join(" > ")}`);
  for (const line of diagnostic) console.log(`    ${line}`);
}
const skipFails = process.env.CI === "true" && skipped.length > 0;
if (skipFails) console.log("\nCI=true: a skipped test is a failure");
if (passed === 0) console.log("\nno test passed");
console.log(`\n${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
process.exit(failed.length > 0 || passed === 0 || skipFails ? 1 : 0);
