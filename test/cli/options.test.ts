import t from "tap";
import { CliError } from "../../src/cli/cli-error.ts";
import { ExitCode, exitCodeOf } from "../../src/cli/exit-codes.ts";
import { LineLogger, LOG_LEVELS } from "../../src/cli/log.ts";
import { resolveHost } from "../../src/cli/resolve.ts";
import {
  parseCidrOption,
  parseCount,
  parseDevice,
  parseDuration,
  parseInterfaceName,
  parseListen,
  parseLogLevel,
  parseMark,
  parseMtu,
  parseRoutes,
  parseSize,
} from "../../src/cli/values.ts";
import { formatAddress } from "../../src/stack/flow/address.ts";

/** The message of the CliError that `work` throws; its exit code must be 2. */
async function complaint(work: () => unknown): Promise<string> {
  try {
    return `no complaint: ${JSON.stringify(await work())}`;
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    return error.exitCode === ExitCode.usage ? error.message : `exit code ${error.exitCode}`;
  }
}

const v6 = [parseCidrOption("--address", "fd00::1/64")];

t.test("values: good ones", async (t) => {
  t.equal(parseMtu("576", [], []), 576);
  t.equal(parseMtu("65535", v6, []), 65_535);
  t.equal(parseMtu("1280", v6, v6), 1280);
  t.equal(parseMtu("576", [], [parseCidrOption("--route", "192.0.2.0/24")]), 576);
  t.equal(parseMark("0"), 0);
  t.equal(parseMark("4294967295"), 0xffff_ffff);
  t.equal(parseMark("0xCA6c"), 0xca6c);
  t.equal(parseCount("-n", "7", 1, 9), 7);
  t.equal(parseDevice("tun0"), "tun0");
  t.equal(parseDevice("tun://a-name_15.byte"), "a-name_15.byte");
  t.equal(parseDevice("TUN://x"), "x");
  t.equal(parseInterfaceName("--interface", "eth0.100@if3"), "eth0.100@if3");
  t.same(LOG_LEVELS.map(parseLogLevel), LOG_LEVELS);
  t.same(parseListen("127.0.0.1:1080"), { host: "127.0.0.1", port: 1080 });
  t.same(parseListen("[::1]:0"), { host: "::1", port: 0 });
  t.same(parseListen(":65535"), { host: "0.0.0.0", port: 65_535 });
  t.same(parseListen("localhost:1"), { host: "localhost", port: 1 });
});

t.test("values: sizes", async (t) => {
  for (const [text, bytes] of [
    ["8M", 8 << 20],
    ["64m", 64 << 20],
    ["64MiB", 64 << 20],
    ["1G", 1 << 30],
    ["1.5GB", 1.5 * (1 << 30)],
    ["16384K", 16 << 20],
    ["8388608", 8 << 20],
  ] as const) {
    t.equal(parseSize("--max-memory", text, 8 << 20, 2047 << 20), bytes, text);
  }
  for (const text of ["", "0", "M", "-1M", "7M", "2G", "1T", "1e3M", "64 M", "0x40M", "64MM"]) {
    const said = await complaint(() => parseSize("--max-memory", text, 8 << 20, 2047 << 20));
    t.equal(said, `--max-memory ${text === "" ? '""' : text}: expected a size from 8M to 2047M, such as 64M or 1G`);
  }
});

t.test("values: durations", async (t) => {
  for (const [text, ms] of [
    ["0", 0],
    ["0s", 0],
    ["500ms", 500],
    ["1.5s", 1500],
    ["120s", 120_000],
    ["2m", 120_000],
    ["1m30s", 90_000],
    ["1h", 3_600_000],
    ["1h0m1s5ms", 3_601_005],
  ] as const) {
    t.equal(parseDuration("--drain", text, 0, 86_400_000), ms, text);
  }
  for (const text of ["", "5", "-1s", "1 s", "1d", "s", "1e3s", "1s2", "25h", "Infinity", "1,5s"]) {
    t.equal(
      await complaint(() => parseDuration("--drain", text, 0, 86_400_000)),
      `--drain ${text === "" ? '""' : text}: expected a duration from 0ms to 24h, such as 500ms, 120s or 1m30s`,
    );
  }
});

