/** Many short connections. */
import { connect, type Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { CHURN_PORT, Ending, type IpVersion, SERVER } from "./network.ts";

export interface ChurnOptions {
  readonly count: number;
  readonly parallel: number;
}

/** How many connections ended in which way. */
export interface ChurnResult {
  /** As asked for. */
  readonly ok: number;
  /** Otherwise, by description. */
  readonly wrong: Readonly<Record<string, number>>;
  readonly ms: number;
}

const ENDINGS: readonly Ending[] = [
  Ending.clientFirst,
  Ending.serverFirst,
  Ending.clientResets,
  Ending.clientFirst,
  Ending.serverFirst,
  Ending.serverResets,
];

/** Connects, sends a byte, gets one back, and ends, `count` times with `parallel` at once. */
export async function churn({ count, parallel }: ChurnOptions): Promise<ChurnResult> {
  const start = performance.now();
  const wrong: Record<string, number> = {};
  let started = 0;
  let ok = 0;
  const worker = async (): Promise<void> => {
    while (started < count) {
      const i = started++;
      const ending = ENDINGS[i % ENDINGS.length] as Ending;
      const result = await connectOnce(i % 2 === 0 ? 4 : 6, ending);
      if (result === "ok") ok++;
      else wrong[`${ending}: ${result}`] = (wrong[`${ending}: ${result}`] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  return { ok, wrong, ms: performance.now() - start };
}

function connectOnce(version: IpVersion, ending: Ending): Promise<string> {
  return new Promise((resolve) => {
    const socket: Socket = connect({ host: SERVER[version], port: CHURN_PORT, allowHalfOpen: true });
    let read = 0;
    let ended = false;
    socket.write(ending);
    socket.on("data", (bytes) => {
      read += bytes.length;
      if (ending === Ending.clientFirst) socket.end();
      if (ending === Ending.clientResets) socket.resetAndDestroy();
    });
    socket.on("end", () => {
      ended = true;
      if (!socket.writableEnded) socket.end();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      const wanted = ending === Ending.serverResets && error.code === "ECONNRESET" && read === 0;
      resolve(wanted ? "ok" : `${error.code} after ${read} bytes`);
    });
    socket.on("close", () => {
      const wanted = read === 1 && (ended || ending === Ending.clientResets);
      resolve(wanted ? "ok" : `closed after ${read} bytes`);
    });
  });
}

/** Connections that say nothing, until they are let go. */
export class Held {
  readonly #sockets: Socket[] = [];

  /** Opens `count` connections, both versions in turn, a few at a time; each has exchanged a byte. */
  async open(count: number, parallel: number): Promise<void> {
    let started = 0;
    const worker = async (): Promise<void> => {
      while (started < count) this.#sockets.push(await openHeld(started++ % 2 === 0 ? 4 : 6));
    };
    await Promise.all(Array.from({ length: parallel }, worker));
  }

  /** Ends each and waits for the server to do so, too; returns how many ended in order. */
  async close(): Promise<number> {
    const ended = this.#sockets.splice(0).map(
      (socket) =>
        new Promise<boolean>((resolve) => {
          socket.once("end", () => resolve(true));
          socket.once("error", () => resolve(false));
          socket.end();
        }),
    );
    return (await Promise.all(ended)).filter(Boolean).length;
  }
}

function openHeld(version: IpVersion): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: SERVER[version], port: CHURN_PORT });
    socket.once("error", reject);
    socket.once("data", () => {
      socket.off("error", reject);
      resolve(socket);
    });
    socket.write(Ending.clientFirst);
  });
}
