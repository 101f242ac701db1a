/** IP input, ICMP and UDP: what is answered, delivered or dropped, and counted. Behaviours 91, 92, 107, 111 to 121. */
import t from "tap";
import { DatagramResult } from "../../src/stack/flow/flow.ts";
import { addressWords, drops, endWords, FAMILIES } from "./ip-kit.ts";
import {
  CLIENT,
  CLIENT_PORT,
  Flag,
  icmpPacket,
  ipPacket,
  isStream,
  Kit,
  plainSum,
  SERVER,
  streamBytes,
  tcpPacket,
  tcpSegment,
  udpPacket,
} from "./kit.ts";

t.test("echo (RFC 1122 §3.2.2.6, RFC 4443 §4.2)", async (t) => {
  for (const family of FAMILIES) {
    t.test(`IPv${family}: identifier, sequence number and data come back, ends swapped`, (t) => {
      const kit = new Kit({ family });
      for (const length of [0, 1, 2, 3, 56, 57, 999, 1472, 8000, 65_535 - 48]) {
        const data = streamBytes(0, length, length);
        t.equal(kit.deliver(icmpPacket(family, family === 4 ? 8 : 128, 0, 0xabcd0000 + length, data)), true);
        const [reply, ...more] = kit.takeOut();
        t.equal(more.length, 0);
        t.same([reply?.icmp?.type, reply?.icmp?.code], [family === 4 ? 0 : 129, 0]);
        t.equal(reply?.icmp?.rest, 0xabcd0000 + length);
        t.equal(reply?.icmp?.data.length, length);
        t.equal(isStream(0, length, reply?.icmp?.data ?? new Uint8Array(1)), true);
        t.same(reply?.source, SERVER[family]);
        t.same(reply?.destination, CLIENT[family]);
      }
      t.same(drops(kit), {});
      kit.finish();
      t.end();
    });

    t.test(`IPv${family}: other messages have no answer and are counted`, (t) => {
      const kit = new Kit({ family });
      const echo = family === 4 ? 8 : 128;
      for (let type = 0; type < 256; type++) {
        if (type !== echo) t.equal(kit.deliver(icmpPacket(family, type, 0, 1, new Uint8Array(40))), false);
      }
      for (const code of [1, 255]) t.equal(kit.deliver(icmpPacket(family, echo, code, 1, new Uint8Array(8))), false);
      // Packet too big for nothing that was sent.
      const counted = family === 4 ? { icmpType: 257 } : { icmpType: 256, icmpIgnored: 1 };
      t.same(drops(kit), counted);
      t.equal(kit.deliver(icmpPacket(family, echo, 0, 1, new Uint8Array(8), 0x1234)), false);
      t.same(drops(kit), { ...counted, icmpChecksum: 1 });
      t.equal(kit.out.length, 0);
      kit.finish();
      t.end();
    });

    t.test(`IPv${family}: messages cut at every byte, with and without the header's length following`, (t) => {
      const kit = new Kit({ family });
      const whole = icmpPacket(family, family === 4 ? 3 : 1, 1, 0, streamBytes(0, 0, 60));
      for (let length = 0; length < whole.length; length++) {
        t.equal(kit.deliver(whole.slice(0, length)), false);
        const message = streamBytes(0, 0, length);
        const ip = { source: CLIENT[family], destination: SERVER[family], protocol: family === 4 ? 1 : 58 };
        t.equal(kit.deliver(ipPacket(ip, message)), false);
      }
      t.equal(kit.out.length, 0);
      t.equal(drops(kit)["icmpTruncated"], 8);
      kit.finish();
      t.end();
    });
  }

  t.test("a full queue drops the answer", (t) => {
    const kit = new Kit({ manual: true });
    for (let i = 0; i < 1100; i++) kit.deliver(icmpPacket(4, 8, 0, i, new Uint8Array(8)));
    t.same(drops(kit), { transmitQueueFull: 76 });
    kit.take();
    t.equal(kit.takeOut().length, 1024);
    kit.finish();
    t.end();
  });
});

