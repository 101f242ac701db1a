/** Properties of the stack under random input: nothing throws, accounts stay right, streams stay whole. Seeds are fixed. */
import fc from "fast-check";
import t, { type Test as Tap } from "tap";
import type { TcpConnection } from "../../src/stack/tcp/connection.ts";
import {
  CLIENT_PORT,
  Drill,
  type Family,
  Flag,
  ISN_PAIRS,
  icmpPacket,
  isStream,
  Kit,
  type Packet,
  plainSum,
  renewSlab,
  seededRandom,
  streamByte,
  streamBytes,
  tcpOptions,
  tcpPacket,
  udpPacket,
} from "./kit.ts";

/** `STACK_SEED` tries other cases, `STACK_RUNS` so many times as many; both for searches by hand. */
const SEED = Number(process.env["STACK_SEED"] ?? 20_260);
const MORE = Number(process.env["STACK_RUNS"] ?? 1);

/** Checks a property; a failure tells seed, path and the smallest example found. */
function check<T>(t: Tap, name: string, runs: number, arbitrary: fc.Arbitrary<T>, predicate: (value: T) => void): void {
  t.test(name, async (t) => {
    const property = fc.property(arbitrary, (value) => {
      try {
        predicate(value);
      } catch (error) {
        renewSlab();
        throw error;
      }
    });
    const result = fc.check(property, { seed: SEED, numRuns: runs * MORE });
    if (!result.failed) {
      t.pass(`${result.numRuns} runs`);
      return;
    }
    const example = JSON.stringify(result.counterexample, (_, value) =>
      value instanceof Uint8Array ? [...value] : value,
    );
    const error = result.errorInstance instanceof Error ? (result.errorInstance.stack ?? "") : "";
    t.fail(`seed ${result.seed}, path ${result.counterexamplePath}: ${error}\nwith ${example.slice(0, 4000)}`);
  });
}

/** What must hold at every moment, whatever came before. */
function checkInvariants(kit: Kit): void {
  const stats = kit.stack.stats();
  let buffered = 0;
  for (const flow of kit.flows) {
    const info = flow.info();
    for (const [name, value] of Object.entries(info)) {
      if (typeof value === "number" && !Number.isFinite(value)) throw new Error(`${name} is ${value}`);
    }
    if (info.unacknowledged < 0) throw new Error(`SND.NXT lies ${-info.unacknowledged} below SND.UNA`);
    if (info.rcvWnd < 0) throw new Error(`the window is ${info.rcvWnd}`);
    if (info.cwnd < 0 || info.sndWnd < 0 || info.rto <= 0) throw new Error(JSON.stringify(info));
    if (flow.readable < 0 || flow.sendQueued < 0) throw new Error("a queue is negative");
    buffered += flow.readable + flow.sendQueued + info.outOfOrderBytes;
  }
  if (stats.bytesBuffered !== buffered)
    throw new Error(`bytesBuffered is ${stats.bytesBuffered}, queues hold ${buffered}`);
  if (stats.impossibleTransitions !== 0) throw new Error("a state changed that cannot");
  const { datagrams } = stats.fragments;
  if (Object.keys(stats.flows).length === 0 && stats.timersArmed !== datagrams)
    throw new Error("a timer without a flow");
}

check(
  t,
  "any bytes into receive(): nothing is thrown, nothing is kept",
  2000,
  fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 20 }),
  (packets) => {
    const kit = new Kit();
    for (const packet of packets) {
      const whole = packet.length;
      kit.deliver(packet);
      if (packet.length !== whole) throw new Error("the caller's buffer changed its size");
      checkInvariants(kit);
    }
    kit.finish();
  },
);

