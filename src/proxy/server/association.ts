/**
 * A UDP association (RFC 1928 §7) of the embedded proxy.
 *
 * Theory of operation.
 *
 *     client  <── header + data ──>  inner socket │ outer socket, one per family on demand  <── data ──>  hosts
 *
 * The inner socket is bound to the address the client reached us on. Datagrams of the control connection's address are
 * taken, from one port: the one announced, or the first that sends. Each outer socket keeps its port for the life of the
 * association and whoever sends to it is heard: endpoint-independent mapping and filtering (RFC 4787 §4, §5).
 * Held: the sockets, the last header each way, no datagram (what the kernel does not take is queued by libuv up to 1 MiB,
 * then dropped). One timer: the idle one, armed at the start, put off by datagrams in either direction; expiry closes.
 */
import dgram from "node:dgram";
import { formatAddress, parseAddress } from "../../stack/flow/address.ts";
import { emitUdpHeader, parseUdpHeader, Socks5UdpHeader, Socks5UdpResult, udpHeaderLength } from "../socks5-udp.ts";
import { isPrivateAddress, unmapAddress, withoutZone } from "./allow.ts";
import type { ServerContext } from "./context.ts";
import { nameText } from "./socks5-request.ts";

/** Asked of the kernel for bursts, bytes; it gives what `net.core.rmem_max` allows. */
const SOCKET_BUFFER_BYTES = 1 << 20;
/** Waiting in libuv to be sent; beyond it datagrams are dropped early. */
const MAX_QUEUED_BYTES = 1 << 20;
const UNSPECIFIED = new Uint8Array(4);

export interface AssociationEvents {
  /** @param port BND.PORT */
  onOpen(port: number): void;
  /** @param code an errno name */
  onFailed(code: string): void;
  onIdle(): void;
}

export class Association {
  readonly #context: ServerContext;
  readonly #clientAddress: string;
  /** 0 until the first datagram, when the request named none. */
  #clientPort: number;
  readonly #events: AssociationEvents;
  readonly #inner: dgram.Socket;
  #outer4: dgram.Socket | null = null;
  #outer6: dgram.Socket | null = null;
  readonly #header: Socks5UdpHeader = new Socks5UdpHeader();
  #closed = false;
  #lastAt: number;
  #idleTimer: NodeJS.Timeout;
  /** The last destination's bytes (ATYP and ADDR as they came) and its text, so that a flow formats it once. */
  #destinationBytes: Uint8Array = new Uint8Array(0);
  #destination = "";
  /** The last source and its header. */
  #source = "";
  #sourcePort = -1;
  #sourceHeader: Uint8Array = new Uint8Array(0);

