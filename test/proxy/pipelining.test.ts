import t from "tap";
import { Errno } from "../../src/io/addon.ts";
import { Ready } from "../../src/stack/flow/flow.ts";
import type { FakeFlow } from "./fake-sockets.ts";
import { GRANTED, Lab, METHOD_NONE } from "./relay-lab.ts";

const GREETING = [5, 1, 0];
const REQUEST = [5, 1, 0, 1, 198, 51, 100, 7, 0, 80];
const reply = (code: number): number[] => [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
const CLIENT_GONE = (lab: Lab, flow: FakeFlow): void => {
  flow.error = "FLOW_RESET";
  flow.mark(Ready.closed);
  lab.changed(flow);
};

const newLab = (url?: string): Lab => new Lab({ pipelines: true, ...(url === undefined ? {} : { url }) });
const state = (lab: Lab): string => lab.relay.stats().pipelining;
const written = (lab: Lab, flow: FakeFlow): number[] => lab.sockets.get(flow.tag).written;

/** Goes through the handshake step by step, whichever way it is sent. */
function grant(lab: Lab, flow: FakeFlow): void {
  lab.connected(flow.tag);
  lab.answer(flow.tag, METHOD_NONE);
  lab.answer(flow.tag, GRANTED);
}

/** A lab whose upstream has shown that it takes messages together. */
function proven(): Lab {
  const lab = newLab();
  const flow = lab.dial();
  grant(lab, flow);
  return lab;
}

t.test("one flow tries, the others go in sequence until it is answered; then all go together", async (t) => {
  const lab = newLab();
  const first = lab.dial();
  const second = lab.dial();
  lab.connected(first.tag);
  lab.connected(second.tag);
  t.same(written(lab, first), [...GREETING, ...REQUEST], "the trial");
  t.same(written(lab, second), GREETING, "not tried by two at a time");
  t.equal(state(lab), "trying");
  lab.answer(first.tag, [...METHOD_NONE, ...GRANTED, 42]);
  t.same(first.done, ["accept"]);
  t.same(first.sent, [42], "both answers and payload in one read");
  t.equal(state(lab), "yes");
  const third = lab.dial();
  lab.connected(third.tag);
  t.same(written(lab, third), [...GREETING, ...REQUEST]);
});

t.test("with a password only its method is offered, and all three messages go together (RFC 1929)", async (t) => {
  const lab = newLab("socks5://ab:cd@proxy.test");
  const flow = lab.dial();
  lab.connected(flow.tag);
  t.same(written(lab, flow), [5, 1, 2, 1, 2, 97, 98, 2, 99, 100, ...REQUEST]);
  lab.answer(flow.tag, [5, 2, 1, 0, ...GRANTED]);
  t.same(flow.done, ["accept"]);
});

t.test(
  "a proxy that swallows the request: the same flow goes in sequence after 2 s, and nobody tries again",
  async (t) => {
    const lab = newLab();
    const flow = lab.dial();
    lab.connected(flow.tag);
    lab.answer(flow.tag, METHOD_NONE);
    t.equal(lab.relay.nextTimeout(), 2001);
    const swallowed = flow.tag;
    lab.at(2001);
    t.equal(lab.sockets.get(swallowed).state, "closed");
    t.not(flow.tag, swallowed);
    t.same(flow.done, [], "the client waits");
    t.equal(state(lab), "judging");
    const other = lab.dial();
    lab.connected(other.tag);
    t.same(written(lab, other), GREETING, "meanwhile others go in sequence");
    lab.connected(flow.tag);
    t.same(written(lab, flow), GREETING);
    lab.at(2050);
    lab.answer(flow.tag, METHOD_NONE);
    lab.answer(flow.tag, GRANTED);
    t.same(flow.done, ["accept"]);
    t.equal(state(lab), "no");
    t.match(lab.relay.stats(), { accepted: 1, dialing: 1, refused: 0 });
    t.equal(lab.limits.count, 1);
    const later = lab.dial();
    lab.connected(later.tag);
    t.same(written(lab, later), GREETING);
  },
);

t.test("as slow in sequence: the destination is slow, and nothing is learned", async (t) => {
  for (const known of [false, true]) {
    const lab = known ? proven() : newLab();
    lab.at(10_000);
    const flow = lab.dial();
    lab.connected(flow.tag);
    lab.answer(flow.tag, METHOD_NONE);
    lab.at(12_000);
    lab.connected(flow.tag);
    lab.answer(flow.tag, METHOD_NONE);
    lab.at(14_500);
    lab.answer(flow.tag, reply(4));
    t.same(flow.done, ["reject host-unreachable"]);
    t.equal(state(lab), known ? "yes" : "unknown");
    t.equal(lab.sockets.all.length, known ? 3 : 2);
  }
});

t.test("a slow destination is left alone when others were answered since", async (t) => {
  const lab = proven();
  lab.at(5000);
  const slow = lab.dial();
  lab.connected(slow.tag);
  lab.answer(slow.tag, METHOD_NONE);
  lab.at(6000);
  const quick = lab.dial();
  grant(lab, quick);
  lab.at(8000);
  t.equal(lab.sockets.all.length, 3, "no second dial");
  t.equal(state(lab), "yes");
  lab.at(9000);
  lab.answer(slow.tag, GRANTED);
  t.same(slow.done, ["accept"]);
});

for (const { name, fail } of [
  { name: "closes", fail: (lab: Lab, flow: FakeFlow) => lab.relay.onEnd(flow.tag) },
  { name: "resets", fail: (lab: Lab, flow: FakeFlow) => lab.error(flow.tag, Errno.ECONNRESET) },
  { name: "refuses the method", fail: (lab: Lab, flow: FakeFlow) => lab.answer(flow.tag, [5, 255]) },
  { name: "replies general failure", fail: (lab: Lab, flow: FakeFlow) => lab.answer(flow.tag, [5, 0, ...reply(1)]) },
  { name: "replies refused", fail: (lab: Lab, flow: FakeFlow) => lab.answer(flow.tag, [5, 0, ...reply(5)]) },
  { name: "answers with garbage", fail: (lab: Lab, flow: FakeFlow) => lab.answer(flow.tag, [5, 0, 72, 84]) },
]) {
  t.test(
    `a trial that ${name} is never seen by the client: in sequence it is granted, and that is the verdict`,
    async (t) => {
      const lab = newLab();
      const flow = lab.dial();
      lab.connected(flow.tag);
      fail(lab, flow);
      t.same(flow.done, []);
      grant(lab, flow);
      t.same(flow.done, ["accept"]);
      t.equal(state(lab), "no");
      t.same(lab.log, []);
      t.equal(lab.sockets.open, 1);
    },
  );

  t.test(`a trial that ${name} and fares no better in sequence: the client is told once`, async (t) => {
    const lab = newLab();
    const flow = lab.dial();
    lab.connected(flow.tag);
    fail(lab, flow);
    lab.connected(flow.tag);
    if (name === "closes" || name === "resets" || name === "refuses the method") fail(lab, flow);
    else {
      lab.answer(flow.tag, METHOD_NONE);
      lab.answer(flow.tag, name === "replies refused" ? reply(5) : reply(1));
    }
    t.same(flow.done, ["reject rst"]);
    t.equal(state(lab), name === "replies refused" ? "yes" : "unknown", "two equal replies show that it was read");
    t.equal(lab.sockets.open, 0);
    t.match(lab.relay.stats(), { dialing: 0, refused: 1 });
    t.equal(lab.relay.nextTimeout(), Number.POSITIVE_INFINITY);
    t.equal(lab.limits.count, 0);
  });
}

t.test("trials without a verdict end after three", async (t) => {
  const lab = newLab();
  for (const [dial, expected] of [
    [1, "unknown"],
    [2, "unknown"],
    [3, "no"],
  ] as const) {
    const flow = lab.dial();
    for (let i = 0; i < 2; i++) {
      lab.connected(flow.tag);
      lab.relay.onEnd(flow.tag);
    }
    t.equal(state(lab), expected, `trial ${dial}`);
  }
});

t.test("on a proven upstream a refusal counts at once, and an odd end is looked at in sequence", async (t) => {
  const lab = proven();
  const refused = lab.dial();
  lab.connected(refused.tag);
  lab.answer(refused.tag, [...METHOD_NONE, ...reply(5)]);
  t.same(refused.done, ["reject rst"]);
  t.equal(lab.sockets.all.length, 2, "no second dial");
  t.equal(state(lab), "yes");
  const closed = lab.dial();
  lab.connected(closed.tag);
  lab.relay.onEnd(closed.tag);
  t.equal(state(lab), "judging");
  lab.connected(closed.tag);
  lab.relay.onEnd(closed.tag);
  t.same(closed.done, ["reject rst"]);
  t.equal(state(lab), "yes", "it closes either way: so says ssh -D that a destination refused");
});

t.test("a trial that is no trial: the proxy is down, or the client gives up", async (t) => {
  const down = newLab();
  const flow = down.dial();
  down.error(flow.tag, Errno.ECONNREFUSED);
  t.same(flow.done, ["reject rst"]);
  t.equal(state(down), "unknown");
  t.equal(down.log.length, 1);
  const left = newLab();
  const gone = left.dial();
  left.connected(gone.tag);
  CLIENT_GONE(left, gone);
  t.equal(state(left), "unknown");
  const judged = newLab();
  const gone2 = judged.dial();
  judged.connected(gone2.tag);
  judged.relay.onEnd(gone2.tag);
  CLIENT_GONE(judged, gone2);
  t.equal(state(judged), "unknown", "the client gave up before the verdict");
  for (const lab of [left, judged]) {
    t.equal(lab.sockets.open, 0);
    t.equal(lab.limits.count, 0);
    t.equal(lab.relay.nextTimeout(), Number.POSITIVE_INFINITY);
  }
});

t.test("a proven upstream that hangs all at once: every flow is served in sequence", async (t) => {
  const lab = proven();
  lab.at(5000);
  const flows = [lab.dial(), lab.dial(), lab.dial()];
  for (const flow of flows) lab.connected(flow.tag);
  lab.at(7000);
  t.equal(state(lab), "judging");
  for (const flow of flows) grant(lab, flow);
  for (const flow of flows) t.same(flow.done, ["accept"]);
  t.equal(state(lab), "no");
  t.equal(lab.sockets.open, 4);
  t.match(lab.relay.stats(), { open: 4, dialing: 0 });
});

t.test("first bytes that left with the connection are not sent again", async (t) => {
  const lab = newLab();
  lab.sockets.takesFirst = true;
  const flow = lab.dial();
  lab.connected(flow.tag);
  t.same(written(lab, flow), [...GREETING, ...REQUEST]);
});