/** Bytes that get past the first checks: an IP version in front, a protocol that is looked at. */
const almostPacket = fc
  .tuple(
    fc.uint8Array({ minLength: 20, maxLength: 120 }),
    fc.constantFrom(4, 6),
    fc.constantFrom(1, 6, 17, 58, 0, 43, 44, 60),
    fc.integer({ min: 5, max: 8 }),
    fc.constantFrom(0x4000, 0x4000, 0x2000, 0x2001, 0x0001, 0x0003, 0x3fff),
  )
  .map(([bytes, family, protocol, words, fragment]) => {
    const packet = bytes.slice();
    const view = new DataView(packet.buffer);
    if (family === 4) {
      packet.set([0x40 | words, 0]);
      view.setUint16(2, packet.length);
      view.setUint16(6, fragment);
      // Fragments are of one datagram, so that they meet.
      if (fragment !== 0x4000)
        packet.set([0, 1, fragment >>> 8, fragment & 0xff, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 3], 4);
      else packet[9] = protocol;
      view.setUint16(10, 0);
      view.setUint16(10, 0xffff - plainSum(packet.subarray(0, Math.min(packet.length, words * 4))));
    } else if (packet.length >= 40) {
      packet[0] = 0x60;
      view.setUint16(4, packet.length - 40);
      packet[6] = protocol;
      if (protocol === 44 && packet.length >= 48) {
        packet.set([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0xfd, 1], 8);
        packet.fill(1, 26, 40);
        packet.set([17, 0, 0, (fragment & 7) * 8 + (fragment >>> 13 === 1 ? 1 : 0), 0, 0, 0, 1], 40);
      }
    }
    return packet;
  });

check(
  t,
  "packets with a good IP header and anything behind it, checksums trusted",
  3000,
  fc.tuple(fc.array(almostPacket, { maxLength: 20 }), fc.nat(3)),
  ([packets, size]) => {
    const kit = new Kit();
    for (const packet of packets) {
      kit.deliverReference(packet, [0, 1, 7, 1448][size] ?? 0);
      for (const flow of kit.flows) flow.accept();
      kit.drain();
      checkInvariants(kit);
    }
    kit.stack.inbox.clear();
    kit.takeOut();
    kit.finish();
  },
);

// --- Random segments and calls around an established flow

interface Action {
  readonly kind: number;
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  readonly window: number;
  readonly length: number;
  readonly options: Uint8Array;
  readonly port: number;
  readonly wait: number;
}

const edge = fc.oneof(
  fc.integer({ min: -3, max: 30 }),
  fc.integer({ min: -3000, max: 70_000 }),
  fc.constantFrom(65_533, 65_534, 65_535, 65_536, 0x7fffffff, -0x80000000, -65_536),
);
const action: fc.Arbitrary<Action> = fc.record({
  kind: fc.nat(29),
  seq: edge,
  ack: edge,
  flags: fc.oneof(
    fc.constantFrom(
      Flag.A,
      Flag.A,
      Flag.A | Flag.P,
      Flag.A | Flag.F,
      Flag.S,
      Flag.R,
      Flag.R | Flag.A,
      Flag.S | Flag.A,
      0,
    ),
    fc.nat(255),
  ),
  window: fc.constantFrom(0, 1, 10, 1000, 65_535),
  length: fc.oneof(fc.constantFrom(0, 0, 1, 2, 10, 1000, 1460), fc.nat(3000)),
  options: fc.oneof(
    fc
      .constantFrom("", "", "mss 1000,sackOK,TS val 5 ecr 0,wscale 7", "TS val 9 ecr 3", "mss 0", "wscale 14")
      .map((text) => tcpOptions(text)),
    fc.uint8Array({ maxLength: 40 }),
  ),
  port: fc.constantFrom(0, 0, 0, 0, 1, 2),
  wait: fc.oneof(fc.constantFrom(0, 1, 20, 40, 200, 1000), fc.nat(100_000)),
});

/** A router's word about a packet of the stack, true or not. */
function packetTooBig({ family }: Drill, about: Packet | undefined, mtu: number): Uint8Array {
  const quote = about?.bytes.slice(0, 100) ?? new Uint8Array(60);
  return family === 4 ? icmpPacket(4, 3, 4, mtu & 0xffff, quote) : icmpPacket(6, 2, 0, mtu >>> 0, quote);
}

