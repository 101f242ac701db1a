/** Servers for transfers that are cut: one never reads, the other never stops. In the outer namespace. */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { SERVER } from "../../../src/cli/demo/network.ts";
import { SINK_PORT, SOURCE_PORT } from "../peers/peer.ts";

const BLOCK = Buffer.alloc(64 * 1024, 2);

function send(socket: Socket): void {
  const fill = (): void => {
    while (socket.write(BLOCK));
  };
  socket.on("drain", fill);
  fill();
}

/** Starts both on both addresses; they do not keep the process alive. */
export async function startTransferServers(): Promise<void> {
  for (const host of Object.values(SERVER)) {
    for (const [port, serve] of [
      [SINK_PORT, (socket: Socket) => socket.pause()],
      [SOURCE_PORT, send],
    ] as const) {
      const server = createServer((socket) => {
        socket.unref();
        socket.on("error", () => socket.destroy());
        serve(socket);
      });
      server.listen(port, host);
      await once(server, "listening");
      server.unref();
    }
  }
}
