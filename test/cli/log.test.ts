/** Log lines for people and programs, secrets, and a standard error that is slow, full or gone. */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { formatHuman, LineLogger, type LogLevel, type LogRecord } from "../../src/cli/log.ts";
import { jsonFormat } from "../../src/cli/log-json.ts";
import { LineSink } from "../../src/cli/log-sink.ts";
import { hideSecrets, oneLine, safeText } from "../../src/cli/log-text.ts";
import type { FlowSummary } from "../../src/proxy/logger.ts";
import { Running, runCommand } from "./command.ts";

const basic = (text: string): string => Buffer.from(text).toString("base64");

const RECORD: LogRecord = {
  level: "warn",
  time: Date.UTC(2026, 0, 31, 14, 3, 7, 123),
  message: "proxy is down",
  heldBack: 0,
  flow: null,
  stack: null,
};
const FLOW: FlowSummary = {
  protocol: "tcp",
  client: "198.18.0.1:40222",
  destination: "[2001:db8::9]:443",
  upstream: "socks5://127.0.0.1:1080",
  end: "refused",
  reason: "SOCKS5 reply 5",
  durationMs: 1234.5,
  bytesUp: 517,
  bytesDown: 4096,
};

for (const { name, text, shown } of [
  { name: "user and password", text: "socks5://ann:s3cret@host:1080 is down", shown: "socks5://...@host:1080 is down" },
  { name: "an at sign in the password", text: "x http://ann:s3@cret@h y", shown: "x http://...@h y" },
  { name: "a slash in the password", text: "http://ann:s3/cret@h", shown: "http://...@h" },
  { name: "a quote in the password", text: "'--p=http://ann:s3'cret@h'", shown: "'--p=http://...@h'" },
  { name: "a space in the password", text: "http://ann:my s3cret@h, at 3", shown: "http://...@h, at 3" },
  { name: "only a user", text: "http://s3cret@h", shown: "http://...@h" },
  { name: "two URLs", text: "a://u:s3cret@h b://u:s3cret@h", shown: "a://...@h b://...@h" },
  {
    name: "a header field",
    text: `Proxy-Authorization: Basic ${basic("a:s3cret")}`,
    shown: "Proxy-Authorization: ...",
  },
  { name: "lower case", text: "authorization:Bearer s3cret", shown: "authorization: ..." },
  { name: "a field in JSON", text: '{"Proxy-Authorization":"s3cret"}', shown: '{"Proxy-Authorization": ...' },
  { name: "a scheme without its field", text: `sent Basic ${basic("ann:pw")} to h`, shown: "sent Basic ... to h" },
  {
    name: "a Digest answer",
    text: 'Digest username="a", response="s3cret", qop=auth',
    shown: 'Digest username="a", response=..., qop=auth',
  },
  { name: "a query", text: "GET /?password=s3cret&x=1", shown: "GET /?password=...&x=1" },
  { name: "a quoted password", text: 'passwd="s3 cret" rest', shown: "passwd=... rest" },
]) {
  t.test(`hideSecrets: ${name}`, async (t) => {
    t.equal(hideSecrets(text), shown);
    const { log, lines } = testLogger("info");
    log.warn(text);
    log.warn(`first line\r\n${text}`);
    t.notMatch(lines.join("\n"), /s3cret|my s3|YTpzM2NyZXQ/, "in a line for people");
    const json = jsonFormat()({
      ...RECORD,
      message: text,
      stack: [text],
      flow: { ...FLOW, reason: text, upstream: text },
    });
    t.notMatch(json, /s3cret|my s3|YTpzM2NyZXQ/, "in a line for programs");
  });
}

t.test("hideSecrets: what is no secret stays as it is", async (t) => {
  for (const text of [
    "proxy socks5://127.0.0.1:1080 refused the connection",
    "socks5://127.0.0.1:1080 said: ask admin@example.org",
    "wrong password: check it",
    "basic authentication is not offered, only Basic information",
    "the response is late",
    "socks5://[2001:db8::1]:1080, https://example.org/a/b",
  ]) {
    t.equal(hideSecrets(text), text);
  }
});

