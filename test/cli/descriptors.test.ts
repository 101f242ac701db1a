/** `serve` with few open files: who is let in is served, who is not is told so. */
import { once } from "node:events";
import t from "tap";
import { readDescriptors } from "../../src/host/descriptors.ts";
import { maxConnectionsWithin, surplusOf } from "../../src/proxy/server/capacity.ts";
import { type Client, listen, openTunnel, portOf } from "../proxy/sockets.ts";
import { Running, SHIM } from "./command.ts";

t.setTimeout(120_000);

t.test("maxConnectionsWithin: tunnels and surplus fit, and hardly anything is left over", async (t) => {
  for (let descriptors = 0; descriptors <= 30_000; descriptors++) {
    const max = maxConnectionsWithin(descriptors);
    const needed = 2 * max + surplusOf(max);
    if (descriptors >= 12 && needed > descriptors) t.fail(`${max} connections in ${descriptors}`);
    if (descriptors >= 12 && 2 * (max + 2) + surplusOf(max + 2) <= descriptors) t.fail(`${max} of ${descriptors}`);
    if (max < 1) t.fail(`${max} connections in ${descriptors}`);
  }
  t.equal(maxConnectionsWithin(20_064), 10_000);
});

t.test("readDescriptors: the limit and what is open", { skip: process.platform !== "linux" }, async (t) => {
  // The first server also opens what Node keeps.
  const first = await listen("127.0.0.1", () => {});
  const before = readDescriptors();
  const server = await listen("127.0.0.1", () => {});
  const after = readDescriptors();
  t.equal((after?.open ?? 0) - (before?.open ?? 0), 1);
  t.equal(after?.limit, before?.limit);
  server.close();
  first.close();
});

/** What became of a client: its tunnel echoes, it was refused in words, or reset. */
type Fate = "tunnel" | "refused" | "reset" | string;

async function meet(port: number, target: number): Promise<{ fate: Fate; client: Client | null }> {
  try {
    const { client, reply } = await openTunnel(port, "127.0.0.1", target);
    if (reply === 1) return { fate: "refused", client };
    if (reply !== 0) return { fate: client.error?.code === "ECONNRESET" ? "reset" : `reply ${reply}`, client };
    client.write("hello");
    return { fate: (await client.read(5)).toString() === "hello" ? "tunnel" : "silent", client };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : error;
    return { fate: code === "ECONNRESET" ? "reset" : `${code}`, client: null };
  }
}

const skip = process.platform === "linux" ? false : "limits are read from /proc";

t.test("serve: 200 clients at once with 64 open files", { skip }, async (t) => {
  const echo = await listen("127.0.0.1", (socket) => socket.pipe(socket));
  t.teardown(() => echo.close());
  for (const { args, level } of [
    { args: [], level: "info" },
    { args: ["--max-connections", "100"], level: "warn" },
    { args: ["--listen", "127.0.0.1:0"], level: "info" },
  ]) {
    const script = 'ulimit -n 64 && exec "$0" serve --listen 127.0.0.1:0 "$@"';
    const server = new Running(["-c", script, SHIM, ...args], { command: "sh" });
    const [, found, max] = await server.printed(
      / (info|warn) +at most (\d+) clients at a time(?: on each address)?, not \d+: the limit of open files is 64; raise it \(ulimit -n\)\n/,
    );
    t.equal(found, level, args.join(" "));
    const ports = [...(await server.printed(/(listening on \S+\n)+/))[0].matchAll(/:(\d+)\n/g)].map(([, p]) =>
      Number(p),
    );

    const fates = new Map<Fate, number>();
    const clients: (Client | null)[] = [];
    const crowd = ports.flatMap((port) => Array.from({ length: 200 / ports.length }, () => meet(port, portOf(echo))));
    for (const { fate, client } of await Promise.all(crowd)) {
      fates.set(fate, (fates.get(fate) ?? 0) + 1);
      clients.push(client);
    }
    const tunnels = Number(max) * ports.length;
    t.ok(Number(max) >= 3, `${max} clients`);
    t.equal(fates.get("tunnel"), tunnels, "all that are let in have their tunnel");
    t.ok((fates.get("refused") ?? 0) > 0, "some are told");
    t.equal(tunnels + (fates.get("refused") ?? 0) + (fates.get("reset") ?? 0), 200, JSON.stringify([...fates]));
    const gone = clients
      .filter((client) => client !== null && !client.closed)
      .map((client) => {
        const { socket } = client as Client;
        socket.destroy();
        return once(socket, "close");
      });
    await Promise.all(gone);

    for (let i = 0; i < 5; i++) {
      let { fate, client } = await meet(ports[0] as number, portOf(echo));
      // The server may still be closing the others.
      while (fate !== "tunnel") ({ fate, client } = await meet(ports[0] as number, portOf(echo)));
      client?.socket.destroy();
    }
    const { status, stderr } = await server.stop();
    t.equal(status, 0);
    t.notMatch(stderr, /EMFILE/, "never out of open files");
  }
});
