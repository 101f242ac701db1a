/**
 * Life of a flow on the relay: every order of what client and upstream can do. After each the other side must have been
 * told what happened, and nothing may be left.
 */
import t, { type Test } from "tap";
import { Errno } from "../../src/io/addon.ts";
import { Ready } from "../../src/stack/flow/flow.ts";
import type { FakeFlow } from "./fake-sockets.ts";
import { Lab } from "./relay-lab.ts";

/** What can happen to an open flow. */
const EVENTS = ["client data", "client FIN", "client RST", "upstream data", "upstream end", "upstream error"] as const;
type Event = (typeof EVENTS)[number];

/** All orders of a set, each event once. */
function orders(events: readonly Event[]): Event[][] {
  if (events.length === 0) return [[]];
  return events.flatMap((event) => orders(events.filter((other) => other !== event)).map((rest) => [event, ...rest]));
}

/** What may still come after `seen`: nothing from a side that has ended, nothing at all after a reset. */
function canFollow(event: Event, seen: readonly Event[]): boolean {
  if (seen.includes("client RST") || seen.includes("upstream error")) return false;
  if (seen.includes("client FIN") && seen.includes("upstream end")) return false;
  if (event.startsWith("client")) return event === "client RST" || !seen.includes("client FIN");
  return event === "upstream error" || !seen.includes("upstream end");
}

function happens(lab: Lab, flow: FakeFlow, handle: number, event: Event): void {
  switch (event) {
    case "client data":
      flow.arrive([1, 2, 3]);
      break;
    case "client FIN":
      flow.arrive([], true);
      break;
    case "client RST":
      flow.error = "FLOW_RESET";
      flow.mark(Ready.closed);
      break;
    case "upstream data":
      lab.answer(handle, [7, 8]);
      return;
    case "upstream end":
      lab.relay.onEnd(handle);
      break;
    case "upstream error":
      lab.error(handle, Errno.ECONNRESET);
      break;
  }
  lab.changed(flow);
}

/** Each order once, cut where nothing can follow. */
function scripts(): Event[][] {
  const found = new Map<string, Event[]>();
  for (const order of orders(EVENTS)) {
    const script: Event[] = [];
    for (const event of order) if (canFollow(event, script)) script.push(event);
    found.set(script.join(", "), script);
  }
  return [...found.values()];
}

function nothingIsLeft(t: Test, lab: Lab, message: string): void {
  t.match(lab.relay.stats(), { open: 0, dialing: 0 }, message);
  t.equal(lab.sockets.open, 0, `${message}: sockets`);
  t.equal(lab.limits.count, 0, `${message}: dials`);
  t.equal(lab.relay.nextTimeout(), Number.POSITIVE_INFINITY, `${message}: deadlines`);
  t.equal(lab.relay.hasPending, false, `${message}: pending writes`);
  t.equal(lab.summaries.length, 1, `${message}: one summary`);
}

