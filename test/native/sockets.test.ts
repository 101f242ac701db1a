// The addon's sockets and poller against real peers on loopback, in a network namespace of their own.
import { createSocket } from "node:dgram";
import { closeSync, openSync, readdirSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { Worker } from "node:worker_threads";
import t from "tap";
import { Epoll, Errno, errnoName, StreamFlag, UdpFlag } from "../../src/io/addon.ts";
import { addonForTest, LOOPBACK, Memory, until } from "./memory.ts";
import { inNamespace } from "./namespace.ts";
import { setUp } from "./rtnetlink.ts";

const SIZE = 1024 * 1024;
const DESC = 1024;
const NAME = 2048;
const LIST = 4096;
const META = 16_384;
const EVENTS = 32_768;
const DATA = 65_536;

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_MARK = 36;
const SO_BINDTOIFINDEX = 62;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;

interface Target {
  readonly family?: 4 | 6;
  readonly mark?: number;
  readonly nameOff?: number;
  readonly token?: number;
  readonly gen?: number;
  /** UDP flags, or the data's offset */
  readonly extra?: number;
  readonly dataLen?: number;
}

inNamespace(import.meta.url, () => {
  const addon = addonForTest();
  const memory = new Memory(addon, SIZE);
  setUp(addon, memory, "lo", []);

  /** Readiness seen so far, by token; filled by the poller's callback. */
  const ready = new Map<number, number>();
  const gens = new Map<number, number>();
  addon.pollerOpen(() => {
    const n = addon.pollerWait(memory.id, EVENTS, 256, 0);
    for (let i = 0; i < n; i++) {
      const token = memory.word(EVENTS + 12 * i);
      gens.set(token, memory.word(EVENTS + 12 * i + 4));
      ready.set(token, (ready.get(token) ?? 0) | memory.word(EVENTS + 12 * i + 8));
    }
  });
  addon.pollerRef(0);
  const isReady = (token: number, events: number) => ((ready.get(token) ?? 0) & events) === events;

  function describe(port: number, target: Target): void {
    const { family = 4, mark = 0, nameOff = -1, token = -1, gen = 0, extra = 0, dataLen = 0 } = target;
    memory.put(DESC, [family, port, ...LOOPBACK[family], 0, mark, nameOff, token, gen, extra, dataLen, -1, -1, 0]);
  }
  function connect(port: number, target: Target = {}): number {
    describe(port, target);
    return addon.tcpConnect(memory.id, DESC);
  }
  function openUdp(port: number, target: Target = {}): number {
    describe(port, target);
    return addon.udpOpen(memory.id, DESC);
  }

  /** One streamRead of one socket: the result and the bytes. */
  function read(fd: number, max = 65_536): { readonly result: number; readonly bytes: Buffer } {
    memory.put(LIST, [fd, 99, 99, 99]);
    addon.streamRead(memory.id, LIST, 1, DATA, SIZE, max, 1);
    const result = memory.word(LIST + 4);
    return { result, bytes: memory.slice(memory.word(LIST + 8), Math.max(0, result)) };
  }

  /** Read until the end of the stream, or an error, which is thrown. */
  async function readAll(fd: number): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let ended = false;
    await until("the stream ended", () => {
      for (;;) {
        const { result, bytes } = read(fd);
        if (result === -Errno.EAGAIN) return false;
        if (result < 0) throw new Error(errnoName(result));
        if (result === 0) {
          ended = true;
          return true;
        }
        chunks.push(bytes);
      }
    });
    t.ok(ended);
    return Buffer.concat(chunks);
  }

  /** streamWrite of one entry: bytes taken or -errno. */
  function write(fd: number, flags: number, ...pieces: number[]): number {
    memory.put(LIST, [fd, flags, pieces.length / 2, 99, ...pieces]);
    addon.streamWrite(memory.id, LIST, 16 + 4 * pieces.length, 1);
    return memory.word(LIST + 12);
  }

  async function listen(host: string, onConnection: (socket: Socket) => void): Promise<[Server, number]> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => {}); // tests that expect one listen themselves
      onConnection(socket);
    });
    await new Promise<void>((done) => server.listen(0, host, done));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("No port");
    return [server, address.port];
  }

  for (const family of [4, 6] as const) {
    const host = family === 4 ? "127.0.0.1" : "::1";

    t.test(`TCP over IPv${family}: connect, first bytes, half-close, names`, async (t) => {
      const [server, port] = await listen(host, (socket) => {
        const chunks: Buffer[] = [];
        socket.on("data", (chunk) => chunks.push(chunk));
        socket.on("end", () => socket.end(Buffer.concat([Buffer.from("got:"), ...chunks])));
      });
      const len = memory.text(DATA, "hello ");
      const token = 100 + family;
      const fd = connect(port, { family, token, gen: -5, extra: DATA, dataLen: len });
      t.ok(fd > 2, errnoName(fd));
      t.equal(memory.word(DESC + 52), len, "on loopback the first bytes go out with connect");
      t.equal(memory.word(DESC + 56), 1, "and the socket is connected");
      t.equal(addon.getOption(fd, IPPROTO_TCP, TCP_NODELAY), 1);

      await until("the socket is writable", () => isReady(token, Epoll.OUT));
      t.equal(gens.get(token), -5);
      t.equal(addon.socketName(fd, 1, memory.id, META), 0);
      t.strictSame([...memory.words.subarray(META / 4, META / 4 + 6)], [family, port, ...LOOPBACK[family]]);
      t.equal(addon.socketName(fd, 0, memory.id, META), 0);
      t.equal(memory.word(META), family);
      t.ok(memory.word(META + 4) > 0);
      memory.text(DATA, "stream");
      t.equal(write(fd, StreamFlag.MORE, DATA + 3, 3, DATA, 3, SIZE, 0), 6, "gathered");
      t.equal(write(fd, StreamFlag.SHUTDOWN, DATA, 6), 6);
      await until("the answer came", () => isReady(token, Epoll.IN | Epoll.RDHUP));
      t.equal((await readAll(fd)).toString(), "got:hello eamstrstream");

      t.equal(addon.close(fd), 0);
      server.close();
    });

    t.test(`TCP over IPv${family}: a refused connection says so at once`, async (t) => {
      const [server, port] = await listen(host, () => {});
      await new Promise((done) => server.close(done));
      const before = readdirSync("/proc/self/fd").length;
      memory.text(DATA, "x");
      t.equal(errnoName(connect(port, { family, token: 1 })), "ECONNREFUSED");
      t.equal(errnoName(connect(port, { family, token: 1, extra: DATA, dataLen: 1 })), "ECONNREFUSED", "with data");
      t.equal(readdirSync("/proc/self/fd").length, before, "nothing is left open");
    });
  }

  t.test("TCP: connected without data", async (t) => {
    const [server, port] = await listen("127.0.0.1", (socket) => socket.end("bye"));
    const fd = connect(port, { token: 3 });
    t.strictSame([memory.word(DESC + 52), memory.word(DESC + 56)], [0, 1]);
    t.equal(read(fd).result, -Errno.EAGAIN);
    t.equal((await readAll(fd)).toString(), "bye");
    t.equal(write(fd, StreamFlag.SHUTDOWN), 0, "a bare shutdown");
    t.equal(write(fd, 0, DATA, 1), -Errno.EPIPE);
    t.equal(errnoName(write(fd, StreamFlag.SHUTDOWN)), "ENOTCONN", "both sides have ended");
    const other = connect(port, { token: 3 });
    t.equal(addon.socketShutdown(other, 1), 0);
    t.equal(write(other, 0, DATA, 1), -Errno.EPIPE);
    t.equal((await readAll(other)).toString(), "bye");
    t.equal(addon.close(other), 0);
    t.equal(addon.close(fd), 0);
    server.close();
  });

  t.test("TCP: an unreachable network is an error, and nothing stays open", (t) => {
    const before = readdirSync("/proc/self/fd").length;
    memory.put(DESC, [4, 80, 0x0100000a, 0, 0, 0, 0, 0, -1, 1, 0, 0, 0, 0, 0]);
    t.equal(errnoName(addon.tcpConnect(memory.id, DESC)), "ENETUNREACH");
    t.equal(readdirSync("/proc/self/fd").length, before);
    t.end();
  });

  t.test("TCP: reset in both directions", async (t) => {
    let ending = "";
    let seen = "";
    const [server, port] = await listen("127.0.0.1", (socket) => {
      socket.on("error", (error) => {
        ending = "code" in error ? String(error.code) : error.message;
      });
      socket.on("data", (data) => {
        seen += data;
        if (data.toString() === "reset me") socket.resetAndDestroy();
      });
    });
    memory.text(DATA, "reset me");
    const mine = connect(port, { token: 4, extra: DATA, dataLen: 8 });
    await until("the peer reset", () => isReady(4, Epoll.HUP | Epoll.ERR));
    t.equal(errnoName(read(mine).result), "ECONNRESET");
    t.equal(addon.socketError(mine), 0, "taken by the read");
    t.equal(write(mine, 0, DATA, 8), -Errno.EPIPE, "and writing raises no signal");
    t.equal(addon.close(mine), 0);

    const other = connect(port, { token: 5, extra: DATA, dataLen: 2 });
    await until("the peer has the connection", () => seen === "reset mere");
    t.equal(addon.socketReset(other), 0);
    t.equal(addon.close(other), -Errno.EBADF, "reset has closed it");
    await until("the peer saw it", () => ending !== "");
    t.equal(ending, "ECONNRESET");
    server.close();
  });

  t.test("TCP: a full socket takes a part, or says EAGAIN, and FIN waits", async (t) => {
    const chunks: Buffer[] = [];
    let peer: Socket | null = null;
    let ended = false;
    const [server, port] = await listen("127.0.0.1", (socket) => {
      socket.pause();
      peer = socket;
      socket.on("data", (chunk) => chunks.push(chunk));
      socket.on("end", () => {
        ended = true;
        socket.end();
      });
    });
    const fd = connect(port, { token: 6 });
    addon.setOption(fd, SOL_SOCKET, SO_SNDBUF, 32_768);
    let total = 0;
    for (;;) {
      memory.bytes.fill(total % 251, DATA, DATA + 900_000);
      const n = write(fd, StreamFlag.SHUTDOWN, DATA, 300_000, DATA + 300_000, 600_000);
      if (n < 0) {
        t.equal(errnoName(n), "EAGAIN");
        break;
      }
      total += n;
      if (n < 900_000) break;
      t.fail("the socket took everything, and is shut down now");
      break;
    }
    ready.delete(6);
    await until("the peer is there", () => peer !== null);
    (peer as Socket | null)?.resume();
    await until("the socket is writable again", () => isReady(6, Epoll.OUT));
    t.notOk(ended);
    memory.text(DATA, "end");
    t.equal(write(fd, StreamFlag.SHUTDOWN, DATA, 3), 3);
    await until("the peer saw the end", () => ended);
    t.equal(Buffer.concat(chunks).length, total + 3);
    t.equal(Buffer.concat(chunks).subarray(-3).toString(), "end");
    t.equal(addon.close(fd), 0);
    server.close();
  });

  t.test("streamRead packs several sockets and stops when room ends", async (t) => {
    const [server, port] = await listen("127.0.0.1", (socket) => socket.end("0123456789"));
    const fds = [connect(port, { token: 10 }), connect(port, { token: 11 }), connect(port, { token: 12 })];
    await until("all have data", () => [10, 11, 12].every((token) => isReady(token, Epoll.IN | Epoll.RDHUP)));
    memory.put(
      LIST,
      fds.flatMap((fd) => [fd, 0, 0, 0]),
    );
    t.equal(addon.streamRead(memory.id, LIST, 3, DATA, DATA + 30, 7, 16), 2, "30 bytes: 7, padding, 7, then 14 left");
    const entries = [...memory.words.subarray(LIST / 4, LIST / 4 + 8)];
    t.strictSame(entries, [fds[0], 7, DATA, 7, fds[1], 7, DATA + 8, 7]);
    t.equal(memory.slice(DATA + 8, 7).toString(), "0123456");
    t.equal(read(fds[0] ?? -1, 100).bytes.toString(), "789");
    t.equal(read(fds[0] ?? -1, 100).result, 0, "then the end");
    t.equal(addon.streamRead(memory.id, LIST, 1, DATA, DATA + 4, 65_536, 4), 1, "asks for what is left");
    t.equal(memory.word(LIST + 12), 4);
    for (const fd of fds) t.equal(addon.close(fd), 0);
    server.close();
  });

  t.test("mark and device binding", async (t) => {
    const [server, port] = await listen("127.0.0.1", (socket) => socket.end());
    memory.text(NAME, "lo");
    for (const fd of [
      connect(port, { token: 20, mark: 77, nameOff: NAME }),
      openUdp(0, { token: 21, mark: 77, nameOff: NAME }),
    ]) {
      t.ok(fd > 2, errnoName(fd));
      t.equal(addon.getOption(fd, SOL_SOCKET, SO_MARK), 77);
      t.equal(addon.getOption(fd, SOL_SOCKET, SO_BINDTOIFINDEX), 1);
      t.equal(addon.setOption(fd, SOL_SOCKET, SO_MARK, 78), 0);
      t.equal(addon.getOption(fd, SOL_SOCKET, SO_MARK), 78);
      t.equal(errnoName(addon.setOption(fd, 99, 99, 0)), "ENOPROTOOPT");
      addon.close(fd);
    }
    memory.text(NAME, "nosuch0");
    t.equal(errnoName(connect(port, { token: 20, nameOff: NAME })), "ENODEV");
    t.equal(errnoName(openUdp(0, { token: 20, nameOff: NAME })), "ENODEV");
    server.close();
  });

  // ---- UDP ----

  /** Words of one udpRead result. */
  function meta(i: number): number[] {
    return [...memory.words.subarray(META / 4 + 10 * i, META / 4 + 10 * i + 10)];
  }
  function bytesOf(i: number): Buffer {
    const [off = 0, len = 0] = meta(i);
    return memory.slice(off, len);
  }
  function portOf(fd: number): number {
    addon.socketName(fd, 0, memory.id, META);
    return memory.word(META + 4);
  }
  /** udpWrite entry: one piece, to an address or (family 0) to the connected peer. */
  const entry = (family: 0 | 4 | 6, port: number, off: number, len: number, segment = 0) => [
    1,
    family,
    port,
    ...(family === 0 ? [0, 0, 0, 0] : LOOPBACK[family]),
    segment,
    off,
    len,
  ];
  function send(fd: number, ...entries: readonly number[][]): number {
    const list = entries.flat();
    memory.put(LIST, list);
    return addon.udpWrite(fd, memory.id, LIST, list.length * 4, entries.length);
  }

  for (const family of [4, 6] as const) {
    t.test(`UDP over IPv${family}: both ways, bound and connected, empty datagrams`, async (t) => {
      const server = openUdp(0, { family, token: 30 });
      const client = openUdp(portOf(server), { family, token: 31, extra: UdpFlag.CONNECT });
      t.ok(server > 2 && client > 2);
      const to = portOf(server);
      const from = portOf(client);
      memory.text(DATA, "abcdefgh");
      t.equal(send(client, entry(0, 0, DATA, 3), entry(0, 0, DATA + 3, 0), entry(family, to, DATA + 3, 5)), 3);
      await until("the server is readable", () => isReady(30, Epoll.IN));
      t.equal(addon.udpRead(server, memory.id, DATA + 4, SIZE, META, 64), 3);
      t.strictSame(meta(0), [DATA + 4, 3, family, from, ...LOOPBACK[family], 0, 0]);
      t.strictSame(meta(1), [DATA + 8, 0, family, from, ...LOOPBACK[family], 0, 0]);
      t.strictSame(meta(2), [DATA + 8, 5, family, from, ...LOOPBACK[family], 0, 0]);
      t.strictSame([bytesOf(0).toString(), bytesOf(2).toString()], ["abc", "defgh"]);
      t.equal(addon.udpRead(server, memory.id, DATA, SIZE, META, 64), 0);
      t.equal(send(server, entry(family, from, DATA + 8, 5)), 1);
      t.equal(addon.udpRead(client, memory.id, DATA, SIZE, META, 64), 1);
      t.equal(bytesOf(0).toString(), "defgh");

      memory.put(LIST, [0, family, from, ...LOOPBACK[family], 0]);
      t.equal(addon.udpWrite(server, memory.id, LIST, 32, 1), 1, "no pieces: an empty datagram");
      t.equal(addon.udpRead(client, memory.id, DATA, SIZE, META, 64), 1);
      t.equal(bytesOf(0).length, 0);
      t.equal(send(server, entry(0, 0, DATA, 1)), family === 4 ? -89 : -89, "EDESTADDRREQ without an address");
      t.equal(errnoName(send(server, entry(family, from, DATA, 65_536))), "EMSGSIZE");
      for (const fd of [server, client]) t.equal(addon.close(fd), 0);
    });
  }

  t.test("an IPv6 socket takes no IPv4, so both can have the same port", (t) => {
    const six = openUdp(0, { family: 6 });
    memory.put(DESC, [4, portOf(six), 0, 0, 0, 0, 0, 0, -1, -1, 0, 0]);
    const four = addon.udpOpen(memory.id, DESC);
    t.ok(four > 2, errnoName(four));
    t.equal(errnoName(addon.udpOpen(memory.id, DESC)), "EADDRINUSE");
    addon.close(six);
    addon.close(four);
    t.end();
  });

  t.test("96 datagrams, read in any portions: none is lost", (t) => {
    const COUNT = 96; // few enough for the default receive buffer
    const LARGE = 2500;
    const source = SIZE / 2;
    const lengths = Array.from({ length: COUNT }, (_, i) => (i % 6 === 0 ? LARGE : i));
    const client = openUdp(0);
    for (const [name, limit, max] of [
      ["all room", source, 64],
      ["two at a time", source, 2],
      ["room for one of the large ones", DATA + LARGE, 64],
      ["a thousand asked", source, 1000],
    ] as const) {
      const server = openUdp(0);
      const to = portOf(server);
      for (let i = 0; i < COUNT; i++) memory.bytes.fill(i, source + LARGE * i, source + LARGE * (i + 1));
      t.equal(send(client, ...lengths.map((len, i) => entry(4, to, source + LARGE * i, len))), COUNT);
      const got: Buffer[] = [];
      for (;;) {
        const n = addon.udpRead(server, memory.id, DATA, limit, META, max);
        t.ok(n >= 0 && n <= max, errnoName(n));
        if (n <= 0) break;
        for (let i = 0; i < n; i++) {
          const [off = 0, len = 0] = meta(i);
          t.ok(off % 8 === 0 && off + len <= limit);
          got.push(bytesOf(i));
        }
      }
      t.strictSame(
        got,
        lengths.map((len, i) => Buffer.alloc(len, i)),
        name,
      );
      addon.close(server);
    }
    addon.close(client);
    t.end();
  });

  t.test("kept datagrams belong to their socket", (t) => {
    const a = openUdp(0);
    const b = openUdp(0);
    const ports = [portOf(a), portOf(b)];
    for (const [i, port] of ports.entries()) {
      memory.bytes.fill(i + 1, DATA, DATA + 2000);
      t.equal(
        send(i === 0 ? b : a, entry(4, port, DATA, 2000), entry(4, port, DATA, 100), entry(4, port, DATA, 2000)),
        3,
      );
    }
    const limit = DATA + 6144;
    const tight = DATA + 2048 + 100;
    t.equal(addon.udpRead(a, memory.id, DATA, limit, META, 3), 3, "all fit");
    t.equal(send(b, entry(4, ports[0] ?? 0, DATA, 2000), entry(4, ports[0] ?? 0, DATA, 2000)), 2);
    t.equal(addon.udpRead(a, memory.id, DATA, DATA + 4095, META, 2), 1, "asked for one at this room");
    t.equal(addon.udpRead(a, memory.id, DATA, DATA + 1999, META, 2), -Errno.ENOBUFS, "received, but no room: kept");
    t.equal(addon.udpRead(b, memory.id, DATA, tight, META, 3), 1);
    t.equal(bytesOf(0)[0], 2, "the other socket's own");
    t.equal(addon.udpRead(a, memory.id, DATA, DATA + 1999, META, 2), -Errno.ENOBUFS, "still kept");
    t.equal(addon.udpRead(a, memory.id, DATA, DATA + 2000, META, 2), 1);
    t.strictSame(bytesOf(0), Buffer.alloc(2000, 1));
    t.equal(addon.udpRead(a, memory.id, DATA, SIZE, META, 2), 0);

    // A descriptor closed with datagrams kept, whose number comes back.
    t.equal(send(b, entry(4, ports[0] ?? 0, DATA, 2000)), 1);
    t.equal(addon.udpRead(a, memory.id, DATA, DATA, META, 1), -Errno.ENOBUFS);
    t.equal(addon.close(a), 0);
    const again = openUdp(0);
    t.equal(again, a);
    t.equal(addon.udpRead(again, memory.id, DATA, SIZE, META, 1), 0);
    t.equal(send(again, entry(4, portOf(again), DATA, 2000)), 1);
    t.equal(addon.udpRead(again, memory.id, DATA, DATA, META, 1), -Errno.ENOBUFS);
    t.end(); // closed by the end of the process, with a datagram kept
  });

  t.test("segmentation offload: one write is many datagrams, merged again for the reader", async (t) => {
    const plain = openUdp(0);
    const merging = openUdp(0, { extra: UdpFlag.GRO });
    const client = openUdp(0);
    memory.bytes.fill(1, DATA, DATA + 1000);
    memory.bytes.fill(2, DATA + 1000, DATA + 2000);
    memory.bytes.fill(3, DATA + 2000, DATA + 2500);
    t.equal(send(client, entry(4, portOf(plain), DATA, 2500, 1000), entry(4, portOf(merging), DATA, 2500, 1000)), 2);
    t.equal(addon.udpRead(plain, memory.id, DATA, SIZE, META, 64), 3);
    t.strictSame(
      [0, 1, 2].map((i) => [bytesOf(i).length, bytesOf(i)[0], meta(i)[8]]),
      [
        [1000, 1, 0],
        [1000, 2, 0],
        [500, 3, 0],
      ],
    );
    t.equal(addon.udpRead(merging, memory.id, DATA, SIZE, META, 64), 1);
    t.strictSame([bytesOf(0).length, meta(0)[8]], [2500, 1000]);
    for (const fd of [plain, merging, client]) addon.close(fd);
  });

  t.test("ICMP errors come back with their destination", async (t) => {
    const gone = openUdp(0);
    const port = portOf(gone);
    addon.close(gone);
    for (const [family, icmp, origin] of [
      [4, 3 * 256 + 3, 2],
      [6, 1 * 256 + 4, 3],
    ] as const) {
      const fd = openUdp(0, { family, extra: UdpFlag.RECVERR });
      t.equal(send(fd, entry(family, port, DATA, 5)), 1);
      t.equal(errnoName(addon.udpRead(fd, memory.id, DATA, SIZE, META, 8)), "ECONNREFUSED");
      t.equal(addon.udpReadError(fd, memory.id, META), 1);
      t.strictSame(meta(0), [Errno.ECONNREFUSED, origin, icmp, 0, family, port, ...LOOPBACK[family]]);
      t.equal(addon.udpReadError(fd, memory.id, META), 0);

      t.equal(send(fd, entry(family, port, DATA, 5)), 1);
      t.equal(errnoName(send(fd, entry(family, port, DATA, 5))), "ECONNREFUSED", "a write reports it, too");
      t.equal(addon.udpRead(fd, memory.id, DATA, SIZE, META, 8), 0);
      t.equal(addon.udpReadError(fd, memory.id, META), 0, "dropped by the read");
      addon.close(fd);
    }
    const connected = openUdp(port, { extra: UdpFlag.CONNECT });
    t.equal(send(connected, entry(0, 0, DATA, 5)), 1);
    t.equal(
      errnoName(addon.udpRead(connected, memory.id, DATA, SIZE, META, 8)),
      "ECONNREFUSED",
      "connected: without RECVERR",
    );
    addon.close(connected);
  });

  t.test("a node:dgram peer", async (t) => {
    const peer = createSocket("udp4", (message, from) => peer.send(`re:${message}`, from.port, from.address));
    await new Promise<void>((done) => peer.bind(0, "127.0.0.1", done));
    const fd = openUdp(peer.address().port, { token: 40, extra: UdpFlag.CONNECT });
    memory.text(DATA, "ping");
    t.equal(send(fd, entry(0, 0, DATA, 4)), 1);
    await until("the answer came", () => isReady(40, Epoll.IN));
    t.equal(addon.udpRead(fd, memory.id, DATA, SIZE, META, 8), 1);
    t.equal(bytesOf(0).toString(), "re:ping");
    addon.close(fd);
    peer.close();
  });

  // ---- descriptors and the poller ----

  t.test("adopted and released descriptors", (t) => {
    const file = openSync("/proc/self/status", "r");
    t.equal(addon.close(file), -Errno.EBADF, "not ours");
    t.equal(addon.adoptFd(file), file);
    t.equal(addon.adoptFd(file), -Errno.EEXIST);
    t.equal(addon.tunRead(file, memory.id, DATA, SIZE, 1, META, 1), 1, "readable now");
    t.equal(addon.releaseFd(file), file);
    t.equal(addon.releaseFd(file), -Errno.EBADF);
    closeSync(file);

    const udp = openUdp(0, { token: 50 });
    t.equal(addon.pollerAdd(udp, Epoll.IN, 50, 0), -Errno.EEXIST, "in the set already");
    t.equal(addon.releaseFd(udp), udp);
    t.equal(addon.adoptFd(udp), udp);
    t.equal(addon.pollerDelete(udp), -Errno.ENOENT, "released: out of the set");
    t.equal(addon.pollerAdd(udp, Epoll.IN, 50, 0), 0);
    t.equal(addon.close(udp), 0);
    t.end();
  });

  t.test("many descriptors: the table grows", (t) => {
    const fds = Array.from({ length: 600 }, () => openUdp(0));
    t.ok(fds.every((fd) => fd > 2));
    t.ok(fds.every((fd) => addon.close(fd) === 0));
    t.ok(fds.every((fd) => addon.close(fd) === -Errno.EBADF));
    t.end();
  });

  t.test("poller: modes, tokens, close inside the callback, open again", async (t) => {
    t.equal(addon.pollerClose(), 0);
    const fd = openUdp(0);
    const other = openUdp(0);
    const port = portOf(fd);
    let calls = 0;
    t.equal(
      addon.pollerOpen(() => {
        calls++;
        if (calls === 3) addon.pollerClose();
      }),
      0,
    );
    t.equal(addon.pollerAdd(fd, Epoll.IN, -1, -0x8000_0000), 0);
    t.equal(send(other, entry(4, port, DATA, 1)), 1);
    await until("called three times: level-triggered", () => calls === 3);
    await new Promise((resolve) => setTimeout(resolve, 5));
    t.equal(calls, 3, "closed");
    t.equal(addon.pollerWait(memory.id, EVENTS, 1, 0), -Errno.ENXIO);

    t.equal(
      addon.pollerOpen(() => calls++),
      0,
    );
    t.equal(addon.pollerAdd(fd, Epoll.IN | Epoll.ONESHOT, 1, 0x7fff_ffff), 0);
    t.equal(addon.pollerWait(memory.id, EVENTS, 1, 1000), 1);
    t.strictSame([...memory.words.subarray(EVENTS / 4, EVENTS / 4 + 3)], [1, 0x7fff_ffff, Epoll.IN]);
    t.equal(addon.pollerWait(memory.id, EVENTS, 1, 0), 0, "once");
    t.equal(addon.pollerModify(fd, Epoll.IN, 2, 3), 0);
    t.equal(addon.pollerWait(memory.id, EVENTS, 1, 0), 1);
    t.strictSame([...memory.words.subarray(EVENTS / 4, EVENTS / 4 + 2)], [2, 3]);
    t.equal(addon.pollerDelete(fd), 0);
    t.equal(addon.pollerWait(memory.id, EVENTS, 1, 0), 0);
    t.equal(addon.pollerModify(fd, Epoll.IN, 2, 3), -Errno.ENOENT);
    addon.close(fd);
    addon.close(other);
    t.equal(addon.pollerClose(), 0);
  });

  // ---- workers ----

  /** Run `task` of worker.ts and give what it posted and how it ended. */
  async function runWorker(task: string, port: number, terminate = false) {
    const worker = new Worker(new URL("./worker.js", import.meta.url), { workerData: { task, port } });
    const outcome = { message: "", error: "", code: -1 };
    const ended = new Promise<void>((done) => {
      worker.on("message", (message: unknown) => {
        outcome.message = String(message);
        if (terminate) void worker.terminate();
      });
      worker.on("error", (error) => {
        outcome.error = error.message;
      });
      worker.on("exit", (code) => {
        outcome.code = code;
        done();
      });
    });
    await ended;
    return outcome;
  }
  const openCount = () => readdirSync("/proc/self/fd").length;

  t.test("workers: their own state, all closed at their end", async (t) => {
    const [server, port] = await listen("127.0.0.1", (socket) => socket.end("hello worker"));
    await runWorker("nothing", port); // what Node itself keeps after a first worker
    const before = openCount();
    t.equal((await runWorker("fetch", port)).message, "hello worker", "the poller works there");
    t.equal((await runWorker("exit", port)).code, 7, "process.exit() with everything open");
    t.equal((await runWorker("busy", port, true)).message, "in the callback", "terminated inside the callback");
    t.equal((await runWorker("closing", port)).code, 7, "ended while the poller is closing");
    t.match(await runWorker("throw", port), { error: "thrown in the callback", code: 1 });
    t.match(await runWorker("uncaught", port), {
      message: "uncaughtException: thrown in the callback",
      error: "",
      code: 0,
    });
    t.equal((await runWorker("memory", port)).code, 0, "a slab, kept datagrams and an open TUN-less table at the end");
    const all = await Promise.all(Array.from({ length: 6 }, () => runWorker("fetch", port)));
    t.ok(
      all.every((each) => each.message === "hello worker"),
      "six at a time",
    );
    await until("connections are closed", () => openCount() <= before);
    t.equal(openCount(), before);
    server.close();
  });
});
