/** Each finding of `doctor` on made-up machines: one that has everything, with one thing changed at a time. */
import { readFileSync } from "node:fs";
import t from "tap";
import { CHECKS, examine } from "../../src/host/doctor/checks.ts";
import { containerOf } from "../../src/host/doctor/container.ts";
import { type DeviceTrial, failedTrial } from "../../src/host/doctor/device-trial.ts";
import type { Needs } from "../../src/host/doctor/examination.ts";
import type { Finding } from "../../src/host/doctor/finding.ts";
import { type CommandResult, type Machine, thisMachine } from "../../src/host/doctor/machine.ts";
import { isAtLeast } from "../../src/host/doctor/system.ts";
import { type Addon, Errno } from "../../src/io/addon.ts";

const NEEDS: Needs = { flows: 1000, spareDescriptors: 32, memoryBytes: 256 << 20 };
const NODE = { isCharacterDevice: true, major: 10, minor: 200, mode: 0o666 };
/** What libc says, from the mouth of `unshare`. */
const NOT_PERMITTED = "unshare: unshare failed: Operation not permitted\n";
const NO_SPACE = "unshare: unshare failed: No space left on device\n";
const UID_MAP = "unshare: write failed /proc/self/uid_map: Operation not permitted\n";

/** What differs from a machine that has everything. */
interface Change extends Partial<Omit<Machine, "addon" | "run">> {
  readonly addon?: Partial<Addon> | { readonly problem: string; readonly cause: string; readonly remedy: string };
  readonly files?: Readonly<Record<string, string | null>>;
  /** Errno of the netlink request that changes nothing. */
  readonly netlink?: number;
  readonly trial?: Partial<DeviceTrial>;
  /** What `unshare` says; nothing when it succeeds. */
  readonly unshare?: string;
  /** Commands that are not there. */
  readonly absent?: readonly string[];
  readonly runs?: string[];
}

const TRIAL: DeviceTrial = {
  ...failedTrial(""),
  ...{ open: null, apart: true, vnetHeader: true, checksum: true, tso: true, uso: true, queue: 10_000 },
};
const FILES: Readonly<Record<string, string | null>> = {
  "/proc/misc": "234 btrfs-control\n200 tun\n",
  "/proc/sys/fs/file-nr": "1000\t0\t1000000\n",
  "/proc/self/status": "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n",
  "/proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n",
  "/proc/sys/net/ipv6/conf/default/disable_ipv6": "0\n",
  "/proc/sys/net/ipv4/conf/all/rp_filter": "0\n",
  "/proc/sys/net/ipv4/conf/default/rp_filter": "2\n",
};

function addonOf({ netlink = 0, addon }: Change): Addon {
  const memory: ArrayBuffer[] = [];
  const made: Partial<Addon> = {
    pollerOpen: () => 0,
    pollerClose: () => 0,
    registerSlab: (buffer) => memory.push(buffer) - 1,
    unregisterSlab: () => 0,
    udpOpen: () => 7,
    setOption: () => 0,
    close: () => 0,
    netlink: (slab, off) => {
      // NLMSG_ERROR with the errno, as the kernel acknowledges.
      new Int32Array(memory[slab] as ArrayBuffer, off, 5).set([36, 2, 1, 0, -netlink]);
      return 36;
    },
  };
  return { ...made, ...addon } as Addon;
}

