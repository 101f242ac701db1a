/** The house rules, tried on samples that break them and then on this tree. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import t from "tap";
import { checkImports, partOf } from "./layers.ts";
import {
  checkExits,
  checkExports,
  checkPurity,
  checkShim,
  checkText,
  checkTimedAssertions,
  checkVersions,
} from "./rules.ts";
import { blankText, importsOf } from "./source.ts";

const ROOT = process.cwd();
/** Opens code in a template; in pieces, because here it stands in plain strings. */
const TEMPLATE = ["$", "{"].join("");
const MANIFEST = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as Record<string, unknown>;

/** Files below a folder of the tree that end in .ts, with slashes, relative to it. */
function sources(folder: string): { path: string; text: string }[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .map((path) => ({ path, text: readFileSync(join(ROOT, folder, path), "utf8") }));
}

/** Every file that is under version control; in a tree without it, every file that would be. */
function trackedFiles(): string[] {
  const git = spawnSync("git", ["-c", "safe.directory=*", "ls-files", "-z"], { cwd: ROOT, encoding: "utf8" });
  if (git.status === 0) return git.stdout.split("\0").filter((path) => path !== "" && existsSync(join(ROOT, path)));
  const ignored = /^(node_modules|dist|\.build|\.tap|prebuilds|\.git|\.tunrelay)(\/|$)/;
  return readdirSync(ROOT, { recursive: true, encoding: "utf8" }).filter(
    (path) => !ignored.test(path) && statSync(join(ROOT, path)).isFile(),
  );
}

/** Reports the complaints as one assertion. */
function none(
  test: { equal(found: number, wanted: number, name: string): unknown },
  complaints: readonly string[],
): void {
  test.equal(complaints.length, 0, complaints.length === 0 ? "no complaints" : complaints.join("\n"));
}

t.test("source reader: comments and text are blanked, code and positions stay", async (t) => {
  const source = [
    "const a = \"import x from 'y'\"; // Date.now()",
    "const b = `Date #{process(`Buffer #{c}`)} performance`; /* eval".replaceAll("#{", TEMPLATE),
    "*/ const d = /[/'\"]eval/.test(e) ? f / g : h / Date;",
  ].join("\n");
  const code = blankText(source);
  t.equal(code.length, source.length);
  t.notMatch(code, /import|Buffer|performance|eval/);
  t.match(code, /process\(`\s+\$\{c\}`\)/);
  t.match(code, /f \/ g : h \/ Date;/);
});

t.test("source reader: every kind of import is found", async (t) => {
  const source = [
    'import a from "./1.ts";',
    "import type {",
    '  B, // from "./no.ts"',
    "} from './2.ts';",
    'import "./3.ts";',
    'import { c, type D } from "./4.ts";',
    'import * as e from "./5.ts";',
    'export { f } from "./6.ts";',
    'export type { G } from "./7.ts";',
    'export * from "./8.ts";',
    'export * as h from "./9.ts";',
    'const i = await import("./10.ts");',
    'type J = import("./11.ts").J;',
    'const k = require("./12.ts");',
    "const l = import(name);",
    'const text = "import m from \\"./no.ts\\"";',
    'export const from = "./no.ts";',
    'import n, { o } from "./13.ts";',
  ].join("\n");
  t.same(
    importsOf(source).map(({ specifier }) => specifier),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map((n) => `./${n}.ts`).concat([null as never, "./13.ts"]),
  );
  t.same(
    importsOf(source)
      .filter(({ reExport }) => reExport)
      .map(({ line }) => line),
    [8, 9, 10, 11],
  );
});

