/** The upstreams of the matrix, and what a client is expected to see through each: the tables of docs/upstreams.md. */
import type { Lab } from "../harness.ts";
import type { Peer } from "../peers/peer.ts";
import {
  startDante,
  startMicrosocks,
  startOpenDante,
  startOpenMicrosocks,
  startServe,
  startSsh,
} from "../peers/socks.ts";

/** Through one upstream. A cell is what holds for IPv4 and IPv6, or `IPv4 / IPv6`; `–` where there is nothing to try. */
export interface UpstreamKind {
  readonly name: string;
  /** Programs that must be installed. */
  readonly programs: readonly string[];
  readonly start: (lab: Lab, port: number) => Promise<Peer>;
  /** Options of `run`. */
  readonly flags: readonly string[];
  /** The denied destination is one of the proxy's own rules; otherwise one that the proxy's kernel prohibits. */
  readonly hasRule: boolean;
  /** Of its protocol this is the one with bulk transfers of full size, and with many connections at once. */
  readonly isFull: boolean;
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

const PLAIN = { programs: [], flags: [], hasRule: false, isFull: false, because: [] };
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
    works: "ok | ok | ok | ECONNREFUSED | lost | kept | ok",
    fails: "ECONNREFUSED | EHOSTUNREACH | ENETUNREACH | ECONNREFUSED | ECONNREFUSED",
    ends: "ECONNREFUSED | ECONNRESET | FIN | ECONNREFUSED | ok",
    because: [
      "UDP: it has no UDP ASSOCIATE",
      "client ends first: it closes both directions when either has ended",
      "denied: it has no rules, and calls a destination that its kernel prohibits a general failure",
      LOSES_NAMES,
    ],
  },
  {
    ...PLAIN,
    name: "microsocks, SOCKS5 without password",
    programs: ["microsocks"],
    start: startOpenMicrosocks,
    works: "ok | ok | ok | ECONNREFUSED | lost | kept | ok",
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
    name: "`direct://`",
    start: async () => ({ urls: ["direct://"], programs: [] }),
    flags: ["--interface", "inner"],
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
    start: async () => ({ urls: ["reject://"], programs: [] }),
    works: "ECONNREFUSED | ECONNREFUSED | – | ECONNREFUSED | – | – | –",
    fails: "ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | ECONNREFUSED | –",
    ends: "– | – | – | – | –",
  },
];
