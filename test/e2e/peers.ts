/** SOCKS5 proxies of others (and our own `serve`) for the end-to-end tests, in the outer namespace. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SHIM } from "../cli/command.ts";
import { findProgram, type Lab, OUTER, type Program, untilListening } from "./harness.ts";

/** What every peer asks for. */
export const USER = "alice";
export const PASSWORD = "s3cret";

/** A running proxy. */
export interface Peer {
  /** With user and password. */
  readonly url: string;
  readonly program: Program;
}

/**
 * Dante (CONNECT and UDP ASSOCIATE). Its user name method asks the system's user data base, so it runs in a mount
 * namespace with a data base of its own.
 */
export async function startDante(lab: Lab, port: number): Promise<Peer> {
  const hash = execFileSync("openssl", ["passwd", "-6", PASSWORD], { encoding: "utf8" }).trim();
  const passwd = join(lab.directory, "passwd");
  const shadow = join(lab.directory, "shadow");
  const config = join(lab.directory, "danted.conf");
  writeFileSync(passwd, `${readFileSync("/etc/passwd", "utf8")}${USER}:x:4242:4242::/nonexistent:/bin/false\n`);
  writeFileSync(shadow, `${USER}:${hash}:19000:0:99999:7:::\n`, { mode: 0o600 });
  // 0/0 is any address of either family; a rule in dotted decimal would keep IPv6 destinations out.
  const any = "  from: 0/0 to: 0/0";
  writeFileSync(
    config,
    [
      "logoutput: stderr",
      `internal: ${OUTER[4]} port = ${port}`,
      `external: ${OUTER[4]}`,
      `external: ${OUTER[6]}`,
      "clientmethod: none",
      "socksmethod: username",
      "user.privileged: root",
      "user.unprivileged: nobody",
      `client pass {\n${any}\n}`,
      `socks pass {\n${any}\n  command: bind connect udpassociate\n}`,
      `socks pass {\n${any}\n  command: bindreply udpreply\n}`,
      "",
    ].join("\n"),
  );
  const script = `mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/shadow && exec "$3" -N 1 -f "$4"`;
  const program = lab.start("unshare", [
    "--mount",
    "sh",
    "-c",
    script,
    "sh",
    passwd,
    shadow,
    findProgram("danted") ?? "danted",
    config,
  ]);
  return ready(program, port);
}

/** microsocks (CONNECT only). */
export function startMicrosocks(lab: Lab, port: number): Promise<Peer> {
  const program = lab.start("microsocks", ["-i", OUTER[4], "-p", `${port}`, "-u", USER, "-P", PASSWORD]);
  return ready(program, port);
}

/** `tunrelay serve`. */
export function startServe(lab: Lab, port: number): Promise<Peer> {
  const file = join(lab.directory, "password");
  writeFileSync(file, `${PASSWORD}\n`, { mode: 0o600 });
  const listen = ["--listen", `${OUTER[4]}:${port}`];
  return ready(lab.start(SHIM, ["serve", ...listen, "--user", USER, "--password-file", file]), port);
}

async function ready(program: Program, port: number): Promise<Peer> {
  await untilListening(OUTER[4], port, program);
  return { url: `socks5://${USER}:${PASSWORD}@${OUTER[4]}:${port}`, program };
}
