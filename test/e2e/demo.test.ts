import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import type { DemoRow } from "../../src/cli/demo/table.ts";
import { type Outcome, Running, runCommand, skipWithoutTun } from "../cli/command.ts";
import { findProgram, pause } from "./harness.ts";

/** Words that run a command as an ordinary user. */
const NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/** The limit holds for the user namespace it is set in, and for nobody else. */
const noNamespaces = "echo 0 > /proc/sys/user/max_net_namespaces";

/** What `tunrelay demo --json` prints. */
interface DemoReport {
  readonly ok: boolean;
  readonly device: string;
  readonly rows: readonly DemoRow[];
}

const skip = skipWithoutTun();
const DEADLINE_MS = 120_000;
t.setTimeout(5 * DEADLINE_MS);

/** The demo's own directory for temporary files, which also marks its processes. */
const directory = mkdtempSync(join(tmpdir(), "tunrelay-e2e-"));
const env = { TMPDIR: directory };
chmodSync(directory, 0o777);
t.teardown(() => rmSync(directory, { recursive: true, force: true }));

/** Runs a shell script in a mount namespace of its own; `"$0"` is the command line program. */
function inMountNamespace(script: string): Promise<Outcome> {
  // The test runner hooks itself into every Node through NODE_OPTIONS; as another user it could not write its files.
  return runCommand([], { prefix: ["unshare", "--mount", "sh", "-c", `unset NODE_OPTIONS; ${script}`], env });
}

/** Processes of the demo that still run, by their environment. */
function demoProcesses(): string[] {
  const mark = `TMPDIR=${directory}`;
  return readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, "utf8").split("\0").includes(mark);
    } catch {
      // Gone in the meantime.
      return false;
    }
  });
}

function checkReport(t: Test, text: string): void {
  const report = JSON.parse(text) as DemoReport;
  t.same(
    report.rows.filter(({ result }) => result !== "ok"),
    [],
    "every row is ok",
  );
  t.equal(report.ok, true);
  t.match(report.device, /^tun0 \(linux tun, .*mtu 1500\)$/);
  const protocols = new Set(report.rows.map(({ protocol }) => protocol));
  for (const protocol of ["TCP IPv4", "TCP IPv6", "UDP IPv4", "UDP IPv6"]) t.ok(protocols.has(protocol), protocol);
  for (const row of report.rows) {
    if (/load/.test(row.flow)) t.equal(row.bytes, 64 * 1024 * 1024, `${row.protocol} ${row.flow}`);
    t.match(row.path, /^\w+ > tun0 > tunrelay/, `${row.protocol} ${row.flow}`);
  }
}

t.test("demo: real clients through the device, as a table", { skip, timeout: DEADLINE_MS }, async (t) => {
  const { status, stdout, stderr } = await runCommand(["demo"], { env });
  t.equal(status, 0, stderr);
  const lines = stdout.trimEnd().split("\n");
  t.match(lines.at(-1), /^device: tun0 \(linux tun, .*mtu 1500\)$/, "the last line names the device");
  t.match(lines.at(-2), /^all \d+ rows ok$/);
  const rows = lines.filter((line) => /^(TCP|UDP|ICMP) IPv[46] /.test(line));
  t.equal(`all ${rows.length} rows ok`, lines.at(-2));
  for (const row of rows) t.match(row, / {2}ok$/);
  t.match(stderr, /^\[ 1\/\d+\] TCP IPv4 {2}\S+ download 64 MiB: ok, \d+ Mbit\/s$/m, "progress");
  t.same(readdirSync(directory), [], "no temporary files");
});

t.test("demo --json, without curl, dig and ping", { skip, timeout: DEADLINE_MS }, async (t) => {
  const hide = ["curl", "dig", "ping"]
    .map(findProgram)
    .filter((file) => file !== null)
    .map((file) => `mount --bind /dev/null $(readlink -f ${file})`);
  const { status, stdout, stderr } = await inMountNamespace([...hide, 'exec "$0" demo --json'].join(" && "));
  t.equal(status, 0, stderr);
  checkReport(t, stdout);
  t.notMatch(stdout, /"(curl|dig|ping) /);
});

t.test("demo as an ordinary user where the device node allows it", { skip, timeout: DEADLINE_MS }, async (t) => {
  const namespace = await runCommand(["--user", "--map-root-user", "--net", "true"], {
    prefix: NOBODY,
    command: "unshare",
  });
  const script = `${tunNode("666")} && exec ${NOBODY.join(" ")} "$0" demo --json`;
  const { status, stdout, stderr } = await inMountNamespace(script);
  if (namespace.status === 0) {
    t.equal(status, 0, stderr);
    checkReport(t, stdout);
  } else {
    // This machine keeps user namespaces from ordinary users.
    t.equal(status, 1, stderr);
    t.match(stderr, /^tunrelay demo: No network namespace can be made: .*; .*\n$/);
  }
});

/** Shell commands that put a TUN device node with the given mode in place of the system's. */
function tunNode(mode: string): string {
  const make = "mknod /dev/net/tun c 10 200";
  return `mkdir -p /dev/net && mount -t tmpfs tmpfs /dev/net && ${make} && chmod ${mode} /dev/net/tun`;
}

t.test("demo where no TUN device can be had: one line with cause and remedy, exit 1", { skip }, async (t) => {
  for (const { name, script, says } of [
    {
      name: "no device node",
      script: 'mount -t tmpfs tmpfs /dev/net && exec "$0" demo',
      says: /^tunrelay demo: .*\/dev\/net\/tun does not exist; load the module \(modprobe tun\).*\n$/,
    },
    {
      name: "no rights",
      script: `${tunNode("600")} && exec ${NOBODY.join(" ")} "$0" demo`,
      says: /^tunrelay demo: .*may not open \/dev\/net\/tun \(EACCES\); run as root, or chmod 666.*\n$/,
    },
    {
      name: "no addon",
      script: 'TUNRELAY_ADDON=/nonexistent exec "$0" demo',
      says: /^tunrelay demo: The native addon is missing: .*TUNRELAY_ADDON.*\n$/,
    },
    {
      name: "no namespaces",
      script: `exec unshare --user --map-root-user sh -c '${noNamespaces} && exec "$0" demo' "$0"`,
      says: /^tunrelay demo: No network namespace can be made: .*No space left on device; raise the sysctls.*\n$/,
    },
  ]) {
    const { status, stdout, stderr } = await inMountNamespace(script);
    t.equal(status, 1, `${name}: ${stderr}`);
    t.equal(stdout, "", name);
    t.match(stderr, says, name);
  }
});

t.test("demo ended by a signal cleans up and says so in its exit code", { skip, timeout: DEADLINE_MS }, async (t) => {
  for (const { signal, code } of [
    { signal: "SIGINT", code: 130 },
    { signal: "SIGTERM", code: 143 },
    { signal: "SIGKILL", code: null },
  ] as const) {
    const demo = new Running(["demo"], { env });
    await demo.printed(/download/);
    const { status, stderr } = await demo.stop(signal);
    t.equal(status, code, `${signal}: ${stderr}`);
    // After SIGKILL the others notice by themselves; a hang meets the test's own limit.
    while (signal === "SIGKILL" && demoProcesses().length > 0) await pause();
    t.same(demoProcesses(), [], "no process");
    t.same(readdirSync(directory), [], "no temporary files");
  }
});
