/**
 * The UDP relay: datagrams of clients through an upstream and back.
 *
 * Theory of operation. Mapping and filtering are endpoint-independent (RFC 4787 REQ-1, REQ-8: full cone): each client
 * endpoint has one association, whatever it talks to, and any sender's datagram comes back through it. Through SOCKS5 an
 * association is a control connection with UDP ASSOCIATE (RFC 1928 §6) and a datagram socket connected to the relay
 * address it names; the association lives as long as the control connection. Directly it is one datagram socket a family.
 *
 * What is held: per association two sockets and one small object; before the upstream has answered at most
 * `MAX_WAITING` datagrams, copied. At most `maxAssociations`; the one idle for longest goes first.
 *
 * Timers: one deadline for the upstream's answer; idle associations are looked for once a second.
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
import type { Logger } from "./logger.ts";
import { formatPlace, type ServerAddresses } from "./server-addresses.ts";
import { emitUdpHeader, parseUdpHeader, Socks5UdpHeader, Socks5UdpResult } from "./socks5-udp.ts";
import { Association, type Waiting } from "./udp-association.ts";
import { type Handshake, HandshakeStep, Refusal, type Upstream } from "./upstream.ts";

/** Words of a client endpoint: address and port. */
const KEY_WORDS = 5;
/** Datagrams kept while the upstream is being asked. */
const MAX_WAITING = 32;
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
  /** Idle time after which an association ends. */
  readonly idleMs: number;
  /** Time for connecting and for the answer. */
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
}

export class UdpRelay {
  readonly #sockets: Sockets;
  readonly #stack: FlowStack;
  readonly #options: UdpRelayOptions;
  /** Writes out the transmit queue when it is full. */
  readonly #drain: () => void;
  readonly #table: KeyTable;
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

  /** @param drain writes the stack's transmit queue to the device */
  constructor(sockets: Sockets, stack: FlowStack, options: UdpRelayOptions, drain: () => void) {
    this.#sockets = sockets;
    this.#stack = stack;
    this.#options = options;
    this.#drain = drain;
    this.#table = new KeyTable(KEY_WORDS, options.seed);
  }

  stats(): UdpRelayStats {
    return {
      associations: this.#table.size,
      datagramsUp: this.#datagramsUp,
      datagramsDown: this.#datagramsDown,
      dropped: this.#dropped,
      refused: this.#refused,
    };
  }

  advance(now: number): void {
    this.#now = now;
  }

  nextTimeout(): number {
    return this.#nextSweep;
  }

