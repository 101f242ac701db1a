import { inspect } from "node:util";
import fc from "fast-check";
import t from "tap";
import { UpstreamError } from "../../src/proxy/errors.ts";
import { HandshakeStep, type Upstream } from "../../src/proxy/upstream.ts";
import { parseUpstream } from "../../src/proxy/url.ts";

t.test("URLs as tun2socks takes them", async (t) => {
  for (const { url, label, server } of [
    {
      url: "socks5://127.0.0.1:1080",
      label: "socks5://127.0.0.1:1080",
      server: { kind: "tcp", host: "127.0.0.1", port: 1080 },
    },
    { url: "127.0.0.1:9050", label: "socks5://127.0.0.1:9050", server: { kind: "tcp", host: "127.0.0.1", port: 9050 } },
    {
      url: "proxy.example",
      label: "socks5://proxy.example:1080",
      server: { kind: "tcp", host: "proxy.example", port: 1080 },
    },
    {
      url: "SOCKS5://Proxy.Example./",
      label: "socks5://proxy.example.:1080",
      server: { kind: "tcp", host: "proxy.example.", port: 1080 },
    },
    { url: "socks5h://h:1", label: "socks5://h:1", server: { kind: "tcp", host: "h", port: 1 } },
    {
      url: "socks5://user:pass@h:65535",
      label: "socks5://user@h:65535",
      server: { kind: "tcp", host: "h", port: 65_535 },
    },
    { url: "user:pass@h", label: "socks5://user@h:1080", server: { kind: "tcp", host: "h", port: 1080 } },
    { url: "user@h", label: "socks5://user@h:1080", server: { kind: "tcp", host: "h", port: 1080 } },
    { url: "@h:1080", label: "socks5://h:1080", server: { kind: "tcp", host: "h", port: 1080 } },
    { url: ":@h", label: "socks5://h:1080", server: { kind: "tcp", host: "h", port: 1080 } },
    {
      url: "[2001:DB8:0::1]:99",
      label: "socks5://[2001:db8::1]:99",
      server: { kind: "tcp", host: "2001:db8::1", port: 99 },
    },
    { url: "u:p@[::1]", label: "socks5://u@[::1]:1080", server: { kind: "tcp", host: "::1", port: 1080 } },
    { url: " socks5://h:1\n", label: "socks5://h:1", server: { kind: "tcp", host: "h", port: 1 } },
    {
      url: "bücher.example",
      label: "socks5://xn--bcher-kva.example:1080",
      server: { kind: "tcp", host: "xn--bcher-kva.example", port: 1080 },
    },
    {
      url: "my_proxy-1:1080",
      label: "socks5://my_proxy-1:1080",
      server: { kind: "tcp", host: "my_proxy-1", port: 1080 },
    },
  ]) {
    const upstream = parseUpstream(url);
    t.equal(upstream.label, label, url);
    t.strictSame({ ...upstream.server }, server, url);
    t.equal(upstream.scheme, "socks5");
    t.equal(upstream.udp, "associate");
    t.equal(upstream.rejects, false);
  }
  const direct = parseUpstream("direct://");
  t.match(direct, { scheme: "direct", label: "direct://", server: null, udp: "direct", rejects: false });
  t.equal(direct.connect({ host: "h", port: 1 }), null);
  t.equal(direct.associate(), null);
  t.match(parseUpstream("reject://"), { scheme: "reject", server: null, udp: "none", rejects: true });
});

