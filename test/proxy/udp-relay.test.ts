import t from "tap";
import { Errno } from "../../src/io/addon.ts";
import { DialLimits } from "../../src/proxy/dial-limits.ts";
import type { FlowSummary, Logger } from "../../src/proxy/logger.ts";
import { ServerAddresses } from "../../src/proxy/server-addresses.ts";
import { UdpRelay } from "../../src/proxy/udp-relay.ts";
import { parseUpstream } from "../../src/proxy/url.ts";
import { Slab } from "../../src/stack/memory/index.ts";
import { FakeSockets, FakeStack } from "./fake-sockets.ts";

const PROXY = Uint8Array.of(192, 0, 2, 1);
const mapped = (a: number, b: number, c: number, d: number): number[] => [
  0,
  0,
  0xffff,
  (a << 24) | (b << 16) | (c << 8) | d,
];
const CLIENT = mapped(10, 0, 0, 2);
const SERVER = mapped(198, 51, 100, 7);
const OTHER = mapped(203, 0, 113, 9);
const V6_CLIENT = [0xfd000000 | 0, 0, 0, 2];
const V6_SERVER = [0x20010db8, 0, 0, 1];
const V6_BYTES = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

class Lab {
  readonly slab: Slab = new Slab(8 << 20);
  readonly sockets: FakeSockets = new FakeSockets(this.slab);
  readonly stack: FakeStack = new FakeStack(this.slab);
  readonly log: string[] = [];
  readonly summaries: FlowSummary[] = [];
  readonly limits: DialLimits;
  readonly relay: UdpRelay;
  readonly #scratch: number = this.slab.take();

  constructor(
    url = "socks5://proxy.test:1080",
    maxAssociations = 8,
    servers: readonly Uint8Array[] = [PROXY],
    maxDials = 64,
  ) {
    const write = (message: string): void => {
      this.log.push(message);
    };
    const flow = (summary: FlowSummary): void => {
      this.summaries.push(summary);
    };
    const logger: Logger = { isEnabled: () => true, error: write, warn: write, info: write, debug: write, flow };
    const upstream = parseUpstream(url);
    this.limits = new DialLimits(maxDials, logger);
    this.relay = new UdpRelay(
      this.sockets,
      this.stack,
      {
        upstream,
        servers: new ServerAddresses(upstream.server, servers),
        logger,
        limits: this.limits,
        idleMs: 120_000,
        connectTimeoutMs: 10_000,
        handshakeTimeoutMs: 30_000,
        maxAssociations,
        seed: 7,
      },
      () => {},
    );
    this.relay.advance(1);
  }

  send(bytes: readonly number[], to = SERVER, port = 9000, clientPort = 40_000, from = CLIENT): void {
    this.stack.arrive(from, clientPort, to, port, bytes);
    this.relay.takeInbox();
  }

  #put(bytes: readonly number[]): void {
    this.slab.bytes.set(bytes, this.#scratch);
  }