t.test("oneLine: what could change the terminal or the direction of writing is made visible", async (t) => {
  t.equal(oneLine("a\tb\r\nc"), "a b c");
  t.equal(oneLine("\u001b[2Ja\u0007\u009bm"), "\ufffd[2Ja\ufffdm");
  t.equal(oneLine("abc\u202edef\u2066g"), "abc\ufffddef\ufffdg");
  t.equal(safeText("Authorization: Basic\nczNjcmV0"), "Authorization: ...", "a line break does not end a header field");
});

/** A logger whose lines and clock are in our hands. */
function testLogger(level: LogLevel, options: { flows?: boolean; json?: boolean } = {}) {
  const lines: string[] = [];
  const clock = { now: RECORD.time };
  const log = new LineLogger(level, {
    write: (line) => lines.push(line),
    now: () => clock.now,
    flows: options.flows ?? false,
    ...(options.json === true ? { format: jsonFormat() } : {}),
  });
  return { log, lines, clock };
}

t.test("JSON: level, time and message by name; how many were held back is a field", async (t) => {
  const { log, lines, clock } = testLogger("info", { json: true });
  log.warn("down\u001b[1m\n");
  for (let i = 0; i < 3; i++) log.warn("down\u001b[1m\n");
  log.debug("not shown");
  clock.now += 1000;
  log.warn("down\u001b[1m\n");
  log.error("other");
  log.error("other");
  log.close();
  t.same(
    lines.map((line) => JSON.parse(line)),
    [
      { level: "warn", time: "2026-01-31T14:03:07.123Z", msg: "down\ufffd[1m " },
      { level: "warn", time: "2026-01-31T14:03:08.123Z", heldBack: 3, msg: "down\ufffd[1m " },
      { level: "error", time: "2026-01-31T14:03:08.123Z", msg: "other" },
      { level: "error", time: "2026-01-31T14:03:08.123Z", heldBack: 1, msg: "other" },
    ],
  );
  t.equal(lines.join("").includes("\n"), false);
});

t.test("flows: one line each, and none is made unless it was asked for", async (t) => {
  t.equal(testLogger("debug").log.flow, undefined);
  t.equal(testLogger("silent", { flows: true }).log.flow, undefined);
  const human = testLogger("error", { flows: true });
  human.log.flow?.(FLOW);
  human.log.flow?.(FLOW);
  const { reason: _, ...closed } = { ...FLOW, end: "closed" as const, protocol: "udp" as const };
  human.log.flow?.(closed);
  t.same(
    human.lines.map((line) => line.slice(9)),
    [
      "info  flow tcp 198.18.0.1:40222 -> [2001:db8::9]:443 via socks5://127.0.0.1:1080: refused (SOCKS5 reply 5) after 1.234 s, 517 bytes up, 4096 down".replace(
        "1.234",
        (1.2345).toFixed(3),
      ),
      "info  flow tcp 198.18.0.1:40222 -> [2001:db8::9]:443 via socks5://127.0.0.1:1080: refused (SOCKS5 reply 5) after 1.234 s, 517 bytes up, 4096 down".replace(
        "1.234",
        (1.2345).toFixed(3),
      ),
      "info  flow udp 198.18.0.1:40222 -> [2001:db8::9]:443 via socks5://127.0.0.1:1080: closed after 1.234 s, 517 bytes up, 4096 down".replace(
        "1.234",
        (1.2345).toFixed(3),
      ),
    ],
  );
  const json = testLogger("info", { flows: true, json: true });
  json.log.flow?.(FLOW);
  const { msg, ...fields } = JSON.parse(json.lines[0] ?? "");
  t.same(fields, { level: "info", time: "2026-01-31T14:03:07.123Z", event: "flow", ...FLOW });
  t.match(msg, /^flow tcp 198\.18\.0\.1:40222 -> /);
});

