/** Option values: text to numbers, durations, addresses. Each failure is one line with option, value and what is expected. */
import { HostError } from "../host/errors.ts";
import { type Cidr, networkAddress, parseCidr } from "../host/interface.ts";
import { formatAddress, parseAddress } from "../stack/flow/address.ts";
import { badValue, CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel, type LogOptions } from "./log.ts";

/** Smallest MTU that IPv4 hosts must take (RFC 791 §3.1) and largest IP packet, bytes. */
const MTU_MIN = 576;
const MTU_MAX = 65_535;
/** Smallest MTU of a link that carries IPv6 (RFC 8200 §5), bytes. */
const MTU_MIN_IPV6 = 1280;
/** IFNAMSIZ without its NUL, bytes. */
const MAX_DEVICE_NAME = 15;

/** What every command with a log takes, as it was written. */
export interface LogFlags {
  readonly loglevel: string;
  readonly logFormat: string;
  readonly logFlows?: boolean;
}

/** An address and a prefix length, and how they were written. */
export interface CidrOption extends Cidr {
  readonly text: string;
}

function parseInteger(option: string, text: string, min: number, max: number, hexToo: boolean): number {
  const known = hexToo ? /^(\d{1,16}|0[xX][0-9a-fA-F]{1,13})$/ : /^\d{1,16}$/;
  const value = known.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw badValue(option, text, `expected a number from ${min} to ${max}${hexToo ? ", decimal or with 0x" : ""}`);
}

/** `--mtu`, bytes: large enough for IPv6 where an address or route is of that. */
export function parseMtu(text: string, addresses: readonly CidrOption[], routes: readonly CidrOption[]): number {
  const mtu = parseInteger("--mtu", text, MTU_MIN, MTU_MAX, false);
  if (mtu >= MTU_MIN_IPV6) return mtu;
  const isIpv6 = ({ address }: CidrOption): boolean => address.length === 16;
  const address = addresses.find(isIpv6);
  const route = routes.find(isIpv6);
  if (address === undefined && route === undefined) return mtu;
  const culprit = address !== undefined ? `--address ${address.text}` : `--route ${route?.text}`;
  const hint = culprit === "--route ::/0" ? " (of default, 0.0.0.0/0 is the IPv4 part)" : "";
  throw badValue("--mtu", text, `IPv6 needs at least ${MTU_MIN_IPV6}; raise it or leave out ${culprit}${hint}`);
}

/** `--fwmark`, 32 bits; 0 is no mark. */
export function parseMark(text: string): number {
  return parseInteger("--fwmark", text, 0, 0xffff_ffff, true);
}

/** A count. */
export function parseCount(option: string, text: string, min: number, max: number): number {
  return parseInteger(option, text, min, max, false);
}

const UNIT_BYTES: Readonly<Record<string, number>> = { "": 1, K: 1 << 10, M: 1 << 20, G: 1 << 30 };

/** A size such as `64M` or `1G`, in bytes; units are powers of 1024, also as `MiB`. */
export function parseSize(option: string, text: string, min: number, max: number): number {
  const [, amount, unit = ""] = /^(\d{1,10}(?:\.\d{1,3})?)(?:([KMG])(?:i?B)?)?$/i.exec(text) ?? [];
  const value = amount === undefined ? Number.NaN : Number(amount) * (UNIT_BYTES[unit.toUpperCase()] ?? Number.NaN);
  if (value >= min && value <= max) return Math.round(value);
  throw badValue(option, text, `expected a size from ${formatSize(min)} to ${formatSize(max)}, such as 64M or 1G`);
}