t.test("URLs of every scheme: defaults, what they carry, and where they listen", async (t) => {
  const tcp = (host: string, port: number) => ({ kind: "tcp", host, port });
  const unix = (path: string) => ({ kind: "unix", path });
  for (const [url, scheme, label, server, udp, carriesIpv6] of [
    ["socks4://h", "socks4", "socks4://h:1080", tcp("h", 1080), "none", false],
    ["socks4://id@10.0.0.1:9", "socks4", "socks4://id@10.0.0.1:9", tcp("10.0.0.1", 9), "none", false],
    ["SOCKS4A://[::1]", "socks4a", "socks4a://[::1]:1080", tcp("::1", 1080), "none", false],
    ["http://h", "http", "http://h:80", tcp("h", 80), "none", true],
    ["http://u:p@H:3128/", "http", "http://u@h:3128", tcp("h", 3128), "none", true],
    ["https://h", "https", "https://h:443", tcp("h", 443), "none", true],
    ["socks5:///run/p.sock", "socks5", "socks5:///run/p.sock", unix("/run/p.sock"), "associate", true],
    ["socks5://u:p@/run/a%20b/%40x", "socks5", "socks5://u@/run/a%20b/%40x", unix("/run/a b/@x"), "associate", true],
    ["socks5://@name", "socks5", "socks5://@name", unix("@name"), "associate", true],
    ["@a%2Fb", "socks5", "socks5://@a%2Fb", unix("@a/b"), "associate", true],
    ["socks5://u:p@%40name", "socks5", "socks5://u@%40name", unix("@name"), "associate", true],
    ["http:///run/p.sock", "http", "http:///run/p.sock", unix("/run/p.sock"), "none", true],
    ["socks4a://@s", "socks4a", "socks4a://@s", unix("@s"), "none", false],
  ] as const) {
    const upstream = parseUpstream(url);
    t.match(upstream, { scheme, label, udp, carriesIpv6, rejects: false }, url);
    t.strictSame({ ...upstream.server }, server, url);
    t.equal(upstream.tls === null, scheme !== "https", `${url}: TLS`);
    if (udp === "none") t.equal(upstream.associate(), null);
    t.strictSame({ ...parseUpstream(upstream.label).server }, server, `${url}: the label leads to the same place`);
  }
  t.equal(parseUpstream("direct://").carriesIpv6, true);
});