t.test("UDP from clients (RFC 768, RFC 1122 §4.1)", async (t) => {
  for (const family of FAMILIES) {
    t.test(`IPv${family}: ends and payload reach the owner, also after the caller's buffer changed`, (t) => {
      const kit = new Kit({ family });
      const lengths = [0, 1, 2, 512, 1472, 65_507 - (family === 4 ? 0 : 20)];
      for (const length of lengths) {
        t.equal(
          kit.deliver(udpPacket(family, streamBytes(0, length, length), { destinationPort: 53 + (length % 2) })),
          true,
        );
      }
      const { inbox } = kit.stack;
      t.equal(inbox.count, lengths.length);
      lengths.forEach((length, i) => {
        const at = inbox.addressesAt(i);
        t.same([...inbox.addresses.slice(at, at + 4)], addressWords(CLIENT[family]), "remote");
        t.same([...inbox.addresses.slice(at + 4, at + 8)], addressWords(SERVER[family]), "local");
        t.same([inbox.remotePort[i], inbox.localPort[i], inbox.length[i]], [CLIENT_PORT, 53 + (length % 2), length]);
        const offset = inbox.offset[i] ?? 0;
        t.equal(isStream(0, length, kit.slab.bytes.slice(offset, offset + length)), true);
      });
      inbox.clear();
      t.equal(inbox.count, 0);
      kit.finish();
      t.end();
    });

    const zero = family === 4;
    t.test(`IPv${family}: checksums`, (t) => {
      const kit = new Kit({ family });
      const payload = streamBytes(0, 0, 11);
      t.equal(kit.deliver(udpPacket(family, payload, { checksum: 0 })), zero, "none (RFC 768, RFC 8200 §8.1)");
      t.equal(kit.deliver(udpPacket(family, payload, { checksum: 0x1234 })), false, "wrong");
      t.equal(drops(kit)["udpChecksum"], zero ? 1 : 2);
      t.equal(kit.deliverReference(udpPacket(family, payload, { checksum: 0x1234 }), 0), true, "the device vouches");
      t.equal(kit.deliverReference(udpPacket(family, payload, { checksum: 0 }), 0), true, "the device vouches");
      t.equal(kit.deliverReference(udpPacket(family, payload, { checksum: 0x1234 }), 0, false), false);
      kit.stack.inbox.clear();
      kit.finish();
      t.end();
    });

    t.test(`IPv${family}: lengths and ports`, (t) => {
      const kit = new Kit({ family });
      const payload = streamBytes(0, 0, 20);
      const rows: readonly [string, Uint8Array, number][] = [
        ["length 0", udpPacket(family, payload, { length: 0 }), -1],
        ["length 7", udpPacket(family, payload, { length: 7 }), -1],
        ["one more than there is", udpPacket(family, payload, { length: 29 }), -1],
        ["65,535", udpPacket(family, payload, { length: 65_535 }), -1],
        ["padding behind the datagram is cut", udpPacket(family, payload, {}, {}, 9), 20],
        ["empty", udpPacket(family, new Uint8Array(0)), 0],
        ["empty with padding", udpPacket(family, new Uint8Array(0), {}, {}, 5), 0],
        ["source port 0", udpPacket(family, payload, { sourcePort: 0 }), 20],
        ["destination port 0", udpPacket(family, payload, { destinationPort: 0 }), -1],
        [
          "no header",
          ipPacket({ source: CLIENT[family], destination: SERVER[family], protocol: 17 }, payload.slice(0, 7)),
          -1,
        ],
      ];
      for (const [name, packet, length] of rows) {
        t.equal(kit.deliver(packet), length >= 0, name);
        t.equal(kit.stack.inbox.count, length >= 0 ? 1 : 0, name);
        if (length >= 0) t.equal(kit.stack.inbox.length[0], length, name);
        kit.stack.inbox.clear();
      }
      t.same(drops(kit), { udpLength: 4, udpPort: 1, udpTruncated: 1 });
      kit.finish();
      t.end();
    });

    t.test(`IPv${family}: a super-datagram is split into what was sent`, (t) => {
      const kit = new Kit({ family });
      const rows = [
        { length: 2500, size: 1000, parts: [1000, 1000, 500] },
        { length: 2000, size: 1000, parts: [1000, 1000] },
        { length: 999, size: 1000, parts: [999] },
        { length: 3, size: 1, parts: [1, 1, 1] },
        { length: 0, size: 1000, parts: [0] },
      ];
      for (const { length, size, parts } of rows) {
        // The length field is that of the whole, or of the first part, or nothing: it is not looked at.
        for (const field of [8 + length, 8 + size, 0]) {
          t.equal(kit.deliverReference(udpPacket(family, streamBytes(0, 0, length), { length: field }), size), true);
          const { inbox } = kit.stack;
          t.same([...inbox.length.slice(0, inbox.count)], parts);
          let at = 0;
          for (let i = 0; i < inbox.count; i++) {
            const offset = inbox.offset[i] ?? 0;
            const part = parts[i] ?? 0;
            t.equal(isStream(0, at, kit.slab.bytes.slice(offset, offset + part)), true);
            at += part;
          }
          inbox.clear();
        }
      }
      kit.finish();
      t.end();
    });
  }

  t.test("the inbox is bounded", (t) => {
    const kit = new Kit();
    for (let i = 0; i < 8196; i++) kit.deliver(udpPacket(4, streamBytes(0, 0, 1)));
    t.equal(kit.stack.inbox.count, 8192);
    t.same(drops(kit), { udpQueueFull: 4 });
    kit.deliverReference(udpPacket(4, new Uint8Array(100)), 10);
    t.same(drops(kit), { udpQueueFull: 5 });
    kit.finish();
    t.end();
  });

  t.test("an empty datagram at the very end of a block holds its own block", (t) => {
    const kit = new Kit();
    const block = kit.slab.take();
    const next = kit.slab.take();
    const packet = udpPacket(4, new Uint8Array(0));
    const end = Math.min(block, next) + (1 << 18);
    kit.slab.bytes.set(packet, end - packet.length);
    const counts = [kit.slab.count(block), kit.slab.count(next)];
    t.equal(kit.stack.receiveReference(end - packet.length, end, true, 0, kit.now), true);
    t.equal(kit.slab.count(end - 1), 2);
    t.equal(kit.slab.count(end), kit.slab.count(end) === 0 ? 0 : 1);
    kit.stack.inbox.clear();
    t.same([kit.slab.count(block), kit.slab.count(next)], counts);
    kit.slab.release(block);
    kit.slab.release(next);
    kit.finish();
    t.end();
  });
});

