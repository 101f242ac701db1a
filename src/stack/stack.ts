/**
 * The stack: raw IP packets in, flows for their owner, packets out.
 *
 * Theory of operation. Nothing here waits, reads a clock or draws randomness: bytes, time and randomness are arguments.
 * `receive(packet, now)`, `handleTimeout(now)` and the calls on flows change state, and all work they cause is done when
 * they return. Three calls drain the results: `nextReady()` the flows that changed, `transmit()` (or `fill()` and the
 * transmit queue) the packets, `nextTimeout()` the instant at which `handleTimeout` is wanted.
 *
 * What is held: packet memory is the slab's, whose size is the limit of all buffers; flows are limited by `maxFlows` and
 * `maxFlowsPerSource`, handshakes by `synBacklog`, TIME-WAIT by `maxTimeWait`, datagrams by one batch, fragments as
 * ip/reassembly says. After `close()` nothing is armed and nothing is held.
 *
 * ```
 *  receive ──> ip/input ──────────> tcp ──> flow (connection.ts) ──> nextReady()
 *               │  │  ^  └────────> udp ──> inbox
 *               │  v  │   └───────> icmp (echo, errors) ──┐
 *               │ reassembly                              v
 *               v                          sendPending ──> ip/output ──> transmit queue ──> transmit()
 *             drops (and their ICMP errors) ──────────────^
 * ```
 */
import { DatagramResult, type FlowStack } from "./flow/flow.ts";
import { walkExtensionHeaders } from "./ip/extension-headers.ts";
import { IcmpErrors } from "./ip/icmp-error.ts";
import { receiveIcmp } from "./ip/icmp-input.ts";
import { IcmpQuote } from "./ip/icmp-quote.ts";
import { parseIp } from "./ip/input.ts";
import { IpOutput, type OutputOffload } from "./ip/output.ts";
import { FragmentResult, Reassembly } from "./ip/reassembly.ts";
import { InputBlock } from "./memory/input-block.ts";
import { BLOCK_BYTES, Slab } from "./memory/slab.ts";
import { TransmitQueue } from "./memory/transmit-queue.ts";
import type { TcpConnection } from "./tcp/connection.ts";
import { TcpContext } from "./tcp/context.ts";
import { segmentBeforeAccept, segmentInTimeWait, segmentWithoutFlow } from "./tcp/listen.ts";
import type { TcpOptions } from "./tcp/options.ts";
import { onPathMtu } from "./tcp/path-mtu.ts";
import type { RefusedCounts } from "./tcp/refused.ts";
import { segmentArrives } from "./tcp/segment-arrives.ts";
import { sendPending } from "./tcp/send.ts";
import { STATE_NAMES, State } from "./tcp/state.ts";
import { expireTimers } from "./tcp/timeouts.ts";
import { DatagramInbox } from "./udp/inbox.ts";
import { sendDatagram } from "./udp/output.ts";
import { fold, sumBytes } from "./wire/checksum.ts";
import { DROP_NAMES, Drop } from "./wire/drop.ts";
import { Unreachable } from "./wire/icmp.ts";
import { IpPacket, Protocol, pseudoHeaderSum } from "./wire/ip.ts";
import { parseTcp, TcpSegment } from "./wire/tcp.ts";
import { parseUdp, UDP_HEADER_LEN, UdpDatagram } from "./wire/udp.ts";

/** Options of a stack. */
export interface StackOptions {
  /** Draws 32 random bits that others cannot guess. Required: the stack has no randomness of its own. */
  readonly random: () => number;
  /** Largest IP packet, bytes. Default 1500. */
  readonly mtu?: number;
  /** What the device does. Default nothing: packets leave complete and no larger than the MTU. */
  readonly offload?: OutputOffload;
  /** Packet memory. Default: a slab of its own of 64 MiB. */
  readonly slab?: Slab;
  readonly tcp?: TcpOptions;
}

