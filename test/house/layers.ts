/** Which part of src may import which (docs: the map in the design). Parts are folders; `stack/x` are parts of their own. */
import { posix } from "node:path";
import { importsOf } from "./source.ts";

const STACK = ["stack", "stack/memory", "stack/wire", "stack/flow", "stack/ip", "stack/tcp", "stack/udp"] as const;
const BELOW_ENGINE = ["device", "proxy", "dns", "policy", "io", ...STACK] as const;

/** A part and what it may import beside itself. The entry file of the package is the part `entry`. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  entry: ["engine", "host", "testing", ...BELOW_ENGINE],
  cli: ["engine", "host", ...BELOW_ENGINE],
  engine: BELOW_ENGINE,
  host: BELOW_ENGINE,
  policy: ["dns", "proxy", "io", "stack/flow"],
  dns: ["proxy", "io", "stack/flow"],
  proxy: ["io", "stack/flow"],
  device: ["io", "stack/memory", "stack/wire"],
  io: ["stack/memory", "stack/wire"],
  testing: ["device", ...STACK],
  stack: STACK,
  "stack/tcp": ["stack/flow", "stack/ip", "stack/wire", "stack/memory"],
  "stack/udp": ["stack/flow", "stack/ip", "stack/wire", "stack/memory"],
  "stack/ip": ["stack/flow", "stack/wire", "stack/memory"],
  "stack/flow": ["stack/wire", "stack/memory"],
  "stack/wire": ["stack/memory"],
  "stack/memory": [],
};

/** Imports of types alone that go beyond the map: from a part or file, to a file. */
const TYPES_BEYOND: readonly (readonly [RegExp, string])[] = [
  // An address is a Uint8Array; the name says so at the joint, and nothing of the file is run.
  [/^io\//, "stack/flow/address.ts"],
];

/** Files that are used beyond the map. */
const FILES_BEYOND: readonly (readonly [RegExp, string])[] = [
  // Node's sockets know addresses as text. The file is plain functions and imports nothing.
  [/^io\/node-/, "stack/flow/address.ts"],
];

/** Packages of the registry that a part may import. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  cli: ["commander", "ip-num", "pino"],
  proxy: ["socks"],
};

/** The part of a file; `path` is relative to src, with slashes. */
export function partOf(path: string): string {
  const [first = "", second = "", third] = path.split("/");
  if (second === "") return "entry";
  if (first === "stack" && third !== undefined) return `stack/${second}`;
  return first;
}

/** Complaints about the imports of one file; `path` is relative to src. */
export function checkImports(path: string, source: string): string[] {
  const complaints: string[] = [];
  const part = partOf(path);
  for (const { specifier, line, typeOnly } of importsOf(source)) {
    const at = `src/${path}:${line}`;
    if (specifier === null)
      complaints.push(`${at}: the module of this import is computed, which hides it from this check`);
    else if (specifier.startsWith(".")) {
      const target = posix.normalize(posix.join(posix.dirname(path), specifier));
      if (typeOnly && TYPES_BEYOND.some(([from, to]) => from.test(path) && to === target)) continue;
      if (FILES_BEYOND.some(([from, to]) => from.test(path) && to === target)) continue;
      const complaint = checkTarget(part, path, target);
      if (complaint !== null) complaints.push(`${at}: ${complaint}`);
    } else if (part === "stack" || part.startsWith("stack/")) {
      complaints.push(`${at}: stack imports nothing outside itself, not ${specifier}`);
    } else if (!specifier.startsWith("node:") && !(PACKAGES[part] ?? []).includes(specifier)) {
      complaints.push(`${at}: ${part} does not import the package ${specifier}`);
    }
  }
  return complaints;
}

function checkTarget(part: string, path: string, target: string): string | null {
  if (target.startsWith("../")) return `${target} is outside of src`;
  if (!target.endsWith(".ts")) return `${target} lacks its suffix .ts`;
  const to = partOf(target);
  // What receives packets hands them on to both transports; neither of them may know it.
  const isInput = (file: string): boolean => /^stack\/ip\/input/.test(file);
  if (isInput(target) && part !== "stack" && part !== "stack/ip") return `${part} does not import ${target}`;
  if (isInput(path) && (to === "stack/tcp" || to === "stack/udp")) return null;
  if (to === part || (MAY_IMPORT[part] ?? []).includes(to)) return null;
  if (MAY_IMPORT[part] === undefined) return `src/${part} is not in the map`;
  return `${part} does not import ${to} (${target})`;
}
