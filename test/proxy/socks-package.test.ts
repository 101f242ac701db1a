import { createHook } from "node:async_hooks";
import fc from "fast-check";
import t from "tap";
import { refusalOfSocks4, type SocksHop, socksPackageConnect } from "../../src/proxy/socks-package.ts";
import { emitPasswordAuth, socks5Connect } from "../../src/proxy/socks5.ts";
import { type Destination, HandshakeStep, Refusal } from "../../src/proxy/upstream.ts";
import { parseUpstream } from "../../src/proxy/url.ts";
import { parseAddress } from "../../src/stack/flow/address.ts";
import { type Conversation, type Cut, converse, eachByte, whole } from "./converse.ts";

const V4 = { host: Uint8Array.of(192, 0, 2, 7), port: 443 };
const V6 = { host: parseAddress("2001:db8::7") ?? new Uint8Array(16), port: 443 };
const NAME = { host: "a.example", port: 443 };
const AUTH = emitPasswordAuth(Buffer.from("alice"), Buffer.from("s3cr:t"));
const SOCKS4: SocksHop = { version: 4, userId: "", auth: null };
const OPEN: SocksHop = { version: 5, userId: "", auth: null };
const LOCKED: SocksHop = { version: 5, userId: "", auth: AUTH };
const GRANTED = Uint8Array.of(0, 90, 0, 0, 0, 0, 0, 0);
const NONE = Uint8Array.of(5, 0);
const PASSWORD = Uint8Array.of(5, 2);
const ACCEPTED = Uint8Array.of(1, 0);
const REPLY_V4 = Uint8Array.of(5, 0, 0, 1, 10, 0, 0, 1, 0x12, 0x34);
const REPLY_V6 = Uint8Array.of(5, 0, 0, 4, ...V6.host, 0x12, 0x34);
const REPLY_NAME = Uint8Array.of(5, 0, 0, 3, 255, ...Buffer.alloc(255, "p"), 0x12, 0x34);

const talk = (hop: SocksHop, to: Destination, answers: readonly Uint8Array[], cut: Cut = whole): Conversation =>
  converse(socksPackageConnect(hop, to), answers, cut, "hex");
const hex = (...parts: (string | number)[]): string =>
  parts.map((part) => (typeof part === "number" ? Buffer.of(part) : Buffer.from(part)).toString("hex")).join("");

t.test("socks4: requests and what belongs to the reply", async (t) => {
  for (const { what, hop, to, sent } of [
    { what: "IPv4", hop: SOCKS4, to: V4, sent: hex(4, 1, 1, 0xbb, 192, 0, 2, 7, 0) },
    { what: "user ID", hop: { ...SOCKS4, userId: "bób" }, to: V4, sent: hex(4, 1, 1, 0xbb, 192, 0, 2, 7, "bób", 0) },
    { what: "name, as SOCKS4a has it", hop: SOCKS4, to: NAME, sent: hex(4, 1, 1, 0xbb, 0, 0, 0, 1, 0, "a.example", 0) },
    {
      what: "name in another script",
      hop: { ...SOCKS4, userId: "x" },
      to: { host: "bücher.example", port: 80 },
      sent: hex(4, 1, 0, 80, 0, 0, 0, 1, "x", 0, "xn--bcher-kva.example", 0),
    },
    {
      what: "address as text",
      hop: SOCKS4,
      to: { host: "192.0.2.7", port: 443 },
      sent: hex(4, 1, 1, 0xbb, 192, 0, 2, 7, 0),
    },
  ]) {
    for (const cut of [whole, eachByte]) {
      const seen = talk(hop, to, [Uint8Array.of(...GRANTED, 1, 2, 3)], cut);
      t.strictSame(seen.sent, [sent], what);
      t.equal(seen.step, HandshakeStep.done, what);
      t.equal(seen.used, 8, `${what}: payload behind the reply stays`);
    }
  }
  t.throws(() => socksPackageConnect(SOCKS4, V6), /SOCKS4 cannot carry an IPv6 address/);
  t.throws(() => socksPackageConnect(SOCKS4, { host: "::1", port: 1 }), /IPv6/);
  t.throws(() => socksPackageConnect(SOCKS4, { host: "a\0b", port: 1 }), /NUL/);
  t.throws(() => socksPackageConnect(SOCKS4, { host: "", port: 1 }), RangeError);
  t.throws(() => parseUpstream("socks4://h").connect(NAME), /SOCKS4 cannot carry a name, SOCKS4a can/);
  t.doesNotThrow(() => parseUpstream("socks4a://h").connect(NAME));
});

