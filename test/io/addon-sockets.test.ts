/** The addon's sockets behind their interface, against real peers on loopback in a network namespace. */
import "../host/in-namespace.ts";
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import t, { type Test } from "tap";
import { setLink } from "../../src/host/interface.ts";
import { type Addon, Errno, isAddonProblem, loadAddon } from "../../src/io/addon.ts";
import { AddonSockets } from "../../src/io/addon-sockets.ts";
import { Poller } from "../../src/io/poller.ts";
import type { SocketSink } from "../../src/io/sockets.ts";
import { Slab } from "../../src/stack/memory/index.ts";

const LOOPBACK = Uint8Array.of(127, 0, 0, 1);

function addonForTest(): Addon {
  const addon = loadAddon();
  if (isAddonProblem(addon)) throw new Error(addon.problem);
  return addon;
}

const addon = addonForTest();
setLink(addon, "lo", { up: true });

/** Sockets whose events are written down as text. */
class Lab implements SocketSink {
  readonly slab: Slab = new Slab(16 << 20);
  readonly sockets: AddonSockets;
  readonly events: string[] = [];
  readonly received: number[] = [];
  readonly #poller: Poller;
  readonly #blocks: number = this.slab.available;
  #wake: () => void = () => {};
  #closed = false;

  constructor(t: Test) {
    this.#poller = Poller.open(addon, this.slab, () => this.turn());
    this.sockets = new AddonSockets(this.#poller, this);
    t.teardown(() => this.close(null));
  }

  turn(): void {
    this.#poller.poll({ onPoll: (...event) => this.sockets.dispatch(...event) });
    while (this.sockets.receive());
    this.sockets.flush();
    this.#wake();
  }

  /** Waits until `done` holds. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  close(t: Test | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.sockets.closeAll();
    this.#poller.close();
    this.slab.trim();
    t?.equal(this.slab.available, this.#blocks, "all blocks are free again");
    t?.equal(this.sockets.open, 0);
  }

  onConnected(handle: number): void {
    this.events.push(`connected ${handle}`);
  }
  onData(handle: number, offset: number, length: number): void {
    this.events.push(`data ${handle}`);
    for (let i = 0; i < length; i++) this.received.push(this.slab.bytes[offset + i] as number);
  }
  onEnd(handle: number): void {
    this.events.push(`end ${handle}`);
  }
  onError(handle: number, errno: number): void {
    this.events.push(`error ${handle} ${errno}`);
  }
  onSent(handle: number, sent: number, length: number, ended: boolean): void {
    this.events.push(`sent ${handle} ${sent}/${length}${ended ? " end" : ""}`);
  }
  onWritable(handle: number): void {
    this.events.push(`writable ${handle}`);
  }
  onDatagram(handle: number, offset: number, length: number): void {
    const bytes = this.slab.bytes.subarray(offset, offset + length);
    this.events.push(`datagram ${handle} ${Buffer.from(bytes)} from ${this.sockets.sender.port}`);
  }
  onDatagramError(handle: number, errno: number): void {
    this.events.push(`datagram error ${handle} ${errno} at ${this.sockets.sender.port}`);
  }
}

/** A server for one test; the sockets it accepts. */
async function listen(t: Test, onSocket: (socket: Socket) => void): Promise<number> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on("error", () => {});
    onSocket(socket);
  });
  t.teardown(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** How the server saw a stream end. */
function ending(socket: Socket): Promise<string> {
  socket.resume();
  return Promise.race([
    once(socket, "end").then(() => "end"),
    new Promise<string>((resolve) => socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "?"))),
  ]);
}

