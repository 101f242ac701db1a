/**
 * Importing this first re-executes the test file in a network namespace of its own (as root by `unshare -n`, otherwise
 * through a user namespace), so that what it does to interfaces and routes touches nothing else. Where that is not
 * possible the file is skipped with the reason.
 */
import { spawnSync } from "node:child_process";
import { isAddonProblem, loadAddon } from "../../src/io/addon.ts";

const MARK = "TUNRELAY_TEST_NAMESPACE";
const asRoot = process.geteuid?.() === 0;
const UNSHARE = ["unshare", ...(asRoot ? ["--net"] : ["--user", "--map-root-user", "--net"]), "--"];

// Synchronous: modules that are imported after this one must not start in the outer process.
if (process.env[MARK] === undefined) {
  const reason = whyNot();
  if (reason !== null) {
    console.log(`TAP version 14\n1..0 # SKIP ${reason}`);
    process.exit(0);
  }
  const node = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  // The inner process ends when this one is killed.
  const { status, error } = spawnSync("setpriv", ["--pdeathsig", "TERM", "--", ...UNSHARE, ...node], {
    stdio: "inherit",
    env: { ...process.env, [MARK]: "1" },
  });
  if (error !== undefined) throw error;
  process.exit(status ?? 1);
}

function whyNot(): string | null {
  const addon = loadAddon();
  if (isAddonProblem(addon)) return addon.problem;
  const [command = "", ...args] = UNSHARE;
  const { error, status, stderr } = spawnSync(command, [...args, "ip", "-V"], { encoding: "utf8" });
  if (error !== undefined) return `${command} cannot be started: ${error.message}`;
  return status === 0 ? null : `no network namespace, or no iproute2: ${stderr.trim()}`;
}
