/** The upstreams of the matrix, and what a client is expected to see through each: the tables of docs/upstreams.md. */
import type { Lab } from "../harness.ts";
import { startMicrosocksThenDante, startSocks4ThenTinyproxy, startSquidThenServe } from "../peers/chains.ts";
import {
  startNcat,
  startServeHttp,
  startSquid,
  startSquidDigest,
  startSquidTls,
  startTinyproxy,
} from "../peers/http.ts";
import { noPeer, type Peer } from "../peers/peer.ts";
import {
  startDante,
  startDanteSocks4,
  startMicrosocks,
  startOpenDante,
  startOpenMicrosocks,
  startServe,
  startSsh,
  startSshSocks4,
  startUnixSocket,
} from "../peers/socks.ts";

/** In a cell: `kept` or `lost`, as it happens. */
export const BY_CHANCE = "by chance";

/** Through one upstream. A cell is what holds for IPv4 and IPv6, or `IPv4 / IPv6`; `–` where there is nothing to try. */
export interface UpstreamKind {
  readonly name: string;
  /** Programs that must be installed. */
  readonly programs: readonly string[];
  readonly start: (lab: Lab, port: number) => Promise<Peer>;
  /** The denied destination is one of the proxy's own rules; otherwise one that the proxy's kernel prohibits. */
  readonly hasRule: boolean;
  /** Of its protocol this is the one with bulk transfers of full size, and with many connections at once. */
  readonly isFull: boolean;
  /** It takes connections one by one, and too slowly for many at once. */
  readonly isSlow: boolean;
  /** By {@link WORKS}. */
  readonly works: string;
  /** By {@link FAILS}. */
  readonly fails: string;
  /** By {@link ENDS}. */
  readonly ends: string;
  /** Why a cell is not what it would be with the best proxy. */
  readonly because: readonly string[];
}

/** Column heads by case. */
export type Columns = Readonly<Record<string, string>>;

export const WORKS: Columns = {
  tcp4: "TCP, IPv4",
  tcp6: "TCP, IPv6",
  name: "name",
  udp: "UDP",
  halfCloseByClient: "client ends first",
  halfCloseByServer: "server ends first",
  bulk: "bulk, by SHA-256",
};

export const FAILS: Columns = {
  refused: "port closed",
  hostUnreachable: "host unreachable",
  netUnreachable: "network unreachable",
  denied: "denied",
  unknownName: "unknown name",
};

export const ENDS: Columns = {
  wrongPassword: "wrong password",
  killedUpload: "killed during an upload",
  killedDownload: "killed during a download",
  whileDown: "while it is down",
  back: "when it is back",
};

const PLAIN = { programs: [], hasRule: false, isFull: false, isSlow: false, because: [] };
const LOSES_NAMES = "unknown name: the reply is general failure, as for any other trouble";