t.test("crash: message and calls without secrets, at every level but silent", async (t) => {
  const error = new Error("cannot read a://u:s3cret@h");
  const human = testLogger("error");
  human.log.crash(error);
  t.match(human.lines[0], /error internal error, please report it: Error: cannot read a:\/\/\.\.\.@h\n {4}at /);
  const json = testLogger("error", { json: true });
  json.log.crash(error);
  t.match(JSON.parse(json.lines[0] ?? ""), { level: "error", stack: /^\s*at / });
  t.notMatch([...human.lines, ...json.lines].join(), /s3cret/);
  const silent = testLogger("silent");
  silent.log.crash(error);
  t.same(silent.lines, []);
  human.log.crash("a text");
  t.match(human.lines[1], /internal error, please report it: a text$/);
});

t.test("formatHuman: time of day, level, message", async (t) => {
  t.match(formatHuman({ ...RECORD, heldBack: 2 }), /^\d\d:\d\d:\d\d warn {2}proxy is down \(and 2 more of these\)$/);
});

/** A descriptor that takes what `rule` says: a number of bytes, or an error. */
function testSink(): { sink: LineSink; taken: () => string; rule: { next: number | string } } {
  const rule: { next: number | string } = { next: Number.POSITIVE_INFINITY };
  let taken = "";
  const sink = new LineSink(
    (bytes) => {
      if (typeof rule.next === "string") throw Object.assign(new Error(rule.next), { code: rule.next });
      const count = Math.min(rule.next, bytes.length);
      taken += Buffer.from(bytes.subarray(0, count)).toString();
      return count;
    },
    (lines) => `${lines} lost`,
  );
  return { sink, taken: () => taken, rule };
}

t.test("LineSink: what is not taken waits in order, what is too much is counted", async (t) => {
  const { sink, taken, rule } = testSink();
  rule.next = 3;
  sink.line("written in pieces");
  t.equal(taken(), "written in pieces\n");
  rule.next = "EAGAIN";
  sink.line("one");
  sink.line("x".repeat(65_536 - 4 - 4 - 1));
  sink.line("two");
  sink.line("three");
  sink.line("4");
  rule.next = Number.POSITIVE_INFINITY;
  sink.line("last");
  t.equal(taken().replace(/x+/, "x"), "written in pieces\none\nx\ntwo\n2 lost\nlast\n");
  sink.close();
});

t.test("LineSink: a line larger than all that may wait is still written", async (t) => {
  const { sink, taken } = testSink();
  sink.line("x".repeat(200_000));
  t.equal(taken().length, 200_001);
});

t.test("LineSink: without a reader all is dropped, with a full disk each line is tried", async (t) => {
  for (const code of ["EPIPE", "EIO", "EBADF"]) {
    const { sink, taken, rule } = testSink();
    rule.next = code;
    sink.line("one");
    rule.next = Number.POSITIVE_INFINITY;
    sink.line("two");
    sink.close();
    t.equal(taken(), "", code);
  }
  const { sink, taken, rule } = testSink();
  rule.next = "ENOSPC";
  sink.line("one");
  sink.line("two");
  rule.next = Number.POSITIVE_INFINITY;
  sink.line("three");
  t.equal(taken(), "three\n2 lost\n");
  sink.close();
});

t.test("LineSink: the end waits for a reader, but not for ever", async (t) => {
  const { sink, taken, rule } = testSink();
  rule.next = "EAGAIN";
  sink.line("one");
  sink.close();
  t.equal(taken(), "");
  rule.next = Number.POSITIVE_INFINITY;
  sink.close();
  t.equal(taken(), "one\n");
});

const LOG_URL = pathToFileURL(join(process.cwd(), "dist/cli/log.js")).href;

/** Runs statements in a Node that has `openLogger`, `reportCrash` and `stderrSink`. */
function script(statements: string): string[] {
  return [
    "--input-type=module",
    "-e",
    `const { openLogger, reportCrash, stderrSink } = await import(${JSON.stringify(LOG_URL)}); ${statements}`,
  ];
}

t.test("pino is loaded for JSON alone: the human format starts without it", async (t) => {
  for (const [format, loaded] of [
    ["human", false],
    ["json", true],
  ] as const) {
    const { stdout, status } = await runCommand(
      script(
        `const { default: Module } = await import("node:module");
         const log = await openLogger({ level: "info", format: "${format}", flows: false }); log.info("hello");
         process.stdout.write(String(Object.keys(Module._cache).some((file) => file.includes("/node_modules/pino/"))));`,
      ),
      { command: process.execPath },
    );
    t.equal(status, 0);
    t.equal(stdout, String(loaded), format);
  }
});

