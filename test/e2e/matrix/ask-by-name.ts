/**
 * Asks a proxy for a destination by name, with the same handshake as the relay. Flows of a TUN device carry addresses
 * only, so nothing else sends a name today.
 */
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { REJECT_REASONS } from "../../../src/proxy/refusals.ts";
import { type Handshake, HandshakeStep, type Upstream } from "../../../src/proxy/upstream.ts";

/** What a client of an IPv4 address would see of a refusal. */
const ERRNO: Readonly<Record<string, string>> = {
  rst: "ECONNREFUSED",
  "host-unreachable": "EHOSTUNREACH",
  "net-unreachable": "ENETUNREACH",
  prohibited: "EHOSTUNREACH",
};

function open({ server, tls }: Upstream): Socket {
  if (server === null) throw new Error("no proxy to ask");
  if (server.kind === "unix") return connect({ path: server.path });
  const { host, port } = server;
  if (tls === null) return connect({ host, port });
  const { ca, cert, key } = tls;
  return connectTls({
    host,
    port,
    ...(ca === null ? {} : { ca }),
    ...(cert === null ? {} : { cert }),
    ...(key === null ? {} : { key }),
  });
}

/** Sends `GET path` to the name. @returns `ok` when the answer has status 200, or the errno of the refusal */
export async function askByName(upstream: Upstream, host: string, port: number, path: string): Promise<string> {
  for (let attempt = 0; ; attempt++) {
    const handshake = upstream.connect({ host, port });
    if (handshake === null) throw new Error("the upstream has no handshake");
    const socket = open(upstream);
    try {
      const step = await converse(socket, handshake);
      if (step === HandshakeStep.again && attempt === 0) continue;
      if (step !== HandshakeStep.done) return ERRNO[REJECT_REASONS[handshake.refusal]] ?? handshake.refusal;
      return await get(socket, host, path);
    } finally {
      socket.destroy();
    }
  }
}

/** Drives the handshake to its last step. An end of the stream is `Refusal.failed`, from which handshakes start. */
function converse(socket: Socket, handshake: Handshake): Promise<HandshakeStep> {
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.on("end", () => resolve(HandshakeStep.failed));
    socket.on("data", (bytes: Buffer) => {
      const step = handshake.receive(bytes, 0, bytes.length);
      if (step === HandshakeStep.send) socket.write(handshake.out);
      else if (step !== HandshakeStep.more) {
        socket.removeAllListeners();
        resolve(step);
      }
    });
    socket.write(handshake.start());
  });
}

function get(socket: Socket, host: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => {
      answer += text;
    });
    socket.once("end", () => resolve(/^HTTP\/1\.1 200 /.test(answer) ? "ok" : `answer: ${answer.slice(0, 80)}`));
    socket.once("error", reject);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  });
}