/** Counters and gauges of a stack. */
export interface StackStats {
  /** TCP flows by state, names of RFC 9293; states without a flow are left out. */
  readonly flows: Readonly<Record<string, number>>;
  /** Dropped packets by reason; reasons that never happened are left out. */
  readonly drops: Readonly<Record<string, number>>;
  readonly packetsIn: number;
  readonly packetsOut: number;
  readonly retransmits: number;
  readonly refused: RefusedCounts;
  /** Bytes in send, receive and reassembly queues. */
  readonly bytesBuffered: number;
  readonly blocks: { readonly total: number; readonly free: number };
  /** Datagrams that wait for more of their fragments, and the packet memory that they hold. */
  readonly fragments: { readonly datagrams: number; readonly bytes: number };
  /** Deadlines that are set. */
  readonly timersArmed: number;
  /** Always zero unless the stack is wrong. */
  readonly impossibleTransitions: number;
}

const OWN_SLAB_BYTES = 64 << 20;
const IPV6_MIN_MTU = 1280;
const NO_OFFLOAD: OutputOffload = { checksum: false, tso: false, uso: false };

export class Stack implements FlowStack {
  readonly slab: Slab;
  /** Packets for the device. The engine writes and clears it; others use `transmit()`. */
  readonly queue: TransmitQueue;
  /** Datagrams from clients; the owner takes all of them and calls `clear()`. */
  readonly inbox: DatagramInbox;
  /** Where `receive` puts its copies. */
  readonly #input: InputBlock;
  readonly #output: IpOutput;
  readonly #icmpErrors: IcmpErrors;
  readonly #reassembly: Reassembly;
  readonly #quote: IcmpQuote = new IcmpQuote();
  readonly #tcp: TcpContext;
  readonly #drops: Float64Array = new Float64Array(DROP_NAMES.length);
  readonly #packet: IpPacket = new IpPacket();
  readonly #segment: TcpSegment = new TcpSegment();
  readonly #datagram: UdpDatagram = new UdpDatagram();
  #packetsIn = 0;
  #closed = false;
  /** Packets of `queue` already handed out by `transmit()`. */
  #taken = 0;

