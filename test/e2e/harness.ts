/**
 * Namespaces, proxies and `bin/tunrelay run` for end-to-end tests. Import `../host/in-namespace.ts` first: the test
 * process itself is then in the outer namespace.
 *
 *     client namespace                              outer namespace (this process)
 *     clients > tun0 > tunrelay run > 10.77.0.2 === 10.77.0.1 proxy > 10.99.0.80 servers (on lo)
 *
 * Everything ends with the test: processes are children of this one, and namespaces end with their last process.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createCipheriv, createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { Child } from "../../src/cli/demo/child.ts";
import type { ClientReply, ClientRequest, Job, Outcome } from "../../src/cli/demo/jobs.ts";
import { hostPort, type IpVersion, SERVER, SERVER_CIDR, UNREACHABLE_CIDR } from "../../src/cli/demo/network.ts";
import { startServers } from "../../src/cli/demo/servers.ts";
import { addAddress, addUnreachableRoute, setLink } from "../../src/host/interface.ts";
import { type Addon, isAddonProblem, loadAddon } from "../../src/io/addon.ts";
import { SHIM } from "../cli/command.ts";

/** The proxy side of the link between the namespaces. */
export const OUTER: Readonly<Record<IpVersion, string>> = { 4: "10.77.0.1", 6: "fd77::1" };
/** tunrelay's side of it. */
export const INNER: Readonly<Record<IpVersion, string>> = { 4: "10.77.0.2", 6: "fd77::2" };
/** Routed into the device, but nowhere in the outer namespace. */
export const NO_ROUTE: Readonly<Record<IpVersion, string>> = { 4: "10.97.0.1", 6: "fd00:97::1" };
/** Destinations that the outer namespace has a `prohibit` route for. */
export const PROHIBITED: Readonly<Record<IpVersion, string>> = { 4: "10.96.0.1", 6: "fd00::1" };
const PROHIBITED_CIDR: Readonly<Record<IpVersion, string>> = { 4: "10.96.0.0/16", 6: "fd00::/32" };
/** What `run` routes into its device. */
export const ROUTES: readonly string[] = ["10.96.0.0/14", "fd00::/32", "fd00:97::/32", "fd00:98::/32", "fd00:99::/32"];
/** Where {@link StreamServer} listens, on {@link SERVER}. */
export const STREAM_PORT = 8080;

/** Something that ends with the test, whatever happens. */
export interface Teardown {
  teardown(handler: () => unknown): unknown;
}

/** How a program ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The first file of this name on the PATH or in the system directories; null when there is none. */
export function findProgram(name: string): string | null {
  const { PATH: path = "" } = process.env;
  const directories = [...path.split(delimiter), "/usr/sbin", "/sbin"];
  return directories.map((directory) => join(directory, name)).find((file) => existsSync(file)) ?? null;
}

/** The addon, or an error with its problem. */
export function requireAddon(): Addon {
  const addon = loadAddon();
  if (isAddonProblem(addon)) throw new Error(addon.problem);
  return addon;
}

/** A process whose output is kept, for messages and for waiting. */
export class Program {
  readonly process: ChildProcess;
  /** Both streams, as they came. */
  output = "";
  readonly ended: Promise<Ended>;
  #stdout = "";
  #stderr = "";

  /** @param input goes to its standard input; without it there is none */
  constructor(command: string, args: readonly string[], input?: Readable) {
    const { PATH: path = "/usr/bin:/bin" } = process.env;
    this.process = spawn(command, args, {
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
      // Not ours: the test runner puts options for Node into it.
      env: { PATH: `${dirname(process.execPath)}:${path}:/usr/sbin:/sbin`, HOME: "/" },
    });
    this.process.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
      this.#stdout += chunk;
      this.output += chunk;
    });
    this.process.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
      this.#stderr += chunk;
      this.output += chunk;
    });
    this.ended = once(this.process, "close").then(([code]: unknown[]) => ({
      code: typeof code === "number" ? code : null,
      stdout: this.#stdout,
      stderr: this.#stderr,
    }));
    if (input !== undefined && this.process.stdin !== null) {
      // A program that ends early closes its input; its exit status says why.
      pipeline(input, this.process.stdin).catch(() => {});
    }
  }

  /** Waits for a text in the output. @throws when the program ends first */
  async says(wanted: string | RegExp): Promise<void> {
    let end: Ended | null = null;
    void this.ended.then((ended) => {
      end = ended;
    });
    while (!(typeof wanted === "string" ? this.output.includes(wanted) : wanted.test(this.output))) {
      if (end !== null) throw new Error(`${this.process.spawnfile} ended before it said ${wanted}: ${this.output}`);
      await pause();
    }
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<Ended> {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill(signal);
    return this.ended;
  }
}

