/** What `Sockets` promises, for each implementation, against real peers on loopback in a network namespace. */
import "../host/in-namespace.ts";
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { setLink } from "../../src/host/interface.ts";
import { Errno } from "../../src/io/addon.ts";
import { NodeSockets } from "../../src/io/node-sockets.ts";
import { Poller } from "../../src/io/poller.ts";
import { Slab } from "../../src/stack/memory/index.ts";
import { addonForTest, descriptors, ending, KINDS, Lab, LOOPBACK, listen, until } from "./lab.ts";

setLink(addonForTest(), "lo", { up: true });

const directory = mkdtempSync(join(tmpdir(), "tunrelay-io-"));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));

for (const kind of KINDS) {
  t.test(`${kind}: connected, bytes and end come in this order, and nothing else`, async (t) => {
    const port = await listen(t, (socket) => socket.once("data", (bytes) => socket.end(`you said ${bytes}`)));
    const lab = new Lab(t, kind);
    const handle = await lab.connected(LOOPBACK, port, Buffer.from("hello"));
    await lab.heard(`end ${handle}`);
    t.equal(lab.text, "you said hello");
    t.same(lab.events, [`connected ${handle}`, `data ${handle}`, `end ${handle}`]);
    t.same(lab.sockets.peer(handle), { address: LOOPBACK, port });
    lab.close(t);
  });

  t.test(`${kind}: each direction ends by itself (RFC 9293 §3.6)`, async (t) => {
    const heard: Buffer[] = [];
    const accepted: Socket[] = [];
    const port = await listen(t, (socket) => {
      accepted.push(socket);
      socket.on("data", (bytes) => heard.push(bytes));
    });
    const lab = new Lab(t, kind);
    const first = await lab.connected(LOOPBACK, port);
    await until(() => accepted.length === 1);
    const ended = once(accepted[0] as Socket, "end");
    lab.write(first, Buffer.from("all of mine"), true);
    t.ok(lab.events.includes(`sent ${first} 11/11 end`));
    await ended;
    accepted[0]?.end("late answer");
    await lab.heard(`end ${first}`);
    t.equal(lab.text, "late answer");

    const second = await lab.connected(LOOPBACK, port);
    await until(() => accepted.length === 2);
    accepted[1]?.end();
    await lab.heard(`end ${second}`);
    lab.write(second, Buffer.from(" and of the second"));
    await until(() => Buffer.concat(heard).length === 29);
    const endedToo = once(accepted[1] as Socket, "end");
    lab.write(second, new Uint8Array(0), true);
    await endedToo;
    t.equal(Buffer.concat(heard).toString(), "all of mine and of the second");
    t.notOk(lab.events.some((event) => event.startsWith("error")));
    lab.close(t);
  });

  t.test(`${kind}: closeAll resets what was cut off, and lets streams be whose end was sent`, async (t) => {
    const endings: Promise<string>[] = [];
    const port = await listen(t, (socket) => endings.push(ending(socket)));
    const lab = new Lab(t, kind);
    await lab.connected(LOOPBACK, port, Uint8Array.of(1, 2, 3));
    await until(() => endings.length === 1);
    const whole = await lab.connected(LOOPBACK, port, Uint8Array.of(1, 2, 3));
    await until(() => endings.length === 2);
    lab.write(whole, new Uint8Array(0), true);
    t.ok(lab.events.includes(`sent ${whole} 0/0 end`));
    lab.close(t);
    t.same(await Promise.all(endings), ["ECONNRESET", "end"]);
  });

  t.test(`${kind}: close delivers what was sent, reset does not look like an end`, async (t) => {
    const accepted: Socket[] = [];
    const port = await listen(t, (socket) => accepted.push(socket));
    const lab = new Lab(t, kind);
    const closed = await lab.connected(LOOPBACK, port);
    await until(() => accepted.length === 1);
    let sent = 0;
    lab.hearSent = (_handle, bytes) => {
      sent += bytes;
    };
    // More than the kernel takes from one side and keeps for the other while nobody reads.
    for (let last = -1; sent !== last; ) {
      last = sent;
      lab.write(closed, Buffer.alloc(200_000, 1));
    }
    lab.sockets.close(closed);
    t.equal(lab.sockets.open, 0);
    const [peer] = accepted;
    let bytes = 0;
    peer?.on("data", (chunk) => {
      bytes += chunk.length;
    });
    await once(peer as Socket, "end");
    t.equal(bytes, sent, "everything that was told as sent has arrived");
    const reset = await lab.connected(LOOPBACK, port, Buffer.from("x"));
    await until(() => accepted.length === 2);
    const end = ending(accepted[1] as Socket);
    await once(accepted[1] as Socket, "data");
    lab.sockets.reset(reset);
    t.equal(await end, "ECONNRESET");
    lab.close(t);
  });

  t.test(`${kind}: a write queued for a closed socket never reaches the one that gets its handle`, async (t) => {
    const seen: Buffer[] = [];
    const port = await listen(t, (socket) => socket.on("data", (bytes) => seen.push(bytes)));
    const lab = new Lab(t, kind);
    const first = await lab.connected(LOOPBACK, port);
    t.ok(lab.sockets.writeBytes(first, Buffer.from("secret of the first")));
    lab.sockets.close(first);
    const second = await lab.connected(LOOPBACK, port);
    t.equal(second, first, "the handle is used again");
    lab.sockets.writeBytes(second, Buffer.from("second"));
    lab.sockets.flush();
    await until(() => seen.length > 0);
    t.equal(Buffer.concat(seen).toString(), "second");
    t.notOk(lab.events.some((event) => event.startsWith("error")));
    lab.close(t);
  });

  t.test(
    `${kind}: a stream that is closed while it connects, or with input waiting, is not heard of again`,
    async (t) => {
      const port = await listen(t, (socket) => socket.write("early"));
      const lab = new Lab(t, kind);
      const before = lab.sockets.connect(LOOPBACK, port, null);
      lab.sockets.close(before);
      const after = lab.sockets.connect(LOOPBACK, port, null);
      t.equal(after, before);
      lab.sockets.reset(after);
      const third = await lab.connected(LOOPBACK, port);
      await lab.heard(`data ${third}`);
      lab.sockets.close(third);
      const last = await lab.connected(LOOPBACK, port);
      await lab.heard(`data ${last}`);
      t.notOk(lab.events.some((event) => event.startsWith("error")));
      lab.close(t);
    },
  );

  t.test(`${kind}: a slow peer stops the writer, and every byte arrives in the end`, async (t) => {
    const accepted: Socket[] = [];
    const port = await listen(t, (socket) => accepted.push(socket));
    const lab = new Lab(t, kind);
    const handle = await lab.connected(LOOPBACK, port);
    await until(() => accepted.length === 1);
    const size = 24 << 20;
    const bytes = Buffer.alloc(size);
    for (let i = 0; i < size; i += 4) bytes.writeUInt32LE(Math.imul(i, 2_654_435_761) >>> 0, i);
    let at = 0;
    let isBlocked = false;
    lab.hearSent = (_handle, sent) => {
      at += sent;
    };
    const writeOn = (): void => {
      for (isBlocked = false; at < size && !isBlocked; ) {
        const from = at;
        const length = Math.min(250_000, size - at);
        lab.write(handle, bytes.subarray(at, at + length), at + length === size);
        isBlocked = at - from < length;
      }
    };
    writeOn();
    t.ok(isBlocked, "it was cut short before all was written");
    lab.hearWritable = () => setImmediate(writeOn);
    const hash = createHash("sha256");
    accepted[0]?.on("data", (chunk) => hash.update(chunk));
    await once(accepted[0] as Socket, "end");
    t.equal(hash.digest("hex"), createHash("sha256").update(bytes).digest("hex"));
    lab.close(t);
  });

  t.test(`${kind}: a paused stream stops the peer, and goes on where it was`, async (t) => {
    const size = 48 << 20;
    const bytes = Buffer.alloc(size, "0123456789abcdef!");
    const accepted: Socket[] = [];
    const port = await listen(t, (socket) => {
      accepted.push(socket);
      socket.end(bytes);
    });
    const lab = new Lab(t, kind, {}, 4 << 20);
    const handle = lab.sockets.connect(LOOPBACK, port, null);
    lab.sockets.pause(handle);
    await lab.heard(`connected ${handle}`);
    // Until the kernel takes no more from the server.
    for (let taken = -1, last = -2; taken !== last; ) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      last = taken;
      taken = (accepted[0]?.bytesWritten ?? 0) - (accepted[0]?.writableLength ?? 0);
    }
    t.ok((accepted[0]?.writableLength ?? 0) > 0, "the server has bytes left");
    t.same(lab.events, [`connected ${handle}`]);
    const hash = createHash("sha256");
    let length = 0;
    lab.hearData = (_handle, chunk) => {
      length += chunk.length;
      hash.update(chunk);
    };
    lab.sockets.resume(handle);
    lab.turn();
    await lab.heard(`end ${handle}`);
    t.equal(length, size);
    t.equal(hash.digest("hex"), createHash("sha256").update(bytes).digest("hex"));
    lab.close(t);
  });

  t.test(`${kind}: without memory streams wait, and go on when a block comes back`, async (t) => {
    const port = await listen(t, (socket) => socket.end("after all"));
    const lab = new Lab(t, kind, {}, 4 << 20);
    const blocks: number[] = [];
    for (let block = lab.slab.take(); block >= 0; block = lab.slab.take()) blocks.push(block);
    const handle = lab.sockets.connect(LOOPBACK, port, null);
    await lab.until(() => lab.sockets.waitsForMemory);
    t.same(lab.events, [`connected ${handle}`]);
    t.notOk(lab.sockets.receive(), "trying again at once leads nowhere");
    for (const block of blocks) lab.slab.release(block);
    lab.turn();
    await lab.heard(`end ${handle}`);
    t.notOk(lab.sockets.waitsForMemory);
    t.equal(lab.text, "after all");
    lab.close(t);
  });

  t.test(`${kind}: a stream that ends with its data while it is paused keeps both for later`, async (t) => {
    const port = await listen(t, (socket) => socket.end("all there is"));
    const lab = new Lab(t, kind);
    const handle = lab.sockets.connect(LOOPBACK, port, null);
    lab.sockets.pause(handle);
    await lab.heard(`connected ${handle}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
    lab.turn();
    t.same(lab.events, [`connected ${handle}`]);
    lab.sockets.resume(handle);
    lab.turn();
    await lab.heard(`end ${handle}`);
    t.same(lab.events, [`connected ${handle}`, `data ${handle}`, `end ${handle}`]);
    lab.close(t);
  });

  t.test(`${kind}: what came before a reset is told before it`, async (t) => {
    const accepted: Socket[] = [];
    const port = await listen(t, (socket) => accepted.push(socket));
    const lab = new Lab(t, kind);
    const handle = await lab.connected(LOOPBACK, port);
    lab.sockets.pause(handle);
    await until(() => accepted.length === 1);
    const [server] = accepted;
    await new Promise<void>((resolve) => server?.write("no, because", () => resolve()));
    server?.resetAndDestroy();
    await once(server as Socket, "close");
    await new Promise((resolve) => setTimeout(resolve, 30));
    lab.turn();
    t.same(lab.events, [`connected ${handle}`]);
    lab.sockets.resume(handle);
    lab.turn();
    const reset = `error ${handle} ${Errno.ECONNRESET}`;
    // Without the addon to ask the kernel, a reset that is there before its bytes were read looks like an end to some
    // versions of libuv.
    const lasts = kind === "node" ? [reset, `end ${handle}`] : [reset];
    await lab.until(() => lab.events.some((event) => lasts.includes(event)));
    t.same(lab.events.slice(0, 2), [`connected ${handle}`, `data ${handle}`]);
    t.ok(lab.events.length === 3 && lasts.includes(lab.events[2] ?? ""), lab.events.join());
    t.equal(lab.text, "no, because");
    lab.close(t);
  });

  // Node does not look at a socket whose input has ended; the addon does it for both.
  const hasExactNames = kind !== "node" || Number.parseInt(process.versions.node, 10) >= 22;
  const phases = kind === "node" ? ["open", "fin sent"] : ["open", "ended", "fin sent"];
  t.test(`${kind}: a reset is told in every phase: ${phases.join(", ")}`, async (t) => {
    for (const phase of phases) {
      const accepted: Socket[] = [];
      const port = await listen(t, (socket) => accepted.push(socket.resume()));
      const lab = new Lab(t, kind);
      const handle = await lab.connected(LOOPBACK, port);
      await until(() => accepted.length === 1);
      const [server] = accepted;
      if (phase === "ended") {
        server?.end();
        await lab.heard(`end ${handle}`);
      } else if (phase === "fin sent") {
        lab.write(handle, new Uint8Array(0), true);
      }
      server?.resetAndDestroy();
      await lab.heard(`error ${handle}`);
      // Linux calls it a broken pipe in CLOSE-WAIT.
      const errno = phase === "ended" ? Errno.EPIPE : Errno.ECONNRESET;
      t.equal(lab.events.at(-1), `error ${handle} ${errno}`, phase);
      t.equal(lab.sockets.open, 0);
      lab.close(t);
    }
  });

  t.test(`${kind}: a server that is not there, or nowhere, is an error with its number`, async (t) => {
    const lab = new Lab(t, kind);
    const fails = async (target: Uint8Array | string, port: number): Promise<number> => {
      const handle = lab.sockets.connect(target, port, null);
      if (handle < 0) return -handle;
      await lab.heard(`error ${handle}`);
      return Number(lab.events.splice(0).at(-1)?.split(" ").at(-1));
    };
    const port = await new Promise<number>((resolve) => {
      const spare = createSocket("udp4").bind(0, "127.0.0.1", () => {
        const { port } = spare.address();
        spare.close(() => resolve(port));
      });
    });
    t.equal(await fails(LOOPBACK, port), Errno.ECONNREFUSED);
    t.equal(await fails(Uint8Array.of(192, 0, 2, 1), 9), Errno.ENETUNREACH);
    t.equal(await fails(join(directory, "nobody"), 0), Errno.ENOENT);
    t.equal(await fails("@nobody", 0), Errno.ECONNREFUSED);
    t.ok((await fails(`/${"x".repeat(200)}`, 0)) > 0);
    t.equal(lab.sockets.open, 0);
    lab.close(t);
  });

  t.test(`${kind}: Unix sockets, by path and by abstract name (unix(7))`, async (t) => {
    const path = join(directory, `${kind.replaceAll(" ", "-")}.sock`);
    const abstract = `tunrelay-io-${process.pid}`;
    const lab = new Lab(t, kind);
    await listen(t, (socket) => socket.pipe(socket), path);
    // Not by Node: before version 22 it fills abstract names up with zeros to the full length.
    const server = spawn("socat", [`ABSTRACT-LISTEN:${abstract}`, "PIPE"], { stdio: "ignore" });
    t.teardown(() => server.kill());
    await until(() => readFileSync("/proc/net/unix", "utf8").includes(`@${abstract}\n`));
    for (const target of hasExactNames ? [path, `@${abstract}`] : [path]) {
      const handle = await lab.connected(target, 0, Buffer.from("to and fro"));
      await lab.heard(`data ${handle}`);
      t.equal(lab.text, "to and fro");
      t.equal(lab.sockets.peer(handle), null);
      lab.write(handle, Buffer.from("."), true);
      await lab.heard(`end ${handle}`);
      t.equal(lab.text, "to and fro.");
      lab.sockets.close(handle);
      lab.events.length = 0;
      lab.received.length = 0;
    }
    lab.close(t);
  });

  t.test(`${kind}: a thousand streams at once, and nothing of them stays`, async (t) => {
    const port = await listen(t, (socket) => socket.pipe(socket));
    const lab = new Lab(t, kind);
    const idle = descriptors();
    const replies = new Map<number, string>();
    lab.hearData = (handle, bytes) => replies.set(handle, (replies.get(handle) ?? "") + bytes.toString());
    const handles: number[] = [];
    for (let i = 0; i < 1000; i++) handles.push(lab.sockets.connect(LOOPBACK, port, null));
    t.equal(lab.sockets.open, 1000);
    await lab.until(() => lab.events.filter((event) => event.startsWith("connected")).length === 1000);
    for (const handle of handles) lab.write(handle, Buffer.from(`I am ${handle}`), true);
    await lab.until(() => lab.events.filter((event) => event.startsWith("end")).length === 1000);
    t.ok(handles.every((handle) => replies.get(handle) === `I am ${handle}`));
    for (const handle of handles) lab.sockets.close(handle);
    t.equal(lab.sockets.open, 0);
    await until(() => descriptors() <= idle);
    lab.close(t);
  });

  t.test(`${kind}: first bytes that there is no room for do not stop a stream from connecting`, async (t) => {
    const port = await listen(t, (socket) => socket.resume());
    const lab = new Lab(t, kind);
    const first = Buffer.alloc(3000, "x");
    const handles = Array.from({ length: 40 }, () => lab.sockets.connect(LOOPBACK, port, first));
    t.same(
      handles.filter((handle) => handle < 0),
      [],
    );
    await lab.until(() => handles.every((handle) => lab.events.includes(`connected ${handle}`)));
    for (const handle of handles) lab.sockets.close(handle);
    lab.close(t);
  });

  t.test(`${kind}: with no descriptors left new streams fail, and those that are open go on`, async (t) => {
    const script = `
      import net from "node:net";
      net.createServer((socket) => socket.on("error", () => {}).pipe(socket)).listen(0, "127.0.0.1", function () {
        console.log(this.address().port);
      });`;
    const server = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    t.teardown(() => server.kill());
    const [line] = (await once(server.stdout, "data")) as [Buffer];
    const lab = new Lab(t, kind);
    const open = await lab.connected(LOOPBACK, Number(line));
    const limit = (count: number): void => {
      execFileSync("prlimit", ["--pid", `${process.pid}`, `--nofile=${count}:`]);
    };
    const numbers = readdirSync("/proc/self/fd").map(Number);
    const hard = execFileSync("prlimit", ["--pid", `${process.pid}`, "--nofile", "--noheadings", "--output=SOFT"]);
    const highest = Math.max(...numbers) + 32;
    // New descriptors go into the gaps first: only eight are left free. The other fillers are what `limit` needs at the
    // end, when the streams have taken those eight.
    const fillers: number[] = [];
    while ((fillers.at(-1) ?? 0) < highest) fillers.push(openSync("/dev/null", "r"));
    for (const filler of fillers.splice(-8)) closeSync(filler);
    limit(highest);
    const failed: number[] = [];
    try {
      const handles: number[] = [];
      for (let i = 0; i < 40; i++) {
        const handle = lab.sockets.connect(LOOPBACK, Number(line), null);
        if (handle < 0) failed.push(-handle);
        else handles.push(handle);
      }
      const settled = (handle: number): boolean =>
        lab.events.some((event) => new RegExp(`^(connected|error) ${handle}\\b`).test(event));
      await lab.until(() => handles.every(settled));
      for (const event of lab.events) {
        const [, errno] = /^error \d+ (\d+)$/.exec(event) ?? [];
        if (errno !== undefined) failed.push(Number(errno));
      }
      lab.write(open, Buffer.from("still here"));
      await lab.heard(`data ${open}`);
    } finally {
      for (const filler of fillers) closeSync(filler);
      limit(Number(hard));
    }
    t.ok(failed.length > 0);
    t.same([...new Set(failed)], [Errno.EMFILE]);
    t.equal(lab.text, "still here");
    const again = await lab.connected(LOOPBACK, Number(line));
    t.ok(again >= 0, "with descriptors there are streams again");
    lab.close(t);
  });

  t.test(`${kind}: datagrams go to and fro, connected and not`, async (t) => {
    const lab = new Lab(t, kind);
    const block = lab.slab.take();
    lab.slab.bytes.set(Buffer.from("payload"), block);
    for (const family of [4, 6] as const) {
      const echo = createSocket(family === 4 ? "udp4" : "udp6", (bytes, { port, address }) =>
        echo.send(bytes, port, address),
      );
      t.teardown(() => echo.close());
      echo.bind(0, family === 4 ? "127.0.0.1" : "::1");
      await once(echo, "listening");
      const { port } = echo.address();
      const address = family === 4 ? LOOPBACK : Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
      const head = Buffer.from("head and more");
      const free = lab.sockets.openDatagram(family, null, 0);
      lab.sockets.sendDatagram(free, address, port, head, 5, block, 7);
      const tied = lab.sockets.openDatagram(family, address, port);
      lab.sockets.sendDatagram(tied, null, 0, null, 0, block, 7);
      lab.sockets.flush();
      await lab.heard(`datagram ${free}`);
      await lab.heard(`datagram ${tied}`);
      t.same(lab.events.splice(0).sort(), [
        ...[`datagram ${free} head payload from ${port}`, `datagram ${tied} payload from ${port}`].sort(),
      ]);
      const last = family === 4 ? [0, 0, 0xffff, 0x7f000001] : [0, 0, 0, 1];
      t.same([...lab.sockets.sender.words], last);
      lab.sockets.close(free);
      lab.sockets.close(tied);
    }
    t.equal(lab.sockets.open, 0);
    lab.slab.release(block);
    lab.close(t);
  });

  t.test(`${kind}: refused datagrams are told, one that could not be sent at all too`, async (t) => {
    const lab = new Lab(t, kind);
    const echo = createSocket("udp4", (bytes, { port }) => echo.send(bytes, port, "127.0.0.1"));
    t.teardown(() => echo.close());
    echo.bind(0, "127.0.0.1");
    await once(echo, "listening");
    const spare = createSocket("udp4");
    spare.bind(0, "127.0.0.1");
    await once(spare, "listening");
    const closedPort = spare.address().port;
    await new Promise<void>((resolve) => spare.close(() => resolve()));
    const block = lab.slab.take();
    lab.slab.bytes.set(Buffer.from("hello"), block);
    const send = (handle: number, address: Uint8Array | null, port: number): void => {
      lab.sockets.sendDatagram(handle, address, port, null, 0, block, 5);
      lab.sockets.flush();
    };
    const tied = lab.sockets.openDatagram(4, LOOPBACK, closedPort);
    send(tied, null, 0);
    await lab.until(() => lab.events.length > 0);
    t.match(lab.events.splice(0), [`datagram error ${tied} ${Errno.ECONNREFUSED}`]);
    const handle = lab.sockets.openDatagram(4, null, 0);
    // Of a socket that is not connected, the kernel names the destination only to who reads its error queue.
    if (kind !== "node") {
      send(handle, LOOPBACK, closedPort);
      await lab.until(() => lab.events.length > 0);
      t.same(lab.events.splice(0), [`datagram error ${handle} ${Errno.ECONNREFUSED} at ${closedPort}`]);
      // Sent together: the error that is pending from the first must not swallow the second.
      send(handle, LOOPBACK, closedPort);
      send(handle, LOOPBACK, echo.address().port);
      await lab.until(() => lab.events.length > 1);
      t.same(lab.events.splice(0).sort(), [
        `datagram ${handle} hello from ${echo.address().port}`,
        `datagram error ${handle} ${Errno.ECONNREFUSED} at ${closedPort}`,
      ]);
    }
    // No route leads there in this namespace.
    send(handle, Uint8Array.of(192, 0, 2, 1), 7);
    await lab.until(() => lab.events.length > 0);
    t.same(lab.events, [`datagram error ${handle} ${Errno.ENETUNREACH} at 7`]);
    lab.slab.release(block);
    lab.close(t);
  });

  if (kind === "node") continue;

  t.test(`${kind}: urgent data stays in line, and neither hides the rest nor the end (RFC 6093 §4)`, async (t) => {
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
      const lab = new Lab(t, kind);
      const handle = lab.sockets.connect(LOOPBACK, Number(line), null);
      if (pause !== "0") {
        await lab.until(() => lab.text.length === 2001);
        t.notOk(lab.events.includes(`end ${handle}`), "all of it comes before the end");
      }
      await lab.heard(`end ${handle}`);
      t.equal(lab.text, `${"a".repeat(1000)}!${"b".repeat(1000)}`);
      lab.close(t);
    }
  });

  t.test(`${kind}: with keep-alive a peer that is gone without a word is found out (RFC 9293 §3.8.4)`, async (t) => {
    const accepted: Socket[] = [];
    const port = await listen(t, (socket) => accepted.push(socket));
    const lab = new Lab(t, kind, { keepAlive: { idleMs: 1000, intervalMs: 1000, probes: 2 } });
    const silent = await lab.connected(LOOPBACK, port);
    const waiting = await lab.connected(LOOPBACK, port);
    await until(() => accepted.length === 2);
    // Nothing comes from the server any more, not even acknowledgments.
    const rule = ["INPUT", "-p", "tcp", "--dport", `${port}`, "-j", "DROP"];
    execFileSync("iptables", ["-A", ...rule]);
    t.teardown(() => execFileSync("iptables", ["-F"]));
    lab.write(waiting, Buffer.from("is anybody there?"));
    await lab.heard(`error ${silent}`);
    await lab.heard(`error ${waiting}`);
    t.ok(lab.events.includes(`error ${silent} ${Errno.ETIMEDOUT}`));
    t.ok(lab.events.includes(`error ${waiting} ${Errno.ETIMEDOUT}`), "unacknowledged bytes do not keep it alive");
    execFileSync("iptables", ["-D", ...rule]);
    lab.close(t);
  });

  t.test(`${kind}: streams carry the mark, and sockets are bound to the interface asked for`, async (t) => {
    const port = await listen(t, (socket) => socket.end("here"));
    // Whoever comes without the mark is reset.
    const rule = ["OUTPUT", "-p", "tcp", "--dport", `${port}`, "-m", "mark", "!", "--mark", "7"];
    execFileSync("iptables", ["-A", ...rule, "-j", "REJECT", "--reject-with", "tcp-reset"]);
    t.teardown(() => execFileSync("iptables", ["-F"]));
    const unmarked = new Lab(t, kind, { mark: 8 });
    const refused = unmarked.sockets.connect(LOOPBACK, port, null);
    if (refused >= 0) await unmarked.heard(`error ${refused}`);
    unmarked.close(t);
    const lab = new Lab(t, kind, { interface: "lo", mark: 7 });
    const handle = await lab.connected(LOOPBACK, port);
    await lab.heard(`end ${handle}`);
    t.equal(lab.text, "here");
    lab.close(t);
    const other = new Lab(t, kind, { interface: "none0" });
    t.equal(other.sockets.connect(LOOPBACK, port, null), -Errno.ENODEV);
    t.equal(other.sockets.openDatagram(4, null, 0), -Errno.ENODEV);
    t.equal(other.sockets.open, 0);
    other.close(t);
  });
}

t.test("the implementations have names, and what Node alone cannot do is refused with the remedy", (t) => {
  const lab = new Lab(t, "addon");
  t.equal(lab.sockets.backend, "addon");
  t.throws(() => Poller.open(addonForTest(), new Slab(4 << 20), () => {}), { code: "IO_POLLER" });
  lab.close(t);
  const node = new Lab(t, "node with addon");
  t.equal(node.sockets.backend, "node");
  node.close(t);
  for (const options of [{ mark: 1 }, { interface: "lo" }]) {
    t.throws(() => new NodeSockets(new Slab(4 << 20), null, lab, () => {}, options), {
      code: "IO_ADDON",
      message: /need the native addon: build it/,
    });
  }
  t.end();
});
