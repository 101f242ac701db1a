/** IPv6 extension headers, and protocols that nobody speaks. Behaviours 101 to 103, 106, 107 and 122. */
import t from "tap";
import { concat, drops, fragment } from "./ip-kit.ts";
import { CLIENT, Flag, ipPacket, Kit, type Packet, SERVER, streamBytes, tcpSegment, udpPacket } from "./kit.ts";

const HOP_BY_HOP = 0;
const TCP = 6;
const UDP = 17;
const ROUTING = 43;
const FRAGMENT = 44;
const ESP = 50;
const AH = 51;
const ICMPV6 = 58;
const NO_NEXT = 59;
const DESTINATION = 60;

type Bytes = readonly number[];
/** A header to come: its type, and its bytes once the type of the next is known. */
type Header = readonly [type: number, bytes: (next: number) => Bytes];

/** Options padded to a multiple of 8 with PadN, in headers of at most 7 bytes of it. */
function options(type: number, ...bytes: number[]): Header {
  const padded = [...bytes];
  const missing = (14 - padded.length) % 8;
  const short = missing < 0 ? missing + 8 : missing;
  if (short === 1) padded.push(0);
  else if (short > 1) padded.push(1, short - 2, ...new Array<number>(short - 2).fill(0));
  return [type, (next) => [next, (padded.length + 2) / 8 - 1, ...padded]];
}

function routing(type: number, segmentsLeft: number, addresses = 0): Header {
  return [
    ROUTING,
    (next) => [next, 2 * addresses, type, segmentsLeft, 0, 0, 0, 0, ...new Array<number>(16 * addresses).fill(0x20)],
  ];
}

/** Option of `length` data bytes. */
function option(type: number, length: number): number[] {
  return [type, length, ...new Array<number>(length).fill(0)];
}

const ATOMIC: Header = [FRAGMENT, (next) => [next, 0, 0, 0, 0, 0, 0, 9]];

/** A packet with a chain of headers in front of a SYN, or of what is given. */
function chain(headers: readonly Header[], last = TCP, payload = syn()): Uint8Array {
  const types = [...headers.map(([type]) => type), last];
  const bytes = headers.flatMap(([, make], i) => [...make(types[i + 1] as number)]);
  return ipPacket({ source: CLIENT[6], destination: SERVER[6], protocol: types[0] as number }, concat(bytes, payload));
}

function syn(): Uint8Array {
  return tcpSegment({ seq: 1, flags: Flag.S }, CLIENT[6], SERVER[6]);
}

function changed(packet: Uint8Array, at: number, ...bytes: number[]): Uint8Array {
  packet.set(bytes, at);
  return packet;
}

interface Row {
  readonly name: string;
  readonly packet: Uint8Array;
  readonly drop?: string;
  /** Code and pointer of the parameter problem that the sender gets. */
  readonly problem?: readonly [number, number];
}

/** Runs a table: what is not dropped is a SYN that becomes a flow. */
function run(rows: readonly Row[]): void {
  for (const { name, packet, drop, problem } of rows) {
    t.test(name, (t) => {
      const kit = new Kit({ family: 6 });
      const copy = packet.slice();
      t.equal(kit.deliver(packet), drop === undefined);
      t.same(drops(kit), drop === undefined ? {} : { [drop]: 1 });
      t.equal(kit.flows.length, drop === undefined ? 1 : 0);
      const [error] = kit.takeOut();
      t.same(
        [error?.icmp?.type, error?.icmp?.code, error?.icmp?.rest],
        problem === undefined ? [undefined, undefined, undefined] : [4, ...problem],
      );
      if (error !== undefined) checkError(error, copy);
      kit.finish();
      t.end();
    });
  }
}

/** RFC 4443 §3.4: from where the packet went to its sender, with as much of it as fits into 1,280 bytes. */
function checkError(error: Packet, about: Uint8Array): void {
  const length = Math.min(about.length, 1280 - 48);
  if (!Buffer.from(error.icmp?.data ?? []).equals(about.subarray(0, length))) throw new Error("wrong quote");
  if (!Buffer.from(error.source).equals(SERVER[6])) throw new Error("wrong source");
  if (!Buffer.from(error.destination).equals(CLIENT[6])) throw new Error("wrong destination");
}

const pads = (count: number): number[] => new Array<number>(count).fill(0);

