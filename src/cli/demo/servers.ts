/** The demo's servers: HTTP, DNS, echo, and two for half-closed connections. All of them are small on purpose. */
import { createHash, type Hash } from "node:crypto";
import dgram from "node:dgram";
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer, type Server, type Socket } from "node:net";
import { seededContent } from "./content.ts";
import { answerQuery } from "./dns.ts";
import { DNS_ANSWER, DNS_NAME, GREETING_BYTES, GREETING_SEED, type IpVersion, PORT, SERVER } from "./network.ts";

/** How long `/received` waits for content that is still on its way, ms. */
const RECEIVED_WAIT_MS = 5000;
/** RFC 1035 §4.2.2: a message over TCP has its length in front, two bytes. */
const DNS_TCP_PREFIX = 2;

/** SHA-256 of what {@link PORT.finishesFirst} received, with those who wait for it. */
class Received {
  readonly #digests = new Set<string>();
  readonly #waiting = new Map<string, () => void>();

  add(digest: string): void {
    this.#digests.add(digest);
    this.#waiting.get(digest)?.();
  }

  /** Resolves to whether content with this digest arrived. */
  async wait(digest: string): Promise<boolean> {
    if (this.#digests.has(digest)) return true;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, RECEIVED_WAIT_MS);
      this.#waiting.set(digest, () => {
        clearTimeout(timer);
        resolve();
      });
    });
    this.#waiting.delete(digest);
    return this.#digests.has(digest);
  }
}

/** Starts all servers on both addresses of {@link SERVER}; they end with the process, and do not keep it alive. */
export async function startServers(): Promise<void> {
  const received = new Received();
  const contents = new Map<string, Buffer>();
  const listening: Promise<void>[] = [];
  for (const version of [4, 6] as const) {
    const host = SERVER[version];
    const http = createHttpServer((request, response) => {
      serveHttp(request, response, received, contents).catch((error: unknown) => response.destroy(error as Error));
    });
    const tcp: [Server, number][] = [
      [http, PORT.http],
      [tcpServer(echo), PORT.echo],
      [tcpServer(answerDnsStream), PORT.dns],
      [tcpServer(answerAfterFin), PORT.answersAfterFin],
      [tcpServer((socket) => finishFirst(socket, received)), PORT.finishesFirst],
    ];
    for (const [server, port] of tcp) listening.push(listenTcp(server, host, port));
    listening.push(listenUdp(version, PORT.echo, (message) => message));
    listening.push(listenUdp(version, PORT.dns, (message) => answerQuery(message, DNS_NAME, DNS_ANSWER)));
  }
  await Promise.all(listening);
}

/**
 * - `GET /content/SEED/BYTES`: that many bytes of {@link seededContent}
 * - `PUT /sink`: answers with the number of bytes and their SHA-256
 * - `GET /received/SHA256`: 200 when the half-close server got content with this hash, else 404
 */
async function serveHttp(
  request: IncomingMessage,
  response: ServerResponse,
  received: Received,
  contents: Map<string, Buffer>,
): Promise<void> {
  const [, resource = "", first = "", second = ""] = (request.url ?? "").split("/");
  if (resource === "content") {
    const content = contents.get(`${first}/${second}`) ?? seededContent(Number(first), Number(second));
    // Kept, so that a second download measures the relay and not the generator; one at a time bounds the memory.
    contents.clear();
    contents.set(`${first}/${second}`, content);
    response.writeHead(200, { "content-length": content.length, "content-type": "application/octet-stream" });
    response.end(content);
  } else if (resource === "sink") {
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const chunk of request as AsyncIterable<Buffer>) {
      hash.update(chunk);
      bytes += chunk.length;
    }
    response.end(JSON.stringify({ bytes, sha256: hash.digest("hex") }));
  } else if (resource === "received") {
    response.writeHead((await received.wait(first)) ? 200 : 404).end();
  } else {
    response.writeHead(404).end();
  }
}

function tcpServer(serve: (socket: Socket) => void): Server {
  return createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    // A client that resets its connection ends that connection, nothing else.
    socket.on("error", () => socket.destroy());
    serve(socket);
  });
}

function echo(socket: Socket): void {
  socket.pipe(socket);
}

function hashOf(socket: Socket): Hash {
  const hash = createHash("sha256");
  socket.on("data", (chunk: Buffer) => hash.update(chunk));
  return hash;
}

function answerAfterFin(socket: Socket): void {
  const hash = hashOf(socket);
  socket.on("end", () => socket.end(hash.digest("hex")));
}

function finishFirst(socket: Socket, received: Received): void {
  const hash = hashOf(socket);
  socket.on("end", () => received.add(hash.digest("hex")));
  socket.end(seededContent(GREETING_SEED, GREETING_BYTES));
}

function answerDnsStream(socket: Socket): void {
  let input: Buffer = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    input = Buffer.concat([input, chunk]);
    while (input.length >= DNS_TCP_PREFIX) {
      const length = input.readUInt16BE(0);
      if (input.length < DNS_TCP_PREFIX + length) break;
      const answer = answerQuery(input.subarray(DNS_TCP_PREFIX, DNS_TCP_PREFIX + length), DNS_NAME, DNS_ANSWER);
      input = input.subarray(DNS_TCP_PREFIX + length);
      if (answer === null) {
        socket.destroy();
        return;
      }
      const prefix = Buffer.alloc(DNS_TCP_PREFIX);
      prefix.writeUInt16BE(answer.length);
      socket.write(Buffer.concat([prefix, answer]));
    }
  });
  socket.on("end", () => socket.end());
}

function listenTcp(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port, backlog: 1024 }, resolve).unref();
  });
}

/** A UDP server that sends back what `answer` makes of a datagram; null for nothing. */
function listenUdp(version: IpVersion, port: number, answer: (message: Buffer) => Buffer | null): Promise<void> {
  const socket = dgram.createSocket({ type: version === 4 ? "udp4" : "udp6" });
  socket.on("message", (message, from) => {
    const reply = answer(message);
    if (reply !== null) socket.send(reply, from.port, from.address);
  });
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.bind(port, SERVER[version], () => {
      // Later errors are ICMP answers to single datagrams.
      socket.off("error", reject);
      socket.on("error", () => {});
      socket.unref();
      resolve();
    });
  });
}