/** Waits a little before a condition is looked at again. */
export function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 10));
}

/** Waits until somebody listens. */
export async function untilListening(host: string, port: number, program: Program): Promise<void> {
  for (;;) {
    const socket = connect({ host, port });
    const open = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    });
    socket.destroy();
    if (open) return;
    if (program.process.exitCode !== null) throw new Error(`${program.process.spawnfile} ended: ${program.output}`);
    await pause();
  }
}

/** The two namespaces with their link and servers. */
export class Lab {
  /** For files of the test. */
  readonly directory: string;
  readonly #client: Child<ClientRequest, ClientReply>;
  readonly #owner: Teardown;
  #jobs = 0;

  private constructor(owner: Teardown, directory: string, client: Child<ClientRequest, ClientReply>) {
    this.#owner = owner;
    this.directory = directory;
    this.#client = client;
  }

  /** Makes the namespaces and starts the demo's servers and a {@link StreamServer} in the outer one. */
  static async open(owner: Teardown): Promise<Lab> {
    const addon = requireAddon();
    const directory = mkdtempSync(join(tmpdir(), "tunrelay-e2e-"));
    owner.teardown(() => rmSync(directory, { recursive: true, force: true }));
    setLink(addon, "lo", { up: true });
    for (const version of [4, 6] as const) {
      addAddress(addon, "lo", SERVER_CIDR[version]);
      addUnreachableRoute(addon, UNREACHABLE_CIDR[version]);
      execFileSync("ip", ["route", "add", "prohibit", PROHIBITED_CIDR[version]]);
    }
    await startServers();
    await startStreamServers();
    const script = fileURLToPath(new URL("../../src/cli/demo/client-process.js", import.meta.url));
    const client = new Child<ClientRequest, ClientReply>("client process", "unshare", [
      "--net",
      "--",
      process.execPath,
      script,
      directory,
    ]);
    owner.teardown(() => client.end());
    await client.receive((reply) => (reply.is === "ready" ? true : null), AbortSignal.timeout(20_000));
    const lab = new Lab(owner, directory, client);
    execFileSync("ip", ["link", "add", "outer", "type", "veth", "peer", "name", "inner", "netns", `${client.pid}`]);
    for (const version of [4, 6] as const) addAddress(addon, "outer", `${OUTER[version]}/${version === 4 ? 24 : 64}`);
    setLink(addon, "outer", { up: true });
    await lab.inClient("ip", ["link", "set", "lo", "up"]);
    await lab.inClient("ip", ["addr", "add", `${INNER[4]}/24`, "dev", "inner"]);
    await lab.inClient("ip", ["addr", "add", `${INNER[6]}/64`, "dev", "inner", "nodad"]);
    await lab.inClient("ip", ["link", "set", "inner", "up"]);
    // For direct://, whose sockets are bound to that link: the outer namespace answers as a router.
    for (const [family, version] of [
      ["ipv4", 4],
      ["ipv6", 6],
    ] as const) {
      const route = ["route", "add", "default", "via", OUTER[version], "dev", "inner", "metric", "4096"];
      await lab.inClient("ip", [`-${version}`, ...route]);
      const forwarding = version === 4 ? "ip_forward" : "conf/all/forwarding";
      writeFileSync(`/proc/sys/net/${family}/${forwarding}`, "1");
    }
    return lab;
  }

