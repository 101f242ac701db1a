import fc from "fast-check";
import { SocksClient } from "socks";
import t from "tap";
import { emitPasswordAuth, socks5Associate, socks5Connect } from "../../src/proxy/socks5.ts";
import {
  emitUdpHeader,
  parseUdpHeader,
  Socks5UdpHeader,
  Socks5UdpResult,
  UDP_HEADER_IPV4,
  UDP_HEADER_IPV6,
  udpHeaderLength,
} from "../../src/proxy/socks5-udp.ts";
import { type Handshake, HandshakeStep, Refusal } from "../../src/proxy/upstream.ts";
import { formatAddress, parseAddress } from "../../src/stack/flow/address.ts";

const V4 = Uint8Array.of(192, 0, 2, 7);
const V6 = parseAddress("2001:db8::7") ?? new Uint8Array(16);
const AUTH = emitPasswordAuth(Buffer.from("alice"), Buffer.from("s3cr:t"));
const NONE = Uint8Array.of(5, 0);
const PASSWORD = Uint8Array.of(5, 2);
const ACCEPTED = Uint8Array.of(1, 0);
const REPLY_V4 = Uint8Array.of(5, 0, 0, 1, 10, 0, 0, 1, 0x12, 0x34);
const REPLY_V6 = Uint8Array.of(5, 0, 0, 4, ...V6, 0x12, 0x34);
const REPLY_NAME = Uint8Array.of(5, 0, 0, 3, 5, ...Buffer.from("proxy"), 0x12, 0x34);
const CONNECT_V4 = Uint8Array.of(5, 1, 0, 1, ...V4, 0x01, 0xbb);

/** Everything that can be seen of a handshake that got `answers`, each cut by `cut` into pieces. */
function converse(handshake: Handshake, answers: readonly Uint8Array[], cut: (length: number) => number[]) {
  const sent = [hex(handshake.start())];
  let step: HandshakeStep = HandshakeStep.more;
  let used = 0;
  for (const answer of answers) {
    let start = 0;
    for (const end of [...cut(answer.length), answer.length]) {
      if (end <= start || step === HandshakeStep.failed || step === HandshakeStep.done) continue;
      step = handshake.receive(answer, start, end);
      if (step === HandshakeStep.send) sent.push(hex(handshake.out));
      if (step === HandshakeStep.done) used = start + handshake.consumed;
      start = end;
    }
  }
  const { refusal, reason, bound } = handshake;
  return { sent, step, used, refusal, reason, bound: bound === null ? null : { ...bound, host: text(bound.host) } };
}

const whole = () => [];
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const text = (host: Uint8Array | string) => (typeof host === "string" ? host : formatAddress(host));

t.test("client: requests (RFC 1928 §3-§4, RFC 1929 §2)", async (t) => {
  const name = "example.com";
  for (const { what, handshake, answers, sent } of [
    {
      what: "IPv4 without a password offers one method",
      handshake: socks5Connect({ host: V4, port: 443 }, null),
      answers: [NONE, REPLY_V4],
      sent: ["050100", hex(CONNECT_V4)],
    },
    {
      what: "IPv6",
      handshake: socks5Connect({ host: V6, port: 1 }, null),
      answers: [NONE, REPLY_V6],
      sent: ["050100", `05010004${hex(V6)}0001`],
    },
    {
      what: "name",
      handshake: socks5Connect({ host: name, port: 65_535 }, null),
      answers: [NONE, REPLY_NAME],
      sent: ["050100", `050100030b${hex(Buffer.from(name))}ffff`],
    },
    {
      what: "name in another script goes as punycode",
      handshake: socks5Connect({ host: "bücher.example", port: 80 }, null),
      answers: [NONE, REPLY_V4],
      sent: ["050100", `0501000315${hex(Buffer.from("xn--bcher-kva.example"))}0050`],
    },
    {
      what: "password is offered beside none, and sent when chosen",
      handshake: socks5Connect({ host: V4, port: 443 }, AUTH),
      answers: [PASSWORD, ACCEPTED, REPLY_V4],
      sent: ["05020002", `0105${hex(Buffer.from("alice"))}06${hex(Buffer.from("s3cr:t"))}`, hex(CONNECT_V4)],
    },
    {
      what: "password is kept back when the proxy wants none",
      handshake: socks5Connect({ host: V4, port: 443 }, AUTH),
      answers: [NONE, REPLY_V4],
      sent: ["05020002", hex(CONNECT_V4)],
    },
    {
      what: "UDP ASSOCIATE asks with zeros",
      handshake: socks5Associate(null),
      answers: [NONE, REPLY_V4],
      sent: ["050100", "05030001000000000000"],
    },
  ]) {
    const seen = converse(handshake, answers, whole);
    t.strictSame(seen.sent, sent, what);
    t.equal(seen.step, HandshakeStep.done, `${what}: done`);
    t.equal(seen.used, answers.at(-1)?.length, `${what}: the whole reply is consumed`);
  }
});

