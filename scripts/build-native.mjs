// Builds prebuilds/linux-<arch>/tunrelay.node from native/*.c with one call of the C compiler: no node-gyp, no
// Python, no downloads. `--if-missing` does nothing when the file is newer than all its sources. `--arch NAME`
// together with CC=<cross compiler> builds for another machine. CFLAGS is appended to the flags below.
//
// -nostdlib leaves the libc functions to be found in the process that loads the addon, so that one file serves glibc
// and musl. That rules out _FORTIFY_SOURCE and _FILE_OFFSET_BITS, which need symbols only one of them has.
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const args = process.argv.slice(2);
const archAt = args.indexOf("--arch");
const arch = archAt < 0 ? process.arch : args[archAt + 1];
const cc = process.env.CC || "cc";

function fail(message) {
  console.error(`build-native: ${message}`);
  process.exit(1);
}

function modified(file) {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

if (process.platform !== "linux") fail(`the native addon needs Linux, this is ${process.platform}; nothing was built`);
if (!arch) fail("--arch needs a name such as x64 or arm64");

const nativeDir = join(root, "native");
const sources = readdirSync(nativeDir)
  .filter((name) => /\.[ch]$/.test(name))
  .sort()
  .map((name) => join(nativeDir, name));
const output = join(root, "prebuilds", `linux-${arch}`, "tunrelay.node");

if (args.includes("--if-missing")) {
  const newest = Math.max(modified(fileURLToPath(import.meta.url)), ...sources.map(modified));
  if (modified(output) > newest) process.exit(0);
}

let headers;
try {
  headers = join(dirname(createRequire(import.meta.url).resolve("node-api-headers")), "include");
} catch {
  fail("the package node-api-headers is missing; run npm ci with development packages");
}

mkdirSync(dirname(output), { recursive: true });
// Compiled beside and renamed, so that processes which have the old file loaded keep it.
const partial = `${output}.${process.pid}`;
const flags = ["-std=gnu11", "-O2", "-s", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing"];
// One compiler makes one file, wherever the sources lie.
flags.push(`-ffile-prefix-map=${root}=.`, "-Wl,--build-id=none");
// What this libc or Node.js lacks shows when the addon is loaded, not in the middle of a flow.
flags.push("-Wl,-z,now", "-Wl,-z,relro", "-Wl,-z,noexecstack");
const result = spawnSync(
  cc,
  [
    ...flags,
    "-Wall",
    "-Wextra",
    "-nostdlib",
    "-U_FORTIFY_SOURCE",
    "-DNAPI_VERSION=8",
    "-DNODE_GYP_MODULE_NAME=tunrelay",
    "-I",
    headers,
    ...(process.env.CFLAGS ?? "").split(" ").filter(Boolean),
    "-o",
    partial,
    ...sources.filter((name) => name.endsWith(".c")),
  ],
  { stdio: "inherit" },
);
if (result.error) {
  fail(`no C compiler: cannot run ${cc} (${result.error.code}); install gcc or clang with libc headers, or set CC`);
}
if (result.status !== 0) {
  rmSync(partial, { force: true });
  fail(`${cc} failed with ${result.status ?? result.signal}; its messages are above (are the libc headers installed?)`);
}
renameSync(partial, output);
