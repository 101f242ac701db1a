import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { CliError } from "../../src/cli/cli-error.ts";
import { type ProxyFlags, readProxyOptions } from "../../src/cli/secrets.ts";

const FOLDER = t.testdir({
  password: "s3cr:t\r\nnot this\n",
  raw: Buffer.from([0xff, 0x41]),
  empty: "\nsecond",
  long: "x".repeat(5000),
  text: "hello",
  broken: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
  brokenkey: "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
});
const file = (name: string): string => join(FOLDER, name);
const URL = ["https://proxy.example"];

/** A key and a certificate of its own, as openssl makes them. */
function makePair(name: string): void {
  const [key, cert] = [file(`${name}.key`), file(`${name}.pem`)];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
  const args = ["req", "-x509", ...curve, "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", `/CN=${name}`];
  execFileSync("openssl", args, { stdio: "ignore" });
  chmodSync(key, 0o600);
}

makePair("a");
makePair("b");
execFileSync("openssl", ["x509", "-in", file("a.pem"), "-outform", "der", "-out", file("a.der")]);
execFileSync("openssl", ["pkey", "-in", file("a.key"), "-aes128", "-passout", "pass:x", "-out", file("a.enc")]);
writeFileSync(file("both.pem"), `${readFileSync(file("a.pem"))}${readFileSync(file("a.key"))}`, { mode: 0o600 });
writeFileSync(file("bundle.pem"), `text before\n${readFileSync(file("a.pem"))}${readFileSync(file("b.pem"))}`);
const FINGERPRINT = new X509Certificate(readFileSync(file("a.pem"))).fingerprint256;
chmodSync(file("password"), 0o600);

const read = (flags: ProxyFlags, environment: Record<string, string> = {}) => readProxyOptions(flags, environment);

/** What SOCKS5 would send as user and password. */
function passwordOf(flags: ProxyFlags, environment: Record<string, string> = {}): string {
  const handshake = read(flags, environment).upstream.connect({ host: "h", port: 1 });
  handshake?.start();
  handshake?.receive(Uint8Array.of(5, 2), 0, 2);
  return Buffer.from(handshake?.out ?? []).toString("latin1");
}

t.test("URLs come from --proxy or the environment, several are a chain", async (t) => {
  t.equal(read({ proxy: ["http://a", "http://b"] }).upstream.label, "http://a:80 -> http://b:80");
  t.equal(read({}, { TUNRELAY_PROXY: " socks5://a\n\thttp://b " }).upstream.label, "socks5://a:1080 -> http://b:80");
  t.equal(read({ proxy: ["direct://"] }, { TUNRELAY_PROXY: "http://a" }).upstream.label, "direct://");
  for (const environment of [{}, { TUNRELAY_PROXY: " " }]) {
    t.throws(() => read({ proxy: [] }, environment), { exitCode: 2, message: /^--proxy is missing: give a URL/ });
  }
});

t.test("the password comes from file or environment, as bytes, and the file wins", async (t) => {
  const proxy = ["socks5://u@h"];
  t.equal(passwordOf({ proxy, passwordFile: file("password") }), "\x01\x01u\x06s3cr:t", "the first line");
  t.equal(passwordOf({ proxy, passwordFile: file("raw") }), "\x01\x01u\x02\xff\x41", "bytes as they are");
  t.equal(passwordOf({ proxy }, { TUNRELAY_PROXY_PASSWORD: "ä" }), "\x01\x01u\x02\xc3\xa4");
  t.equal(
    passwordOf({ proxy, passwordFile: file("password") }, { TUNRELAY_PROXY_PASSWORD: "x" }),
    "\x01\x01u\x06s3cr:t",
  );
  t.equal(passwordOf({ proxy }, { TUNRELAY_PROXY_PASSWORD: "" }), "\x01\x01u\x00", "an empty variable is none");

  t.strictSame(read({ proxy, passwordFile: file("password") }).warnings, []);
  chmodSync(file("raw"), 0o640);
  t.match(read({ proxy, passwordFile: file("raw") }).warnings, [/^other users .* chmod 600 /]);
});

t.test("TLS files become contents", async (t) => {
  const { upstream, warnings } = read({
    proxy: URL,
    proxyCa: file("bundle.pem"),
    proxyCert: file("a.pem"),
    proxyKey: file("a.key"),
    proxySni: "Other.Example",
  });
  t.strictSame(warnings, []);
  t.match(upstream.tls, { serverName: "other.example", pinSha256: null });
  t.equal(upstream.tls?.ca, readFileSync(file("bundle.pem"), "utf8"));
  t.equal(upstream.tls?.cert, readFileSync(file("a.pem"), "utf8"));
  t.equal(upstream.tls?.key, readFileSync(file("a.key"), "utf8"));
  t.equal(read({ proxy: URL, proxyCert: file("both.pem") }).upstream.tls?.key, readFileSync(file("both.pem"), "utf8"));
  t.equal(read({ proxy: URL, proxySni: "bücher.example" }).upstream.tls?.serverName, "xn--bcher-kva.example");
  t.equal(read({ proxy: URL, proxySni: "::1" }).upstream.tls?.serverName, "::1");
  chmodSync(file("b.key"), 0o644);
  t.match(read({ proxy: URL, proxyCert: file("b.pem"), proxyKey: file("b.key") }).warnings, [
    /^other users .*b\.key: chmod 600/,
  ]);
});

