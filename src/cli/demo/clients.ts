/** The demo's clients: programs of the system where there are any, otherwise and for the rest a few lines of Node. */
import { execFile } from "node:child_process";
import dgram from "node:dgram";
import { setMaxListeners } from "node:events";
import { accessSync, constants } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { connect, type Socket } from "node:net";
import { delimiter, join } from "node:path";
import { performance } from "node:perf_hooks";
import { seededContent, sha256 } from "./content.ts";
import { addressType, emitQuery, parseAnswer } from "./dns.ts";
import type { Job, Outcome, Tools } from "./jobs.ts";
import {
  DNS_ANSWER,
  DNS_NAME,
  GREETING_BYTES,
  GREETING_SEED,
  hostPort,
  type IpVersion,
  PORT,
  SERVER,
} from "./network.ts";

/** Datagrams that {@link udpEcho} keeps in flight: few enough for any queue on the way. */
const UDP_WINDOW = 16;

/** What all clients need. */
export interface ClientContext {
  readonly tools: Tools;
  /** A directory for files of curl. */
  readonly directory: string;
}

/** Looks for the programs on the PATH and in the system directories. */
export function findTools(): Tools {
  return { curl: findProgram("curl") !== null, dig: findProgram("dig") !== null, ping: findProgram("ping") !== null };
}

function findProgram(name: string): string | null {
  const { PATH: path = "" } = process.env;
  for (const directory of [...path.split(delimiter), "/usr/sbin", "/sbin", "/usr/bin", "/bin"]) {
    if (directory === "") continue;
    try {
      const file = join(directory, name);
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not here.
    }
  }
  return null;
}

/** Does one job; never rejects. */
export async function runJob(job: Job, context: ClientContext, timeoutMs: number): Promise<Outcome> {
  const abort = new AbortController();
  // Every connection of a job listens to it.
  setMaxListeners(0, abort.signal);
  const timer = setTimeout(() => abort.abort(new Error(`no result within ${timeoutMs / 1000} s`)), timeoutMs);
  try {
    return await startJob(job, context, abort.signal);
  } catch (error) {
    const reason: unknown = abort.signal.aborted ? abort.signal.reason : error;
    return { result: reason instanceof Error ? reason.message : String(reason), bytes: 0, ms: 0 };
  } finally {
    clearTimeout(timer);
    // Ends what is still running.
    abort.abort();
  }
}

function startJob(job: Job, context: ClientContext, signal: AbortSignal): Promise<Outcome> {
  switch (job.kind) {
    case "download":
      return context.tools.curl ? curlDownload(job, context, signal) : nodeDownload(job, signal);
    case "upload":
      return context.tools.curl ? curlUpload(job, context, signal) : nodeUpload(job, signal);
    case "echo":
      return echo(job.version, job.connections, job.bytes, signal);
    case "half-close-client":
      return halfCloseByClient(job.version, job.bytes, signal);
    case "half-close-server":
      return halfCloseByServer(job.version, job.bytes, signal);
    case "connect-fails":
      return connectFails(job.host, job.port, job.expected, signal);
    case "dns":
      return context.tools.dig ? digQuery(job.version, job.transport, signal) : nodeQuery(job, signal);
    case "udp-echo":
      return udpEcho(job.version, job.largest, signal);
    case "ping":
      return ping(job.version, job.count, signal);
  }
}

interface Transfer {
  readonly version: IpVersion;
  readonly bytes: number;
  readonly seed: number;
}

function urlOf(version: IpVersion, path: string): string {
  return `http://${hostPort(SERVER[version], PORT.http)}${path}`;
}

async function curlDownload({ version, bytes, seed }: Transfer, { directory }: ClientContext, signal: AbortSignal) {
  const file = join(directory, `download-${version}`);
  const url = urlOf(version, `/content/${seed}/${bytes}`);
  // From the first byte on: the server may have to make the content up before that.
  const { ms } = await runCurl(["-o", file, url], "%{time_total} %{time_starttransfer}", signal);
  const content = await readFile(file);
  await rm(file, { force: true });
  return compareContent(content.length, sha256(content), { bytes, seed }, ms);
}

async function curlUpload({ version, bytes, seed }: Transfer, { directory }: ClientContext, signal: AbortSignal) {
  const file = join(directory, `upload-${version}`);
  await writeFile(file, seededContent(seed, bytes));
  const { ms, body } = await runCurl(["-T", file, "-H", "Expect:", urlOf(version, "/sink")], "%{time_total}", signal);
  await rm(file, { force: true });
  return compareReport(body, { bytes, seed }, ms);
}

async function nodeDownload({ version, bytes, seed }: Transfer, signal: AbortSignal): Promise<Outcome> {
  const { body, ms } = await httpExchange(urlOf(version, `/content/${seed}/${bytes}`), null, signal);
  return compareContent(body.length, sha256(body), { bytes, seed }, ms);
}

