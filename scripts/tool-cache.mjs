// Packages that are tried but not depended on (other versions of Node.js, installers), kept in .tunrelay/tools.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./tools.mjs";

const CACHE = join(ROOT, ".tunrelay/tools");

/** Our environment without what `npm run` adds, so that a program inside behaves as when a user starts it. */
export function environment(extra = {}) {
  const own = Object.entries(process.env).filter(
    ([name]) => !name.startsWith("npm_") || /^npm_config_(registry|userconfig|cache)$/i.test(name),
  );
  return { ...Object.fromEntries(own), ...extra };
}

/**
 * The folder of a package of the registry, without its dependencies' scripts; fetched once.
 * @param arch the architecture it is for
 */
export function cachedPackage(name, version, arch = process.arch) {
  const folder = join(CACHE, `${name}@${version}`);
  const found = join(folder, "node_modules", name);
  if (existsSync(found)) return found;
  mkdirSync(CACHE, { recursive: true });
  // Made beside and renamed: a fetch that was cut off leaves nothing that looks complete.
  const partial = mkdtempSync(join(CACHE, "partial-"));
  // npm refuses another architecture unless it is forced.
  const force = arch === process.arch ? [] : ["--force"];
  const options = [...force, "--ignore-scripts", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"];
  const args = ["install", ...options, "--os=linux", `--cpu=${arch}`, "--prefix", partial, `${name}@${version}`];
  const { status, error } = spawnSync("npm", args, { stdio: ["ignore", "ignore", "inherit"], env: environment() });
  if (error !== undefined || status !== 0) {
    rmSync(partial, { recursive: true, force: true });
    throw new Error(`${name} ${version} cannot be fetched: ${error?.message ?? `npm ended with ${status}`}`);
  }
  rmSync(folder, { recursive: true, force: true });
  renameSync(partial, folder);
  return found;
}

/** The executable of one version of Node.js. */
export function cachedNode(version, arch = process.arch) {
  return join(cachedPackage(`node-linux-${arch}`, version, arch), "bin/node");
}
