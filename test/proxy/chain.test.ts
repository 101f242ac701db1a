import { inspect } from "node:util";
import fc from "fast-check";
import t from "tap";
import { ChainUpstream } from "../../src/proxy/chain.ts";
import { HandshakeStep, Refusal } from "../../src/proxy/upstream.ts";
import { DIRECT } from "../../src/proxy/upstreams.ts";
import { parseUpstream } from "../../src/proxy/url.ts";
import { type Conversation, type Cut, converse, eachByte, whole } from "./converse.ts";

const DESTINATION = { host: Uint8Array.of(192, 0, 2, 7), port: 443 };
const OK = "HTTP/1.1 200 OK\r\n\r\n";
const GRANTED = "\x00\x5a\0\0\0\0\0\0";
const NONE = "\x05\x00";
const REPLY = "\x05\x00\x00\x01\x0a\x00\x00\x01\x12\x34";
const CHALLENGE = "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n";

function talk(urls: readonly string[], answers: readonly string[], cut: Cut = whole): Conversation {
  const handshake = parseUpstream(urls).connect(DESTINATION);
  if (handshake === null) throw new RangeError("a chain has a handshake");
  return converse(handshake, answers, cut);
}

t.test("chain: each proxy is asked for the next, the last for the destination", async (t) => {
  const connect = (authority: string): string => `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;
  for (const { urls, answers, sent } of [
    {
      urls: ["http://a:1", "http://b.example:8080"],
      answers: [OK, OK],
      sent: [connect("b.example:8080"), connect("192.0.2.7:443")],
    },
    {
      urls: ["socks5://a", "socks4://10.0.0.2:9"],
      answers: [NONE, REPLY, GRANTED],
      sent: ["\x05\x01\x00", "\x05\x01\x00\x01\x0a\x00\x00\x02\x00\x09", "\x04\x01\x01\xbb\xc0\x00\x02\x07\x00"],
    },
    {
      urls: ["socks4a://id@a", "http://b:80", "socks5://[2001:db8::5]"],
      answers: [GRANTED, OK, NONE, REPLY],
      sent: [
        "\x04\x01\x00\x50\x00\x00\x00\x01id\x00b\x00",
        connect("[2001:db8::5]:1080"),
        "\x05\x01\x00",
        "\x05\x01\x00\x01\xc0\x00\x02\x07\x01\xbb",
      ],
    },
    {
      urls: ["http://u:p@a", "socks5://v:w@b"],
      answers: [`${CHALLENGE}Content-Length: 0\r\n\r\n`, OK, "\x05\x02", "\x01\x00", REPLY],
      sent: [
        connect("b:1080"),
        connect("b:1080").replace("\r\n\r\n", "\r\nProxy-Authorization: Basic dTpw\r\n\r\n"),
        "\x05\x02\x00\x02",
        "\x01\x01v\x01w",
        "\x05\x01\x00\x01\xc0\x00\x02\x07\x01\xbb",
      ],
    },
  ]) {
    const withPayload = [...answers.slice(0, -1), `${answers.at(-1)}payload`];
    for (const cut of [whole, eachByte]) {
      const seen = talk(urls, withPayload, cut);
      t.strictSame(seen.sent, sent, urls.join(" -> "));
      t.equal(seen.step, HandshakeStep.done);
      t.equal(seen.used, answers.at(-1)?.length, "payload behind the last reply stays");
    }
    const expected = JSON.stringify(talk(urls, withPayload));
    fc.assert(
      fc.property(fc.array(fc.nat(80)), (cuts) => {
        const sorted = cuts.sort((a, b) => a - b);
        return JSON.stringify(talk(urls, withPayload, (length) => sorted.filter((at) => at < length))) === expected;
      }),
      { numRuns: 30 },
    );
  }
});

t.test("chain: who failed is said, and only the last proxy speaks of the destination", async (t) => {
  const urls = ["http://u:p@a:1", "socks5://b"];
  for (const { what, answers, refusal, reason } of [
    {
      what: "the next proxy is refused",
      answers: ["HTTP/1.1 502 Bad Gateway\r\n\r\n"],
      refusal: Refusal.proxyFault,
      reason:
        "Proxy 1 of 2 (http://u@a:1) does not reach the next one, socks5://b:1080 (host-unreachable): HTTP proxy answered 502 Bad Gateway",
    },
    {
      what: "the next proxy is forbidden",
      answers: ["HTTP/1.1 403 x\r\n\r\n"],
      refusal: Refusal.proxyFault,
      reason:
        "Proxy 1 of 2 (http://u@a:1) does not reach the next one, socks5://b:1080 (prohibited): HTTP proxy answered 403 x",
    },
    {
      what: "the first one is no proxy",
      answers: ["\x05\xff"],
      refusal: Refusal.proxyFault,
      reason: /^Proxy 1 of 2 \(http:\/\/u@a:1\): HTTP proxy does not answer in HTTP/,
    },
    {
      what: "the first one knows another password",
      answers: [`${CHALLENGE}Content-Length: 0\r\n\r\n`, `${CHALLENGE}\r\n`],
      refusal: Refusal.proxyFault,
      reason: /^Proxy 1 of 2 \(http:\/\/u@a:1\): HTTP proxy refused user and password/,
    },
    {
      what: "the destination refuses",
      answers: [OK, NONE, "\x05\x05"],
      refusal: Refusal.refused,
      reason: "Proxy 2 of 2 (socks5://b:1080): SOCKS5 proxy replied 5: connection refused",
    },
    {
      what: "the second one wants a password",
      answers: [OK, "\x05\xff"],
      refusal: Refusal.proxyFault,
      reason: /^Proxy 2 of 2 \(socks5:\/\/b:1080\): SOCKS5 proxy wants authentication/,
    },
    {
      what: "the second one speaks out of turn",
      answers: [`${OK}SSH-2.0`],
      refusal: Refusal.proxyFault,
      reason: "Proxy 2 of 2 (socks5://b:1080) sent 7 bytes before it was asked",
    },
  ]) {
    const seen = talk(urls, answers);
    t.equal(seen.step, HandshakeStep.failed, what);
    t.equal(seen.refusal, refusal, what);
    t.match(seen.reason, reason, what);
    t.notMatch(seen.reason, ":p@", `${what}: no password`);
  }
});

t.test("chain: a proxy that closes after its challenge is dialled again with all before it", async (t) => {
  const chain = parseUpstream(["http://a", "http://u:p@b"]);
  const first = chain.connect(DESTINATION);
  const second = chain.connect(DESTINATION);
  if (first === null || second === null) throw new RangeError("a chain has a handshake");
  const seen = converse(first, [OK, `${CHALLENGE}Connection: close\r\n\r\n`]);
  t.equal(seen.step, HandshakeStep.again);
  t.equal(seen.refusal, Refusal.proxyFault);
  t.match(seen.reason, /^Proxy 2 of 2 \(http:\/\/u@b:80\): HTTP proxy asked for authentication/);
  const again = converse(second, [OK, OK]);
  t.equal(again.step, HandshakeStep.done);
  t.match(again.sent[1], "Proxy-Authorization: Basic dTpw", "it is known by then");
});

t.test("chain: any bytes end in a result, never in an exception", async () => {
  const pieces = fc.constantFrom(OK, NONE, REPLY, GRANTED, `${CHALLENGE}\r\n`);
  fc.assert(
    fc.property(
      fc.constantFrom(["http://a", "socks5://b"], ["socks4a://a", "http://b", "socks5://u:p@c"]),
      fc.array(fc.oneof({ weight: 3, arbitrary: pieces }, fc.string({ unit: "binary", maxLength: 5 }))),
      (urls, answers) => {
        const seen = talk(urls, answers);
        return seen.step !== HandshakeStep.failed || /^Proxy \d of \d \(/.test(seen.reason);
      },
    ),
    { numRuns: 1_000 },
  );
});

t.test("chain: what makes none is the caller's error, and no secret shows", async (t) => {
  t.throws(() => new ChainUpstream([]), /has 0 proxies, expected 2 or more/);
  t.throws(() => new ChainUpstream([parseUpstream("http://a"), DIRECT]), /is no proxy/);
  const chain = parseUpstream(["socks5://u:hunter2@a", "http://v:hunter2@b"]);
  t.equal(chain.associate(), null, "no datagrams");
  t.notMatch(`${inspect(chain, { depth: 9, showHidden: true })} ${JSON.stringify(chain)}`, "hunter2");
});
