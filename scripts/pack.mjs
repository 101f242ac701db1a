// prepack and postpack. Before: builds dist and the addon for each architecture, and takes the scripts that only a clone needs
// out of package.json (npm 12 asks its users about a `prepare` of a dependency). After: puts package.json back.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT, runNode } from "./tools.mjs";

const manifest = join(ROOT, "package.json");
const saved = join(ROOT, ".tunrelay/package.json");

function before() {
  if (runNode(join(ROOT, "scripts/build.mjs"), []) !== 0) return 1;
  if (runNode(join(ROOT, "scripts/prebuilds.mjs"), []) !== 0) return 1;
  mkdirSync(join(ROOT, ".tunrelay"), { recursive: true });
  const text = readFileSync(manifest, "utf8");
  writeFileSync(saved, text);
  const packed = JSON.parse(text);
  packed.scripts = { "build:native": packed.scripts["build:native"] };
  for (const key of ["devDependencies", "tap"]) delete packed[key];
  writeFileSync(manifest, `${JSON.stringify(packed, null, 2)}\n`);
  return 0;
}

function after() {
  if (existsSync(saved)) renameSync(saved, manifest);
  return 0;
}

process.exit(process.argv[2] === "after" ? after() : before());