t.test("socks4: codes are told as DESIGN's failure table says", async (t) => {
  for (const [code, refusal, text] of [
    [91, Refusal.refused, "rejected or failed"],
    [92, Refusal.failed, "cannot reach an ident server"],
    [93, Refusal.failed, "names another user ID"],
    [0, Refusal.failed, "does not assign"],
    [255, Refusal.failed, "does not assign"],
  ] as const) {
    t.equal(refusalOfSocks4(code), refusal);
    for (const cut of [whole, eachByte]) {
      const seen = talk(SOCKS4, V4, [Uint8Array.of(0, code, 0, 0, 0, 0, 0, 0, 9)], cut);
      t.equal(seen.step, HandshakeStep.failed);
      t.equal(seen.refusal, refusal, `code ${code} is ${refusal}`);
      t.match(seen.reason, `SOCKS4 proxy replied ${code}: `);
      t.match(seen.reason, text);
    }
  }
  t.equal(talk(SOCKS4, V4, [Uint8Array.of(4, 90, 0, 0, 0, 0, 0, 0)]).step, HandshakeStep.done, "version 4 is let pass");
});

t.test("socks4: what is no answer of a proxy is its fault, with a hint", async (t) => {
  for (const [byte, reason] of [
    [0x48, /version 72, expected 0: the server speaks HTTP, write http:/],
    [0x15, /version 21, expected 0: the server speaks TLS/],
    [5, /version 5, expected 0: the server speaks SOCKS5, write socks5:/],
    [9, /^SOCKS4 reply has version 9, expected 0$/],
  ] as const) {
    const seen = talk(SOCKS4, V4, [Uint8Array.of(byte, 255)]);
    t.match(seen, { step: HandshakeStep.failed, refusal: Refusal.proxyFault });
    t.match(seen.reason, reason);
  }
});

t.test("silence and truncated answers lead to nothing", async (t) => {
  for (const [hop, before, reply] of [
    [SOCKS4, [], GRANTED],
    [OPEN, [NONE], REPLY_NAME],
    [LOCKED, [PASSWORD, ACCEPTED], REPLY_V6],
  ] as const) {
    for (let length = 0; length < reply.length; length++) {
      const seen = talk(hop, V4, [...before, reply.subarray(0, length)]);
      if (seen.step !== HandshakeStep.more && seen.step !== HandshakeStep.send) t.fail(`${length} bytes: ${seen.step}`);
    }
  }
  t.pass("every length was tried");
});

