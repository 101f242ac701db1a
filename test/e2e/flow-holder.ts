/**
 * A client that holds flows, a process in the client namespace. It takes commands, one a line, and answers each with one
 * line of JSON:
 *
 *     open COUNT HOST PORT SOURCE   connects as many at once from SOURCE (`-`: any); outcomes: `ok` or the errno, by count
 *     wait                          the outcomes of connects that were still pending
 *     echo                          each open flow sends a byte and gets it back; how many did
 *     ends                          how flows that were open ended since: `end` or the errno, by count
 *     udp COUNT HOST PORT           one socket after the other sends a datagram; outcomes: `ok` or the errno, by count
 *     close                         closes everything
 */
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { connect, type Socket } from "node:net";
import { createInterface } from "node:readline";

type Counts = Record<string, number>;

const open = new Set<Socket>();
const datagramSockets: DatagramSocket[] = [];
const ends: Counts = {};
let pending: Promise<string>[] = [];
/** How long `open` waits for outcomes: those that the stack decides by itself come at once. */
const SETTLE_MS = 700;
const PENDING = "pending";

function count(outcomes: readonly string[]): Counts {
  const counts: Counts = {};
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}

function openOne(host: string, port: number, source: string): Promise<string> {
  const socket = connect({ host, port, ...(source === "-" ? {} : { localAddress: source }) });
  return new Promise((resolve) => {
    socket.once("connect", () => {
      open.add(socket);
      resolve("ok");
    });
    socket.on("error", (error) => {
      if (open.has(socket)) ends[codeOf(error)] = (ends[codeOf(error)] ?? 0) + 1;
      resolve(codeOf(error));
    });
    socket.on("end", () => {
      ends["end"] = (ends["end"] ?? 0) + 1;
    });
    socket.on("close", () => open.delete(socket));
  });
}

async function openMany(amount: number, host: string, port: number, source: string): Promise<Counts> {
  const all = Array.from({ length: amount }, () => openOne(host, port, source));
  const settled = new Promise<string>((resolve) => setTimeout(resolve, SETTLE_MS, PENDING));
  const outcomes = await Promise.all(all.map((one) => Promise.race([one, settled])));
  pending.push(...all.filter((_, i) => outcomes[i] === PENDING));
  return count(outcomes);
}

function echoOne(socket: Socket): Promise<boolean> {
  return new Promise((resolve) => {
    const closed = (): void => resolve(false);
    socket.once("close", closed);
    socket.once("data", () => {
      socket.off("close", closed);
      resolve(true);
    });
    socket.write("x");
  });
}

function sendOne(host: string, port: number): Promise<string> {
  const socket = createSocket("udp4");
  datagramSockets.push(socket);
  return new Promise((resolve) => {
    socket.on("message", () => resolve("ok"));
    socket.on("error", (error) => resolve(codeOf(error)));
    socket.connect(port, host, () => socket.send("x"));
  });
}

async function answer(line: string): Promise<unknown> {
  const [command = "", amount = "0", host = "", port = "0", source = "-"] = line.split(" ");
  switch (command) {
    case "open":
      return openMany(Number(amount), host, Number(port), source);
    case "wait": {
      const waited = pending;
      pending = [];
      return count(await Promise.all(waited));
    }
    case "echo":
      return (await Promise.all([...open].map(echoOne))).filter(Boolean).length;
    case "ends":
      return ends;
    case "udp": {
      const outcomes: string[] = [];
      for (let i = 0; i < Number(amount); i++) outcomes.push(await sendOne(host, Number(port)));
      return count(outcomes);
    }
    case "close":
      for (const socket of open) socket.destroy();
      for (const socket of datagramSockets.splice(0)) socket.close();
      return "closed";
    default:
      throw new Error(`unknown command ${line}`);
  }
}

let last: Promise<void> = Promise.resolve();
createInterface({ input: process.stdin }).on("line", (line) => {
  last = last.then(async () => {
    process.stdout.write(`${JSON.stringify(await answer(line))}\n`);
  });
});