/** Does one action; what is sent is checked by the kit's dissector on the way. */
function act(d: Drill, { kind, seq, ack, flags, window, length, options, port, wait }: Action): void {
  const flow: TcpConnection | undefined = d.flows[Math.min(d.flows.length - 1, port)];
  d.stack.advance(d.now);
  switch (kind) {
    case 0:
      flow?.accept();
      break;
    case 1:
      flow?.read(length + 1);
      break;
    case 2:
      try {
        flow?.write(streamBytes(1, 0, length * 20));
      } catch (error) {
        if (!/after end/.test(String(error))) throw error;
      }
      break;
    case 3:
      flow?.end();
      break;
    case 4:
      if (length % 4 === 0) flow?.close();
      break;
    case 5:
      if (length % 4 === 0) flow?.abort();
      break;
    case 6:
      if (length % 4 === 0)
        flow?.reject((["rst", "drop", "host-unreachable", "prohibited"] as const)[wait % 4] ?? "rst");
      break;
    case 7:
      flow?.compactUnread();
      break;
    case 8:
      flow?.wantWritable();
      break;
    case 9:
    case 10:
    case 11:
      d.advance(d.now + wait);
      break;
    case 13:
      d.deliver(packetTooBig(d, d.out[d.out.length - 1 - (seq & 3)], window + ack));
      break;
    default: {
      const packet = tcpPacket(d.family, {
        sourcePort: CLIENT_PORT + port,
        seq: d.irs + seq,
        ack: d.iss + ack,
        flags,
        window,
        options,
        payload: streamBytes(0, seq, length),
      });
      const before = d.out.length;
      if (kind === 12) d.deliverReference(packet, 1 + (length >>> 2));
      else d.deliver(packet);
      // An acknowledgment may let a window of data out; nothing else may cause more than two packets.
      const caused = d.out.slice(before).filter(({ tcp }) => (tcp?.payload.length ?? 0) === 0).length;
      if (caused > 3) throw new Error(`${caused} packets without data for one`);
    }
  }
  d.drain();
}

for (const [i, [irs, iss]] of ISN_PAIRS.entries()) {
  const family: Family = i % 2 === 0 ? 4 : 6;
  for (const offload of [false, true]) {
    check(
      t,
      `random segments and calls, ISN ${irs.toString(16)} and ${iss.toString(16)}, ${offload ? "with" : "without"} offload`,
      150,
      fc.tuple(
        fc.array(action, { minLength: 10, maxLength: 80 }),
        fc.boolean(),
        fc.constantFrom(1, 3000, 65_535, 200_000),
      ),
      ([actions, established, recvBuffer]) => {
        const d = new Drill({
          family,
          irs,
          iss,
          tcp: { recvBuffer, sendBuffer: 30_000, nagle: recvBuffer === 3000, dataRetries: 4, timeWaitMs: 5000 },
          ...(offload ? { offload: { checksum: true, tso: true, uso: true } } : {}),
        });
        if (established) d.establish("mss 1000,sackOK,wscale 3");
        for (const step of actions) {
          act(d, step);
          checkInvariants(d);
        }
        // Every flow of a silent client ends by itself once its owner has closed it.
        for (const flow of d.flows) flow.close();
        d.drain();
        for (let k = 0; k < 50 && d.stack.stats().timersArmed > 0; k++) d.advance(d.now + 100_000);
        checkInvariants(d);
        const left = Object.keys(d.stack.stats().flows);
        if (left.length > 0) throw new Error(`left: ${left.join()}`);
        d.takeOut();
        d.finish();
      },
    );
  }
}

// --- Mutations of a conversation

