/** What is larger than the way takes leaves in fragments. Behaviours 98, 99 and 111. */
import t from "tap";
import { DatagramResult } from "../../src/stack/flow/flow.ts";
import { drops, endWords, FAMILIES } from "./ip-kit.ts";
import {
  CLIENT,
  CLIENT_PORT,
  dissectFragment,
  type Family,
  icmpPacket,
  isStream,
  Kit,
  SERVER,
  streamBytes,
} from "./kit.ts";

const LARGEST: Readonly<Record<Family, number>> = { 4: 65_507, 6: 65_527 };

for (const family of FAMILIES) {
  const headers = family === 4 ? 20 : 48;
  const header = family === 4 ? 20 : 40;
  const offloads = [undefined, { checksum: true, tso: true, uso: true }];

  t.test(`IPv${family}: UDP datagrams of any size, MTU and offload come whole (RFC 791 §3.2, RFC 8200 §4.5)`, (t) => {
    for (const offload of offloads) {
      for (const mtu of [family === 4 ? 576 : 1280, 1280, 1499, 1500, 9000, 65_535]) {
        const kit = new Kit({ family, mtu, ...(offload === undefined ? {} : { offload }) });
        const block = kit.slab.take();
        const most = mtu - header - 8;
        for (const length of [most, most + 1, 2 * most, 8192, 20_001, 60_000, LARGEST[family]]) {
          if (length > LARGEST[family]) continue;
          kit.slab.bytes.set(streamBytes(1, length, length), block + 5);
          const sent = kit.stack.sendDatagram(endWords(family), 0, 53, 4, CLIENT_PORT, block + 5, length);
          t.equal(sent, DatagramResult.sent, `${length} bytes, MTU ${mtu}`);
          kit.take();
          const [packet, ...more] = kit.takeOut();
          t.equal(more.length, 0);
          t.same([packet?.source, packet?.destination], [SERVER[family], CLIENT[family]]);
          t.same([packet?.udp?.sourcePort, packet?.udp?.destinationPort], [53, CLIENT_PORT]);
          t.equal(packet?.udp?.payload.length, length);
          t.ok(isStream(1, length, packet?.udp?.payload ?? new Uint8Array(1)));
          const each = (mtu - headers) & ~7;
          const expected = length + 8 + header <= mtu ? undefined : Math.ceil((length + 8) / each);
          t.equal(packet?.fragments?.length, expected, `${length} bytes, MTU ${mtu}: fragments`);
        }
        t.equal(kit.slab.count(block), 1, "what was referred to is given back");
        t.same(drops(kit), {});
        kit.slab.release(block);
        kit.finish();
      }
    }
    t.end();
  });

  t.test(`IPv${family}: data is sent by reference, and held until it is written`, (t) => {
    const kit = new Kit({ family });
    const block = kit.slab.take();
    kit.slab.bytes.set(streamBytes(1, 0, 5000), block);
    kit.stack.sendDatagram(endWords(family), 0, 53, 4, CLIENT_PORT, block, 5000);
    t.equal(kit.stack.queue.count, 4);
    t.equal(kit.slab.count(block), 1 + 4);
    for (let i = 0; i < 4; i++) {
      const { descriptor, checksumStart, segmentSize } = kit.stack.queue;
      const at = descriptor[i] as number;
      t.same([kit.slab.words[at], checksumStart[i], segmentSize[i]], [2, 0, 0], "headers and one piece, complete");
      const piece = kit.slab.words[at + 3] as number;
      t.ok(piece >= block && piece < block + 5000);
    }
    kit.take();
    t.equal(kit.slab.count(block), 1);
    kit.takeOut();
    kit.slab.release(block);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: a checksum that comes out as zero is sent as ones (RFC 768)`, (t) => {
    const kit = new Kit({ family });
    const block = kit.slab.take();
    kit.slab.bytes.set(streamBytes(1, 0, 3000), block);
    kit.slab.bytes.fill(0, block, block + 2);
    const send = (): Uint8Array => {
      kit.stack.sendDatagram(endWords(family), 0, 53, 4, CLIENT_PORT, block, 3000);
      kit.take();
      return kit.takeOut()[0]?.l4 ?? new Uint8Array(8);
    };
    kit.slab.bytes.set(send().subarray(6, 8), block);
    t.same([...send().subarray(6, 8)], [0xff, 0xff]);
    kit.slab.release(block);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: identifications differ and cannot be guessed (RFC 6864 §4.3, RFC 7739 §3)`, (t) => {
    const ids = (seed: number, count: number): number[] => {
      const kit = new Kit({ family, seed });
      const block = kit.slab.take();
      const result: number[] = [];
      for (let i = 0; i < count; i++) {
        kit.stack.sendDatagram(endWords(family), 0, 53, 4, CLIENT_PORT, block, 2000);
        kit.take();
        const [packet] = kit.takeOut();
        const own = new Set(packet?.fragments?.map(({ id }) => id));
        if (own.size !== 1) throw new Error("one datagram, several identifications");
        result.push(...own);
      }
      kit.slab.release(block);
      kit.finish();
      return result;
    };
    const first = ids(1, 3000);
    t.equal(new Set(first).size, 3000);
    t.notSame(first.slice(0, 20), ids(2, 20));
    const steps = new Set(first.slice(1).map((id, i) => id - (first[i] as number)));
    t.ok(steps.size > 2900, `${steps.size} different distances of 2999`);
    t.notOk(first.includes(0));
    t.end();
  });

  t.test(`IPv${family}: a queue without room for all takes none`, (t) => {
    const kit = new Kit({ family, manual: true });
    const block = kit.slab.take();
    const send = (length: number): DatagramResult =>
      kit.stack.sendDatagram(endWords(family), 0, 53, 4, CLIENT_PORT, block, length);
    for (let i = 0; i < 1022; i++) send(10);
    t.equal(send(4000), DatagramResult.full);
    t.equal(kit.stack.queue.count, 1022);
    t.equal(send(2000), DatagramResult.sent);
    t.equal(send(2000), DatagramResult.full);
    kit.take();
    t.equal(kit.takeOut().length, 1023);
    t.equal(send(4000), DatagramResult.sent);
    kit.take();
    kit.takeOut();
    t.same(drops(kit), {});
    kit.slab.release(block);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: what IP cannot carry is too big`, (t) => {
    const kit = new Kit({ family, slabBytes: 4 << 20 });
    const block = kit.slab.take();
    const send = (length: number): DatagramResult =>
      kit.stack.sendDatagram(endWords(family), 0, 53, 4, CLIENT_PORT, block, length);
    t.equal(send(LARGEST[family]), DatagramResult.sent);
    t.equal(send(LARGEST[family] + 1), DatagramResult.tooBig);
    t.same(drops(kit), { udpLength: 1 });
    kit.take();
    kit.takeOut();
    kit.slab.release(block);
    kit.finish();
    t.end();
  });

  t.test(`IPv${family}: large echo is answered in fragments (RFC 1122 §3.2.2.6, RFC 4443 §4.2)`, (t) => {
    for (const offload of offloads) {
      const kit = new Kit({ family, ...(offload === undefined ? {} : { offload }) });
      for (const length of [1480 - (header - 12) + 1, 8000, 20_000, 65_535 - header - 8]) {
        kit.deliver(icmpPacket(family, family === 4 ? 8 : 128, 0, length, streamBytes(0, length, length)));
        const [reply] = kit.takeOut();
        t.equal(reply?.icmp?.rest, length);
        t.ok(isStream(0, length, reply?.icmp?.data ?? new Uint8Array(1)));
        const each = (1500 - headers) & ~7;
        t.equal(reply?.fragments?.length, length + 8 + header <= 1500 ? undefined : Math.ceil((length + 8) / each));
      }
      kit.finish();
    }
    t.end();
  });
}

t.test("a link of 68 bytes takes fragments as well, up to what the queue holds (RFC 791 §3.2)", (t) => {
  const kit = new Kit({ mtu: 68 });
  const block = kit.slab.take();
  kit.slab.bytes.set(streamBytes(1, 0, 65_507), block);
  const send = (length: number): DatagramResult =>
    kit.stack.sendDatagram(endWords(4), 0, 53, 4, CLIENT_PORT, block, length);
  t.equal(send(40_000), DatagramResult.sent);
  kit.take();
  const [packet] = kit.takeOut();
  t.equal(packet?.fragments?.length, Math.ceil(40_008 / 48));
  t.ok(isStream(1, 0, packet?.udp?.payload ?? new Uint8Array(1)));
  t.equal(send(65_507), DatagramResult.tooBig);
  kit.slab.release(block);
  kit.finish();
  t.end();
});

t.test("transmit() gives fragments out one by one, as any packet", (t) => {
  const kit = new Kit({ manual: true });
  const block = kit.slab.take();
  kit.stack.sendDatagram(endWords(4), 0, 53, 4, CLIENT_PORT, block, 4000);
  const offsets: (number | undefined)[] = [];
  for (let packet = kit.stack.transmit(); packet !== null; packet = kit.stack.transmit()) {
    offsets.push(dissectFragment(packet)?.offset);
  }
  t.same(offsets, [0, 1480, 2960]);
  kit.slab.release(block);
  kit.finish();
  t.end();
});
