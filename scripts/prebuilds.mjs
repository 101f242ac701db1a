// npm run prebuilds: builds the addon for each architecture that the package serves, and checks what came out.
//
// One whose compiler is absent is left out with a warning. That is an error with TUNRELAY_RELEASE=1 or CI=true: what is
// released serves all of them.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { checkAddon } from "./check-addon.mjs";
import { ROOT, runNode } from "./tools.mjs";

/** Cross compilers by their names in Debian. */
const TARGETS = [
  { arch: "x64", cross: "x86_64-linux-gnu-gcc", packages: "gcc-x86-64-linux-gnu and libc6-dev-amd64-cross" },
  { arch: "arm64", cross: "aarch64-linux-gnu-gcc", packages: "gcc-aarch64-linux-gnu and libc6-dev-arm64-cross" },
];
const isRelease = process.env.TUNRELAY_RELEASE === "1" || process.env.CI === "true";

/** Builds one target. @returns null when it can be shipped, otherwise why not */
function build({ arch, cross, packages }) {
  const file = join(ROOT, "prebuilds", `linux-${arch}`, "tunrelay.node");
  const isHere = process.platform === "linux" && process.arch === arch;
  const compiler = isHere ? process.env.CC || "cc" : cross;
  let problem = null;
  if (spawnSync(compiler, ["--version"], { stdio: "ignore" }).status !== 0) {
    problem = `no ${compiler}: install ${isHere ? "gcc and libc6-dev" : packages}`;
    if (!isRelease) console.error(`prebuilds: linux-${arch} is left out, the package will not serve it: ${problem}`);
    else process.exitCode = 1;
  } else {
    // Without flags of the one who builds, so that the same compiler gives the same file everywhere.
    const env = { ...process.env, CC: compiler, CFLAGS: "" };
    if (runNode(join(ROOT, "scripts/build-native.mjs"), ["--arch", arch], { env }) !== 0) problem = "it does not build";
    else problem = checkAddon(file, arch).join("; ") || null;
    if (problem !== null) process.exitCode = 1;
  }
  if (problem === null) {
    const bytes = readFileSync(file);
    const digest = createHash("sha256").update(bytes).digest("hex");
    console.log(`prebuilds: linux-${arch}: ${bytes.length} bytes, sha256 ${digest}`);
    return null;
  }
  // Nothing older may be shipped in its place.
  rmSync(file, { force: true });
  return `linux-${arch}: ${problem}`;
}

const problems = TARGETS.map(build).filter((problem) => problem !== null);
if (problems.length === TARGETS.length) process.exitCode = 1;
if (process.exitCode === 1) {
  for (const problem of problems) console.error(`prebuilds: ${problem}`);
  if (isRelease) console.error("prebuilds: a release serves every architecture (TUNRELAY_RELEASE=1 or CI=true)");
}
