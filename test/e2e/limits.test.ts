/** Every limit and time of `run` reached on purpose: the client's errno, the line in the log, and that others go on. */
import "../host/in-namespace.ts";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { PassThrough } from "node:stream";
import { fileURLToPath } from "node:url";
import t from "tap";
import { SERVER } from "../../src/cli/demo/network.ts";
import { SHIM, skipWithoutTun } from "../cli/command.ts";
import { findProgram, INNER, Lab, OUTER, type Program, pause, ROUTES } from "./harness.ts";
import { startServe } from "./peers/socks.ts";

const ECHO_PORT = 7007;
const HOLDER = fileURLToPath(new URL("./flow-holder.js", import.meta.url));
const HOST = SERVER[4];

t.setTimeout(400_000);
const skip = skipWithoutTun();
const lab: Lab | null = skip === false ? await Lab.open(t) : null;
if (lab !== null) await startEcho();

/** Echoes streams and datagrams. */
async function startEcho(): Promise<void> {
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.pipe(socket);
  });
  server.listen({ host: HOST, port: ECHO_PORT, backlog: 1024 });
  await once(server, "listening");
  server.unref();
  const datagrams = createSocket("udp4");
  datagrams.on("message", (bytes, from) => datagrams.send(bytes, from.port, from.address));
  datagrams.bind(ECHO_PORT, HOST).unref();
  await once(datagrams, "listening");
}

/** The process of `flow-holder.ts`. */
class Holder {
  readonly #input: PassThrough = new PassThrough();
  readonly #program: Program;
  #lines = 0;

  constructor(lab: Lab) {
    this.#program = lab.startInClient(process.execPath, [HOLDER], this.#input);
  }

