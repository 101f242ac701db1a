// What the build and test scripts ask about this machine and this checkout.
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The directory that holds package.json. */
export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const require = createRequire(join(ROOT, "package.json"));

/** Whether a package is installed here. */
export function isInstalled(packageName) {
  try {
    require.resolve(`${packageName}/package.json`);
    return true;
  } catch {
    return false;
  }
}

/** Path of the script behind a package's command, or null when the package is not installed. */
export function binOf(packageName, command) {
  if (!isInstalled(packageName)) return null;
  const manifestPath = require.resolve(`${packageName}/package.json`);
  const { bin } = JSON.parse(readFileSync(manifestPath, "utf8"));
  const file = typeof bin === "string" ? bin : bin?.[command];
  return file === undefined ? null : join(dirname(manifestPath), file);
}

/** Runs a Node script in the checkout with our output streams; returns its exit status (1 when killed). */
export function runNode(script, args, options = {}) {
  const result = spawnSync(process.execPath, [script, ...args], { cwd: ROOT, stdio: "inherit", ...options });
  if (result.error !== undefined) throw result.error;
  return result.status ?? 1;
}

/** The C compiler that scripts/build-native.mjs would call, or null when it does not answer. */
export function findCompiler() {
  const command = process.env.CC || "cc";
  return spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0 ? command : null;
}

/** Where the native addon of this machine belongs. */
export function addonPath() {
  return join(ROOT, "prebuilds", `${process.platform}-${process.arch}`, "tunrelay.node");
}

/** Whether tap's generated Test class is the one that package.json asks for. */
export function tapIsBuilt() {
  if (!existsSync(join(ROOT, ".tap/plugins/package.json"))) return false;
  let generated;
  try {
    generated = readFileSync(
      join(dirname(require.resolve("@tapjs/test/package.json")), "test-built/dist/esm/index.js"),
      "utf8",
    );
  } catch {
    return false;
  }
  const { tap } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  return tap.plugin.every((entry) =>
    entry.startsWith("!") ? !generated.includes(`"${entry.slice(1)}"`) : generated.includes(`"${entry}"`),
  );
}

/** Capability CAP_NET_ADMIN (linux/capability.h: 12) in the effective set. */
function hasNetAdmin() {
  try {
    const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return mask !== undefined && ((BigInt(`0x${mask}`) >> 12n) & 1n) === 1n;
  } catch {
    return false;
  }
}

/** What this machine lacks for tests and demo with a real TUN device, one sentence each. */
export function missingForTun() {
  const missing = [];
  if (process.platform !== "linux") return [`TUN devices are supported on Linux only, this is ${process.platform}`];
  if (!existsSync(addonPath()) && findCompiler() === null) {
    missing.push("no C compiler (cc) and no built addon: install gcc and libc6-dev, then run `npm run build:native`");
  }
  try {
    accessSync("/dev/net/tun", constants.R_OK | constants.W_OK);
  } catch (error) {
    missing.push(
      error.code === "ENOENT"
        ? "no /dev/net/tun: `modprobe tun`, or `mkdir -p /dev/net && mknod /dev/net/tun c 10 200`"
        : "/dev/net/tun may not be opened by this user: run as root, or `chmod 666 /dev/net/tun`",
    );
  }
  if (!hasNetAdmin()) missing.push("no right to make network devices (CAP_NET_ADMIN): run as root");
  return missing;
}