run([
  { name: "hop-by-hop in front (RFC 8200 §4.3)", packet: chain([options(HOP_BY_HOP)]) },
  { name: "destination options (RFC 8200 §4.6)", packet: chain([options(DESTINATION)]) },
  {
    name: "all kinds in the order of RFC 8200 §4.1",
    packet: chain([options(HOP_BY_HOP), options(DESTINATION), routing(2, 0, 1), ATOMIC, options(DESTINATION)]),
  },
  { name: "destination options twice in a row", packet: chain([options(DESTINATION), options(DESTINATION)]) },
  { name: "an atomic fragment (RFC 6946 §4)", packet: chain([ATOMIC]) },
  {
    name: "hop-by-hop behind another header is as good as unknown (RFC 8200 §4)",
    packet: chain([options(DESTINATION), options(HOP_BY_HOP)]),
    drop: "ipExtensionHeader",
    problem: [1, 40],
  },
  {
    name: "hop-by-hop twice",
    packet: chain([options(HOP_BY_HOP), options(HOP_BY_HOP)]),
    drop: "ipExtensionHeader",
    problem: [1, 40],
  },

  { name: "routing type 0 at its end is ignored (RFC 8200 §4.4)", packet: chain([routing(0, 0, 1)]) },
  { name: "unknown routing at its end is ignored", packet: chain([routing(253, 0)]) },
  {
    name: "routing type 0 with segments left (RFC 5095 §3)",
    packet: chain([routing(0, 1, 1)]),
    drop: "ipRoutingHeader",
    problem: [0, 42],
  },
  {
    name: "unknown routing with segments left (RFC 8200 §4.4)",
    packet: chain([options(HOP_BY_HOP), routing(253, 255)]),
    drop: "ipRoutingHeader",
    problem: [0, 50],
  },

  {
    name: "option 0x1e is skipped: action 00 (RFC 8200 §4.2)",
    packet: chain([options(DESTINATION, ...option(0x1e, 4))]),
  },
  { name: "router alert is skipped (RFC 2711)", packet: chain([options(HOP_BY_HOP, ...option(5, 2))]) },
  {
    name: "option 0x5e drops in silence: action 01",
    packet: chain([options(DESTINATION, ...option(0x5e, 4))]),
    drop: "ipOption",
  },
  {
    name: "option 0x9e is told: action 10",
    packet: chain([options(HOP_BY_HOP), options(DESTINATION, ...option(0x3e, 0), ...option(0x9e, 2))]),
    drop: "ipOption",
    problem: [2, 40 + 8 + 2 + 2],
  },
  {
    name: "option 0xde is told: action 11",
    packet: chain([options(DESTINATION, ...option(0xde, 4))]),
    drop: "ipOption",
    problem: [2, 42],
  },
  {
    name: "jumbo payload beside a length is an option like any unknown (RFC 2675 §3)",
    packet: chain([options(HOP_BY_HOP, 0xc2, 4, 0, 1, 0, 0)]),
    drop: "ipOption",
    problem: [2, 42],
  },
  {
    name: "a jumbogram has no payload (RFC 2675)",
    packet: changed(chain([options(HOP_BY_HOP, 0xc2, 4, 0, 1, 0, 0)]), 4, 0, 0),
    drop: "ipTruncated",
  },

  {
    name: "eight options (RFC 8504 §5.3)",
    packet: chain([options(DESTINATION, ...new Array(8).fill([0x1e, 0]).flat())]),
  },
  {
    name: "nine options",
    packet: chain([options(DESTINATION, ...new Array(9).fill([0x1e, 0]).flat())]),
    drop: "ipExtensionHeader",
  },
  {
    name: "seven bytes of padding, twice",
    packet: chain([options(DESTINATION, ...pads(7), ...option(0x1e, 6), 1, 5, ...pads(5))]),
  },
  { name: "eight Pad1", packet: chain([options(DESTINATION, ...pads(8))]), drop: "ipExtensionHeader" },
  { name: "PadN of eight bytes", packet: chain([options(DESTINATION, 1, 6, ...pads(6))]), drop: "ipExtensionHeader" },
  {
    name: "PadN with 255",
    packet: chain([[DESTINATION, (next) => [next, 0, 1, 255, 0, 0, 0, 0]]]),
    drop: "ipExtensionHeader",
  },
  {
    name: "an option past its header",
    packet: chain([[DESTINATION, (next) => [next, 0, 0x1e, 5, 0, 0, 0, 0]]]),
    drop: "ipExtensionHeader",
  },
  {
    name: "an option without a length",
    packet: chain([[DESTINATION, (next) => [next, 0, 1, 3, 0, 0, 0, 0x1e]]]),
    drop: "ipExtensionHeader",
  },

  { name: "ten headers", packet: chain(new Array<Header>(10).fill(options(DESTINATION))) },
  {
    name: "eleven headers",
    packet: chain(new Array<Header>(11).fill(options(DESTINATION))),
    drop: "ipExtensionHeader",
  },
  {
    name: "a hundred headers",
    packet: chain(new Array<Header>(100).fill(options(DESTINATION))),
    drop: "ipExtensionHeader",
  },
  {
    name: "a thousand bytes of headers are as many as anybody needs",
    packet: chain([routing(2, 0, 40), routing(2, 0, 40), options(DESTINATION)]),
    drop: "ipExtensionHeader",
  },
  {
    name: "a header longer than the packet (CVE-2020-17444)",
    packet: chain([[DESTINATION, (next) => [next, 0xff, 1, 4, 0, 0, 0, 0]]]),
    drop: "ipTruncated",
  },
  {
    name: "hop-by-hop longer than the packet",
    packet: chain([[HOP_BY_HOP, (next) => [next, 0xff, 1, 4, 0, 0, 0, 0]]]),
    drop: "ipTruncated",
  },
  {
    name: "routing longer than the packet",
    packet: chain([[ROUTING, (next) => [next, 0xff, 0, 0, 0, 0, 0, 0]]]),
    drop: "ipTruncated",
  },
  {
    name: "nothing behind the last header",
    packet: chain([options(DESTINATION)], TCP, new Uint8Array(0)),
    drop: "tcpTruncated",
  },
  {
    name: "half a header",
    packet: chain([options(HOP_BY_HOP)], DESTINATION, Uint8Array.of(TCP, 0, 1, 2)),
    drop: "ipTruncated",
  },
  { name: "half a fragment header", packet: chain([], FRAGMENT, Uint8Array.of(TCP, 0, 0, 0)), drop: "ipTruncated" },

  { name: "no next header: quietly (RFC 8200 §4.7)", packet: chain([], NO_NEXT), drop: "ipNoNextHeader" },
  { name: "no next header behind others", packet: chain([options(HOP_BY_HOP)], NO_NEXT), drop: "ipNoNextHeader" },
  { name: "IPv4 in IPv6", packet: chain([], 4), drop: "ipProtocol", problem: [1, 6] },
  { name: "IPv6 in IPv6", packet: chain([], 41), drop: "ipProtocol", problem: [1, 6] },
  { name: "ICMP in IPv6", packet: chain([], 1), drop: "ipProtocol", problem: [1, 6] },
  { name: "ESP is not followed", packet: chain([], ESP), drop: "ipProtocol", problem: [1, 6] },
  { name: "AH is not followed", packet: chain([], AH), drop: "ipProtocol", problem: [1, 6] },
  { name: "protocol 255", packet: chain([], 255), drop: "ipProtocol", problem: [1, 6] },
  {
    name: "an unknown header behind others: the pointer is at who named it (RFC 4443 §3.4)",
    packet: chain([options(HOP_BY_HOP), options(DESTINATION)], 200),
    drop: "ipProtocol",
    problem: [1, 48],
  },
  {
    name: "a long packet is quoted up to 1,280 bytes",
    packet: chain([], 200, streamBytes(0, 0, 1400)),
    drop: "ipProtocol",
    problem: [1, 6],
  },
  {
    name: "about an ICMPv6 error nothing is told (RFC 4443 §2.4 e.1)",
    packet: chain([options(DESTINATION, ...option(0xde, 4))], ICMPV6, Uint8Array.of(1, 4, 0, 0, 0, 0, 0, 0)),
    drop: "ipOption",
  },
  {
    name: "about a later fragment of ICMPv6 neither",
    packet: fragment(6, { protocol: ICMPV6, offset: 80, more: true }, new Uint8Array(77).fill(0x80)),
    drop: "ipFragment",
  },
  {
    name: "about a question in ICMPv6 it is",
    packet: chain([options(DESTINATION, ...option(0xde, 4))], ICMPV6, Uint8Array.of(128, 0, 0, 0, 0, 0, 0, 0)),
    drop: "ipOption",
    problem: [2, 42],
  },
]);