  async ask(command: string): Promise<unknown> {
    this.#input.write(`${command}\n`);
    this.#lines++;
    while (this.#program.output.split("\n").length <= this.#lines) {
      if (this.#program.process.exitCode !== null) throw new Error(`the holder ended: ${this.#program.output}`);
      await pause();
    }
    return JSON.parse(this.#program.output.split("\n")[this.#lines - 1] ?? "");
  }

  open(count: number, port: number = ECHO_PORT, source = "-"): Promise<unknown> {
    return this.ask(`open ${count} ${HOST} ${port} ${source}`);
  }

  async end(): Promise<void> {
    this.#input.end();
    await this.#program.stop();
  }
}

function linesWith(program: Program, text: string): number {
  return program.output.split("\n").filter((line) => line.includes(text)).length;
}

/** Changes the packet filter of the client namespace. */
async function filter(lab: Lab, rule: string): Promise<void> {
  const { code, stderr } = await lab.inClient("iptables", rule.split(" "));
  if (code !== 0) throw new Error(`iptables ${rule}: ${stderr}`);
}

interface Scene {
  readonly lab: Lab;
  readonly relay: Program;
  readonly holder: Holder;
}

/** Runs `act` with a relay and a holder of flows, and ends both. */
async function play(url: string, flags: readonly string[], act: (scene: Scene) => Promise<void>): Promise<void> {
  if (lab === null) return;
  const relay = await lab.relay(url, ...flags);
  const holder = new Holder(lab);
  try {
    await act({ lab, relay, holder });
  } finally {
    await holder.end();
    await relay.stop();
  }
}

const DIRECT = ["--interface", "inner"];

t.test("--max-flows: ECONNREFUSED, one line, and the others go on", { skip }, async (t) => {
  await play("direct://", [...DIRECT, "--max-flows", "5"], async ({ relay, holder }) => {
    t.same(await holder.open(5), { ok: 5 });
    t.same(await holder.open(3), { ECONNREFUSED: 3 });
    t.same(await holder.open(3), { ECONNREFUSED: 3 });
    t.equal(await holder.ask("echo"), 5);
    t.equal(linesWith(relay, "--max-flows allows more"), 1, relay.output);
    await holder.ask("close");
    let again = await holder.open(1);
    // The stack may still be closing the others.
    while (JSON.stringify(again) !== '{"ok":1}') again = await holder.open(1);
    t.equal(linesWith(relay, "--max-flows allows more"), 1, relay.output);
  });
});

t.test("--max-flows-per-source: one client address is refused, another is not", { skip }, async (t) => {
  await play("direct://", [...DIRECT, "--max-flows-per-source", "3"], async ({ relay, holder }) => {
    t.same(await holder.open(3), { ok: 3 });
    t.same(await holder.open(4), { ECONNREFUSED: 4 });
    t.same(await holder.open(2, ECHO_PORT, INNER[4]), { ok: 2 });
    t.equal(await holder.ask("echo"), 5);
    t.equal(linesWith(relay, "--max-flows-per-source allows more"), 1, relay.output);
  });
});

t.test("--max-dials: who comes while the proxy is slow is refused, who waits is served", { skip }, async (t) => {
  if (lab === null) return;
  const serve = await startServe(lab, 1090);
  const gate = await startGate(1091, 1090);
  t.teardown(() => gate.server.close());
  const url = serve.urls[0].replace("1090", "1091");
  await play(url, ["--max-dials", "3"], async ({ relay, holder }) => {
    t.same(await holder.open(3), { pending: 3 });
    t.same(await holder.open(2), { ECONNREFUSED: 2 });
    t.equal(linesWith(relay, "--max-dials allows more"), 1, relay.output);
    gate.open();
    t.same(await holder.ask("wait"), { ok: 3 });
    t.same(await holder.open(3), { ok: 3 });
    t.equal(await holder.ask("echo"), 6);
    t.equal(linesWith(relay, "--max-dials allows more"), 1, relay.output);
  });
});

/** A forwarder that holds what clients send back until it is opened. */
async function startGate(port: number, to: number): Promise<{ readonly server: Server; readonly open: () => void }> {
  const { connect } = await import("node:net");
  const held: (() => void)[] = [];
  let isOpen = false;
  const server = createServer((client: Socket) => {
    const join = (): void => {
      const proxy = connect({ host: OUTER[4], port: to });
      proxy.on("error", () => client.destroy());
      client.on("error", () => proxy.destroy());
      client.pipe(proxy).pipe(client);
    };
    client.on("error", () => {});
    if (isOpen) join();
    else held.push(join);
  });
  server.listen(port, OUTER[4]);
  await once(server, "listening");
  const open = (): void => {
    isOpen = true;
    for (const join of held.splice(0)) join();
  };
  return { server, open };
}

const noIptables = skip !== false ? skip : findProgram("iptables") === null ? "iptables is not installed" : false;

t.test("--max-half-open: the oldest that does not answer makes room, others go on", { skip: noIptables }, async (t) => {
  await play("direct://", [...DIRECT, "--max-half-open", "3"], async ({ lab, relay, holder }) => {
    t.same(await holder.open(2), { ok: 2 });
    // These clients never see the SYN-ACK, but they see the reset.
    const match = `-i tun0 -p tcp --sport ${ECHO_PORT} --dport 20000:20999 --tcp-flags SYN SYN`;
    await filter(lab, `-A INPUT ${match} -j DROP`);
    await lab.inClient("sysctl", ["-qw", "net.ipv4.ip_local_port_range=20000 20999"]);
    const outcomes = (await holder.open(8)) as Record<string, number>;
    t.equal(outcomes["ok"] ?? 0, 0);
    t.ok((outcomes["ECONNREFUSED"] ?? 0) >= 1, JSON.stringify(outcomes));
    t.equal((outcomes["ECONNREFUSED"] ?? 0) + (outcomes["pending"] ?? 0), 8);
    await lab.inClient("sysctl", ["-qw", "net.ipv4.ip_local_port_range=32768 60999"]);
    t.same(await holder.open(2), { ok: 2 }, "clients that answer are let in");
    t.equal(await holder.ask("echo"), 4, "those that were there go on");
    t.equal(linesWith(relay, "--max-half-open allows more"), 1, relay.output);
    await filter(lab, "-F INPUT");
  });
});

t.test("--max-udp: newcomers are served, the idlest makes room, one line", { skip }, async (t) => {
  await play("direct://", [...DIRECT, "--max-udp", "4"], async ({ relay, holder }) => {
    t.same(await holder.open(2), { ok: 2 });
    t.same(await holder.ask(`udp 20 ${HOST} ${ECHO_PORT}`), { ok: 20 });
    t.equal(linesWith(relay, "--max-udp allows more"), 1, relay.output);
    t.equal(await holder.ask("echo"), 2);
  });
});

t.test("descriptors used up: it says so at the start, refuses, goes on and recovers", { skip }, async (t) => {
  if (lab === null) return;
  const routes = ROUTES.flatMap((route) => ["--route", route]);
  const flags = ["--proxy", "direct://", "--address", "198.18.0.1/15", "--address", "fdfe:dcba:9876::1/64", ...DIRECT];
  const script = 'ulimit -n 90 && exec "$0" run "$@"';
  const relay = lab.startInClient("sh", ["-c", script, SHIM, ...flags, ...routes]);
  await relay.says(/info +at most \d+ connections at a time, not 65536: the limit of open files is 90; raise it/);
  const holder = new Holder(lab);
  t.same(await holder.open(5), { ok: 5 });
  const outcomes = (await holder.ask(`udp 90 ${HOST} ${ECHO_PORT}`)) as Record<string, number>;
  await relay.says("No descriptors left");
  t.ok((outcomes["ok"] ?? 0) > 20, JSON.stringify(outcomes));
  t.equal((outcomes["ok"] ?? 0) + (outcomes["ECONNREFUSED"] ?? 0), 90, "UDP clients learn of it");
  t.same(await holder.open(2), { ECONNREFUSED: 2 });
  t.equal(await holder.ask("echo"), 5, "open flows go on");
  t.equal(linesWith(relay, "No descriptors left"), 1, relay.output);
  await holder.end();
  await relay.stop();
});

t.test("--answer-timeout: a proxy that is silent is ECONNREFUSED and a line", { skip }, async (t) => {
  const gate = await startGate(1092, 1);
  t.teardown(() => gate.server.close());
  await play(`socks5://${OUTER[4]}:1092`, ["--answer-timeout", "200ms"], async ({ relay, holder }) => {
    t.same(await holder.open(1), { ECONNREFUSED: 1 });
    await relay.says("did not answer the request in time");
  });
});

t.test("--tcp-timeout: an idle flow is reset, one that talks is not", { skip }, async (t) => {
  await play("direct://", [...DIRECT, "--tcp-timeout", "3s"], async ({ holder }) => {
    t.same(await holder.open(1), { ok: 1 });
    // Nothing but the echo keeps it alive for longer than the timeout and a sweep together.
    for (const until = Date.now() + 6000; Date.now() < until; ) t.equal(await holder.ask("echo"), 1);
    t.same(await holder.ask("ends"), {});
    let ends = JSON.stringify(await holder.ask("ends"));
    while (ends === "{}") ends = JSON.stringify(await holder.ask("ends"));
    t.equal(ends, '{"ECONNRESET":1}');
  });
});

t.test(
  "--keepalive: an upstream that is gone without a word is noticed, others go on",
  { skip: noIptables },
  async (t) => {
    await play("direct://", [...DIRECT, "--keepalive", "1s"], async ({ lab, holder }) => {
      t.same(await holder.open(1), { ok: 1 });
      await filter(lab, `-A INPUT -i inner -p tcp --sport ${ECHO_PORT} -j DROP`);
      let ends = JSON.stringify(await holder.ask("ends"));
      while (ends === "{}") ends = JSON.stringify(await holder.ask("ends"));
      t.equal(ends, '{"ECONNRESET":1}');
      await filter(lab, "-F INPUT");
      t.same(await holder.open(1), { ok: 1 });
      t.equal(await holder.ask("echo"), 1);
    });
  },
);
