import fc from "fast-check";
import t from "tap";
import { isPrivateAddress, unmapAddress } from "../../src/proxy/server/allow.ts";
import { Credentials } from "../../src/proxy/server/credentials.ts";
import { alternate } from "../../src/proxy/server/dial.ts";
import { failureOf, worthMore } from "../../src/proxy/server/failures.ts";
import { ServerHandshake } from "../../src/proxy/server/handshake.ts";
import { ReadBuffers, SHARED_BYTES } from "../../src/proxy/server/read-buffers.ts";

const CREDENTIALS = new Credentials("alice", "s3:cret");
const LOGIN = [1, 5, ...Buffer.from("alice"), 7, ...Buffer.from("s3:cret")];
const WRONG = [1, 5, ...Buffer.from("alice"), 1, 0x78];
const V4_REQUEST = [5, 1, 0, 1, 192, 0, 2, 7, 1, 0xbb];
const basic = (pair: string) => Buffer.from(pair).toString("base64");

/** What a client that sends `bytes`, cut at `cuts`, gets to see. */
function converse(credentials: Credentials | null, bytes: Uint8Array, cuts: readonly number[] = []) {
  const handshake = new ServerHandshake(credentials);
  const answers: number[] = [];
  let start = 0;
  for (const end of [...cuts, bytes.length]) {
    const outcome = handshake.receive(bytes.subarray(start, end));
    answers.push(...handshake.takeOut());
    start = end;
    if (outcome?.kind === "end")
      return { answers, cause: outcome.cause, last: Buffer.from(outcome.answer).toString("latin1") };
    if (outcome !== null) {
      const rest = Buffer.concat([handshake.takeRest(), bytes.subarray(start)]);
      return { answers, request: outcome.request, rest: rest.toString("latin1") };
    }
  }
  return { answers };
}

const latin1 = (text: string) => Buffer.from(text, "latin1");
const connect = (host: string, port: number) => ({ protocol: "socks5", command: "connect", host, port });

const SOCKS_ROWS = [
  { what: "IPv4", bytes: [5, 1, 0, ...V4_REQUEST], answers: [5, 0], request: connect("192.0.2.7", 443) },
  {
    what: "IPv6",
    bytes: [5, 1, 0, 5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, ...new Array(11).fill(0), 1, 0, 80],
    answers: [5, 0],
    request: connect("2001:db8::1", 80),
  },
  { what: "name", bytes: [5, 1, 0, 5, 1, 0, 3, 1, 0x61, 0, 80], answers: [5, 0], request: connect("a", 80) },
  {
    what: "one of many methods",
    bytes: [5, 3, 1, 2, 0, ...V4_REQUEST],
    answers: [5, 0],
    request: connect("192.0.2.7", 443),
  },
  {
    what: "UDP ASSOCIATE",
    bytes: [5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0],
    answers: [5, 0],
    request: { protocol: "socks5", command: "associate", host: "0.0.0.0", port: 0 },
  },
  { what: "no method", bytes: [5, 0], cause: "bad", last: "" },
  { what: "method not offered", bytes: [5, 1, 2], cause: "auth", last: "\x05\xff" },
  { what: "request of another version", bytes: [5, 1, 0, 4, 1, 0, 1, 1], answers: [5, 0], cause: "bad", last: "" },
  { what: "empty name", bytes: [5, 1, 0, 5, 1, 0, 3, 0, 0, 80], answers: [5, 0], cause: "bad", last: "" },
  {
    what: "BIND",
    bytes: [5, 1, 0, 5, 2, 0, 1, 1, 2, 3, 4, 0, 1],
    answers: [5, 0],
    cause: "refused",
    last: "\x05\x07\0\x01\0\0\0\0\0\0",
  },
  {
    what: "address type 2",
    bytes: [5, 1, 0, 5, 1, 0, 2, 1],
    answers: [5, 0],
    cause: "refused",
    last: "\x05\x08\0\x01\0\0\0\0\0\0",
  },
  { what: "SOCKS4", bytes: [4, 1, 0, 80, 1, 2, 3, 4, 0], cause: "bad", last: "\0[\0\0\0\0\0\0" },
  { what: "TLS", bytes: [0x16, 3, 1], cause: "bad", last: "" },
  {
    what: "password",
    with: CREDENTIALS,
    bytes: [5, 2, 0, 2, ...LOGIN, ...V4_REQUEST],
    answers: [5, 2, 1, 0],
    request: connect("192.0.2.7", 443),
  },
  {
    what: "wrong password",
    with: CREDENTIALS,
    bytes: [5, 1, 2, ...WRONG],
    answers: [5, 2],
    cause: "auth",
    last: "\x01\x01",
  },
  {
    what: "empty password",
    with: CREDENTIALS,
    bytes: [5, 1, 2, 1, 0, 0],
    answers: [5, 2],
    cause: "auth",
    last: "\x01\x01",
  },
  { what: "no password offered", with: CREDENTIALS, bytes: [5, 1, 0], cause: "auth", last: "\x05\xff" },
  {
    what: "password of another version",
    with: CREDENTIALS,
    bytes: [5, 1, 2, 5, 0, 0],
    answers: [5, 2],
    cause: "bad",
    last: "",
  },
];

