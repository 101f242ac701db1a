/**
 * Datagrams through `node:dgram`, for systems without the addon. What Node receives waits here until the next turn; what
 * it is to send is copied. Both are limited, and beyond the limit datagrams are lost, as datagrams may be.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { addressToWords, formatAddress, type IpBytes, parseAddress } from "../stack/flow/address.ts";
import type { InputBlock, Slab } from "../stack/memory/index.ts";
import type { Datagrams } from "./datagrams.ts";
import type { HandleTable } from "./handle-table.ts";
import type { Sender, SocketSink } from "./sockets.ts";
import { describeError } from "./tls-errors.ts";

/** Most bytes received and not yet taken, of all sockets. */
const MAX_RECEIVED = 4 * 1024 * 1024;
/** Most bytes that one socket may have waiting in Node to be sent. */
const MAX_SENDING = 1024 * 1024;
/** Counted for each datagram besides its bytes, so that empty ones are limited too. */
const OVERHEAD = 256;
/** Most datagrams that wait for a socket to be connected. */
const MAX_CONNECTING = 64;
const DATAGRAM_ROOM = 65_536;

/** Something that happened to a socket: a datagram, or an error. */
interface Arrival {
  readonly handle: number;
  readonly generation: number;
  readonly bytes: Buffer | null;
  readonly errno: number;
  /** Sender of the datagram, or destination of the one that failed; null when it is not known. */
  readonly address: IpBytes | null;
  readonly port: number;
}

export class NodeDatagrams implements Datagrams {
  readonly sender: Sender = { words: new Int32Array(4), port: 0 };
  waitsForMemory = false;
  readonly #slab: Slab;
  readonly #sink: SocketSink;
  readonly #handles: HandleTable;
  readonly #input: InputBlock;
  readonly #wake: () => void;
  readonly #sockets: (Socket | null)[] = [];
  readonly #connecting: WeakSet<Socket> = new WeakSet();
  readonly #arrivals: Arrival[] = [];
  #received = 0;

  constructor(slab: Slab, sink: SocketSink, handles: HandleTable, input: InputBlock, wake: () => void) {
    this.#slab = slab;
    this.#sink = sink;
    this.#handles = handles;
    this.#input = input;
    this.#wake = wake;
  }

  get hasReadable(): boolean {
    return this.#arrivals.length > 0;
  }

  open(family: 4 | 6, address: IpBytes | null, port: number): number {
    const handle = this.#handles.allocate(0);
    const generation = this.#handles.generations[handle] as number;
    const socket = createSocket(family === 4 ? { type: "udp4" } : { type: "udp6", ipv6Only: true });
    socket.on("message", (bytes, from) => this.#onMessage(handle, generation, bytes, from));
    const failed = (error: NodeJS.ErrnoException): void => {
      const { errno } = describeError(error);
      this.#arrive({ handle, generation, bytes: null, errno, address, port: address === null ? 0 : port });
    };
    socket.on("error", failed);
    if (address !== null) {
      // Node connects a datagram socket only in a later turn of the event loop.
      this.#connecting.add(socket);
      socket.setMaxListeners(MAX_CONNECTING + 1);
      socket.connect(port, formatAddress(address), (error?: NodeJS.ErrnoException) => {
        this.#connecting.delete(socket);
        if (error !== undefined && error !== null) failed(error);
      });
    }
    while (this.#sockets.length <= handle) this.#sockets.push(null);
    this.#sockets[handle] = socket;
    return handle;
  }

  #onMessage(handle: number, generation: number, bytes: Buffer, from: RemoteInfo): void {
    const address = parseAddress(from.address.split("%", 1)[0] ?? "");
    if (address !== null) this.#arrive({ handle, generation, bytes, errno: 0, address, port: from.port });
  }

  #arrive(arrival: Arrival): void {
    if (!this.#handles.isSame(arrival.handle, arrival.generation)) return;
    const size = sizeOf(arrival);
    if (this.#received + size > MAX_RECEIVED) return;
    this.#received += size;
    this.#arrivals.push(arrival);
    this.#wake();
  }

  onReady(): void {
    // There is no poller.
  }

  receive(): void {
    this.waitsForMemory = false;
    const arrivals = this.#arrivals;
    let taken = 0;
    for (const arrival of arrivals) {
      if (arrival.bytes !== null && !this.#input.prepare(DATAGRAM_ROOM)) {
        this.waitsForMemory = true;
        break;
      }
      taken++;
      this.#received -= sizeOf(arrival);
      if (this.#handles.isSame(arrival.handle, arrival.generation)) this.#tell(arrival);
    }
    arrivals.splice(0, taken);
  }

  #tell({ handle, bytes, errno, address, port }: Arrival): void {
    this.sender.port = port;
    if (address !== null) addressToWords(address, this.sender.words, 0);
    if (bytes === null) {
      this.#sink.onDatagramError(handle, errno);
      return;
    }
    const input = this.#input;
    const offset = input.position;
    const block = input.offset;
    this.#slab.bytes.set(bytes, offset);
    this.#slab.retain(block);
    input.advanceTo(offset + bytes.length);
    this.#sink.onDatagram(handle, offset, bytes.length);
    this.#slab.release(block);
  }

  send(
    handle: number,
    address: IpBytes | null,
    port: number,
    head: Uint8Array | null,
    headLength: number,
    offset: number,
    length: number,
  ): boolean {
    const socket = this.#sockets[handle];
    if (socket === null || socket === undefined || socket.getSendQueueSize() > MAX_SENDING) return true;
    if (socket.listenerCount("connect") > MAX_CONNECTING) return true;
    const bytes = Buffer.allocUnsafe((head === null ? 0 : headLength) + length);
    if (head !== null) bytes.set(head.subarray(0, headLength));
    bytes.set(this.#slab.bytes.subarray(offset, offset + length), bytes.length - length);
    const generation = this.#handles.generations[handle] as number;
    const done = (error: NodeJS.ErrnoException | null): void => {
      if (error === null) return;
      const { errno } = describeError(error);
      this.#arrive({ handle, generation, bytes: null, errno, address, port: address === null ? 0 : port });
    };
    if (address !== null) socket.send(bytes, port, formatAddress(address), done);
    else if (this.#connecting.has(socket)) socket.once("connect", () => socket.send(bytes, done));
    else socket.send(bytes, done);
    return true;
  }

  flush(): void {
    // Everything was handed to Node at once.
  }

  close(handle: number): void {
    this.#sockets[handle]?.close();
    this.#sockets[handle] = null;
    this.#handles.forget(handle);
  }

  closeAll(): void {
    this.#arrivals.length = 0;
    this.#received = 0;
  }
}

function sizeOf(arrival: Arrival): number {
  return OVERHEAD + (arrival.bytes === null ? 0 : arrival.bytes.length);
}
