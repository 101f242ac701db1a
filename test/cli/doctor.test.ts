/** `tunrelay doctor` on this machine: as root, as a user, without the device, without the addon, with few open files. */
import { readdirSync, readFileSync } from "node:fs";
import t, { type Test } from "tap";
import { exitCodeFor, formatJson, formatTable } from "../../src/cli/doctor.ts";
import type { Finding } from "../../src/host/doctor/finding.ts";
import { NetworkNamespace, type Outcome, runCommand, SHIM, skipWithoutTun } from "./command.ts";

t.setTimeout(240_000);

const skip = skipWithoutTun();
/** A user without any right. */
const NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];

interface Row {
  readonly name: string;
  readonly state: string;
  readonly detail: string | null;
  readonly cause: string | null;
  readonly remedy: string | null;
}

/** Runs `doctor --json` and checks the form of its answer. */
async function examine(
  t: Test,
  prefix: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ outcome: Outcome; row: (name: string) => Row; rows: readonly Row[] }> {
  const outcome = await runCommand(["doctor", "--json"], { prefix, env });
  t.equal(outcome.stderr, "", "nothing on stderr");
  const report = JSON.parse(outcome.stdout) as { ok: boolean; version: string; findings: readonly Row[] };
  t.same(Object.keys(report), ["ok", "version", "findings"]);
  t.equal(report.version, (JSON.parse(readFileSync("package.json", "utf8")) as { version: string }).version);
  for (const row of report.findings) {
    t.same(Object.keys(row), ["name", "state", "detail", "cause", "remedy"]);
    t.match(row.state, /^(ok|warning|problem|unknown)$/);
    t.equal(row.cause === null, row.state === "ok", `${row.name}: a cause`);
    t.equal(row.remedy === null, row.state === "ok", `${row.name}: and a remedy`);
    t.equal(row.detail === null, row.state !== "ok", `${row.name}: or what was found`);
  }
  const problems = report.findings.filter(({ state }) => state === "problem");
  t.equal(report.ok, problems.length === 0);
  t.equal(outcome.status === 0, report.ok, `exit ${outcome.status}`);
  const row = (name: string): Row => {
    const found = report.findings.find((finding) => finding.name === name);
    if (found === undefined) throw new Error(`no finding ${name} in ${outcome.stdout}`);
    return found;
  };
  return { outcome, row, rows: report.findings };
}

/** Words that run a command in a mount namespace of its own, after `script`. */
function afterMounts(script: string): readonly string[] {
  return ["unshare", "--mount", "sh", "-c", `${script} && exec "$0" "$@"`];
}

const EMPTY_DEV_NET = "mkdir -p /dev/net && mount -t tmpfs tmpfs /dev/net";
const OPEN_NODE = `${EMPTY_DEV_NET} && mknod /dev/net/tun c 10 200 && chmod 666 /dev/net/tun`;

t.test("doctor as root: all is there, and nothing is left behind", { skip }, async (t) => {
  const namespace = await NetworkNamespace.create();
  t.teardown(() => namespace.close());
  const { outcome, row, rows } = await examine(t, namespace.prefix);
  t.equal(outcome.status, 0, outcome.stdout);
  t.equal(row("device").detail, "one was made in a namespace of its own and taken away");
  t.equal(row("packets").detail, "a datagram went through the device and came back");
  t.equal(row("queue").detail, "10000 packets fit into the device's queue");
  const calm = rows.filter(
    ({ state, name }) => state !== "ok" && !/^(descriptors|memory|offload|ipv6|rp-filter)$/.test(name),
  );
  t.same(calm, [], "the rest may differ from machine to machine");
  t.same(await namespace.interfaces(), ["lo"]);
});

t.test("doctor where no namespace can be made: the device is made here for a moment", { skip }, async (t) => {
  const namespace = await NetworkNamespace.create();
  t.teardown(() => namespace.close());
  // A wrapper of unshare that fails, in front of the PATH of what it starts.
  const script = `${EMPTY_DEV_NET.replaceAll("/dev/net", "/mnt")} && printf '#!/bin/sh\\necho "unshare: unshare failed: Operation not permitted" >&2\\nexit 1\\n' >/mnt/unshare && chmod 755 /mnt/unshare && PATH=/mnt:$PATH`;
  const { outcome, row } = await examine(t, [...namespace.prefix, ...afterMounts(script)]);
  t.equal(outcome.status, 0, outcome.stdout);
  t.equal(row("namespaces").state, "warning");
  t.equal(row("device").detail, "one was made here and taken away");
  t.equal(row("queue").state, "ok");
  t.equal(row("packets").state, "unknown");
  t.same(await namespace.interfaces(), ["lo"]);
});