for (const row of SOCKS_ROWS) {
  t.test(`server: SOCKS5 ${row.what} (RFC 1928, RFC 1929)`, async (t) => {
    const { what: _, bytes, with: credentials = null, ...expected } = row;
    t.strictSame(
      converse(credentials, Uint8Array.from(bytes)),
      "request" in expected ? { ...expected, rest: "" } : { answers: [], ...expected },
    );
  });
}

const http = (...lines: string[]) => latin1(`${lines.join("\r\n")}\r\n\r\n`);
const httpConnect = (host: string, port: number) => ({ protocol: "http", command: "connect", host, port });

t.test("server: HTTP CONNECT (RFC 9110 §9.3.6)", async (t) => {
  for (const { what, bytes, request } of [
    {
      what: "name",
      bytes: http("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443"),
      request: httpConnect("a.example", 443),
    },
    { what: "IPv4, HTTP/1.0", bytes: http("CONNECT 192.0.2.7:80 HTTP/1.0"), request: httpConnect("192.0.2.7", 80) },
    { what: "IPv6", bytes: http("CONNECT [2001:DB8::1]:80 HTTP/1.1"), request: httpConnect("2001:db8::1", 80) },
    { what: "bare line feeds", bytes: latin1("CONNECT a:1 HTTP/1.1\nHost: a\n\n"), request: httpConnect("a", 1) },
  ]) {
    t.strictSame(converse(null, bytes), { answers: [], request, rest: "" }, what);
  }
  for (const { what, bytes, status, cause } of [
    { what: "GET", bytes: http("GET http://a/ HTTP/1.1"), status: 405, cause: "refused" },
    { what: "no port", bytes: http("CONNECT a.example HTTP/1.1"), status: 400, cause: "bad" },
    { what: "port 0", bytes: http("CONNECT a:0 HTTP/1.1"), status: 400, cause: "bad" },
    { what: "port 65536", bytes: http("CONNECT a:65536 HTTP/1.1"), status: 400, cause: "bad" },
    { what: "IPv6 without brackets", bytes: http("CONNECT ::1:80 HTTP/1.1"), status: 400, cause: "bad" },
    { what: "IPv4 in brackets", bytes: http("CONNECT [1.2.3.4]:80 HTTP/1.1"), status: 400, cause: "bad" },
    { what: "user in the target", bytes: http("CONNECT a@b:80 HTTP/1.1"), status: 400, cause: "bad" },
    { what: "HTTP/2", bytes: http("PRI * HTTP/2.0"), status: 400, cause: "bad" },
    { what: "words", bytes: latin1("hello there\r\n\r\n"), status: 400, cause: "bad" },
    { what: "endless head", bytes: latin1(`GET / HTTP/1.1\r\nX: ${"y".repeat(17_000)}`), status: 431, cause: "bad" },
    { what: "long head", bytes: http("CONNECT a:1 HTTP/1.1", `X: ${"y".repeat(17_000)}`), status: 431, cause: "bad" },
  ]) {
    const seen = converse(null, bytes);
    t.equal(seen.cause, cause, what);
    const [head, body] = seen.last?.split("\r\n\r\n") ?? [];
    t.match(head, new RegExp(`^HTTP/1.1 ${status} [A-Z]`), what);
    t.match(head, `\r\nContent-Length: ${body?.length}\r\nConnection: close`, what);
    t.match(body, /^[^\r\n]+\n$/, `${what}: one line of text`);
  }
});

