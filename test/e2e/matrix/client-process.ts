/** The matrix's own client: connections whose end matters. A process in the client namespace. */
import dgram from "node:dgram";
import { connect, type Socket } from "node:net";
import { answerCalls } from "../stress/remote.ts";

/** How both transfers of {@link MatrixClient.begin} ended: `FIN`, or an errno such as `ECONNRESET`. */
export interface TransferEnds {
  readonly upload: string;
  readonly download: string;
}

/** Methods of the process. */
export interface MatrixClient {
  /** Connects and resets: `ok`, or the errno of connect(). */
  connect(host: string, port: number): Promise<string>;
  /** Sends one datagram: `ok` when one comes back, the errno that a send or receive fails with, or `silence`. */
  datagram(host: string, port: number, timeoutMs: number): Promise<string>;
  /** Connects, and waits for data and the end: what came (latin1), and `FIN` or an errno. */
  read(host: string, port: number): Promise<{ readonly data: string; readonly end: string }>;
  /** Starts an upload to a server that does not read, and a download without an end; returns when both are under way. */
  begin(host: string, sinkPort: number, sourcePort: number): Promise<void>;
  /** Waits for the ends of both. */
  finish(): Promise<TransferEnds>;
}

function errnoOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}

function opened(host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, allowHalfOpen: true });
    socket.once("connect", () => resolve(socket)).once("error", reject);
  });
}

/** Resolves once the socket has failed or the server has ended its direction. */
function endOf(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.once("end", () => resolve("FIN"));
    // A write to a connection that was reset before fails with EPIPE; the reset is what matters.
    socket.once("error", (error) => resolve(errnoOf(error).replace("EPIPE", "ECONNRESET")));
  });
}

/** Bytes that show that a transfer is under way. */
const UNDER_WAY = 1 << 20;
/** How long an upload that nobody reads stands still before every buffer on its way counts as full, ms. */
const STILL_MS = 300;

let ends: Promise<TransferEnds> | null = null;

async function beginUpload(host: string, port: number): Promise<Socket> {
  const socket = await opened(host, port);
  const block = Buffer.alloc(64 * 1024, 1);
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, STILL_MS);
    const fill = (): void => {
      timer.refresh();
      while (socket.write(block));
    };
    socket.on("drain", fill);
    fill();
  });
  return socket;
}

async function beginDownload(host: string, port: number): Promise<Socket> {
  const socket = await opened(host, port);
  let bytes = 0;
  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject).once("end", () => reject(new Error("ended early")));
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes >= UNDER_WAY) resolve();
    });
  });
  return socket;
}

answerCalls<MatrixClient>({
  async connect(host, port) {
    try {
      (await opened(host, port)).resetAndDestroy();
      return "ok";
    } catch (error) {
      return errnoOf(error);
    }
  },
  datagram(host, port, timeoutMs) {
    const socket = dgram.createSocket(host.includes(":") ? "udp6" : "udp4");
    return new Promise<string>((resolve) => {
      const timer = setTimeout(() => resolve("silence"), timeoutMs);
      socket.once("message", () => resolve("ok"));
      socket.once("error", (error) => resolve(errnoOf(error)));
      socket.once("close", () => clearTimeout(timer));
      socket.connect(port, host, () => socket.send("hello"));
    }).finally(() => socket.close());
  },
  async read(host, port) {
    let data = "";
    try {
      const socket = await opened(host, port);
      socket.setEncoding("latin1").on("data", (chunk: string) => {
        data += chunk;
      });
      const end = await endOf(socket);
      socket.destroy();
      return { data, end };
    } catch (error) {
      return { data, end: errnoOf(error) };
    }
  },
  async begin(host, sinkPort, sourcePort) {
    const [upload, download] = await Promise.all([beginUpload(host, sinkPort), beginDownload(host, sourcePort)]);
    ends = Promise.all([endOf(upload), endOf(download)]).then(([up, down]) => {
      upload.destroy();
      download.destroy();
      return { upload: up, download: down };
    });
  },
  async finish() {
    if (ends === null) throw new Error("finish() without begin()");
    return ends;
  },
});
