/** The command line as people use it: bin/tunrelay is started for real, every failure is one line and an exit code. */
import { writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import t from "tap";
import {
  commandLineOf,
  eachOf,
  NetworkNamespace,
  Running,
  runCommand,
  type StartOptions,
  skipWithoutTun,
} from "./command.ts";

interface FailureRow extends StartOptions {
  readonly args: readonly string[];
  readonly status: number;
  /** The whole of stderr without `tunrelay: ` and its newline. */
  readonly line: string | RegExp;
}

/** Checks that a command ends with this status and this one line, and prints nothing else. */
async function checkFailure(t: Tap, row: FailureRow): Promise<void> {
  const { status, stdout, stderr } = await runCommand(row.args, row);
  const name = row.args.join(" ");
  t.equal(status, row.status, `${name}: exit code (${stderr.trim()})`);
  t.equal(stdout, "", `${name}: stdout`);
  t.match(stderr, /^tunrelay: [^\n]+\n$/, `${name}: one line`);
  const line = stderr.slice("tunrelay: ".length, -1);
  if (typeof row.line === "string") t.equal(line, row.line, name);
  else t.match(line, row.line, name);
}
interface Tap {
  equal(found: unknown, wanted: unknown, name: string): unknown;
  match(found: string, wanted: RegExp, name: string): unknown;
}

const direct = ["run", "--proxy", "direct://"];
const badUsage: readonly Omit<FailureRow, "status">[] = [
  { args: ["rnu"], line: "unknown command 'rnu' (Did you mean run?); see tunrelay --help" },
  { args: ["run", "--prxy", "x"], line: "unknown option '--prxy' (Did you mean --proxy?); see tunrelay run --help" },
  { args: ["run", "--proxy"], line: "option '-p, --proxy <url>' argument missing; see tunrelay run --help" },
  { args: ["run", "-proxy", "direct://"], line: "-proxy: long options have two dashes; write --proxy" },
  { args: ["run", "-device=tun0"], line: "-device: long options have two dashes; write --device" },
  { args: [...direct, "more"], line: /^too many arguments for 'run'/ },
  {
    args: ["run"],
    line: "--proxy is missing: give a URL such as socks5://127.0.0.1:1080, or set TUNRELAY_PROXY",
  },
  { args: ["run", "--proxy", ""], line: /^Proxy URL is empty/ },
  { args: ["run", "--proxy", "ftp://x"], line: /^Proxy URL has the unknown scheme "ftp"/ },
  { args: ["run", "--proxy", "socks5://u:s3cret@h:99999"], line: /^Proxy URL has port 99999, expected 1 to 65535/ },
  { args: ["run"], env: { TUNRELAY_PROXY: "gopher://x" }, line: /^Proxy URL has the unknown scheme "gopher"/ },
  { args: [...direct, "--mtu", "70000"], line: "--mtu 70000: expected a number from 576 to 65535" },
  {
    args: [...direct, "--mtu", "1000", "--address", "fd00::1/64"],
    line: "--mtu 1000: IPv6 needs at least 1280; raise it or leave out --address fd00::1/64",
  },
  {
    args: [...direct, "--mtu", "576", "--address", "10.0.0.1/24", "--route", "2001:db8::/32"],
    line: "--mtu 576: IPv6 needs at least 1280; raise it or leave out --route 2001:db8::/32",
  },
  { args: [...direct, "--address", "10.0.0.1/33"], line: /^--address: 10\.0\.0\.1\/33 has prefix length 33/ },
  { args: [...direct, "--address", "10.0.0.300/8"], line: /^--address: 10\.0\.0\.300\/8 is not an address/ },
  { args: [...direct, "--route", "10.0.0.1/8"], line: /^--route 10\.0\.0\.1\/8: .* did you mean 10\.0\.0\.0\/8$/ },
  { args: [...direct, "--device", "a/b"], line: /^--device a\/b: expected an interface name/ },
  { args: [...direct, "--device", "tap://x"], line: /^--device tap:\/\/x: only TUN devices are served/ },
  { args: [...direct, "--fwmark", "lots"], line: /^--fwmark lots: expected a number/ },
  { args: [...direct, "--udp-timeout", "10"], line: /^--udp-timeout 10: expected a duration from 1s to 24h/ },
  { args: [...direct, "--connect-timeout", "1ms"], line: /^--connect-timeout 1ms: expected a duration/ },
  {
    args: [...direct, "--answer-timeout", "soon"],
    line: /^--answer-timeout soon: expected a duration from 100ms to 10m/,
  },
  { args: [...direct, "--tcp-timeout", "0"], line: /^--tcp-timeout 0: expected a duration from 1s to 720h/ },
  { args: [...direct, "--keepalive", "10ms"], line: /^--keepalive 10ms: expected a duration from 1s to 24h/ },
  { args: [...direct, "--max-flows", "0"], line: "--max-flows 0: expected a number from 1 to 16777216" },
  { args: [...direct, "--max-flows-per-source", "x"], line: /^--max-flows-per-source x: expected a number from 1/ },
  { args: [...direct, "--max-dials", "-1"], line: /^--max-dials -1: expected a number from 1/ },
  { args: [...direct, "--max-half-open", "1e3"], line: /^--max-half-open 1e3: expected a number from 1/ },
  { args: [...direct, "--max-udp", "2000000"], line: "--max-udp 2000000: expected a number from 1 to 1048576" },
  { args: [...direct, "--max-memory", "4M"], line: /^--max-memory 4M: expected a size from 8M to 2047M, such as 64M/ },
  {
    args: [...direct, "--password-file", "/nowhere"],
    line: /^--password-file \/nowhere: it cannot be read \(ENOENT\)/,
  },
  { args: [...direct, "--proxy-pin", "00"], line: /^--proxy-pin 00: expected the SHA-256/ },
  {
    args: ["run", "--proxy", "http://a", "--proxy", "direct://"],
    line: /^Proxy chain/,
  },
  { args: [...direct, "--drain", "1d"], line: /^--drain 1d: expected a duration/ },
  { args: [...direct, "--loglevel", "all"], line: /^--loglevel all: expected one of silent, / },
  { args: ["serve", "--listen", "1080"], line: /^--listen 1080: expected an address and a port/ },
  { args: ["serve", "--max-connections", "0"], line: /^--max-connections 0: expected a number from 1/ },
  { args: ["serve", "--user", "ann"], line: /^--user ann: it has no password: give --password-file FILE/ },
  {
    args: ["serve"],
    env: { TUNRELAY_SERVE_PASSWORD: "s3cret" },
    line: "TUNRELAY_SERVE_PASSWORD gives a password without a name: add --user NAME",
  },
  {
    args: ["serve", "--user", "ann", "--password-file", "/nowhere/at/all"],
    line: "--password-file /nowhere/at/all: it cannot be read (ENOENT)",
  },
  { args: ["demo", "--fast"], line: "unknown option '--fast'; see tunrelay demo --help" },
];

t.test("bad usage: one line that names value and remedy, exit code 2", async (t) => {
  await eachOf(badUsage, (row) => checkFailure(t, { ...row, status: 2 }));
});

t.test("a password never shows in an error", async (t) => {
  const rows = [
    ["run", "--proxy", "socks5://ann:s3cret@host:x"],
    ["run", "--proxy", "socks5://ann:s3cret@host/%"],
    ["run", "--prxy=socks5://ann:s3cret@host"],
    ["socks5://ann:s3cret@host"],
  ];
  await eachOf(rows, async (args) => {
    const { status, stderr } = await runCommand(args);
    t.equal(status, 2, args.join(" "));
    t.notMatch(stderr, /s3cret/, args.join(" "));
  });
});

t.test("help lists what works, on stdout", async (t) => {
  for (const args of [["--help"], ["help"], ["run", "--help"], ["serve", "-h"], ["demo", "--help"], ["help", "run"]]) {
    const { status, stdout, stderr } = await runCommand(args);
    t.equal(status, 0, args.join(" "));
    t.equal(stderr, "");
    t.match(stdout, /^Usage: tunrelay/);
  }
  const { status, stdout, stderr } = await runCommand([]);
  t.equal(status, 2, "without a command");
  t.equal(stdout, "");
  t.match(stderr, /^Usage: tunrelay/);
});

t.test("run: a proxy name that does not resolve is exit code 69", async (t) => {
  await checkFailure(t, {
    args: ["run", "--proxy", "socks5://ann:s3cret@no-such-host.invalid:1080"],
    status: 69,
    line: /^proxy name no-such-host\.invalid does not resolve \(E\w+\): check the name/,
  });
});

t.test("serve: a port in use is exit code 73, an address of others 2", async (t) => {
  const taken = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => taken.once("listening", resolve));
  const { port } = taken.address() as net.AddressInfo;
  await checkFailure(t, {
    args: ["serve", "--listen", `127.0.0.1:${port}`],
    status: 73,
    line: `Cannot listen on 127.0.0.1:${port}: another program has the port; stop it or choose another port`,
  });
  await checkFailure(t, {
    args: ["serve", "--listen", "192.0.2.1:0"],
    status: 2,
    line: /^Cannot listen on 192\.0\.2\.1:0: no interface has this address/,
  });
  await new Promise((resolve) => taken.close(resolve));
});