t.test("TLS settings of an https:// proxy", async (t) => {
  const { tls } = parseUpstream("https://Proxy.Example.:8443");
  t.strictSame({ ...tls }, { serverName: "proxy.example", ca: null, pinSha256: null, cert: null, key: null });
  const pinSha256 = new Uint8Array(32);
  const given = parseUpstream(["https:///run/p.sock"], {
    tls: { serverName: "name.example", ca: "CA", pinSha256, cert: "C", key: "PRIVATE-K" },
  });
  t.strictSame({ ...given.tls }, { serverName: "name.example", ca: "CA", pinSha256, cert: "C", key: "PRIVATE-K" });
  for (const shown of [inspect(given, { depth: 9, showHidden: true }), JSON.stringify(given)]) {
    t.notMatch(shown, "PRIVATE-K", "no inspection shows the key");
  }
  for (const [url, options, message] of [
    ["https:///run/p.sock", {}, /names no host to check the certificate for: give it \(SNI\)/],
    ["https://h", { tls: { cert: "C" } }, /a client certificate but no key: give both/],
    ["https://h", { tls: { key: "K" } }, /a client key but no certificate/],
    ["http://h", { tls: { ca: "CA" } }, /beside http:\/\/h:80: they are for https:\/\/ proxies/],
    ["direct://", { tls: { ca: "CA" } }, /beside direct:\/\//],
  ] as const) {
    t.throws(() => parseUpstream(url, options), { code: "UPSTREAM_URL", message }, url);
  }
  t.doesNotThrow(() => parseUpstream("http://h", { tls: {} }));
});

t.test("a password beside the URL goes to the user without one", async (t) => {
  const options = { password: "hunter2" };
  const basic = (url: string | string[], password: string | Uint8Array): string => {
    const handshake = parseUpstream(url, { password }).connect({ host: "h", port: 1 });
    const answer = Buffer.from("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n");
    handshake?.start();
    handshake?.receive(answer, 0, answer.length);
    return /Basic (\S+)/.exec(Buffer.from(handshake?.out ?? []).toString())?.[1] ?? "";
  };
  t.equal(basic("http://u@h", "hunter2"), Buffer.from("u:hunter2").toString("base64"));
  t.equal(basic(["http://u@h", "http://a:b@c"], "pä"), Buffer.from("u:pä").toString("base64"));
  t.equal(basic("http://u@h", Uint8Array.of(0xff)), Buffer.from("u:\xff", "latin1").toString("base64"));
  for (const [url, message] of [
    ["socks5://h", /beside socks5:\/\/h:1080, which needs none: write its user as user@host/],
    ["socks5://u:p@h", /which needs none/],
    ["http://u:@h", /which needs none/],
    ["socks4://u@h", /which needs none/],
    ["direct://", /beside direct:\/\//],
    [["http://u@h", "socks5://v@i"], /where 2 lack one: write one into the URL/],
  ] as const) {
    t.throws(() => parseUpstream(url, options), { code: "UPSTREAM_URL", message }, String(url));
  }
  for (const url of ["socks5://u@h", "http://u@h"]) {
    t.notMatch(inspect(parseUpstream(url, options), { depth: 9, showHidden: true }), "hunter2", url);
  }
});

t.test("several URLs are a chain", async (t) => {
  const chain = parseUpstream(["socks5://u:p@a", "http://b:8080", "socks4a://c"]);
  t.match(chain, {
    scheme: "chain",
    label: "socks5://u@a:1080 -> http://b:8080 -> socks4a://c:1080",
    udp: "none",
    carriesIpv6: false,
    tls: null,
  });
  t.strictSame({ ...chain.server }, { kind: "tcp", host: "a", port: 1080 });
  t.equal(parseUpstream(["https://a", "http://b"]).tls?.serverName, "a");
  t.strictSame({ ...parseUpstream(["socks5:///run/s", "http://b"]).server }, { kind: "unix", path: "/run/s" });
  t.equal(parseUpstream(["socks5://a"]).scheme, "socks5", "one is no chain");
  for (const [urls, message] of [
    [[], /is missing: write one as/],
    [["http://a", "ftp://b"], /^Proxy 2 of 2: Proxy URL has the unknown scheme "ftp"/],
    [["http://a", "direct://"], /Proxy 2 \(direct:\/\/\) is no proxy, and a chain is made of proxies: leave it out/],
    [["reject://", "http://a"], /Proxy 1 \(reject:\/\/\) is no proxy/],
    [["http://a", "https://b"], /Proxy 2 \(https:\/\/b:443\) wants TLS, which only the first .* put it first/],
    [["http://a", "http:///run/s"], /Proxy 2 .* is a Unix socket, which no other proxy can reach/],
    [["socks4://a", "http://b"], /Proxy 1 of 2 \(socks4:\/\/a:1080\): SOCKS4 cannot carry a name, SOCKS4a can/],
    [["socks4a://a", "http://[::1]"], /SOCKS4 cannot carry an IPv6 address/],
    [Array.from({ length: 9 }, () => "http://a"), /has 9 proxies, the limit is 8/],
  ] as const) {
    t.throws(() => parseUpstream(urls), { code: "UPSTREAM_URL", message }, urls.join(" "));
  }
  t.doesNotThrow(() => parseUpstream(["socks4://a", "http://10.0.0.1"]));
});

/** User and password as the handshake sends them. */
function credentials(url: string): string[] | null {
  const handshake = parseUpstream(url).connect({ host: Uint8Array.of(1, 2, 3, 4), port: 1 });
  if (handshake?.start().length !== 4) return null;
  if (handshake.receive(Uint8Array.of(5, 2), 0, 2) !== HandshakeStep.send) return null;
  const user = handshake.out.subarray(2, 2 + (handshake.out[1] ?? 0));
  const password = handshake.out.subarray(3 + user.length);
  return [Buffer.from(user).toString("latin1"), Buffer.from(password).toString("latin1")];
}

t.test("users and passwords are percent-decoded to bytes", async (t) => {
  for (const { url, expected } of [
    { url: "h", expected: null },
    { url: ":@h", expected: null },
    { url: "a:b@h", expected: ["a", "b"] },
    { url: "a@h", expected: ["a", ""] },
    { url: "a:@h", expected: ["a", ""] },
    { url: "a%40b:%3A%2f%25@h", expected: ["a@b", ":/%"] },
    { url: "a:b:c@h", expected: ["a", "b:c"] },
    { url: "a:p@ss@h", expected: ["a", "p@ss"] },
    { url: "a:x%FF%00y@h", expected: ["a", "x\xff\0y"] },
    { url: "%3CtorS0X%3E0abc:pw@h", expected: ["<torS0X>0abc", "pw"] },
    { url: "<torS0X>:pw@h", expected: ["<torS0X>", "pw"] },
    { url: "a:p+w@h", expected: ["a", "p+w"] },
    { url: "a:ü@h", expected: ["a", "\xc3\xbc"] },
  ]) {
    t.strictSame(credentials(url), expected, url);
  }
});

t.test("what is wrong is said, with the remedy", async (t) => {
  for (const [url, message] of [
    ["", /is empty: write one as/],
    ["   ", /is empty/],
    ["ftp://h:80", /unknown scheme "ftp", known are socks5:\/\/, socks5h:\/\/, .*, direct:\/\/, reject:\/\/$/],
    ["socks://h", /unknown scheme "socks".*: did you mean socks5:\/\/\?$/],
    ["sock5://h", /did you mean socks5:\/\/\?/],
    ["scoks5://h", /did you mean socks5:\/\/\?/],
    ["htpp://h", /did you mean http:\/\/\?/],
    ["httpss://h", /did you mean https:\/\/\?/],
    ["none://", /did you mean direct:\/\/\?/],
    ["unix:///run/x", /write what the socket speaks, as socks5:\/\/\/path/],
    ["http:h:80", /has http: without two slashes/],
    ["socks5:/h", /has socks5: without two slashes/],
    ["direct:", /has direct: without two slashes/],
    ["ss://method:pass@h:80", /unknown scheme "ss"/],
    ["direct", /lacks its scheme mark: write direct:\/\//],
    ["direct://h", /neither host nor path: write just direct:\/\//],
    ["reject://x@h", /neither host nor path/],
    ["socks5://", /has no host/],
    ["socks5://u:p@", /has no host/],
    ["socks5://:1080", /a port but no host/],
    ["socks5://:pw@h", /a password but no user/],
    ["socks5://h:0", /port 0, expected 1 to 65535/],
    ["socks5://h:65536", /port 65536, expected 1 to 65535/],
    ["socks5://h:", /a port that is not a number/],
    ["socks5://h:+80", /a port that is not a number/],
    ["socks5://h:1080x", /a port that is not a number/],
    ["socks5://h/path", /has a path after host and port.*write just socks5:/],
    ["socks5://h?a=b", /has a query after/],
    ["socks5://h#x", /has a fragment after/],
    ["socks5:///run/proxy.sock?x", /a \? or # in the path of its Unix socket/],
    [`socks5:///${"a".repeat(107)}`, /a Unix socket of 108 bytes, the limit is 107/],
    ["socks5:///u:secret@h:1080", /an @ in the path of its Unix socket: write two slashes before user@host/],
    ["socks5:///a%00b", /a NUL in the path/],
    ["socks5:///a%ff", /a path that is not UTF-8/],
    ["socks5:///a%f", /a % in its path without two hex digits/],
    ["socks5://%40", /an empty name of a Unix socket/],
    ["socks4://u:p@h", /a password, and SOCKS4 knows none: write socks4:\/\/user@host/],
    ["socks4://a%00b@h", /a NUL in its user/],
    ["socks4://a%ff@h", /a user that is not UTF-8/],
    [`socks4://${"a".repeat(256)}@h`, /a user of 256 bytes, the limit of SOCKS is 255/],
    ["http://a%3Ab:p@h", /a colon in its user, which HTTP cannot carry/],
    ["http://a%0D%0Ab:p@h", /a control character in its user/],
    ["http://a:p%0A@h", /a control character in its password/],
    [`http://a:${"p".repeat(1024)}@h`, /user and password of 1025 bytes, the limit is 1024/],
    ["http://::1", /write it as http:\/\/\[2001:db8::1\]:80/],
    ["socks5://a%zz:b@h", /a % in its user without two hex digits: write a percent sign as %25/],
    ["socks5://a:b%2@h", /a % in its password/],
    ["socks5://::1:1080", /IPv6 address without brackets: write it as socks5:\/\/\[/],
    ["::1", /IPv6 address without brackets/],
    ["[::1", /no valid IPv6 address between \[ and \]/],
    ["[127.0.0.1]:1", /no valid IPv6 address/],
    ["[fe80::1%25eth0]:1", /no valid IPv6 address/],
    ["[::1]1080", /text between \] and the port/],
    ["h:1:2", /more than one colon/],
    ["10.0.0.300:1", /"10.0.0.300", which is not a valid IPv4 address/],
    ["1.2.3", /not a valid IPv4 address/],
    ["bad host", /the host "bad%20host", which is neither a name nor an address/],
    ["-x", /neither a name nor an address/],
    ["a..b", /neither a name nor an address/],
    [`${"a".repeat(254)}`, /neither a name nor an address/],
    [`u:${"p".repeat(256)}@h`, /a password of 256 bytes, the limit of SOCKS is 255/],
    [`${"%41".repeat(256)}:p@h`, /a user of 256 bytes/],
  ] as const) {
    t.throws(() => parseUpstream(url), { name: "UpstreamError", code: "UPSTREAM_URL", message }, url);
  }
});

t.test("a password shows in no error, label or inspection", async (t) => {
  const secret = "hunter2";
  for (const url of [
    `socks5://u:${secret}@h`,
    `http://u:${secret}@h`,
    `http://u:${secret}@h:99999`,
    `socks4://u:${secret}@h`,
    `ftp://u:${secret}@h`,
    `http:u:${secret}@h`,
    `http://u:a%0A${secret}@h`,
    `socks5://u:${secret}@/run/x`,
    `socks5://u:${secret}@/run/x?y`,
    `socks5://u:${secret}@h:99999`,
    `socks5://u:${secret}@bad host`,
    `socks5://u:x%zz${secret}@h`,
    `socks5://u:x/${secret}@h`,
    `socks5://u:x?${secret}@h`,
    `socks5://u:x#${secret}@h:1`,
    `socks5://u:${secret}`,
    `socks5://h:1080:u:${secret}`,
    `direct://u:${secret}@h`,
    `u:${secret}@`,
    `u:${secret}@[::1`,
  ]) {
    let seen: string;
    try {
      const upstream = parseUpstream(url);
      seen = `${upstream.label} ${JSON.stringify(upstream)} ${inspect(upstream, { depth: 9, showHidden: true })}`;
    } catch (error) {
      t.type(error, UpstreamError);
      seen = `${inspect(error)} ${JSON.stringify(error)}`;
    }
    t.notMatch(seen, secret, url.replace(secret, "..."));
  }
});

t.test("a label is one line of printable ASCII that parses to the same server", async () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (user, password) => {
      const url = `${user}:${password}@[2001:db8::1]:42`;
      try {
        const { label } = parseUpstream(url);
        return /^[\x21-\x7e]+$/.test(label) && hasPort42(parseUpstream(label));
      } catch (error) {
        return error instanceof UpstreamError;
      }
    }),
    { numRuns: 1_000 },
  );
});

function hasPort42({ server }: Upstream): boolean {
  return server?.kind === "tcp" && server.port === 42;
}

t.test("any text gives an upstream or an UpstreamError", async () => {
  const parts = fc.constantFrom(
    "socks5://",
    "socks4://",
    "http://",
    "direct:",
    "@",
    ":",
    "[",
    "]",
    "::",
    "%",
    "%41",
    "/",
    "?",
    "h",
    "1",
    "1080",
    ".",
  );
  fc.assert(
    fc.property(fc.array(fc.oneof(parts, fc.string({ maxLength: 3 }))), (pieces) => {
      try {
        return parseUpstream(pieces.join("")).scheme !== "";
      } catch (error) {
        return error instanceof UpstreamError && /^[^\r\n]+[^.]$/.test(error.message);
      }
    }),
    { numRuns: 5_000 },
  );
});
