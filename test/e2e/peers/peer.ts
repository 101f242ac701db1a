/** What the proxies of the end-to-end tests have in common. They run in the outer namespace and end with the test. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { PORT, SERVER } from "../../../src/cli/demo/network.ts";
import type { UpstreamOptions } from "../../../src/proxy/url.ts";
import { findProgram, type Lab, OUTER, type Program, STREAM_PORT, untilListening } from "../harness.ts";

/** What every peer asks for that asks for a password. */
export const USER = "alice";
export const PASSWORD = "s3cret";
export const CREDENTIALS: string = `${USER}:${PASSWORD}@`;

/** A name that every peer resolves to {@link SERVER}, and one that none does. */
export const KNOWN_NAME = "server.test";
export const UNKNOWN_NAME = "nowhere.test";

/** Servers of the matrix, beside the demo's: one that never reads, and one that sends without an end. */
export const SINK_PORT = 7003;
export const SOURCE_PORT = 7004;
/** The destination that the rules of peers keep out; they allow {@link ALLOWED_PORTS}. */
export const DENIED_PORT: number = PORT.echo;
export const ALLOWED_PORTS: readonly number[] = [
  ...Object.values(PORT).filter((port) => port !== DENIED_PORT),
  STREAM_PORT,
  SINK_PORT,
  SOURCE_PORT,
];

/** A running proxy. */
export interface Peer {
  /** With user and password where it asks for them; several are a chain. */
  readonly urls: readonly [string, ...string[]];
  readonly programs: readonly Program[];
  /** Options of `run` that it takes. */
  readonly flags: readonly string[];
  /** The same for the library. */
  readonly options: UpstreamOptions;
}

/** Upstreams without a proxy. */
export function noPeer(url: string, flags: readonly string[]): Peer {
  return { urls: [url], programs: [], flags, options: {} };
}

/** Ends a proxy at once, with all of its processes. */
export async function kill(peer: Peer): Promise<void> {
  await Promise.all(peer.programs.map((program) => program.stop("SIGKILL")));
}

/** A file or directory that a peer sees in place of the system's. */
export interface Bind {
  readonly from: string;
  readonly to: string;
}

// The shell stays: it is process 1 of the peer's PID namespace, so that whatever the peer has started ends with it, and
// unlike the peer it keeps its user, and with that the signal that tells it of its parent's end.
// A shared memory of its own: squid leaves files there when it is killed, and does not start when it finds them.
const SCRIPT =
  'mount -t tmpfs shm /dev/shm || exit; while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit; shift 2; done; shift; "$@" & wait $!';

/**
 * Starts a proxy in a mount and a PID namespace of its own, where {@link KNOWN_NAME} is known and every other name is
 * asked of the lab's DNS server. Killing the program kills all that the proxy has started.
 */
export function launch(lab: Lab, command: string, args: readonly string[], binds: readonly Bind[] = []): Program {
  const names = [
    { from: writeHosts(lab), to: "/etc/hosts" },
    { from: writeFile(lab, "resolv.conf", `nameserver ${SERVER[4]}\n`), to: "/etc/resolv.conf" },
  ];
  const mounts = [...names, ...binds].flatMap(({ from, to }) => [from, to]);
  const namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
  const program = findProgram(command) ?? command;
  return lab.start("unshare", [...namespaces, "--", "sh", "-c", SCRIPT, "sh", ...mounts, "--", program, ...args]);
}

/** The hosts file of the peers. */
export function writeHosts(lab: Lab): string {
  return writeFile(lab, "hosts", `127.0.0.1 localhost\n${SERVER[4]} ${KNOWN_NAME}\n`);
}

/** Writes a file of the test, and returns its path. */
export function writeFile(lab: Lab, name: string, text: string, mode = 0o644): string {
  const path = join(lab.directory, name);
  writeFileSync(path, text, { mode });
  return path;
}

/** The peer, once it listens. */
export async function ready(program: Program, port: number, scheme: string, credentials = ""): Promise<Peer> {
  await untilListening(OUTER[4], port, program);
  return { urls: [`${scheme}://${credentials}${OUTER[4]}:${port}`], programs: [program], flags: [], options: {} };
}