  constructor(
    context: ServerContext,
    clientAddress: string,
    clientPort: number,
    serverAddress: string,
    events: AssociationEvents,
  ) {
    this.#context = context;
    this.#clientAddress = clientAddress;
    this.#clientPort = clientPort;
    this.#events = events;
    this.#lastAt = Date.now();
    this.#idleTimer = setTimeout(() => this.#onIdleTimer(), context.udpTimeoutMs);
    context.associations++;
    this.#inner = openSocket(serverAddress.includes(":") ? "udp6" : "udp4");
    this.#inner.on("message", (datagram, from) => this.#onInner(datagram, from));
    this.#inner.on("error", (error: NodeJS.ErrnoException) => this.#onInnerError(error));
    this.#inner.bind({ address: serverAddress, port: 0, exclusive: true }, () => {
      if (!this.#closed) events.onOpen(this.#inner.address().port);
    });
  }

  /** Closes the sockets; may be called again. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#idleTimer);
    this.#context.associations--;
    this.#inner.close();
    this.#outer4?.close();
    this.#outer6?.close();
  }

  #onInnerError(error: NodeJS.ErrnoException): void {
    if (this.#closed) return;
    this.close();
    this.#events.onFailed(error.code ?? "EIO");
  }

  #onIdleTimer(): void {
    const idleAt = this.#lastAt + this.#context.udpTimeoutMs;
    const now = Date.now();
    if (now >= idleAt) this.#events.onIdle();
    else this.#idleTimer = setTimeout(() => this.#onIdleTimer(), idleAt - now);
  }

  #drop(): void {
    this.#context.counters.datagramsDropped++;
  }

  /** From the client: header off, and on to the destination. */
  #onInner(datagram: Buffer, from: dgram.RemoteInfo): void {
    const header = this.#header;
    const result = parseUdpHeader(datagram, 0, datagram.length, header);
    const usable = result === Socks5UdpResult.ok || result === Socks5UdpResult.name;
    if (!usable || header.port === 0 || !this.#isClient(from)) {
      this.#drop();
      return;
    }
    this.#clientPort = from.port;
    this.#lastAt = Date.now();
    const address = datagram.subarray(header.addressStart, header.addressStart + header.addressLength);
    if (result === Socks5UdpResult.name) this.#resolveAndSend(nameText(address), datagram);
    else this.#sendOut(this.#destinationText(address), header.port, datagram, header.payloadStart);
  }

  /** RFC 1928 §7: only the client's address is heard, and here only one port of it. */
  #isClient(from: dgram.RemoteInfo): boolean {
    return (
      withoutZone(from.address) === this.#clientAddress && (this.#clientPort === 0 || from.port === this.#clientPort)
    );
  }

  #resolveAndSend(name: string, datagram: Buffer): void {
    const { port, payloadStart } = this.#header;
    const literal = parseAddress(name);
    if (literal !== null) {
      this.#sendOut(unmapAddress(formatAddress(literal)), port, datagram, payloadStart);
      return;
    }
    const waits = this.#context.names.resolve(name, this.#lastAt, (found) => {
      if (found === null) this.#drop();
      else this.#sendOut(unmapAddress(found), port, datagram, payloadStart);
    });
    if (!waits) this.#drop();
  }

  #destinationText(address: Uint8Array): string {
    if (!sameBytes(address, this.#destinationBytes)) {
      this.#destinationBytes = Uint8Array.from(address);
      this.#destination = unmapAddress(formatAddress(address));
    }
    return this.#destination;
  }

  #sendOut(address: string, port: number, datagram: Buffer, payloadStart: number): void {
    if (this.#closed) return;
    if (!this.#context.allowPrivate && isPrivateAddress(address)) {
      this.#drop();
      return;
    }
    const outer = address.includes(":") ? this.#openOuter6() : this.#openOuter4();
    if (outer.getSendQueueSize() > MAX_QUEUED_BYTES) {
      this.#drop();
      return;
    }
    this.#context.counters.datagramsUp++;
    outer.send(datagram, payloadStart, datagram.length - payloadStart, port, address, this.#onSent);
  }

  /** A datagram that cannot be sent (no route, too long) is dropped, as RFC 1928 §7 says. */
  readonly #onSent: (error: Error | null) => void = (error) => {
    if (error !== null) this.#drop();
  };

  #openOuter4(): dgram.Socket {
    this.#outer4 ??= this.#openOuter("udp4");
    return this.#outer4;
  }

  #openOuter6(): dgram.Socket {
    this.#outer6 ??= this.#openOuter("udp6");
    return this.#outer6;
  }

  #openOuter(type: "udp4" | "udp6"): dgram.Socket {
    const socket = openSocket(type);
    socket.on("message", (datagram, from) => this.#onOuter(datagram, from));
    // Errors of single sends come to their callbacks; what is left (no descriptor for the socket) ends with the idle timer.
    socket.on("error", () => this.#drop());
    return socket;
  }

  /** From a host: header on, and to the client. */
  #onOuter(datagram: Buffer, from: dgram.RemoteInfo): void {
    if (this.#closed || this.#clientPort === 0 || this.#inner.getSendQueueSize() > MAX_QUEUED_BYTES) {
      this.#drop();
      return;
    }
    if (from.address !== this.#source || from.port !== this.#sourcePort) this.#setSource(from);
    this.#lastAt = Date.now();
    this.#context.counters.datagramsDown++;
    this.#inner.send([this.#sourceHeader, datagram], this.#clientPort, this.#clientAddress, this.#onSent);
  }

  #setSource(from: dgram.RemoteInfo): void {
    const address = parseAddress(withoutZone(from.address)) ?? UNSPECIFIED;
    this.#source = from.address;
    this.#sourcePort = from.port;
    this.#sourceHeader = new Uint8Array(udpHeaderLength(address));
    emitUdpHeader(this.#sourceHeader, 0, address, from.port);
  }
}

/** Every address here is numeric: no look-up, no trip through the thread pool. */
function openSocket(type: "udp4" | "udp6"): dgram.Socket {
  return dgram.createSocket({
    type,
    ipv6Only: type === "udp6",
    recvBufferSize: SOCKET_BUFFER_BYTES,
    sendBufferSize: SOCKET_BUFFER_BYTES,
    lookup: (address, _options, callback) => callback(null, address, type === "udp6" ? 6 : 4),
  });
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
