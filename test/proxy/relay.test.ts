import t from "tap";
import { Errno } from "../../src/io/addon.ts";
import { Ready } from "../../src/stack/flow/flow.ts";
import type { FakeFlow } from "./fake-sockets.ts";
import { GRANTED, Lab, METHOD_NONE, PROXY, V4, V6 } from "./relay-lab.ts";

t.test("socks5: a flow is accepted only when the proxy has granted it (DESIGN 4)", async (t) => {
  const lab = new Lab();
  const flow = lab.dial();
  const socket = lab.sockets.get(flow.tag);
  t.same([...(socket.address ?? [])], [...PROXY], "the proxy is dialled, not the destination");
  lab.relay.onConnected(flow.tag);
  lab.relay.flush();
  t.same(socket.written.splice(0), [5, 1, 0], "greeting");
  t.same(flow.done, []);
  lab.answer(flow.tag, METHOD_NONE);
  t.same(socket.written.splice(0), [5, 1, 0, 1, 198, 51, 100, 7, 0, 80], "request");
  t.same(flow.done, []);
  lab.answer(flow.tag, [...GRANTED, 104, 105]);
  t.same(flow.done, ["accept"]);
  t.same(flow.sent, [104, 105], "bytes behind the reply are payload");
  t.match(lab.relay.stats(), { open: 1, dialing: 0, accepted: 1, bytesDown: 2 });
});

t.test("socks5: an IPv6 destination is asked for as such", async (t) => {
  const lab = new Lab();
  lab.sockets.takesFirst = true;
  const flow = lab.dial(V6);
  lab.relay.onConnected(flow.tag);
  lab.answer(flow.tag, METHOD_NONE);
  t.same(lab.sockets.get(flow.tag).written, [5, 1, 0, 5, 1, 0, 4, ...V6.address, 1, 187], "the greeting went once");
});

