/**
 * The demo's addresses. Nothing here leaves the two namespaces that the demo makes:
 *
 *     client namespace                    relay namespace
 *     curl, dig, ping, own clients        tunrelay > embedded proxy (127.0.0.1) > servers (on lo)
 *          tun0 ========================= the same device's file descriptor
 */

export type IpVersion = 4 | 6;

/** Where the servers listen; RFC 1918 and RFC 4193 addresses on the loopback interface of the relay namespace. */
export const SERVER: Readonly<Record<IpVersion, string>> = { 4: "10.99.0.80", 6: "fd00:99::80" };
/** What is put on `lo` there for them. */
export const SERVER_CIDR: Readonly<Record<IpVersion, string>> = { 4: "10.99.0.80/32", 6: "fd00:99::80/128" };
/** Destinations that the relay namespace has an `unreachable` route for. */
export const UNREACHABLE: Readonly<Record<IpVersion, string>> = { 4: "10.98.0.1", 6: "fd00:98::1" };
export const UNREACHABLE_CIDR: Readonly<Record<IpVersion, string>> = { 4: "10.98.0.0/16", 6: "fd00:98::/32" };

/** Addresses of the client's end of the device: RFC 2544 benchmarking and RFC 4193. */
export const CLIENT_CIDRS: readonly string[] = ["198.18.0.1/15", "fdfe:dcba:9876::1/64"];
export const TUN_NAME = "tun0";
/** Bytes. */
export const TUN_MTU = 1500;

/** Ports of the servers; both TCP and UDP where that makes sense. */
export const PORT = {
  /** Echo (RFC 862). */
  echo: 7,
  /** Nobody listens here. */
  closed: 9,
  dns: 53,
  http: 80,
  /** Answers with the SHA-256 of what it got, after the client's FIN. */
  answersAfterFin: 7001,
  /** Sends its content and FIN at once, then reads until the client's FIN. */
  finishesFirst: 7002,
} as const;

/** What {@link PORT.finishesFirst} sends: this many bytes of {@link GREETING_SEED}. */
export const GREETING_BYTES = 65_536;
export const GREETING_SEED = 7002;

/** The name the DNS server knows, and its addresses (documentation prefixes, RFC 5737 and RFC 3849). */
export const DNS_NAME = "demo.test";
export const DNS_ANSWER: Readonly<Record<IpVersion, string>> = { 4: "192.0.2.80", 6: "2001:db8::80" };

/** `host:port`, with brackets for IPv6. */
export function hostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The embedded proxy in the relay namespace; its port is the kernel's choice. Nobody else can reach it. */
export const PROXY = { host: "127.0.0.1", user: "demo", password: "tun relay" } as const;