t.test("server: HTTP Basic (RFC 7617)", async (t) => {
  const head = (...headers: string[]) => converse(CREDENTIALS, http("CONNECT a:1 HTTP/1.1", ...headers));
  for (const header of [
    `Proxy-Authorization: Basic ${basic("alice:s3:cret")}`,
    `proxy-authorization:basic ${basic("alice:s3:cret")}  `,
  ]) {
    t.strictSame(head("Host: a", header).request, httpConnect("a", 1), header);
  }
  for (const headers of [
    [],
    [`Authorization: Basic ${basic("alice:s3:cret")}`],
    [`Proxy-Authorization: Basic ${basic("alice:wrong")}`],
    [`Proxy-Authorization: Basic ${basic("alices:3:cret")}`],
    [`Proxy-Authorization: Basic ${basic("alice")}`],
    ["Proxy-Authorization: Basic"],
    ["Proxy-Authorization: Digest x=y"],
  ]) {
    const seen = head(...headers);
    t.equal(seen.cause, "auth", headers[0] ?? "none");
    t.match(seen.last, /^HTTP\/1.1 407 /);
    t.match(seen.last, '\r\nProxy-Authenticate: Basic realm="tunrelay"');
  }
});

t.test("server: a request cut at every byte gives the same, and what follows is passed on", async (t) => {
  const payload = "\0payload\r\n\r\n";
  for (const { credentials, bytes } of [
    { credentials: null, bytes: Uint8Array.from([5, 1, 0, ...V4_REQUEST, ...latin1(payload)]) },
    { credentials: CREDENTIALS, bytes: Uint8Array.from([5, 2, 0, 2, ...LOGIN, ...V4_REQUEST, ...latin1(payload)]) },
    { credentials: null, bytes: Buffer.concat([http("CONNECT a:1 HTTP/1.1", "Host: a"), latin1(payload)]) },
  ]) {
    const expected = converse(credentials, bytes);
    t.equal(expected.rest, payload);
    const everyByte = Array.from({ length: bytes.length }, (_, at) => at);
    t.strictSame(converse(credentials, bytes, everyByte), expected, "one byte at a time");
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length)), (cuts) => {
        const seen = converse(
          credentials,
          bytes,
          cuts.sort((a, b) => a - b),
        );
        return JSON.stringify(seen) === JSON.stringify(expected);
      }),
    );
  }
});

t.test("server: any bytes give an outcome or nothing, never an exception", async () => {
  const starts = fc.constantFrom(
    "",
    "\x05\x01\0",
    "\x05\x01\x02",
    "\x05\x01\0\x05\x01\0",
    "CONNECT ",
    "GET / HTTP/1.1\r\n",
  );
  fc.assert(
    fc.property(fc.boolean(), starts, fc.array(fc.uint8Array()), (password, start, chunks) => {
      const handshake = new ServerHandshake(password ? CREDENTIALS : null);
      for (const chunk of [latin1(start), ...chunks]) {
        const outcome = handshake.receive(chunk);
        if (outcome !== null) return outcome.kind === "request" || outcome.reason !== "";
      }
      return true;
    }),
    { numRuns: 2_000 },
  );
});

