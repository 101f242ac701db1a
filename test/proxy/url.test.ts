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
    { url: "@h", label: "socks5://h:1080", server: { kind: "tcp", host: "h", port: 1080 } },
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
    ["http://h:80", /unknown scheme "http", known are socks5:\/\/, direct:\/\/, reject:\/\//],
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
    ["socks5://h/path", /has a path after host and port.*remove it/],
    ["socks5://h?a=b", /has a query after/],
    ["socks5://h#x", /has a fragment after/],
    ["socks5:///run/proxy.sock", /Unix sockets are not served/],
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
    [`u:${"p".repeat(256)}@h`, /a password of 256 bytes, the limit of SOCKS5 is 255/],
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