export const UPSTREAMS: readonly UpstreamKind[] = [
  {
    ...PLAIN,
    name: "dante, SOCKS5",
    programs: ["danted"],
    start: startDante,
    hasRule: true,
    isFull: true,
    works: "ok | ok | ok | ok | kept | kept | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | EHOSTUNREACH / EACCES | EHOSTUNREACH",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
  },
  {
    ...PLAIN,
    name: "dante, SOCKS5 without password",
    programs: ["danted"],
    start: startOpenDante,
    hasRule: true,
    works: "ok | ok | ok | ok | kept | kept | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | EHOSTUNREACH / EACCES | EHOSTUNREACH",
    ends: "– | ECONNRESET | FIN | ECONNREFUSED | ok",
  },
  {
    ...PLAIN,
    name: "microsocks, SOCKS5",
    programs: ["microsocks"],
    start: startMicrosocks,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | ECONNREFUSED | ECONNREFUSED",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: [
      "UDP: it has no UDP ASSOCIATE",
      "half-closes: it closes both directions when either has ended, and what is under way then may still arrive",
      "denied: it has no rules, and calls a destination that its kernel prohibits a general failure",
      LOSES_NAMES,
    ],
  },
  {
    ...PLAIN,
    name: "microsocks, SOCKS5 without password",
    programs: ["microsocks"],
    start: startOpenMicrosocks,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | ECONNREFUSED | ECONNREFUSED",
    ends: "– | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["as above"],
  },
  {
    ...PLAIN,
    name: "`tunrelay serve`, SOCKS5",
    start: startServe,
    isFull: true,
    works: "ok | ok | ok | ok | kept | kept | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | EHOSTUNREACH / EACCES | EHOSTUNREACH",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
  },
  {
    ...PLAIN,
    name: "`ssh -D`, SOCKS5",
    programs: ["ssh", "sshd"],
    start: startSsh,
    hasRule: true,
    works: "ok | ok | ok | ECONNREFUSED | kept | kept | ok",
    fails: "ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | ECONNREFUSED",
    ends: "– | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: [
      "UDP: SSH forwards streams only",
      "all failures: it closes the connection without a reply, whatever sshd told it",
    ],
  },
  {
    ...PLAIN,
    name: "dante, SOCKS4",
    programs: ["danted"],
    start: startDanteSocks4,
    hasRule: true,
    isFull: true,
    works: "ok | ENETUNREACH | ECONNREFUSED | ECONNREFUSED | kept | kept | ok",
    fails:
      "ECONNREFUSED / ENETUNREACH | ECONNREFUSED / ENETUNREACH | ECONNREFUSED / ENETUNREACH | ECONNREFUSED / ENETUNREACH | ECONNREFUSED",
    ends: "– | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["SOCKS4 has IPv4 only, no names with dante, no UDP, and one reply (91) for all failures"],
  },
  {
    ...PLAIN,
    name: "`ssh -D`, SOCKS4a",
    programs: ["ssh", "sshd"],
    start: startSshSocks4,
    hasRule: true,
    works: "ok | ENETUNREACH | ok | ECONNREFUSED | kept | kept | ok",
    fails:
      "ECONNREFUSED / ENETUNREACH | ECONNREFUSED / ENETUNREACH | ECONNREFUSED / ENETUNREACH | ECONNREFUSED / ENETUNREACH | ECONNREFUSED",
    ends: "– | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["SOCKS4a has IPv4 and names only, no UDP", "all failures: it closes the connection without a reply"],
  },
  {
    ...PLAIN,
    name: "`tunrelay serve` behind a Unix socket, SOCKS5",
    programs: ["socat"],
    start: startUnixSocket,
    works: "ok | ok | ok | silence | kept | kept | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | EHOSTUNREACH / EACCES | EHOSTUNREACH",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: [
      "UDP: `serve` takes datagrams only from the address that asked for them, which is that of the socat between",
    ],
  },
  {
    ...PLAIN,
    name: "tinyproxy, HTTP with Basic",
    programs: ["tinyproxy"],
    start: startTinyproxy,
    hasRule: true,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | EHOSTUNREACH / EACCES | ECONNREFUSED",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["UDP: CONNECT has none", "half-closes: as with microsocks", "all failures but denied: it answers 500"],
  },
  {
    ...PLAIN,
    name: "squid, HTTP with Basic",
    programs: ["squid"],
    start: startSquid,
    hasRule: true,
    isFull: true,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | EHOSTUNREACH / EACCES | ECONNREFUSED",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["UDP: CONNECT has none", "half-closes: as with microsocks", "all failures but denied: it answers 503"],
  },
  {
    ...PLAIN,
    name: "squid, HTTP with Digest",
    programs: ["squid"],
    start: startSquidDigest,
    hasRule: true,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | EHOSTUNREACH / EACCES | ECONNREFUSED",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["as above"],
  },
  {
    ...PLAIN,
    name: "squid behind socat, HTTPS with client certificate and Basic",
    programs: ["squid", "socat"],
    isSlow: true,
    start: startSquidTls,
    hasRule: true,
    isFull: true,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | EHOSTUNREACH / EACCES | ECONNREFUSED",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["as above"],
  },
  {
    ...PLAIN,
    name: "ncat, HTTP with Basic",
    programs: ["ncat"],
    start: startNcat,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "EHOSTUNREACH | EHOSTUNREACH | EHOSTUNREACH | EHOSTUNREACH | EHOSTUNREACH",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["UDP: CONNECT has none", "half-closes: as with microsocks", "all failures: it answers 504"],
  },
  {
    ...PLAIN,
    name: "`tunrelay serve`, HTTP with Basic",
    start: startServeHttp,
    works: "ok | ok | ok | ECONNREFUSED | kept | kept | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | EHOSTUNREACH | EHOSTUNREACH / EACCES | EHOSTUNREACH",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["UDP: CONNECT has none", "network unreachable: Proxy-Status has one error for host and network"],
  },
  {
    ...PLAIN,
    name: "microsocks, then dante",
    programs: ["danted", "microsocks"],
    start: startMicrosocksThenDante,
    hasRule: true,
    isFull: true,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | EHOSTUNREACH / EACCES | EHOSTUNREACH",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["UDP: chains have none", "half-closes: as with microsocks"],
  },
  {
    ...PLAIN,
    name: "squid, then `tunrelay serve`",
    programs: ["squid"],
    start: startSquidThenServe,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | EHOSTUNREACH / EACCES | EHOSTUNREACH",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["UDP: chains have none", "half-closes: as with squid"],
  },
  {
    ...PLAIN,
    name: "dante with SOCKS4, then tinyproxy",
    programs: ["danted", "tinyproxy"],
    start: startSocks4ThenTinyproxy,
    hasRule: true,
    works: "ok | ok | ok | ECONNREFUSED | lost | by chance | ok",
    fails: "ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | EHOSTUNREACH / EACCES | ECONNREFUSED",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: ["UDP: chains have none", "the rest: as with tinyproxy"],
  },
  {
    ...PLAIN,
    name: "`direct://`",
    start: async () => noPeer("direct://", ["--interface", "inner"]),
    isFull: true,
    works: "ok | ok | – | ok | kept | kept | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH / ENETUNREACH | ENETUNREACH | EHOSTUNREACH / EACCES | –",
    ends: "– | – | – | – | –",
    because: [
      'host unreachable: Linux routers answer an IPv6 route of type `unreachable` with "no route" (ICMPv6 1/0)',
    ],
  },
  {
    ...PLAIN,
    name: "`reject://`",
    start: async () => noPeer("reject://", []),
    works: "ECONNREFUSED | ECONNREFUSED | – | ECONNREFUSED | – | – | –",
    fails: "ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | –",
    ends: "– | – | – | – | –",
  },
];