t.test("multicast destinations and nobody's sources are not told (RFC 4443 §2.4 e.3, e.6)", (t) => {
  const kit = new Kit({ family: 6 });
  const all = Uint8Array.from([0xff, 2, ...new Array<number>(13).fill(0), 1]);
  const rows: readonly [Uint8Array, Uint8Array, string][] = [
    [CLIENT[6], all, "ipDestination"],
    [new Uint8Array(16), SERVER[6], "ipMartianSource"],
    [all, SERVER[6], "ipMartianSource"],
  ];
  for (const [source, destination, drop] of rows) {
    const before = drops(kit)[drop] ?? 0;
    for (const protocol of [200, DESTINATION, HOP_BY_HOP]) {
      const payload = Uint8Array.of(TCP, 0, 0xde, 4, 0, 0, 0, 0);
      // Every length, too (CVE-2020-11899).
      for (let length = 0; length <= 8; length++) {
        kit.deliver(ipPacket({ source, destination, protocol }, payload.slice(0, length)));
      }
    }
    t.equal((drops(kit)[drop] ?? 0) - before, 27);
  }
  t.equal(kit.out.length, 0);
  kit.finish();
  t.end();
});

t.test("a chain of headers cut at every byte: dropped, or what is left of it is right", (t) => {
  const kit = new Kit({ family: 6 });
  const udp = udpPacket(6, streamBytes(0, 0, 40)).slice(40);
  const packet = chain(
    [options(HOP_BY_HOP), routing(2, 0, 1), ATOMIC, options(DESTINATION, ...option(0x1e, 9))],
    UDP,
    udp,
  );
  for (let length = 0; length < packet.length; length++) {
    t.equal(kit.deliver(packet.slice(0, length)), false);
    if (length < 40) continue;
    const cut = packet.slice(0, length);
    cut.set([0, length - 40], 4);
    t.equal(kit.deliver(cut), false);
  }
  t.equal(kit.stack.inbox.count, 0);
  t.equal(kit.deliver(packet.slice()), true);
  t.equal(kit.stack.inbox.length[0], 40);
  kit.stack.inbox.clear();
  kit.takeOut();
  kit.finish();
  t.end();
});