t.test("a pin is hex as openssl prints it, or base64", async (t) => {
  const bytes = Buffer.from(FINGERPRINT.replaceAll(":", ""), "hex");
  for (const text of [
    FINGERPRINT,
    `sha256 Fingerprint=${FINGERPRINT}`,
    bytes.toString("hex"),
    `SHA256:${bytes.toString("hex").toUpperCase()}`,
    bytes.toString("base64"),
    bytes.toString("base64").replace("=", ""),
  ]) {
    t.strictSame(Buffer.from(read({ proxy: URL, proxyPin: text }).upstream.tls?.pinSha256 ?? []), bytes, text);
  }
});

t.test("each wrong use is one line that names option, value and what helps", async (t) => {
  const certAndKey = { proxyCert: file("a.pem") };
  for (const [flags, message] of [
    [{ passwordFile: file("nowhere") }, /^--password-file .*nowhere: it cannot be read \(ENOENT\)$/],
    [{ passwordFile: FOLDER }, /it cannot be read \(EISDIR\)$/],
    [{ passwordFile: file("empty") }, /its first line is empty, expected the password$/],
    [{ passwordFile: file("long") }, /it has more than 4096 bytes: is it the right file\?$/],
    [{ passwordFile: "/dev/zero" }, /it has more than 4096 bytes/],
    [{ proxyCa: file("nowhere") }, /^--proxy-ca .*: it cannot be read \(ENOENT\)$/],
    [{ proxyCa: "" }, /^--proxy-ca "": it cannot be read/],
    [{ proxyCa: file("text") }, /it holds no certificate in PEM \(-----BEGIN CERTIFICATE-----\)$/],
    [{ proxyCa: file("a.der") }, /no certificate in PEM .*: convert it with openssl x509 -inform der -in .*a\.der$/],
    [{ proxyCa: file("broken") }, /certificate 1 of 1 in it cannot be read: is it damaged\?$/],
    [{ proxyCa: "/dev/zero" }, /more than 4194304 bytes/],
    [{ proxyKey: file("a.key") }, /^--proxy-key .*: its certificate is missing: give --proxy-cert FILE$/],
    [certAndKey, /^--proxy-cert .*: its private key is missing: give --proxy-key FILE$/],
    [
      { ...certAndKey, proxyKey: file("b.key") },
      /^--proxy-key .*b\.key: the key is not that of the first certificate in .*a\.pem$/,
    ],
    [{ ...certAndKey, proxyKey: file("a.pem") }, /it holds no private key in PEM/],
    [{ ...certAndKey, proxyKey: file("a.enc") }, /the key is encrypted: give one that is not, from openssl pkey -in /],
    [{ ...certAndKey, proxyKey: file("brokenkey") }, /the private key in it cannot be read: is it damaged\?$/],
    [
      { proxyPin: "abc" },
      /^--proxy-pin abc: expected the SHA-256 of the proxy's certificate in 64 hex digits or base64/,
    ],
    [{ proxyPin: "0".repeat(63) }, /expected the SHA-256/],
    [
      { proxyPin: `sha256//${"A".repeat(43)}=` },
      /the pin of a public key, as curl takes it; expected the certificate's/,
    ],
    [{ proxySni: "" }, /^--proxy-sni "": expected the host name/],
    [{ proxySni: "a:443" }, /^--proxy-sni a:443: expected the host name/],
  ] as const) {
    const problem = (() => {
      try {
        return read({ proxy: ["https://u@h"], ...flags });
      } catch (error) {
        return error;
      }
    })();
    if (!(problem instanceof CliError)) {
      t.fail(`${JSON.stringify(flags)} is let pass`);
      continue;
    }
    t.equal(problem.exitCode, 2);
    t.match(problem.message, message);
    t.match(problem.message, /^[^\n]+[^.\n]$/, "one line without a period");
    t.notMatch(problem.message, "MIIB", "nothing of a key's file");
  }
  for (const [flags, message] of [
    [{ proxyCa: file("a.pem") }, /^--proxy-ca .*: it is for https:\/\/ proxies, and --proxy names none/],
    [{ proxyPin: FINGERPRINT }, /^--proxy-pin .*: it is for https:/],
    [{ proxySni: "x" }, /^--proxy-sni x: it is for https:/],
  ] as const) {
    t.throws(() => read({ proxy: ["http://h"], ...flags }), { message });
  }
  t.throws(() => read({ proxy: ["socks5://h"], passwordFile: file("password") }), {
    code: "UPSTREAM_URL",
    message: /needs none/,
  });
});