t.test("client: replies are told as DESIGN's failure table says (RFC 1928 §6)", async (t) => {
  const refusals = [
    [1, Refusal.failed],
    [2, Refusal.prohibited],
    [3, Refusal.netUnreachable],
    [4, Refusal.hostUnreachable],
    [5, Refusal.refused],
    [6, Refusal.hostUnreachable],
    [7, Refusal.failed],
    [8, Refusal.failed],
    [9, Refusal.failed],
    [255, Refusal.failed],
  ] as const;
  for (const [reply, refusal] of refusals) {
    const seen = converse(socks5Connect({ host: V4, port: 1 }, null), [NONE, Uint8Array.of(5, reply)], whole);
    t.equal(seen.step, HandshakeStep.failed, `reply ${reply} fails without waiting for the rest`);
    t.equal(seen.refusal, refusal, `reply ${reply} is ${refusal}`);
    t.match(seen.reason, new RegExp(`^SOCKS5 proxy replied ${reply}: `));
  }
});

t.test("client: a proxy that is at fault", async (t) => {
  for (const { what, auth, answers, reason } of [
    { what: "version 4", auth: null, answers: [[4, 0]], reason: "SOCKS5 reply has version 4, expected 5" },
    {
      what: "HTTP",
      auth: null,
      answers: [[0x48]],
      reason: "SOCKS5 reply has version 72, expected 5: the server speaks HTTP",
    },
    { what: "password wanted", auth: null, answers: [[5, 255]], reason: /wants authentication: put user and password/ },
    {
      what: "no method left",
      auth: AUTH,
      answers: [[5, 255]],
      reason: /neither user and password nor no authentication/,
    },
    {
      what: "method not offered",
      auth: null,
      answers: [[5, 2]],
      reason: /chose authentication method 2, which was not offered/,
    },
    { what: "GSSAPI", auth: AUTH, answers: [[5, 1]], reason: /chose authentication method 1/ },
    {
      what: "wrong password",
      auth: AUTH,
      answers: [
        [5, 2],
        [1, 1],
      ],
      reason: /refused user and password \(status 1\)/,
    },
    {
      what: "version of the reply",
      auth: null,
      answers: [[5, 0], [4]],
      reason: "SOCKS5 reply has version 4, expected 5",
    },
    {
      what: "address type",
      auth: null,
      answers: [
        [5, 0],
        [5, 0, 0, 2],
      ],
      reason: "SOCKS5 reply has address type 2, expected 1, 3 or 4",
    },
    {
      what: "speaks out of turn",
      auth: null,
      answers: [[5, 0, 5, 0]],
      reason: "SOCKS5 proxy sent 2 bytes before it was asked",
    },
  ]) {
    const seen = converse(
      socks5Connect({ host: V4, port: 1 }, auth),
      answers.map((bytes) => Uint8Array.from(bytes)),
      whole,
    );
    t.equal(seen.step, HandshakeStep.failed, what);
    t.equal(seen.refusal, Refusal.proxyFault, `${what} is the proxy's fault`);
    t.match(seen.reason, reason, what);
    t.notMatch(seen.reason, "s3cr", `${what}: no secret in the reason`);
  }
  // Deviation from RFC 1929 §2, as several proxies need it: VER of the answer may be 5.
  const lenient = converse(
    socks5Connect({ host: V4, port: 443 }, AUTH),
    [PASSWORD, Uint8Array.of(5, 0), REPLY_V4],
    whole,
  );
  t.equal(lenient.step, HandshakeStep.done);
});

t.test("client: BND.ADDR of UDP ASSOCIATE", async (t) => {
  for (const { what, reply, bound } of [
    { what: "IPv4", reply: REPLY_V4, bound: { host: "10.0.0.1", port: 0x1234 } },
    { what: "IPv6", reply: REPLY_V6, bound: { host: "2001:db8::7", port: 0x1234 } },
    { what: "name", reply: REPLY_NAME, bound: { host: "proxy", port: 0x1234 } },
    {
      what: "address written as a name",
      reply: Uint8Array.of(5, 0, 0, 3, 8, ...Buffer.from("10.0.0.9"), 0, 53),
      bound: { host: "10.0.0.9", port: 53 },
    },
    { what: "unspecified", reply: Uint8Array.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 53), bound: { host: "0.0.0.0", port: 53 } },
  ]) {
    t.strictSame(converse(socks5Associate(null), [NONE, reply], whole).bound, bound, what);
  }
  const portless = converse(socks5Associate(null), [NONE, Uint8Array.of(5, 0, 0, 1, 10, 0, 0, 1, 0, 0)], whole);
  t.equal(portless.step, HandshakeStep.failed, "port 0 cannot be sent to");
  t.equal(
    converse(socks5Connect({ host: V4, port: 1 }, null), [NONE, REPLY_V4], whole).bound,
    null,
    "CONNECT has none",
  );
});

