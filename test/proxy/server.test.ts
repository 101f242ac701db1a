import { execFile, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { PassThrough } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { promisify } from "node:util";
import fc from "fast-check";
import { SocksClient } from "socks";
import t, { type Test } from "tap";
import { ListenError } from "../../src/proxy/errors.ts";
import type { NameLookup } from "../../src/proxy/server/name-lookup.ts";
import type { ProxyServerOptions } from "../../src/proxy/server/options.ts";
import { ReadBuffers } from "../../src/proxy/server/read-buffers.ts";
import { ProxyServer } from "../../src/proxy/server/server.ts";
import { TcpEnd } from "../../src/proxy/server/tcp-end.ts";
import { emitUdpHeader, parseUdpHeader, Socks5UdpHeader, udpHeaderLength } from "../../src/proxy/socks5-udp.ts";
import { formatAddress, parseAddress } from "../../src/stack/flow/address.ts";
import { Client, Datagrams, listen, openTunnel, portOf, socksConnect } from "./sockets.ts";

t.setTimeout(120_000);

/** A proxy that ends with the test, and its port. */
async function start(t: Test, options: ProxyServerOptions = {}): Promise<{ proxy: ProxyServer; port: number }> {
  const proxy = await ProxyServer.listen({ port: 0, ...options });
  t.teardown(() => proxy.close());
  return { proxy, port: proxy.address.port };
}

/** A TCP server that ends with the test, and its port. */
async function serve(t: Test, onSocket: (socket: net.Socket) => void, host = "127.0.0.1"): Promise<number> {
  const sockets = new Set<net.Socket>();
  const server = await listen(host, (socket) => {
    sockets.add(socket);
    onSocket(socket);
  });
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return portOf(server);
}

/** Until `reached`, which something under way brings about. */
async function until(reached: () => boolean): Promise<void> {
  while (!reached()) await turn();
}

const echo = (socket: net.Socket) => socket.pipe(socket);

t.test("listen: address, close, and a second close", async (t) => {
  const proxy = await ProxyServer.listen({ port: 0 });
  t.match(proxy.address, { host: "127.0.0.1", port: Number });
  const client = await Client.connect(proxy.address.port);
  const tunnel = await openTunnel(proxy.address.port, "127.0.0.1", await serve(t, echo));
  await Promise.all([proxy.close(), proxy.close(60_000)]);
  await client.readAll();
  client.socket.destroy();
  await tunnel.client.gone();
  t.match(tunnel.client.error, { code: "ECONNRESET" }, "an open tunnel is reset: FIN would say that all came through");
  t.equal(proxy.stats().connections, 0);
  await t.rejects(Client.connect(proxy.address.port), { code: "ECONNREFUSED" });
});

t.test("close: with a time to drain, open tunnels may finish", async (t) => {
  const proxy = await ProxyServer.listen({ port: 0 });
  const target = await serve(t, echo);
  const { client } = await openTunnel(proxy.address.port, "127.0.0.1", target);
  const closed = proxy.close(60_000);
  client.write("late");
  t.equal((await client.read(4)).toString(), "late");
  client.socket.end();
  t.equal((await client.readAll()).length, 0);
  await closed;
  t.equal(client.error, null, "no reset");
});

t.test("listen: what cannot be had is said with a code", async (t) => {
  const { port } = await start(t);
  for (const [options, code, message] of [
    [{ port }, "LISTEN_IN_USE", /another program has the port/],
    [
      { host: "192.0.2.1", port: 0 },
      "LISTEN_ADDRESS",
      /Cannot listen on 192\.0\.2\.1:0: no interface has this address/,
    ],
    [{ host: "nothing.invalid", port: 0 }, "LISTEN_ADDRESS", /the name has no address/],
    [{ port: 65_536 }, "LISTEN_OPTION", /Port 65536 is out of range/],
    [{ port: 0, maxConnections: 0 }, "LISTEN_OPTION", /maxConnections is 0/],
    [{ port: 0, udpTimeoutMs: 0.5 }, "LISTEN_OPTION", /udpTimeoutMs is 0\.5/],
    [{ port: 0, password: "x" }, "LISTEN_OPTION", /without a user/],
    [{ port: 0, username: "a:b", password: "x" }, "LISTEN_OPTION", /a colon/],
    [{ port: 0, username: "a", password: "ü".repeat(128) }, "LISTEN_OPTION", /password has 256 bytes/],
  ] as const) {
    const error: unknown = await ProxyServer.listen(options).catch((reason: unknown) => reason);
    t.type(error, ListenError);
    t.match(error, { code, message });
  }
});

t.test("curl through every door", async (t) => {
  const body = randomBytes(300_000);
  const web = http.createServer((_, response) => response.end(body));
  web.listen(0, "::");
  await once(web, "listening");
  t.teardown(() => web.close());
  const webPort = (web.address() as net.AddressInfo).port;
  const open = await start(t, { host: "::" });
  const locked = await start(t, { host: "::", username: "al@ice", password: "s3:cr et" });
  const userinfo = "al%40ice:s3%3Acr%20et";

  /** Status of the answer, or curl's exit code and its complaint. */
  const curl = async (...args: string[]) => {
    const run = promisify(execFile)(
      "curl",
      ["-sS", "-m", "60", "-w", "%{stderr}%{http_code} %{http_connect}", ...args],
      {
        encoding: "buffer",
        maxBuffer: 1 << 24,
      },
    );
    const { code, stdout, stderr } = await run.then(
      (done) => ({ ...done, code: 0 }),
      (failed: { code: number; stdout: Buffer; stderr: Buffer }) => failed,
    );
    return { code, same: stdout.equals(body), text: stderr.toString() };
  };

  for (const [what, ...args] of [
    ["SOCKS5, IPv4 over IPv4", "-x", `socks5://127.0.0.1:${open.port}`, `http://127.0.0.1:${webPort}/`],
    ["SOCKS5, IPv6 over IPv4", "-x", `socks5://127.0.0.1:${open.port}`, `http://[::1]:${webPort}/`],
    ["SOCKS5, IPv4 over IPv6", "-x", `socks5://[::1]:${open.port}`, `http://127.0.0.1:${webPort}/`],
    ["SOCKS5, name resolved by the proxy", "-x", `socks5h://[::1]:${open.port}`, `http://localhost:${webPort}/`],
    ["SOCKS5 with a password", "-x", `socks5h://${userinfo}@127.0.0.1:${locked.port}`, `http://localhost:${webPort}/`],
    [
      "SOCKS5 with a password not asked for",
      "-x",
      `socks5://a:b@127.0.0.1:${open.port}`,
      `http://127.0.0.1:${webPort}/`,
    ],
    ["HTTP, IPv4", "-p", "-x", `http://127.0.0.1:${open.port}`, `http://127.0.0.1:${webPort}/`],
    ["HTTP, IPv6", "-p", "-x", `http://[::1]:${open.port}`, `http://[::1]:${webPort}/`],
    ["HTTP, name", "-p", "-x", `http://127.0.0.1:${open.port}`, `http://localhost:${webPort}/`],
    ["HTTP with a password", "-p", "-x", `http://${userinfo}@127.0.0.1:${locked.port}`, `http://localhost:${webPort}/`],
    [
      "HTTP, method negotiated",
      "--proxy-anyauth",
      "-p",
      "-x",
      `http://${userinfo}@127.0.0.1:${locked.port}`,
      `http://localhost:${webPort}/`,
    ],
  ]) {
    const seen = await curl(...args);
    t.match(seen, { code: 0, same: true }, `${what}: ${seen.text}`);
  }
  for (const [what, code, text, ...args] of [
    [
      "SOCKS5, wrong password",
      97,
      /rejected|[Aa]uth/,
      "-x",
      `socks5://al%40ice:no@127.0.0.1:${locked.port}`,
      `http://127.0.0.1:${webPort}/`,
    ],
    ["SOCKS5, no password", 97, /./, "-x", `socks5://127.0.0.1:${locked.port}`, `http://127.0.0.1:${webPort}/`],
    [
      "HTTP, wrong password",
      56,
      / 407$/,
      "-p",
      "-x",
      `http://al%40ice:no@127.0.0.1:${locked.port}`,
      `http://127.0.0.1:${webPort}/`,
    ],
    ["HTTP, no password", 56, / 407$/, "-p", "-x", `http://127.0.0.1:${locked.port}`, `http://127.0.0.1:${webPort}/`],
    ["HTTP without a tunnel", 0, /^405 /, "-x", `http://127.0.0.1:${open.port}`, `http://127.0.0.1:${webPort}/`],
    ["SOCKS5, unknown name", 97, /\(4\)/, "-x", `socks5h://127.0.0.1:${open.port}`, "http://nothing.invalid/"],
    ["HTTP, unknown name", 56, / 502$/, "-p", "-x", `http://127.0.0.1:${open.port}`, "http://nothing.invalid/"],
    ["SOCKS4", 97, /./, "-x", `socks4://127.0.0.1:${open.port}`, `http://127.0.0.1:${webPort}/`],
  ] as const) {
    const seen = await curl(...args);
    t.equal(seen.code, code, `${what}: ${seen.text}`);
    t.match(seen.text, text, what);
  }
  t.match(locked.proxy.stats(), { authFailures: Number, dialFailures: 0 });
  t.match(open.proxy.stats(), { dialFailures: 2, refused: 1, badHandshakes: 1 });
});

t.test("the `socks` package as a client", async (t) => {
  const target = await serve(t, echo);
  const { port } = await start(t, { username: "u", password: "p" });
  const proxy = { host: "127.0.0.1", port, type: 5, userId: "u", password: "p" } as const;
  const { socket } = await SocksClient.createConnection({
    proxy,
    command: "connect",
    destination: { host: "localhost", port: target },
  });
  const client = new Client(socket);
  client.write("hello");
  t.equal((await client.read(5)).toString(), "hello");
  socket.destroy();
  await t.rejects(
    SocksClient.createConnection({ proxy, command: "connect", destination: { host: "127.0.0.1", port: 1 } }),
    /ConnectionRefused/,
  );
  const wrong = { ...proxy, password: "x" };
  await t.rejects(
    SocksClient.createConnection({
      proxy: wrong,
      command: "connect",
      destination: { host: "127.0.0.1", port: target },
    }),
    /Authentication failed/,
  );
});

t.test("refused: SOCKS5 reply 5, HTTP 502 that says so (RFC 9209)", async (t) => {
  const { port } = await start(t);
  const { client, reply } = await openTunnel(port, "127.0.0.1", 1);
  t.equal(reply, 5);
  t.equal((await client.readAll()).length, 0, "then FIN");
  const web = await Client.connect(port);
  web.write("CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n");
  const answer = (await web.readAll()).toString();
  t.match(answer, /^HTTP\/1.1 502 Bad Gateway\r\n/);
  t.match(answer, "Proxy-Status: tunrelay; error=connection_refused\r\n");
  t.match(answer, /: ECONNREFUSED\n$/);
});

t.test("private destinations can be ruled out, also behind names", async (t) => {
  const target = await serve(t, echo);
  const { proxy, port } = await start(t, { allowPrivate: false });
  t.equal((await openTunnel(port, "127.0.0.1", target)).reply, 2);
  t.equal((await openTunnel(port, "localhost", target)).reply, 2);
  t.equal((await openTunnel(port, "0:0:0:0:0:ffff:7f00:1", target)).reply, 2, "an address written as a name");
  const web = await Client.connect(port);
  web.write(`CONNECT [::ffff:127.0.0.1]:${target} HTTP/1.1\r\n\r\n`);
  t.match((await web.readAll()).toString(), /^HTTP\/1.1 403 Forbidden\r\n/);
  t.equal(proxy.stats().refused, 4);
});

t.test("half-close: a server that answers only after the client's FIN", async (t) => {
  const target = await serve(t, async (socket) => {
    const asked = await new Client(socket).readAll();
    socket.end(`got ${asked.length}`);
  });
  const { proxy, port } = await start(t);
  const { client } = await openTunnel(port, "127.0.0.1", target);
  client.socket.end("x".repeat(100_000));
  t.equal((await client.readAll()).toString(), "got 100000");
  t.equal(client.error, null);
  await until(() => proxy.stats().connections === 0);
});

t.test("half-close: a client that goes on after the server's FIN", async (t) => {
  const asked = new Promise<Buffer>((resolve) => {
    serve(t, (socket) => {
      socket.end("bye");
      resolve(new Client(socket).readAll());
    }).then(async (target) => {
      const { port } = await start(t);
      const { client } = await openTunnel(port, "127.0.0.1", target);
      t.equal((await client.readAll()).toString(), "bye");
      client.socket.end("y".repeat(100_000));
    });
  });
  t.equal((await asked).length, 100_000);
});

t.test("half-close: request, data and FIN in one piece", async (t) => {
  const target = await serve(t, async (socket) => {
    const asked = await new Client(socket).readAll();
    socket.end(asked);
  });
  const { port } = await start(t);
  for (const request of [
    socksConnect("localhost", target),
    Buffer.from(`CONNECT 127.0.0.1:${target} HTTP/1.1\r\n\r\n`),
  ]) {
    const client = await Client.connect(port);
    client.socket.end(Buffer.concat([request, Buffer.from("early")]));
    t.match((await client.readAll()).toString("latin1"), /early$/);
  }
});

t.test("resets pass through, and are never taken for the end", async (t) => {
  const upstream: Client[] = [];
  const target = await serve(t, (socket) => {
    upstream.push(new Client(socket));
    socket.write("!");
  });
  const { proxy, port } = await start(t);
  const first = await openTunnel(port, "127.0.0.1", target);
  await first.client.read(1);
  first.client.socket.resetAndDestroy();
  await upstream[0]?.gone();
  t.match(upstream[0], { ended: false, error: { code: "ECONNRESET" } }, "client's reset reaches the server");

  const second = await openTunnel(port, "127.0.0.1", target);
  await second.client.read(1);
  upstream[1]?.socket.resetAndDestroy();
  await second.client.gone();
  t.match(second.client, { ended: false, error: { code: "ECONNRESET" } }, "server's reset reaches the client");

  const third = await openTunnel(port, "127.0.0.1", target);
  await third.client.read(1);
  third.client.socket.end();
  await upstream[2]?.readAll();
  upstream[2]?.socket.resetAndDestroy();
  await third.client.gone();
  t.match(third.client, { ended: false, error: { code: "ECONNRESET" } }, "also after the client's own FIN");
  await until(() => proxy.stats().connections === 0);
});

/** Where connecting hangs: a listener with a full backlog, whose process never accepts. Linux drops further SYNs. */
async function hole(t: Test, host: string): Promise<number> {
  const script = `
    const server = require("node:net").createServer();
    server.listen({ host: "${host}", port: 0, backlog: 1 }, () => {
      require("node:fs").writeSync(1, String(server.address().port));
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  const [text] = (await once(child.stdout, "data")) as [Buffer];
  const fill = Array.from({ length: 8 }, () => net.connect(Number(text), host).on("error", () => {}));
  t.teardown(() => {
    for (const socket of fill) socket.destroy();
    child.kill("SIGKILL");
  });
  await Promise.all([once(fill[0] as net.Socket, "connect"), once(fill[1] as net.Socket, "connect")]);
  return Number(text);
}

/** Names with the addresses given; `silent` is never answered. */
function names(table: Readonly<Record<string, readonly string[]>>): NameLookup {
  return (name, onResult) => {
    if (name !== "silent") setImmediate(() => onResult(null, table[name] ?? []));
  };
}

t.test("a client that leaves while its destination is dialled leaves nothing behind", async (t) => {
  const { proxy, port } = await start(t, { lookup: names({}) });
  const target = await hole(t, "127.0.0.1");
  for (const host of ["silent", "127.0.0.1"]) {
    const client = await Client.connect(port);
    client.write(socksConnect(host, target));
    await client.read(2);
    await until(() => proxy.stats().socksRequests === (host === "silent" ? 1 : 2));
    client.socket.resetAndDestroy();
    await until(() => proxy.stats().connections === 0);
  }
  t.match(proxy.stats(), { tunnels: 0, dialFailures: 0 });
});

t.test("early data beyond what is kept waits in the kernel while the destination is dialled", async (t) => {
  let answer: () => void = () => {};
  const lookup: NameLookup = (_, onResult) => {
    answer = () => onResult(null, ["127.0.0.1"]);
  };
  const { proxy, port } = await start(t, { lookup });
  const target = await serve(t, async (socket) => {
    const asked = await new Client(socket).readAll();
    socket.end(createHash("sha256").update(asked).digest("hex"));
  });
  const data = randomBytes(8 << 20);
  const client = await Client.connect(port);
  client.write(socksConnect("later", target));
  client.socket.end(data);
  await client.read(2);
  await until(() => proxy.stats().socksRequests === 1);
  answer();
  await client.read(10);
  t.equal((await client.readAll()).toString(), createHash("sha256").update(data).digest("hex"));
  t.equal(proxy.stats().bytesUp, data.length);
});

t.test("a destination that does not answer: reply 4, HTTP 504", async (t) => {
  const { port } = await start(t, { connectTimeoutMs: 100, lookup: names({}) });
  const target = await hole(t, "127.0.0.1");
  t.equal((await openTunnel(port, "127.0.0.1", target)).reply, 4);
  t.equal((await openTunnel(port, "silent", target)).reply, 4, "nor does the resolver");
  const web = await Client.connect(port);
  web.write(`CONNECT 127.0.0.1:${target} HTTP/1.1\r\n\r\n`);
  t.match((await web.readAll()).toString(), /^HTTP\/1.1 504 Gateway Timeout\r\n/);
});

t.test("all addresses of a name are tried (RFC 8305)", async (t) => {
  const target = await hole(t, "127.0.0.2");
  const server = await listen("127.0.0.3", echo, target);
  t.teardown(() => server.close());
  const { proxy, port } = await start(t, {
    lookup: names({
      refused: ["::1", "127.0.0.4", "127.0.0.3"],
      silentFirst: ["127.0.0.2", "127.0.0.3"],
      none: [],
      "all-refused": ["::1", "127.0.0.4"],
    }),
  });
  for (const [name, expected] of [
    ["refused", 0],
    ["silentFirst", 0],
    ["none", 4],
    ["all-refused", 5],
  ] as const) {
    const { client, reply } = await openTunnel(port, name, target);
    t.equal(reply, expected, name);
    if (reply === 0) {
      client.write(name);
      t.equal((await client.read(name.length)).toString(), name);
    }
    client.socket.destroy();
  }
  await until(() => proxy.stats().connections === 0);
});

t.test("bulk: both directions keep every byte, and a slow reader holds little", async (t) => {
  const size = 96 << 20;
  const block = randomBytes(1 << 20);
  const expected = createHash("sha256");
  for (let at = 0; at < size; at += block.length) expected.update(block);
  const wanted = expected.digest("hex");
  const send = async (socket: net.Socket) => {
    for (let at = 0; at < size; at += block.length) {
      if (!socket.write(block)) await once(socket, "drain");
    }
    socket.end();
  };
  const receive = async (socket: net.Socket) => {
    const hash = createHash("sha256");
    socket.on("data", (chunk) => hash.update(chunk));
    await once(socket, "end");
    return hash.digest("hex");
  };
  let received: Promise<string> = Promise.resolve("");
  const target = await serve(t, (socket) => {
    received = receive(socket);
    send(socket).catch(() => {});
  });
  const { proxy, port } = await start(t);
  const socket = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  socket.write(socksConnect("127.0.0.1", target));
  await once(socket, "connect");
  await until(() => socket.read(12) !== null);
  // Nobody reads now: what the proxy takes is what the kernel's buffers and one read hold.
  for (let before = -1; before !== proxy.stats().bytesDown; ) {
    before = proxy.stats().bytesDown;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  t.ok(proxy.stats().bytesDown < 48 << 20, `${proxy.stats().bytesDown} bytes went through while nobody read`);
  const [down] = await Promise.all([receive(socket), send(socket)]);
  t.equal(down, wanted, "down");
  t.equal(await received, wanted, "up");
  t.match(proxy.stats(), { bytesUp: size, bytesDown: size });
});

t.test("accepted sockets are read into buffers of ours (Node's internal handle)", async (t) => {
  const adopted = new Promise<{ end: TcpEnd; accepted: net.Socket }>((resolve) => {
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (accepted) => {
      const owner = { onBytes: () => false, onEnd: () => {}, onError: () => {}, onClose: () => server.close() };
      resolve({ end: TcpEnd.adopt(accepted, owner, new ReadBuffers()), accepted });
    });
    server.listen(0, "127.0.0.1", () => net.connect(portOf(server), "127.0.0.1").on("error", () => {}));
  });
  const { end, accepted } = await adopted;
  t.not(end.socket, accepted);
  t.equal(end.socket.remoteAddress, "127.0.0.1");
  end.reset();
});

t.test("a stream without such a handle is read the ordinary way", async (t) => {
  const buffers = new ReadBuffers();
  const got: number[] = [];
  const owner = (onBytes: (bytes: Uint8Array) => boolean) => ({
    onBytes,
    onEnd: () => {},
    onError: () => {},
    onClose: () => {},
  });
  const source = new PassThrough();
  const sink = new PassThrough();
  const from = TcpEnd.adopt(
    source as unknown as net.Socket,
    owner(() => true),
    buffers,
  );
  const to = TcpEnd.adopt(
    sink as unknown as net.Socket,
    owner((bytes) => {
      got.push(bytes.length);
      return true;
    }),
    buffers,
  );
  let counted = 0;
  from.join(to, (bytes) => {
    counted += bytes;
  });
  for (let i = 0; i < 50; i++) source.write(Buffer.alloc(100_000));
  source.end();
  await once(sink, "end");
  t.equal(
    got.reduce((sum, bytes) => sum + bytes, 0),
    5_000_000,
  );
  t.equal(counted, 5_000_000);
  t.equal(buffers.ownedBytes, 0);
});

t.test("1,000 connections at once", async (t) => {
  const target = await serve(t, echo);
  const { proxy, port } = await start(t);
  const answers = await Promise.all(
    Array.from({ length: 1_000 }, async (_, i) => {
      const { client, reply } = await openTunnel(port, "127.0.0.1", target);
      if (reply !== 0) return `reply ${reply}`;
      const text = `connection ${i}`;
      client.write(text);
      const back = (await client.read(text.length)).toString();
      return { client, ok: back === text };
    }),
  );
  const open = answers.filter((answer) => typeof answer !== "string" && answer.ok);
  t.equal(open.length, 1_000);
  t.match(proxy.stats(), { connections: 1_000, tunnels: 1_000 });
  for (const answer of answers) if (typeof answer !== "string") answer.client.socket.end();
  await until(() => proxy.stats().connections === 0);
});

t.test("more connections than allowed are told so", async (t) => {
  const target = await serve(t, echo);
  const { proxy, port } = await start(t, { maxConnections: 2 });
  const first = await openTunnel(port, "127.0.0.1", target);
  await openTunnel(port, "127.0.0.1", target);
  const third = await openTunnel(port, "127.0.0.1", target);
  t.equal(third.reply, 1, "SOCKS5 reply 1");
  third.client.socket.destroy();
  const web = await Client.connect(port);
  web.write(`CONNECT 127.0.0.1:${target} HTTP/1.1\r\n\r\n`);
  t.match((await web.readAll()).toString(), /^HTTP\/1.1 503 [\s\S]+ try again later\n$/);
  web.socket.destroy();
  const crowd = await Promise.all(Array.from({ length: 100 }, () => Client.connect(port)));
  await until(() => crowd.filter((client) => client.closed).length >= 30);
  t.ok(
    crowd.every((client) => !client.closed || client.error?.code === "ECONNRESET"),
    "far above the limit there is a reset",
  );
  for (const client of crowd) client.socket.destroy();
  first.client.write("still");
  t.equal((await first.client.read(5)).toString(), "still", "those inside go on");
  first.client.socket.destroy();
  await until(() => proxy.stats().connections < 2);
  t.equal((await openTunnel(port, "127.0.0.1", target)).reply, 0, "and there is room again");
});

t.test("a slow or silent client is let go", async (t) => {
  const { proxy, port } = await start(t, { handshakeTimeoutMs: 50 });
  const silent = await Client.connect(port);
  t.equal((await silent.readAll()).length, 0);
  const half = await Client.connect(port);
  half.write("CONNECT a:1 HTTP/1.1\r\n");
  t.match((await half.readAll()).toString(), /^HTTP\/1.1 408 Request Timeout\r\n/);
  t.equal(proxy.stats().badHandshakes, 2);
});

t.test("garbage: any bytes from clients leave the server as it was", async (t) => {
  const target = await serve(t, echo);
  const { proxy, port } = await start(t);
  const starts = fc.constantFrom(
    "",
    "\x05\x01\0",
    "\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0",
    "CONNECT ",
    "GET / HTTP/1.1\r\n\r\n",
  );
  await fc.assert(
    fc.asyncProperty(starts, fc.uint8Array({ maxLength: 300 }), fc.boolean(), async (start, bytes, reset) => {
      const client = await Client.connect(port);
      // Destinations out of the garbage would be dialled: a request never gets past its version.
      client.write(Buffer.concat([Buffer.from(start, "latin1"), bytes.map((byte) => (byte === 5 ? 6 : byte))]));
      if (reset) client.socket.resetAndDestroy();
      else client.socket.end();
      await client.gone();
    }),
    { numRuns: 300 },
  );
  const { client } = await openTunnel(port, "127.0.0.1", target);
  client.write("alive");
  t.equal((await client.read(5)).toString(), "alive");
  client.socket.destroy();
  await until(() => proxy.stats().connections === 0);
  t.equal(proxy.stats().associations, 0);
});

const ASSOCIATE = Buffer.from([5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]);

/** UDP ASSOCIATE over IPv4 or IPv6: the control connection, and where datagrams go. */
async function associate(port: number, host = "127.0.0.1", request: Buffer = ASSOCIATE) {
  const control = await Client.connect(port, host);
  control.write(request);
  const head = (await control.read(6)).subarray(2);
  const address = await control.read(head[3] === 4 ? 16 : 4);
  const relayPort = (await control.read(2)).readUInt16BE();
  return { control, reply: head[1], address: formatAddress(address), port: relayPort };
}

/** A datagram with its SOCKS5 header. */
function frame(host: string, port: number, data: string): Buffer {
  const target = parseAddress(host) ?? host;
  const bytes = Buffer.alloc(udpHeaderLength(target) + data.length);
  bytes.write(data, emitUdpHeader(bytes, 0, target, port));
  return bytes;
}

function unframe(bytes: Buffer): string {
  const header = new Socks5UdpHeader();
  parseUdpHeader(bytes, 0, bytes.length, header);
  const address = formatAddress(bytes.subarray(header.addressStart, header.addressStart + header.addressLength));
  return `${address} ${header.port} ${bytes.subarray(header.payloadStart)}`;
}

t.test("UDP: echo over IPv4, IPv6 and by name; BND.ADDR is where the client reached us (RFC 1928 §6-7)", async (t) => {
  const { proxy, port } = await start(t, { host: "::" });
  const echo4 = await Datagrams.echo("127.0.0.1");
  const echo6 = await Datagrams.echo("::1", echo4.port);
  for (const host of ["127.0.0.1", "::1"]) {
    const relay = await associate(port, host);
    t.match(relay, { reply: 0, address: host });
    const client = await Datagrams.bind(host);
    const ask = async (to: string, toPort: number, text: string) => {
      client.socket.send(frame(to, toPort, text), relay.port, host);
      return unframe((await client.next()).data);
    };
    t.equal(await ask("127.0.0.1", echo4.port, "four"), `127.0.0.1 ${echo4.port} four`);
    t.equal(await ask("::1", echo6.port, "six"), `::1 ${echo6.port} six`);
    t.equal(await ask("::ffff:127.0.0.1", echo4.port, "mapped"), `127.0.0.1 ${echo4.port} mapped`);
    t.match(await ask("localhost", echo4.port, "name"), /^(127\.0\.0\.1|::1) \d+ name$/);
    client.socket.close();
    relay.control.socket.destroy();
  }
  echo4.socket.close();
  echo6.socket.close();
  await until(() => proxy.stats().associations === 0);
  t.match(proxy.stats(), { datagramsUp: 8, datagramsDown: 8 });
});

t.test("UDP: full cone, one port, and silence towards strangers", async (t) => {
  const { proxy, port } = await start(t);
  const relay = await associate(port);
  const client = await Datagrams.bind("127.0.0.1");
  const one = await Datagrams.bind("127.0.0.1");
  const other = await Datagrams.bind("127.0.0.2");
  client.socket.send(frame("127.0.0.1", one.port, "a"), relay.port, "127.0.0.1");
  const outside = (await one.next()).from;
  client.socket.send(frame("127.0.0.2", other.port, "b"), relay.port, "127.0.0.1");
  t.equal((await other.next()).from.port, outside.port, "the same port towards every host (RFC 4787 §4.1)");
  const stranger = await Datagrams.bind("127.0.0.3");
  stranger.socket.send("unasked", outside.port, "127.0.0.1");
  t.equal(
    unframe((await client.next()).data),
    `127.0.0.3 ${stranger.port} unasked`,
    "everyone may answer (RFC 4787 §5)",
  );

  const impostor = await Datagrams.bind("127.0.0.2");
  const otherPort = await Datagrams.bind("127.0.0.1");
  const dropped = proxy.stats().datagramsDropped;
  impostor.socket.send(frame("127.0.0.1", one.port, "x"), relay.port, "127.0.0.1");
  otherPort.socket.send(frame("127.0.0.1", one.port, "x"), relay.port, "127.0.0.1");
  const fragment = frame("127.0.0.1", one.port, "x");
  fragment[2] = 1;
  client.socket.send(fragment, relay.port, "127.0.0.1");
  client.socket.send(Buffer.from([0, 0, 0, 1, 127]), relay.port, "127.0.0.1");
  client.socket.send(frame("127.0.0.1", 0, "x"), relay.port, "127.0.0.1");
  await until(() => proxy.stats().datagramsDropped === dropped + 5);
  client.socket.send(frame("127.0.0.1", one.port, "after"), relay.port, "127.0.0.1");
  t.equal((await one.next()).data.toString(), "after", "none of the others came through");

  relay.control.socket.end();
  await until(() => proxy.stats().associations === 0);
  await relay.control.gone();
  for (const end of [client, one, other, stranger, impostor, otherPort]) end.socket.close();
});

t.test("UDP: a port announced in the request is the only one heard", async (t) => {
  const { proxy, port } = await start(t);
  const client = await Datagrams.bind("127.0.0.1");
  const wrong = await Datagrams.bind("127.0.0.1");
  const echo4 = await Datagrams.echo("127.0.0.1");
  const request = Buffer.from([5, 1, 0, 5, 3, 0, 1, 127, 0, 0, 1, client.port >> 8, client.port & 255]);
  const relay = await associate(port, "127.0.0.1", request);
  wrong.socket.send(frame("127.0.0.1", echo4.port, "x"), relay.port, "127.0.0.1");
  await until(() => proxy.stats().datagramsDropped === 1);
  client.socket.send(frame("127.0.0.1", echo4.port, "y"), relay.port, "127.0.0.1");
  t.match(unframe((await client.next()).data), / y$/);
  relay.control.socket.destroy();
  for (const end of [client, wrong, echo4]) end.socket.close();
});

t.test("UDP: an association that is idle ends, and tells so", async (t) => {
  const { proxy, port } = await start(t, { udpTimeoutMs: 50 });
  const relay = await associate(port);
  t.equal((await relay.control.readAll()).length, 0, "FIN on the control connection");
  t.equal(proxy.stats().associations, 0);
  relay.control.socket.destroy();
});

t.test("UDP: private destinations can be ruled out", async (t) => {
  const { proxy, port } = await start(t, { allowPrivate: false });
  const relay = await associate(port);
  const client = await Datagrams.bind("127.0.0.1");
  client.socket.send(frame("127.0.0.1", 9, "x"), relay.port, "127.0.0.1");
  client.socket.send(frame("localhost", 9, "x"), relay.port, "127.0.0.1");
  await until(() => proxy.stats().datagramsDropped === 2);
  t.equal(proxy.stats().datagramsUp, 0);
  relay.control.socket.destroy();
  client.socket.close();
});

t.test("log: refusals are told, passwords and line breaks never", async (t) => {
  const lines: string[] = [];
  const log = (message: string) => lines.push(message);
  const logger = { warn: log, info: log, debug: log, isEnabled: () => true };
  const { port } = await start(t, { username: "u", password: "s3cret", logger });
  const client = await Client.connect(port);
  client.write(Buffer.from([5, 1, 2, 1, 1, 0x75, 6, ...Buffer.from("wr0ng!")]));
  await client.readAll();
  const login = [5, 1, 2, 1, 1, 0x75, 6, ...Buffer.from("s3cret")];
  const evil = Buffer.from("a\nb\x1b[2J");
  const other = await Client.connect(port);
  other.write(Buffer.from([...login, 5, 1, 0, 3, evil.length, ...evil, 0, 80]));
  t.match(await other.readAll(), Buffer.from([5, 2, 1, 0, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0]));
  t.match(lines.join("|"), /Refused 127\.0\.0\.1 port \d+: wrong user or password/);
  t.match(lines.join("|"), /-> "a\\nb\\u001b\[2J" port 80: ENOTFOUND/);
  t.notMatch(lines.join("|"), /s3cret|wr0ng|\n/);
});

t.test("no right for a port below 1024 is said so", async (t) => {
  const unprivileged = Number(readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8"));
  if (unprivileged === 0) {
    t.pass("every port is free to all here");
    return;
  }
  // Root does without its rights for a moment.
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(65_534);
  const error: unknown = await ProxyServer.listen({ port: unprivileged - 1 }).catch((reason: unknown) => reason);
  if (isRoot) process.seteuid?.(0);
  t.match(error, {
    code: "LISTEN_DENIED",
    message: /ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher/,
  });
});
