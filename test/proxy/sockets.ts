/** Small clients and servers for the tests of the embedded proxy. */
import dgram from "node:dgram";
import { once } from "node:events";
import net from "node:net";

/** A TCP client that is read by waiting for bytes. */
export class Client {
  readonly socket: net.Socket;
  /** The error that ended the connection, if one did. */
  error: NodeJS.ErrnoException | null = null;
  ended = false;
  closed = false;
  #bytes: Buffer = Buffer.alloc(0);
  #wake: () => void = () => {};

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#wake();
    });
    socket.on("end", () => {
      this.ended = true;
      this.#wake();
    });
    socket.on("error", (error) => {
      this.error = error;
      this.#wake();
    });
    socket.on("close", () => {
      this.closed = true;
      this.#wake();
    });
  }

  static async connect(port: number, host = "127.0.0.1", localAddress?: string): Promise<Client> {
    const socket = net.connect({
      port,
      host,
      allowHalfOpen: true,
      noDelay: true,
      ...(localAddress === undefined ? {} : { localAddress }),
    });
    const client = new Client(socket);
    await once(socket, "connect");
    return client;
  }

  write(bytes: Uint8Array | string): void {
    this.socket.write(bytes);
  }

  /** Exactly `length` bytes; fewer when the stream ends before. */
  async read(length: number): Promise<Buffer> {
    while (this.#bytes.length < length && !this.ended && !this.closed) await this.#change();
    const bytes = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return bytes;
  }

  /** Everything up to FIN or a failure. */
  async readAll(): Promise<Buffer> {
    while (!this.ended && !this.closed) await this.#change();
    return this.read(this.#bytes.length);
  }

  /** Until the connection is gone, in whatever way. */
  async gone(): Promise<void> {
    while (!this.closed) await this.#change();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

/** Greeting and CONNECT of SOCKS5. @param host an IPv4 address, or a name */
export function socksConnect(host: string, port: number): Buffer {
  const address = net.isIPv4(host) ? [1, ...host.split(".").map(Number)] : [3, host.length, ...Buffer.from(host)];
  return Buffer.from([5, 1, 0, 5, 1, 0, ...address, port >> 8, port & 255]);
}

/** Opens a tunnel by SOCKS5 without a password. @returns the client and REP of the reply */
export async function openTunnel(
  proxyPort: number,
  host: string,
  port: number,
): Promise<{ client: Client; reply: number }> {
  const client = await Client.connect(proxyPort);
  client.write(socksConnect(host, port));
  await client.read(2);
  const head = await client.read(4);
  await client.read(head[3] === 4 ? 18 : 6);
  return { client, reply: head[1] ?? -1 };
}

/** A TCP server on loopback; sockets keep half-closes and their errors are swallowed. */
export async function listen(host: string, onSocket: (socket: net.Socket) => void, port = 0): Promise<net.Server> {
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on("error", () => {});
    onSocket(socket);
  });
  server.listen({ host, port, backlog: 4_096 });
  await once(server, "listening");
  return server;
}

export function portOf(server: net.Server | dgram.Socket): number {
  const address = server.address();
  return typeof address === "string" || address === null ? 0 : address.port;
}

/** A UDP socket on `host` whose datagrams are waited for. */
export class Datagrams {
  readonly socket: dgram.Socket;
  readonly #received: { data: Buffer; from: dgram.RemoteInfo }[] = [];
  #wake: () => void = () => {};

  private constructor(socket: dgram.Socket) {
    this.socket = socket;
    socket.on("message", (data, from) => {
      this.#received.push({ data, from });
      this.#wake();
    });
  }

  static async bind(host: string, port = 0): Promise<Datagrams> {
    const socket = dgram.createSocket(host.includes(":") ? "udp6" : "udp4");
    socket.bind(port, host);
    await once(socket, "listening");
    return new Datagrams(socket);
  }

  /** A server that answers each datagram with its bytes. */
  static async echo(host: string, port = 0): Promise<Datagrams> {
    const echo = await Datagrams.bind(host, port);
    echo.socket.on("message", (data, from) => echo.socket.send(data, from.port, from.address));
    return echo;
  }

  get port(): number {
    return portOf(this.socket);
  }

  async next(): Promise<{ data: Buffer; from: dgram.RemoteInfo }> {
    for (;;) {
      const first = this.#received.shift();
      if (first !== undefined) return first;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