t.test("client: replies cut at every byte give the same result, and payload stays", async (t) => {
  const conversations = [
    { make: () => socks5Connect({ host: V4, port: 443 }, null), answers: [NONE, REPLY_V4] },
    { make: () => socks5Connect({ host: V6, port: 443 }, AUTH), answers: [PASSWORD, ACCEPTED, REPLY_V6] },
    { make: () => socks5Connect({ host: "a.example", port: 443 }, AUTH), answers: [NONE, REPLY_NAME] },
    { make: () => socks5Associate(AUTH), answers: [PASSWORD, ACCEPTED, REPLY_NAME] },
  ];
  for (const { make, answers } of conversations) {
    const last = answers.at(-1) ?? NONE;
    const withPayload = [...answers.slice(0, -1), Uint8Array.of(...last, 0xaa, 0xbb, 0xcc)];
    const expected = converse(make(), withPayload, whole);
    t.equal(expected.used, last.length, "payload behind the reply is not consumed");
    fc.assert(
      fc.property(fc.array(fc.nat(24)), (cuts) => {
        const sorted = cuts.sort((a, b) => a - b);
        const seen = converse(make(), withPayload, (length) => sorted.filter((at) => at < length));
        return JSON.stringify(seen) === JSON.stringify(expected);
      }),
    );
    const eachByte = converse(make(), withPayload, (length) => Array.from({ length }, (_, at) => at));
    t.strictSame(eachByte, expected, "one byte at a time");
  }
});

t.test("client: any bytes end in a result, never in an exception", async () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.boolean(),
      fc.array(fc.uint8Array({ maxLength: 40 })),
      (associate, password, chunks) => {
        const auth = password ? AUTH : null;
        const handshake = associate ? socks5Associate(auth) : socks5Connect({ host: V4, port: 1 }, auth);
        let likely = true;
        for (const chunk of chunks) {
          // Half of the time a start that gets further than the version.
          const bytes = likely ? Uint8Array.of(5, 0, ...chunk) : chunk;
          likely = !likely;
          const step = handshake.receive(bytes, 0, bytes.length);
          if (step === HandshakeStep.done || step === HandshakeStep.failed) {
            return step === HandshakeStep.failed ? handshake.reason !== "" : handshake.consumed <= bytes.length;
          }
        }
        return true;
      },
    ),
    { numRuns: 2_000 },
  );
});

t.test("client: what does not fit is the caller's error", async (t) => {
  t.throws(() => socks5Connect({ host: "", port: 1 }, null), RangeError);
  t.throws(() => socks5Connect({ host: "a".repeat(256), port: 1 }, null), /256 bytes, the limit of SOCKS5 is 255/);
  t.doesNotThrow(() => socks5Connect({ host: "a".repeat(255), port: 1 }, null));
  t.throws(() => emitPasswordAuth(new Uint8Array(0), new Uint8Array(0)), RangeError);
  t.throws(() => emitPasswordAuth(new Uint8Array(256), new Uint8Array(0)), RangeError);
  t.throws(() => emitPasswordAuth(new Uint8Array(1), new Uint8Array(256)), RangeError);
  t.equal(hex(emitPasswordAuth(Uint8Array.of(1), new Uint8Array(0))), "01010100", "an empty password is sent as such");
});

const ADDRESS = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
);
const PORT = fc.integer({ min: 0, max: 65_535 });
const NAME = fc.stringMatching(/^[a-z][a-z0-9.-]{0,60}$/);

t.test("udp: parse after emit is identity, at any offset (RFC 1928 §7)", async () => {
  const header = new Socks5UdpHeader();
  fc.assert(
    fc.property(fc.oneof(ADDRESS, NAME), PORT, fc.uint8Array(), fc.nat(50), (host, port, payload, at) => {
      const length = udpHeaderLength(host);
      const bytes = new Uint8Array(at + length + payload.length);
      if (emitUdpHeader(bytes, at, host, port) !== length) return false;
      bytes.set(payload, at + length);
      const result = parseUdpHeader(bytes, at, bytes.length, header);
      const parsed = bytes.subarray(header.addressStart, header.addressStart + header.addressLength);
      const expected = typeof host === "string" ? Buffer.from(host) : host;
      return (
        result === (typeof host === "string" ? Socks5UdpResult.name : Socks5UdpResult.ok) &&
        Buffer.compare(parsed, expected) === 0 &&
        header.port === port &&
        header.payloadStart === at + length
      );
    }),
  );
});

