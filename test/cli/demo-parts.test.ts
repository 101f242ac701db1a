import { createRequire } from "node:module";
import t from "tap";
import { seededContent, sha256 } from "../../src/cli/demo/content.ts";
import { addressType, answerQuery, emitQuery, parseAnswer } from "../../src/cli/demo/dns.ts";
import { planSteps } from "../../src/cli/demo/steps.ts";
import { formatTable } from "../../src/cli/demo/table.ts";

/** The package comes without types. */
const packet = createRequire(import.meta.url)("dns-packet") as { decode(message: Buffer): unknown };

const ADDRESSES = { 4: "192.0.2.80", 6: "2001:db8::80" } as const;

t.test(
  "seededContent: the same bytes for the same seed, a prefix of the longer one, other bytes for another",
  async (t) => {
    const long = seededContent(7, 3_000_001);
    t.equal(long.length, 3_000_001);
    t.ok(seededContent(7, 1_048_577).equals(long.subarray(0, 1_048_577)));
    t.notOk(seededContent(8, 64).equals(long.subarray(0, 64)));
    t.equal(seededContent(7, 0).length, 0);
    // FIPS 197 appendix C.1 has no all-zero key; this is AES-128 of a zero block under a zero key, from NIST's AESAVS B.1.
    t.equal(seededContent(0, 16).toString("hex"), "66e94bd4ef8a2c3b884cfa59ca342b2e");
    t.equal(sha256(new Uint8Array(0)), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  },
);

t.test("emitQuery and answerQuery are read by dns-packet as meant (RFC 1035 §4)", async (t) => {
  for (const version of [4, 6] as const) {
    const query = emitQuery(4711, "demo.test", addressType(version));
    const type = version === 4 ? "A" : "AAAA";
    t.match(packet.decode(query), { id: 4711, type: "query", questions: [{ name: "demo.test", type, class: "IN" }] });
    const answer = answerQuery(query, "demo.test", ADDRESSES) ?? Buffer.alloc(0);
    t.match(packet.decode(answer), {
      id: 4711,
      type: "response",
      flag_aa: true,
      rcode: "NOERROR",
      answers: [{ name: "demo.test", type, ttl: 60, data: ADDRESSES[version] }],
    });
    t.equal(parseAnswer(answer, 4711), ADDRESSES[version]);
    t.equal(parseAnswer(answer, 4712), null, "the answer to another query");
  }
});

t.test("answerQuery: what it does not know, and what is no query", async (t) => {
  const other = answerQuery(emitQuery(1, "other.test", 1), "demo.test", ADDRESSES);
  t.match(packet.decode(other ?? Buffer.alloc(0)), { rcode: "NXDOMAIN", answers: [] });
  const mx = answerQuery(emitQuery(1, "DEMO.test", 15), "demo.test", ADDRESSES);
  t.match(packet.decode(mx ?? Buffer.alloc(0)), { rcode: "NOERROR", answers: [] });
  const query = emitQuery(1, "demo.test", 1);
  for (let length = 0; length < query.length; length++) {
    t.equal(answerQuery(query.subarray(0, length), "demo.test", ADDRESSES), null, `first ${length} bytes`);
  }
  const answer = answerQuery(query, "demo.test", ADDRESSES) ?? Buffer.alloc(0);
  t.equal(answerQuery(answer, "demo.test", ADDRESSES), null, "an answer is no query");
  for (let length = 0; length < answer.length; length++) {
    t.doesNotThrow(() => parseAnswer(answer.subarray(0, length), 1), `first ${length} bytes`);
  }
});

t.test("formatTable: columns as wide as their widest cell, numbers flush right and grouped", async (t) => {
  const rows = [
    { protocol: "TCP IPv6", flow: "download", path: "a > b", bytes: 67108864, mbitPerSecond: 4321, result: "ok" },
    { protocol: "UDP IPv4", flow: "x", path: "a", bytes: 4, mbitPerSecond: null, result: "SHA-256 differs" },
  ];
  t.equal(
    formatTable(rows),
    [
      "protocol  flow      path        bytes  Mbit/s  result",
      "--------  --------  -----  ----------  ------  ---------------",
      "TCP IPv6  download  a > b  67,108,864   4,321  ok",
      "UDP IPv4  x         a               4       -  SHA-256 differs",
    ].join("\n"),
  );
});

t.test("planSteps: every protocol over both IP versions; programs that are missing are replaced", async (t) => {
  const all = planSteps({ curl: true, dig: true, ping: true });
  const protocols = new Set(all.map(({ protocol }) => protocol));
  t.same([...protocols].sort(), ["ICMP IPv4", "ICMP IPv6", "TCP IPv4", "TCP IPv6", "UDP IPv4", "UDP IPv6"]);
  const own = planSteps({ curl: false, dig: false, ping: false });
  t.equal(own.length, all.length - 2, "only ping has no replacement");
  t.ok(own.every(({ path }) => path.startsWith("node > ")));
});