/** The packets of a client in a whole conversation. */
function conversation(family: Family): Uint8Array[] {
  const tcp = (seq: number, ack: number, flags: number, options = "", length = 0): Uint8Array =>
    tcpPacket(family, {
      seq: 1000 + seq,
      ack: ack === 0 ? 0 : 5000 + ack,
      flags,
      options: tcpOptions(options),
      payload: streamBytes(0, seq - 1, length),
    });
  return [
    tcp(0, 0, Flag.S, "mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7"),
    tcp(1, 1, Flag.A, "nop,nop,TS val 2 ecr 0"),
    tcp(1, 1, Flag.A | Flag.P, "nop,nop,TS val 3 ecr 0", 100),
    tcp(201, 1, Flag.A | Flag.P, "nop,nop,TS val 3 ecr 0", 100),
    tcp(101, 1, Flag.A | Flag.P, "nop,nop,TS val 4 ecr 0", 100),
    tcp(301, 501, Flag.A, "nop,nop,TS val 5 ecr 0,nop,nop,sack 601:701"),
    tcp(301, 1001, Flag.A | Flag.F, "nop,nop,TS val 6 ecr 0"),
    tcp(302, 1002, Flag.A, "nop,nop,TS val 7 ecr 0"),
    icmpPacket(family, family === 4 ? 8 : 128, 0, 7, streamBytes(0, 0, 20)),
    udpPacket(family, streamBytes(0, 0, 30)),
  ];
}

const mutation = fc.record({
  packet: fc.nat(9),
  at: fc.nat(100),
  value: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)),
  kind: fc.constantFrom("set", "xor", "cut", "grow", "twice", "drop"),
});

for (const family of [4, 6] as const) {
  check(
    t,
    `IPv${family}: mutated conversations, checksums right again`,
    1500,
    fc.array(mutation, { maxLength: 8 }),
    (mutations) => {
      const kit = new Kit({ family, iss: 5000 });
      const packets = conversation(family).map((bytes) => [bytes]);
      for (const { packet, at, value, kind } of mutations) {
        const list = packets[packet] ?? [];
        const bytes = list[0];
        if (bytes === undefined) continue;
        if (kind === "drop") list.pop();
        else if (kind === "twice") list.push(bytes.slice());
        else if (kind === "cut") list[0] = bytes.slice(0, at);
        else if (kind === "grow") list[0] = Uint8Array.from([...bytes, ...new Array<number>(value).fill(at)]);
        else if (at < bytes.length) bytes[at] = kind === "set" ? value : (bytes[at] as number) ^ value;
      }
      packets.flat().forEach((bytes, i) => {
        if (family === 4 && bytes.length >= 20) {
          const words = (bytes[0] as number) & 15;
          const header = bytes.subarray(0, Math.min(bytes.length, Math.max(20, words * 4)));
          header.set([0, 0], 10);
          const sum = 0xffff - plainSum(header);
          header.set([sum >>> 8, sum & 0xff], 10);
        }
        kit.deliverReference(bytes, 0);
        const [flow] = kit.flows;
        if (i === 0) flow?.accept();
        if (i === 3 && flow?.state === "ESTABLISHED") {
          flow.write(streamBytes(1, 0, 1000));
          flow.end();
        }
        kit.advance(kit.now + 10);
        checkInvariants(kit);
      });
      kit.stack.inbox.clear();
      kit.takeOut();
      kit.finish();
    },
  );
}

// --- A client that works, over a network that does not

interface World {
  readonly seed: number;
  readonly family: Family;
  readonly isns: number;
  /** Of packets, in each direction. */
  readonly loss: number;
  readonly duplicates: number;
  /** Delay and jitter, ms; jitter above the distance of packets reorders them. */
  readonly delay: number;
  readonly jitter: number;
  readonly upBytes: number;
  readonly downBytes: number;
  readonly options: string;
  readonly clientBuffer: number;
  readonly recvBuffer: number;
  readonly sendBuffer: number;
  readonly tso: boolean;
  readonly nagle: boolean;
  /** MTU of the way to the client. */
  readonly hopMtu: number;
  /** Most bytes that the applications read or write at once. */
  readonly gulp: number;
}

