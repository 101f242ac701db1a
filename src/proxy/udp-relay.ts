/**
 * The UDP relay: datagrams of clients through an upstream and back.
 *
 * Theory of operation. Mapping and filtering are endpoint-independent (RFC 4787 REQ-1, REQ-8: full cone): each client
 * endpoint has one association, whatever it talks to, and any sender's datagram comes back through it. Through SOCKS5 an
 * association is a control connection with UDP ASSOCIATE (RFC 1928 §6) and a datagram socket connected to the relay
 * address it names; the association lives as long as the control connection. Directly it is one datagram socket a family.
 *
 * What is held: per association two sockets and one small object; before the upstream has answered at most
 * `MAX_WAITING` datagrams, copied. At most `maxAssociations`; who makes room for more, see `udp-order.ts`.
 *
 * Timers: those of the dialer; idle associations are looked for once a second.
 */
import { Errno, errnoName } from "../io/addon.ts";
import type { Sockets } from "../io/sockets.ts";
import {
  addressFromWords,
  addressToWords,
  formatEndpoint,
  type IpBytes,
  isIpv4Words,
  isUnspecified,
} from "../stack/flow/address.ts";
import { DATAGRAM_LOCAL, DATAGRAM_REMOTE, DatagramResult, type FlowStack } from "../stack/flow/flow.ts";
import { KeyTable } from "../stack/flow/key-table.ts";
import type { DialLimits } from "./dial-limits.ts";
import { Dialer, type DialOwner } from "./dialer.ts";
import { LimitNotice } from "./limit-notice.ts";
import type { FlowEnd, Logger } from "./logger.ts";
import type { ServerAddresses, ServerPlace } from "./server-addresses.ts";
import { emitUdpHeader, parseUdpHeader, Socks5UdpHeader, Socks5UdpResult } from "./socks5-udp.ts";
import { Association, type Waiting } from "./udp-association.ts";
import { UdpOrder } from "./udp-order.ts";
import { type Handshake, Refusal, type Upstream } from "./upstream.ts";

/** Words of a client endpoint: address and port. */
const KEY_WORDS = 5;
/** Datagrams kept while the upstream is being asked. */
const MAX_WAITING = 32;
/** What all datagrams that wait for an association may take: this part of the packet memory, as a shift. */
const WAITING_SHIFT = 3;
/** How often idle associations are looked for. */
const SWEEP_MS = 1000;
/** What the network says of a destination that cannot be reached. */
const REFUSING: ReadonlySet<number> = new Set([
  Errno.ECONNREFUSED,
  Errno.EHOSTUNREACH,
  Errno.ENETUNREACH,
  Errno.EACCES,
  Errno.EPERM,
]);
/** Where a proxy is that was reached through a Unix socket. */
const LOOPBACK: IpBytes = Uint8Array.of(127, 0, 0, 1);
const DNS_PORT = 53;
/** Idle time of an association that only ever talked to port 53 (RFC 4787 REQ-5 allows less for well-known ports). */
const DNS_IDLE_MS = 10_000;
/** How long a proxy that refuses UDP ASSOCIATE is not asked again. */
const REFUSED_MS = 5000;

export interface UdpRelayOptions {
  readonly upstream: Upstream;
  /** Addresses of the upstream's server; empty for `direct://`. */
  readonly servers: ServerAddresses;
  readonly logger: Logger;
  /** Shared with the relay of TCP. */
  readonly limits: DialLimits;
  /** Idle time after which an association ends. */
  readonly idleMs: number;
  readonly connectTimeoutMs: number;
  readonly handshakeTimeoutMs: number;
  readonly maxAssociations: number;
  /** Secret for the table. */
  readonly seed: number;
}

/** Counters of the UDP relay. */
export interface UdpRelayStats {
  readonly associations: number;
  readonly datagramsUp: number;
  readonly datagramsDown: number;
  /** Dropped on the way: malformed, fragments, too large, no room. */
  readonly dropped: number;
  readonly refused: number;
  /** Associations that made room for others. */
  readonly evicted: number;
}