function machineWith(change: Change): Machine {
  const { files = {}, addon, unshare = "", absent = [], trial = {}, runs = [], ...rest } = change;
  const run = (command: string, args: readonly string[]): CommandResult => {
    runs.push([command, ...args].join(" "));
    const result = { status: 0, stdout: "", stderr: "", error: null };
    if (absent.includes(command)) return { ...result, status: null, error: "ENOENT" };
    if (args.some((word) => word.endsWith("trial-process.js"))) {
      return { ...result, stdout: JSON.stringify({ ...TRIAL, apart: args.at(-1) === "apart", ...trial }) };
    }
    return args.at(-1) === "true" && unshare !== "" ? { ...result, status: 1, stderr: unshare } : result;
  };
  return {
    ...{ platform: "linux", arch: "x64", nodeVersion: "22.1.0", kernelRelease: "6.12.1", euid: 0, memoryLimit: 0 },
    ...{ env: {}, addonFile: "tunrelay.node", hasFile: () => false, kindOf: () => NODE, tryOpen: () => null },
    descriptors: () => ({ limit: 20_000, open: 20 }),
    readText: (path) => ({ ...FILES, ...files })[path] ?? null,
    ...rest,
    run,
    addon: addon !== undefined && "problem" in addon ? addon : addonOf(change),
  };
}

function find(change: Change, name: string): Finding {
  const finding = examine(machineWith(change), NEEDS).find((found) => found.name === name);
  if (finding === undefined) throw new Error(`no finding ${name}`);
  return finding;
}

/** The made-up machine's addon cannot be had. */
const NO_ADDON = { problem: "gone; get it", cause: "gone", remedy: "get it" };
const NO_NODE: Change = { kindOf: () => "ENOENT" };
const CLOSED: Change = { tryOpen: () => "EACCES" };
const USER: Change = {
  euid: 1000,
  netlink: Errno.EPERM,
  files: { "/proc/self/status": "CapEff:\t0000000000000000\n" },
};
const DOCKER: Change = { hasFile: (path) => path === "/.dockerenv" };
const noFile = (path: string): Change => ({ files: { [path]: null } });

interface Row {
  readonly name: string;
  readonly change: Change;
  readonly state: Finding["state"];
  readonly lacks?: Finding["lacks"];
  readonly cause?: string | RegExp;
  readonly remedy?: string | RegExp;
}