t.test("UDP to clients", async (t) => {
  for (const family of FAMILIES) {
    t.test(`IPv${family}: from where the client sent to, by reference, up to the MTU`, (t) => {
      const kit = new Kit({ family });
      const words = endWords(family);
      const most = 1500 - (family === 4 ? 28 : 48);
      const block = kit.slab.take();
      for (const length of [0, 1, 2, 999, most]) {
        kit.slab.bytes.set(streamBytes(1, length, length), block + 3);
        const result = kit.stack.sendDatagram(words, 0, 53, 4, CLIENT_PORT, block + 3, length);
        t.equal(result, DatagramResult.sent);
        t.equal(kit.slab.count(block), length > 0 ? 2 : 1, "held until it is written");
        kit.take();
        t.equal(kit.slab.count(block), 1);
        const [packet] = kit.takeOut();
        t.same([packet?.source, packet?.destination], [SERVER[family], CLIENT[family]]);
        t.same([packet?.udp?.sourcePort, packet?.udp?.destinationPort], [53, CLIENT_PORT]);
        t.equal(packet?.udp?.payload.length, length);
        t.equal(isStream(1, length, packet?.udp?.payload ?? new Uint8Array(1)), true);
      }
      // What lies between leaves in fragments.
      const tooMuch = family === 4 ? 65_508 : 65_528;
      t.equal(kit.stack.sendDatagram(words, 0, 53, 4, CLIENT_PORT, block, tooMuch), DatagramResult.tooBig);
      t.equal(kit.stack.sendDatagram(words, 0, 53, 4, CLIENT_PORT, block, 200_000), DatagramResult.tooBig);
      t.same(drops(kit), { udpLength: 2 });
      kit.slab.release(block);
      kit.finish();
      t.end();
    });

    t.test(`IPv${family}: a checksum that comes out as zero is sent as ones (RFC 768)`, (t) => {
      const kit = new Kit({ family });
      const words = endWords(family);
      const block = kit.slab.take();
      kit.slab.bytes.fill(0, block, block + 2);
      kit.stack.sendDatagram(words, 0, 53, 4, CLIENT_PORT, block, 2);
      kit.take();
      const first = kit.takeOut()[0]?.l4 ?? new Uint8Array(8);
      kit.slab.bytes.set(first.subarray(6, 8), block);
      kit.stack.sendDatagram(words, 0, 53, 4, CLIENT_PORT, block, 2);
      kit.take();
      t.same([...(kit.takeOut()[0]?.l4.subarray(6, 8) ?? [])], [0xff, 0xff]);
      kit.slab.release(block);
      kit.finish();
      t.end();
    });

    t.test(`IPv${family}: the device completes the checksum when it offers to`, (t) => {
      const kit = new Kit({ family, offload: { checksum: true, tso: true, uso: true } });
      const block = kit.slab.take();
      kit.slab.bytes.set(streamBytes(1, 0, 100), block);
      kit.stack.sendDatagram(endWords(family), 0, 53, 4, CLIENT_PORT, block, 100);
      const { queue } = kit.stack;
      t.same([queue.checksumStart[0], queue.checksumOffset[0], queue.segmentSize[0]], [family === 4 ? 20 : 40, 6, 0]);
      kit.take();
      t.equal(kit.takeOut()[0]?.udp?.payload.length, 100);
      // ICMP is always complete.
      kit.deliver(icmpPacket(family, family === 4 ? 8 : 128, 0, 1, streamBytes(0, 0, 9)));
      t.equal(kit.takeOut()[0]?.icmp?.data.length, 9);
      kit.slab.release(block);
      kit.finish();
      t.end();
    });

    t.test(`IPv${family}: port unreachable quotes the datagram's ends (RFC 792, RFC 4443 §3.1)`, (t) => {
      const kit = new Kit({ family });
      t.equal(kit.stack.sendPortUnreachable(endWords(family), 0, 53, 4, CLIENT_PORT, 100, kit.now), true);
      kit.take();
      const [packet] = kit.takeOut();
      const { icmp } = packet ?? {};
      t.same([icmp?.type, icmp?.code, icmp?.rest], family === 4 ? [3, 3, 0] : [1, 4, 0]);
      t.same([packet?.source, packet?.destination], [SERVER[family], CLIENT[family]]);
      const quote = icmp?.data ?? new Uint8Array(48);
      const view = new DataView(quote.buffer, quote.byteOffset, quote.length);
      const header = family === 4 ? 20 : 40;
      t.equal(quote.length, header + 8);
      if (family === 4) {
        t.equal(plainSum(quote.subarray(0, 20)), 0xffff, "the quoted header has its checksum");
        t.same([view.getUint16(2), quote[9]], [128, 17]);
      } else t.same([view.getUint16(4), quote[6]], [108, 17]);
      t.same([...quote.slice(family === 4 ? 12 : 8, header)], [...CLIENT[family], ...SERVER[family]]);
      t.same([view.getUint16(header), view.getUint16(header + 2), view.getUint16(header + 4)], [CLIENT_PORT, 53, 108]);
      let sent = 1;
      for (let i = 0; i < 1500; i++) {
        if (kit.stack.sendPortUnreachable(endWords(family), 0, 53, 4, CLIENT_PORT, 65_507, kit.now)) sent++;
        kit.take();
      }
      t.ok(sent > 450 && sent < 550, `the rate limit of ICMP errors to one client (RFC 4443 §2.4 f): ${sent}`);
      t.equal(drops(kit)["icmpRateLimit"], 1501 - sent);
      kit.takeOut();
      kit.finish();
      t.end();
    });
  }

  t.test("a full queue is told; after close() nothing is touched", (t) => {
    const kit = new Kit({ manual: true });
    const words = endWords(4);
    const block = kit.slab.take();
    for (let i = 0; i < 1024; i++) {
      t.equal(kit.stack.sendDatagram(words, 0, 53, 4, CLIENT_PORT, block, 10), DatagramResult.sent);
    }
    t.equal(kit.stack.sendDatagram(words, 0, 53, 4, CLIENT_PORT, block, 10), DatagramResult.full);
    kit.stack.queue.clear();
    kit.stack.close();
    const before = kit.slab.bytes.slice(0, 4 << 18);
    t.equal(kit.stack.sendDatagram(words, 0, 53, 4, CLIENT_PORT, block, 10), DatagramResult.sent);
    t.equal(kit.stack.sendPortUnreachable(words, 0, 53, 4, CLIENT_PORT, 10, kit.now), false);
    t.same([kit.slab.bytes.slice(0, 4 << 18).every((byte, i) => byte === before[i]), drops(kit)["closed"]], [true, 2]);
    kit.slab.release(block);
    kit.finish();
    t.end();
  });
});