  /** The control connection says something. */
  answer(handle: number, bytes: readonly number[]): void {
    this.#put(bytes);
    this.relay.onData(handle, this.#scratch, bytes.length);
    this.sockets.flush();
  }

  /** A datagram comes to a socket of ours. */
  reply(handle: number, bytes: readonly number[]): void {
    this.#put(bytes);
    this.relay.onDatagram(handle, this.#scratch, bytes.length);
  }

  /** Answers UDP ASSOCIATE on the control connection `handle`. */
  associate(handle: number, bound: readonly number[] = [1, 192, 0, 2, 99, 0x1f, 0x90]): void {
    this.relay.onConnected(handle);
    this.sockets.flush();
    this.answer(handle, [5, 0]);
    this.answer(handle, [5, 0, 0, ...bound]);
  }
}

t.test(
  "socks5: datagrams wait for UDP ASSOCIATE, then go to the relay address with its header (RFC 1928 §7)",
  async (t) => {
    const lab = new Lab();
    lab.send([1, 2, 3]);
    lab.send([4]);
    t.equal(lab.sockets.all.length, 1, "one control connection for the client endpoint");
    lab.associate(0);
    const relay = lab.sockets.get(1);
    t.same([relay.kind, [...(relay.address ?? [])], relay.port], ["datagram", [192, 0, 2, 99], 8080]);
    const head = [0, 0, 0, 1, 198, 51, 100, 7, 0x23, 0x28];
    t.same(
      relay.datagrams.map(({ bytes }) => [...bytes]),
      [
        [...head, 1, 2, 3],
        [...head, 4],
      ],
    );
    lab.send([5]);
    t.same([...(relay.datagrams[2]?.bytes ?? [])], [...head, 5]);
  },
);

for (const { name, bound } of [
  { name: "0.0.0.0", bound: [1, 0, 0, 0, 0, 0x1f, 0x90] },
  { name: "::", bound: [4, ...new Array<number>(16).fill(0), 0x1f, 0x90] },
  { name: "a name", bound: [3, 1, 120, 0x1f, 0x90] },
]) {
  t.test(`socks5: BND.ADDR ${name} means the address the proxy was reached at (RFC 1928 §6)`, async (t) => {
    const lab = new Lab();
    lab.send([1]);
    lab.associate(0, bound);
    t.same([...(lab.sockets.get(1).address ?? [])], [...PROXY]);
    t.equal(lab.sockets.get(1).port, 8080);
  });
}

t.test(
  "socks5: any sender's datagram comes back through the association: full cone (RFC 4787 REQ-1, REQ-8)",
  async (t) => {
    const lab = new Lab();
    lab.send([1]);
    lab.associate(0);
    lab.send([2], OTHER, 53);
    t.equal(lab.sockets.all.length, 2, "another destination, the same association");
    lab.reply(1, [0, 0, 0, 1, 203, 0, 113, 77, 0, 99, 42]);
    t.same(lab.stack.sent, [
      { words: [...mapped(203, 0, 113, 77), ...CLIENT], localPort: 99, remotePort: 40_000, bytes: [42] },
    ]);
  },
);

t.test("socks5: IPv6 clients and senders; a sender of the other family cannot be shown and is dropped", async (t) => {
  const lab = new Lab();
  lab.send([1], V6_SERVER, 7, 40_000, V6_CLIENT);
  lab.associate(0);
  t.same([...(lab.sockets.get(1).datagrams[0]?.bytes ?? [])], [0, 0, 0, 4, ...V6_BYTES, 0, 7, 1]);
  lab.reply(1, [0, 0, 0, 4, ...V6_BYTES, 0, 7, 8]);
  t.same(lab.stack.sent[0]?.words, [...V6_SERVER, ...V6_CLIENT]);
  lab.reply(1, [0, 0, 0, 1, 1, 2, 3, 4, 0, 7, 8]);
  t.equal(lab.stack.sent.length, 1);
  t.equal(lab.relay.stats().dropped, 1);
});

t.test("socks5: fragments, names and malformed headers from the relay are dropped (RFC 1928 §7)", async (t) => {
  const lab = new Lab();
  lab.send([1]);
  lab.associate(0);
  for (const bytes of [
    [0, 0, 1, 1, 198, 51, 100, 7, 0, 80, 1],
    [0, 0, 0, 3, 1, 120, 0, 80, 1],
    [0, 0, 0, 9, 1, 2, 3],
    [0, 0, 0, 1, 198],
    [],
  ]) {
    lab.reply(1, bytes);
  }
  t.equal(lab.stack.sent.length, 0);
  t.equal(lab.relay.stats().dropped, 5);
});

t.test("socks5: the association ends with its control connection (RFC 1928 §6)", async (t) => {
  const lab = new Lab();
  lab.send([1]);
  lab.associate(0);
  lab.relay.onEnd(0);
  t.equal(lab.sockets.open, 0);
  t.equal(lab.relay.stats().associations, 0);
  lab.send([2]);
  t.equal(lab.sockets.open, 1, "the next datagram asks again");
});

t.test(
  "a refused association is port unreachable for each datagram that waited, and not asked again at once",
  async (t) => {
    const lab = new Lab();
    lab.send([1]);
    lab.send([2]);
    lab.relay.onConnected(0);
    lab.answer(0, [5, 0]);
    lab.answer(0, [5, 7, 0, 1, 0, 0, 0, 0, 0, 0]);
    t.same(lab.stack.unreachable.length, 2);
    t.same(lab.stack.unreachable[0], { words: [...SERVER, ...CLIENT], localPort: 9000, remotePort: 40_000 });
    t.match(lab.log[0], /does not relay UDP/);
    lab.send([3]);
    t.equal(lab.sockets.all.length, 1);
    t.equal(lab.stack.unreachable.length, 3);
    lab.relay.advance(6000);
    lab.send([4]);
    t.equal(lab.sockets.all.length, 2, "asked again after five seconds");
  },
);

t.test("a proxy that cannot be reached or does not answer: port unreachable and a log line", async (t) => {
  const refused = new Lab();
  refused.send([1]);
  refused.sockets.close(0);
  refused.relay.onError(0, Errno.ECONNREFUSED);
  t.equal(refused.stack.unreachable.length, 1);
  t.match(refused.log[0], /ECONNREFUSED/);
  const silent = new Lab();
  silent.send([1]);
  silent.relay.onConnected(0);
  silent.relay.advance(31_000);
  silent.relay.handleTimeout();
  t.equal(silent.stack.unreachable.length, 1);
  t.match(silent.log[0], /in time/);
  t.equal(silent.sockets.open, 0);
  t.equal(silent.relay.nextTimeout(), Number.POSITIVE_INFINITY);
});

t.test(
  "idle associations end: after the timeout, and after 10 s when they only asked DNS (RFC 4787 REQ-5)",
  async (t) => {
    const lab = new Lab("direct://");
    lab.send([1], SERVER, 53, 40_001);
    lab.send([1], SERVER, 9000, 40_002);
    t.equal(lab.relay.stats().associations, 2);
    lab.relay.advance(10_500);
    lab.relay.handleTimeout();
    t.equal(lab.relay.stats().associations, 1, "DNS");
    lab.relay.advance(100_000);
    lab.send([1], SERVER, 9000, 40_002);
    lab.relay.advance(150_000);
    lab.relay.handleTimeout();
    t.equal(lab.relay.stats().associations, 1, "used since");
    lab.relay.advance(230_000);
    lab.relay.handleTimeout();
    t.equal(lab.relay.stats().associations, 0);
    t.equal(lab.sockets.open, 0);
    t.equal(lab.relay.nextTimeout(), Number.POSITIVE_INFINITY);
  },
);

t.test("over the limit the association that was idle for longest goes", async (t) => {
  const lab = new Lab("direct://", 3);
  for (const port of [1, 2, 3]) {
    lab.relay.advance(port);
    lab.send([1], SERVER, 9000, port);
  }
  lab.relay.advance(10);
  lab.send([1], SERVER, 9000, 1);
  lab.send([1], SERVER, 9000, 4);
  t.equal(lab.relay.stats().associations, 3);
  t.equal(lab.sockets.get(1).state, "closed", "that of port 2");
});

t.test("direct: one socket a family, sent to the destination itself; its refusal goes on to the client", async (t) => {
  const lab = new Lab("direct://");
  lab.send([1, 2]);
  lab.send([3], OTHER, 53);
  t.equal(lab.sockets.all.length, 1);
  const [first, second] = lab.sockets.get(0).datagrams;
  t.same([[...(first?.address ?? [])], first?.port, [...(first?.bytes ?? [])]], [[198, 51, 100, 7], 9000, [1, 2]]);
  t.same([[...(second?.address ?? [])], second?.port], [[203, 0, 113, 9], 53]);
  lab.sockets.sender.words.set(OTHER);
  lab.sockets.sender.port = 53;
  lab.reply(0, [9]);
  t.same(lab.stack.sent, [{ words: [...OTHER, ...CLIENT], localPort: 53, remotePort: 40_000, bytes: [9] }]);
  lab.sockets.sender.words.set(SERVER);
  lab.sockets.sender.port = 9000;
  lab.relay.onDatagramError(0, Errno.ECONNREFUSED);
  t.same(lab.stack.unreachable, [{ words: [...SERVER, ...CLIENT], localPort: 9000, remotePort: 40_000 }]);
});

t.test("reject: every datagram is answered with port unreachable", async (t) => {
  const lab = new Lab("reject://");
  lab.send([1]);
  t.equal(lab.stack.unreachable.length, 1);
  t.equal(lab.sockets.all.length, 0);
});

t.test("a datagram of a client that floods before the answer is dropped beyond 32", async (t) => {
  const lab = new Lab();
  for (let i = 0; i < 40; i++) lab.send([i]);
  t.equal(lab.relay.stats().dropped, 8);
  lab.associate(0);
  t.equal(lab.sockets.get(1).datagrams.length, 32);
});

t.test("a refusal while others work concerns the new association only", async (t) => {
  const lab = new Lab();
  lab.send([1]);
  lab.associate(0);
  lab.send([2], SERVER, 9000, 40_001);
  lab.relay.onConnected(2);
  lab.answer(2, [5, 0]);
  lab.answer(2, [5, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
  t.equal(lab.stack.unreachable.length, 1);
  lab.send([3]);
  t.equal(lab.sockets.get(1).datagrams.length, 2, "the first client goes on");
  lab.send([4], SERVER, 9000, 40_001);
  t.equal(lab.stack.unreachable.length, 1, "and the second is asked for again");
});

t.test("a proxy with several addresses: UDP passes over dead ones too", async (t) => {
  const other = Uint8Array.of(192, 0, 2, 2);
  for (const { name, fail } of [
    {
      name: "refused",
      fail: (lab: Lab) => {
        lab.sockets.close(0);
        lab.relay.onError(0, Errno.ECONNREFUSED);
      },
    },
    {
      name: "in no time",
      fail: (lab: Lab) => {
        lab.relay.advance(31_000);
        lab.relay.handleTimeout();
      },
    },
  ]) {
    const lab = new Lab("socks5://proxy.test", 8, [PROXY, other]);
    lab.send([1]);
    fail(lab);
    t.same([...(lab.sockets.get(1).address ?? [])], [...other], name);
    lab.associate(1);
    t.equal(lab.sockets.get(2).datagrams.length, 1, name);
    t.equal(lab.stack.unreachable.length, 0, name);
  }
  const atOnce = new Lab("socks5://proxy.test", 8, [PROXY, other]);
  atOnce.sockets.failWith = Errno.ENETUNREACH;
  atOnce.send([1]);
  t.same([...(atOnce.sockets.get(0).address ?? [])], [...other]);
});

t.test("over the limit a source that floods pushes out its own, and the log says so once", async (t) => {
  const lab = new Lab("direct://", 4);
  const other = mapped(10, 0, 0, 3);
  lab.send([1], SERVER, 9000, 1, other);
  for (let port = 1; port <= 20; port++) {
    lab.relay.advance(port);
    lab.send([1], SERVER, 9000, port);
  }
  t.match(lab.relay.stats(), { associations: 4, evicted: 17 });
  t.equal(lab.sockets.get(0).state, "open", "the other source keeps what it has, though it is the oldest");
  t.equal(lab.log.length, 1);
  t.match(lab.log[0], /^4 UDP clients.*--max-udp/);
  t.same(
    lab.summaries.map(({ end, client }) => [end, client]),
    Array.from({ length: 17 }, (_, i) => ["evicted", `10.0.0.2:${i + 1}`]),
    "the oldest first",
  );
});

t.test("an association that is evicted while the proxy is asked leaves nothing", async (t) => {
  const lab = new Lab("socks5://proxy.test", 1);
  lab.send([1], SERVER, 9000, 1);
  lab.send([1], SERVER, 9000, 2);
  t.equal(lab.sockets.open, 1);
  t.equal(lab.limits.count, 1);
  t.equal(lab.stack.unreachable.length, 0);
  lab.associate(1);
  t.equal(lab.sockets.get(2).datagrams.length, 1);
  t.equal(lab.limits.count, 0);
});

t.test(
  "too many dials, or no descriptors: port unreachable, one line, and UDP is asked for again at once",
  async (t) => {
    for (const { name, maxDials, errno } of [
      { name: "dials", maxDials: 1, errno: 0 },
      { name: "descriptors", maxDials: 64, errno: Errno.EMFILE },
    ]) {
      const lab = new Lab("socks5://proxy.test", 8, [PROXY], maxDials);
      lab.send([1], SERVER, 9000, 1);
      for (const port of [2, 3]) {
        lab.sockets.failWith = errno;
        lab.send([1], SERVER, 9000, port);
      }
      t.equal(lab.stack.unreachable.length, 2, name);
      t.equal(lab.log.length, 1, name);
      t.match(lab.relay.stats(), { associations: 1 });
      lab.associate(0);
      lab.send([1], SERVER, 9000, 2);
      t.equal(lab.stack.unreachable.length, 2, `${name}: recovered`);
      t.match(lab.relay.stats(), { associations: 2 });
    }
  },
);

t.test("a proxy behind a Unix socket: an unspecified BND.ADDR means this machine", async (t) => {
  const lab = new Lab("socks5:///run/proxy.sock", 8, []);
  lab.send([1]);
  lab.associate(0, [1, 0, 0, 0, 0, 0x1f, 0x90]);
  t.same([...(lab.sockets.get(1).address ?? [])], [127, 0, 0, 1]);
  t.equal(lab.sockets.get(1).port, 8080);
});

t.test("summaries: one destination by name of its address, several as *", async (t) => {
  const lab = new Lab("direct://");
  lab.send([1, 2, 3]);
  lab.send([4]);
  lab.send([5], OTHER, 53, 40_001);
  lab.send([6], SERVER, 53, 40_001);
  lab.relay.advance(200_000);
  lab.relay.handleTimeout();
  t.match(lab.summaries, [
    { protocol: "udp", client: "10.0.0.2:40000", destination: "198.51.100.7:9000", end: "closed", bytesUp: 4 },
    { protocol: "udp", client: "10.0.0.2:40001", destination: "*", end: "closed", bytesUp: 2 },
  ]);
  const refused = new Lab();
  refused.send([1]);
  refused.relay.onConnected(0);
  refused.answer(0, [5, 0]);
  refused.answer(0, [5, 7, 0, 1, 0, 0, 0, 0, 0, 0]);
  t.match(refused.summaries, [{ end: "refused", reason: /replied 7/, destination: "198.51.100.7:9000", bytesUp: 0 }]);
});

t.test("what is left when the engine stops is told, and its sockets are closed", async (t) => {
  const lab = new Lab();
  lab.send([1]);
  lab.send([1], SERVER, 9000, 40_001);
  lab.associate(0);
  lab.relay.stop();
  t.same(
    lab.summaries.map(({ end }) => end),
    ["stopped", "stopped"],
  );
  t.equal(lab.sockets.open, 0);
  t.equal(lab.limits.count, 0);
});
