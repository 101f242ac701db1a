/**
 * What belongs to a proxy's URL and does not stand in it: the password from a file or the environment, and the TLS files
 * of an `https://` proxy. They are read once, here; everything below gets contents.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { domainToASCII } from "node:url";
import type { Upstream } from "../proxy/upstream.ts";
import { parseUpstream, type UpstreamTlsOptions } from "../proxy/url.ts";
import { badValue, CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";
import { openToOthers, readBounded, readPasswordFile } from "./secret-files.ts";

/** Longest file of certificates, bytes. All authorities of a system together have 220 KB. */
const MAX_PEM_FILE = 4 * 1024 * 1024;
const URL_VARIABLE = "TUNRELAY_PROXY";
const PASSWORD_VARIABLE = "TUNRELAY_PROXY_PASSWORD";
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const PRIVATE_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----/;
const FINGERPRINT_COMMAND = "openssl x509 -noout -fingerprint -sha256 -in FILE";

/** Options that say which proxy, as they were written. */
export interface ProxyFlags {
  /** Several are a chain. */
  readonly proxy?: readonly string[];
  readonly passwordFile?: string;
  readonly proxyCa?: string;
  readonly proxyPin?: string;
  readonly proxyCert?: string;
  readonly proxyKey?: string;
  readonly proxySni?: string;
}

/** The proxy that the options name. */
export interface ProxyOptions {
  readonly upstream: Upstream;
  /** What is not as it should be and does no harm yet, one line each. */
  readonly warnings: readonly string[];
}

/**
 * Reads everything that options and environment say about the proxy.
 * @throws CliError or UpstreamError, one line that holds no secret
 */
export function readProxyOptions(flags: ProxyFlags, environment: NodeJS.ProcessEnv = process.env): ProxyOptions {
  const urls = readUrls(flags, environment);
  const warnings: string[] = [];
  const password = readProxyPassword(flags, environment, warnings);
  const tls = readTls(flags, warnings);
  if (tls !== null && !urls.some((url) => /^\s*https:\/\//i.test(url))) {
    const { flag, value } = tls.first;
    throw badValue(flag, value, "it is for https:// proxies, and --proxy names none: leave it out or write https://");
  }
  const upstream = parseUpstream(urls, {
    ...(password === null ? {} : { password }),
    ...(tls === null ? {} : { tls: tls.options }),
  });
  return { upstream, warnings };
}

function readUrls({ proxy = [] }: ProxyFlags, environment: NodeJS.ProcessEnv): readonly string[] {
  if (proxy.length > 0) return proxy;
  const fromEnvironment = (environment[URL_VARIABLE] ?? "").split(/\s+/).filter((url) => url !== "");
  if (fromEnvironment.length > 0) return fromEnvironment;
  throw new CliError(
    ExitCode.usage,
    `--proxy is missing: give a URL such as socks5://127.0.0.1:1080, or set ${URL_VARIABLE}`,
  );
}

function readProxyPassword(
  { passwordFile }: ProxyFlags,
  environment: NodeJS.ProcessEnv,
  warnings: string[],
): Uint8Array | string | null {
  if (passwordFile === undefined) {
    const password = environment[PASSWORD_VARIABLE] ?? "";
    return password === "" ? null : password;
  }
  const { password, warning } = readPasswordFile("--password-file", passwordFile);
  if (warning !== null) warnings.push(warning);
  return password;
}

interface TlsFlags {
  readonly options: UpstreamTlsOptions;
  /** The first of the options that were given, for a complaint about all of them. */
  readonly first: { readonly flag: string; readonly value: string };
}

function readTls(flags: ProxyFlags, warnings: string[]): TlsFlags | null {
  const { proxyCa, proxyPin, proxyCert, proxyKey, proxySni } = flags;
  const given = [
    { flag: "--proxy-ca", value: proxyCa },
    { flag: "--proxy-pin", value: proxyPin },
    { flag: "--proxy-cert", value: proxyCert },
    { flag: "--proxy-key", value: proxyKey },
    { flag: "--proxy-sni", value: proxySni },
  ].find(({ value }) => value !== undefined);
  if (given?.value === undefined) return null;
  const options: UpstreamTlsOptions = {
    ...(proxyCa === undefined ? {} : { ca: readCertificates("--proxy-ca", proxyCa).text }),
    ...(proxyPin === undefined ? {} : { pinSha256: parsePin(proxyPin) }),
    ...readClientCertificate(proxyCert, proxyKey, warnings),
    ...(proxySni === undefined ? {} : { serverName: parseServerName(proxySni) }),
  };
  return { options, first: { flag: given.flag, value: given.value } };
}

interface Certificates {
  readonly text: string;
  readonly first: X509Certificate;
  readonly isOpenToOthers: boolean;
}

/** A PEM file of one certificate or more, each of which can be read. */
function readCertificates(option: string, file: string): Certificates {
  const { bytes, isOpenToOthers } = readBounded(option, file, MAX_PEM_FILE);
  const text = Buffer.from(bytes).toString("latin1");
  const blocks = text.match(CERTIFICATE) ?? [];
  const certificates = blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch {
      throw badValue(option, file, `certificate ${index + 1} of ${blocks.length} in it cannot be read: is it damaged?`);
    }
  });
  const [first] = certificates;
  if (first !== undefined) return { text, first, isOpenToOthers };
  // A DER certificate is a SEQUENCE with a length of two bytes.
  const isDer = bytes[0] === 0x30 && bytes[1] === 0x82;
  const remedy = isDer ? `: convert it with openssl x509 -inform der -in ${file}` : "";
  throw badValue(option, file, `it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)${remedy}`);
}