const rows: readonly Row[] = [
  {
    name: "node",
    change: { nodeVersion: "20.18.3" },
    state: "problem",
    cause: /20\.18\.3 is too old/,
    remedy: /20\.19/,
  },
  { name: "node", change: { nodeVersion: "20.19.0" }, state: "ok" },
  { name: "kernel", change: { platform: "darwin" }, state: "problem", cause: /this is darwin/ },
  { name: "kernel", change: { kernelRelease: "4.9.0-8-amd64" }, state: "problem", cause: /4\.9\.0-8-amd64 is too old/ },
  { name: "memory", change: { memoryLimit: 320 << 20 }, state: "ok" },
  { name: "memory", change: { memoryLimit: (320 << 20) - 1 }, state: "warning", remedy: /--max-memory 255M$/ },
  { name: "memory", change: { memoryLimit: 64 << 20 }, state: "warning", remedy: /^raise the limit of/ },
  { name: "memory", change: { memoryLimit: 2 ** 64 }, state: "ok" },
  {
    ...{ name: "descriptors", change: { descriptors: () => ({ limit: 1051, open: 20 }) }, state: "warning" },
    cause: "The limit of open files is 1051: at most 999 connections at a time, not 1000",
    remedy: /ulimit -Hn/,
  },
  { name: "descriptors", change: { descriptors: () => ({ limit: 1052, open: 20 }) }, state: "ok" },
  {
    ...{ name: "descriptors", change: { descriptors: () => ({ limit: 52, open: 20 }) }, state: "problem" },
    cause: "The limit of open files is 52: that is too few for run to start",
  },
  {
    ...{ name: "descriptors", change: { files: { "/proc/sys/fs/file-nr": "900\t0\t1000\n" } }, state: "warning" },
    cause:
      "The machine has 900 of at most 1000 files open (sysctl fs.file-max): at most 68 connections at a time, not 1000",
  },
  { name: "descriptors", change: { descriptors: () => null }, state: "warning", remedy: "mount /proc" },
  { name: "addon", change: { addon: NO_ADDON }, state: "problem", cause: "gone", remedy: "get it" },
  {
    name: "addon",
    change: { addon: { pollerOpen: () => -Errno.EMFILE } },
    state: "problem",
    cause: /epoll set \(EMFILE\)/,
  },
  { name: "tools", change: { absent: ["ip"] }, state: "warning", cause: /A tool .* ip \(ENOENT\)/, remedy: /iproute2/ },
  { name: "tools", change: { absent: ["ip", "unshare"] }, state: "warning", remedy: /util-linux and iproute2/ },
  {
    name: "device-node",
    change: NO_NODE,
    state: "problem",
    cause: "/dev/net/tun does not exist",
    remedy: /modprobe tun/,
  },
  { name: "device-node", change: { ...NO_NODE, ...DOCKER }, state: "problem", remedy: /--device \/dev\/net\/tun/ },
  { name: "device-node", change: { kindOf: () => "EACCES" }, state: "problem", lacks: "right", cause: /EACCES/ },
  {
    ...{ name: "device-node", change: { kindOf: () => ({ ...NODE, minor: 201 }) }, state: "problem" },
    cause: "/dev/net/tun is character device 10:201, not 10:200",
    remedy: /mknod \/dev\/net\/tun c 10 200$/,
  },
  {
    ...{ name: "device-node", change: { kindOf: () => ({ ...NODE, isCharacterDevice: false }) }, state: "problem" },
    cause: /is no character device/,
  },
  { name: "device-node", change: { tryOpen: () => "ENODEV" }, state: "problem", cause: /no TUN driver .* \(ENODEV\)/ },
  { name: "device-node", change: { ...CLOSED, ...USER }, state: "problem", lacks: "right", cause: /mode 666/ },
  { name: "device-node", change: CLOSED, state: "problem", lacks: "right", cause: /nodev/ },
  { name: "device-node", change: { tryOpen: () => "EPERM" }, state: "problem", lacks: "right", remedy: /DeviceAllow/ },
  { name: "device-node", change: { tryOpen: () => "EIO" }, state: "problem", cause: /\(EIO\)/ },
  { name: "module", change: noFile("/proc/misc"), state: "ok" },
  { name: "module", change: { ...NO_NODE, ...noFile("/proc/misc") }, state: "unknown" },
  {
    ...{ name: "module", change: { ...NO_NODE, files: { "/proc/misc": "1200 tun\n200 tunnel\n" } }, state: "problem" },
    cause: "The kernel has no TUN driver loaded",
    remedy: /"modprobe tun".*CONFIG_TUN/,
  },
  {
    name: "module",
    change: {
      ...NO_NODE,
      files: { "/proc/misc": "", "/lib/modules/6.12.1/modules.dep": "kernel/drivers/net/tun.ko.xz:\n" },
    },
    state: "problem",
    cause: "The module tun is there and not loaded",
  },
  { name: "rights", change: USER, state: "problem", lacks: "right", cause: /User 1000 has no CAP/, remedy: /sudo/ },
  { name: "rights", change: { ...USER, ...DOCKER }, state: "problem", lacks: "right", remedy: /--cap-add NET_ADMIN/ },
  {
    name: "rights",
    change: { netlink: Errno.EPERM },
    state: "problem",
    lacks: "right",
    cause: /another user namespace/,
  },
  { name: "rights", change: { netlink: Errno.ENODEV }, state: "problem", lacks: "system", cause: /ENODEV/ },
  { name: "rights", change: { addon: NO_ADDON }, state: "unknown" },
  { name: "rights", change: { ...USER, addon: NO_ADDON }, state: "problem", lacks: "right" },
  { name: "namespaces", change: { unshare: NO_SPACE }, state: "warning", remedy: /user\.max_user_namespaces/ },
  { name: "namespaces", change: { ...USER, unshare: UID_MAP }, state: "warning", remedy: /apparmor_restrict/ },
  { name: "namespaces", change: { unshare: NOT_PERMITTED }, state: "warning", remedy: /--cap-add SYS_ADMIN/ },
  { name: "namespaces", change: { absent: ["unshare"] }, state: "warning", remedy: "install util-linux" },
  {
    name: "namespaces",
    change: { euid: 1000, unshare: NOT_PERMITTED, files: { "/proc/sys/kernel/unprivileged_userns_clone": "0\n" } },
    state: "warning",
    remedy: /unprivileged_userns_clone to 1/,
  },
  { name: "device", change: NO_NODE, state: "unknown", cause: /device-node/ },
  { name: "device", change: { addon: NO_ADDON }, state: "unknown", cause: /addon/ },
  { name: "device", change: { ...USER, unshare: NOT_PERMITTED }, state: "unknown", cause: /neither rights nor/ },
  { name: "device", change: USER, state: "ok" },
  { name: "device", change: { unshare: NOT_PERMITTED }, state: "ok" },
  {
    name: "device",
    change: { trial: failedTrial("EPERM") },
    state: "problem",
    lacks: "right",
    remedy: /SELinux tun_socket/,
  },
  {
    name: "device",
    change: { ...USER, trial: failedTrial("EPERM") },
    state: "problem",
    lacks: "right",
    remedy: /as root/,
  },
  { name: "device", change: { trial: failedTrial("EINVAL") }, state: "problem", lacks: "system", cause: /EINVAL/ },
  { name: "device", change: { trial: failedTrial("ENOMEM") }, state: "problem", lacks: "system", cause: /ENOMEM/ },
  { name: "offload", change: { trial: { uso: false } }, state: "warning", cause: /USO/, remedy: /6\.2/ },
  { name: "offload", change: { trial: { uso: false, tso: false } }, state: "warning", cause: /no segmentation/ },
  {
    name: "offload",
    change: { trial: { uso: false, tso: false, checksum: false } },
    state: "warning",
    cause: /no offl/,
  },
  {
    ...{ name: "offload", state: "warning", cause: /virtio-net headers/ },
    change: { trial: { uso: false, tso: false, checksum: false, vnetHeader: false } },
  },
  { name: "offload", change: { trial: failedTrial("EPERM") }, state: "unknown" },
  { name: "queue", change: { trial: { queue: 500 } }, state: "warning", cause: /holds 500 packets, not 10000/ },
  { name: "queue", change: { trial: { queue: "EPERM" } }, state: "warning", cause: /cannot be set \(EPERM\)/ },
  { name: "packets", change: { unshare: NOT_PERMITTED }, state: "unknown" },
  { name: "packets", change: { trial: { ipv4: "EOPNOTSUPP" } }, state: "problem", cause: /EOPNOTSUPP/ },
  { name: "packets", change: { trial: { packets: "lost" } }, state: "problem", cause: "Packets do not pass: lost" },
  { name: "sockets", change: { addon: NO_ADDON }, state: "unknown" },
  {
    name: "sockets",
    change: { addon: { udpOpen: () => -Errno.EMFILE } },
    state: "problem",
    lacks: "system",
    cause: /EMFILE/,
  },
  { name: "sockets", change: { addon: { udpOpen: () => -Errno.EPERM } }, state: "problem", lacks: "right" },
  { name: "sockets", change: { addon: { setOption: () => -92 } }, state: "warning", cause: /UDP_SEGMENT and UDP_GRO/ },
  { name: "socket-options", change: { addon: NO_ADDON }, state: "unknown" },
  {
    ...{ name: "socket-options", change: { addon: { udpOpen: () => -Errno.EPERM } }, state: "warning" },
    cause: "The kernel refuses --fwmark (EPERM) and --interface (EPERM)",
  },
  {
    name: "socket-options",
    change: { ...DOCKER, addon: { udpOpen: () => -Errno.EPERM } },
    state: "warning",
    remedy: /--cap-add NET_ADMIN --cap-add NET_RAW$/,
  },
  { name: "ipv6", change: { addon: { udpOpen: () => -Errno.EAFNOSUPPORT } }, state: "warning", cause: /EAFNOSUPPORT/ },
  {
    ...{ name: "ipv6", change: { files: { "/proc/sys/net/ipv6/conf/default/disable_ipv6": "1\n" } }, state: "warning" },
    cause: "IPv6 is switched off (sysctl net.ipv6.conf.default.disable_ipv6)",
    remedy: /^sysctl -w net\.ipv6\.conf\.default\.disable_ipv6=0, /,
  },
  { name: "ipv6", change: noFile("/proc/sys/net/ipv6/conf/default/disable_ipv6"), state: "unknown" },
  { name: "ipv6", change: { trial: { ipv6: "EOPNOTSUPP" } }, state: "warning", cause: /EOPNOTSUPP/ },
  {
    ...{
      name: "rp-filter",
      change: { files: { "/proc/sys/net/ipv4/conf/default/rp_filter": "1\n" } },
      state: "warning",
    },
    remedy: /net\.ipv4\.conf\.DEVICE\.rp_filter=2/,
  },
  { name: "rp-filter", change: { files: { "/proc/sys/net/ipv4/conf/all/rp_filter": "1\n" } }, state: "ok" },
  { name: "rp-filter", change: noFile("/proc/sys/net/ipv4/conf/all/rp_filter"), state: "unknown" },
  { name: "container", change: DOCKER, state: "ok" },
  {
    ...{ name: "container", change: { ...DOCKER, ...NO_NODE, netlink: Errno.EPERM }, state: "warning" },
    cause: "This is a container (docker), and it lacks the device node and CAP_NET_ADMIN",
    remedy: "start it with --device /dev/net/tun --cap-add NET_ADMIN",
  },
  {
    ...{ name: "container", change: { ...DOCKER, ...USER, ...CLOSED }, state: "ok" },
  },
  {
    name: "container",
    change: { ...DOCKER, ...USER, files: { "/proc/self/status": "CapBnd:\t0000000000000000\n" } },
    state: "warning",
    remedy: "start it with --cap-add NET_ADMIN",
  },
];