const world: fc.Arbitrary<World> = fc.record({
  seed: fc.integer(),
  family: fc.constantFrom<Family>(4, 6),
  isns: fc.nat(3),
  loss: fc.constantFrom(0, 0.01, 0.05, 0.2),
  duplicates: fc.constantFrom(0, 0.1),
  delay: fc.constantFrom(0, 1, 30),
  jitter: fc.constantFrom(0, 1, 40),
  upBytes: fc.constantFrom(0, 1, 5000, 60_000),
  downBytes: fc.constantFrom(0, 1, 5000, 60_000),
  options: fc.constantFrom(
    "mss 1000",
    "mss 1460,sackOK,wscale 2",
    "mss 1400,sackOK,TS val 1 ecr 0,wscale 2",
    "mss 100",
  ),
  clientBuffer: fc.constantFrom(1500, 8000, 65_000),
  recvBuffer: fc.constantFrom(1500, 8000, 300_000),
  sendBuffer: fc.constantFrom(1500, 100_000),
  tso: fc.boolean(),
  nagle: fc.boolean(),
  hopMtu: fc.constantFrom(1500, 1500, 1280),
  gulp: fc.constantFrom(700, 20_000),
});

/** A plain client: go-back-N, one ACK a segment, a window that follows its reader. Numbers are relative to the first byte. */
class Client {
  readonly d: Drill;
  readonly w: World;
  readonly random: () => number;
  readonly shift: number;
  readonly stamps: boolean;
  readonly received: Uint8Array;
  readonly held: Uint8Array;
  readonly network: { at: number; up: boolean; send: () => void }[] = [];
  una = 0;
  nxt = 0;
  stackEdge = 0;
  rcvNxt = 0;
  read = 0;
  edge: number;
  finReceived = false;
  finAt = -1;
  rtoAt = Number.POSITIVE_INFINITY;
  tsRecent = 0;

  constructor(d: Drill, w: World) {
    this.d = d;
    this.w = w;
    const random = seededRandom(w.seed);
    this.random = () => (random() >>> 0) / 2 ** 32;
    this.shift = /wscale/.test(w.options) ? 2 : 0;
    this.stamps = /TS/.test(w.options);
    this.received = new Uint8Array(w.downBytes);
    this.held = new Uint8Array(w.downBytes);
    this.edge = w.clientBuffer;
  }

  /** Puts a packet on its way, once, twice or not at all. */
  carry(up: boolean, send: () => void): void {
    const { loss, duplicates, delay, jitter } = this.w;
    const copies = this.random() < loss ? 0 : this.random() < duplicates ? 2 : 1;
    for (let i = 0; i < copies; i++) this.network.push({ at: this.d.now + delay + this.random() * jitter, up, send });
  }

  get finSent(): boolean {
    return this.nxt > this.w.upBytes;
  }

  /** The window field, and the edge that it promises. */
  window(): number {
    const room = this.rcvNxt > this.w.downBytes ? 0 : this.read + this.w.clientBuffer - this.rcvNxt;
    const field = Math.min(65_535, Math.max(0, room) >> this.shift);
    this.edge = Math.max(this.edge, this.rcvNxt + field * 2 ** this.shift);
    return field;
  }

  send(from: number, length: number, fin: boolean): void {
    const d = this.d;
    const packet = tcpPacket(d.family, {
      seq: d.irs + 1 + from,
      ack: d.iss + 1 + this.rcvNxt,
      flags: Flag.A | (length > 0 ? Flag.P : 0) | (fin ? Flag.F : 0),
      window: this.window(),
      options: tcpOptions(this.stamps ? `nop,nop,TS val ${Math.floor(d.now)} ecr ${this.tsRecent >>> 0}` : ""),
      payload: streamBytes(0, from, length),
    });
    this.carry(true, () => d.deliver(packet.slice()));
  }

