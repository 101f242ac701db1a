/** Handshakes that ask for another connection, on a made-up protocol: the proxy says `N` once, then `Y` or `N` again. */
import t from "tap";
import { type Handshake, HandshakeStep, Refusal, type Upstream } from "../../src/proxy/upstream.ts";
import { Lab } from "./relay-lab.ts";

const NOTHING = new Uint8Array(0);

class Asking implements Handshake {
  readonly out: Uint8Array = NOTHING;
  readonly consumed = 1;
  readonly refusal: Refusal = Refusal.proxyFault;
  readonly reason: string = "the proxy refused user and password";
  readonly bound: null = null;
  readonly #number: number;

  constructor(number: number) {
    this.#number = number;
  }

  start(): Uint8Array {
    return Uint8Array.of(this.#number);
  }

  receive(bytes: Uint8Array, start: number): HandshakeStep {
    return bytes[start] === 89 ? HandshakeStep.done : HandshakeStep.again;
  }
}

function upstream(canPipeline = false): Upstream {
  let count = 0;
  return {
    scheme: "test",
    label: "test://",
    server: { kind: "tcp", host: "proxy.test", port: 1 },
    tls: null,
    udp: "none",
    rejects: false,
    carriesIpv6: true,
    canPipeline,
    connect: () => new Asking(++count),
    associate: () => null,
  };
}

t.test("again: the same flow is dialled once more, on a new connection to the same place", async (t) => {
  const lab = new Lab({ upstream: upstream(), servers: [Uint8Array.of(192, 0, 2, 1), Uint8Array.of(192, 0, 2, 2)] });
  const flow = lab.dial();
  const first = flow.tag;
  lab.connected(first);
  lab.answer(first, [78]);
  t.equal(lab.sockets.get(first).state, "closed");
  t.same(flow.done, []);
  t.not(flow.tag, first);
  const socket = lab.sockets.get(flow.tag);
  t.same([...(socket.address ?? [])], [192, 0, 2, 1], "the same address");
  lab.connected(flow.tag);
  t.same(socket.written, [2], "a handshake of its own");
  lab.answer(flow.tag, [89, 5]);
  t.same(flow.done, ["accept"]);
  t.same(flow.sent, [5]);
  t.match(lab.relay.stats(), { open: 1, dialing: 0, refused: 0 });
  t.equal(lab.limits.count, 0);
});

t.test("again, twice: the flow is refused with what the handshake says", async (t) => {
  const lab = new Lab({ upstream: upstream() });
  const flow = lab.dial();
  for (let i = 0; i < 2; i++) {
    lab.connected(flow.tag);
    lab.answer(flow.tag, [78]);
  }
  t.same(flow.done, ["reject rst"]);
  t.same(lab.log, ["the proxy refused user and password"]);
  t.equal(lab.sockets.all.length, 2);
  t.equal(lab.sockets.open, 0);
  t.equal(lab.relay.nextTimeout(), Number.POSITIVE_INFINITY);
});

t.test("again: each flow has its own second try, and the deadline starts anew", async (t) => {
  const lab = new Lab({ upstream: upstream() });
  for (let i = 0; i < 3; i++) {
    const flow = lab.dial();
    lab.connected(flow.tag);
    lab.answer(flow.tag, [78]);
    lab.connected(flow.tag);
    lab.answer(flow.tag, [89]);
    t.same(flow.done, ["accept"]);
  }
  const slow = lab.dial();
  lab.connected(slow.tag);
  lab.at(29_000);
  lab.answer(slow.tag, [78]);
  lab.connected(slow.tag);
  lab.at(40_000);
  t.same(slow.done, []);
  lab.at(59_001);
  t.same(slow.done, ["reject rst"]);
});