t.test("doctor: a machine that has everything is fine in every respect", async (t) => {
  const findings = examine(machineWith({}), NEEDS);
  t.same(
    findings.map(({ name, state }) => `${name} ${state}`),
    CHECKS.map(({ name }) => `${name} ok`),
  );
});

t.test("doctor: each finding fails for its reason and names a remedy", async (t) => {
  for (const { name, change, state, lacks, cause, remedy } of rows) {
    const finding = find(change, name);
    const label = `${name}: ${finding.cause ?? finding.detail}`;
    t.equal(finding.state, state, label);
    if (lacks !== undefined) t.equal(finding.lacks, lacks, label);
    if (cause !== undefined) t.match(finding.cause, cause, label);
    if (remedy !== undefined) t.match(finding.remedy, remedy, `${name}: ${finding.remedy}`);
  }
  const failing = new Set(rows.filter(({ state }) => state !== "ok").map(({ name }) => name));
  t.same(
    CHECKS.map(({ name }) => name).filter((name) => !failing.has(name)),
    [],
    "every check can fail",
  );
});

t.test("doctor: a cause comes with a remedy, on one line each, whatever is wrong", async (t) => {
  for (const { change } of rows) {
    for (const { name, state, detail, cause, remedy, lacks } of examine(machineWith(change), NEEDS)) {
      t.equal(detail === null, state !== "ok", name);
      t.equal(cause === null, state === "ok", name);
      t.equal(remedy === null, state === "ok", name);
      t.equal(lacks !== null, state === "problem", name);
      t.notMatch(`${detail}${cause}${remedy}`, /\n|undefined|NaN|\.$/, name);
    }
  }
});