/** Connects to a proxy and asks it to relay to a server of our own; resolves with the first bytes of its answer. */
async function askProxy(port: number, request: Uint8Array, host = "127.0.0.1"): Promise<Buffer> {
  const socket = net.connect(port, host);
  socket.write(request);
  const answer = await new Promise<Buffer>((resolve, reject) => {
    socket.once("data", resolve);
    socket.once("error", reject);
  });
  socket.destroy();
  return answer;
}

t.test("serve: listens on several addresses, asks for the password, ends with a signal", async (t) => {
  const file = join(t.testdir(), "password");
  writeFileSync(file, "s3cret\nsecond line\n", { mode: 0o600 });
  const args = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--listen",
    "127.0.0.2:0",
    "--user",
    "ann",
    "--password-file",
    file,
    ...["--loglevel", "warn"],
  ];
  const server = new Running(args);
  const [, first = "", second = ""] = await server.printed(
    /^listening on 127\.0\.0\.1:(\d+)\nlistening on 127\.0\.0\.2:(\d+)$/m,
  );
  const greeting = Uint8Array.of(5, 2, 0, 2);
  t.same([...(await askProxy(Number(first), greeting))], [5, 2], "RFC 1929 is asked for");
  t.same([...(await askProxy(Number(second), greeting, "127.0.0.2"))], [5, 2]);
  const login = Buffer.from("\x05\x01\x02\x01\x03ann\x06s3cret", "latin1");
  t.same([...(await askProxy(Number(first), login))].slice(0, 2), [5, 2]);
  const { status, stderr } = await server.stop("SIGTERM");
  t.equal(status, 0);
  t.equal(stderr, "");
});