const importRows: readonly { path: string; specifier: string; allowed: boolean }[] = [
  { path: "index.ts", specifier: "./engine/engine.ts", allowed: true },
  { path: "index.ts", specifier: "./cli/main.ts", allowed: false },
  { path: "cli/run.ts", specifier: "../engine/engine.ts", allowed: true },
  { path: "cli/run.ts", specifier: "commander", allowed: true },
  { path: "cli/demo/x.ts", specifier: "../run.ts", allowed: true },
  { path: "engine/engine.ts", specifier: "../stack/tcp/tcb.ts", allowed: true },
  { path: "engine/engine.ts", specifier: "../cli/log.ts", allowed: false },
  { path: "engine/engine.ts", specifier: "../host/interface.ts", allowed: false },
  { path: "engine/engine.ts", specifier: "commander", allowed: false },
  { path: "host/x.ts", specifier: "../io/addon.ts", allowed: true },
  { path: "host/x.ts", specifier: "../engine/engine.ts", allowed: false },
  { path: "proxy/x.ts", specifier: "../stack/flow/address.ts", allowed: true },
  { path: "proxy/x.ts", specifier: "../stack/memory/slab.ts", allowed: false },
  { path: "proxy/x.ts", specifier: "../device/device.ts", allowed: false },
  { path: "proxy/server/x.ts", specifier: "node:net", allowed: true },
  { path: "device/tun.ts", specifier: "../stack/memory/slab.ts", allowed: true },
  { path: "device/tun.ts", specifier: "../stack/flow/address.ts", allowed: false },
  { path: "device/tun.ts", specifier: "../proxy/upstream.ts", allowed: false },
  { path: "io/x.ts", specifier: "../device/tun.ts", allowed: false },
  { path: "dns/x.ts", specifier: "../policy/x.ts", allowed: false },
  { path: "policy/x.ts", specifier: "../dns/x.ts", allowed: true },
  { path: "testing/x.ts", specifier: "../stack/stack.ts", allowed: true },
  { path: "testing/x.ts", specifier: "../engine/engine.ts", allowed: false },
  { path: "stack/stack.ts", specifier: "./tcp/tcb.ts", allowed: true },
  { path: "stack/stack.ts", specifier: "../io/addon.ts", allowed: false },
  { path: "stack/stack.ts", specifier: "node:fs", allowed: false },
  { path: "stack/stack.ts", specifier: "socks", allowed: false },
  { path: "stack/tcp/x.ts", specifier: "../udp/x.ts", allowed: false },
  { path: "stack/tcp/x.ts", specifier: "../ip/output.ts", allowed: true },
  { path: "stack/tcp/x.ts", specifier: "../ip/input.ts", allowed: false },
  { path: "stack/tcp/x.ts", specifier: "../stack.ts", allowed: false },
  { path: "stack/ip/input.ts", specifier: "../tcp/x.ts", allowed: true },
  { path: "stack/ip/output.ts", specifier: "../tcp/x.ts", allowed: false },
  { path: "stack/udp/x.ts", specifier: "../tcp/x.ts", allowed: false },
  { path: "stack/wire/x.ts", specifier: "../flow/address.ts", allowed: false },
  { path: "stack/memory/x.ts", specifier: "../wire/ip.ts", allowed: false },
  { path: "stack/wire/x.ts", specifier: "./ip", allowed: false },
  { path: "cli/x.ts", specifier: "../../scripts/x.ts", allowed: false },
  { path: "shed/x.ts", specifier: "../io/addon.ts", allowed: false },
];
t.test("import rules: each row of the table", async (t) => {
  for (const { path, specifier, allowed } of importRows) {
    for (const statement of [`import { x } from "${specifier}";`, `import type { X } from "${specifier}";`]) {
      t.equal(checkImports(path, statement).length, allowed ? 0 : 1, `${path}: ${statement}`);
    }
  }
  t.equal(checkImports("engine/x.ts", "const x = await import(name);").length, 1, "a computed import");
  const address = 'import type { IpBytes } from "../stack/flow/address.ts";';
  t.equal(checkImports("io/x.ts", address).length, 0, "types of an address");
  t.equal(checkImports("io/x.ts", address.replace(" type", "")).length, 1, "its code");
  t.equal(checkImports("device/x.ts", address).length, 1, "another part");
  t.equal(partOf("stack/tcp/tcb.ts"), "stack/tcp");
});

