/**
 * Addresses and ports of the stress tests:
 *
 *     client namespace          outer namespace (test, engine, servers)
 *     clients > tun ============ engine > 10.99.0.80 servers (on lo)
 *       | veth, in some tests
 *     forwarded namespace
 */

export type IpVersion = 4 | 6;
export const VERSIONS: readonly IpVersion[] = [4, 6];

/** Where the servers listen. */
export const SERVER: Readonly<Record<IpVersion, string>> = { 4: "10.99.0.80", 6: "fd00:99::80" };
/** The client's end of the device. */
export const CLIENT: Readonly<Record<IpVersion, string>> = { 4: "198.18.0.1", 6: "fdfe:dcba:9876::1" };
export const CLIENT_CIDRS: readonly string[] = [`${CLIENT[4]}/15`, `${CLIENT[6]}/64`];
/** Both ends of the link to the forwarded namespace. */
export const GATEWAY: Readonly<Record<IpVersion, string>> = { 4: "10.88.0.1", 6: "fd88::1" };
export const FORWARDED: Readonly<Record<IpVersion, string>> = { 4: "10.88.0.2", 6: "fd88::2" };

/** TCP, first line says what is wanted: `down SEED BYTES`, `up`, or `slow-up` (read slowly until told otherwise). */
export const BULK_PORT = 7100;
/** TCP, the first byte says who ends the connection: see `Ending`. */
export const CHURN_PORT = 7101;
/** UDP echo. */
export const ECHO_PORT = 7102;

/** How a short connection ends, by the byte that asks for it. */
export const Ending = {
  /** The client sends FIN, then the server. */
  clientFirst: "c",
  /** The server sends FIN right behind its byte. */
  serverFirst: "s",
  /** The client resets the connection when it has its byte. */
  clientResets: "r",
  /** The server resets it instead of an answer. */
  serverResets: "x",
} as const;
export type Ending = (typeof Ending)[keyof typeof Ending];