t.test("serve: an open proxy for others is not made in silence", async (t) => {
  const server = new Running(["serve", "--listen", "0.0.0.0:0"]);
  await server.printed(/warn {2}anyone who reaches 0\.0\.0\.0:\d+ can use this proxy/);
  const { status } = await server.stop("SIGINT");
  t.equal(status, 0);
});

t.test("signals: the second one ends at once with 128 + its number", async (t) => {
  const module = join(process.cwd(), "dist/cli/signals.js");
  const script = `import { firstSignal } from ${JSON.stringify(module)};
    setInterval(() => {}, 1000);
    const first = firstSignal(); console.log("ready"); console.log(await first);`;
  for (const [second, status] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    const running = new Running(["--input-type=module", "-e", script], { command: process.execPath });
    await running.printed(/ready/);
    running.child.kill("SIGTERM");
    await running.printed(/SIGTERM/);
    t.equal((await running.stop(second)).status, status, second);
  }
});

t.test("a hangup that was ignored before stays ignored", async (t) => {
  const { SHIM } = await import("./command.ts");
  const server = new Running(["-c", `trap '' HUP; exec ${SHIM} serve --listen 127.0.0.1:0`], { command: "sh" });
  await server.printed(/listening/);
  server.child.kill("SIGHUP");
  server.child.kill("SIGTERM");
  t.equal((await server.outcome).status, 0);
});

const skip = skipWithoutTun();