for (const room of ["enough room", "no room at the upstream"] as const) {
  t.test(
    `open flows, ${room}: all orders of data, ends and resets on both sides (behaviours rows 53, 58)`,
    async (t) => {
      const all = scripts();
      t.equal(all.length, 52, "orders");
      for (const script of all) {
        const name = script.join(", ");
        const lab = new Lab({ url: "direct://" });
        const flow = lab.dial();
        const handle = lab.open(flow);
        const socket = lab.sockets.get(handle);
        if (room !== "enough room") lab.sockets.writeLimit = 0;
        for (const event of script) happens(lab, flow, handle, event);
        if (room !== "enough room" && socket.state === "open") {
          lab.sockets.writeLimit = 100;
          lab.relay.onWritable(handle);
          lab.relay.flush();
        }
        const wasReset = script.includes("client RST");
        const hasFailed = script.includes("upstream error");
        nothingIsLeft(t, lab, name);
        if (!t.passing()) break;
        t.equal(socket.state, wasReset ? "reset" : "closed", `${name}: the upstream's socket`);
        t.equal(flow.done.at(-1), hasFailed ? "abort" : "close", `${name}: the client's side`);
        const sent = script.includes("upstream data");
        t.same(flow.sent, sent ? [7, 8] : [], `${name}: what the client got`);
        const isWhole = room === "enough room" || !(wasReset || hasFailed);
        const bytes = script.includes("client data") && isWhole ? [1, 2, 3] : [];
        t.same(socket.written, bytes, `${name}: what the upstream got`);
        const ended = script.includes("client FIN") && isWhole;
        const endedFirst = ended && script.indexOf("client FIN") < (script.indexOf("upstream end") + 1 || 99) - 1;
        if (room === "enough room") t.equal(socket.finSent, endedFirst, `${name}: FIN passed on`);
        t.equal(flow.done.includes("end"), script.includes("upstream end"), `${name}: end passed on`);
        t.match(lab.summaries[0], {
          protocol: "tcp",
          end: wasReset ? "reset-by-client" : hasFailed ? "reset-by-upstream" : "closed",
          bytesUp: bytes.length,
          bytesDown: flow.sent.length,
        });
      }
    },
  );
}

t.test("flows that are dialled: each end of either side at each step of the handshake leaves nothing", async (t) => {
  const steps: readonly ((lab: Lab, handle: number) => void)[] = [
    () => {},
    (lab, handle) => lab.connected(handle),
    (lab, handle) => lab.answer(handle, [5]),
    (lab, handle) => lab.answer(handle, [0]),
    (lab, handle) => lab.answer(handle, [5, 0, 0, 1, 0]),
  ];
  const ends: Readonly<Record<string, (lab: Lab, flow: FakeFlow) => void>> = {
    "client RST": (lab, flow) => happens(lab, flow, flow.tag, "client RST"),
    "upstream end": (lab, flow) => lab.relay.onEnd(flow.tag),
    "upstream error": (lab, flow) => lab.error(flow.tag, Errno.ECONNRESET),
    silence: (lab) => lab.at(50_000),
    "engine stops": (lab) => lab.relay.stop(),
  };
  for (const earlyAccept of [false, true]) {
    for (let count = 1; count <= steps.length; count++) {
      for (const [name, end] of Object.entries(ends)) {
        const lab = new Lab({ earlyAccept });
        const flow = lab.dial();
        const handle = flow.tag;
        for (const step of steps.slice(0, count)) step(lab, handle);
        end(lab, flow);
        const message = `${name} after step ${count}${earlyAccept ? ", accepted early" : ""}`;
        if (name === "engine stops") flow.done.push("stopped");
        nothingIsLeft(t, lab, message);
        const last = earlyAccept ? "abort" : "reject rst";
        const expected = { "client RST": "close", "engine stops": "stopped" }[name] ?? last;
        t.equal(flow.done.at(-1), expected, message);
        const told = { "client RST": "reset-by-client", "engine stops": "stopped" }[name] ?? "refused";
        t.equal(lab.summaries[0]?.end, told, message);
      }
    }
  }
});

t.test("a client that is gone without a word ends its flow, and the upstream is reset", async (t) => {
  const lab = new Lab({ url: "direct://" });
  const flow = lab.dial();
  const handle = lab.open(flow);
  flow.error = "FLOW_TIMEOUT";
  flow.mark(Ready.closed);
  lab.changed(flow);
  t.equal(lab.sockets.get(handle).state, "reset");
  nothingIsLeft(t, lab, "gone");
  t.equal(lab.summaries[0]?.end, "client-gone");
});

t.test("an upstream that is gone without a word: keep-alive's ETIMEDOUT resets the client", async (t) => {
  const lab = new Lab({ url: "direct://" });
  const flow = lab.dial();
  const handle = lab.open(flow);
  lab.error(handle, Errno.ETIMEDOUT);
  t.equal(flow.done.at(-1), "abort");
  nothingIsLeft(t, lab, "gone");
  t.match(lab.summaries[0], { end: "reset-by-upstream", reason: "ETIMEDOUT" });
});

