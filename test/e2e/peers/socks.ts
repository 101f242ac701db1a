/** SOCKS proxies of others, and our own `serve`. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { SHIM } from "../../cli/command.ts";
import { type Lab, OUTER, pause, untilListening } from "../harness.ts";
import {
  ALLOWED_PORTS,
  type Bind,
  CREDENTIALS,
  DENIED_PORT,
  launch,
  PASSWORD,
  type Peer,
  ready,
  USER,
  writeFile,
} from "./peer.ts";

/** Where the sshd of {@link startSsh} listens. */
const SSHD_PORT = 2022;

/** A user data base with {@link USER} in it, and root without a password. */
function userDatabase(lab: Lab): readonly Bind[] {
  const hash = execFileSync("openssl", ["passwd", "-6", PASSWORD], { encoding: "utf8" }).trim();
  const users = `${readFileSync("/etc/passwd", "utf8")}${USER}:x:4242:4242::/nonexistent:/bin/false\n`;
  const hashes = `root:*:19000:0:99999:7:::\n${USER}:${hash}:19000:0:99999:7:::\n`;
  return [
    { from: writeFile(lab, "passwd", users), to: "/etc/passwd" },
    { from: writeFile(lab, "shadow", hashes, 0o600), to: "/etc/shadow" },
  ];
}

/** Dante: CONNECT and UDP ASSOCIATE; a rule keeps the echo service out. Its user names are those of the system. */
export function startDante(lab: Lab, port: number): Promise<Peer> {
  return startDanteWith(lab, port, "username", CREDENTIALS, "socks5");
}

/** Dante without a password, which takes SOCKS4 and SOCKS4a, too. */
export function startOpenDante(lab: Lab, port: number): Promise<Peer> {
  return startDanteWith(lab, port, "none", "", "socks5");
}

export function startDanteSocks4(lab: Lab, port: number): Promise<Peer> {
  return startDanteWith(lab, port, "none", "", "socks4a");
}

async function startDanteWith(
  lab: Lab,
  port: number,
  method: string,
  credentials: string,
  scheme: string,
): Promise<Peer> {
  // 0/0 is any address of either family; a rule in dotted decimal would keep IPv6 destinations out.
  const any = "  from: 0/0 to: 0/0";
  const config = [
    "logoutput: stderr",
    `internal: ${OUTER[4]} port = ${port}`,
    `external: ${OUTER[4]}`,
    `external: ${OUTER[6]}`,
    "clientmethod: none",
    `socksmethod: ${method}`,
    "user.privileged: root",
    "user.unprivileged: nobody",
    `client pass {\n${any}\n}`,
    `socks block {\n${any} port = ${DENIED_PORT}\n  command: connect\n}`,
    `socks pass {\n${any}\n  command: bind connect udpassociate\n}`,
    `socks pass {\n${any}\n  command: bindreply udpreply\n}`,
    "",
  ];
  const file = writeFile(lab, `danted-${port}.conf`, config.join("\n"));
  return ready(launch(lab, "danted", ["-N", "1", "-f", file], userDatabase(lab)), port, scheme, credentials);
}

/** microsocks: CONNECT only, no rules. */
export function startMicrosocks(lab: Lab, port: number): Promise<Peer> {
  const args = ["-i", OUTER[4], "-p", `${port}`, "-u", USER, "-P", PASSWORD];
  return ready(launch(lab, "microsocks", args), port, "socks5", CREDENTIALS);
}

export function startOpenMicrosocks(lab: Lab, port: number): Promise<Peer> {
  return ready(launch(lab, "microsocks", ["-i", OUTER[4], "-p", `${port}`]), port, "socks5");
}

/** `tunrelay serve` as a SOCKS5 proxy. */
export function startServe(lab: Lab, port: number): Promise<Peer> {
  return startServeAs(lab, port, "socks5");
}

/** `tunrelay serve`, which takes both protocols on one port. */
export function startServeAs(lab: Lab, port: number, scheme: "socks5" | "http"): Promise<Peer> {
  const file = writeFile(lab, "password", `${PASSWORD}\n`, 0o600);
  const args = ["serve", "--listen", `${OUTER[4]}:${port}`, "--user", USER, "--password-file", file];
  return ready(launch(lab, SHIM, args), port, scheme, CREDENTIALS);
}

/** `ssh -D`: SOCKS5, SOCKS4 and SOCKS4a without a password. Its sshd forwards to any port but that of the echo service. */
export async function startSsh(lab: Lab, port: number): Promise<Peer> {
  return startSshAs(lab, port, "socks5");
}

export async function startSshSocks4(lab: Lab, port: number): Promise<Peer> {
  return startSshAs(lab, port, "socks4a");
}

async function startSshAs(lab: Lab, port: number, scheme: string): Promise<Peer> {
  const key = (name: string): string => {
    const file = join(lab.directory, name);
    if (!existsSync(file)) execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", file]);
    return file;
  };
  const hostKey = key("ssh-host-key");
  const userKey = key("ssh-user-key");
  const config = [
    `ListenAddress ${OUTER[4]}`,
    `Port ${SSHD_PORT}`,
    `HostKey ${hostKey}`,
    `AuthorizedKeysFile ${userKey}.pub`,
    "PermitRootLogin yes",
    "PasswordAuthentication no",
    "StrictModes no",
    "UsePAM no",
    "PidFile none",
    // There is no "all but".
    `PermitOpen ${ALLOWED_PORTS.map((open) => `*:${open}`).join(" ")}`,
    "",
  ];
  const file = writeFile(lab, "sshd_config", config.join("\n"));
  // A directory that sshd insists on, and that only Debian's service makes.
  const script = 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$0" -D -e -f "$1"';
  const sshd = launch(lab, "sh", ["-c", script, "/usr/sbin/sshd", file], userDatabase(lab));
  await untilListening(OUTER[4], SSHD_PORT, sshd);
  const options = [
    "BatchMode=yes",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "ExitOnForwardFailure=yes",
  ];
  const forward = ["-N", "-D", `${OUTER[4]}:${port}`, "-p", `${SSHD_PORT}`, "-i", userKey, `root@${OUTER[4]}`];
  const ssh = launch(lab, "ssh", ["-F", "none", ...options.flatMap((option) => ["-o", option]), ...forward]);
  const peer = await ready(ssh, port, scheme);
  return { ...peer, programs: [ssh, sshd] };
}

/** socat on a Unix socket in front of {@link startServe}. */
export async function startUnixSocket(lab: Lab, port: number): Promise<Peer> {
  const { programs } = await startServe(lab, port);
  const path = join(lab.directory, "socks5");
  // What a killed one left would look like one that listens.
  rmSync(path, { force: true });
  // -t: how long the second half of a half-closed connection may last, s.
  const socat = launch(lab, "socat", [
    "-t",
    "300",
    `UNIX-LISTEN:${path},fork,unlink-early,backlog=1024`,
    `TCP:${OUTER[4]}:${port}`,
  ]);
  while (!existsSync(path)) {
    if (socat.process.exitCode !== null) throw new Error(`socat ended: ${socat.output}`);
    await pause();
  }
  return { urls: [`socks5://${CREDENTIALS}${path}`], programs: [socat, ...programs], flags: [], options: {} };
}
