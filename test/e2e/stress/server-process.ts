/** The servers of the stress tests, a process in the outer namespace. */
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { Content } from "./content.ts";
import { BULK_PORT, CHURN_PORT, ECHO_PORT, Ending, SERVER, VERSIONS } from "./network.ts";
import { answerCalls } from "./remote.ts";

/** What a slow reader takes a second, bytes. */
const SLOW_BYTES = 1024;
const MAX_LINE = 64;

/** Methods of the process. */
export interface ServerMethods {
  listen(): Promise<void>;
  /** Lets slow readers read as fast as they can, or new ones be slow again. */
  setSlow(slow: boolean): void;
  /** Resets all connections; returns how many there were. */
  resetAll(): number;
}

let slow = true;
const sockets = new Set<Socket>();
const slowReaders = new Set<() => void>();

function onBulk(socket: Socket): void {
  let line = "";
  socket.on("readable", function readLine() {
    for (;;) {
      const byte = socket.read(1) as Buffer | null;
      if (byte === null) return;
      if (byte[0] === 10) break;
      line += byte.toString("latin1");
      if (line.length > MAX_LINE) {
        socket.resetAndDestroy();
        return;
      }
    }
    socket.off("readable", readLine);
    const [what = "", seed = "", length = ""] = line.split(" ");
    if (what === "down") send(socket, new Content(Number(seed), Number(length)));
    else if (what === "up") receive(socket);
    else receiveSlowly(socket);
  });
}

/** Sends the content, then FIN. */
export function send(socket: Socket, content: Content): void {
  const more = (): void => {
    for (;;) {
      const piece = content.next();
      if (piece === null) {
        socket.end();
        return;
      }
      if (!socket.write(piece)) break;
    }
    socket.once("drain", more);
  };
  socket.resume();
  more();
}

/** Answers the SHA-256 of everything up to the client's FIN. */
function receive(socket: Socket): void {
  const hash = createHash("sha256");
  socket.on("data", (bytes) => hash.update(bytes));
  socket.on("end", () => socket.end(hash.digest("hex")));
}

/** The same at 1 KiB a second, until `setSlow(false)`. */
function receiveSlowly(socket: Socket): void {
  const hash = createHash("sha256");
  const timer = setInterval(() => {
    const bytes = socket.read(Math.min(SLOW_BYTES, socket.readableLength)) as Buffer | null;
    if (bytes !== null) hash.update(bytes);
  }, 1000);
  const speedUp = (): void => {
    clearInterval(timer);
    slowReaders.delete(speedUp);
    socket.on("data", (bytes) => hash.update(bytes));
  };
  socket.on("end", () => socket.end(hash.digest("hex")));
  socket.on("close", () => {
    clearInterval(timer);
    slowReaders.delete(speedUp);
  });
  slowReaders.add(speedUp);
  if (!slow) speedUp();
}

function onChurn(socket: Socket): void {
  socket.once("data", (bytes) => {
    switch (bytes.toString("latin1", 0, 1)) {
      case Ending.serverFirst:
        socket.end("s");
        break;
      case Ending.serverResets:
        socket.resetAndDestroy();
        break;
      default:
        socket.write("c");
    }
  });
  socket.on("end", () => {
    if (!socket.writableEnded) socket.end();
  });
}

async function listenTcp(host: string, port: number, onConnection: (socket: Socket) => void): Promise<void> {
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    // Resets are among what is tested.
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    onConnection(socket);
  });
  server.listen({ host, port, backlog: 4096 });
  await once(server, "listening");
}

async function listenUdp(host: string, port: number): Promise<void> {
  const socket = createSocket({ type: host.includes(":") ? "udp6" : "udp4", recvBufferSize: 1 << 20 });
  socket.on("message", (bytes, { address, port: to }) => socket.send(bytes, to, address));
  socket.on("error", () => {});
  socket.bind(port, host);
  await once(socket, "listening");
}

answerCalls<ServerMethods>({
  async listen() {
    for (const version of VERSIONS) {
      await listenTcp(SERVER[version], BULK_PORT, onBulk);
      await listenTcp(SERVER[version], CHURN_PORT, onChurn);
      await listenUdp(SERVER[version], ECHO_PORT);
    }
  },
  setSlow(wanted) {
    slow = wanted;
    if (!wanted) for (const speedUp of [...slowReaders]) speedUp();
  },
  resetAll() {
    const count = sockets.size;
    for (const socket of [...sockets]) socket.resetAndDestroy();
    return count;
  },
});