t.test("socks5 of a chain says and hears what our own codec does (RFC 1928, RFC 1929)", async (t) => {
  const replies = [REPLY_V4, REPLY_V6, REPLY_NAME];
  const rows: { auth: Uint8Array | null; answers: Uint8Array[] }[] = [];
  for (const reply of replies) {
    rows.push({ auth: null, answers: [NONE, reply] });
    rows.push({ auth: AUTH, answers: [NONE, reply] });
    rows.push({ auth: AUTH, answers: [PASSWORD, ACCEPTED, reply] });
    rows.push({ auth: AUTH, answers: [PASSWORD, Uint8Array.of(5, 0), reply] });
    rows.push({ auth: AUTH, answers: [PASSWORD, ACCEPTED, Uint8Array.of(...reply, 7, 7, 7)] });
  }
  for (let code = 1; code < 256; code++) rows.push({ auth: null, answers: [NONE, Uint8Array.of(5, code)] });
  for (const bytes of [[5, 255], [5, 1], [5, 2], [4, 0], [5, 0, 5], [0x48]]) {
    rows.push({ auth: null, answers: [Uint8Array.from(bytes)] });
  }
  for (const bytes of [
    [5, 255],
    [5, 1],
    [5, 2, 1],
    [5, 3],
  ])
    rows.push({ auth: AUTH, answers: [Uint8Array.from(bytes)] });
  rows.push({ auth: AUTH, answers: [PASSWORD, Uint8Array.of(1, 1)] });
  rows.push({ auth: AUTH, answers: [PASSWORD, Uint8Array.of(1, 0, 5)] });
  rows.push({ auth: null, answers: [NONE, Uint8Array.of(4)] });
  rows.push({ auth: null, answers: [NONE, Uint8Array.of(5, 0, 0, 2)] });
  for (const { auth, answers } of rows) {
    for (const to of [V4, V6, NAME]) {
      for (const cut of [whole, eachByte]) {
        const { reason: ours, ...expected } = converse(socks5Connect(to, auth), answers, cut, "hex");
        const { reason, ...seen } = talk({ version: 5, userId: "", auth }, to, answers, cut);
        t.strictSame(seen, expected, answers.map((answer) => Buffer.from(answer).toString("hex")).join(" "));
        // The package's side knows more hints; the rest is word for word the same.
        t.equal(reason.split(": the server")[0], ours.split(": the server")[0]);
      }
    }
  }
});

t.test("any split gives the same result", async () => {
  for (const [hop, answers] of [
    [SOCKS4, [Uint8Array.of(...GRANTED, 1, 2, 3)]],
    [OPEN, [NONE, Uint8Array.of(...REPLY_NAME, 1, 2, 3)]],
    [LOCKED, [PASSWORD, ACCEPTED, Uint8Array.of(...REPLY_V6, 5, 0)]],
  ] as const) {
    const expected = JSON.stringify(talk(hop, NAME, answers));
    fc.assert(
      fc.property(fc.array(fc.nat(270)), (cuts) => {
        const sorted = cuts.sort((a, b) => a - b);
        return JSON.stringify(talk(hop, NAME, answers, (length) => sorted.filter((at) => at < length))) === expected;
      }),
    );
  }
});

t.test("any bytes end in a result, never in an exception", async () => {
  fc.assert(
    fc.property(
      fc.constantFrom(SOCKS4, OPEN, LOCKED),
      fc.array(
        fc.oneof(fc.uint8Array({ maxLength: 20 }), fc.constantFrom(NONE, PASSWORD, ACCEPTED, REPLY_V4, GRANTED)),
      ),
      (hop, answers) => {
        const seen = talk(hop, V4, answers);
        return seen.step !== HandshakeStep.failed || seen.reason !== "";
      },
    ),
    { numRuns: 1_000 },
  );
});

t.test("a payload of any size behind the reply is neither taken nor kept", async (t) => {
  const payload = Buffer.alloc(200_000, 5);
  for (const [hop, before, reply] of [
    [SOCKS4, [], GRANTED],
    [OPEN, [NONE], REPLY_V4],
  ] as const) {
    t.equal(talk(hop, V4, [...before, Buffer.concat([reply, payload])]).used, reply.length);
  }
});

t.test(
  "nothing of a handshake is left: the package's timers are over after a tick, and the clients with them",
  async (t) => {
    const timers: object[] = [];
    const hook = createHook({
      init: (_id, type, _trigger, resource) => {
        if (type === "Timeout") timers.push(resource);
      },
    });
    hook.enable();
    for (let i = 0; i < 50; i++) {
      for (const answers of [[NONE, REPLY_V4], [NONE], [], [NONE, Uint8Array.of(5, 1)]]) talk(OPEN, V4, answers);
    }
    hook.disable();
    t.ok(timers.length >= 200, `${timers.length} clients were made`);
    // Timers fire in the order in which they are due, so this one comes behind all of the package's.
    await new Promise((done) => setTimeout(done, 20));
    const armed = timers.filter((timer) => !("_destroyed" in timer) || timer._destroyed !== true);
    t.equal(armed.length, 0, "no timer is armed");
  },
);
