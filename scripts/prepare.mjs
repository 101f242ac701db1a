// Runs after `npm ci` in a clone: compiles the TypeScript sources into dist/, builds the native addon, and generates
// tap's Test class. A step whose tool is absent is skipped with one line; an error in the sources is an error.
import { join } from "node:path";
import { binOf, findCompiler, isInstalled, ROOT, runNode, tapIsBuilt } from "./tools.mjs";

const warn = (text) => console.error(`prepare: ${text}`);
let status = 0;

if (binOf("typescript", "tsc") === null)
  warn("dist is not built: typescript is not installed (npm ci without --omit=dev installs it)");
else status = runNode(join(ROOT, "scripts/build.mjs"), []);

if (process.platform !== "linux") warn(`the native addon is not built: it needs Linux, this is ${process.platform}`);
else if (findCompiler() === null)
  warn("the native addon is not built: no C compiler (install gcc and libc6-dev, then npm run build:native)");
else if (!isInstalled("node-api-headers")) {
  warn("the native addon is not built: node-api-headers is not installed (npm ci without --omit=dev installs it)");
} else if (runNode(join(ROOT, "scripts/build-native.mjs"), ["--if-missing"]) !== 0)
  warn("the native addon is not built");

const tap = binOf("tap", "tap");
if (tap === null) warn("tests cannot run: tap is not installed (npm ci without --omit=dev installs it)");
else if (!tapIsBuilt() && runNode(tap, ["build"], { stdio: ["ignore", "ignore", "inherit"] }) !== 0)
  warn("`tap build` failed");

process.exit(status);