t.test("doctor: a device is made where it harms nobody, and where there is a right to", async (t) => {
  const trialsOf = (change: Change): string[] => {
    const runs: string[] = [];
    examine(machineWith({ ...change, runs }), NEEDS);
    return runs
      .filter((line) => line.includes("trial-process.js"))
      .map((line) => line.replace(process.execPath, "node").replace(/\S*trial-process\.js/, "trial"));
  };
  t.same(trialsOf({}), ["unshare --net -- node trial apart"], "once");
  t.same(trialsOf(USER), ["unshare --user --map-root-user --net -- node trial apart"]);
  t.same(trialsOf({ ...USER, euid: 0 }), ["unshare --user --map-root-user --net -- node trial apart"]);
  t.same(trialsOf({ unshare: NOT_PERMITTED }), ["node trial here"], "no namespace, but the right");
  t.same(
    trialsOf({ trial: failedTrial("EPERM") }),
    ["unshare --net -- node trial apart", "node trial here"],
    "the namespace is confined",
  );
  t.same(trialsOf({ ...USER, unshare: NOT_PERMITTED }), []);
  t.same(trialsOf(NO_NODE), []);
  t.same(trialsOf({ addon: NO_ADDON }), []);
});

t.test("containerOf: each kind by its mark", async (t) => {
  for (const { change, kind } of [
    { change: {}, kind: null },
    { change: { env: { KUBERNETES_SERVICE_HOST: "10.0.0.1" } }, kind: "kubernetes" },
    { change: { env: { container: "lxc" } }, kind: "lxc" },
    { change: { files: { "/run/systemd/container": "systemd-nspawn\n" } }, kind: "systemd-nspawn" },
    { change: { hasFile: (path: string) => path === "/run/.containerenv" }, kind: "podman" },
    { change: DOCKER, kind: "docker" },
    { change: { files: { "/proc/1/cgroup": "0::/kubepods/pod1\n" } }, kind: "kubernetes" },
    { change: { files: { "/proc/1/cgroup": "4:memory:/docker/0123\n" } }, kind: "docker" },
    { change: { files: { "/proc/1/cgroup": "0::/lxc.payload.box\n" } }, kind: "lxc" },
    { change: { files: { "/proc/1/cgroup": "0::/init.scope\n" } }, kind: null },
    { change: { kernelRelease: "5.15.90.1-microsoft-standard-WSL2" }, kind: "wsl" },
  ]) {
    t.equal(containerOf(machineWith(change)), kind);
  }
});