t.test("urgent data stays in line, and neither hides the rest nor the end (RFC 6093 §4)", async (t) => {
  // Perl is on every Debian; Node cannot send urgent data.
  for (const pause of ["0", "0.3"]) {
    const script = `
      use IO::Socket::INET; use Socket qw(MSG_OOB TCP_NODELAY IPPROTO_TCP); $| = 1;
      my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 0, Listen => 1) or die;
      print $l->sockport, "\\n"; my $c = $l->accept; setsockopt($c, IPPROTO_TCP, 3, 1);
      send($c, "a" x 1000, 0); send($c, "!", MSG_OOB); send($c, "b" x 1000, 0);
      setsockopt($c, IPPROTO_TCP, 3, 0); select(undef, undef, undef, ${pause}); close($c);`;
    const perl = spawn("perl", ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    t.teardown(() => perl.kill());
    const [line] = (await once(perl.stdout, "data")) as [Buffer];
    const lab = new Lab(t);
    const handle = lab.sockets.connect(LOOPBACK, Number(line), null);
    if (pause !== "0") {
      await lab.until(() => lab.received.length === 2001);
      t.notOk(lab.events.includes(`end ${handle}`), "all of it comes before the end");
    }
    await lab.until(() => lab.events.includes(`end ${handle}`));
    t.equal(Buffer.from(lab.received).toString(), `${"a".repeat(1000)}!${"b".repeat(1000)}`);
    lab.close(t);
  }
});

t.test("closeAll resets what was cut off, and lets streams be whose end was sent (DESIGN 4)", async (t) => {
  const endings: Promise<string>[] = [];
  const port = await listen(t, (socket) => endings.push(ending(socket)));
  const lab = new Lab(t);
  const cut = lab.sockets.connect(LOOPBACK, port, Uint8Array.of(1, 2, 3));
  await lab.until(() => lab.events.includes(`connected ${cut}`));
  while (endings.length < 1) await new Promise((resolve) => setTimeout(resolve, 5));
  const whole = lab.sockets.connect(LOOPBACK, port, Uint8Array.of(1, 2, 3));
  await lab.until(() => lab.events.includes(`connected ${whole}`));
  while (endings.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  lab.sockets.beginWrite(whole, 1);
  lab.sockets.endWrite(0, true);
  lab.sockets.flush();
  t.ok(lab.events.includes(`sent ${whole} 0/0 end`));
  lab.close(t);
  t.same(await Promise.all(endings), ["ECONNRESET", "end"]);
});

t.test("a write queued for a socket that is closed never reaches the one that gets its descriptor", async (t) => {
  const seen: Buffer[] = [];
  const port = await listen(t, (socket) => socket.on("data", (bytes) => seen.push(bytes)));
  const lab = new Lab(t);
  const first = lab.sockets.connect(LOOPBACK, port, null);
  await lab.until(() => lab.events.includes(`connected ${first}`));
  t.ok(lab.sockets.writeBytes(first, Buffer.from("secret of the first")));
  lab.sockets.close(first);
  const second = lab.sockets.connect(LOOPBACK, port, null);
  t.equal(second, first, "the handle is used again");
  await lab.until(() => lab.events.filter((event) => event === `connected ${second}`).length === 2);
  lab.sockets.writeBytes(second, Buffer.from("second"));
  lab.sockets.flush();
  while (seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  t.equal(Buffer.concat(seen).toString(), "second");
  t.notOk(lab.events.some((event) => event.startsWith("error")));
  lab.close(t);
});

t.test("refused datagrams are told with the destination, one that could not be sent at all too", async (t) => {
  const lab = new Lab(t);
  const echo = createSocket("udp4", (bytes, { port }) => echo.send(bytes, port, "127.0.0.1"));
  t.teardown(() => echo.close());
  echo.bind(0, "127.0.0.1");
  await once(echo, "listening");
  const spare = createSocket("udp4");
  spare.bind(0, "127.0.0.1");
  await once(spare, "listening");
  const closedPort = spare.address().port;
  await new Promise<void>((resolve) => spare.close(() => resolve()));
  const handle = lab.sockets.openDatagram(4, null, 0);
  const block = lab.slab.take();
  lab.slab.bytes.set(Buffer.from("hello"), block);
  const send = (address: Uint8Array, port: number): void => {
    lab.sockets.sendDatagram(handle, address, port, null, 0, block, 5);
    lab.sockets.flush();
  };
  send(LOOPBACK, closedPort);
  await lab.until(() => lab.events.length > 0);
  t.same(lab.events.splice(0), [`datagram error ${handle} ${Errno.ECONNREFUSED} at ${closedPort}`]);
  // Sent together: the error that is pending from the first must not swallow the second.
  send(LOOPBACK, closedPort);
  send(LOOPBACK, echo.address().port);
  await lab.until(() => lab.events.length > 1);
  t.same(lab.events.splice(0).sort(), [
    `datagram ${handle} hello from ${echo.address().port}`,
    `datagram error ${handle} ${Errno.ECONNREFUSED} at ${closedPort}`,
  ]);
  // No route leads there in this namespace.
  send(Uint8Array.of(192, 0, 2, 1), 7);
  t.same(lab.events, [`datagram error ${handle} ${Errno.ENETUNREACH} at 7`]);
  lab.slab.release(block);
  lab.close(t);
});

t.test("a stream that ends with its data says so in one go; a paused one keeps both for later", async (t) => {
  const port = await listen(t, (socket) => socket.end("all there is"));
  const lab = new Lab(t);
  const handle = lab.sockets.connect(LOOPBACK, port, null);
  lab.sockets.pause(handle);
  await lab.until(() => lab.events.includes(`connected ${handle}`));
  await new Promise((resolve) => setTimeout(resolve, 30));
  lab.turn();
  t.same(lab.events, [`connected ${handle}`]);
  lab.sockets.resume(handle);
  lab.turn();
  t.same(lab.events, [`connected ${handle}`, `data ${handle}`, `end ${handle}`]);
  lab.close(t);
});

t.test("a reset is told in every phase: while open, after the peer's end, after ours", async (t) => {
  for (const phase of ["open", "ended", "fin sent"]) {
    const accepted: Socket[] = [];
    const port = await listen(t, (socket) => accepted.push(socket.resume()));
    const lab = new Lab(t);
    const handle = lab.sockets.connect(LOOPBACK, port, null);
    await lab.until(() => lab.events.includes(`connected ${handle}`));
    while (accepted.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const [server] = accepted;
    if (phase === "ended") {
      server?.end();
      await lab.until(() => lab.events.includes(`end ${handle}`));
    } else if (phase === "fin sent") {
      lab.sockets.beginWrite(handle, 1);
      lab.sockets.endWrite(0, true);
      lab.sockets.flush();
    }
    server?.resetAndDestroy();
    await lab.until(() => lab.events.some((event) => event.startsWith(`error ${handle} `)));
    t.equal(lab.sockets.open, 0, phase);
    lab.close(t);
  }
});

t.test("the backend has a name, and a second poller in a thread is an error", async (t) => {
  const lab = new Lab(t);
  t.equal(lab.sockets.backend, "addon");
  t.throws(() => Poller.open(addon, new Slab(4 << 20), () => {}), { code: "IO_POLLER" });
  lab.close(t);
});