  /** Sends what the stack's window and a fixed congestion window allow. */
  pump(): void {
    const mss = 1000;
    while (this.nxt < this.w.upBytes) {
      const room = Math.min(this.stackEdge, this.una + 16_000) - this.nxt;
      const length = Math.min(1 + Math.floor(this.random() * mss), this.w.upBytes - this.nxt, room);
      if (length <= 0) break;
      this.send(this.nxt, length, false);
      this.nxt += length;
      this.arm();
    }
    // FIN once everything is out and the other side's data has come, or at once, by the seed.
    const mayEnd = (this.w.seed & 1) === 0 || this.rcvNxt >= this.w.downBytes;
    if (this.nxt === this.w.upBytes && mayEnd) {
      this.send(this.nxt, 0, true);
      this.nxt++;
      this.arm();
    }
  }

  arm(): void {
    if (this.rtoAt === Number.POSITIVE_INFINITY) this.rtoAt = this.d.now + 300;
  }

  onTimer(): void {
    this.rtoAt = this.d.now + 300;
    if (this.una > this.w.upBytes) {
      this.rtoAt = Number.POSITIVE_INFINITY;
      return;
    }
    this.nxt = this.una;
    if (this.stackEdge <= this.una && this.una < this.w.upBytes) {
      this.send(this.una, 1, false);
      this.nxt = this.una + 1;
    } else this.pump();
  }

  onPacket(packet: Packet): void {
    const { tcp } = packet;
    const d = this.d;
    if (tcp?.flags === (Flag.S | Flag.A)) {
      // No ACK of ours has come through yet.
      this.send(this.nxt, 0, false);
      return;
    }
    // A late copy meets no flow any more.
    if (tcp?.flags === Flag.R && d.flow.state === "CLOSED" && d.flow.error === null) return;
    if (tcp === undefined || (tcp.flags & (Flag.S | Flag.R)) !== 0) throw new Error(`the client got ${d.show(packet)}`);
    const seq = (tcp.seq - d.iss - 1) | 0;
    const ack = (tcp.ack - d.irs - 1) | 0;
    const length = tcp.payload.length;
    if (seq < 0 || seq + length > this.w.downBytes + (length === 0 ? 1 : 0))
      throw new Error(`bytes beyond the stream: ${d.show(packet)}`);
    if (seq + length > this.edge + 1) throw new Error(`beyond the window's edge ${this.edge}: ${d.show(packet)}`);
    if (ack > this.w.upBytes + 1) throw new Error(`acknowledged what was never sent: ${d.show(packet)}`);
    if (this.stamps && tcp.options.timestamps !== undefined && seq <= this.rcvNxt)
      this.tsRecent = tcp.options.timestamps.val;
    if (ack > this.una) {
      this.una = ack;
      this.nxt = Math.max(this.nxt, ack);
      this.rtoAt = this.nxt > this.una || this.una < this.w.upBytes ? d.now + 300 : Number.POSITIVE_INFINITY;
    }
    const wscale = this.shift > 0 ? this.wscale : 0;
    this.stackEdge = Math.max(this.stackEdge, ack + tcp.window * 2 ** wscale);
    for (let i = 0; i < length; i++) {
      if (tcp.payload[i] !== streamByte(1, seq + i)) throw new Error(`byte ${seq + i} is wrong: ${d.show(packet)}`);
      if (seq + i < this.edge) this.held[seq + i] = 1;
    }
    if ((tcp.flags & Flag.F) !== 0) this.finAt = seq + length;
    while (this.rcvNxt < this.w.downBytes && this.held[this.rcvNxt] === 1) this.rcvNxt++;
    if (this.rcvNxt === this.finAt) {
      this.rcvNxt++;
      this.finReceived = true;
    }
    if (length > 0 || (tcp.flags & Flag.F) !== 0) this.send(this.nxt, 0, false);
    this.pump();
  }
  wscale = 0;
}