t.test("run: needs the device node and rights, exit codes 71 and 77", { skip }, async (t) => {
  const hidden = "mount -t tmpfs none /dev/net";
  const inMounts = (setUp: string): string[] => ["unshare", "-n", "-m", "sh", "-c", `${setUp} && exec "$0" "$@"`];
  const without = (...capabilities: string[]): string[] => [
    "setpriv",
    `--inh-caps=${capabilities.map((name) => `-${name}`).join(",")}`,
    `--bounding-set=${capabilities.map((name) => `-${name}`).join(",")}`,
  ];
  await checkFailure(t, { args: direct, prefix: inMounts(hidden), status: 71, line: /\/dev\/net\/tun.*modprobe tun/ });
  await checkFailure(t, {
    args: direct,
    prefix: ["unshare", "-n", ...without("net_admin")],
    status: 77,
    line: /CAP_NET_ADMIN|root/,
  });
  await checkFailure(t, {
    args: [...direct, "--fwmark", "0x64"],
    prefix: ["unshare", "-n", ...without("net_admin", "net_raw")],
    status: 77,
    line: "--fwmark 100: marking packets needs CAP_NET_ADMIN (EPERM); run as root or give the container --cap-add NET_ADMIN",
  });
  await checkFailure(t, {
    args: direct,
    prefix: [
      ...inMounts(`${hidden} && mknod -m 000 /dev/net/tun c 10 200`),
      ...without("dac_override", "dac_read_search", "net_admin"),
    ],
    status: 77,
    line: /\/dev\/net\/tun/,
  });
});

t.test("run: without the addon there is one line that says how to get it", { skip }, async (t) => {
  await checkFailure(t, {
    args: direct,
    env: { TUNRELAY_ADDON: "/nowhere/tunrelay.node" },
    status: 71,
    line: /native addon.*TUNRELAY_ADDON/,
  });
});

