/** Reassembly: order, duplicates, overlaps, limits, time. Behaviours 93 to 97, 104 and 105, and the attacks on all of them. */
import t, { type Test as Tap } from "tap";
import { concat, cut, cutsFor, drops, FAMILIES, fragment, ICMP } from "./ip-kit.ts";
import {
  CLIENT_PORT,
  type Family,
  Flag,
  icmpPacket,
  isStream,
  Kit,
  seededRandom,
  streamBytes,
  tcpPacket,
  udpPacket,
} from "./kit.ts";

const UDP = 17;
const TCP = 6;
/** RFC 791 §3.2 and RFC 1122 §3.3.2; RFC 8200 §4.5. */
const LIFE_MS: Readonly<Record<Family, number>> = { 4: 30_000, 6: 60_000 };

function shuffled<T>(list: readonly T[], random: () => number): T[] {
  const result = [...list];
  for (let i = result.length - 1; i > 0; i--) {
    const j = (random() >>> 0) % (i + 1);
    [result[i], result[j]] = [result[j] as T, result[i] as T];
  }
  return result;
}

/** Whether the one datagram in the inbox is `length` bytes of the stream from `position`; empties the inbox. */
function takeDatagram(kit: Kit, position: number, length: number): boolean {
  const { inbox } = kit.stack;
  const offset = inbox.offset[0] ?? 0;
  const bytes = kit.slab.bytes.slice(offset, offset + (inbox.length[0] ?? 0));
  const isRight = inbox.count === 1 && bytes.length === length && isStream(0, position, bytes);
  inbox.clear();
  return isRight;
}

/** Checks that nothing waits and no memory of fragments is kept. */
function nothingWaits(t: Tap, kit: Kit): void {
  t.same(kit.stack.stats().fragments, { datagrams: 0, bytes: 0 });
  t.equal(kit.stack.nextTimeout(), Number.POSITIVE_INFINITY);
}

