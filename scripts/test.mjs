// npm test [-- OPTION... FILTER...]: compiles, builds the addon if it is missing, runs the test files and counts the tests
// in them. A filter is a folder or file below test/. The last line is `N passed, N failed, N skipped`.
// It fails on any failure, when nothing passed, and with CI=true on a skip.
//   --unit    what tells one Node.js from another: everything but test/cli, test/e2e and test/house
//   --smoke   the shortest end-to-end test
//   --built   of what is compiled already
//
// The files are run as plain Node programs, which tap allows, and not by `tap run`: that puts a module loader into every
// Node process that a test starts, and most of ours start the program itself and look at its start, memory and exit.
import { existsSync, readdirSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { prune } from "./prune.mjs";
import { close, printCount, runFile, runFiles } from "./run-file.mjs";
import { countTests } from "./tap-tree.mjs";
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

/** What the options choose, and below which paths. */
const CHOICES = {
  "--unit": (file) => !/^test\/(cli|e2e|house)\//.test(file),
  "--smoke": (file) => file === "test/e2e/smoke.test",
};

/** The test files that options and filters name, as paths below .build without their suffix; all when none is given. */
function testFiles(args) {
  const all = readdirSync(join(BUILD, "test"), { recursive: true })
    .filter((name) => name.endsWith(".test.js"))
    .map((name) => join("test", name.slice(0, -".js".length)));
  const wanted = args.map((arg) => {
    if (arg.startsWith("--")) return CHOICES[arg] ?? fail(`unknown option ${arg}: use --unit, --smoke or --built`);
    const path = relative(ROOT, resolve(arg)).replace(/(\.test)?\.[jt]s$/, "");
    return (file) => file === `${path}.test` || file.startsWith(`${path}/`);
  });
  const files = all.filter((file) => wanted.length === 0 || wanted.some((matches) => matches(file)));
  if (files.length === 0) fail(`no test file matches ${args.join(" ") || "test/"}`);
  return files.sort();
}

const isBuilt = process.argv.includes("--built");
const args = process.argv.slice(2).filter((arg) => arg !== "--built");
if (binOf("tap", "tap") === null) fail("tap is not installed: run npm ci");
for (const sentence of missingForTun()) console.error(`test: ${sentence}`);
if (!isBuilt) {
  compile();
  buildAddon();
}
if (!tapIsBuilt() && runNode(binOf("tap", "tap"), ["build"], { stdio: ["ignore", "ignore", "inherit"] }) !== 0) {
  fail("`tap build` failed");
}

const results = await runFiles(testFiles(args), (file) =>
  runFile(`${file}.ts`, [process.execPath, "--enable-source-maps", join(BUILD, `${file}.js`)]),
);
const count = countTests(results);
printCount(count);
process.exit(close(count));