export class UdpRelay implements DialOwner<Association> {
  readonly #sockets: Sockets;
  readonly #stack: FlowStack;
  readonly #options: UdpRelayOptions;
  /** Writes out the transmit queue when it is full. */
  readonly #drain: () => void;
  readonly #table: KeyTable;
  readonly #order: UdpOrder;
  readonly #full: LimitNotice = new LimitNotice();
  readonly #dialer: Dialer<Association>;
  readonly #key: Int32Array = new Int32Array(KEY_WORDS);
  readonly #bySlot: (Association | null)[] = [];
  /** Association by socket handle, control or datagram. */
  readonly #byHandle: (Association | null)[] = [];
  /** Associations with datagrams in the inbox. */
  readonly #touched: Association[] = [];
  readonly #header: Socks5UdpHeader = new Socks5UdpHeader();
  #now = 0;
  #nextSweep = Number.POSITIVE_INFINITY;
  #refusedUntil = 0;
  /** Whether the proxy has ever granted an association. */
  #hasWorked = false;
  #datagramsUp = 0;
  #datagramsDown = 0;
  #dropped = 0;
  #refused = 0;
  #evicted = 0;
  #waitingBytes = 0;
  readonly #maxWaitingBytes: number;

  /** @param drain writes the stack's transmit queue to the device */
  constructor(sockets: Sockets, stack: FlowStack, options: UdpRelayOptions, drain: () => void) {
    this.#sockets = sockets;
    this.#stack = stack;
    this.#maxWaitingBytes = stack.slab.bytes.length >> WAITING_SHIFT;
    this.#options = options;
    this.#drain = drain;
    this.#table = new KeyTable(KEY_WORDS, options.seed);
    this.#order = new UdpOrder(options.maxAssociations, options.seed);
    const { upstream, servers, limits, connectTimeoutMs, handshakeTimeoutMs: answerTimeoutMs } = options;
    this.#dialer = new Dialer<Association>(
      sockets,
      stack.slab.bytes,
      { upstream, servers, limits, pipelining: null, connectTimeoutMs, answerTimeoutMs },
      this,
    );
  }

  stats(): UdpRelayStats {
    return {
      associations: this.#table.size,
      datagramsUp: this.#datagramsUp,
      datagramsDown: this.#datagramsDown,
      dropped: this.#dropped,
      refused: this.#refused,
      evicted: this.#evicted,
    };
  }

  advance(now: number): void {
    this.#now = now;
    this.#dialer.advance(now);
  }

  nextTimeout(): number {
    return Math.min(this.#dialer.nextTimeout(), this.#nextSweep);
  }

  /** Ends associations that are idle or whose upstream does not answer. */
  handleTimeout(): void {
    this.#dialer.handleTimeout();
    if (this.#now < this.#nextSweep) return;
    for (const association of this.#bySlot) {
      if (association === null || association.usedAt + this.#idleMs(association) > this.#now) continue;
      this.#end(association, "closed", "");
    }
    this.#nextSweep = this.#table.size > 0 ? this.#now + SWEEP_MS : Number.POSITIVE_INFINITY;
  }

  /** Gives up everything; the sockets are their owner's matter. */
  stop(): void {
    for (const association of this.#bySlot) if (association !== null) this.#end(association, "stopped", "");
  }

  #idleMs(association: Association): number {
    return association.dnsOnly ? Math.min(DNS_IDLE_MS, this.#options.idleMs) : this.#options.idleMs;
  }

  /** Passes on what clients have sent. */
  takeInbox(): void {
    const { inbox } = this.#stack;
    if (inbox.count === 0) return;
    for (let i = 0; i < inbox.count; i++) this.#onClientDatagram(i);
    // All of one association together: they leave in one system call.
    for (const association of this.#touched) {
      for (const i of association.batch) {
        // It may have made room for another one since.
        if (this.#bySlot[association.slot] === association) this.#forward(association, i);
        else this.#dropped++;
      }
      association.batch.length = 0;
    }
    this.#touched.length = 0;
    // The payload is referred to until it is sent.
    this.#sockets.flush();
    inbox.clear();
  }

  #onClientDatagram(i: number): void {
    const { inbox } = this.#stack;
    if (this.#options.upstream.udp === "none") {
      this.#sendUnreachable(i);
      return;
    }
    const at = inbox.addressesAt(i);
    const words = inbox.addresses;
    const key = this.#key;
    for (let word = 0; word < 4; word++) key[word] = words[at + DATAGRAM_REMOTE + word] as number;
    key[4] = inbox.remotePort[i] as number;
    const slot = this.#table.find(key);
    const association = slot < 0 ? this.#associate(i) : this.#bySlot[slot];
    if (association === null || association === undefined) {
      this.#sendUnreachable(i);
      return;
    }
    if (association.batch.length === 0) this.#touched.push(association);
    association.batch.push(i);
  }

  #forward(association: Association, i: number): void {
    const { inbox } = this.#stack;
    this.#use(association);
    const port = inbox.localPort[i] as number;
    if (port !== DNS_PORT) association.dnsOnly = false;
    this.#setDestination(association, inbox.addresses, inbox.addressesAt(i) + DATAGRAM_LOCAL, port);
    const offset = inbox.offset[i] as number;
    const length = inbox.length[i] as number;
    if (association.waiting === null) {
      this.#send(association, association.address, port, offset, length);
    } else if (association.waiting.length < MAX_WAITING && this.#waitingBytes + length <= this.#maxWaitingBytes) {
      this.#waitingBytes += length;
      const bytes = this.#stack.slab.bytes.slice(offset, offset + length);
      association.waiting.push({ address: association.address, port, bytes });
    } else {
      this.#dropped++;
    }
  }

  #use(association: Association): void {
    association.usedAt = this.#now;
    this.#order.touch(association.slot);
  }

  /** Makes the address and the header for a destination, unless it is the last one again. */
  #setDestination(association: Association, words: Int32Array, at: number, port: number): void {
    const { to } = association;
    const isSame =
      association.toPort === port &&
      to[3] === words[at + 3] &&
      to[2] === words[at + 2] &&
      to[1] === words[at + 1] &&
      to[0] === words[at];
    if (isSame) return;
    for (let word = 0; word < 4; word++) to[word] = words[at + word] as number;
    association.toPort = port;
    association.address = addressFromWords(words, at);
    this.#noteDestination(association, port);
    association.headLength = emitUdpHeader(association.head, 0, association.address, port);
  }

  #noteDestination(association: Association, port: number): void {
    const { address, firstAddress } = association;
    if (association.hasOthers) return;
    association.hasOthers = port !== association.firstPort || !address.every((byte, i) => byte === firstAddress[i]);
  }

  #sendUnreachable(i: number): void {
    const { inbox } = this.#stack;
    const at = inbox.addressesAt(i);
    this.#refused++;
    this.#stack.sendPortUnreachable(
      inbox.addresses,
      at + DATAGRAM_LOCAL,
      inbox.localPort[i] as number,
      at + DATAGRAM_REMOTE,
      inbox.remotePort[i] as number,
      inbox.length[i] as number,
      this.#now,
    );
  }

  /** Makes an association for the client of datagram `i`, in `#key`; null when the upstream cannot be asked. */
  #associate(i: number): Association | null {
    const { inbox } = this.#stack;
    if (this.#now < this.#refusedUntil) return null;
    if (this.#table.size >= this.#options.maxAssociations) this.#makeRoom();
    const words = new Int32Array(8);
    for (let word = 0; word < 4; word++) words[word] = this.#key[word] as number;
    const slot = this.#table.add(this.#key);
    const association = new Association(slot, words, inbox.remotePort[i] as number, this.#now);
    association.firstAddress = addressFromWords(inbox.addresses, inbox.addressesAt(i) + DATAGRAM_LOCAL);
    association.firstPort = inbox.localPort[i] as number;
    while (this.#bySlot.length <= slot) this.#bySlot.push(null);
    this.#bySlot[slot] = association;
    this.#order.add(slot, words);
    if (this.#nextSweep === Number.POSITIVE_INFINITY) this.#nextSweep = this.#now + SWEEP_MS;
    if (this.#options.upstream.udp === "direct") this.#open(association);
    else this.#dialer.dial(association);
    // It may have been refused at once.
    return this.#bySlot[slot] === association ? association : null;
  }

  /** Opens the socket of an association without a proxy; without one the client is to learn of it. */
  #open(association: Association): void {
    association.waiting = null;
    const family = association.firstAddress.length === 4 ? 4 : 6;
    if (this.#directSocket(association, family) < 0) this.#refuse(association, `no UDP socket for IPv${family}`);
  }

  #makeRoom(): void {
    const { maxAssociations, logger } = this.#options;
    if (this.#full.meet(this.#now)) {
      const most = `${maxAssociations} UDP clients at a time are all that is allowed`;
      logger.warn(`${most}: those that were idle for longest are forgotten; --max-udp allows more`);
    }
    const idlest = this.#bySlot[this.#order.victim(this.#key)];
    if (idlest === null || idlest === undefined) return;
    this.#evicted++;
    this.#end(idlest, "evicted", "");
  }

  #setHandle(handle: number, association: Association | null): void {
    while (this.#byHandle.length <= handle) this.#byHandle.push(null);
    this.#byHandle[handle] = association;
  }

  /** @hidden */
  handshake(): Handshake | null {
    return this.#options.upstream.associate();
  }

  /** @hidden */
  destination(): ServerPlace {
    throw new Error("UDP without a proxy is not dialled");
  }

  /** @hidden */
  onHandle(association: Association, handle: number): void {
    if (association.control >= 0) this.#byHandle[association.control] = null;
    association.control = handle;
    if (handle >= 0) this.#setHandle(handle, association);
  }

  /** @hidden */
  onTurnedAway(association: Association, reason: string): void {
    this.#refuse(association, reason);
  }

  /** @hidden */
  onRefused(association: Association, refusal: Refusal, reason: string): void {
    const { upstream, logger } = this.#options;
    if (refusal === Refusal.proxyFault) {
      logger.warn(`No UDP: ${reason}`);
    } else {
      logger.warn(`${upstream.label} does not relay UDP: ${reason}`);
      // A proxy that has relayed UDP before is only in trouble now.
      if (!this.#hasWorked) this.#refusedUntil = this.#now + REFUSED_MS;
    }
    this.#refuse(association, reason);
  }

  /** Whether `handle` belongs to an association. */
  has(handle: number): boolean {
    return this.#byHandle[handle] !== null && this.#byHandle[handle] !== undefined;
  }

  onConnected(handle: number): void {
    if (this.#isDialling(handle)) this.#dialer.onConnected(handle);
  }

  /** Whether `handle` is a control connection whose proxy has not answered yet. */
  #isDialling(handle: number): boolean {
    return this.#byHandle[handle]?.waiting !== null;
  }

  /** The control connection answers. RFC 1928 §6: after the reply nothing more is expected on it. */
  onData(handle: number, offset: number, length: number): void {
    if (this.#isDialling(handle)) this.#dialer.onData(handle, offset, length);
  }

  /** A write to the control connection was carried out. */
  onSent(handle: number, sent: number, length: number): void {
    if (this.#isDialling(handle)) this.#dialer.onSent(handle, sent, length);
  }

  /** @hidden The proxy has granted the association. */
  onOpen(association: Association, control: number, handshake: Handshake | null): void {
    this.#hasWorked = true;
    const { upstream } = this.#options;
    const bound = handshake?.bound ?? null;
    // RFC 1928 leaves an unspecified BND.ADDR open; proxies mean the address they were reached at. So do names.
    const usable = bound !== null && typeof bound.host !== "string" && !isUnspecified(bound.host);
    // A proxy behind a Unix socket is on this machine.
    const reachedAt = upstream.server?.kind === "unix" ? LOOPBACK : (this.#sockets.peer(control)?.address ?? null);
    const address = usable ? (bound.host as IpBytes) : reachedAt;
    if (bound === null || bound.port === 0 || address === null) {
      const reason = `${upstream.label} named no address for UDP`;
      this.#options.logger.warn(reason);
      this.#refuse(association, reason);
      return;
    }
    const handle = this.#sockets.openDatagram(address.length === 4 ? 4 : 6, address, bound.port);
    if (handle < 0) {
      this.#refuse(association, this.#cannotOpen(`to ${formatEndpoint(address, bound.port)}`, handle));
      return;
    }
    association.ipv4 = handle;
    this.#setHandle(handle, association);
    const waiting = association.waiting ?? [];
    this.#forgetWaiting(association);
    association.waiting = null;
    for (const datagram of waiting) this.#sendCopy(association, datagram);
    association.toPort = -1;
  }

  #sendCopy(association: Association, datagram: Waiting): void {
    const { slab } = this.#stack;
    const block = slab.take();
    if (block < 0) {
      this.#dropped++;
      return;
    }
    slab.bytes.set(datagram.bytes, block);
    association.headLength = emitUdpHeader(association.head, 0, datagram.address, datagram.port);
    this.#send(association, datagram.address, datagram.port, block, datagram.bytes.length);
    this.#sockets.flush();
    slab.release(block);
  }

  #send(association: Association, address: IpBytes, port: number, offset: number, length: number): void {
    this.#datagramsUp++;
    association.bytesUp += length;
    if (this.#options.upstream.udp === "associate") {
      const { ipv4, head, headLength } = association;
      this.#sockets.sendDatagram(ipv4, null, 0, head, headLength, offset, length);
      return;
    }
    const handle = this.#directSocket(association, address.length === 4 ? 4 : 6);
    if (handle < 0) this.#dropped++;
    else this.#sockets.sendDatagram(handle, address, port, null, 0, offset, length);
  }

  #directSocket(association: Association, family: 4 | 6): number {
    const existing = family === 4 ? association.ipv4 : association.ipv6;
    if (existing >= 0) return existing;
    const handle = this.#sockets.openDatagram(family, null, 0);
    if (handle < 0) {
      this.#cannotOpen(`for IPv${family}`, handle);
      return -1;
    }
    if (family === 4) association.ipv4 = handle;
    else association.ipv6 = handle;
    this.#setHandle(handle, association);
    return handle;
  }

  /** Says why there is no datagram socket, and returns it. */
  #cannotOpen(what: string, result: number): string {
    const { limits, logger } = this.#options;
    const text = `Cannot open a UDP socket ${what} (${errnoName(result)})`;
    if (!limits.isOutOfDescriptors(-result)) logger.warn(text);
    return text;
  }

  /** A datagram came back. */
  onDatagram(handle: number, offset: number, length: number): void {
    const association = this.#byHandle[handle] as Association;
    this.#use(association);
    const { words } = association;
    if (this.#options.upstream.udp === "direct") {
      const { sender } = this.#sockets;
      words.set(sender.words, 4);
      this.#toClient(association, sender.port, offset, length);
      return;
    }
    const header = this.#header;
    const { slab } = this.#stack;
    if (parseUdpHeader(slab.bytes, offset, offset + length, header) !== Socks5UdpResult.ok) {
      // RFC 1928 §7: fragments are dropped by who does not reassemble them; a sender with a name has no address.
      this.#dropped++;
      return;
    }
    if (header.addressLength === 4) {
      words[4] = 0;
      words[5] = 0;
      words[6] = 0xffff;
      words[7] = slab.view.getInt32(header.addressStart);
    } else {
      for (let i = 0; i < 4; i++) words[4 + i] = slab.view.getInt32(header.addressStart + 4 * i);
    }
    this.#toClient(association, header.port, header.payloadStart, offset + length - header.payloadStart);
  }

  #toClient(association: Association, sourcePort: number, offset: number, length: number): void {
    const { words, clientPort } = association;
    // A sender of the other family cannot appear on the client's side.
    if (isIpv4Words(words, 0) !== isIpv4Words(words, 4)) {
      this.#dropped++;
      return;
    }
    let result = this.#stack.sendDatagram(words, 4, sourcePort, 0, clientPort, offset, length);
    if (result === DatagramResult.full) {
      this.#drain();
      result = this.#stack.sendDatagram(words, 4, sourcePort, 0, clientPort, offset, length);
    }
    if (result === DatagramResult.sent) {
      this.#datagramsDown++;
      association.bytesDown += length;
    } else {
      this.#dropped++;
    }
  }

  /**
   * A datagram socket reports an error. Of a SOCKS5 relay it means that nobody listens there any more; a destination's own
   * refusal (`sockets.sender` names it) goes on to the client.
   */
  onDatagramError(handle: number, errno: number): void {
    const association = this.#byHandle[handle] as Association;
    if (this.#options.upstream.udp === "associate") {
      if (errno === Errno.ECONNREFUSED) this.#end(association, "reset-by-upstream", "nobody relays there any more");
      return;
    }
    const { sender } = this.#sockets;
    if (sender.port === 0 || !REFUSING.has(errno)) return;
    const { words, clientPort } = association;
    words.set(sender.words, 4);
    this.#refused++;
    this.#stack.sendPortUnreachable(words, 4, sender.port, 0, clientPort, 0, this.#now);
  }

  /** RFC 1928 §6: the association ends with its control connection. */
  onEnd(handle: number): void {
    if (this.#isDialling(handle)) this.#dialer.onEnd(handle);
    else this.#end(this.#byHandle[handle] as Association, "closed", "the proxy ended it");
  }

  onError(handle: number, errno: number): void {
    if (this.#isDialling(handle)) this.#dialer.onError(handle, errno);
    else this.#end(this.#byHandle[handle] as Association, "reset-by-upstream", errnoName(errno));
  }

  /** Ends an association that did not come about, and tells the client for each datagram that waited. */
  #refuse(association: Association, reason: string): void {
    const { words, clientPort } = association;
    for (const { address, port, bytes } of association.waiting ?? []) {
      addressToWords(address, words, 4);
      this.#refused++;
      this.#stack.sendPortUnreachable(words, 4, port, 0, clientPort, bytes.length, this.#now);
    }
    this.#end(association, "refused", reason);
  }

  #end(association: Association, end: FlowEnd, reason: string): void {
    const { slot, control } = association;
    if (this.#bySlot[slot] !== association) return;
    if (control >= 0 && association.waiting !== null) this.#dialer.cancel(control);
    this.#forgetWaiting(association);
    this.#bySlot[slot] = null;
    this.#order.remove(slot);
    this.#table.remove(slot);
    for (const handle of [association.control, association.ipv4, association.ipv6]) {
      if (handle < 0) continue;
      this.#byHandle[handle] = null;
      this.#sockets.close(handle);
    }
    if (this.#options.logger.flow !== undefined) this.#tell(association, end, reason);
  }

  /** Takes what waits for an association out of the account. */
  #forgetWaiting(association: Association): void {
    for (const { bytes } of association.waiting ?? []) this.#waitingBytes -= bytes.length;
  }

  #tell(association: Association, end: FlowEnd, reason: string): void {
    const { words, clientPort, hasOthers, firstAddress, firstPort, bytesUp, bytesDown } = association;
    this.#options.logger.flow?.({
      protocol: "udp",
      client: formatEndpoint(addressFromWords(words, 0), clientPort),
      destination: hasOthers ? "*" : formatEndpoint(firstAddress, firstPort),
      upstream: this.#options.upstream.label,
      end,
      ...(reason === "" ? {} : { reason }),
      durationMs: Math.round(this.#now - association.startedAt),
      bytesUp,
      bytesDown,
    });
  }
}
