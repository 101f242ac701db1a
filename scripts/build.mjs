// Compiles src/ into dist/ and removes what no longer has a source. Exits with the compiler's status.
import { join } from "node:path";
import { prune } from "./prune.mjs";
import { binOf, ROOT, runNode } from "./tools.mjs";

const tsc = binOf("typescript", "tsc");
if (tsc === null) {
  console.error("build: typescript is not installed: run npm ci");
  process.exit(1);
}
const status = runNode(tsc, ["-p", "tsconfig.build.json"]);
prune(join(ROOT, "dist"), join(ROOT, "src"));
process.exit(status);
