// A private network namespace for a test file to run in.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import t from "tap";

const NETNS_MARK = "TUNRELAY_TEST_NETNS";

/** Whether this process runs in a namespace made by {@link inNamespace}. */
export function isInNamespace(): boolean {
  return process.env[NETNS_MARK] === "1";
}

/**
 * Run the calling test file again in a network namespace of its own (as root, or as root of a user namespace), where
 * `define` then declares the tests. Where no namespace can be made the tests are skipped with the reason, which
 * counts as a failure under CI.
 */
export function inNamespace(fileUrl: string, define: () => void): void {
  if (isInNamespace()) {
    define();
    return;
  }
  const ways = [["-n"], ["-rn"]];
  let reason = "";
  for (const way of ways) {
    const probe = spawnSync("unshare", [...way, "true"], { encoding: "utf8" });
    if (probe.status === 0) {
      const args = [...way, process.execPath, fileURLToPath(fileUrl)];
      void t.spawn("unshare", args, { env: { ...process.env, [NETNS_MARK]: "1" } }, "in a network namespace");
      return;
    }
    reason = probe.error?.message ?? probe.stderr.trim();
  }
  skipOrFail("in a network namespace", `no network namespace can be made here: ${reason}`);
}

/** A test that cannot run: skipped with its reason, a failure under CI. */
export function skipOrFail(name: string, reason: string): void {
  const { CI } = process.env;
  if (CI === "true") {
    t.fail(`${name}: ${reason}`);
  } else {
    t.comment(`skipped, ${name}: ${reason}`);
    t.test(name, { skip: reason }, () => {});
  }
}