t.test("udp: the `socks` package writes and reads the same frames", async () => {
  const header = new Socks5UdpHeader();
  fc.assert(
    fc.property(fc.oneof(ADDRESS, NAME), PORT, fc.uint8Array(), (host, port, payload) => {
      const data = Buffer.from(payload);
      const theirs = SocksClient.createUDPFrame({ remoteHost: { host: text(host), port }, data });
      const ours = new Uint8Array(udpHeaderLength(host) + data.length);
      ours.set(data, emitUdpHeader(ours, 0, host, port));
      if (Buffer.compare(theirs, ours) !== 0) return false;
      const back = SocksClient.parseUDPFrame(Buffer.from(ours));
      parseUdpHeader(theirs, 0, theirs.length, header);
      const backHost = parseAddress(back.remoteHost.host) ?? back.remoteHost.host;
      return (
        text(backHost) === text(host) &&
        back.remoteHost.port === header.port &&
        Buffer.compare(back.data, theirs.subarray(header.payloadStart)) === 0
      );
    }),
  );
});

t.test("udp: every length is checked", async (t) => {
  const header = new Socks5UdpHeader();
  const parse = (...bytes: number[]) => parseUdpHeader(Uint8Array.from(bytes), 0, bytes.length, header);
  for (const [what, bytes, result] of [
    ["nothing", [], Socks5UdpResult.truncated],
    ["no address", [0, 0, 0, 1], Socks5UdpResult.truncated],
    ["IPv4 without its last port byte", [0, 0, 0, 1, 1, 2, 3, 4, 0], Socks5UdpResult.truncated],
    ["IPv4 without payload", [0, 0, 0, 1, 1, 2, 3, 4, 0, 53], Socks5UdpResult.ok],
    ["IPv6 cut short", [0, 0, 0, 4, ...V6, 0], Socks5UdpResult.truncated],
    ["name longer than the datagram", [0, 0, 0, 3, 9, 0x61, 0, 53], Socks5UdpResult.truncated],
    ["empty name", [0, 0, 0, 3, 0, 0, 53], Socks5UdpResult.badAddress],
    ["unknown address type", [0, 0, 0, 2, 1, 2, 3, 4, 0, 53], Socks5UdpResult.badAddress],
    ["fragment", [0, 0, 1, 1, 1, 2, 3, 4, 0, 53], Socks5UdpResult.fragment],
    ["last fragment", [0, 0, 0x81, 1, 1, 2, 3, 4, 0, 53], Socks5UdpResult.fragment],
    ["name", [0, 0, 0, 3, 1, 0x61, 0, 53], Socks5UdpResult.name],
    ["reserved bytes set", [7, 7, 0, 1, 1, 2, 3, 4, 0, 53], Socks5UdpResult.ok],
  ] as const) {
    t.equal(parse(...bytes), result, what);
  }
  const full = Uint8Array.of(0, 0, 0, 1, 1, 2, 3, 4, 0, 53);
  t.equal(parseUdpHeader(full, 0, 99, header), Socks5UdpResult.truncated, "an end beyond the array");
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat(45), fc.nat(45), (bytes, start, end) => {
      const result = parseUdpHeader(bytes, start, end, header);
      if (result !== Socks5UdpResult.ok && result !== Socks5UdpResult.name) return true;
      return header.addressStart + header.addressLength + 2 === header.payloadStart && header.payloadStart <= end;
    }),
    { numRuns: 2_000 },
  );
});

t.test("udp: a header that does not fit is not written", async (t) => {
  const bytes = new Uint8Array(UDP_HEADER_IPV6 - 1).fill(9);
  t.equal(emitUdpHeader(bytes, 0, V6, 1), 0);
  t.equal(emitUdpHeader(bytes, 12, V4, 1), 0);
  t.equal(emitUdpHeader(bytes, -1, V4, 1), 0);
  t.equal(emitUdpHeader(bytes, 0, "", 1), 0, "empty name");
  t.equal(emitUdpHeader(bytes, 0, "a".repeat(256), 1), 0, "long name");
  t.equal(emitUdpHeader(bytes, 0, new Uint8Array(5), 1), 0, "address of 5 bytes");
  t.ok(bytes.every((byte) => byte === 9));
  t.equal(emitUdpHeader(bytes, 11, V4, 1), UDP_HEADER_IPV4);
});
