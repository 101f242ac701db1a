// npm run matrix [-- VERSION...]: the unit tests and the smoke test with a real TUN device on other versions of Node.js,
// those of versions.mjs by default. Each version ends in a line `N passed, N failed, N skipped`.
import { spawnSync } from "node:child_process";
import { delimiter, dirname, join } from "node:path";
import { cachedNode, environment } from "./tool-cache.mjs";
import { ROOT } from "./tools.mjs";
import { NODES } from "./versions.mjs";

const versions = process.argv.length > 2 ? process.argv.slice(2) : NODES;
for (const version of versions) {
  if (/^\d+\.\d+\.\d+$/.test(version)) continue;
  console.error(`matrix: ${version} is not an exact version: give one such as ${NODES[0]}`);
  process.exit(2);
}

const failed = [];
let isBuilt = false;
for (const version of versions) {
  const startedAt = performance.now();
  console.log(`\nNode.js ${version}`);
  const node = cachedNode(version);
  // First on the PATH, too: bin/tunrelay runs the `node` that it finds there.
  const env = environment({ PATH: `${dirname(node)}${delimiter}${process.env.PATH}` });
  const args = [join(ROOT, "scripts/test.mjs"), "--unit", "--smoke", ...(isBuilt ? ["--built"] : [])];
  const { status } = spawnSync(node, args, { cwd: ROOT, stdio: "inherit", env });
  if (status !== 0) failed.push(version);
  isBuilt = true;
  console.log(`Node.js ${version} took ${((performance.now() - startedAt) / 1000).toFixed(0)} s`);
}
if (failed.length > 0) console.error(`\nmatrix: failed on Node.js ${failed.join(", ")}`);
process.exit(failed.length > 0 ? 1 : 0);
