/** House rules on single files: text in, complaints out. */
import { blankText, importsOf, lineOf } from "./source.ts";

/**
 * Names that the stack must not know: clocks, timers, randomness, ways around. What is not ECMAScript at all is found by
 * the compiler, which gets the stack without any other library.
 */
const IMPURE =
  "Date performance setTimeout setInterval setImmediate clearTimeout clearInterval queueMicrotask Promise async await Buffer process globalThis eval Function Atomics WeakRef FinalizationRegistry";

/** Complaints about impure names in a file of src/stack. */
export function checkPurity(path: string, source: string): string[] {
  const code = blankText(source);
  const complaints: string[] = [];
  const complain = (position: number, text: string): void => {
    complaints.push(`${path}:${lineOf(source, position)}: the stack is pure: no ${text}`);
  };
  for (const match of code.matchAll(
    new RegExp(String.raw`(?<![.\w$])(${IMPURE.replaceAll(" ", "|")})\b(?!\s*:)`, "g"),
  )) {
    complain(match.index, match[1] ?? "");
  }
  // Any use of Math that is not a plain call of another function may end in Math.random.
  for (const match of code.matchAll(/(?<![.\w$])Math\b(?!\.(?!random\b)\w)/g)) complain(match.index, "Math.random");
  for (const match of code.matchAll(/\.\s*constructor\b/g)) complain(match.index, "constructor tricks");
  return complaints;
}

const CLOCK = String.raw`(?:Date\.now\(|performance\.now\(|\bhrtime\b|new Date\(\)|process\.uptime\()`;

/** Complaints about assertions of a test file that look at a real clock. */
export function checkTimedAssertions(path: string, source: string): string[] {
  const code = blankText(source);
  const complaints: string[] = [];
  const tainted = clockNames(code);
  const looksAtClock = (text: string): boolean =>
    new RegExp(CLOCK).test(text) ||
    [...tainted].some((name) => new RegExp(String.raw`(?<![.\w$])${name}\b`).test(text));
  for (const match of code.matchAll(/\b(?:t\d?|tt|test|assert|expect)(?:\.\w+)?\(/g)) {
    if (/\.(test|teardown|before|after|beforeEach|afterEach|comment|plan|end|setTimeout)\($/.test(match[0])) continue;
    if (/^(test|t)\($/.test(match[0])) continue;
    const end = closingOf(code, match.index + match[0].length);
    if (looksAtClock(code.slice(match.index, end))) {
      complaints.push(`${path}:${lineOf(source, match.index)}: this assertion depends on how fast the machine is`);
    }
  }
  return complaints;
}

/** Variables that hold a difference of clock readings, directly or through others. */
function clockNames(code: string): Set<string> {
  const readings = new Set<string>();
  const differences = new Set<string>();
  for (const [, name = "", value = ""] of code.matchAll(/\b(?:const|let|var)\s+(\w+)[^=;\n]*=\s*([^;]*);/g)) {
    const mentions = (names: Set<string>): boolean =>
      [...names].some((other) => new RegExp(String.raw`(?<![.\w$])${other}\b`).test(value));
    const reads = new RegExp(CLOCK).test(value);
    if (value.includes("=>")) continue;
    if (mentions(differences) || ((reads || mentions(readings)) && value.includes("-"))) differences.add(name);
    else if (reads && value.length < 60) readings.add(name);
  }
  return new Set([...differences]);
}

/** Position after the bracket that closes the one before `from`. */
function closingOf(code: string, from: number): number {
  let depth = 1;
  for (let i = from; i < code.length; i++) {
    if (code[i] === "(") depth++;
    else if (code[i] === ")" && --depth === 0) return i + 1;
  }
  return code.length;
}

/** Complaints about default exports, and about re-exports outside of entry files. */
export function checkExports(path: string, source: string, isEntry: boolean): string[] {
  const code = blankText(source);
  const complaints: string[] = [];
  for (const match of code.matchAll(/\bexport\s+default\b|\bexport\s*\{[^}]*\bas\s+default\b/g)) {
    complaints.push(`${path}:${lineOf(source, match.index)}: no default exports`);
  }
  if (isEntry) return complaints;
  for (const { line, reExport } of importsOf(source)) {
    if (reExport) complaints.push(`${path}:${line}: only the package's entry files re-export`);
  }
  return complaints;
}

/** Complaints about calls that end the process; only src/cli may have them. */
export function checkExits(path: string, source: string): string[] {
  return [...blankText(source).matchAll(/\bprocess\s*\.\s*(exit|abort|kill|reallyExit)\s*\(/g)].map(
    (match) => `${path}:${lineOf(source, match.index)}: only src/cli ends the process`,
  );
}

// In pieces, so that this file passes its own check.
const MACHINE_PATH = new RegExp(
  ["(?<![\\w.-])/(?:", "wo", "rk|ro", "ot|ho", "me/[a-z][\\w-]*)(?=/|\\b(?![\\w-]))"].join(""),
);
const REGISTRY = new RegExp(["\\bregis", 'try\\.[a-z0-9-]+\\.[a-z]|"resol', 'ved"\\s*:|arti', "factory"].join(""), "i");
const TO_DO = new RegExp(["\\b(TO", "DO|FIX", "ME|XX", "X)\\b(?!.{0,3}#\\d)"].join(""));

/** Complaints about text that must not be in a tracked file. */
export function checkText(path: string, text: string): string[] {
  const complaints: string[] = [];
  text.split("\n").forEach((line, i) => {
    const at = `${path}:${i + 1}`;
    if (MACHINE_PATH.test(line)) complaints.push(`${at}: a path of one machine: ${line.trim().slice(0, 80)}`);
    if (REGISTRY.test(line)) complaints.push(`${at}: the host of a package registry: ${line.trim().slice(0, 80)}`);
    if (TO_DO.test(line)) complaints.push(`${at}: a task without its issue number: ${line.trim().slice(0, 80)}`);
  });
  return complaints;
}

/** Complaints about versions in package.json that are not exact. */
export function checkVersions(manifest: Readonly<Record<string, unknown>>): string[] {
  const complaints: string[] = [];
  for (const kind of ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"]) {
    for (const [name, version] of Object.entries(manifest[kind] ?? {})) {
      if (/^\d+\.\d+\.\d+$/.test(String(version))) continue;
      complaints.push(`package.json: ${kind}.${name} is ${version}, expected an exact version`);
    }
  }
  return complaints;
}

/** Complaints about bin/tunrelay: a shell script that ends in `exec node`, and nothing else. */
export function checkShim(text: string, mode: number): string[] {
  const complaints: string[] = [];
  if ((mode & 0o777) !== 0o755) complaints.push(`bin/tunrelay has mode ${(mode & 0o777).toString(8)}, expected 755`);
  if (!text.startsWith("#!/bin/sh\n")) complaints.push("bin/tunrelay does not start with #!/bin/sh");
  if (!/^exec node "\$root\/dist\/cli\/main\.js" "\$@"\n$/m.test(text.slice(text.lastIndexOf("exec")))) {
    complaints.push("bin/tunrelay does not end in exec node");
  }
  return complaints;
}
