/**
 * Importing this first re-executes the test file in a network namespace of its own (as root by `unshare -n`, otherwise
 * through a user namespace), so that what it does to interfaces and routes touches nothing else.
 */
import { spawn } from "node:child_process";

const MARK = "TUNRELAY_TEST_NAMESPACE";

if (process.env[MARK] === undefined) {
  const asRoot = process.geteuid?.() === 0;
  const flags = asRoot ? ["--net"] : ["--user", "--map-root-user", "--net"];
  const child = spawn("unshare", [...flags, "--", process.execPath, ...process.execArgv, ...process.argv.slice(1)], {
    stdio: "inherit",
    env: { ...process.env, [MARK]: "1" },
  });
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => child.kill(signal));
  const code = await new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (status) => resolve(status ?? 1));
  });
  process.exit(code);
}
