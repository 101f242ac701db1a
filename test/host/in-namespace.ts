/**
 * Importing this first re-executes the test file in a network namespace of its own (as root by `unshare -n`, otherwise
 * through a user namespace), so that what it does to interfaces and routes touches nothing else.
 */
import { spawnSync } from "node:child_process";

const MARK = "TUNRELAY_TEST_NAMESPACE";

// Synchronous: modules that are imported after this one must not start in the outer process.
if (process.env[MARK] === undefined) {
  const asRoot = process.geteuid?.() === 0;
  const unshare = ["unshare", ...(asRoot ? ["--net"] : ["--user", "--map-root-user", "--net"]), "--"];
  const node = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  // The inner process ends when this one is killed.
  const { status, error } = spawnSync("setpriv", ["--pdeathsig", "TERM", "--", ...unshare, ...node], {
    stdio: "inherit",
    env: { ...process.env, [MARK]: "1" },
  });
  if (error !== undefined) throw error;
  process.exit(status ?? 1);
}
