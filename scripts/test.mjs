// npm test [-- FILTER...]: compiles, builds the addon if it is missing, runs the tests with tap and counts them.
// A filter is a folder or file below test/; arguments that start with "--" go to tap.
// The last line is `N passed, N failed, N skipped`. It fails on any failure, when nothing passed, and with CI=true on a skip.
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { createInterface } from "node:readline";
import { prune } from "./prune.mjs";
import { countTests, TapTree } from "./tap-tree.mjs";
import { addonPath, binOf, findCompiler, missingForTun, ROOT, runNode, tapIsBuilt } from "./tools.mjs";

const BUILD = join(ROOT, ".build");

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

/** The compiled test files that `filters` name; all of them without filters. */
function testFiles(filters) {
  const all = readdirSync(join(BUILD, "test"), { recursive: true })
    .filter((name) => name.endsWith(".test.js"))
    .map((name) => join("test", name));
  const wanted = filters.map((filter) => relative(ROOT, resolve(filter)).replace(/(\.test)?\.[jt]s$/, ""));
  const files = all.filter(
    (file) => wanted.length === 0 || wanted.some((path) => file === `${path}.test.js` || file.startsWith(`${path}/`)),
  );
  if (files.length === 0) fail(`no test file matches ${filters.join(" ") || "test/"}`);
  return files.sort().map((file) => join(".build", file));
}

/** `.build/test/a.test.js` as the path of its source. */
function sourceOf(file) {
  return file.replace(/^\.build\//, "").replace(/\.js$/, ".ts");
}

/** Runs tap and returns the results and its exit status. */
async function runTap(args) {
  const tap = binOf("tap", "tap");
  const child = spawn(process.execPath, [tap, "run", "-R", "tap", "--disable-coverage", ...args], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const tree = new TapTree(({ name, ok, directive, timeMs }) => {
    const verdict = ok ? (directive === null ? "ok  " : "skip") : "FAIL";
    console.log(`${verdict} ${sourceOf(name)} (${(timeMs / 1000).toFixed(1)} s)`);
  });
  const exited = new Promise((done, failed) => {
    child.on("error", failed);
    child.on("close", (code) => done(code ?? 1));
  });
  for await (const line of createInterface({ input: child.stdout })) tree.line(line);
  return { tree, status: await exited };
}

const args = process.argv.slice(2);
if (binOf("tap", "tap") === null) fail("tap is not installed: run npm ci");
for (const sentence of missingForTun()) console.error(`test: ${sentence}`);
compile();
buildAddon();
if (!tapIsBuilt() && runNode(binOf("tap", "tap"), ["build"], { stdio: ["ignore", "ignore", "inherit"] }) !== 0) {
  fail("`tap build` failed");
}

const files = testFiles(args.filter((arg) => !arg.startsWith("--")));
const { tree, status } = await runTap([...args.filter((arg) => arg.startsWith("--")), ...files]);
const { passed, failed, skipped } = countTests(tree.results);
if (tree.bailout !== null) failed.push({ path: ["tap bailed out"], diagnostic: [tree.bailout] });
if (status !== 0 && failed.length === 0) failed.push({ path: ["tap"], diagnostic: [`exit status ${status}`] });

const title = (path) => path.map((name, i) => (i === 0 ? sourceOf(name) : name)).join(" > ");
for (const { path, reason } of skipped) console.log(`skipped: ${title(path)}${reason === "" ? "" : `: ${reason}`}`);
for (const { path, diagnostic } of failed) {
  console.log(`\nfailed: ${title(path)}`);
  for (const line of diagnostic) console.log(`    ${line}`);
}
const skipFails = process.env.CI === "true" && skipped.length > 0;
if (skipFails) console.log("\nCI=true: a skipped test is a failure");
if (passed === 0) console.log("\nno test passed");
console.log(`\n${passed} passed, ${failed.length} failed, ${skipped.length} skipped`);
process.exit(failed.length > 0 || passed === 0 || skipFails ? 1 : 0);
