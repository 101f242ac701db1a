/** Limits on flows: in all, of one client, half open, and by memory. Behaviours 17 and 24. */
import t from "tap";
import { Slab } from "../../src/stack/memory/slab.ts";
import type { TcpConnection } from "../../src/stack/tcp/connection.ts";
import { BLOCK, CLIENT, type Family, Flag, Kit, showReady, type TcpFields, tcpOptions, tcpPacket } from "./kit.ts";

function syn(kit: Kit, port: number): void {
  kit.deliver(tcpPacket(4, { sourcePort: port, seq: 1000, flags: Flag.S, options: tcpOptions("mss 1000") }));
}

/** The client's answer to the SYN-ACK. */
function answer(kit: Kit, port: number): void {
  kit.deliver(tcpPacket(4, { sourcePort: port, seq: 1001, ack: 1, flags: Flag.A }));
}

t.test("synBacklog: the oldest half-open flow goes first, by a reset; others are unharmed (RFC 4987 §3.4)", (t) => {
  const kit = new Kit({ tcp: { synBacklog: 4 }, iss: 0 });
  syn(kit, 1);
  kit.flows[0]?.accept();
  kit.drain();
  answer(kit, 1);
  t.equal(kit.flows[0]?.state, "ESTABLISHED");
  kit.takeOut();
  // Many may wait for their owner, however long it takes.
  for (let port = 20_000; port < 22_000; port++) syn(kit, port);
  t.equal(kit.flows.length, 2001);
  const waiting = kit.flows[1];
  for (const flow of kit.flows.splice(2)) flow.reject("drop");
  for (let port = 10; port < 10_010; port++) {
    syn(kit, port);
    kit.flows.at(-1)?.accept();
    kit.drain();
  }
  t.same(kit.stack.stats().flows, { ESTABLISHED: 1, LISTEN: 1, "SYN-RECEIVED": 4 });
  t.equal(kit.stack.stats().drops["tcpHalfOpenLimit"], 9996);
  t.same(kit.stack.refused, { flows: 0, perSource: 0, halfOpen: 9996, memory: 0 });
  const sent = kit.takeOut().map(({ tcp }) => tcp);
  t.equal(sent.filter((tcp) => tcp?.flags === (Flag.S | Flag.A)).length, 10_000, "SYN-ACKs");
  const resets = sent.filter((tcp) => tcp?.flags === (Flag.R | Flag.A));
  // Good for a client that has our SYN-ACK and for one that lost it: behind our SYN, and acknowledging the client's.
  t.ok(
    resets.every((tcp) => tcp?.seq === 1 && tcp.ack === 1001),
    "numbers of resets",
  );
  const ports = resets.map((tcp) => tcp?.destinationPort);
  t.same([ports.length, ports[0], ports.at(-1)], [9996, 10, 10_005], "the oldest first");
  const [, , first, last] = [kit.flows[0], waiting, kit.flows[2], kit.flows.at(-1)];
  t.same([first?.state, first?.error, last?.state], ["CLOSED", "FLOW_ABORTED", "SYN-RECEIVED"]);
  t.equal(showReady(kit.ready.get(first as TcpConnection) ?? 0), "syn,closed", "the owner hears of it");
  kit.flows[0]?.write(new Uint8Array(10));
  kit.drain();
  t.equal(kit.takeOut()[0]?.tcp?.payload.length, 10, "the established flow goes on");
  answer(kit, 10_006);
  t.equal(kit.flows.at(-4)?.state, "ESTABLISHED", "a handshake that is among the newest completes");
  kit.takeOut();
  kit.finish();
  t.end();
});

t.test("a place among half-open flows is free again however a handshake ends", (t) => {
  const kit = new Kit({ tcp: { synBacklog: 4, synAckRetries: 0 }, iss: 0 });
  let ports = 1;
  const open = (): TcpConnection => {
    syn(kit, ports++);
    const flow = kit.flows.at(-1) as TcpConnection;
    flow.accept();
    kit.drain();
    return flow;
  };
  const [first, second, third, fourth] = [open(), open(), open(), open()];
  // From the middle, the newest and the oldest.
  second?.abort();
  open();
  answer(kit, 5);
  open();
  kit.deliver(tcpPacket(4, { sourcePort: 1, seq: 1001, flags: Flag.R }));
  open();
  t.same(
    [first, third, fourth].map((flow) => flow?.state),
    ["CLOSED", "SYN-RECEIVED", "SYN-RECEIVED"],
  );
  t.equal(kit.stack.refused.halfOpen, 0);
  open();
  t.same([kit.stack.refused.halfOpen, third?.state, fourth?.state], [1, "CLOSED", "SYN-RECEIVED"]);
  kit.advance(kit.now + 5000);
  t.same(kit.stack.stats().flows, { ESTABLISHED: 1 }, "the others timed out");
  for (let i = 0; i < 4; i++) open();
  t.equal(kit.stack.refused.halfOpen, 1);
  kit.takeOut();
  kit.finish();
  t.end();
});

t.test("maxFlows: one flow more gets a reset at once; a finished one makes room", (t) => {
  const kit = new Kit({ tcp: { maxFlows: 3 } });
  for (let port = 1; port < 10; port++) syn(kit, port);
  t.equal(kit.flows.length, 3);
  t.equal(kit.stack.stats().drops["tcpFlowLimit"], 6);
  t.same(kit.stack.stats().refused, { flows: 6, perSource: 0, halfOpen: 0, memory: 0 });
  t.same(
    kit.takeOut().map(({ tcp }) => [tcp?.destinationPort, tcp?.flags, tcp?.seq, tcp?.ack]),
    [4, 5, 6, 7, 8, 9].map((port) => [port, Flag.R | Flag.A, 0, 1001]),
  );
  kit.flows[1]?.abort();
  kit.drain();
  syn(kit, 20);
  t.equal(kit.flows.length, 4);
  t.same(kit.stack.stats().flows, { LISTEN: 3 });
  // A copy of a SYN that waits joins its flow, at the limit too.
  syn(kit, 20);
  t.same([kit.flows.length, kit.stack.refused.flows], [4, 6]);
  kit.takeOut();
  kit.finish();
  t.end();
});

