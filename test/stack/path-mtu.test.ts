/** Path MTU discovery, and ICMP errors that lie. Behaviours 115 and 116, RFC 1191, RFC 8201, RFC 5927. */
import t from "tap";
import { DatagramResult } from "../../src/stack/flow/flow.ts";
import { addressWords, concat, drops, endWords, FAMILIES } from "./ip-kit.ts";
import {
  CLIENT,
  CLIENT_PORT,
  Drill,
  type Family,
  Flag,
  ISN_PAIRS,
  icmpPacket,
  isStream,
  Kit,
  type Packet,
  SERVER,
  streamBytes,
  tcpPacket,
} from "./kit.ts";

const ROUTER: Readonly<Record<Family, Uint8Array>> = {
  4: Uint8Array.of(10, 0, 0, 1),
  6: Uint8Array.of(0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
};
const LIFETIME_MS = 600_000;

/** IP and TCP headers without options. */
function overhead(family: Family): number {
  return family === 4 ? 40 : 60;
}

/** Fragmentation needed, or packet too big, about the packet that begins with `quote`. */
function tooBig(family: Family, mtu: number, quote: Uint8Array): Uint8Array {
  const ip = { source: ROUTER[family] };
  return family === 4 ? icmpPacket(4, 3, 4, mtu, quote, undefined, ip) : icmpPacket(6, 2, 0, mtu, quote, undefined, ip);
}

/** As much of a packet as routers quote at least: the IP header and eight bytes, for IPv6 as much as fits. */
function quoteOf(packet: Packet | undefined): Uint8Array {
  const bytes = packet?.bytes ?? new Uint8Array(0);
  return bytes.slice(0, packet?.family === 4 ? 28 : 1232);
}

function changed(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice();
  copy.set(values, at);
  return copy;
}

/** A flow with segments of 1,500 bytes in flight. */
function inFlight(family: Family, irs = 1000, iss = 5000): { drill: Drill; sent: Packet[] } {
  const drill = new Drill({ family, irs, iss });
  drill.establish(`mss ${1500 - overhead(family)}`);
  drill.flow.write(streamBytes(1, 0, 6000));
  drill.drain();
  return { drill, sent: drill.takeOut() };
}

/** The stream bytes [from, ...) that packets carry one behind the other, as lengths; throws when they are wrong. */
function lengths(drill: Drill, packets: readonly Packet[], from: number): number[] {
  let at = from;
  return packets.map(({ tcp }) => {
    const payload = tcp?.payload ?? new Uint8Array(0);
    if (((tcp?.seq ?? 0) | 0) !== ((drill.iss + 1 + at) | 0))
      throw new Error(`SEG.SEQ ${tcp?.seq}, expected byte ${at}`);
    if (!isStream(1, at, payload)) throw new Error("wrong bytes");
    at += payload.length;
    return payload.length;
  });
}

function acknowledge(drill: Drill, bytes: number): void {
  drill.deliver(tcpPacket(drill.family, { seq: drill.irs + 1, ack: drill.iss + 1 + bytes, flags: Flag.A }));
}

function finish(drill: Drill): void {
  drill.flow.abort();
  drill.drain();
  drill.takeOut();
  drill.finish();
}

for (const family of FAMILIES) {
  for (const [irs, iss] of ISN_PAIRS) {
    t.test(
      `IPv${family}: what did not get through is sent again at once, in pieces that do (RFC 1191 §6.5, RFC 8201 §5.4), ISN ${iss.toString(16)}`,
      (t) => {
        const { drill, sent } = inFlight(family, irs, iss);
        const mss = 1500 - overhead(family);
        t.same(lengths(drill, sent, 0), [mss, mss, mss, mss, 6000 - 4 * mss]);
        const before = drill.flow.info().cwnd;
        t.equal(drill.deliver(tooBig(family, 1300, quoteOf(sent[1]))), true);
        const small = 1300 - overhead(family);
        const again = drill.takeOut();
        t.same(lengths(drill, again, 0), [small, small, small, small, 6000 - 4 * small]);
        t.ok(drill.flow.info().cwnd >= Math.min(before, 4 * small), "nothing was lost to congestion");
        // The message comes once for every segment: later ones change nothing.
        for (const packet of sent.slice(2, 4)) drill.deliver(tooBig(family, 1300, quoteOf(packet)));
        t.equal(drill.takeOut().length, 0);
        acknowledge(drill, 6000);
        t.equal(drill.flow.info().unacknowledged, 0);
        drill.flow.write(streamBytes(1, 6000, 3000));
        drill.drain();
        t.same(lengths(drill, drill.takeOut(), 6000).slice(0, 2), [small, small]);
        t.same(drops(drill), {});
        finish(drill);
        t.end();
      },
    );

    t.test(
      `IPv${family}: a message about what is not in flight is forged, or late (RFC 5927 §4.1), ISN ${iss.toString(16)}`,
      (t) => {
        const { drill, sent } = inFlight(family, irs, iss);
        acknowledge(drill, 1000);
        const header = family === 4 ? 20 : 40;
        const quote = quoteOf(sent[0]);
        const withSeq = (byte: number): Uint8Array => {
          const copy = quote.slice();
          new DataView(copy.buffer).setInt32(header + 4, (iss + 1 + byte) | 0);
          return copy;
        };
        const source = family === 4 ? 12 : 8;
        const rows: readonly [string, Uint8Array][] = [
          ["acknowledged", withSeq(0)],
          ["one byte before SND.UNA", withSeq(999)],
          ["SND.MAX, nothing was sent there", withSeq(6000)],
          ["half the space away", withSeq(1000 + 2 ** 31)],
          ["far above", withSeq(1_000_000)],
          ["another port of ours", changed(withSeq(1000), header, 9, 9)],
          ["another port of the client's", changed(withSeq(1000), header + 2, 9, 9)],
          ["another address of ours", changed(withSeq(1000), source, 99)],
          ["another client", changed(withSeq(1000), source + (family === 4 ? 4 : 16), 99)],
          ["another protocol", changed(withSeq(1000), family === 4 ? 9 : 6, 17)],
          ["not the packet's IP version", changed(withSeq(1000), 0, family === 4 ? 0x65 : 0x45)],
          [
            family === 4 ? "options, which we do not send" : "a header we do not send",
            changed(withSeq(1000), family === 4 ? 0 : 6, family === 4 ? 0x46 : 60),
          ],
        ];
        for (const [name, forged] of rows) {
          t.equal(drill.deliver(tooBig(family, 1300, forged)), false, name);
          t.equal(drill.out.length, 0, name);
        }
        t.equal(drops(drill)["icmpIgnored"], rows.length);
        t.equal(drill.deliver(tooBig(family, 1300, withSeq(1000))), true, "SND.UNA is in flight");
        t.ok(drill.takeOut().length > 0);
        finish(drill);
        t.end();
      },
    );
  }

  t.test(`IPv${family}: quotes cut at every byte`, (t) => {
    const { drill, sent } = inFlight(family);
    const least = family === 4 ? 28 : 48;
    for (let length = 0; length < least; length++) {
      t.equal(drill.deliver(tooBig(family, 1300, quoteOf(sent[0]).slice(0, length))), false);
    }
    t.same([drops(drill)["icmpIgnored"], drill.out.length], [least, 0]);
    t.equal(drill.deliver(tooBig(family, 1300, quoteOf(sent[0]).slice(0, least))), true, "and that is enough");
    drill.takeOut();
    finish(drill);
    t.end();
  });

  const floor = family === 4 ? 552 : 1280;
  const claims: readonly (readonly [said: number, used: number])[] = [
    [0, family === 4 ? 1492 : 1280],
    [1, floor],
    [67, floor],
    [68, floor],
    [551, floor],
    [552, floor],
    [1279, family === 4 ? 1279 : 1280],
    [1280, 1280],
    [1499, 1499],
    [1500, 1500],
    [65_535, 1500],
    ...(family === 4
      ? []
      : ([
          [0x7fffffff, 1500],
          [0xffffffff, 1500],
        ] as const)),
  ];
  for (const [said, used] of claims) {
    t.test(
      `IPv${family}: an MTU of ${said} is taken for ${used} (RFC 1191 §5, §7.1, RFC 8201 §4, RFC 5927 §7)`,
      (t) => {
        const { drill, sent } = inFlight(family);
        t.equal(drill.deliver(tooBig(family, said, quoteOf(sent[0]))), used < 1500);
        drill.takeOut();
        acknowledge(drill, 6000);
        drill.flow.write(streamBytes(1, 6000, 4000));
        drill.drain();
        t.equal(lengths(drill, drill.takeOut(), 6000)[0], used - overhead(family));
        finish(drill);
        t.end();
      },
    );
  }

  t.test(`IPv${family}: the quote of a super-segment counts as well`, (t) => {
    const drill = new Drill({ family, offload: { checksum: true, tso: true, uso: true } });
    drill.establish(`mss ${1500 - overhead(family)}`);
    drill.flow.write(streamBytes(1, 0, 6000));
    drill.drain();
    const [sent] = drill.takeOut();
    t.ok((sent?.bytes.length ?? 0) > 5000);
    t.equal(drill.deliver(tooBig(family, 1400, quoteOf(sent))), true);
    const [again] = drill.out;
    t.equal(again === undefined ? 0 : drill.segmentSizes.get(again), 1400 - overhead(family));
    t.same(lengths(drill, drill.takeOut(), 0), [6000]);
    finish(drill);
    t.end();
  });

  t.test(`IPv${family}: a closed window stays closed, a flow in recovery gets on`, (t) => {
    const { drill, sent } = inFlight(family);
    // Three duplicate ACKs: the first segment is sent again.
    for (let i = 0; i < 3; i++) acknowledge(drill, 0);
    t.ok(drill.takeOut().length > 0);
    t.equal(drill.deliver(tooBig(family, 1300, quoteOf(sent[0]))), true);
    drill.takeOut();
    acknowledge(drill, 6000);
    t.equal(drill.flow.info().unacknowledged, 0);
    // A window of zero: what is in flight then is a probe.
    drill.deliver(tcpPacket(family, { seq: drill.irs + 1, ack: drill.iss + 6001, flags: Flag.A, window: 0 }));
    drill.flow.write(streamBytes(1, 6000, 3000));
    drill.drain();
    t.equal(drill.takeOut().length, 0);
    drill.advance(drill.now + 10_000, true);
    const [probe] = drill.takeOut();
    t.equal(probe?.tcp?.payload.length, 1);
    t.equal(drill.deliver(tooBig(family, floor, changed(quoteOf(probe), family === 4 ? 2 : 4, 5, 0xdc))), true);
    t.equal(drill.takeOut().length, 0, "nothing is sent into it");
    drill.deliver(tcpPacket(family, { seq: drill.irs + 1, ack: drill.iss + 6001, flags: Flag.A }));
    t.ok(drill.takeOut().length > 0);
    finish(drill);
    t.end();
  });

  t.test(`IPv${family}: later flows of the client know, for ten minutes (RFC 8201 §5.4, RFC 1191 §6.3)`, (t) => {
    const { drill, sent } = inFlight(family);
    drill.deliver(tooBig(family, 1300, quoteOf(sent[0])));
    drill.takeOut();
    drill.flow.abort();
    drill.drain();
    drill.takeOut();
    const first = (port: number): number => {
      drill.use(port);
      drill.establish(`mss ${1500 - overhead(family)}`);
      drill.flow.write(streamBytes(1, 0, 3000));
      drill.drain();
      const [length = 0] = drill.takeOut().map(({ tcp }) => tcp?.payload.length ?? 0);
      drill.flow.abort();
      drill.drain();
      drill.takeOut();
      return length;
    };
    t.equal(first(50_001), 1300 - overhead(family));
    drill.advance(drill.now + LIFETIME_MS - 1000);
    t.equal(first(50_002), 1300 - overhead(family));
    drill.advance(drill.now + 1001);
    t.equal(first(50_003), 1500 - overhead(family));
    drill.finish();
    t.end();
  });

  t.test(`IPv${family}: a UDP datagram that did not get through: later ones leave in fragments that do`, (t) => {
    const kit = new Kit({ family });
    const block = kit.slab.take();
    kit.slab.bytes.set(streamBytes(1, 0, 9000), block);
    const send = (length: number, port = CLIENT_PORT): Packet | undefined => {
      t.equal(kit.stack.sendDatagram(endWords(family), 0, 53, 4, port, block, length), DatagramResult.sent);
      kit.take();
      const [packet] = kit.takeOut();
      t.ok(isStream(1, 0, packet?.udp?.payload ?? new Uint8Array(1)));
      return packet;
    };
    const most = 1500 - (family === 4 ? 28 : 48);
    const unknown = quoteOf(send(most));
    const header = family === 4 ? 20 : 40;
    t.equal(kit.deliver(tooBig(family, 1300, changed(unknown, header + 2, 1, 1))), false, "never sent to that port");
    t.equal(kit.deliver(tooBig(family, 1300, changed(unknown, header, 1, 1))), false, "never sent from that port");
    t.equal(send(most)?.fragments, undefined);
    t.equal(kit.deliver(tooBig(family, 1300, unknown)), true);
    const packet = send(most);
    t.equal(packet?.fragments?.length, 2);
    for (const { bytes } of packet?.fragments ?? []) t.ok(bytes.length <= 1300);
    t.equal(send(1300 - (family === 4 ? 28 : 48))?.fragments, undefined, "what fits is whole");
    t.equal(send(most, 9)?.fragments?.length, 2, "it is the way to the host that is small");
    // A fragment of a larger one is told of with its fragment header (IPv4's may be cut by routers).
    const large = send(8000);
    if (family === 6) {
      t.equal(kit.deliver(tooBig(6, 1280, (large?.fragments?.[1]?.bytes ?? new Uint8Array(0)).slice(0, 1232))), false);
      t.equal(kit.deliver(tooBig(6, 1280, (large?.fragments?.[0]?.bytes ?? new Uint8Array(0)).slice(0, 1232))), true);
      t.equal(send(1300 - 48)?.fragments?.length, 2);
    }
    kit.advance(kit.now + LIFETIME_MS);
    t.equal(send(most)?.fragments, undefined, "ten minutes later a large one is tried again");
    t.equal(kit.stack.nextTimeout(), Number.POSITIVE_INFINITY);
    kit.slab.release(block);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: echo replies learn as well`, (t) => {
    const kit = new Kit({ family });
    const ping = (): Packet | undefined => {
      kit.deliver(icmpPacket(family, family === 4 ? 8 : 128, 0, 1, streamBytes(0, 0, 1400)));
      return kit.takeOut()[0];
    };
    const whole = ping();
    t.equal(whole?.fragments, undefined);
    t.equal(kit.deliver(tooBig(family, 1300, quoteOf(whole))), true);
    t.equal(ping()?.fragments?.length, 2);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: as many destinations as anybody can name: the table is bounded`, (t) => {
    const kit = new Kit({ family });
    const block = kit.slab.take();
    const most = 1500 - (family === 4 ? 28 : 48);
    const words = endWords(family);
    const base = words[7] as number;
    const isCut = (n: number): boolean => {
      words[7] = base + n;
      kit.stack.sendDatagram(words, 0, 53, 4, CLIENT_PORT, block, most);
      kit.take();
      const [packet] = kit.takeOut();
      if (packet?.fragments === undefined) kit.deliver(tooBig(family, 1300, quoteOf(packet)));
      return packet?.fragments !== undefined;
    };
    for (let n = 0; n < 300; n++) t.equal(isCut(n), false);
    t.equal(isCut(299), true, "the newest are known");
    t.equal(isCut(44), true);
    t.equal(isCut(0), false, "the oldest is not");
    t.same(addressWords(CLIENT[family])[3], base);
    kit.slab.release(block);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: hard errors do not end flows (RFC 1122 §4.2.3.9, RFC 5927 §5.2)`, (t) => {
    const { drill, sent } = inFlight(family);
    const quote = quoteOf(sent[0]);
    const types = family === 4 ? [3, 4, 5, 11, 12] : [1, 3, 4, 100, 127];
    for (const type of types) {
      for (let code = 0; code < 16; code++) {
        if (family === 4 && type === 3 && code === 4) continue;
        const ip = { source: ROUTER[family] };
        t.equal(drill.deliver(icmpPacket(family, type, code, 0, quote, undefined, ip)), false);
      }
    }
    t.equal(drill.flow.state, "ESTABLISHED");
    t.equal(drill.out.length, 0);
    acknowledge(drill, 6000);
    t.equal(drill.flow.info().unacknowledged, 0);
    finish(drill);
    t.end();
  });

  t.test(`IPv${family}: nothing is learned before a flow is synchronized`, (t) => {
    const drill = new Drill({ family });
    drill.run("< S 0:0(0) win 65535 <mss 1400>");
    const header = family === 4 ? 20 : 40;
    const tuple = tcpPacket(
      family,
      {
        sourcePort: 443,
        destinationPort: CLIENT_PORT,
        seq: 5000,
        flags: Flag.S | Flag.A,
        payload: new Uint8Array(1400),
      },
      { source: SERVER[family], destination: CLIENT[family] },
    );
    t.equal(drill.deliver(tooBig(family, 1300, tuple.slice(0, header + 20))), false);
    drill.flow.accept();
    drill.drain();
    drill.takeOut();
    t.equal(drill.deliver(tooBig(family, 1300, tuple.slice(0, header + 20))), false);
    t.same(drops(drill), { icmpIgnored: 2 });
    finish(drill);
    t.end();
  });
}

t.test(
  "IPv4: routers that do not tell their MTU: the next smaller one in use, again and again (RFC 1191 §7.1)",
  (t) => {
    const { drill, sent } = inFlight(4);
    const mtus: number[] = [];
    let last = sent[0];
    for (let i = 0; i < 4; i++) {
      drill.deliver(tooBig(4, 0, quoteOf(last)));
      const again = drill.takeOut();
      if (again.length === 0) break;
      last = again[0];
      mtus.push(last?.bytes.length ?? 0);
    }
    t.same(mtus, [1492, 1006, 552]);
    finish(drill);
    t.end();
  },
);

t.test("a message that is not for the sender of what it quotes is ignored", (t) => {
  const { drill, sent } = inFlight(4);
  const message = icmpPacket(4, 3, 4, 1300, concat(quoteOf(sent[0])), undefined, {
    source: ROUTER[4],
    destination: Uint8Array.of(93, 184, 216, 35),
  });
  t.equal(drill.deliver(message), false);
  t.same([drops(drill)["icmpIgnored"], drill.out.length], [1, 0]);
  finish(drill);
  t.end();
});