async function nodeUpload({ version, bytes, seed }: Transfer, signal: AbortSignal): Promise<Outcome> {
  const content = seededContent(seed, bytes);
  const start = performance.now();
  const { body } = await httpExchange(urlOf(version, "/sink"), content, signal);
  return compareReport(body.toString(), { bytes, seed }, performance.now() - start);
}

/** What the server's `/sink` reports about an upload. */
function compareReport(body: string, expected: { bytes: number; seed: number }, ms: number): Outcome {
  const report = JSON.parse(body) as { bytes: number; sha256: string };
  return compareContent(report.bytes, report.sha256, expected, ms);
}

function compareContent(bytes: number, digest: string, expected: { bytes: number; seed: number }, ms: number): Outcome {
  let result = "ok";
  if (bytes !== expected.bytes) result = `${bytes} bytes arrived, expected ${expected.bytes}`;
  else if (digest !== sha256(seededContent(expected.seed, bytes))) result = "SHA-256 differs";
  return { result, bytes, ms };
}

/** @param time curl's variables: the end, and the start where that is not the start of curl */
async function runCurl(args: string[], time: string, signal: AbortSignal): Promise<{ ms: number; body: string }> {
  // -q and --noproxy: the user's own settings must not lead around the device.
  const common = ["-q", "-sS", "--fail", "--noproxy", "*", "-w", `%{stderr}${time}`];
  const { stdout, stderr } = await run("curl", [...common, ...args], signal);
  const [total = 0, before = 0] = stderr.split(" ").map(Number);
  return { ms: (total - before) * 1000, body: stdout };
}

/** Runs a program and resolves to its output; rejects with what it said when it failed. */
function run(name: string, args: string[], signal: AbortSignal): Promise<{ stdout: string; stderr: string }> {
  const options = { signal, killSignal: "SIGKILL", env: { ...process.env, LC_ALL: "C" } } as const;
  return new Promise((resolve, reject) => {
    execFile(findProgram(name) ?? name, args, options, (error, stdout, stderr) => {
      const said = stderr.trim().split("\n").at(-1) ?? "";
      if (error === null) resolve({ stdout, stderr });
      else reject(new Error(said === "" ? `${name} ended with ${error.code ?? error.signal}` : said));
    });
  });
}

/**
 * One HTTP request over a connection of its own: PUT with `body`, GET without.
 * @returns the answer's body and how long that took to arrive, ms; rejects unless the status is 200
 */
function httpExchange(url: string, body: Buffer | null, signal: AbortSignal): Promise<{ body: Buffer; ms: number }> {
  return new Promise((resolve, reject) => {
    const options = { agent: false, method: body === null ? "GET" : "PUT", signal } as const;
    const request = httpRequest(url, options, (response) => {
      const start = performance.now();
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        if (response.statusCode === 200) resolve({ body: Buffer.concat(chunks), ms: performance.now() - start });
        else reject(new Error(`HTTP status ${response.statusCode}`));
      });
    });
    request.on("error", reject);
    request.end(body ?? undefined);
  });
}

/** Resolves when the connection is there. */
function open(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
    signal.addEventListener("abort", () => socket.destroy(), { once: true });
    socket.once("error", reject);
    socket.once("connect", () => resolve(socket));
  });
}

/** Everything up to the server's FIN. */
async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.once("end", () => resolve(Buffer.concat(chunks)));
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("connection closed without a FIN")));
  });
}

async function echo(version: IpVersion, connections: number, bytes: number, signal: AbortSignal): Promise<Outcome> {
  const contents = Array.from({ length: connections }, (_, i) => seededContent(1000 + i, bytes));
  const start = performance.now();
  const replies = await Promise.all(
    contents.map(async (content) => {
      const socket = await open(SERVER[version], PORT.echo, signal);
      const reply = readAll(socket);
      socket.end(content);
      const received = await reply;
      socket.destroy();
      return received;
    }),
  );
  const ms = performance.now() - start;
  const wrong = replies.filter((reply, i) => sha256(reply) !== sha256(contents[i] ?? Buffer.alloc(0))).length;
  const total = replies.reduce((sum, reply) => sum + reply.length, 0);
  return { result: wrong === 0 ? "ok" : `${wrong} of ${connections} connections differ`, bytes: total, ms };
}

async function halfCloseByClient(version: IpVersion, bytes: number, signal: AbortSignal): Promise<Outcome> {
  const content = seededContent(2000 + version, bytes);
  const socket = await open(SERVER[version], PORT.answersAfterFin, signal);
  const reply = readAll(socket);
  socket.end(content);
  const digest = (await reply).toString();
  socket.destroy();
  return { result: digest === sha256(content) ? "ok" : `server answered "${digest}" after the FIN`, bytes, ms: 0 };
}