  /** Ends associations that are idle or whose upstream does not answer. */
  handleTimeout(): void {
    if (this.#now < this.#nextSweep) return;
    for (const association of this.#bySlot) {
      if (association === null) continue;
      if (association.handshake !== null && association.expiresAt <= this.#now) {
        if (this.#tryNext(association)) continue;
        this.#options.logger.warn(`${this.#options.upstream.label} did not answer UDP ASSOCIATE in time`);
        this.#refuse(association);
      } else if (association.usedAt + this.#idleMs(association) <= this.#now) {
        this.#end(association);
      }
    }
    this.#nextSweep = this.#table.size > 0 ? this.#now + SWEEP_MS : Number.POSITIVE_INFINITY;
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
    const association = slot < 0 ? this.#associate(inbox.remotePort[i] as number) : this.#bySlot[slot];
    if (association === null || association === undefined) {
      this.#sendUnreachable(i);
      return;
    }
    if (association.batch.length === 0) this.#touched.push(association);
    association.batch.push(i);
  }

  #forward(association: Association, i: number): void {
    const { inbox } = this.#stack;
    association.usedAt = this.#now;
    const port = inbox.localPort[i] as number;
    if (port !== DNS_PORT) association.dnsOnly = false;
    this.#setDestination(association, inbox.addresses, inbox.addressesAt(i) + DATAGRAM_LOCAL, port);
    const offset = inbox.offset[i] as number;
    const length = inbox.length[i] as number;
    if (association.waiting === null) {
      this.#send(association, association.address, port, offset, length);
    } else if (association.waiting.length < MAX_WAITING) {
      const bytes = this.#stack.slab.bytes.slice(offset, offset + length);
      association.waiting.push({ address: association.address, port, bytes });
    } else {
      this.#dropped++;
    }
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
    association.headLength = emitUdpHeader(association.head, 0, association.address, port);
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

  /** Makes an association for the client endpoint in `#key`; null when the upstream cannot be asked. */
  #associate(clientPort: number): Association | null {
    if (this.#now < this.#refusedUntil) return null;
    if (this.#table.size >= this.#options.maxAssociations) this.#evictIdlest();
    const words = new Int32Array(8);
    for (let i = 0; i < 4; i++) words[i] = this.#key[i] as number;
    const slot = this.#table.add(this.#key);
    const expiresAt = this.#now + this.#options.handshakeTimeoutMs;
    const association = new Association(slot, words, clientPort, this.#now, expiresAt);
    while (this.#bySlot.length <= slot) this.#bySlot.push(null);
    this.#bySlot[slot] = association;
    if (this.#nextSweep === Number.POSITIVE_INFINITY) this.#nextSweep = this.#now + SWEEP_MS;
    if (this.#options.upstream.udp === "direct") {
      association.waiting = null;
      return association;
    }
    return this.#startControl(association, this.#options.servers.preferred) ? association : null;
  }

  /** Connects to the proxy at address `index`, or to the next one that does not fail at once. */
  #startControl(association: Association, index: number): boolean {
    const { upstream, servers, logger } = this.#options;
    const handshake = upstream.associate();
    if (handshake === null || upstream.server === null) {
      this.#end(association);
      return false;
    }
    const first = handshake.start();
    const place = servers.at(index);
    association.attempts++;
    const handle = this.#sockets.connect(place.target, place.port, first);
    if (handle < 0) {
      if (association.attempts < servers.count) return this.#startControl(association, servers.after(index));
      logger.warn(`Cannot connect to the proxy at ${formatPlace(place)} for UDP (${errnoName(handle)})`);
      this.#end(association);
      return false;
    }
    association.control = handle;
    association.server = index;
    association.handshake = handshake;
    association.greeted = this.#sockets.firstSent === first.length;
    association.connected = association.greeted;
    this.#setHandle(handle, association);
    return true;
  }

  #setHandle(handle: number, association: Association | null): void {
    while (this.#byHandle.length <= handle) this.#byHandle.push(null);
    this.#byHandle[handle] = association;
  }

  #evictIdlest(): void {
    let idlest: Association | null = null;
    for (const association of this.#bySlot) {
      if (association !== null && (idlest === null || association.usedAt < idlest.usedAt)) idlest = association;
    }
    if (idlest !== null) this.#end(idlest);
  }

  /** Whether `handle` belongs to an association. */
  has(handle: number): boolean {
    return this.#byHandle[handle] !== null && this.#byHandle[handle] !== undefined;
  }

  onConnected(handle: number): void {
    const association = this.#byHandle[handle] as Association;
    association.connected = true;
    this.#options.servers.worked(association.server);
    if (association.greeted || association.handshake === null) return;
    association.greeted = true;
    this.#write(handle, association.handshake.start());
  }

  #write(handle: number, bytes: Uint8Array): void {
    if (this.#sockets.writeBytes(handle, bytes)) return;
    this.#sockets.flush();
    this.#sockets.writeBytes(handle, bytes);
  }

  /** The control connection answers. */
  onData(handle: number, offset: number, length: number): void {
    const association = this.#byHandle[handle] as Association;
    const { handshake } = association;
    // RFC 1928 §6: after the reply nothing more is expected on it.
    if (handshake === null) return;
    switch (handshake.receive(this.#stack.slab.bytes, offset, offset + length)) {
      case HandshakeStep.more:
        return;
      case HandshakeStep.send:
        this.#write(handle, handshake.out);
        return;
      case HandshakeStep.done:
        this.#onAssociated(association, handshake);
        return;
      default: {
        const { upstream, logger } = this.#options;
        logger.warn(`${upstream.label} does not relay UDP: ${handshake.reason}`);
        // A proxy that has relayed UDP before is only in trouble now.
        if (handshake.refusal !== Refusal.proxyFault && !this.#hasWorked) this.#refusedUntil = this.#now + REFUSED_MS;
        this.#refuse(association);
      }
    }
  }

  #onAssociated(association: Association, handshake: Handshake): void {
    association.handshake = null;
    this.#hasWorked = true;
    const peer = this.#sockets.peer(association.control);
    const bound = handshake.bound;
    // RFC 1928 leaves an unspecified BND.ADDR open; proxies mean the address they were reached at. So do names.
    const usable = bound !== null && typeof bound.host !== "string" && !isUnspecified(bound.host);
    const address = usable ? (bound.host as IpBytes) : peer?.address;
    if (address === undefined || bound === null || bound.port === 0) {
      this.#options.logger.warn(`${this.#options.upstream.label} named no address for UDP`);
      this.#refuse(association);
      return;
    }
    const handle = this.#sockets.openDatagram(address.length === 4 ? 4 : 6, address, bound.port);
    if (handle < 0) {
      this.#options.logger.warn(
        `Cannot open a UDP socket to ${formatEndpoint(address, bound.port)} (${errnoName(handle)})`,
      );
      this.#refuse(association);
      return;
    }
    association.ipv4 = handle;
    this.#setHandle(handle, association);
    const waiting = association.waiting ?? [];
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
      this.#options.logger.warn(`Cannot open a UDP socket (${errnoName(handle)})`);
      return -1;
    }
    if (family === 4) association.ipv4 = handle;
    else association.ipv6 = handle;
    this.#setHandle(handle, association);
    return handle;
  }

  /** A datagram came back. */
  onDatagram(handle: number, offset: number, length: number): void {
    const association = this.#byHandle[handle] as Association;
    association.usedAt = this.#now;
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
    if (result === DatagramResult.sent) this.#datagramsDown++;
    else this.#dropped++;
  }

  /**
   * A datagram socket reports an error. Of a SOCKS5 relay it means that nobody listens there any more; a destination's own
   * refusal (`sockets.sender` names it) goes on to the client.
   */
  onDatagramError(handle: number, errno: number): void {
    const association = this.#byHandle[handle] as Association;
    if (this.#options.upstream.udp === "associate") {
      if (errno === Errno.ECONNREFUSED) this.#end(association);
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
    const association = this.#byHandle[handle] as Association;
    if (association.handshake !== null) this.#refuse(association);
    else this.#end(association);
  }

  onError(handle: number, errno: number): void {
    const association = this.#byHandle[handle] as Association;
    if (association.handshake !== null) {
      if (this.#tryNext(association)) return;
      this.#options.logger.warn(`Cannot reach ${this.#options.upstream.label} for UDP (${errnoName(-errno)})`);
      this.#refuse(association);
    } else {
      this.#end(association);
    }
  }

  /** Connects to the proxy's next address; false when the failed one was reached, or all were tried. */
  #tryNext(association: Association): boolean {
    const { servers } = this.#options;
    if (association.connected || association.attempts >= servers.count) return false;
    this.#byHandle[association.control] = null;
    this.#sockets.close(association.control);
    association.control = -1;
    association.expiresAt = this.#now + this.#options.handshakeTimeoutMs;
    return this.#startControl(association, servers.after(association.server));
  }

  /** Ends an association that did not come about, and tells the client for each datagram that waited. */
  #refuse(association: Association): void {
    const { words, clientPort } = association;
    for (const { address, port, bytes } of association.waiting ?? []) {
      addressToWords(address, words, 4);
      this.#refused++;
      this.#stack.sendPortUnreachable(words, 4, port, 0, clientPort, bytes.length, this.#now);
    }
    this.#end(association);
  }

  #end(association: Association): void {
    if (this.#bySlot[association.slot] !== association) return;
    this.#bySlot[association.slot] = null;
    this.#table.remove(association.slot);
    for (const handle of [association.control, association.ipv4, association.ipv6]) {
      if (handle < 0) continue;
      this.#byHandle[handle] = null;
      this.#sockets.close(handle);
    }
  }
}