t.test("isAtLeast: numbers are compared, not text, and the oldest Node.js is that of package.json", async (t) => {
  t.ok(isAtLeast("10.2", [9, 10]));
  t.notOk(isAtLeast("6.2.0", [6, 12]));
  t.ok(isAtLeast("6.12-rc1", [6, 12]));
  t.notOk(isAtLeast("what", [4, 18]));
  const { engines } = JSON.parse(readFileSync("package.json", "utf8")) as { engines: { node: string } };
  const [, major, minor] = /^>=(\d+)\.(\d+)$/.exec(engines.node) ?? [];
  const least = find({ nodeVersion: `${major}.${minor}.0` }, "node");
  const older = find({ nodeVersion: `${major}.${Number(minor) - 1}.9` }, "node");
  t.same([least.state, older.state], ["ok", "problem"]);
});

t.test("thisMachine: asks the real one", { skip: process.platform !== "linux" }, async (t) => {
  const machine = thisMachine();
  t.match(machine.kindOf("/dev/null"), { isCharacterDevice: true, major: 1, minor: 3 });
  t.match(machine.kindOf("/proc/self/status"), { isCharacterDevice: false });
  t.equal(machine.kindOf("/nowhere"), "ENOENT");
  t.equal(machine.kindOf("/dev/null/x"), "ENOTDIR");
  t.equal(machine.tryOpen("/dev/null"), null);
  t.equal(machine.tryOpen("/nowhere"), "ENOENT");
  t.equal(machine.readText("/nowhere"), null);
  t.match(machine.readText("/proc/self/status"), /^CapEff:/m);
  t.same(machine.run("sh", ["-c", "echo a; echo b >&2; exit 3"]), {
    status: 3,
    stdout: "a\n",
    stderr: "b\n",
    error: null,
  });
  t.match(machine.run("no-such-command", []), { status: null, stdout: "", error: "ENOENT" });
});
