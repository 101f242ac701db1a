// npm run demo: `tunrelay demo` of this checkout.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./tools.mjs";

if (!existsSync(join(ROOT, "dist/cli/main.js"))) {
  console.error("demo: dist/cli/main.js is missing: run `npm ci`, or `npm run build`");
  process.exit(1);
}
const { status } = spawnSync(join(ROOT, "bin/tunrelay"), ["demo", ...process.argv.slice(2)], { stdio: "inherit" });
process.exit(status ?? 1);