/** The client's certificate and its key, which may stand in the same file. */
function readClientCertificate(
  certFile: string | undefined,
  keyFile: string | undefined,
  warnings: string[],
): UpstreamTlsOptions {
  if (certFile === undefined) {
    if (keyFile === undefined) return {};
    throw badValue("--proxy-key", keyFile, "its certificate is missing: give --proxy-cert FILE");
  }
  const { text: cert, first, isOpenToOthers } = readCertificates("--proxy-cert", certFile);
  if (keyFile === undefined && !PRIVATE_KEY.test(cert)) {
    throw badValue("--proxy-cert", certFile, "its private key is missing: give --proxy-key FILE");
  }
  const [option, file] = keyFile === undefined ? ["--proxy-cert", certFile] : ["--proxy-key", keyFile];
  const key = keyFile === undefined ? cert : readKeyFile(keyFile, warnings);
  if (keyFile === undefined && isOpenToOthers) warnings.push(openToOthers(certFile));
  if (!first.checkPrivateKey(parseKey(option, file, key))) {
    throw badValue(option, file, `the key is not that of the first certificate in ${certFile}`);
  }
  return { cert, key };
}

function readKeyFile(file: string, warnings: string[]): string {
  const { bytes, isOpenToOthers } = readBounded("--proxy-key", file, MAX_PEM_FILE);
  if (isOpenToOthers) warnings.push(openToOthers(file));
  return Buffer.from(bytes).toString("latin1");
}

function parseKey(option: string, file: string, pem: string): KeyObject {
  if (!PRIVATE_KEY.test(pem))
    throw badValue(option, file, "it holds no private key in PEM (-----BEGIN PRIVATE KEY-----)");
  // RFC 1421 §4.6.1.1 in old files, RFC 5958 §3 in new ones.
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(pem)) {
    throw badValue(option, file, `the key is encrypted: give one that is not, from openssl pkey -in ${file}`);
  }
  try {
    return createPrivateKey(pem);
  } catch {
    // Not the cause's text: it may quote what it could not read.
    throw badValue(option, file, "the private key in it cannot be read: is it damaged?");
  }
}

/** SHA-256 of a certificate: 64 hex digits, with colons as openssl prints them, or base64. */
function parsePin(text: string): Uint8Array {
  if (text.startsWith("sha256//")) {
    throw badValue(
      "--proxy-pin",
      text,
      `that is the pin of a public key, as curl takes it; expected the certificate's: ${FINGERPRINT_COMMAND}`,
    );
  }
  const value = text.replace(/^(sha256[:=]|sha256 fingerprint=)/i, "");
  const hex = value.replaceAll(":", "");
  if (/^[0-9a-f]{64}$/i.test(hex)) return Buffer.from(hex, "hex");
  if (/^[A-Za-z0-9+/]{43}=?$/.test(value)) return Buffer.from(value, "base64");
  throw badValue(
    "--proxy-pin",
    text,
    `expected the SHA-256 of the proxy's certificate in 64 hex digits or base64: ${FINGERPRINT_COMMAND}`,
  );
}

/** A name for SNI, or an address to check the certificate for. */
function parseServerName(text: string): string {
  const name = isIP(text) !== 0 ? text : domainToASCII(text);
  if (isIP(name) !== 0 || /^[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?$/.test(name)) return name;
  throw badValue("--proxy-sni", text, "expected the host name in the proxy's certificate, without port");
}
