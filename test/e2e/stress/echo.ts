/** Datagrams there and back. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { Content } from "./content.ts";
import { ECHO_PORT, type IpVersion, SERVER } from "./network.ts";

export interface EchoOptions {
  readonly version: IpVersion;
  readonly count: number;
  /** Largest payload, bytes. */
  readonly largest: number;
  /** Datagrams under way at once. */
  readonly parallel: number;
  /** Sockets, each of which becomes an association. Default 1. */
  readonly sockets?: number;
}

export interface EchoResult {
  readonly sent: number;
  readonly received: number;
  /** Came back with other bytes. */
  readonly wrong: number;
}

/** When nothing has come back for so long, what is under way counts as lost. */
const LOST_MS = 500;
const INDEX_BYTES = 4;
/** A prime: sizes are spread over all that there are, however many datagrams are sent. */
const SIZE_STEP = 7919;

/** Sends datagrams of all sizes and compares what comes back. */
export async function echo(options: EchoOptions): Promise<EchoResult> {
  const { sockets = 1 } = options;
  const each = Math.ceil(options.count / sockets);
  const results = await Promise.all(Array.from({ length: sockets }, () => echoOnSocket({ ...options, count: each })));
  return {
    sent: results.reduce((sum, { sent }) => sum + sent, 0),
    received: results.reduce((sum, { received }) => sum + received, 0),
    wrong: results.reduce((sum, { wrong }) => sum + wrong, 0),
  };
}

async function echoOnSocket({ version, count, largest, parallel }: EchoOptions): Promise<EchoResult> {
  const content = new Content(version, largest);
  const pieces: Buffer[] = [];
  for (let piece = content.next(); piece !== null; piece = content.next()) pieces.push(piece);
  const all = Buffer.concat(pieces);
  const socket = createSocket({ type: version === 4 ? "udp4" : "udp6", recvBufferSize: 1 << 20 });
  socket.connect(ECHO_PORT, SERVER[version]);
  await once(socket, "connect");
  let sent = 0;
  let received = 0;
  let wrong = 0;
  let underWay = 0;
  const datagram = (i: number): Buffer => {
    // The first is the largest.
    const size = largest - ((i * SIZE_STEP) % (largest - INDEX_BYTES + 1));
    const bytes = Buffer.from(all.subarray(0, size));
    bytes.writeUInt32BE(i);
    return bytes;
  };
  const fill = (): void => {
    for (; underWay < parallel && sent < count; underWay++) socket.send(datagram(sent++));
  };
  await new Promise<void>((resolve) => {
    let lastAt = performance.now();
    const timer = setInterval(() => {
      if (performance.now() - lastAt < LOST_MS) return;
      lastAt = performance.now();
      underWay = 0;
      if (sent < count) fill();
      else finish();
    }, LOST_MS / 5);
    const finish = (): void => {
      clearInterval(timer);
      socket.close();
      resolve();
    };
    socket.on("message", (bytes) => {
      lastAt = performance.now();
      underWay = Math.max(0, underWay - 1);
      if (bytes.length >= INDEX_BYTES && bytes.equals(datagram(bytes.readUInt32BE()))) received++;
      else wrong++;
      if (received + wrong === count) finish();
      else fill();
    });
    socket.on("error", () => {});
    fill();
  });
  return { sent, received, wrong };
}