t.test("values: each bad one is named with what is expected", async (t) => {
  const rows: readonly (readonly [() => unknown, string])[] = [
    [() => parseMtu("575", [], []), "--mtu 575: expected a number from 576 to 65535"],
    [() => parseMtu("65536", [], []), "--mtu 65536: expected a number from 576 to 65535"],
    [() => parseMtu("1500.5", [], []), "--mtu 1500.5: expected a number from 576 to 65535"],
    [() => parseMtu("0x5dc", [], []), "--mtu 0x5dc: expected a number from 576 to 65535"],
    [() => parseMtu("", [], []), '--mtu "": expected a number from 576 to 65535'],
    [
      () => parseMtu("1279", v6, []),
      "--mtu 1279: IPv6 needs at least 1280; raise it or leave out --address fd00::1/64",
    ],
    [
      () => parseMtu("576", [], [parseCidrOption("--route", "2001:db8::/32")]),
      "--mtu 576: IPv6 needs at least 1280; raise it or leave out --route 2001:db8::/32",
    ],
    [
      async () => parseMtu("576", [], await parseRoutes(["default"])),
      "--mtu 576: IPv6 needs at least 1280; raise it or leave out --route ::/0 (of default, 0.0.0.0/0 is the IPv4 part)",
    ],
    [() => parseMark("-1"), "--fwmark -1: expected a number from 0 to 4294967295, decimal or with 0x"],
    [() => parseMark("4294967296"), "--fwmark 4294967296: expected a number from 0 to 4294967295, decimal or with 0x"],
    [() => parseMark("0x"), "--fwmark 0x: expected a number from 0 to 4294967295, decimal or with 0x"],
    [() => parseLogLevel("loud"), "--loglevel loud: expected one of silent, error, warn, info, debug"],
    [
      () => parseDevice("tap://tap0"),
      "--device tap://tap0: only TUN devices are served: write tun://NAME or just NAME",
    ],
    [
      () => parseDevice("tun://"),
      "--device tun://: expected an interface name of 1 to 15 ASCII characters without space, slash and colon",
    ],
    [
      () => parseDevice("sixteen-letters0"),
      "--device sixteen-letters0: expected an interface name of 1 to 15 ASCII characters without space, slash and colon",
    ],
    [
      () => parseInterfaceName("--interface", "a b"),
      "--interface a b: expected an interface name of 1 to 15 ASCII characters without space, slash and colon",
    ],
    [
      () => parseRoutes(["10.0.0.1/8"]),
      "--route 10.0.0.1/8: it has bits set after its prefix; did you mean 10.0.0.0/8",
    ],
    [() => parseRoutes(["fd00::1/64"]), "--route fd00::1/64: it has bits set after its prefix; did you mean fd00::/64"],
    [() => parseRoutes(["10.0.0.0/8", "::/0", "10.0.0.0/8"]), "--route 10.0.0.0/8: it is given twice; leave one out"],
    [() => parseRoutes(["fd00::/8", "FD00:0::/8"]), "--route FD00:0::/8: it is given twice; leave one out"],
    [() => parseRoutes(["default", "0.0.0.0/0"]), "--route 0.0.0.0/0: it is given twice; leave one out"],
    [
      () => parseListen("1080"),
      "--listen 1080: expected an address and a port from 0 to 65535, such as 127.0.0.1:1080 or [::1]:1080",
    ],
    [
      () => parseListen("::1:1080"),
      "--listen ::1:1080: expected an address and a port from 0 to 65535, such as 127.0.0.1:1080 or [::1]:1080",
    ],
    [
      () => parseListen("127.0.0.1:65536"),
      "--listen 127.0.0.1:65536: expected an address and a port from 0 to 65535, such as 127.0.0.1:1080 or [::1]:1080",
    ],
    [() => parseListen("[127.0.0.1]:1"), "--listen [127.0.0.1]:1: expected an IPv6 address between [ and ]"],
    [() => parseListen("127.0.0.256:1"), "--listen 127.0.0.256:1: 127.0.0.256 is not a valid IPv4 address"],
  ];
  for (const [work, message] of rows) t.equal(await complaint(work), message);
  for (const text of ["10.0.0.1/33", "10.0.0/8", "fd00::/129", "x", "10.0.0.1/", "10.0.0.1/-1", "10.0.0.1/8/8"]) {
    t.match(await complaint(() => parseCidrOption("--address", text)), /^--address: \S+ .*\d/, text);
  }
});