  /** @throws RangeError for an option out of range */
  constructor(options: StackOptions) {
    const mtu = options.mtu ?? 1500;
    if (!(Number.isInteger(mtu) && mtu >= 68 && mtu <= 65535)) {
      throw new RangeError(`mtu is ${mtu}, expected an integer from 68 to 65535`);
    }
    this.slab = options.slab ?? new Slab(OWN_SLAB_BYTES);
    this.queue = new TransmitQueue(this.slab);
    this.inbox = new DatagramInbox(this.slab);
    this.#input = new InputBlock(this.slab, 0);
    this.#output = new IpOutput(this.queue, mtu, options.offload ?? NO_OFFLOAD, options.random);
    this.#icmpErrors = new IcmpErrors(this.#output, options.random);
    this.#reassembly = new Reassembly(this.slab, this.#icmpErrors, options.random(), this.#drops);
    this.#tcp = new TcpContext(
      this.slab,
      this.#output,
      this.#icmpErrors,
      options.tcp ?? {},
      options.random,
      this.#drops,
    );
  }

  /**
   * Takes one IP packet. The bytes are copied: they are the caller's again on return.
   * @param now monotonic time, ms
   * @returns whether the packet was taken; false when it was dropped (see `stats().drops`)
   */
  receive(packet: Uint8Array, now: number): boolean {
    if (this.#closed) return this.#drop(Drop.closed);
    if (packet.length > BLOCK_BYTES) return this.#drop(Drop.ipTruncated);
    const input = this.#input;
    if (!input.prepare(packet.length)) return this.#drop(Drop.tcpMemory);
    const start = input.position;
    const end = start + packet.length;
    this.slab.bytes.set(packet, start);
    input.advanceTo(end);
    return this.receiveReference(start, end, false, 0, now);
  }

  /**
   * Takes one IP packet at slab bytes [start, end); its block must be held by the caller during the call.
   * @param checksumTrusted whether the device vouches for the L4 checksum
   * @param segmentSize payload bytes per segment when the device joined several, else 0
   */
  receiveReference(start: number, end: number, checksumTrusted: boolean, segmentSize: number, now: number): boolean {
    if (this.#closed) return this.#drop(Drop.closed);
    this.#packetsIn++;
    this.#tcp.now = now;
    const packet = this.#packet;
    const drop = parseIp(this.slab, start, end, packet);
    if (drop !== Drop.none) return this.#dropPacket(packet, drop);
    // RFC 8200 §5: IPv6 needs links that take 1280 bytes; below that our segments would not fit.
    if (packet.version === 6 && this.#output.mtu < IPV6_MIN_MTU) return this.#drop(Drop.ipVersion);
    if (packet.isFragment) return this.#receiveFragment(packet);
    packet.checksumTrusted = checksumTrusted;
    packet.segmentSize = segmentSize;
    return this.#receiveWhole(packet);
  }

  #receiveFragment(packet: IpPacket): boolean {
    const result = this.#reassembly.receive(packet, this.#tcp.now);
    if (result === FragmentResult.held) return true;
    if (result === FragmentResult.dropped) {
      this.#tellSender(packet);
      this.#reassembly.settle();
      return false;
    }
    // What stood behind the fragment header of IPv6 may be more headers.
    const drop = packet.version === 6 ? walkExtensionHeaders(this.slab, packet, false) : Drop.none;
    const taken = drop === Drop.none ? this.#receiveWhole(packet) : this.#dropPacket(packet, drop);
    this.#reassembly.settle();
    return taken;
  }

  /** Takes a packet that is no fragment, or is one no more. */
  #receiveWhole(packet: IpPacket): boolean {
    switch (packet.protocol) {
      case Protocol.tcp:
        return this.#receiveTcp(packet);
      case Protocol.udp:
        return this.#receiveUdp(packet);
      default:
        return this.#receiveIcmp(packet);
    }
  }

  /** Drops a packet, and tells its sender when `errorType` says so. */
  #dropPacket(packet: IpPacket, reason: Drop): boolean {
    this.#tellSender(packet);
    return this.#drop(reason);
  }

  #tellSender(packet: IpPacket): void {
    if (packet.errorType < 0 || (packet.version === 6 && this.#output.mtu < IPV6_MIN_MTU)) return;
    if (this.#icmpErrors.sendAbout(packet, this.#tcp.now)) this.#drop(Drop.icmpRateLimit);
  }

  #drop(reason: Drop): boolean {
    this.#drops[reason] = (this.#drops[reason] as number) + 1;
    return false;
  }

  #receiveIcmp(packet: IpPacket): boolean {
    const quote = this.#quote;
    let drop = receiveIcmp(this.#output, packet, quote, this.#tcp.now);
    if (quote.mtu > 0) drop = onPathMtu(this.#tcp, quote.words, quote.ports, quote.seq, quote.mtu);
    return drop === Drop.none || this.#drop(drop);
  }

  /** Whether the L4 checksum is right, or need not be looked at. */
  #checksumIsGood(packet: IpPacket, protocol: number): boolean {
    if (packet.checksumTrusted) return true;
    const sum = sumBytes(this.slab, packet.payload, packet.end);
    return fold(sum + pseudoHeaderSum(packet, protocol, packet.end - packet.payload)) === 0xffff;
  }

  #receiveTcp(packet: IpPacket): boolean {
    const seg = this.#segment;
    const drop = parseTcp(this.slab, packet.payload, packet.end, seg);
    if (drop !== Drop.none) return this.#drop(drop);
    // RFC 9293 §3.1, MUST-3.
    if (!this.#checksumIsGood(packet, Protocol.tcp)) return this.#drop(Drop.tcpChecksum);
    if (seg.sourcePort === 0 || seg.destinationPort === 0) return this.#drop(Drop.tcpPort);
    const tcp = this.#tcp;
    const key = tcp.key;
    key[0] = packet.destination0;
    key[1] = packet.destination1;
    key[2] = packet.destination2;
    key[3] = packet.destination3;
    key[4] = packet.source0;
    key[5] = packet.source1;
    key[6] = packet.source2;
    key[7] = packet.source3;
    key[8] = (seg.destinationPort << 16) | seg.sourcePort;
    const slot = tcp.table.find(key);
    if (slot < 0) {
      segmentWithoutFlow(tcp, packet, seg);
      return true;
    }
    const tcb = tcp.tcbs[slot];
    if (tcb === null || tcb === undefined) {
      segmentInTimeWait(tcp, slot, packet, seg);
    } else if (tcb.state === State.listen) {
      segmentBeforeAccept(tcp, tcb, packet, seg);
    } else {
      const size = packet.segmentSize;
      segmentArrives(tcp, tcb, seg, size > 0 && seg.dataLen > size ? Math.ceil(seg.dataLen / size) : 1);
    }
    return true;
  }

  #receiveUdp(packet: IpPacket): boolean {
    const datagram = this.#datagram;
    const size = packet.segmentSize;
    const drop = parseUdp(this.slab, packet.payload, packet.end, size > 0, datagram);
    if (drop !== Drop.none) return this.#drop(drop);
    if (datagram.checksum === 0 && !packet.checksumTrusted) {
      // RFC 768: no checksum; RFC 8200 §8.1 forbids that for IPv6.
      if (packet.version === 6) return this.#drop(Drop.udpChecksum);
    } else {
      // The checksum covers the length by the UDP header; behind it there is padding at most.
      packet.end = datagram.data + datagram.dataLen;
      if (!this.#checksumIsGood(packet, Protocol.udp)) return this.#drop(Drop.udpChecksum);
    }
    if (datagram.destinationPort === 0) return this.#drop(Drop.udpPort);
    const { sourcePort, destinationPort, data, dataLen } = datagram;
    const step = size > 0 ? size : dataLen;
    let at = 0;
    do {
      const length = Math.min(step, dataLen - at);
      if (!this.inbox.push(packet, sourcePort, destinationPort, data + at, length))
        return this.#drop(Drop.udpQueueFull);
      at += step;
    } while (at < dataLen);
    return true;
  }

  /** Fires the timers that are due at `now`, ms. */
  handleTimeout(now: number): void {
    this.#tcp.now = now;
    expireTimers(this.#tcp);
    this.#reassembly.handleTimeout(now);
  }

  /** When `handleTimeout` is wanted, ms; `Infinity` when nothing is armed. May be early, never late. */
  nextTimeout(): number {
    return Math.min(this.#tcp.timers.next(), this.#tcp.timeWait.nextExpiry, this.#reassembly.nextTimeout());
  }

  /** Tells the stack the time before calls on flows that are not caused by a packet or a timer. */
  advance(now: number): void {
    this.#tcp.now = now;
  }

  /** The next flow with something to tell (`takeReady()`), or null. */
  nextReady(): TcpConnection | null {
    const ready = this.#tcp.ready;
    for (let tcb = ready.pop(); tcb !== undefined; tcb = ready.pop()) {
      tcb.isReadyListed = false;
      if (!tcb.released && tcb.ready !== 0) return tcb.connection;
    }
    return null;
  }

  /**
   * Puts what flows may send into `queue` and returns the number of packets in it. The caller writes them, clears the
   * queue, and calls again until the result is 0.
   */
  fill(): number {
    this.#tcp.feedStarved();
    const dirty = this.#tcp.dirty;
    let kept = 0;
    for (let i = 0; i < dirty.length; i++) {
      const tcb = dirty[i];
      if (tcb === undefined) continue;
      tcb.isDirty = false;
      if (!sendPending(this.#tcp, tcb)) {
        tcb.isDirty = true;
        dirty[kept++] = tcb;
      }
    }
    dirty.length = kept;
    return this.queue.count;
  }

  /** The next packet for the device, as a copy, or null. For owners that do not use `queue`. */
  transmit(): Uint8Array | null {
    if (this.#taken >= this.queue.count) {
      this.queue.clear();
      this.#taken = 0;
      if (this.fill() === 0) return null;
    }
    const i = this.#taken++;
    const packet = new Uint8Array(this.queue.packetLength(i));
    this.queue.copyPacket(i, packet);
    if (this.#taken === this.queue.count) {
      this.queue.clear();
      this.#taken = 0;
    }
    return packet;
  }

  /**
   * Sends a datagram to a client, from `length` bytes at slab `offset`. After `close()` it is dropped.
   * @param words address words; four from `local` on are the source the client sees, four from `remote` on the client
   */
  sendDatagram(
    words: Int32Array,
    local: number,
    localPort: number,
    remote: number,
    remotePort: number,
    offset: number,
    length: number,
  ): DatagramResult {
    if (this.#closed) {
      this.#drop(Drop.closed);
      return DatagramResult.sent;
    }
    const { now } = this.#tcp;
    const result = sendDatagram(this.#output, words, local, localPort, remote, remotePort, offset, length, now);
    if (result === DatagramResult.tooBig) this.#drop(Drop.udpLength);
    return result;
  }

  /**
   * Tells a UDP client that its datagram could not be delivered: port unreachable, the one message its kernel passes on.
   * @returns false when the rate limit is used up
   */
  sendPortUnreachable(
    words: Int32Array,
    local: number,
    localPort: number,
    remote: number,
    remotePort: number,
    length: number,
    now: number,
  ): boolean {
    if (this.#closed) return this.#drop(Drop.closed);
    if (!this.#icmpErrors.allow(now, words, remote)) return this.#drop(Drop.icmpRateLimit);
    const isIpv4 = words[local + 2] === 0xffff && words[local] === 0 && words[local + 1] === 0;
    return this.#icmpErrors.send(
      Unreachable.port,
      isIpv4,
      Protocol.udp,
      words,
      local,
      remote,
      localPort,
      remotePort,
      0,
      Math.min(length, 65535 - UDP_HEADER_LEN - 40),
    );
  }

  /**
   * Resets all flows, as far as the transmit queue has room for what that says to the clients.
   * @returns false when flows are left: write the queue and call again
   */
  reset(): boolean {
    for (const tcb of this.#tcp.tcbs) {
      if (tcb === null) continue;
      if (!this.queue.hasRoom()) return false;
      tcb.connection?.abort();
    }
    return true;
  }

  /** Forgets all flows without a word to anybody and gives all memory back. The stack takes no more packets. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const tcp = this.#tcp;
    for (const tcb of tcp.tcbs) {
      if (tcb === null) continue;
      tcb.released = true;
      tcp.detach(tcb, "FLOW_ABORTED");
    }
    while (tcp.timeWait.oldest >= 0) tcp.endTimeWait(tcp.timeWait.oldest);
    for (const tcb of tcp.ready) tcp.discardReceived(tcb);
    tcp.ready.length = 0;
    tcp.dirty.length = 0;
    tcp.starved.length = 0;
    for (const tcb of tcp.unread) tcp.discardReceived(tcb);
    this.inbox.clear();
    this.#reassembly.close();
    this.queue.close();
    this.#input.close();
    this.slab.trim();
  }

  /** Whether windows wait for memory that others hold: call `fill()` again in a few ms. */
  get isStarved(): boolean {
    return this.#tcp.starved.length > 0;
  }

  /** TCP flows but for those in TIME-WAIT. */
  get openFlows(): number {
    return this.#tcp.table.size - this.#tcp.timeWait.size;
  }

  /** Flows refused because of a limit: counters that go on, to be read as often as one likes. */
  get refused(): RefusedCounts {
    return this.#tcp.refused;
  }

  stats(): StackStats {
    const tcp = this.#tcp;
    const flows: Record<string, number> = {};
    for (const tcb of tcp.tcbs) {
      if (tcb === null) continue;
      const name = STATE_NAMES[tcb.state];
      flows[name] = (flows[name] ?? 0) + 1;
    }
    if (tcp.timeWait.size > 0) flows["TIME-WAIT"] = tcp.timeWait.size;
    const drops: Record<string, number> = {};
    this.#drops.forEach((count, reason) => {
      if (count > 0) drops[DROP_NAMES[reason] ?? "?"] = count;
    });
    return {
      flows,
      drops,
      packetsIn: this.#packetsIn,
      packetsOut: this.queue.total,
      retransmits: tcp.retransmits,
      refused: { ...tcp.refused },
      bytesBuffered: tcp.bytesBuffered,
      blocks: { total: this.slab.blocks, free: this.slab.available },
      fragments: { datagrams: this.#reassembly.size, bytes: this.#reassembly.heldBytes },
      timersArmed: tcp.timers.armed + tcp.timeWait.size + this.#reassembly.size,
      impossibleTransitions: tcp.impossibleTransitions,
    };
  }
}