t.test("purity rule: each impurity is found, innocent text is not", async (t) => {
  for (const bad of [
    "const now = Date.now();",
    "const now = performance.now();",
    "setTimeout(f, 1);",
    "setInterval(f, 1);",
    "setImmediate(f);",
    "queueMicrotask(f);",
    "const x = Math.random();",
    'const x = Math["random"]();',
    "const { random } = Math;",
    "const m = Math;",
    "const b = Buffer.from(x);",
    "process.hrtime();",
    "globalThis.x = 1;",
    "eval(x);",
    "await x;",
    "const f = [].map.constructor(x)();",
    `const s = \`${TEMPLATE}Date.now()}\`;`,
  ]) {
    t.equal(checkPurity("x.ts", bad).length > 0, true, bad);
  }
  for (const good of [
    "// Date.now() is forbidden",
    'throw new RangeError("process and Buffer");',
    "const x = Math.max(1, Math.imul(a, b));",
    "x.process();",
    "const window = seg.wnd;",
  ]) {
    t.same(checkPurity("x.ts", good), [], good);
  }
});

t.test("timed assertion rule: each kind is found, innocent use of the clock is not", async (t) => {
  for (const bad of [
    "t.ok(Date.now() - start < 100);",
    "const took = performance.now() - start;\nt.ok(took < 5);",
    "const start = Date.now();\nawait f();\nconst end = Date.now();\nconst ms = end - start;\nt.equal(ms < 9, true);",
    "const [s] = [1];\nconst d = process.hrtime.bigint() - s0;\nconst e = Number(d);\nassert.ok(e < 1);",
    "assert(performance.now() - a < b);",
    "expect(new Date() - a).toBe(1);",
  ]) {
    t.equal(checkTimedAssertions("x.ts", bad).length, 1, bad);
  }
  for (const good of [
    "const deadline = Date.now() + 5000;\nwhile (!ready && Date.now() < deadline) await pause();\nt.ok(ready);",
    't.equal(x, "Date.now() - 1");',
    't.test("a", async (t) => { const stop = Date.now() + 1000; t.ok(true); });',
    "t.teardown(() => { log(Date.now() - start); });",
    "const now = 5; t.equal(stack.nextTimeout(), now + 200);",
  ]) {
    t.same(checkTimedAssertions("x.ts", good), [], good);
  }
});

t.test("text, export, version, exit and shim rules: each breach is found", async (t) => {
  const join = (...parts: string[]): string => parts.join("");
  for (const bad of [
    join("see /ro", "ot/x"),
    join("cd /wo", "rk/main"),
    join("/ho", "me/ann/x"),
    join("https://regis", "try.example.org/x"),
    join('"resol', 'ved": "https://example.org/x.tgz"'),
    join("// TO", "DO later"),
    join("// FIX", "ME"),
  ]) {
    t.equal(checkText("x", bad).length, 1, bad);
  }
  for (const good of ["the/work is done", "./root", join("TO", "DO(#12): later"), "https://example.org/"]) {
    t.same(checkText("x", good), [], good);
  }
  t.equal(checkExports("x.ts", "export default 1;", true).length, 1);
  t.equal(checkExports("x.ts", "export { x as default };", true).length, 1);
  t.equal(checkExports("x.ts", 'export { x } from "./y.ts";', false).length, 1);
  t.equal(checkExports("x.ts", 'export * from "./y.ts";', false).length, 1);
  t.equal(checkExports("x.ts", 'export { x } from "./y.ts";', true).length, 0);
  t.equal(checkExits("x.ts", "process.exit(1);").length, 1);
  for (const version of ["^1.2.3", "~1.2.3", "1.x", "latest", "*", ">=1.0.0", "1.2", "file:../x"]) {
    t.equal(checkVersions({ dependencies: { x: version } }).length, 1, version);
  }
  t.equal(checkVersions({ dependencies: { x: "1.2.3" }, devDependencies: { y: "0.1.0" } }).length, 0);
  const shim = '#!/bin/sh\nexec node "$root/dist/cli/main.js" "$@"\n';
  t.equal(checkShim(shim, 0o100755).length, 0);
  t.equal(checkShim(shim, 0o100644).length, 1);
  t.equal(checkShim(`${shim}echo more\n`, 0o100755).length, 1);
  t.equal(checkShim(shim.replace("/bin/sh", "/usr/bin/env bash"), 0o100755).length, 1);
});