t.test("idle: a flow without data for its time is reset on both sides; one that moved is not", async (t) => {
  const lab = new Lab({ url: "direct://", idleTimeoutMs: 160_000 });
  const idle = lab.dial();
  const busy = lab.dial();
  const half = lab.dial();
  const handles = [idle, busy, half].map((flow) => lab.open(flow));
  for (const flow of [idle, busy, half]) flow.activeAt = 1;
  half.arrive([], true);
  lab.changed(half);
  t.equal(lab.relay.nextTimeout(), 10_001, "looked for 16 times in that time");
  lab.at(150_000);
  busy.activeAt = 150_000;
  t.match(lab.relay.stats(), { open: 3, idled: 0 });
  lab.at(171_000);
  t.match(lab.relay.stats(), { open: 1, idled: 2 });
  t.same(
    handles.map((handle) => lab.sockets.get(handle).state),
    ["reset", "open", "reset"],
  );
  t.equal(idle.done.at(-1), "abort");
  t.equal(half.done.at(-1), "abort", "half-closed flows too");
  t.same(
    lab.summaries.map(({ end }) => end),
    ["idle", "idle"],
  );
  happens(lab, busy, handles[1] as number, "client RST");
  t.equal(lab.relay.nextTimeout(), Number.POSITIVE_INFINITY, "no sweep without flows");
});

t.test("idle: with short times the sweep comes once a second at most, and late by that at most", async (t) => {
  const lab = new Lab({ url: "direct://", idleTimeoutMs: 2000 });
  const flow = lab.dial();
  lab.open(flow);
  t.equal(lab.relay.nextTimeout(), 1001);
  for (let now = 1001; now <= 3001; now += 1000) lab.at(now);
  t.match(lab.relay.stats(), { open: 0, idled: 1 });
});

t.test("summaries: client, destination, upstream, duration and bytes (--log-flows)", async (t) => {
  const lab = new Lab({ url: "socks5://u:secret@proxy.test" });
  const flow = lab.dial();
  const handle = flow.tag;
  lab.at(100);
  lab.connected(handle);
  lab.answer(handle, [5, 0]);
  lab.answer(handle, [5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, 9]);
  happens(lab, flow, handle, "client data");
  lab.at(251);
  happens(lab, flow, handle, "client FIN");
  happens(lab, flow, handle, "upstream end");
  t.strictSame(lab.summaries, [
    {
      protocol: "tcp",
      client: "10.0.0.2:50000",
      destination: "198.51.100.7:80",
      upstream: "socks5://u@proxy.test:1080",
      end: "closed",
      durationMs: 250,
      bytesUp: 3,
      bytesDown: 2,
    },
  ]);
});

t.test("summaries: a refusal says why, also when several addresses were tried", async (t) => {
  const lab = new Lab({ servers: [Uint8Array.of(192, 0, 2, 1), Uint8Array.of(192, 0, 2, 2)] });
  const flow = lab.dial();
  lab.at(500);
  lab.error(flow.tag, Errno.ECONNREFUSED);
  lab.at(800);
  lab.connected(flow.tag);
  lab.answer(flow.tag, [5, 0]);
  lab.answer(flow.tag, [5, 4]);
  t.match(lab.summaries, [{ end: "refused", reason: /replied 4: host unreachable/, durationMs: 799, bytesUp: 0 }]);
});

t.test("summaries of open flows when the engine stops", async (t) => {
  const lab = new Lab({ url: "direct://" });
  const flow = lab.dial();
  lab.open(flow);
  lab.relay.stop();
  t.match(lab.summaries, [{ end: "stopped" }]);
  t.match(lab.relay.stats(), { open: 0 });
});