function play(w: World): void {
  const [irs, iss] = ISN_PAIRS[w.isns] ?? [0, 0];
  const d = new Drill({
    family: w.family,
    irs,
    iss,
    tcp: { recvBuffer: w.recvBuffer, sendBuffer: w.sendBuffer, nagle: w.nagle },
    ...(w.tso ? { offload: { checksum: true, tso: true, uso: false } } : {}),
  });
  const c = new Client(d, w);
  d.deliver(tcpPacket(w.family, { seq: irs, flags: Flag.S, options: tcpOptions(w.options) }));
  const { flow } = d;
  flow.accept();
  d.drain();
  const synAck = d.takeOut()[0]?.tcp;
  if (synAck === undefined) throw new Error("no SYN-ACK");
  c.wscale = synAck.options.wscale ?? 0;
  c.stackEdge = synAck.window;
  c.tsRecent = synAck.options.timestamps?.val ?? 0;
  c.send(0, 0, false);
  c.rtoAt = d.now + 300;
  let read = 0;
  let written = 0;
  let ended = false;
  let appAt = d.now;
  const start = d.now;
  const isDone = (): boolean => c.finReceived && c.una > w.upBytes && read === w.upBytes && flow.eof;
  for (let step = 0; !(isDone() && c.network.length === 0); step++) {
    if (step > 200_000 || d.now - start > 7_200_000) {
      const where = `client ${c.una}/${c.nxt} of ${w.upBytes}, has ${c.rcvNxt} of ${w.downBytes}`;
      throw new Error(`no end: ${flow.state} ${flow.error}, ${where}, read ${read}, written ${written}, at ${d.now}`);
    }
    if (flow.error !== null) throw new Error(`the flow ended: ${flow.error}`);
    for (const packet of d.takeOut()) {
      const payload = packet.tcp?.payload.length ?? 0;
      const largest = Math.min(payload, d.segmentSizes.get(packet) || payload);
      // The hop that does not take it says so, if its message gets through.
      if (packet.bytes.length - payload + largest <= w.hopMtu) c.carry(false, () => c.onPacket(packet));
      else c.carry(true, () => d.deliver(packetTooBig(d, packet, w.hopMtu)));
    }
    let next = Math.min(c.rtoAt, appAt, d.stack.nextTimeout());
    let first = -1;
    c.network.forEach(({ at }, i) => {
      if (at >= next) return;
      next = at;
      first = i;
    });
    d.advance(Math.max(d.now, next));
    if (first >= 0) c.network.splice(first, 1)[0]?.send();
    else if (next === c.rtoAt) c.onTimer();
    else if (next === appAt) {
      appAt = d.now + c.random() * 20;
      const bytes = flow.read(1 + Math.floor(c.random() * w.gulp));
      if (bytes !== null && !isStream(0, read, bytes))
        throw new Error(`the stream from the client differs after ${read}`);
      read += bytes?.length ?? 0;
      if (written < w.downBytes) {
        written += flow.write(
          streamBytes(1, written, Math.min(w.downBytes - written, 1 + Math.floor(c.random() * w.gulp))),
        );
      } else if (!ended) {
        flow.end();
        ended = true;
      }
      // The client's reader; it tells of a window that opens.
      const before = c.read;
      c.read = Math.min(Math.min(c.rcvNxt, w.downBytes), c.read + Math.floor(c.random() * w.gulp));
      if (c.read > before && c.edge - c.rcvNxt < w.clientBuffer / 2) c.send(c.nxt, 0, false);
    }
    d.drain();
    if (step % 16 === 0) checkInvariants(d);
  }
  checkInvariants(d);
  d.takeOut();
  // What is still unacknowledged at our side is at most a FIN, whose ACK was lost: the client says it once more.
  for (let i = 0; i < 100 && Object.keys(d.stack.stats().flows).length > 0; i++) {
    d.advance(d.now + 100_000, true);
    if (d.takeOut().length === 0) continue;
    d.deliver(
      tcpPacket(w.family, {
        seq: irs + 2 + w.upBytes,
        ack: iss + 2 + w.downBytes,
        flags: Flag.A,
        options: tcpOptions(""),
      }),
    );
    d.takeOut();
  }
  if (Object.keys(d.stack.stats().flows).length > 0) throw new Error(`left: ${flow.state}`);
  d.finish();
}

check(
  t,
  "both streams stay whole under loss, reordering and duplication, to the FINs (behaviours 31, 32, 50, 82)",
  250,
  world,
  play,
);
