/** The process with the embedded proxy and the demo's servers, in the relay namespace. Ends with its parent. */
import { ProxyServer } from "../../proxy/server/server.ts";
import { PROXY } from "./network.ts";
import { startServers } from "./servers.ts";

/** From the server process: the proxy's port, or why there is none. */
export type ServerReply =
  | { readonly is: "ready"; readonly port: number }
  | { readonly is: "failed"; readonly problem: string };

function reply(message: ServerReply): void {
  process.send?.(message);
}

process.on("SIGINT", () => {});
process.on("disconnect", () => process.exit(0));
try {
  const proxy = await ProxyServer.listen({ host: PROXY.host, port: 0, username: PROXY.user, password: PROXY.password });
  await startServers();
  reply({ is: "ready", port: proxy.address.port });
} catch (error) {
  reply({ is: "failed", problem: error instanceof Error ? error.message : String(error) });
}