t.test("run: in a namespace of its own", { skip }, async (t) => {
  const namespace = await NetworkNamespace.create();
  t.teardown(() => namespace.close());
  const { prefix } = namespace;
  const fail = (status: number, line: string | RegExp, ...args: string[]): Promise<void> =>
    checkFailure(t, { args: ["run", ...args], prefix, status, line });
  await namespace.run("ip", "link", "set", "lo", "up");

  await t.test("device, MTU, addresses and routes are set, SIGTERM takes all away", async (t) => {
    const running = new Running(
      [
        ...["run", "-p", "socks5://ann:s3cret@127.0.0.1:1080", "-d", "tun://t0", "--mtu", "1400"],
        ...[
          "--address",
          "198.18.0.1/15",
          "--address",
          "fd00:6::1/64",
          "--route",
          "192.0.2.0/24",
          "--route",
          "2001:db8::/32",
        ],
      ],
      { prefix },
    );
    await running.printed(
      / info {2}tunrelay \d+\.\d+\.\d+: t0 \(mtu 1400, .*\) -> socks5:\/\/\.\.\.@127\.0\.0\.1:1080\n/,
    );
    const link = await namespace.run("ip", "-o", "addr", "show", "dev", "t0");
    t.match(link, /198\.18\.0\.1\/15/);
    t.match(link, /fd00:6::1\/64/);
    t.match(await namespace.run("ip", "-o", "link", "show", "dev", "t0"), /[<,]UP[,>].* mtu 1400 .* qlen 10000/);
    t.match(await namespace.run("ip", "route"), /192\.0\.2\.0\/24 dev t0/);
    t.match(await namespace.run("ip", "-6", "route"), /2001:db8::\/32 dev t0/);
    t.equal(commandLineOf(running.pid), "tunrelay run", "the title hides the password");
    const { status, stdout, stderr } = await running.stop("SIGTERM");
    t.equal(status, 0);
    t.equal(stdout, "");
    t.notMatch(stderr, /s3cret/);
    t.same(await namespace.interfaces(), ["lo"]);
  });

  await t.test(
    "the queue holds a burst, also without addresses and routes; a device of others keeps its own",
    async (t) => {
      await namespace.run("ip", "tuntap", "add", "theirs", "mode", "tun");
      await namespace.run("ip", "link", "set", "theirs", "txqueuelen", "700");
      for (const { name, queue } of [
        { name: "ours", queue: 10_000 },
        { name: "theirs", queue: 700 },
      ]) {
        const running = new Running(["run", "--proxy", "reject://", "-d", name], { prefix });
        await running.printed(/ \(mtu 1500/);
        t.match(await namespace.run("ip", "-o", "link", "show", "dev", name), new RegExp(` qlen ${queue}\\b`), name);
        t.equal((await running.stop()).status, 0);
      }
      await namespace.run("ip", "link", "del", "theirs");
    },
  );

  await t.test("the proxy may come from the environment, and SIGINT ends as well", async (t) => {
    const running = new Running(["run", "--loglevel", "debug"], { prefix, env: { TUNRELAY_PROXY: "reject://" } });
    await running.printed(/tun0 \(mtu 1500, /);
    t.equal((await running.stop("SIGINT")).status, 0);
    t.same(await namespace.interfaces(), ["lo"]);
  });

  await t.test("--loglevel silent says nothing", async (t) => {
    const running = new Running(["run", "--proxy", "reject://", "-d", "quiet", "-l", "silent"], { prefix });
    while (!(await namespace.interfaces()).includes("quiet")) {
      // Each look is a process of its own: that is pause enough.
    }
    while (!/[<,]UP[,>]/.test(await namespace.run("ip", "-o", "link", "show", "dev", "quiet"))) {
      // As above.
    }
    running.child.kill("SIGKILL");
    const { stdout, stderr } = await running.outcome;
    t.equal(stdout + stderr, "");
    t.same(await namespace.interfaces(), ["lo"], "the device goes with the process, however that ends");
  });

  await t.test("a device that another process has is exit code 73", async (t) => {
    const first = new Running(["run", "--proxy", "reject://", "-d", "busy"], { prefix });
    await first.printed(/busy \(mtu 1500/);
    await fail(73, /busy/, "--proxy", "reject://", "-d", "busy");
    t.equal((await first.stop()).status, 0);
  });

  await t.test("a device that is deleted ends the program with one more line, exit code 71", async (t) => {
    const running = new Running(["run", "--proxy", "reject://", "-d", "gone"], { prefix });
    await running.printed(/gone \(mtu 1500/);
    await namespace.run("ip", "link", "del", "gone");
    const { status, stderr } = await running.outcome;
    t.equal(status, 71);
    t.match(stderr, /^[^\n]+\ntunrelay: [^\n]*gone[^\n]*\n$/);
  });

  await t.test("a loop onto the own upstream is refused, and nothing stays", async (t) => {
    const routes = ["--address", "198.18.0.1/15", "--route", "default"];
    await fail(
      2,
      /^the proxy 203\.0\.113\.1 would be reached through l0 itself, a loop: give --interface, --fwmark with an `ip rule`/,
      ...["--proxy", "socks5://203.0.113.1", "-d", "l0", ...routes],
    );
    await fail(
      2,
      /^direct:\/\/ would send what 0\.0\.0\.0\/0 brings in back to l1/,
      "--proxy",
      "direct://",
      "-d",
      "l1",
      ...routes,
    );
    await fail(
      2,
      /^direct:\/\/ would send what 2001:db8::\/32 brings in back to l2/,
      ...["--proxy", "direct://", "-d", "l2", "--address", "fd00:9::1/64", "--route", "2001:db8::/32"],
    );
    await fail(
      2,
      /^the proxy 198\.18\.5\.5 would be reached through l3/,
      ...["--proxy", "socks5://198.18.5.5", "-d", "l3", "--address", "198.18.0.1/15"],
    );
    await fail(
      2,
      /^the proxy 203\.0\.113\.1 would be reached through l4/,
      ...["--proxy", "socks5://203.0.113.1", "-d", "l4", "--fwmark", "0x77", ...routes],
    );
    t.same(await namespace.interfaces(), ["lo"]);
  });

  await t.test("--fwmark with a rule, --interface, and reject:// are no loop", async (t) => {
    await namespace.run("ip", "rule", "add", "fwmark", "0x77", "lookup", "100");
    await namespace.run("ip", "route", "add", "203.0.113.0/24", "dev", "lo", "table", "100");
    const routes = ["--address", "198.18.0.1/15", "--route", "0.0.0.0/0", "-d", "m0"];
    for (const args of [
      ["--proxy", "socks5://203.0.113.1", "--fwmark", "0x77"],
      ["--proxy", "socks5://203.0.113.1", "--interface", "lo"],
      ["--proxy", "direct://", "--interface", "lo"],
      ["--proxy", "reject://"],
      ["--proxy", "socks5://127.0.0.1"],
    ]) {
      const running = new Running(["run", ...args, ...routes], { prefix });
      await running.printed(/m0 \(mtu 1500/);
      t.equal((await running.stop()).status, 0, args.join(" "));
    }
    await namespace.run("ip", "rule", "del", "fwmark", "0x77");
  });

  await t.test("names and routes that the kernel refuses, and nothing stays", async (t) => {
    await fail(2, /^--interface nowhere: /, "--proxy", "direct://", "--interface", "nowhere");
    await namespace.run("ip", "route", "add", "192.0.2.0/24", "dev", "lo");
    const route = ["--route", "192.0.2.0/24"];
    await fail(73, /^Cannot add route 192\.0\.2\.0\/24 /, "--proxy", "reject://", "-d", "r0", ...route);
    await fail(2, /lo.*EINVAL/, "--proxy", "reject://", "-d", "lo");
    t.same(await namespace.interfaces(), ["lo"]);
  });
});

/** Two namespaces and a cable: `inner` has clients and the device, `outer` a proxy at 10.0.0.2 and a server behind it. */
async function twoNamespaces(): Promise<{ inner: NetworkNamespace; outer: NetworkNamespace }> {
  const [inner, outer] = await Promise.all([NetworkNamespace.create(), NetworkNamespace.create()]);
  await inner.run("ip", "link", "set", "lo", "up");
  await outer.run("ip", "link", "set", "lo", "up");
  await outer.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo");
  await inner.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", `${outer.pid}`);
  for (const [namespace, name, address] of [
    [inner, "v0", "10.0.0.1/24"],
    [outer, "v1", "10.0.0.2/24"],
  ] as const) {
    await namespace.run("ip", "address", "add", address, "dev", name);
    await namespace.run("ip", "link", "set", name, "up");
  }
  return { inner, outer };
}

const ECHO = `require("net").createServer((socket) => socket.on("error", () => {}).pipe(socket))
  .listen(7777, "192.0.2.1", () => console.log("ready"));`;
const CLIENT = `const socket = require("net").connect(7777, "192.0.2.1", () => socket.write("hello"));
  socket.on("data", (data) => console.log("got " + data));
  socket.on("error", (error) => console.log("error " + error.code));
  socket.on("close", () => { console.log("closed"); process.exit(0); });
  process.on("SIGUSR2", () => socket.end());`;

t.test("run: open flows have time to end, and a second signal ends them", { skip }, async (t) => {
  const { inner, outer } = await twoNamespaces();
  t.teardown(() => Promise.all([inner.close(), outer.close()]));
  const node = (script: string, namespace: NetworkNamespace): Running =>
    new Running(["-e", script], { command: process.execPath, prefix: namespace.prefix });
  const echo = node(ECHO, outer);
  const proxy = new Running(["serve", "--listen", "10.0.0.2:1080"], { prefix: outer.prefix });
  await Promise.all([echo.printed(/ready/), proxy.printed(/listening on 10\.0\.0\.2:1080/)]);
  const start = async (...args: string[]): Promise<Running> => {
    const device = ["--address", "198.18.0.1/15", "--route", "192.0.2.0/24"];
    const running = new Running(["run", "--proxy", "socks5://10.0.0.2", ...device, ...args], { prefix: inner.prefix });
    await running.printed(/tun0 \(mtu 1500/);
    return running;
  };

  await t.test("a flow that ends in time ends well", async (t) => {
    const running = await start("--drain", "10m", "--loglevel", "debug");
    const client = node(CLIENT, inner);
    await client.printed(/got hello/);
    running.child.kill("SIGTERM");
    await running.printed(/SIGTERM: ending/);
    client.child.kill("SIGUSR2");
    const { stdout } = await client.outcome;
    t.equal(stdout, "got hello\nclosed\n");
    t.equal((await running.outcome).status, 0);
  });

  await t.test("a flow that does not is reset when the time is over", async (t) => {
    const running = await start("--drain", "50ms");
    const client = node(CLIENT, inner);
    await client.printed(/got hello/);
    t.equal((await running.stop("SIGINT")).status, 0);
    t.equal((await client.outcome).stdout, "got hello\nerror ECONNRESET\nclosed\n");
  });

  await t.test("the second signal does not wait", async (t) => {
    const running = await start("--drain", "10m", "--loglevel", "debug");
    const client = node(CLIENT, inner);
    await client.printed(/got hello/);
    running.child.kill("SIGINT");
    await running.printed(/SIGINT: ending/);
    t.equal((await running.stop("SIGTERM")).status, 143);
    t.equal((await inner.interfaces()).includes("tun0"), false);
    client.child.kill("SIGKILL");
    await client.outcome;
  });

  echo.child.kill("SIGKILL");
  await echo.outcome;
  t.equal((await proxy.stop()).status, 0);
});