  /** Starts a program in the outer namespace. */
  start(command: string, args: readonly string[]): Program {
    const program = new Program(command, args);
    this.#owner.teardown(() => program.stop("SIGKILL"));
    return program;
  }

  /** Words that run a command in the client namespace. */
  get inClientPrefix(): readonly [string, ...string[]] {
    return ["nsenter", `--net=/proc/${this.#client.pid}/ns/net`, "--"];
  }

  /** Starts a program in the client namespace. */
  startInClient(command: string, args: readonly string[], input?: Readable): Program {
    const [nsenter, ...prefix] = this.inClientPrefix;
    const program = new Program(nsenter, [...prefix, command, ...args], input);
    this.#owner.teardown(() => program.stop("SIGKILL"));
    return program;
  }

  /** Runs a program in the client namespace to its end. */
  inClient(command: string, args: readonly string[], input?: Readable): Promise<Ended> {
    return this.startInClient(command, args, input).ended;
  }

  /** Starts `tunrelay run` in the client namespace and waits until it relays. */
  async relay(proxyUrls: string | readonly string[], ...flags: string[]): Promise<Program> {
    const proxies = [proxyUrls].flat().flatMap((url) => ["--proxy", url]);
    const routes = ROUTES.flatMap((route) => ["--route", route]);
    const addresses = ["--address", "198.18.0.1/15", "--address", "fdfe:dcba:9876::1/64"];
    const program = this.startInClient(SHIM, ["run", ...proxies, ...addresses, ...routes, ...flags]);
    await program.says(/ -> /);
    return program;
  }

  /** Has one of the demo's clients do something in the client namespace. */
  async job(job: Job, timeoutMs = 60_000): Promise<Outcome> {
    const id = this.#jobs++;
    const done = this.#client.receive(
      (reply) => (reply.is === "done" && reply.id === id ? reply.outcome : null),
      AbortSignal.timeout(timeoutMs + 5000),
    );
    this.#client.send({ do: "job", id, job, timeoutMs });
    return done;
  }
}

const BLOCK = Buffer.alloc(256 * 1024);

/** The bytes of `seededContent`, made while they are read. */
export function seededStream(seed: number, length: number): Readable {
  const key = Buffer.alloc(16);
  key.writeUInt32BE(seed >>> 0);
  const cipher = createCipheriv("aes-128-ctr", key, Buffer.alloc(16));
  let left = length;
  return new Readable({
    highWaterMark: BLOCK.length,
    read() {
      const size = Math.min(left, BLOCK.length);
      left -= size;
      this.push(size === 0 ? null : cipher.update(BLOCK.subarray(0, size)));
    },
  });
}

/** SHA-256 of a {@link seededStream}. */
export async function seededDigest(seed: number, length: number): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of seededStream(seed, length)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** The URL of a resource of the stream server: `/stream/SEED/BYTES`, `/sink` (PUT) or `/barrier/COUNT`. */
export function streamUrl(version: IpVersion, path: string): string {
  return `http://${hostPort(SERVER[version], STREAM_PORT)}${path}`;
}

/** Bulk of any size without holding it, and `/barrier/COUNT`, which answers once that many requests wait. */
async function startStreamServers(): Promise<void> {
  const waiting: (() => void)[] = [];
  for (const version of [4, 6] as const) {
    const server: Server = createServer((request, response) => {
      const [, resource = "", first = "", second = ""] = (request.url ?? "").split("/");
      if (resource === "stream") {
        response.writeHead(200, { "content-length": second });
        pipeline(seededStream(Number(first), Number(second)), response).catch(() => response.destroy());
      } else if (resource === "sink") {
        const hash = createHash("sha256");
        pipeline(request, hash).then(
          () => response.end(hash.digest("hex")),
          () => response.destroy(),
        );
      } else {
        waiting.push(() => response.end("passed\n"));
        if (waiting.length >= Number(first)) for (const pass of waiting.splice(0)) pass();
      }
    });
    server.requestTimeout = 0;
    server.listen({ host: SERVER[version], port: STREAM_PORT, backlog: 4096 });
    await once(server, "listening");
    server.unref();
  }
}