t.test("what is held back is told when the program exits or crashes", async (t) => {
  for (const end of [
    "process.exit(3)",
    "process.on('uncaughtException', (e) => { reportCrash(e); process.exit(1); }); setTimeout(() => { throw new Error('oops'); })",
  ]) {
    const { stderr } = await runCommand(
      script(`const log = await openLogger({ level: "info", format: "json", flows: false });
              log.info("x"); log.info("x"); log.info("x"); ${end}`),
      { command: process.execPath },
    );
    const lines = stderr
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    t.equal(lines[0].msg, "x");
    t.match(lines.at(-1), { msg: "x", heldBack: 2 });
    if (end.includes("oops")) t.match(lines[1], { level: "error", msg: /internal error.*oops/, stack: /at / });
  }
});

t.test("standard error that is closed, or whose reader is gone, does not end the program", async (t) => {
  for (const redirect of ["2>&-", "2> >(exit 0)", "2>/dev/full"]) {
    const command = `exec ${quote(process.execPath)} ${script(
      `const log = await openLogger({ level: "info", format: "human", flows: false });
       for (let i = 0; i < 5; i++) { log.info("line " + i); await new Promise((done) => setTimeout(done, 20)); }
       process.stdout.write("still here");`,
    )
      .map(quote)
      .join(" ")} ${redirect}`;
    const { status, stdout } = await runCommand(["-c", command], { command: "bash" });
    t.equal(stdout, "still here", redirect);
    t.equal(status, 0, redirect);
  }
});

t.test("a pipe that nobody empties holds up neither the program nor its end", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "tunrelay-log-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const fifo = join(directory, "fifo");
  spawnSync("mkfifo", [fifo]);
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(fifo, constants.O_WRONLY);
  const child = spawn(
    process.execPath,
    script(`const log = await openLogger({ level: "info", format: "human", flows: false });
            for (let i = 0; i < 3000; i++) log.info("line " + i + " " + "x".repeat(100));
            process.stdout.write("still here");`),
    { stdio: ["ignore", "pipe", writer] },
  );
  let stdout = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  const status = await new Promise((resolve) => child.once("close", resolve));
  t.equal(status, 0);
  t.equal(stdout, "still here");
  const buffer = Buffer.alloc(1 << 20);
  const text = buffer.subarray(0, readSync(reader, buffer)).toString();
  t.match(text, /^\d\d:\d\d:\d\d info {2}line 0 x+\n/, "what fitted is there");
  // The flag is not put on the description that others share.
  t.match(
    readFileSync(`/proc/self/fdinfo/${writer}`, "utf8"),
    /^flags:\s+0\d*[01]00001$/m,
    "the pipe of others still blocks",
  );
  closeSync(reader);
  closeSync(writer);
});

t.test("serve and run: --log-format json, and bad values", async (t) => {
  const server = new Running(["serve", "--listen", "0.0.0.0:0", "--log-format", "json", "-l", "debug"]);
  await server.printed(/listening on/);
  const { stderr, status } = await server.stop();
  t.equal(status, 0);
  const lines = stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  t.match(
    lines.find(({ level }) => level === "warn"),
    { msg: /^anyone who reaches 0\.0\.0\.0:\d+ can use this proxy/ },
  );
  t.match(lines.at(-1), { level: "debug", msg: "SIGTERM: ending within 1000 ms" });
  for (const args of [["run", "--proxy", "direct://"], ["serve"], ["demo"]]) {
    const { stderr, status } = await runCommand([...args, "--log-format", "xml"]);
    t.equal(status, 2, args.join(" "));
    t.equal(stderr, "tunrelay: --log-format xml: expected one of human, json\n");
  }
});

t.test("help to a reader that is gone is no crash", async (t) => {
  const { stderr } = await runCommand(["-c", 'exec "$0" --help > >(exit 0)', join(process.cwd(), "bin/tunrelay")], {
    command: "bash",
  });
  t.equal(stderr, "");
});

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