t.test("values: routes keep their text, default is both families", async (t) => {
  const routes = await parseRoutes(["default", "10.0.0.0/8", "10.1.0.0/16"]);
  t.same(
    routes.map(({ text, address, prefixLength }) => [text, formatAddress(address), prefixLength]),
    [
      ["0.0.0.0/0", "0.0.0.0", 0],
      ["::/0", "::", 0],
      ["10.0.0.0/8", "10.0.0.0", 8],
      ["10.1.0.0/16", "10.1.0.0", 16],
    ],
  );
});

t.test("resolveHost: addresses need no resolver, localhost has one", async (t) => {
  t.same((await resolveHost("192.0.2.7")).map(formatAddress), ["192.0.2.7"]);
  t.same((await resolveHost("2001:db8::1")).map(formatAddress), ["2001:db8::1"]);
  t.equal((await resolveHost("localhost")).length > 0, true);
});

t.test("exit codes: by class and by stable code", async (t) => {
  t.equal(exitCodeOf(new CliError(ExitCode.inUse, "x")), 73);
  for (const [code, exitCode] of [
    ["UPSTREAM_URL", 2],
    ["LISTEN_IN_USE", 73],
    ["HOST_PERMISSION", 77],
    ["HOST_FAILED", 71],
    ["SOMETHING_ELSE", 1],
  ] as const) {
    t.equal(exitCodeOf(Object.assign(new Error("x"), { code })), exitCode, code);
  }
  t.equal(exitCodeOf("text"), 1);
});

/** A logger whose lines and clock are in our hands. */
function testLogger(level: (typeof LOG_LEVELS)[number]): { log: LineLogger; lines: string[]; clock: { now: number } } {
  const lines: string[] = [];
  const clock = { now: 1_700_000_000_000 };
  const log = new LineLogger(level, { write: (line) => lines.push(line.slice(9)), now: () => clock.now });
  return { log, lines, clock };
}

t.test("logger: each level lets through what is at least as severe", async (t) => {
  for (const [rank, level] of LOG_LEVELS.entries()) {
    const { log, lines } = testLogger(level);
    log.error("e");
    log.warn("w");
    log.info("i");
    log.debug("d");
    t.same(lines, ["error e", "warn  w", "info  i", "debug d"].slice(0, rank), level);
    t.equal(log.isEnabled("error"), rank >= 1);
    t.equal(log.isEnabled("debug"), rank >= 4);
  }
});

t.test("logger: a repeat is held back for a second, then counted", async (t) => {
  const { log, lines, clock } = testLogger("info");
  for (let i = 0; i < 42; i++) log.warn("down");
  log.warn("other");
  clock.now += 999;
  log.warn("down");
  clock.now += 1;
  log.warn("down");
  log.warn("down");
  log.close();
  t.same(lines, ["warn  down", "warn  other", "warn  down (and 42 more of these)", "warn  down (and 1 more of these)"]);
});

t.test("logger: what it remembers is bounded, and nothing held back is lost", async (t) => {
  const { log, lines } = testLogger("info");
  log.info("first");
  log.info("first");
  for (let i = 0; i < 1000; i++) log.info(`message ${i}`);
  t.equal(lines.length, 1002);
  t.equal(lines.includes("info  first (and 1 more of these)"), true);
});

t.test("logger: an event is one line, whatever is in it", async (t) => {
  const { log, lines } = testLogger("info");
  log.info("a\nb\u001b[31mc\r\n\u0085d");
  t.same(lines, ["info  a b\ufffd[31mc\ufffdd"]);
});