const REPLIES = [
  { code: 1, name: "general failure", told: "reject rst", logs: 0 },
  { code: 2, name: "not allowed", told: "reject prohibited", logs: 0 },
  { code: 3, name: "network unreachable", told: "reject net-unreachable", logs: 0 },
  { code: 4, name: "host unreachable", told: "reject host-unreachable", logs: 0 },
  { code: 5, name: "connection refused", told: "reject rst", logs: 0 },
  { code: 6, name: "TTL expired", told: "reject host-unreachable", logs: 0 },
  { code: 7, name: "command not supported", told: "reject rst", logs: 0 },
  { code: 8, name: "address type not supported", told: "reject rst", logs: 0 },
  { code: 99, name: "an unknown reply", told: "reject rst", logs: 0 },
] as const;
for (const { code, name, told, logs } of REPLIES) {
  t.test(`socks5 reply ${code}, ${name}: ${told} (RFC 1928 §6, DESIGN 4)`, async (t) => {
    const lab = new Lab();
    const flow = lab.dial();
    lab.relay.onConnected(flow.tag);
    lab.answer(flow.tag, METHOD_NONE);
    lab.answer(flow.tag, [5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
    t.same(flow.done, [told]);
    t.equal(lab.log.length, logs);
    t.equal(lab.sockets.open, 0);
    t.match(lab.relay.stats(), { open: 0, dialing: 0, refused: 1 });
  });
}

for (const { errno, told } of [
  { errno: Errno.ECONNREFUSED, told: "reject rst" },
  { errno: Errno.EHOSTUNREACH, told: "reject host-unreachable" },
  { errno: Errno.ETIMEDOUT, told: "reject host-unreachable" },
  { errno: Errno.ENETUNREACH, told: "reject net-unreachable" },
  { errno: Errno.EACCES, told: "reject prohibited" },
  { errno: Errno.EPERM, told: "reject prohibited" },
]) {
  t.test(`direct: errno ${errno} of connect() is ${told}, at once or later (DESIGN 4)`, async (t) => {
    const later = new Lab({ url: "direct://" });
    const flow = later.dial();
    t.same([...(later.sockets.get(flow.tag).address ?? [])], [...V4.address]);
    later.sockets.close(flow.tag);
    later.relay.onError(flow.tag, errno);
    t.same(flow.done, [told]);
    const atOnce = new Lab({ url: "direct://" });
    atOnce.sockets.failWith = errno;
    t.same(atOnce.dial().done, [told]);
    t.equal(later.log.length + atOnce.log.length, 0);
  });
}

t.test("reject: every flow is reset without a dial", async (t) => {
  const lab = new Lab({ url: "reject://" });
  t.same(lab.dial().done, ["reject rst"]);
  t.equal(lab.sockets.all.length, 0);
});

t.test("proxy faults are a reset and a log line that names cause and remedy (DESIGN 4)", async (t) => {
  for (const { name, act, log } of [
    {
      name: "refused",
      act: (lab: Lab, flow: FakeFlow) => lab.relay.onError(flow.tag, Errno.ECONNREFUSED),
      log: /192\.0\.2\.1:1080 \(ECONNREFUSED\).*running/,
    },
    {
      name: "wrong method",
      act: (lab: Lab, flow: FakeFlow) => {
        lab.relay.onConnected(flow.tag);
        lab.answer(flow.tag, [5, 0xff]);
      },
      log: /password|method/i,
    },
    {
      name: "not a SOCKS proxy",
      act: (lab: Lab, flow: FakeFlow) => {
        lab.relay.onConnected(flow.tag);
        lab.answer(flow.tag, [72, 84, 84, 80]);
      },
      log: /version 72, expected 5/,
    },
    {
      name: "no connection in time",
      act: (lab: Lab) => {
        t.equal(lab.relay.nextTimeout(), 10_001);
        lab.relay.advance(10_001);
        lab.relay.handleTimeout();
      },
      log: /in time/,
    },
    {
      name: "no answer in time",
      act: (lab: Lab, flow: FakeFlow) => {
        lab.relay.advance(5000);
        lab.relay.onConnected(flow.tag);
        t.equal(lab.relay.nextTimeout(), 35_000);
        lab.relay.advance(35_000);
        lab.relay.handleTimeout();
      },
      log: /in time/,
    },
  ]) {
    const lab = new Lab();
    const flow = lab.dial();
    act(lab, flow);
    t.same(flow.done, ["reject rst"], name);
    t.equal(lab.log.length, 1, name);
    t.match(lab.log[0], log, name);
    t.equal(lab.relay.nextTimeout(), Number.POSITIVE_INFINITY, "no deadline is left");
  }
});

t.test("closed or reset during the handshake is a reset for the client (DESIGN 4)", async (t) => {
  const closed = new Lab();
  const flow = closed.dial();
  closed.relay.onConnected(flow.tag);
  closed.relay.onEnd(flow.tag);
  t.same(flow.done, ["reject rst"]);
  const reset = new Lab();
  const other = reset.dial();
  reset.relay.onConnected(other.tag);
  reset.relay.flush();
  reset.relay.onError(other.tag, Errno.ECONNRESET);
  t.same(other.done, ["reject rst"]);
});

t.test("half-close passes in both directions, in either order (DESIGN 4)", async (t) => {
  for (const clientFirst of [true, false]) {
    const lab = new Lab({ url: "direct://" });
    const flow = lab.dial();
    const handle = lab.open(flow);
    const socket = lab.sockets.get(handle);
    const steps = [
      () => {
        flow.arrive([1, 2, 3], true);
        lab.changed(flow);
        t.same(socket.written, [1, 2, 3]);
      },
      () => {
        lab.answer(handle, [7]);
        lab.relay.onEnd(handle);
        t.same(flow.sent, [7]);
        t.ok(flow.done.includes("end"));
      },
    ];
    if (!clientFirst) steps.reverse();
    steps[0]?.();
    t.equal(socket.state, "open", "one direction goes on");
    if (clientFirst) t.ok(socket.finSent, "FIN went with the last bytes");
    steps[1]?.();
    t.equal(socket.state, "closed");
    t.same(flow.done.at(-1), "close");
    t.match(lab.relay.stats(), { open: 0, bytesUp: 3, bytesDown: 1 });
  }
});

t.test("a client's reset resets the upstream, an upstream's error resets the client (behaviours row 58)", async (t) => {
  const lab = new Lab({ url: "direct://" });
  const flow = lab.dial();
  const handle = lab.open(flow);
  flow.error = "FLOW_RESET";
  flow.mark(Ready.closed);
  lab.changed(flow);
  t.equal(lab.sockets.get(handle).state, "reset");
  const other = lab.dial();
  lab.open(other);
  lab.relay.onError(other.tag, Errno.ECONNRESET);
  t.same(other.done.at(-1), "abort");
  t.match(lab.relay.stats(), { open: 0, dialing: 0 });
});

t.test("a client's reset while the upstream is asked gives the dial up", async (t) => {
  const lab = new Lab();
  const flow = lab.dial();
  flow.error = "FLOW_RESET";
  flow.mark(Ready.closed);
  lab.changed(flow);
  t.equal(lab.sockets.open, 0);
  t.equal(lab.relay.nextTimeout(), Number.POSITIVE_INFINITY);
});

t.test("back-pressure: a short write waits for room, and nothing is lost or sent twice", async (t) => {
  const lab = new Lab({ url: "direct://" });
  const flow = lab.dial();
  const handle = lab.open(flow);
  lab.sockets.writeLimit = 2;
  flow.arrive([1, 2, 3, 4, 5]);
  lab.changed(flow);
  t.same(lab.sockets.get(handle).written, [1, 2]);
  flow.arrive([6], true);
  lab.changed(flow);
  t.same(lab.sockets.get(handle).written, [1, 2], "blocked: no further write before there is room");
  lab.sockets.writeLimit = 100;
  lab.relay.onWritable(handle);
  lab.relay.flush();
  t.same(lab.sockets.get(handle).written, [1, 2, 3, 4, 5, 6]);
  t.ok(lab.sockets.get(handle).finSent);
});

t.test("back-pressure: a full send buffer pauses the upstream until the client has taken half", async (t) => {
  const lab = new Lab({ url: "direct://" });
  const flow = lab.dial();
  const handle = lab.open(flow);
  flow.sendSpace = 3;
  lab.answer(handle, [1, 2, 3, 4]);
  t.ok(lab.sockets.get(handle).paused);
  t.ok(flow.done.includes("want writable"));
  flow.sendSpace = 1000;
  flow.mark(Ready.writable);
  lab.changed(flow);
  t.notOk(lab.sockets.get(handle).paused);
});

t.test("early accept: the flow is accepted at its SYN, and a later refusal is a reset (DESIGN 4)", async (t) => {
  const lab = new Lab({ earlyAccept: true });
  const flow = lab.dial();
  t.same(flow.done, ["accept"]);
  flow.arrive([9]);
  lab.changed(flow);
  lab.relay.onConnected(flow.tag);
  lab.answer(flow.tag, METHOD_NONE);
  lab.answer(flow.tag, [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
  t.same(flow.done.at(-1), "abort");
  const good = lab.dial();
  good.arrive([9]);
  lab.changed(good);
  const handle = lab.open(good);
  t.same(lab.sockets.get(handle).written.at(-1), 9, "what came early is sent when the way is open");
});

t.test("no descriptors left: the client is refused and the log names the remedy", async (t) => {
  const lab = new Lab();
  lab.sockets.failWith = Errno.EMFILE;
  t.same(lab.dial().done, ["reject rst"]);
  t.match(lab.log[0], /EMFILE.*ulimit -n/);
});

const OTHER_PROXY = Uint8Array.of(192, 0, 2, 2);

t.test("a proxy with several addresses: each is tried once a flow, and what worked comes first", async (t) => {
  for (const { name, fail } of [
    {
      name: "refused later",
      fail: (lab: Lab, flow: FakeFlow) => {
        lab.sockets.close(flow.tag);
        lab.relay.onError(flow.tag, Errno.ECONNREFUSED);
      },
    },
    {
      name: "no connection in time",
      fail: (lab: Lab) => {
        lab.relay.advance(10_001);
        lab.relay.handleTimeout();
      },
    },
  ]) {
    const lab = new Lab({ servers: [PROXY, OTHER_PROXY] });
    const flow = lab.dial();
    fail(lab, flow);
    t.same(flow.done, [], `${name}: the same flow goes on`);
    t.same([...(lab.sockets.get(flow.tag).address ?? [])], [...OTHER_PROXY], name);
    t.equal(lab.sockets.open, 1, name);
    lab.open(flow);
    t.same(flow.done, ["accept"], name);
    const next = lab.dial();
    t.same([...(lab.sockets.get(next.tag).address ?? [])], [...OTHER_PROXY], `${name}: later flows begin there`);
    t.match(lab.relay.stats(), { open: 1, dialing: 1, refused: 0 });
  }
});

t.test("a proxy address that fails at once is passed over; when all fail the client is refused", async (t) => {
  const lab = new Lab({ servers: [PROXY, OTHER_PROXY] });
  lab.sockets.failWith = Errno.ENETUNREACH;
  const flow = lab.dial();
  t.same([...(lab.sockets.get(flow.tag).address ?? [])], [...OTHER_PROXY]);
  lab.sockets.failWith = Errno.ECONNREFUSED;
  lab.sockets.close(flow.tag);
  lab.relay.onError(flow.tag, Errno.ECONNREFUSED);
  t.same(flow.done, ["reject rst"]);
  t.equal(lab.log.length, 1);
  t.match(lab.relay.stats(), { open: 0, dialing: 0, refused: 1 });
});

t.test("the first handle of the relay may be any number: others share them", async (t) => {
  for (const url of ["socks5://proxy.test", "direct://"]) {
    const lab = new Lab({ url });
    lab.sockets.skipTo(5000);
    const flow = lab.dial();
    const handle = lab.open(flow);
    t.equal(handle, 5000);
    t.same(flow.done, ["accept"], url);
    flow.arrive([1, 2]);
    lab.changed(flow);
    t.same(lab.sockets.get(handle).written.slice(-2), [1, 2], url);
    t.ok(lab.relay.nextTimeout() > 60_000, "no deadline of the dial is left");
  }
});