function formatSize(bytes: number): string {
  for (const unit of ["G", "M", "K"]) {
    const size = UNIT_BYTES[unit] ?? 1;
    if (bytes >= size && bytes % size === 0) return `${bytes / size}${unit}`;
  }
  return `${bytes}`;
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** A duration such as `120s`, `1m30s` or `500ms`, in ms. */
export function parseDuration(option: string, text: string, minMs: number, maxMs: number): number {
  let total = text === "0" ? 0 : Number.NaN;
  if (/^(\d{1,9}(\.\d{1,3})?(ms|s|m|h))+$/.test(text)) {
    total = 0;
    for (const [, amount, unit] of text.matchAll(/([\d.]+)(ms|s|m|h)/g)) {
      total += Number(amount) * (UNIT_MS[unit ?? ""] ?? Number.NaN);
    }
  }
  if (total >= minMs && total <= maxMs) return Math.round(total);
  const range = `from ${formatDuration(minMs)} to ${formatDuration(maxMs)}`;
  throw badValue(option, text, `expected a duration ${range}, such as 500ms, 120s or 1m30s`);
}

function formatDuration(ms: number): string {
  for (const unit of ["h", "m", "s"]) {
    const size = UNIT_MS[unit] ?? 1;
    if (ms >= size && ms % size === 0) return `${ms / size}${unit}`;
  }
  return `${ms}ms`;
}

/** `--loglevel`. */
export function parseLogLevel(text: string): LogLevel {
  const level = LOG_LEVELS.find((name) => name === text);
  if (level !== undefined) return level;
  throw badValue("--loglevel", text, `expected one of ${LOG_LEVELS.join(", ")}`);
}

/** `--log-format`. */
export function parseLogFormat(text: string): LogFormat {
  const format = LOG_FORMATS.find((name) => name === text);
  if (format !== undefined) return format;
  throw badValue("--log-format", text, `expected one of ${LOG_FORMATS.join(", ")}`);
}

/** `--loglevel`, `--log-format` and `--log-flows`. */
export function parseLogOptions(flags: LogFlags): LogOptions {
  return {
    level: parseLogLevel(flags.loglevel),
    format: parseLogFormat(flags.logFormat),
    flows: flags.logFlows ?? false,
  };
}

/** `--interface` and the like: a name that Linux takes (dev_valid_name). */
export function parseInterfaceName(option: string, text: string, value: string = text): string {
  const usable = /^[!-.0-9;-~]+$/.test(text) && text !== "." && text !== "..";
  if (usable && text.length <= MAX_DEVICE_NAME) return text;
  const rule = `1 to ${MAX_DEVICE_NAME} ASCII characters without space, slash and colon`;
  throw badValue(option, JSON.stringify(value).slice(1, -1), `expected an interface name of ${rule}`);
}

/** `--device`: `tun0` or `tun://tun0`. */
export function parseDevice(text: string): string {
  const match = /^([a-zA-Z][a-zA-Z0-9+.-]*):\/\/(.*)$/s.exec(text);
  const scheme = match?.[1]?.toLowerCase() ?? "tun";
  if (scheme === "tun") return parseInterfaceName("--device", match?.[2] ?? text, text);
  throw badValue("--device", text, "only TUN devices are served: write tun://NAME or just NAME");
}

/** One value of `--address` or `--route`. */
export function parseCidrOption(option: string, text: string): CidrOption {
  try {
    return { text, ...parseCidr(text) };
  } catch (error) {
    if (error instanceof HostError) throw new CliError(ExitCode.usage, `${option}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** `--route`s: host bits are refused, `default` is both default routes, and none may be there twice. */
export async function parseRoutes(texts: readonly string[]): Promise<CidrOption[]> {
  const routes = texts
    .flatMap((text) => (text === "default" ? ["0.0.0.0/0", "::/0"] : [text]))
    .map((text) => parseCidrOption("--route", text));
  for (const route of routes) {
    const network = networkAddress(route);
    if (network.every((byte, i) => byte === route.address[i])) continue;
    const meant = `${formatAddress(network)}/${route.prefixLength}`;
    throw badValue("--route", route.text, `it has bits set after its prefix; did you mean ${meant}`);
  }
  if (routes.length > 1) await refuseTwins(routes);
  return routes;
}

async function refuseTwins(routes: readonly CidrOption[]): Promise<void> {
  const { IPv4CidrRange, IPv6CidrRange } = await import("ip-num");
  const seen = new Map<string, CidrOption>();
  for (const route of routes) {
    const cidr = `${formatAddress(route.address)}/${route.prefixLength}`;
    const range = route.address.length === 4 ? IPv4CidrRange.fromCidr(cidr) : IPv6CidrRange.fromCidr(cidr);
    const key = range.toCidrString();
    if (seen.has(key)) throw badValue("--route", route.text, "it is given twice; leave one out");
    seen.set(key, route);
  }
}

/** `--listen`: `127.0.0.1:1080`, `[::1]:1080`, `:1080` for all IPv4 addresses, or `localhost:1080`. */
export function parseListen(text: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3] ?? Number.NaN);
  if (match === null || port > 65_535) {
    throw badValue(
      "--listen",
      text,
      "expected an address and a port from 0 to 65535, such as 127.0.0.1:1080 or [::1]:1080",
    );
  }
  const [, inBrackets, plain] = match;
  if (inBrackets !== undefined && parseAddress(inBrackets)?.length !== 16) {
    throw badValue("--listen", text, "expected an IPv6 address between [ and ]");
  }
  if (plain !== undefined && /^[\d.]+$/.test(plain) && parseAddress(plain) === null) {
    throw badValue("--listen", text, `${plain} is not a valid IPv4 address`);
  }
  return { host: inBrackets ?? (plain === "" ? "0.0.0.0" : (plain ?? "")), port };
}
