// Real TUN devices and rtnetlink, in a network namespace of their own.
import { createSocket } from "node:dgram";
import t from "tap";
import { Epoll, Errno, errnoName, StreamFlag, TunFlag, TunOffload } from "../../src/io/addon.ts";
import { addonForTest, addressWords, Memory, until } from "./memory.ts";
import { inNamespace, skipOrFail } from "./namespace.ts";
import { linkBody, listLinks, NLM_F_ACK, netlinkMessage, netlinkRequest, RTM_NEWLINK, setUp } from "./rtnetlink.ts";

const VNET = 10;
const HERE = [10, 99, 0, 1] as const;
const THERE = [10, 99, 0, 2] as const;
const PLAIN = TunFlag.TUN | TunFlag.NO_PI;
const WITH_VNET = PLAIN | TunFlag.VNET_HDR;

const NAME = 0;
const DESC = 1024;
const META = 4096;
const DATA = 65536;
const SIZE = 1024 * 1024;

/** The internet checksum (RFC 1071) of `bytes`, on top of `sum`. */
function checksum(bytes: Uint8Array, sum = 0): number {
  for (const [i, byte] of bytes.entries()) sum += i % 2 === 0 ? byte << 8 : byte;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** An IPv4 header from THERE to HERE. */
function ipv4Header(protocol: number, payloadLen: number): Buffer {
  const header = Buffer.alloc(20);
  header[0] = 0x45;
  header.writeUInt16BE(20 + payloadLen, 2);
  header[8] = 64;
  header[9] = protocol;
  header.set(THERE, 12);
  header.set(HERE, 16);
  header.writeUInt16BE(checksum(header), 10);
  return header;
}

/** IPv4 and UDP headers from THERE to HERE. The UDP checksum is 0 (none) or what the vnet header asks for. */
function udpHeaders(port: number, payloadLen: number, udpSum: number): Buffer {
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(4000, 0);
  udp.writeUInt16BE(port, 2);
  udp.writeUInt16BE(8 + payloadLen, 4);
  udp.writeUInt16BE(udpSum, 6);
  return Buffer.concat([ipv4Header(17, 8 + payloadLen), udp]);
}

/** The folded, not inverted, pseudo-header sum from THERE to HERE. */
function pseudoSum(protocol: number, len: number): number {
  return ~checksum(Uint8Array.from([...THERE, ...HERE, 0, protocol, len >> 8, len & 255])) & 0xffff;
}

inNamespace(import.meta.url, () => {
  const addon = addonForTest();
  const memory = new Memory(addon, SIZE);
  memory.text(NAME, "");
  const probe = addon.tunOpen(memory.id, NAME, PLAIN);
  if (probe < 0) {
    skipOrFail("TUN devices", `opening the TUN device node gave ${errnoName(probe)}`);
    return;
  }
  addon.close(probe);
  setUp(addon, memory, "lo", []);

  /** Open a device with an address, up. */
  function device(name: string, flags: number): number {
    memory.text(NAME, name);
    const fd = addon.tunOpen(memory.id, NAME, flags);
    if (fd < 0) throw new Error(`tunOpen: ${errnoName(fd)}`);
    return fd;
  }

  /** Packets of the last tunRead that are IPv4 of one protocol (the kernel sends IPv6 chatter of its own). */
  function packets(count: number, skip: number, protocol: number): Buffer[] {
    return Array.from({ length: count }, (_, i) =>
      memory.slice(memory.word(META + 8 * i), memory.word(META + 8 * i + 4)),
    ).filter((packet) => (packet[skip] ?? 0) >> 4 === 4 && packet[skip + 9] === protocol);
  }

  t.test("tunOpen: names, flags and errors", (t) => {
    memory.text(NAME, "tst%d");
    const fd = addon.tunOpen(memory.id, NAME, WITH_VNET);
    t.ok(fd > 2);
    t.equal(memory.slice(NAME, 5).toString(), "tst0\0", "the kernel's name is written back");
    t.ok(listLinks(addon, memory).some((link) => link.name === "tst0"));
    memory.bytes.fill(0xff, NAME, NAME + 16);
    t.equal(addon.tunGetIff(fd, memory.id, NAME) & 0x5fff, WITH_VNET);
    t.equal(memory.slice(NAME, 5).toString(), "tst0\0");
    t.equal(addon.tunGetFeatures(fd) & WITH_VNET, WITH_VNET);

    memory.text(NAME, "tst0");
    t.equal(addon.tunOpen(memory.id, NAME, WITH_VNET), -Errno.EBUSY, "busy");
    memory.text(NAME, "lo");
    t.equal(addon.tunOpen(memory.id, NAME, PLAIN), -Errno.EINVAL, "not a TUN interface");
    memory.text(NAME, "a/b");
    t.equal(addon.tunOpen(memory.id, NAME, PLAIN), -Errno.EINVAL, "no interface name");

    for (const size of [10, 12, 20, 24]) t.equal(addon.tunSetVnetHdrSize(fd, size), 0);
    t.equal(addon.tunSetOffload(fd, TunOffload.TSO4), -Errno.EINVAL, "TSO without CSUM");
    t.equal(addon.tunSetOffload(fd, TunOffload.CSUM | TunOffload.TSO4 | TunOffload.TSO6), 0);
    t.equal(addon.tunSetOffload(fd, 0), 0);
    t.equal(addon.tunSetSendBuffer(fd, 1 << 20), 0);
    t.equal(addon.close(fd), 0);
    t.notOk(
      listLinks(addon, memory).some((link) => link.name === "tst0"),
      "gone with its descriptor",
    );
    t.end();
  });

  t.test("a TAP device and several queues", (t) => {
    const tap = device("tap7", TunFlag.TAP | TunFlag.NO_PI);
    t.equal(addon.tunGetIff(tap, memory.id, NAME) & 3, TunFlag.TAP);
    const flags = WITH_VNET | TunFlag.MULTI_QUEUE;
    const queues = [device("mq0", flags), device("mq0", flags), device("mq0", flags)];
    t.equal(new Set(queues).size, 3);
    t.equal(addon.tunOpen(memory.id, NAME, WITH_VNET), -Errno.EINVAL, "one queue of a multi-queue device");
    for (const fd of [tap, ...queues]) t.equal(addon.close(fd), 0);
    t.end();
  });

  t.test("tunSetPersist keeps the interface", (t) => {
    const fd = device("keep0", PLAIN);
    t.equal(addon.tunSetPersist(fd, 1), 0);
    t.equal(addon.close(fd), 0);
    t.ok(listLinks(addon, memory).some((link) => link.name === "keep0"));
    const again = device("keep0", PLAIN);
    t.equal(addon.tunSetPersist(again, 0), 0);
    t.equal(addon.close(again), 0);
    t.notOk(listLinks(addon, memory).some((link) => link.name === "keep0"));
    t.end();
  });

  t.test("tunRead packs what programs send, in order, each in its alignment", async (t) => {
    const fd = device("rd0", WITH_VNET);
    t.equal(addon.tunRead(fd, memory.id, DATA, SIZE, 2000, META, 64), 0, "interface down: nothing, and no error");
    setUp(addon, memory, "rd0", [[HERE, 24]]);
    t.equal(
      addon.pollerOpen(() => {}),
      0,
    );
    t.equal(addon.pollerAdd(fd, Epoll.IN, 7, -9), 0);
    const socket = createSocket("udp4");
    const send = (n: number) =>
      Promise.all(
        Array.from({ length: n }, (_, i) => {
          return new Promise<void>((done) => socket.send(Buffer.alloc(i + 1, i), 4001, THERE.join("."), () => done()));
        }),
      );
    await send(20);
    t.equal(addon.pollerWait(memory.id, META, 16, 1000), 1);
    t.strictSame([memory.word(META), memory.word(META + 4), memory.word(META + 8) & Epoll.IN], [7, -9, Epoll.IN]);

    // Phase 2: the IP header behind a 10-byte vnet header is then 4-byte aligned.
    const seen: Buffer[] = [];
    for (;;) {
      const n = addon.tunRead(fd, memory.id, DATA + 2, SIZE, 2000, META, 8);
      if (n <= 0) break;
      t.ok(n <= 8);
      for (let i = 0; i < n; i++) t.equal(memory.word(META + 8 * i) % 4, 2);
      for (let i = 1; i < n; i++) {
        const gap = memory.word(META + 8 * i) - memory.word(META + 8 * i - 8) - memory.word(META + 8 * i - 4);
        t.ok(gap >= 0 && gap < 4, "packed");
      }
      seen.push(...packets(n, VNET, 17));
    }
    t.strictSame(
      seen.map((packet) => packet.subarray(VNET + 28)),
      Array.from({ length: 20 }, (_, i) => Buffer.alloc(i + 1, i)),
    );

    await send(3);
    t.equal(addon.tunRead(fd, memory.id, DATA, DATA + 1999, 2000, META, 8), 0, "no room: nothing is read");
    let n = addon.tunRead(fd, memory.id, DATA, DATA + 2000, 2000, META, 8);
    t.equal(n, 1, "room for one");
    n += addon.tunRead(fd, memory.id, DATA, SIZE, 2000, META, 8);
    t.ok(n >= 3, "the rest is still there");
    socket.close();
    t.equal(addon.pollerClose(), 0);
    t.equal(addon.close(fd), 0);
  });

  t.test("tunWrite delivers gathered packets", async (t) => {
    const fd = device("wr0", WITH_VNET);
    setUp(addon, memory, "wr0", [[HERE, 24]]);
    const socket = createSocket("udp4");
    const got: Buffer[] = [];
    socket.on("message", (message) => got.push(message));
    await new Promise<void>((done) => socket.bind(0, HERE.join("."), done));
    const { port } = socket.address();

    // Three packets: in one piece, in three, and in 64 of which most are empty.
    const payloads = [Buffer.from("one"), Buffer.from("twotwo"), Buffer.from("three")];
    const list: number[] = [];
    let at = DATA;
    for (const [i, payload] of payloads.entries()) {
      const packet = Buffer.concat([Buffer.alloc(VNET), udpHeaders(port, payload.length, 0), payload]);
      memory.bytes.set(packet, at);
      if (i === 0) list.push(1, at, packet.length);
      if (i === 1) list.push(3, at, VNET, at + VNET, 28, at + VNET + 28, payload.length);
      if (i === 2) list.push(64, at, packet.length, ...Array.from({ length: 63 }, () => [SIZE, 0]).flat());
      at += 1024;
    }
    memory.put(DESC, list);
    t.equal(addon.tunWrite(fd, memory.id, DESC, list.length * 4, 3), 3);
    await until("three datagrams arrived", () => got.length === 3);
    t.strictSame(got.splice(0), payloads);

    // What precedes a bad entry is written.
    memory.put(DESC, [1, DATA, VNET + 28 + 3, 1, SIZE, 1]);
    t.equal(addon.tunWrite(fd, memory.id, DESC, 24, 2), 1);
    memory.put(DESC, [1, DATA, VNET + 28 + 3, 65]);
    t.equal(addon.tunWrite(fd, memory.id, DESC, 16, 2), 1);
    await until("two datagrams arrived", () => got.length === 2);
    got.length = 0;

    memory.put(DESC, [1, DATA, 4]);
    t.equal(addon.tunWrite(fd, memory.id, DESC, 12, 1), -Errno.EINVAL, "too short for the kernel");
    memory.put(DESC, [1, DATA, 0]);
    t.equal(addon.tunWrite(fd, memory.id, DESC, 12, 1), -Errno.EINVAL, "empty");
    t.equal(addon.tunWrite(fd, memory.id, DESC, 12, 0), 0, "none");

    // Segmentation offload: one write, five datagrams of 1000 bytes and one of 500.
    if (addon.tunSetOffload(fd, 0x67) === 0) {
      const len = 5500;
      const vnet = Buffer.from([1, 5, 28, 0, 0, 0, 20, 0, 6, 0]);
      vnet.writeUInt16LE(1000, 4);
      const payload = Buffer.from(Uint8Array.from({ length: len }, (_, i) => i / 1000));
      memory.bytes.set(Buffer.concat([vnet, udpHeaders(port, len, pseudoSum(17, 8 + len)), payload]), DATA);
      memory.put(DESC, [1, DATA, VNET + 28 + len]);
      t.equal(addon.tunWrite(fd, memory.id, DESC, 12, 1), 1);
      await until("six datagrams arrived", () => got.length === 6);
      t.strictSame(got.map((message) => [message.length, message[0]]).slice(4), [
        [1000, 4],
        [500, 5],
      ]);
    } else {
      t.comment("this kernel has no UDP segmentation offload for TUN (Linux 6.2 has)");
    }
    socket.close();
    t.equal(addon.close(fd), 0);
  });

  t.test("TCP segmentation offload: reads bring super-segments, and a FIN rides on the last data", async (t) => {
    const fd = device("tso0", WITH_VNET);
    t.equal(addon.tunSetVnetHdrSize(fd, VNET), 0);
    t.equal(addon.tunSetOffload(fd, TunOffload.CSUM | TunOffload.TSO4 | TunOffload.TSO6), 0);
    setUp(addon, memory, "tso0", [[HERE, 24]]);

    memory.put(DESC, [4, 80, ...addressWords(THERE), 0, 0, -1, -1, 0, 0, 0, 9, 9]);
    const socket = addon.tcpConnect(memory.id, DESC);
    t.ok(socket > 2);
    t.strictSame([memory.word(DESC + 52), memory.word(DESC + 56)], [0, 0], "nothing sent, not connected");

    /** The TCP packets the kernel has for us. */
    const read = () => packets(addon.tunRead(fd, memory.id, DATA, SIZE, 66_000, META, 8), VNET, 6);
    const [syn] = read();
    if (syn === undefined) throw new Error("No SYN");
    t.equal(syn[VNET + 33], 2, "SYN");

    // Answer it: SYN-ACK, MSS 1000, a wide window, the checksum left to the kernel.
    const tcp = Buffer.alloc(24);
    syn.copy(tcp, 0, VNET + 22, VNET + 24);
    syn.copy(tcp, 2, VNET + 20, VNET + 22);
    tcp.writeUInt32BE(1, 4);
    tcp.writeUInt32BE((syn.readUInt32BE(VNET + 24) + 1) >>> 0, 8);
    tcp.set([0x60, 0x12, 0xff, 0xff], 12);
    tcp.writeUInt16BE(pseudoSum(6, 24), 16);
    tcp.set([2, 4, 1000 >> 8, 1000 & 255], 20);
    memory.bytes.set(Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 20, 0, 16, 0]), ipv4Header(6, 24), tcp]), DATA);
    memory.put(DESC, [1, DATA, VNET + 44]);
    t.equal(addon.tunWrite(fd, memory.id, DESC, 12, 1), 1);
    t.equal(addon.socketError(socket), 0);
    read(); // the ACK

    memory.bytes.fill(5, DATA, DATA + 5500);
    memory.put(DESC, [socket, StreamFlag.SHUTDOWN, 2, 0, DATA, 5000, DATA + 5000, 500]);
    t.equal(addon.streamWrite(memory.id, DESC, 32, 1), 1);
    t.equal(memory.word(DESC + 12), 5500, "all taken");
    const tcpOf = (packet: Buffer) => packet.subarray(VNET + 20);
    const payloadOf = (packet: Buffer) => tcpOf(packet).subarray(((tcpOf(packet)[12] ?? 0) >> 4) * 4);
    const sent: Buffer[] = [];
    const hasFin = (packet: Buffer) => ((tcpOf(packet)[13] ?? 0) & 1) === 1;
    await until("the FIN came", () => {
      sent.push(...read());
      return sent.some(hasFin);
    });
    t.ok(sent.some((packet) => payloadOf(packet).length > 1000 && packet[1] === 1 && packet.readUInt16LE(4) === 1000));
    t.equal(
      sent.reduce((sum, packet) => sum + payloadOf(packet).length, 0),
      5500,
    );
    const fins = sent.filter(hasFin);
    t.equal(fins.length, 1);
    t.ok(payloadOf(fins[0] ?? Buffer.alloc(VNET + 40)).length > 0, "the FIN carries data");
    t.equal(sent.at(-1), fins[0], "and is the last segment");
    t.equal(addon.socketReset(socket), 0);
    const [rst] = read();
    t.equal((rst?.[VNET + 33] ?? 0) & 4, 4, "RST");
    t.equal(addon.close(fd), 0);
  });

  t.test("a removed interface is an error on read", async (t) => {
    const fd = device("gone0", PLAIN);
    const index = listLinks(addon, memory).find((link) => link.name === "gone0")?.index ?? 0;
    const RTM_DELLINK = 17;
    t.equal(netlinkRequest(addon, memory, netlinkMessage(RTM_DELLINK, NLM_F_ACK, linkBody(index, 0, 0))), 0);
    t.equal(errnoName(addon.tunRead(fd, memory.id, DATA, SIZE, 2000, META, 8)), "EBADFD");
    memory.put(DESC, [1, DATA, 64]);
    t.equal(errnoName(addon.tunWrite(fd, memory.id, DESC, 12, 1)), "EBADFD");
    t.equal(addon.close(fd), 0);
  });

  t.test("netlink: dump, acknowledgement, refusal, small buffer", (t) => {
    const links = listLinks(addon, memory);
    t.ok(
      links.some((link) => link.name === "lo" && (link.flags & 1) === 1),
      "lo is there and up",
    );
    const refused = netlinkRequest(addon, memory, netlinkMessage(RTM_NEWLINK, NLM_F_ACK, linkBody(9999, 1, 1)));
    t.equal(refused, -Errno.ENODEV, "the error stands in the acknowledgement");
    const request = netlinkMessage(18, 0, linkBody(1, 0, 0));
    memory.bytes.set(request, 0);
    const n = addon.netlink(memory.id, 0, request.length, 8192);
    t.ok(n > 32, "a plain request gets one datagram");
    t.equal(memory.view.getUint16(4, true), RTM_NEWLINK);
    memory.bytes.set(request, 0);
    t.equal(addon.netlink(memory.id, 0, request.length, 64), -Errno.ENOBUFS);

    // Two requests in one call, each acknowledged: the second one is waited for.
    const two = Buffer.concat([1, 9999].map((i) => netlinkMessage(RTM_NEWLINK, NLM_F_ACK, linkBody(i, 1, 1))));
    memory.bytes.set(two, 0);
    const len = addon.netlink(memory.id, 0, two.length, 8192);
    const first = memory.view.getUint32(0, true);
    t.equal(memory.view.getInt32(16, true), 0);
    t.equal(memory.view.getInt32(((first + 3) & ~3) + 16, true), -Errno.ENODEV);
    t.ok(len > first);
    t.end();
  });
});