t.test("IPv4: protocol unreachable for what nobody speaks (RFC 1122 §3.2.2.1)", (t) => {
  const ends = { source: CLIENT[4], destination: SERVER[4] };
  for (const protocol of [2, 4, 41, 47, 50, 58, 255]) {
    const kit = new Kit();
    const packet = ipPacket({ ...ends, protocol, options: Uint8Array.of(1, 1, 1, 0) }, streamBytes(0, 0, 1000));
    const copy = packet.slice();
    t.equal(kit.deliver(packet), false);
    t.same(drops(kit), { ipProtocol: 1 });
    const [error] = kit.takeOut();
    t.same([error?.icmp?.type, error?.icmp?.code, error?.icmp?.rest], [3, 2, 0]);
    t.same([...(error?.icmp?.data ?? [])], [...copy.subarray(0, 548)], "RFC 1812 §4.3.2.3: up to 576 bytes in all");
    t.same([error?.source, error?.destination], [SERVER[4], CLIENT[4]]);
    // Fragments: the first one only (RFC 1122 §3.2.2), broadcasts and nobody's packets never.
    const silent = [
      fragment(4, { protocol, offset: 80, more: true }, new Uint8Array(80)),
      ipPacket({ ...ends, protocol, destination: Uint8Array.of(255, 255, 255, 255) }, new Uint8Array(8)),
      ipPacket({ ...ends, protocol, destination: Uint8Array.of(224, 0, 0, 22) }, new Uint8Array(8)),
      ipPacket({ ...ends, protocol, source: new Uint8Array(4) }, new Uint8Array(8)),
      ipPacket({ ...ends, protocol, source: Uint8Array.of(127, 0, 0, 1) }, new Uint8Array(8)),
    ];
    for (const bytes of silent) t.equal(kit.deliver(bytes), false);
    t.equal(kit.out.length, 0);
    t.equal(kit.deliver(fragment(4, { protocol, offset: 0, more: true }, new Uint8Array(80))), false);
    t.equal(kit.takeOut().length, 1);
    t.same(kit.stack.stats().fragments, { datagrams: 0, bytes: 0 });
    kit.finish();
  }
  t.end();
});

t.test("IPv4 options in fragments are walked as in any packet (RFC 791 §3.1)", (t) => {
  const kit = new Kit();
  const udp = udpPacket(4, streamBytes(0, 0, 1992)).slice(20);
  const part = (options: Uint8Array, field: number, data: Uint8Array): Uint8Array =>
    ipPacket({ source: CLIENT[4], destination: SERVER[4], protocol: UDP, options, fragment: field }, data);
  t.equal(kit.deliver(part(Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0), 0x2000, udp.slice(0, 1000))), true);
  t.equal(kit.deliver(part(Uint8Array.of(131, 3, 4, 0), 125, udp.slice(1000))), false, "source route");
  t.equal(kit.deliver(part(Uint8Array.of(7, 0, 0, 0), 125, udp.slice(1000))), false, "length 0");
  t.equal(kit.deliver(part(new Uint8Array(0), 125, udp.slice(1000))), true);
  t.same([kit.stack.inbox.count, kit.stack.inbox.length[0]], [1, 1992]);
  kit.stack.inbox.clear();
  kit.finish();
  t.end();
});