t.test("src: imports point one way", async (t) => {
  none(
    t,
    sources("src").flatMap(({ path, text }) => checkImports(path, text)),
  );
});

t.test("src/stack: no clock, timer, randomness, Node or promise", async (t) => {
  none(
    t,
    sources("src/stack").flatMap(({ path, text }) => checkPurity(`src/stack/${path}`, text)),
  );
});

t.test("src/stack: compiles with the ECMAScript library alone", async (t) => {
  const require = createRequire(join(ROOT, "package.json"));
  const manifest = require.resolve("typescript/package.json");
  const { bin } = JSON.parse(readFileSync(manifest, "utf8")) as { bin: { tsc: string } };
  const compile = (folder: string): string => {
    const args = [join(dirname(manifest), bin.tsc), "-p", folder];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, encoding: "utf8" });
    return `${stdout}${stderr}exit status ${status}`;
  };
  const project = join(ROOT, "test/house/tsconfig.stack.json");
  const bad = t.testdir({
    "tsconfig.json": JSON.stringify({ extends: project, compilerOptions: { rootDir: "." }, include: ["bad.ts"] }),
    "bad.ts": "console.log(new TextEncoder());\n",
  });
  t.match(compile(bad), /'console'/, "a sample that uses more is found");
  t.equal(compile(project), "exit status 0", "the stack");
});

t.test("src: only src/cli ends the process", async (t) => {
  const complaints = sources("src")
    .filter(({ path }) => partOf(path) !== "cli")
    .flatMap(({ path, text }) => checkExits(`src/${path}`, text));
  none(t, complaints);
});

t.test("src: no default exports, and re-exports in entry files only", async (t) => {
  // Beside the entries of the package: the way into the stack's memory for device, io and engine.
  const entries = new Set(["stack/memory/index.ts"]);
  for (const target of Object.values(MANIFEST["exports"] as Record<string, { default?: string } | string>)) {
    if (typeof target === "object") entries.add((target.default ?? "").replace(/^\.\/dist\/(.*)\.js$/, "$1.ts"));
  }
  none(
    t,
    sources("src").flatMap(({ path, text }) => checkExports(path, text, entries.has(path))),
  );
  for (const folder of ["test"])
    none(
      t,
      sources(folder).flatMap(({ path, text }) => checkExports(path, text, false)),
    );
});

t.test("test: no assertion depends on the machine's speed", async (t) => {
  const tests = sources("test").filter(({ path }) => !path.startsWith("house/"));
  none(
    t,
    tests.flatMap(({ path, text }) => checkTimedAssertions(`test/${path}`, text)),
  );
});

t.test("every tracked file: no machine paths, no registry hosts, no task without an issue", async (t) => {
  const files = trackedFiles();
  t.equal(files.includes("package.json"), true);
  none(
    t,
    files.flatMap((path) => {
      const text = readFileSync(join(ROOT, path), "utf8");
      return text.includes("\0") ? [`${path} is binary`] : checkText(path, text);
    }),
  );
});

t.test("package.json: exact versions, and the lock file agrees", async (t) => {
  none(t, checkVersions(MANIFEST));
  const lock = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")) as {
    packages: Record<string, Record<string, unknown>>;
  };
  for (const kind of ["dependencies", "devDependencies"]) t.same(lock.packages[""]?.[kind], MANIFEST[kind], kind);
});

t.test("package.json: every export has a source", async (t) => {
  for (const [name, target] of Object.entries(MANIFEST["exports"] as Record<string, { default: string } | string>)) {
    if (typeof target === "string") continue;
    const source = target.default.replace(/^\.\/dist\/(.*)\.js$/, "src/$1.ts");
    t.equal(existsSync(join(ROOT, source)), true, `${name}: ${source}`);
  }
});

t.test("bin: the shim and nothing else, mode 755", async (t) => {
  const shim = join(ROOT, "bin/tunrelay");
  t.same(readdirSync(join(ROOT, "bin")), ["tunrelay"]);
  t.same(checkShim(readFileSync(shim, "utf8"), statSync(shim).mode), []);
  execFileSync("sh", ["-n", shim]);
});