async function halfCloseByServer(version: IpVersion, bytes: number, signal: AbortSignal): Promise<Outcome> {
  const content = seededContent(3000 + version, bytes);
  const socket = await open(SERVER[version], PORT.finishesFirst, signal);
  const greeting = await readAll(socket);
  if (sha256(greeting) !== sha256(seededContent(GREETING_SEED, GREETING_BYTES))) {
    return { result: `${greeting.length} bytes before the server's FIN differ`, bytes: greeting.length, ms: 0 };
  }
  // The server has closed its side by now; ours must still reach it.
  socket.end(content);
  await httpExchange(urlOf(version, `/received/${sha256(content)}`), null, signal);
  socket.destroy();
  return { result: "ok", bytes: greeting.length + bytes, ms: 0 };
}

async function connectFails(host: string, port: number, expected: string, signal: AbortSignal): Promise<Outcome> {
  try {
    await open(host, port, signal);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : String(error);
    return { result: code === expected ? "ok" : `connect() failed with ${code}`, bytes: 0, ms: 0 };
  }
  return { result: "connect() succeeded", bytes: 0, ms: 0 };
}

async function digQuery(version: IpVersion, transport: "udp" | "tcp", signal: AbortSignal): Promise<Outcome> {
  const type = version === 4 ? "A" : "AAAA";
  const how = [transport === "tcp" ? "+tcp" : "+notcp", "+short", "+tries=1", "+time=4"];
  const { stdout } = await run(
    "dig",
    ["-r", ...how, "-p", `${PORT.dns}`, `@${SERVER[version]}`, DNS_NAME, type],
    signal,
  );
  return checkDns(version, stdout.trim());
}

async function nodeQuery(job: { version: IpVersion; transport: "udp" | "tcp" }, signal: AbortSignal): Promise<Outcome> {
  const id = 0x5254;
  const query = emitQuery(id, DNS_NAME, addressType(job.version));
  let answer: Buffer;
  if (job.transport === "udp") {
    const socket = await openUdp(job.version, PORT.dns, signal);
    socket.send(query);
    answer = await new Promise((resolve, reject) => socket.once("message", resolve).once("error", reject));
  } else {
    const socket = await open(SERVER[job.version], PORT.dns, signal);
    const reply = readAll(socket);
    socket.end(Buffer.concat([Buffer.from([0, query.length]), query]));
    answer = (await reply).subarray(2);
    socket.destroy();
  }
  return checkDns(job.version, parseAnswer(answer, id) ?? "nothing");
}

function checkDns(version: IpVersion, answer: string): Outcome {
  const expected = DNS_ANSWER[version];
  const result = answer === expected ? "ok" : `answer is "${answer}", expected ${expected}`;
  return { result, bytes: version === 4 ? 4 : 16, ms: 0 };
}

/** A UDP socket that is connected to the server, so that it takes answers from there only and learns of ICMP errors. */
function openUdp(version: IpVersion, port: number, signal: AbortSignal): Promise<dgram.Socket> {
  const socket = dgram.createSocket({ type: version === 4 ? "udp4" : "udp6", signal });
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.connect(port, SERVER[version], () => {
      socket.off("error", reject);
      resolve(socket);
    });
  });
}

/** One datagram of each size from 1 to `largest`; a size comes once, so it tells which datagram an answer belongs to. */
async function udpEcho(version: IpVersion, largest: number, signal: AbortSignal): Promise<Outcome> {
  const content = seededContent(4000 + version, 2 * largest);
  const socket = await openUdp(version, PORT.echo, signal);
  const sent = (size: number): Buffer => content.subarray(size, 2 * size);
  const back = new Set<number>();
  let wrong = 0;
  let bytes = 0;
  let next = 1;
  const start = performance.now();
  await new Promise<void>((resolve, reject) => {
    const sendNext = (): void => {
      if (next <= largest) socket.send(sent(next++));
    };
    socket.on("error", reject);
    signal.addEventListener("abort", () => reject(new Error(`${back.size} of ${largest} datagrams came back`)));
    socket.on("message", (message) => {
      if (back.has(message.length) || !message.equals(sent(message.length))) wrong++;
      back.add(message.length);
      bytes += message.length;
      if (back.size === largest) resolve();
      else sendNext();
    });
    for (let i = 0; i < UDP_WINDOW; i++) sendNext();
  });
  const ms = performance.now() - start;
  return { result: wrong === 0 ? "ok" : `${wrong} of ${largest} datagrams differ`, bytes, ms };
}

async function ping(version: IpVersion, count: number, signal: AbortSignal): Promise<Outcome> {
  const args = [`-${version}`, "-n", "-q", "-c", `${count}`, "-i", "0.2", "-W", "2", SERVER[version]];
  const { stdout } = await run("ping", args, signal);
  const answers = Number(/(\d+) received/.exec(stdout)?.[1] ?? 0);
  return { result: answers === count ? "ok" : `${answers} of ${count} answered`, bytes: answers * 56, ms: 0 };
}
