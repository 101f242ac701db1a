/** Flows one side of which hardly reads: downloads to us, or uploads to a slow server. */
import { createHash, type Hash } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { Content, contentDigest } from "./content.ts";
import { BULK_PORT, type IpVersion, SERVER } from "./network.ts";

/** Which flows to open. */
export interface SlowOptions {
  readonly direction: "down" | "up";
  readonly version: IpVersion;
  readonly count: number;
  /** Of each. */
  readonly bytes: number;
  readonly seed: number;
}

const SLOW_BYTES = 1024;
const FAST_BYTES = 256 * 1024;

export class SlowFlows {
  readonly #sockets = new Set<Socket>();
  #results: Promise<string>[] = [];
  #isSlow = true;
  readonly #small: Buffer = Buffer.alloc(SLOW_BYTES);
  readonly #large: Buffer = Buffer.alloc(FAST_BYTES);
  /** Bytes of downloads read so far. */
  bytesRead = 0;

  async open(options: SlowOptions): Promise<void> {
    this.#isSlow = true;
    const opened: Promise<unknown>[] = [];
    for (let i = 0; i < options.count; i++) {
      const socket = options.direction === "down" ? this.#download(options, i) : this.#upload(options, i);
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      opened.push(once(socket, "connect"));
    }
    await Promise.all(opened);
  }

  async finish(): Promise<string[]> {
    this.#isSlow = false;
    for (const socket of this.#sockets) socket.resume();
    return (await this.#ends()).filter((result) => result !== "ok");
  }

  #ends(): Promise<string[]> {
    return Promise.all(this.#results.splice(0));
  }

  async reset(): Promise<void> {
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await this.#ends();
  }

  /** Reads 1 KiB a second: a buffer of this size is all that Node reads at once. */
  #download({ version, bytes, seed }: SlowOptions, i: number): Socket {
    const hash = createHash("sha256");
    const socket: Socket = connect({
      host: SERVER[version],
      port: BULK_PORT,
      onread: {
        buffer: () => (this.#isSlow ? this.#small : this.#large),
        callback: (length, buffer) => this.#onRead(socket, hash, buffer.subarray(0, length)),
      },
    });
    socket.write(`down ${seed + i} ${bytes}\n`);
    this.#results.push(endOf(socket, () => hash.digest("hex") === contentDigest(seed + i, bytes)));
    return socket;
  }

  #onRead(socket: Socket, hash: Hash, bytes: Uint8Array): boolean {
    hash.update(bytes);
    this.bytesRead += bytes.length;
    if (!this.#isSlow) return true;
    setTimeout(() => socket.resume(), 1000);
    return false;
  }

  /** Sends as fast as it can to a server that reads slowly. */
  #upload({ version, bytes, seed }: SlowOptions, i: number): Socket {
    const socket = connect({ host: SERVER[version], port: BULK_PORT, allowHalfOpen: true });
    const content = new Content(seed + i, bytes);
    const more = (): void => {
      for (let piece = content.next(); piece !== null; piece = content.next()) {
        if (socket.write(piece)) continue;
        socket.once("drain", more);
        return;
      }
      socket.end();
    };
    socket.write("slow-up\n");
    more();
    let answer = "";
    socket.on("data", (text) => {
      answer += text.toString("latin1");
    });
    this.#results.push(endOf(socket, () => answer === contentDigest(seed + i, bytes)));
    return socket;
  }
}

/** `ok`, `differs`, `closed`, or an error code. */
function endOf(socket: Socket, isRight: () => boolean): Promise<string> {
  return new Promise((resolve) => {
    socket.on("end", () => resolve(isRight() ? "ok" : "differs"));
    socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.on("close", () => resolve("closed"));
  });
}