t.test("doctor as a user without rights: says which, exit 77", { skip }, async (t) => {
  const { outcome, row } = await examine(t, [...afterMounts(OPEN_NODE), ...NOBODY]);
  t.equal(outcome.status, 77, outcome.stdout);
  t.equal(row("rights").cause, "User 65534 has no CAP_NET_ADMIN (EPERM)");
  t.match(row("rights").remedy, /run as root/);
  t.equal(row("device-node").detail, "/dev/net/tun is open to this user (mode 666)");
  if (row("namespaces").state === "ok") t.match(row("packets").detail, /went through the device/);

  const closed = await examine(t, [...afterMounts(OPEN_NODE.replace("666", "600")), ...NOBODY]);
  t.equal(closed.outcome.status, 77);
  t.equal(closed.row("device-node").cause, "This user may not open /dev/net/tun (EACCES, mode 600)");
  t.match(closed.row("device-node").remedy, /chmod 666/);
  for (const name of ["device", "offload", "queue", "packets"]) t.equal(closed.row(name).state, "unknown", name);
});

t.test("doctor as root without CAP_NET_ADMIN, and with that of another namespace: exit 77", { skip }, async (t) => {
  const dropped = await examine(t, ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"]);
  t.equal(dropped.outcome.status, 77, dropped.outcome.stdout);
  t.equal(dropped.row("rights").cause, "User 0 has no CAP_NET_ADMIN (EPERM)");
  const apart = await examine(t, ["unshare", "--user", "--map-root-user", "--"]);
  t.equal(apart.outcome.status, 77, apart.outcome.stdout);
  t.match(apart.row("rights").cause, /another user namespace/);
});

t.test("doctor without a usable device node: exit 71, or 77 where it is forbidden", { skip }, async (t) => {
  for (const { script, cause, status } of [
    { script: EMPTY_DEV_NET, cause: "/dev/net/tun does not exist", status: 71 },
    {
      script: `${EMPTY_DEV_NET} && : >/dev/net/tun`,
      cause: "/dev/net/tun is no character device, not 10:200",
      status: 71,
    },
    {
      script: `${EMPTY_DEV_NET} && mkfifo /dev/net/tun`,
      cause: "/dev/net/tun is no character device, not 10:200",
      status: 71,
    },
    {
      script: `${EMPTY_DEV_NET} && mknod /dev/net/tun c 1 3`,
      cause: "/dev/net/tun is character device 1:3, not 10:200",
      status: 71,
    },
    {
      script: `${OPEN_NODE} && mount -o remount,nodev /dev/net`,
      cause: /^\/dev\/net\/tun is closed to root \(EACCES, mode 666\): .*nodev/,
      status: 77,
    },
  ]) {
    const { outcome, row } = await examine(t, afterMounts(script));
    t.equal(outcome.status, status, outcome.stdout);
    t.match(row("device-node").cause, cause);
    t.equal(row("module").state, "ok", "the kernel has it nevertheless");
    t.equal(row("device").state, "unknown");
  }
});

t.test("doctor with few open files", { skip }, async (t) => {
  const limited = (limit: number): readonly string[] => ["sh", "-c", `ulimit -n ${limit} && exec "$0" "$@"`];
  const few = await examine(t, limited(128));
  t.equal(few.outcome.status, 0, few.outcome.stdout);
  t.match(
    few.row("descriptors").cause,
    /^The limit of open files is 128: at most \d\d connections at a time, not 65536$/,
  );
  t.match(few.row("descriptors").remedy, /ulimit -Hn/);
  const none = await examine(t, limited(40));
  t.equal(none.outcome.status, 71, none.outcome.stdout);
  t.equal(none.row("descriptors").cause, "The limit of open files is 40: that is too few for run to start");
});

t.test("doctor without the addon, or with a file that is none: exit 71", { skip }, async (t) => {
  for (const { file, cause } of [
    { file: "/nonexistent", cause: "The native addon is missing: no file /nonexistent" },
    { file: "/bin/sh", cause: /^The native addon cannot be loaded: / },
  ]) {
    const { outcome, row } = await examine(t, [], { TUNRELAY_ADDON: file });
    t.equal(outcome.status, 71, outcome.stdout);
    t.match(row("addon").cause, cause);
    t.equal(row("addon").remedy, "correct or unset TUNRELAY_ADDON");
    for (const name of ["device", "sockets", "rights"]) t.equal(row(name).state, "unknown", name);
    t.equal(row("device-node").state, "ok");
  }
});

t.test("doctor with IPv6 off and a strict reverse path filter: warnings, exit 0", { skip }, async (t) => {
  const namespace = await NetworkNamespace.create();
  t.teardown(() => namespace.close());
  const settings = [
    "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6",
    "echo 1 >/proc/sys/net/ipv4/conf/default/rp_filter",
    "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter",
  ];
  const { outcome, row } = await examine(t, [
    ...namespace.prefix,
    ...["sh", "-c", `${settings.join(" && ")} && exec "$0" "$@"`],
  ]);
  t.equal(outcome.status, 0, outcome.stdout);
  t.match(row("ipv6").cause, "IPv6 is switched off (sysctl net.ipv6.conf.default.disable_ipv6)");
  t.match(row("rp-filter").cause, /strict/);
});

t.test("doctor without tools: a warning, and the device is tried nevertheless", { skip }, async (t) => {
  const namespace = await NetworkNamespace.create();
  t.teardown(() => namespace.close());
  // Only what bin/tunrelay needs itself.
  const tools = ["node", "sh", "readlink"].map((tool) => `ln -s "$(command -v ${tool})" /mnt/${tool}`).join(" && ");
  const { outcome, row } = await examine(t, [
    ...namespace.prefix,
    ...afterMounts(`mount -t tmpfs tmpfs /mnt && ${tools} && PATH=/mnt`),
  ]);
  t.equal(outcome.status, 0, outcome.stdout);
  t.match(row("tools").cause, /unshare \(ENOENT\).*ip \(ENOENT\)/);
  t.match(row("tools").remedy, /install util-linux and iproute2/);
  t.equal(row("namespaces").state, "warning");
  t.equal(row("device").detail, "one was made here and taken away");
  t.same(await namespace.interfaces(), ["lo"]);
});

t.test("doctor leaves no process", { skip }, async (t) => {
  const mark = `doctor-${process.pid}`;
  await runCommand(["doctor"], { env: { TUNRELAY_TEST_MARK: mark } });
  const left = readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && environmentOf(pid).includes(mark));
  t.same(left, []);
});

function environmentOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, "utf8");
  } catch {
    // It has ended.
    return "";
  }
}

t.test("doctor for people: a line each, remedies below, and the sum", async (t) => {
  const findings: readonly Finding[] = [
    { name: "node", state: "ok", detail: "20.19.0", cause: null, remedy: null, lacks: null },
    { name: "rights", state: "problem", detail: null, cause: "None\nat all", remedy: "Get some", lacks: "right" },
    { name: "x", state: "warning", detail: null, cause: "a://b:c@d", remedy: "e", lacks: null },
    { name: "y", state: "unknown", detail: null, cause: "f", remedy: "g", lacks: null },
  ];
  t.equal(
    formatTable(findings),
    [
      "ok       node    20.19.0",
      "problem  rights  None at all",
      "                 remedy: Get some",
      "warning  x       a://...@d",
      "                 remedy: e",
      "unknown  y       f",
      "                 remedy: g",
      "",
      '1 problem, 1 warning, 1 not tried: "tunrelay run" cannot work here',
      "",
    ].join("\n"),
  );
  const [node, rights, x] = findings as readonly [Finding, Finding, Finding, Finding];
  t.match(formatTable([node]), /\n\nAll is there\n$/);
  t.match(formatTable([node, x, x]), /\n\n2 warnings: "tunrelay run" works here\n$/);
  t.notMatch(formatJson(findings), "b:c");

  t.equal(exitCodeFor([node, x]), 0);
  t.equal(exitCodeFor([node, rights]), 77);
  t.equal(exitCodeFor([rights, { ...rights, lacks: "system" } as Finding]), 71);
});

t.test("doctor: the table on stdout, its reader may go, and options it has not", { skip }, async (t) => {
  const { status, stdout, stderr } = await runCommand(["doctor"]);
  t.equal(status, 0, stdout);
  t.equal(stderr, "");
  t.match(stdout, /^ok {7}node {12}\d+\.\d+\.\d+ on /);
  const help = await runCommand(["doctor", "--help"]);
  t.match(help.stdout, /--json/);
  const odd = await runCommand(["doctor", "--fix"]);
  t.equal(odd.status, 2);
  t.equal(odd.stderr, "tunrelay: unknown option '--fix'; see tunrelay doctor --help\n");
  const gone = await runCommand(["-c", '"$0" doctor > >(exit 0); echo $?', SHIM], { command: "bash" });
  t.equal(gone.stdout, "0\n", gone.stderr);
});