t.test("IPv4 headers (RFC 791, RFC 1122 §3.2.1)", async (t) => {
  const ends = { source: CLIENT[4], destination: SERVER[4], protocol: 6 };
  const syn = (): Uint8Array => tcpSegment({ seq: 1, flags: Flag.S }, CLIENT[4], SERVER[4]);
  const withOptions = (...options: number[]): Uint8Array =>
    ipPacket({ ...ends, options: Uint8Array.from(options) }, syn());
  const extended = (packet: Uint8Array, bytes: number): Uint8Array => {
    const longer = new Uint8Array(packet.length + bytes).fill(0x55);
    longer.set(packet);
    return longer;
  };
  const rows: readonly { name: string; packet: Uint8Array; drop: string }[] = [
    { name: "as it should be", packet: ipPacket(ends, syn()), drop: "" },
    { name: "trailing bytes are cut", packet: extended(ipPacket(ends, syn()), 30), drop: "" },
    { name: "TTL 0 and 1 are taken (RFC 1122 §3.2.1.7)", packet: ipPacket({ ...ends, ttl: 0 }, syn()), drop: "" },
    { name: "nothing", packet: new Uint8Array(0), drop: "ipTruncated" },
    { name: "one byte", packet: Uint8Array.of(0x45), drop: "ipTruncated" },
    { name: "19 bytes", packet: ipPacket(ends, syn()).slice(0, 19), drop: "ipTruncated" },
    { name: "version 5", packet: ipPacket({ ...ends, version: 5 }, syn()), drop: "ipVersion" },
    { name: "version 0", packet: ipPacket({ ...ends, version: 0 }, syn()), drop: "ipVersion" },
    {
      name: "version 6 in a short IPv4 packet",
      packet: ipPacket({ ...ends, version: 6 }, new Uint8Array(8)),
      drop: "ipTruncated",
    },
    { name: "IHL 4", packet: ipPacket({ ...ends, headerWords: 4 }, syn()), drop: "ipHeaderLength" },
    { name: "IHL 0", packet: ipPacket({ ...ends, headerWords: 0 }, syn()), drop: "ipHeaderLength" },
    { name: "IHL beyond the packet", packet: ipPacket({ ...ends, headerWords: 15 }, syn()), drop: "ipHeaderLength" },
    { name: "total length 0 (TSO habit)", packet: ipPacket({ ...ends, length: 0 }, syn()), drop: "ipTotalLength" },
    { name: "total length below the header", packet: ipPacket({ ...ends, length: 19 }, syn()), drop: "ipTotalLength" },
    { name: "total length beyond the packet", packet: ipPacket({ ...ends, length: 41 }, syn()), drop: "ipTotalLength" },
    {
      name: "total length cuts the TCP header",
      packet: ipPacket({ ...ends, length: 39 }, syn()),
      drop: "tcpTruncated",
    },
    { name: "header checksum", packet: ipPacket({ ...ends, checksum: 0x1234 }, syn()), drop: "ipChecksum" },
    { name: "reserved flag alone is no fragment", packet: ipPacket({ ...ends, fragment: 0x8000 }, syn()), drop: "" },
    { name: "options: NOP, end, garbage behind the end", packet: withOptions(1, 1, 0, 131), drop: "" },
    {
      name: "record route and timestamp are ignored",
      packet: withOptions(7, 7, 4, 0, 0, 0, 0, 68, 4, 5, 0, 0),
      drop: "",
    },
    { name: "router alert is ignored", packet: withOptions(148, 4, 0, 0), drop: "" },
    { name: "an unknown option is ignored", packet: withOptions(200, 3, 9, 1), drop: "" },
    {
      name: "loose source route (RFC 7126 §4.3)",
      packet: withOptions(131, 7, 4, 1, 2, 3, 4, 0),
      drop: "ipSourceRoute",
    },
    { name: "strict source route (RFC 7126 §4.4)", packet: withOptions(137, 3, 4, 0), drop: "ipSourceRoute" },
    { name: "source route behind others", packet: withOptions(1, 7, 4, 4, 0, 131, 3, 4), drop: "ipSourceRoute" },
    { name: "option length 0", packet: withOptions(7, 0, 0, 0), drop: "ipHeaderLength" },
    { name: "option length 1", packet: withOptions(7, 1, 0, 0), drop: "ipHeaderLength" },
    { name: "option length 255", packet: withOptions(7, 255, 4, 0), drop: "ipHeaderLength" },
    { name: "option one byte too long", packet: withOptions(7, 5, 4, 0), drop: "ipHeaderLength" },
    { name: "option without a length", packet: withOptions(1, 1, 1, 7), drop: "ipHeaderLength" },
    { name: "forty bytes of options", packet: withOptions(...new Array<number>(40).fill(1)), drop: "" },
  ];
  for (const { name, packet, drop } of rows) {
    t.test(name, (t) => {
      const kit = new Kit();
      t.equal(kit.deliver(packet), drop === "");
      t.same(drops(kit), drop === "" ? {} : { [drop]: 1 });
      t.equal(kit.flows.length, drop === "" ? 1 : 0);
      t.equal(kit.out.length, 0, "no answer");
      kit.finish();
      t.end();
    });
  }
});

