/** The engine over Node's sockets: real connections through a TUN device, straight and through an HTTPS proxy. */
import "../host/in-namespace.ts";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer, type TLSSocket } from "node:tls";
import t, { type Test } from "tap";
import { ProxyServer } from "../../src/proxy/server/server.ts";
import { Authority, sha256Of } from "../io/certificates.ts";
import type { Snapshot } from "./stress/engine-process.ts";
import { Lab, MIB } from "./stress/lab.ts";
import { VERSIONS } from "./stress/network.ts";

const FLOWS = 600;
const BULK = 16 * MIB;

t.setTimeout(300_000);
const directory = mkdtempSync(join(tmpdir(), "tunrelay-https-"));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
const lab = await Lab.open(t);
const authority = new Authority(directory, "ours");
const pair = authority.issue("proxy", "DNS:proxy.test");

/** An HTTPS proxy: TLS in front of the embedded one, which passes half-closes and resets on. */
async function startProxy(t: Test): Promise<number> {
  const inner = await ProxyServer.listen({ host: "127.0.0.1", port: 0 });
  const raws = new Map<TLSSocket, Socket>();
  const open = new Set<Socket>();
  const server = createServer({ ...pair, allowHalfOpen: true, ALPNProtocols: ["http/1.1"] }, (front) => {
    const back = connect({ port: inner.address.port, host: "127.0.0.1", allowHalfOpen: true });
    const raw = (front as TLSSocket & { _parent?: Socket })._parent;
    if (raw !== undefined) raws.set(front, raw);
    front.on("error", () => back.resetAndDestroy());
    back.on("error", () => {
      raw?.resetAndDestroy();
      front.destroy();
    });
    front.pipe(back).pipe(front);
  });
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket)).on("error", () => {});
  });
  server.on("tlsClientError", () => {});
  server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 });
  await once(server, "listening");
  t.teardown(async () => {
    for (const socket of open) socket.destroy();
    server.close();
    await inner.close();
  });
  return (server.address() as AddressInfo).port;
}

/** Transfers in all directions, at once. */
async function transfer(t: Test): Promise<void> {
  const results = await Promise.all(
    VERSIONS.flatMap((version, i) => [
      lab.client.call("download", version, 10 + i, BULK),
      lab.client.call("upload", version, 20 + i, BULK),
    ]),
  );
  t.comment(`${results.map(({ ms }) => Math.round((BULK * 8) / ms / 1000)).join(", ")} Mbit/s at once`);
  t.same(
    results.map(({ result }) => result),
    ["ok", "ok", "ok", "ok"],
  );
}

function checkNothingLeft(t: Test, first: Snapshot, last: Snapshot): void {
  t.same(last.stats.stack.flows, {}, "flows");
  t.equal(last.stats.sockets, 0, "sockets");
  t.equal(last.stats.stack.timersArmed, 0, "timers");
  t.equal(last.stats.stack.bytesBuffered, 0, "bytes buffered");
  t.equal(last.descriptors, first.descriptors, "descriptors");
}

t.test(`direct:// over Node's sockets: ${FLOWS} flows ended in every way, and bulk`, async (t) => {
  await lab.start({ sockets: "node", tcp: { timeWaitMs: 200, finWait2Ms: 1000 }, udpTimeoutMs: 500 });
  const first = await lab.snapshot(true);
  t.equal(first.stats.backend, "node");
  const churn = await lab.client.call("churn", { count: FLOWS, parallel: 32 });
  t.same(churn.wrong, {});
  t.equal(churn.ok, FLOWS);
  t.comment(`${Math.round((FLOWS * 1000) / churn.ms)} flows a second`);
  await transfer(t);
  for (const version of VERSIONS) {
    const echo = await lab.client.call("echo", { version, count: 400, largest: 1000, parallel: 1, sockets: 20 });
    t.equal(echo.wrong, 0, `IPv${version} datagrams that differ`);
    t.ok(echo.received > 200, `IPv${version} datagrams that came back: ${echo.received} of ${echo.sent}`);
  }
  await lab.untilIdle(20_000);
  checkNothingLeft(t, first, await lab.until(({ descriptors }) => descriptors <= first.descriptors, 20_000));
  await lab.engine.call("stop", 0);
});

t.test(`https:// with a CA: ${FLOWS} flows ended in every way, and bulk`, async (t) => {
  const port = await startProxy(t);
  const proxy = { url: `https://proxy.test:${port}`, address: "127.0.0.1", ca: authority.pair.cert };
  await lab.start({ proxy, fwmark: 9, tcp: { timeWaitMs: 200, finWait2Ms: 1000 } });
  const first = await lab.snapshot(true);
  t.equal(first.stats.backend, "node");
  const churn = await lab.client.call("churn", { count: FLOWS, parallel: 32 });
  t.same(churn.wrong, {});
  t.equal(churn.ok, FLOWS);
  t.comment(`${Math.round((FLOWS * 1000) / churn.ms)} flows a second`);
  await transfer(t);
  await lab.untilIdle(20_000);
  checkNothingLeft(t, first, await lab.until(({ descriptors }) => descriptors <= first.descriptors, 20_000));
  await lab.engine.call("stop", 0);
});

t.test("https:// with a pin that is right, one that is not, and an authority that is not known", async (t) => {
  const port = await startProxy(t);
  const proxy = { url: `https://proxy.test:${port}`, address: "127.0.0.1" };
  const pinOf = (cert: string): string => Buffer.from(sha256Of(cert)).toString("hex");
  const rows: readonly (readonly [{ readonly pin?: string }, RegExp])[] = [
    [{ pin: pinOf(pair.cert) }, /^ok$/],
    [{ pin: pinOf(authority.pair.cert) }, /ECONNREFUSED/],
    [{}, /ECONNREFUSED/],
  ];
  for (const [tls, result] of rows) {
    await lab.start({ proxy: { ...proxy, ...tls }, tcp: { timeWaitMs: 200 } });
    const transfer = await lab.client.call("download", 4, 1, 1000);
    t.match(transfer.result, result, JSON.stringify(Object.keys(tls)));
    await lab.untilIdle(20_000);
    await lab.engine.call("stop", 0);
  }
});