t.test("0 is no limit on flows", (t) => {
  const kit = new Kit({ tcp: { maxFlows: 0, maxFlowsPerSource: 0 } });
  for (let i = 0; i < 70_000; i++) {
    const source = Uint8Array.of(10, 1, i >>> 8, i & 255);
    kit.deliver(tcpPacket(4, { seq: 1, flags: Flag.S, sourcePort: 1 + (i >>> 16) }, { source }));
  }
  t.equal(kit.stack.openFlows, 70_000);
  kit.finish();
  t.end();
});

t.test(
  "maxFlowsPerSource: each address has its own; one over it gets a reset, whatever state its flows are in",
  (t) => {
    const kit = new Kit({ tcp: { maxFlowsPerSource: 2, timeWaitMs: 1000 }, iss: 0 });
    const source = (i: number, family: Family): Uint8Array => {
      const address = CLIENT[family].slice();
      address[family === 4 ? 3 : 15] = i;
      return address;
    };
    const from = (i: number, port: number, fields: Partial<TcpFields> = {}, family: Family = 4): void => {
      kit.deliver(
        tcpPacket(family, { sourcePort: port, seq: 1000, flags: Flag.S, ...fields }, { source: source(i, family) }),
      );
    };
    for (const family of [4, 6] as const) {
      for (let i = 1; i <= 200; i++) for (let port = 1; port <= 3; port++) from(i, port, {}, family);
    }
    t.equal(kit.flows.length, 800);
    t.same(kit.stack.refused, { flows: 0, perSource: 400, halfOpen: 0, memory: 0 });
    t.equal(kit.stack.stats().drops["tcpSourceLimit"], 400);
    const resets = kit.takeOut();
    t.ok(resets.length === 400 && resets.every(({ tcp }) => tcp?.flags === (Flag.R | Flag.A) && tcp.ack === 1001));
    // Refused, reset by the client, timed out, closed in order: each makes room for one.
    const [first, second] = kit.flows;
    first?.reject("host-unreachable");
    kit.drain();
    from(1, 4);
    t.equal(kit.flows.length, 801);
    from(1, 5);
    t.equal(kit.flows.length, 801);
    second?.accept();
    kit.drain();
    from(1, 2, { seq: 1001, ack: 1, flags: Flag.A });
    from(1, 5);
    t.same([kit.flows.length, second?.state], [801, "ESTABLISHED"]);
    second?.end();
    kit.drain();
    from(1, 2, { seq: 1001, ack: 2, flags: Flag.A | Flag.F });
    t.equal(second?.state, "TIME-WAIT");
    from(1, 5);
    t.equal(kit.flows.length, 802, "TIME-WAIT does not count");
    from(1, 5, { flags: Flag.R });
    from(1, 6);
    t.equal(kit.flows.length, 803);
    from(2, 6);
    t.equal(kit.flows.length, 803, "others are as they were");
    for (const flow of kit.flows) flow.abort();
    kit.advance(kit.now + 2000);
    kit.takeOut();
    t.same(kit.stack.stats().flows, {});
    for (let i = 1; i <= 200; i++) for (let port = 1; port <= 3; port++) from(i, port);
    t.equal(kit.flows.length, 1203, "all are as at first");
    for (const flow of kit.flows) flow.abort();
    kit.drain();
    kit.takeOut();
    kit.finish();
    t.end();
  },
);

t.test("both limits count by themselves, and TIME-WAIT is not reused beyond them", (t) => {
  const kit = new Kit({ tcp: { maxFlows: 1 }, iss: 0 });
  syn(kit, 1);
  kit.flows[0]?.accept();
  kit.flows[0]?.end();
  kit.drain();
  answer(kit, 1);
  kit.deliver(tcpPacket(4, { sourcePort: 1, seq: 1001, ack: 2, flags: Flag.A | Flag.F }));
  t.equal(kit.flows[0]?.state, "TIME-WAIT");
  syn(kit, 2);
  kit.takeOut();
  // RFC 9293 §3.6.1, MAY-2: a new SYN could take the place of the old flow, but for the limit.
  kit.deliver(tcpPacket(4, { sourcePort: 1, seq: 9000, flags: Flag.S }));
  t.same(
    kit.takeOut().map(({ tcp }) => [tcp?.flags, tcp?.ack]),
    [[Flag.R | Flag.A, 9001]],
  );
  t.same([kit.flows.length, kit.stack.refused.flows], [2, 1]);
  kit.finish();
  t.end();
});

t.test("without packet memory a new flow gets a reset, and is welcome when it is back", (t) => {
  const slab = new Slab(64 * BLOCK);
  const kit = new Kit({ slab });
  syn(kit, 1);
  const taken: number[] = [];
  while (!slab.scarce) taken.push(slab.take());
  syn(kit, 2);
  t.same([kit.flows.length, kit.stack.refused], [1, { flows: 0, perSource: 0, halfOpen: 0, memory: 1 }]);
  const [reset] = kit.takeOut();
  t.same([reset?.tcp?.destinationPort, reset?.tcp?.flags], [2, Flag.R | Flag.A]);
  for (const block of taken) slab.release(block);
  syn(kit, 2);
  t.equal(kit.flows.length, 2);
  kit.finish();
  t.end();
});