t.test("IPv6 headers (RFC 8200)", async (t) => {
  const ends = { source: CLIENT[6], destination: SERVER[6], protocol: 6 };
  const syn = (): Uint8Array => tcpSegment({ seq: 1, flags: Flag.S }, CLIENT[6], SERVER[6]);
  const trailing = new Uint8Array(100);
  trailing.set(ipPacket(ends, syn()));
  const rows: readonly { name: string; packet: Uint8Array; drop: string }[] = [
    { name: "as it should be", packet: ipPacket(ends, syn()), drop: "" },
    { name: "trailing bytes are cut", packet: trailing, drop: "" },
    { name: "hop limit 0", packet: ipPacket({ ...ends, ttl: 0 }, syn()), drop: "" },
    { name: "39 bytes", packet: ipPacket(ends, syn()).slice(0, 39), drop: "ipTruncated" },
    { name: "payload length one too many", packet: ipPacket({ ...ends, length: 21 }, syn()), drop: "ipTotalLength" },
    { name: "payload length 65,535", packet: ipPacket({ ...ends, length: 65_535 }, syn()), drop: "ipTotalLength" },
    { name: "payload length 0", packet: ipPacket({ ...ends, length: 0 }, syn()), drop: "tcpTruncated" },
    {
      name: "payload length cuts the TCP header",
      packet: ipPacket({ ...ends, length: 19 }, syn()),
      drop: "tcpTruncated",
    },
  ];
  for (const { name, packet, drop } of rows) {
    t.test(name, (t) => {
      const kit = new Kit({ family: 6 });
      t.equal(kit.deliver(packet), drop === "");
      t.same(drops(kit), drop === "" ? {} : { [drop]: 1 });
      t.equal(kit.flows.length, drop === "" ? 1 : 0);
      t.equal(kit.out.length, 0, "no answer");
      kit.finish();
      t.end();
    });
  }
});

t.test("receive() refuses what does not fit, and copies the rest", (t) => {
  const kit = new Kit();
  t.equal(kit.stack.receive(new Uint8Array((1 << 18) + 1), kit.now), false);
  t.same(drops(kit), { ipTruncated: 1 });
  const packet = tcpPacket(4, { seq: 1, flags: Flag.S });
  t.equal(kit.stack.receive(packet, kit.now), true);
  t.equal(kit.stack.stats().packetsIn, 1);
  kit.drain();
  kit.finish();
  t.end();
});