for (const family of FAMILIES) {
  const rfc = family === 4 ? "RFC 791 §3.2" : "RFC 8200 §4.5";
  const headers = family === 4 ? 20 : 48;

  t.test(`IPv${family}: fragments in any order make the datagram (${rfc})`, (t) => {
    const kit = new Kit({ family });
    const random = seededRandom(5);
    const largest = 65_507 - (family === 4 ? 0 : 20);
    for (const length of [1, 8, 9, 1473, 2000, 8192, 20_001, largest]) {
      for (const mtu of [headers + 576, 1500, 9000]) {
        const offsets = cutsFor(family, 8 + length, mtu);
        if (offsets.length === 0) offsets.push(8);
        const packet = udpPacket(family, streamBytes(0, length, length));
        const fragments = cut(packet, offsets, length);
        for (const order of [fragments, [...fragments].reverse(), shuffled(fragments, random)]) {
          const results = order.map((bytes) => kit.deliver(bytes.slice()));
          t.same(results.includes(false), false, `${length} bytes, MTU ${mtu}`);
          t.ok(takeDatagram(kit, length, length), `${length} bytes in ${order.length} fragments`);
        }
      }
    }
    t.same(drops(kit), {});
    nothingWaits(t, kit);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: as a device delivers them, too; its word about checksums does not count for fragments`, (t) => {
    const kit = new Kit({ family });
    const payload = streamBytes(0, 0, 3000);
    for (const bytes of cut(udpPacket(family, payload), [1480])) kit.deliverReference(bytes, 0);
    t.ok(takeDatagram(kit, 0, 3000));
    // None of the fragments holds what the checksum covers: whatever was vouched for, it was not that.
    for (const bytes of cut(udpPacket(family, payload, { checksum: 0x1234 }), [1480])) kit.deliverReference(bytes, 0);
    t.same([kit.stack.inbox.count, drops(kit)], [0, { udpChecksum: 1 }]);
    nothingWaits(t, kit);
    kit.finish();
    t.end();
  });

  t.test(
    `IPv${family}: the ends and ports of the first fragment are the datagram's, between others of the same id`,
    (t) => {
      const kit = new Kit({ family });
      const source = Uint8Array.from(kit.family === 4 ? [10, 0, 0, 3] : [0xfd, ...new Array<number>(14).fill(0), 3]);
      const destination = source.slice().fill(9, -1);
      const packets = [
        udpPacket(family, streamBytes(0, 1, 2000), { sourcePort: 1001 }),
        udpPacket(family, streamBytes(0, 2, 2000), { sourcePort: 1002 }, { source }),
        udpPacket(family, streamBytes(0, 3, 2000), { sourcePort: 1003 }, { destination }),
      ];
      const fragments = [...packets.map((packet) => cut(packet, [1000])), cut(packets[0] as Uint8Array, [1000], 8)];
      for (const part of [1, 0])
        for (const list of fragments) t.equal(kit.deliver((list[part] as Uint8Array).slice()), true);
      const { inbox } = kit.stack;
      t.same([...inbox.remotePort.slice(0, inbox.count)], [1001, 1002, 1003, 1001]);
      for (const [i, position] of [1, 2, 3, 1].entries()) {
        const offset = inbox.offset[i] ?? 0;
        t.equal(inbox.length[i], 2000);
        t.ok(isStream(0, position, kit.slab.bytes.slice(offset, offset + 2000)));
      }
      inbox.clear();
      nothingWaits(t, kit);
      kit.finish();
      t.end();
    },
  );

  t.test(`IPv${family}: TCP in fragments is a segment (RFC 9293 §3.1)`, (t) => {
    const kit = new Kit({ family, iss: 5000 });
    const whole = tcpPacket(family, { seq: 1000, flags: Flag.S, options: Uint8Array.of(2, 4, 5, 0xb4, 1, 1, 1, 0) });
    for (const bytes of cut(whole, [24])) t.equal(kit.deliver(bytes), true);
    const [flow] = kit.flows;
    flow?.accept();
    kit.drain();
    t.equal(kit.takeOut()[0]?.tcp?.flags, Flag.S | Flag.A);
    const data = tcpPacket(family, { seq: 1001, ack: 5001, flags: Flag.A, payload: streamBytes(0, 0, 3000) });
    for (const bytes of cut(data, cutsFor(family, 3020)).reverse()) t.equal(kit.deliver(bytes), true);
    t.equal(flow?.readable, 3000);
    t.ok(isStream(0, 0, flow?.read(3000) ?? new Uint8Array(1)));
    flow?.abort();
    kit.drain();
    kit.takeOut();
    nothingWaits(t, kit);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: echo in fragments is answered in fragments (RFC 1122 §3.2.2.6, RFC 4443 §4.2)`, (t) => {
    const kit = new Kit({ family });
    const length = 65_535 - (family === 4 ? 28 : 8);
    const echo = icmpPacket(family, family === 4 ? 8 : 128, 0, 0xabcd, streamBytes(0, 3, length));
    for (const bytes of cut(echo, cutsFor(family, 8 + length))) kit.deliver(bytes);
    const [reply] = kit.takeOut();
    t.same([reply?.icmp?.rest, reply?.icmp?.data.length], [0xabcd, length]);
    t.ok(isStream(0, 3, reply?.icmp?.data ?? new Uint8Array(1)));
    t.equal(reply?.fragments?.length, Math.ceil((8 + length) / (family === 4 ? 1480 : 1448)));
    nothingWaits(t, kit);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: copies of fragments change nothing, before and after (${rfc})`, (t) => {
    const kit = new Kit({ family });
    const fragments = cut(udpPacket(family, streamBytes(0, 0, 7000)), [1480, 5000]);
    const [first, second, third] = fragments as [Uint8Array, Uint8Array, Uint8Array];
    for (let i = 0; i < 10_000; i++) t.equal(kit.deliver(second.slice()), true) || t.end();
    for (const bytes of [first, first, third, second]) kit.deliver(bytes.slice());
    t.equal(kit.stack.inbox.count, 1);
    t.ok(takeDatagram(kit, 0, 7000));
    t.equal(kit.stack.stats().fragments.datagrams, 1, "a late copy waits for another datagram of that id");
    kit.advance(kit.now + LIFE_MS[family]);
    nothingWaits(t, kit);
    t.same(drops(kit), { ipFragmentTimeout: 1 });
    t.equal(kit.out.length, 0);
    kit.finish();
    t.end();
  });

  // Fragments of a datagram of 3,000 bytes: [0, 1000), [1000, 2000), [2000, 3000).
  const overlaps: readonly { name: string; offset: number; length: number; more: boolean; change?: boolean }[] = [
    { name: "the same place, other bytes", offset: 1000, length: 1000, more: true, change: true },
    { name: "one unit into the one before (teardrop)", offset: 992, length: 1000, more: true },
    { name: "one unit into the one behind", offset: 1000, length: 1008, more: true },
    { name: "inside another one", offset: 1200, length: 80, more: true },
    { name: "around another one", offset: 800, length: 1600, more: true },
    { name: "the beginning again, shorter", offset: 0, length: 8, more: true },
    { name: "another end, further", offset: 3000, length: 8, more: false },
    { name: "another end, before", offset: 1000, length: 1000, more: false },
    { name: "more behind the end", offset: 3000, length: 8, more: true },
    { name: "the end again, with more to come", offset: 2000, length: 1000, more: true },
  ];
  for (const { name, offset, length, more, change } of overlaps) {
    t.test(`IPv${family}: overlap, ${name}: the datagram is dropped, and what follows (RFC 5722 §4)`, (t) => {
      const payload = udpPacket(family, streamBytes(0, 0, 2992)).slice(family === 4 ? 20 : 40);
      const part = (at: number, size: number, hasMore: boolean): Uint8Array => {
        const bytes = new Uint8Array(size);
        bytes.set(payload.subarray(at, at + size));
        return fragment(family, { protocol: UDP, offset: at, more: hasMore }, bytes);
      };
      const clash = part(offset, length, more);
      if (change) clash[clash.length - 1] = (clash[clash.length - 1] as number) ^ 1;
      // The one that does not fit comes when each of the others is missing.
      for (const missing of [0, 1, 2]) {
        const kit = new Kit({ family });
        for (const i of [0, 1, 2]) if (i !== missing) kit.deliver(part(i * 1000, 1000, i < 2));
        kit.deliver(clash.slice());
        kit.deliver(part(missing * 1000, 1000, missing < 2));
        t.equal(kit.stack.inbox.count, 0, `${missing} missing: not delivered`);
        // Where the wrong one makes it complete, its checksum says so, and the right one is a new datagram's.
        const reason = change && missing === 1 ? "udpChecksum" : "ipFragmentOverlap";
        t.ok((drops(kit)[reason] ?? 0) > 0, `${missing} missing: counted`);
        kit.advance(kit.now + LIFE_MS[family]);
        t.equal(kit.out.length, 0, "nobody is told of a datagram that was thrown away");
        nothingWaits(t, kit);
        kit.finish();
      }
      t.end();
    });
  }

  t.test(`IPv${family}: what a fragment cannot be`, (t) => {
    const kit = new Kit({ family });
    const rows: readonly [string, number, number, boolean, string][] = [
      ["length not of whole units (RFC 791 §3.2, RFC 8200 §4.5)", 0, 1001, true, "ipFragment"],
      ["no bytes at all", 8, 0, true, "ipFragment"],
      ["no bytes at the end", 80, 0, false, "ipFragment"],
      ["ping of death", 65_528, 100, false, "ipFragmentTooLarge"],
      ["one byte too many", family === 4 ? 65_512 : 65_528, family === 4 ? 4 : 8, false, "ipFragmentTooLarge"],
      ["more behind the largest", 65_528, 8, true, "ipFragmentTooLarge"],
    ];
    const counted: Record<string, number> = {};
    for (const [name, offset, length, more, drop] of rows) {
      counted[drop] = (counted[drop] ?? 0) + 1;
      t.equal(kit.deliver(fragment(family, { protocol: UDP, offset, more }, new Uint8Array(length))), false, name);
      t.same(drops(kit), counted, name);
      // RFC 8200 §4.5: parameter problem, code 0, at the payload length or at the fragment offset; IPv4 has none.
      const [error] = kit.takeOut();
      const isEmpty = length === 0;
      const pointer = drop === "ipFragmentTooLarge" ? 42 : 4;
      t.same(
        [error?.icmp?.type, error?.icmp?.code, error?.icmp?.rest],
        family === 4 || isEmpty ? [undefined, undefined, undefined] : [4, 0, pointer],
        name,
      );
    }
    nothingWaits(t, kit);
    kit.finish();
    t.end();
  });

  t.test(
    `IPv${family}: what is there when the time is up is told by the first fragment (RFC 1122 §3.2.2.4, RFC 4443 §3.3)`,
    (t) => {
      const kit = new Kit({ family });
      const start = kit.now;
      const packet = udpPacket(family, streamBytes(0, 0, 3000));
      const [first, second] = cut(packet, [1400]) as [Uint8Array, Uint8Array];
      kit.deliver(second.slice());
      kit.advance(start + LIFE_MS[family] - 10);
      t.equal(kit.stack.stats().fragments.datagrams, 1);
      kit.advance(start + LIFE_MS[family]);
      t.equal(kit.out.length, 0, "without the first fragment nobody is told");
      nothingWaits(t, kit);
      const again = kit.now;
      kit.deliver(first.slice());
      kit.advance(again + LIFE_MS[family] - 1);
      t.equal(kit.out.length, 0);
      kit.advance(again + LIFE_MS[family]);
      const [error, ...more] = kit.takeOut();
      t.equal(more.length, 0);
      t.same([error?.icmp?.type, error?.icmp?.code, error?.icmp?.rest], [family === 4 ? 11 : 3, 1, 0]);
      t.ok((error?.bytes.length ?? 9999) <= (family === 4 ? 576 : 1280), "RFC 1812 §4.3.2.3, RFC 4443 §2.4 c");
      const quote = error?.icmp?.data ?? new Uint8Array(0);
      const mine = first.slice(0, quote.length);
      if (family === 4) for (const bytes of [quote, mine]) bytes.set([0, 0], 10);
      t.same([...quote], [...mine], "the fragment is quoted as it came");
      t.equal(quote.length, family === 4 ? 548 : 1232);
      t.same(drops(kit), { ipFragmentTimeout: 2 });
      nothingWaits(t, kit);
      // The end that came too late completes nothing.
      kit.deliver(second.slice());
      t.equal(kit.stack.inbox.count, 0);
      kit.finish();
      t.end();
    },
  );

  t.test(`IPv${family}: nobody is told about fragments of an ICMP error (RFC 1122 §3.2.2, RFC 4443 §2.4 e.1)`, (t) => {
    const kit = new Kit({ family });
    const error = icmpPacket(family, family === 4 ? 3 : 1, 1, 0, streamBytes(0, 0, 2000));
    const echo = icmpPacket(family, family === 4 ? 8 : 128, 0, 0, streamBytes(0, 0, 2000));
    kit.deliver(cut(error, [1000])[0] as Uint8Array);
    kit.advance(kit.now + LIFE_MS[family]);
    t.equal(kit.out.length, 0);
    kit.deliver(cut(echo, [1000])[0] as Uint8Array);
    kit.advance(kit.now + LIFE_MS[family]);
    t.equal(kit.takeOut().length, 1, "about a question somebody is");
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: timers of the two versions and of TCP are one (nextTimeout)`, (t) => {
    const kit = new Kit({ family });
    const start = kit.now;
    kit.deliver(cut(udpPacket(6, streamBytes(0, 0, 2000)), [1000])[0] as Uint8Array);
    t.equal(kit.stack.nextTimeout(), start + 60_000);
    kit.advance(start + 40_000);
    kit.deliver(cut(udpPacket(4, streamBytes(0, 0, 2000)), [1000])[0] as Uint8Array);
    t.equal(kit.stack.nextTimeout(), start + 60_000);
    t.equal(kit.stack.stats().timersArmed, 2);
    kit.advance(start + 60_000);
    t.equal(kit.stack.nextTimeout(), start + 70_000);
    kit.advance(start + 70_000);
    nothingWaits(t, kit);
    t.equal(kit.takeOut().length, 2);
    kit.finish();
    t.end();
  });

  t.test(
    `IPv${family}: a mark of congestion on one fragment is on the whole; nothing else of its class is (RFC 3168 §5.3)`,
    (t) => {
      // The rebuilt header is to be seen in the quote of an error only: of a datagram nobody takes for want of room.
      const kit = new Kit({ family });
      const payload = udpPacket(family, streamBytes(0, 0, 1992)).slice(family === 4 ? 20 : 40);
      const half = (i: number, trafficClass: number): Uint8Array =>
        fragment(
          family,
          { protocol: UDP, offset: i * 1000, more: i === 0, trafficClass },
          payload.slice(i * 1000, i * 1000 + 1000),
        );
      for (const order of [
        [0, 1],
        [1, 0],
      ]) {
        for (const i of order) t.equal(kit.deliver(half(i, i === 0 ? 0xba : 0x2b)), true);
        const { inbox } = kit.stack;
        const header = (inbox.offset[0] ?? 0) - 8 - (family === 4 ? 20 : 40);
        const { view } = kit.slab;
        const trafficClass = family === 4 ? view.getUint8(header + 1) : (view.getUint16(header) >>> 4) & 0xff;
        t.equal(trafficClass, 0xbb);
        inbox.clear();
      }
      kit.finish();
      t.end();
    },
  );

  t.test(`IPv${family}: a datagram has so many fragments at most`, (t) => {
    const kit = new Kit({ family });
    const piece = (i: number): Uint8Array =>
      fragment(family, { protocol: UDP, offset: i * 8, more: true }, streamBytes(0, i, 8));
    // Every second one first: nothing can be joined.
    for (let i = 0; i < 128; i++) t.equal(kit.deliver(piece(2 * i)), true);
    t.equal(kit.deliver(piece(1)), false);
    t.same(drops(kit), { ipFragmentLimit: 1 });
    t.same(kit.stack.stats().fragments, { datagrams: 1, bytes: 0 }, "it is given up");
    kit.advance(kit.now + LIFE_MS[family]);
    nothingWaits(t, kit);
    kit.finish();
    t.end();
  });

  t.test(
    `IPv${family}: 100,000 fragments of datagrams without a first one: memory is bounded, others get through (CVE-2018-5391)`,
    (t) => {
      const kit = new Kit({ family, slabBytes: 64 << 20 });
      const data = new Uint8Array(1400);
      const source = (n: number): Uint8Array =>
        family === 4
          ? Uint8Array.of(10, 9, n >>> 8, n)
          : Uint8Array.of(0xfd, 9, 0, 0, 0, 0, n >>> 8, n, ...new Array<number>(8).fill(1));
      let most = 0;
      let lost = 0;
      for (let i = 0; i < 100_000; i++) {
        const from = i % 3 === 0 ? source(1) : source(i & 0xff);
        kit.deliver(
          fragment(
            family,
            { protocol: UDP, id: i & 0xffff, offset: 1480 + (i & 0xf8), more: true, source: from },
            data,
          ),
        );
        if (i % 1000 === 999) {
          most = Math.max(most, kit.stack.stats().fragments.bytes);
          for (const bytes of cut(udpPacket(family, streamBytes(0, i, 5000)), [1480, 2960])) kit.deliver(bytes);
          if (!takeDatagram(kit, i, 5000)) lost++;
        }
      }
      t.equal(lost, 0, "whole datagrams came in between");
      t.ok(most <= 4 << 20, `at most ${most} bytes`);
      t.ok(kit.stack.stats().fragments.datagrams <= 1024);
      t.ok((drops(kit)["ipFragmentLimit"] ?? 0) > 90_000, "the oldest make room");
      kit.advance(kit.now + LIFE_MS[family]);
      nothingWaits(t, kit);
      kit.finish();
      t.end();
    },
  );

  t.test(`IPv${family}: one source has half of everything at most`, (t) => {
    const kit = new Kit({ family, slabBytes: 64 << 20 });
    const [first, second] = cut(udpPacket(family, streamBytes(0, 0, 2000)), [1000]) as [Uint8Array, Uint8Array];
    const source = Uint8Array.from(family === 4 ? [10, 0, 0, 77] : [0xfd, 1, ...new Array<number>(13).fill(0), 77]);
    kit.deliver(first.slice());
    for (let id = 0; id < 5000; id++) {
      kit.deliver(fragment(family, { protocol: UDP, id, offset: 0, more: true, source }, new Uint8Array(8)));
    }
    t.same(kit.stack.stats().fragments.datagrams, 512 + 1, "datagrams");
    kit.deliver(second.slice());
    t.ok(takeDatagram(kit, 0, 2000), "the other one's datagram is still there");
    // By bytes, with fragments as large as they get.
    kit.deliver(first.slice());
    for (let id = 0; id < 200; id++) {
      kit.deliver(fragment(family, { protocol: UDP, id, offset: 0, more: true, source }, new Uint8Array(60_000)));
    }
    t.ok(kit.stack.stats().fragments.bytes <= (2 << 20) + 1536, "bytes");
    kit.deliver(second.slice());
    t.ok(takeDatagram(kit, 0, 2000), "the other one's datagram is still there");
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: when packet memory is short nothing new is kept, and nothing breaks`, (t) => {
    const kit = new Kit({ family, slabBytes: 16 << 18 });
    const held: number[] = [];
    while (kit.slab.available > 0) held.push(kit.slab.take());
    const fragments = cut(udpPacket(family, streamBytes(0, 0, 3000)), [1480]);
    for (const bytes of fragments) {
      // The device has read it into a block of its own.
      const block = held[0] as number;
      kit.slab.bytes.set(bytes, block);
      t.equal(kit.stack.receiveReference(block, block + bytes.length, false, 0, kit.now), false);
    }
    t.ok((drops(kit)["ipFragmentLimit"] ?? 0) >= 2);
    t.equal(kit.stack.stats().fragments.bytes, 0);
    for (const block of held) kit.slab.release(block);
    for (const bytes of cut(udpPacket(family, streamBytes(0, 0, 3000)), [1480], 9)) kit.deliver(bytes);
    t.ok(takeDatagram(kit, 0, 3000), "with memory it works again");
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: a fragment of a few bytes holds one cell, not a block`, (t) => {
    const kit = new Kit({ family });
    for (let id = 0; id < 100; id++) {
      kit.deliver(fragment(family, { protocol: UDP, id, offset: 0, more: true }, new Uint8Array(8)));
    }
    t.same(kit.stack.stats().fragments, { datagrams: 100, bytes: 100 * 1536 });
    const { total, free } = kit.stack.stats().blocks;
    t.ok(total - free <= 2 + 1 + 1, `${total - free} blocks: queue, input and one of cells`);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: close() forgets what waits`, (t) => {
    const kit = new Kit({ family });
    kit.deliver(cut(udpPacket(family, streamBytes(0, 0, 3000)), [1480])[0] as Uint8Array);
    kit.finish();
    t.same(kit.stack.stats().fragments, { datagrams: 0, bytes: 0 });
    t.equal(kit.stack.nextTimeout(), Number.POSITIVE_INFINITY);
    t.end();
  });

  t.test(`IPv${family}: random cuts, orders and copies (seed 11)`, (t) => {
    const kit = new Kit({ family });
    const random = seededRandom(11);
    const below = (n: number): number => (random() >>> 0) % n;
    let wrong = 0;
    for (let i = 0; i < 300; i++) {
      const length = 8 + below(20_000);
      const cuts = new Set<number>();
      for (let k = below(60); k >= 0; k--) cuts.add(8 + 8 * below((length + 8 - 1) >>> 3));
      const offsets = [...cuts].filter((offset) => offset < length + 8).sort((a, b) => a - b);
      const fragments = cut(udpPacket(family, streamBytes(0, i, length)), offsets, i);
      const last = fragments.length - 1;
      const copies = fragments.slice(0, last).filter(() => below(4) === 0);
      // The copies come before the last missing one: after it they would be another datagram's.
      const order = shuffled(fragments, random);
      const end = order.pop() as Uint8Array;
      for (const bytes of shuffled([...order, ...copies.filter((bytes) => bytes !== end)], random))
        kit.deliver(bytes.slice());
      kit.deliver(end.slice());
      if (!takeDatagram(kit, i, length)) wrong++;
    }
    t.equal(wrong, 0);
    nothingWaits(t, kit);
    kit.finish();
    t.end();
  });
}

t.test("IPv4: no TCP header in several pieces (RFC 1858 §3, RFC 3128)", (t) => {
  const kit = new Kit();
  const segment = tcpPacket(4, { seq: 1, flags: Flag.S, payload: streamBytes(0, 0, 100) }).slice(20);
  const rows: readonly [string, number, number, boolean][] = [
    ["a first fragment of 8 bytes", 0, 8, false],
    ["a first fragment of 16 bytes", 0, 16, false],
    ["a fragment at 8", 8, 24, false],
    ["a fragment at 16", 16, 24, false],
    ["a first fragment of 24 bytes", 0, 24, true],
    ["a fragment at 24", 24, 24, true],
  ];
  for (const [name, offset, length, taken] of rows) {
    const bytes = fragment(4, { protocol: TCP, offset, more: true }, segment.slice(offset, offset + length));
    t.equal(kit.deliver(bytes), taken, name);
  }
  t.same(drops(kit), { ipFragment: 4 });
  kit.finish();
  t.end();
});

t.test("IPv4: datagrams of different protocols are different ones; IPv6's are not told apart by it", (t) => {
  for (const family of FAMILIES) {
    const kit = new Kit({ family });
    kit.deliver(fragment(family, { protocol: UDP, offset: 1480, more: true }, new Uint8Array(80)));
    kit.deliver(fragment(family, { protocol: ICMP[family], offset: 2960, more: true }, new Uint8Array(80)));
    t.equal(kit.stack.stats().fragments.datagrams, family === 4 ? 2 : 1);
    kit.finish();
  }
  t.end();
});

t.test("IPv6: an atomic fragment is no fragment, whatever waits under its id (RFC 6946 §4)", (t) => {
  const kit = new Kit({ family: 6 });
  const packet = udpPacket(6, streamBytes(0, 5, 900));
  const [first] = cut(udpPacket(6, streamBytes(0, 0, 3000)), [1480]) as [Uint8Array];
  kit.deliver(first);
  const [atomic] = cut(packet, []) as [Uint8Array];
  t.equal(kit.deliver(atomic.slice()), true);
  t.ok(takeDatagram(kit, 5, 900));
  t.equal(kit.stack.stats().fragments.datagrams, 1, "the other one still waits");
  t.equal(kit.deliverReference(atomic.slice(), 0), true);
  t.ok(takeDatagram(kit, 5, 900));
  t.same(drops(kit), {});
  kit.finish();
  t.end();
});

t.test("IPv6: the first fragment has the whole chain, upper-layer header included (RFC 7112 §5)", (t) => {
  const kit = new Kit({ family: 6 });
  /** Destination options of eight bytes: padding. */
  const options = [UDP, 0, 1, 4, 0, 0, 0, 0];
  const udp = udpPacket(6, streamBytes(0, 0, 1000)).slice(40);
  const whole = concat(options, udp);
  const first = (protocol: number, data: Uint8Array): Uint8Array =>
    fragment(6, { protocol, offset: 0, more: true }, data);
  const rows: readonly [string, Uint8Array, boolean][] = [
    ["destination options and UDP header", first(60, whole.slice(0, 16)), true],
    ["destination options alone", first(60, whole.slice(0, 8)), false],
    ["half of the destination options", first(60, concat([UDP, 1], options.slice(2))), false],
    ["a TCP header without its last bytes", first(TCP, new Uint8Array(16)), false],
    ["half of a hop-by-hop header cannot follow at all", first(0, whole.slice(0, 16)), false],
  ];
  for (const [name, bytes, taken] of rows) {
    t.equal(kit.deliver(bytes), taken, name);
    const [error] = kit.takeOut();
    const code = /hop-by-hop/.test(name) ? 1 : 3;
    t.same([error?.icmp?.type, error?.icmp?.code], taken ? [undefined, undefined] : [4, code], name);
    if (code === 3 && !taken) t.equal(error?.icmp?.rest, 0);
  }
  // And then the rest of the one that was good.
  kit.deliver(fragment(6, { protocol: 60, offset: 16, more: false }, whole.slice(16)));
  t.ok(takeDatagram(kit, 0, 1000), "headers behind the fragment header are walked when all is there");
  kit.finish();
  t.end();
});

t.test("policy sees the datagram, not its pieces: the ports of later fragments are data", (t) => {
  for (const family of FAMILIES) {
    const kit = new Kit({ family });
    // A later fragment that looks like a UDP header to another port is no datagram of its own.
    const fake = concat([0x9c, 0x40, 0, 53, 0, 16, 0, 0], new Uint8Array(8));
    const udp = udpPacket(family, concat(new Uint8Array(992), fake), { destinationPort: 9 });
    for (const bytes of cut(udp, [1000]).reverse()) kit.deliver(bytes);
    const { inbox } = kit.stack;
    t.same([inbox.count, inbox.localPort[0], inbox.remotePort[0]], [1, 9, CLIENT_PORT]);
    inbox.clear();
    kit.finish();
  }
  t.end();
});