t.test("server: failures keep their meaning in both protocols", async (t) => {
  for (const [code, reply, status] of [
    ["ECONNREFUSED", 5, 502],
    ["EHOSTUNREACH", 4, 502],
    ["ENETUNREACH", 3, 502],
    ["ETIMEDOUT", 4, 504],
    ["EACCES", 2, 403],
    ["EPERM", 2, 403],
    ["ENOTFOUND", 4, 502],
    ["EMFILE", 1, 503],
    ["EWHATEVER", 1, 502],
    [undefined, 1, 502],
  ] as const) {
    t.match(failureOf(code), { reply, status }, String(code));
  }
  t.equal(worthMore("ENETUNREACH", undefined), true);
  t.equal(worthMore("ECONNREFUSED", "ENETUNREACH"), true, "a host that refused is there");
  t.equal(worthMore("ENETUNREACH", "ETIMEDOUT"), false, "no IPv6 here says nothing about the host");
});

t.test("server: addresses", async (t) => {
  for (const address of [
    "127.0.0.1",
    "10.1.2.3",
    "192.168.1.1",
    "172.31.0.1",
    "169.254.1.1",
    "0.0.0.0",
    "224.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "ff02::1",
  ]) {
    t.equal(isPrivateAddress(address), true, address);
  }
  for (const address of ["192.0.2.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111"]) {
    t.equal(isPrivateAddress(address), false, address);
  }
  t.equal(unmapAddress("::ffff:192.0.2.7"), "192.0.2.7");
  t.equal(unmapAddress("0:0:0:0:0:FFFF:7f00:1"), "127.0.0.1");
  t.equal(unmapAddress("2001:db8::1"), "2001:db8::1");
  t.equal(unmapAddress("fe80::1%eth0"), "fe80::1%eth0");
  t.equal(isPrivateAddress("fe80::1%eth0"), true);
  t.strictSame(
    alternate(["a::", "b::", "1", "c::", "2"]),
    ["a::", "1", "b::", "2", "c::"],
    "families alternate (RFC 8305 §4)",
  );
  t.strictSame(alternate(["1", "a::"]), ["1", "a::"]);
});

t.test("server: read buffers grow with full reads, shrink with short ones, and have a limit", async (t) => {
  const buffers = new ReadBuffers();
  let buffer = buffers.shared;
  const sizes = [buffer.length];
  for (let i = 0; i < 5; i++) {
    buffer = buffers.next(buffer, buffer.length);
    sizes.push(buffer.length);
  }
  t.strictSame(
    sizes,
    [16, 64, 256, 1024, 1024, 1024].map((kib) => kib * 1024),
  );
  t.equal(buffers.ownedBytes, 1 << 20);
  t.equal(buffers.next(buffer, 200_000), buffer, "a fifth is no reason to shrink");
  const kept = buffer;
  while (buffer !== buffers.shared) buffer = buffers.next(buffer, 1);
  t.equal(buffers.ownedBytes, 0);
  let again = buffers.shared;
  for (let i = 0; i < 3; i++) again = buffers.next(again, again.length);
  t.equal(again, kept, "freed buffers are used again");

  const owned = Array.from({ length: 200 }, () => {
    let mine: Uint8Array = buffers.shared;
    for (let i = 0; i < 3; i++) mine = buffers.next(mine, mine.length);
    return mine;
  });
  t.ok(buffers.ownedBytes <= 64 << 20, "64 MiB at most");
  t.equal(
    new Set(owned.filter((mine) => mine !== buffers.shared)).size,
    owned.filter((mine) => mine !== buffers.shared).length,
    "none is given out twice",
  );
  for (const mine of [...owned, again]) buffers.release(mine, true);
  t.equal(buffers.ownedBytes, 0);
  t.equal(buffers.shared.length, SHARED_BYTES);
});
