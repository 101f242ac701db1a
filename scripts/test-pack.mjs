// npm run test:pack: packs the package as for a release, looks at what is in it, installs it into empty folders with each
// installer of versions.mjs, and runs and imports it from there. Nothing in it has to run at install, and no compiler is there.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { cachedNode, cachedPackage, environment } from "./tool-cache.mjs";
import { binOf, ROOT } from "./tools.mjs";
import { INSTALLERS } from "./versions.mjs";

/** Everything that a release holds. */
const CONTENTS = [
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md)$/,
  /^bin\/tunrelay$/,
  /^dist\/[\w/-]+\.(js|d\.ts)$/,
  /^prebuilds\/linux-(x64|arm64)\/tunrelay\.node$/,
  /^native\/[\w/-]+\.[ch]$/,
  /^scripts\/build-native\.mjs$/,
];
const NEEDED = ["package.json", "README.md", "LICENSE", "bin/tunrelay", "dist/index.js", "dist/index.d.ts"].concat(
  ["x64", "arm64"].map((arch) => `prebuilds/linux-${arch}/tunrelay.node`),
);
/** A program that uses each entry and its types. */
const PROGRAM = `
import * as tunrelay from "tunrelay";
import * as device from "tunrelay/device";
import * as proxy from "tunrelay/proxy";
import * as stack from "tunrelay/stack";
for (const [name, entry] of Object.entries({ tunrelay, device, proxy, stack })) {
  const names: readonly string[] = Object.keys(entry);
  if (names.length === 0) throw new Error(\`\${name} exports nothing\`);
}
const upstream: proxy.Upstream = proxy.parseUpstream("socks5://127.0.0.1:1080");
if (upstream.label !== "socks5://127.0.0.1:1080") throw new Error(upstream.label);
`;

const directory = mkdtempSync(join(tmpdir(), "tunrelay-pack-"));
let failures = 0;

/** Runs a command. @returns its output; a failure is told and counted, and gives null */
function run(what, command, args, options) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8", ...options });
  if (error === undefined && status === 0) return `${stdout}${stderr}`;
  complain(`${what}: ${error?.message ?? `exit status ${status}`}\n${stdout ?? ""}${stderr ?? ""}`);
  return null;
}

function complain(text) {
  failures++;
  console.error(`test-pack: ${text}`);
}

/** The tarball, its contents checked. */
function pack() {
  const env = environment({ TUNRELAY_RELEASE: "1" });
  if (run("npm pack", "npm", ["pack", "--silent", "--pack-destination", directory], { cwd: ROOT, env }) === null)
    return null;
  const tarball = readdirSync(directory).find((name) => name.endsWith(".tgz"));
  const path = join(directory, tarball);
  const list = run("tar", "tar", ["-tzf", path], {}).trim().split("\n");
  const names = list.map((name) => name.replace(/^package\//, ""));
  for (const name of names) {
    if (!CONTENTS.some((pattern) => pattern.test(name))) complain(`the tarball has ${name}`);
  }
  for (const name of NEEDED) if (!names.includes(name)) complain(`the tarball lacks ${name}`);
  console.log(`${tarball}: ${names.length} files`);
  return path;
}

/** A PATH with one Node.js and no compiler. */
function pathWith(name, node) {
  const bin = join(directory, `bin-${name}`);
  mkdirSync(bin, { recursive: true });
  if (!existsSync(join(bin, "node"))) symlinkSync(node, join(bin, "node"));
  return bin;
}

/** Says whether the command of one installer gave a package that works. */
function tryInstaller({ name, version, installOn, runOn }, tarball) {
  const label = `${name} ${version}`;
  const folder = join(directory, `${name}-${version}`);
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "user", private: true, type: "module" }));
  const manager = cachedPackage(name, version);
  const installer = installOn === null ? process.execPath : cachedNode(installOn);
  // What scripts would need: a compiler that is none.
  const env = environment({ PATH: `${pathWith(label, installer)}${delimiter}${process.env.PATH}`, CC: "/bin/false" });
  // pnpm is a program of its own, in a package beside.
  const [command, ...words] =
    name === "pnpm"
      ? [join(dirname(manager), `@pnpm/exe.linux-${process.arch}/pnpm`), "add", tarball]
      : [installer, join(manager, "bin/npm-cli.js"), "install", "--no-audit", "--no-fund", tarball];
  const said = run(`${label} install`, command, words, { cwd: folder, env });
  if (said === null) return;
  // What npm says of its user's own settings is not about the package.
  const remarks = said.split("\n").filter((line) => !line.includes("Unknown user config"));
  if (remarks.some((line) => /script|gyp|warn/i.test(line))) complain(`${label} speaks of scripts or warns:\n${said}`);
  const installed = join(folder, "node_modules/tunrelay");
  const program = join(folder, "node_modules/.bin/tunrelay");
  writeFileSync(join(folder, "use.ts"), PROGRAM);
  const tsc = binOf("typescript", "tsc");
  const types = ["--typeRoots", join(ROOT, "node_modules/@types"), "--types", "node"];
  const flags = ["--strict", "--module", "nodenext", "--target", "es2023", ...types, "use.ts"];
  run(`${label}: the types`, process.execPath, [tsc, ...flags], { cwd: folder });
  for (const wanted of runOn) {
    const node = wanted === null ? process.execPath : cachedNode(wanted);
    const on = `${label} on Node.js ${wanted ?? process.version.slice(1)}`;
    run(`${on}: the library`, node, ["use.js"], { cwd: folder });
    const smoke = {
      ...environment(),
      TUNRELAY_TEST_PROGRAM: program,
      TUNRELAY_TEST_NODE: node,
      PATH: `${dirname(node)}${delimiter}${process.env.PATH}`,
    };
    const { status } = spawnSync(node, [join(ROOT, "scripts/test.mjs"), "--built", "--smoke"], {
      cwd: ROOT,
      stdio: "inherit",
      env: smoke,
    });
    if (status !== 0) complain(`${on}: the smoke test failed`);
    else console.log(`${on}: installed, imported, and carries traffic`);
  }
  if (existsSync(join(installed, "build"))) complain(`${label} built something`);
}

try {
  const tarball = pack();
  if (tarball !== null) for (const installer of INSTALLERS) tryInstaller(installer, tarball);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
console.log(failures === 0 ? "test-pack: all is well" : `test-pack: ${failures} failures`);
process.exit(failures === 0 ? 0 : 1);
