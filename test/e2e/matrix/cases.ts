/** The cases of the matrix: each tries one thing through a running relay and says in a word what the client saw. */
import { type IpVersion, PORT, SERVER, UNREACHABLE } from "../../../src/cli/demo/network.ts";
import { parseUpstream } from "../../../src/proxy/url.ts";
import { type Lab, NO_ROUTE, PROHIBITED, type Program, seededDigest, seededStream, streamUrl } from "../harness.ts";
import { DENIED_PORT, KNOWN_NAME, type Peer, SINK_PORT, SOURCE_PORT, UNKNOWN_NAME } from "../peers/peer.ts";
import type { Remote } from "../stress/remote.ts";
import { askByName } from "./ask-by-name.ts";
import type { MatrixClient } from "./client-process.ts";
import { type Cells, expectedOf } from "./document.ts";
import type { UpstreamKind } from "./upstreams.ts";

const VERSIONS: readonly IpVersion[] = [4, 6];
const SMALL_BYTES = 300_000;
const HALF_CLOSE_BYTES = 1_000_000;
const MIB = 1 << 20;
/** Of a bulk transfer through upstreams whose protocol has had its full one. */
const SHORT_BULK_BYTES: number = 32 * MIB;
const MANY = 500;

export interface Stage {
  readonly lab: Lab;
  readonly client: Remote<MatrixClient>;
  /** Bytes of a full bulk transfer. */
  readonly bulkBytes: number;
}

/** The same for both versions, or `IPv4 / IPv6`. */
async function eachVersion(attempt: (version: IpVersion) => Promise<string>): Promise<string> {
  const v4 = await attempt(4);
  const v6 = await attempt(6);
  return v4 === v6 ? v4 : `${v4} / ${v6}`;
}

/** Whether names can be asked for: of a proxy. */
function hasNames(kind: UpstreamKind): boolean {
  return expectedOf(kind)["name"] !== "–";
}

/** `ok` when all are; otherwise what the first one says that is not. */
function all(results: readonly string[]): string {
  return results.find((result) => result !== "ok") ?? "ok";
}

/** Flows and datagrams that work. */
export async function tryTraffic({ lab, client, bulkBytes }: Stage, kind: UpstreamKind, peer: Peer): Promise<Cells> {
  const tcp = async (version: IpVersion): Promise<string> => {
    const refused = await client.call("connect", SERVER[version], PORT.http);
    if (refused !== "ok") return refused;
    return (await lab.job({ kind: "download", version, bytes: SMALL_BYTES, seed: 1 })).result;
  };
  const tcp4 = await tcp(4);
  const tcp6 = await tcp(6);
  const versions = VERSIONS.filter((version) => (version === 4 ? tcp4 : tcp6) === "ok");
  const isOpen = versions.length > 0;
  return {
    tcp4,
    tcp6,
    name: hasNames(kind)
      ? await askByName(parseUpstream(peer.urls, peer.options), KNOWN_NAME, PORT.http, "/content/1/1000")
      : "–",
    udp: await eachVersion((version) => tryUdp({ lab, client }, version)),
    bulk: isOpen ? await tryBulk(lab, versions, kind.isFull ? bulkBytes : Math.min(bulkBytes, SHORT_BULK_BYTES)) : "–",
    halfCloseByClient: isOpen ? await tryHalfClose(lab, versions, "half-close-client") : "–",
    halfCloseByServer: isOpen ? await tryHalfClose(lab, versions, "half-close-server") : "–",
  };
}

async function tryUdp({ lab, client }: Pick<Stage, "lab" | "client">, version: IpVersion): Promise<string> {
  const first = await client.call("datagram", SERVER[version], PORT.echo, 5000);
  if (first !== "ok") return first;
  const dig = await lab.job({ kind: "dns", version, transport: "udp" });
  const echo = await lab.job({ kind: "udp-echo", version, largest: 1400 });
  return all([dig.result, echo.result]);
}

/** Down and up with curl, checked by hash: the whole of it with one version down and the other up where both work. */
async function tryBulk(lab: Lab, versions: readonly IpVersion[], bytes: number): Promise<string> {
  const [down = 4] = versions;
  const up = versions.at(-1) ?? 4;
  const seed = 40;
  const digest = await seededDigest(seed, bytes);
  const url = streamUrl(down, `/stream/${seed}/${bytes}`);
  const received = await lab.inClient("sh", ["-c", 'curl -qsSg --noproxy "*" "$0" | sha256sum', url]);
  if (received.stdout.split(" ")[0] !== digest) return `download differs: ${received.stderr}`;
  const upload = ["-qsSg", "--noproxy", "*", "-T", "-", "-H", "Expect:", streamUrl(up, "/sink")];
  const sent = await lab.inClient("curl", upload, seededStream(seed, bytes));
  return sent.stdout === digest ? "ok" : `upload differs: ${sent.stderr}`;
}

async function tryHalfClose(
  lab: Lab,
  versions: readonly IpVersion[],
  side: "half-close-client" | "half-close-server",
): Promise<string> {
  for (const version of versions) {
    const { result } = await lab.job({ kind: side, version, bytes: HALF_CLOSE_BYTES }, 10_000);
    if (result !== "ok") return "lost";
  }
  return "kept";
}

/** Destinations that cannot be had. */
export async function tryFailures({ client }: Stage, kind: UpstreamKind, peer: Peer): Promise<Cells> {
  const connect = (host: Readonly<Record<IpVersion, string>>, port: number): Promise<string> =>
    eachVersion((version) => client.call("connect", host[version], port));
  return {
    refused: await connect(SERVER, PORT.closed),
    hostUnreachable: await connect(UNREACHABLE, PORT.http),
    netUnreachable: await connect(NO_ROUTE, PORT.http),
    denied: kind.hasRule ? await connect(SERVER, DENIED_PORT) : await connect(PROHIBITED, PORT.http),
    unknownName: hasNames(kind)
      ? await askByName(parseUpstream(peer.urls, peer.options), UNKNOWN_NAME, PORT.http, "/")
      : "–",
  };
}

/** As many curls at once as wait for each other: the server answers none before all are there. */
export async function tryMany({ lab }: Stage): Promise<string> {
  const url = streamUrl(4, `/barrier/${MANY}`);
  const script = 'for i in $(seq "$1"); do curl -qsS -m 60 --noproxy "*" "$0" & done; wait';
  const { stdout, stderr } = await lab.inClient("sh", ["-c", script, url, `${MANY}`]);
  return stdout === "passed\n".repeat(MANY) ? "ok" : `${stdout.split("\n").length - 1} answers: ${stderr}`;
}

/**
 * A proxy that is killed in the middle of transfers.
 * @param kill ends it; @param restart starts it again
 */
export async function tryKill(
  { client }: Stage,
  relay: Program,
  kill: () => Promise<void>,
  restart: () => Promise<void>,
): Promise<Cells> {
  const host = SERVER[4];
  await client.call("begin", host, SINK_PORT, SOURCE_PORT);
  await kill();
  const { upload, download } = await client.call("finish");
  const whileDown = await client.call("connect", host, PORT.http);
  if (whileDown === "ECONNREFUSED") await relay.says("Cannot connect to the proxy");
  await restart();
  const back = await client.call("connect", host, PORT.http);
  return { killedUpload: upload, killedDownload: download, whileDown, back };
}
