/** HTTP proxies (CONNECT) of others, and our own `serve`. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { SERVER } from "../../../src/cli/demo/network.ts";
import { type Lab, OUTER } from "../harness.ts";
import { certificates } from "./certificates.ts";
import {
  ALLOWED_PORTS,
  CREDENTIALS,
  DENIED_PORT,
  launch,
  PASSWORD,
  type Peer,
  ready,
  USER,
  writeFile,
  writeHosts,
} from "./peer.ts";
import { startServeAs } from "./socks.ts";

const SQUID_HELPERS = "/usr/lib/squid";
const DIGEST_REALM = "tunrelay test";

/** tinyproxy with Basic; it forwards to any port but that of the echo service. */
export function startTinyproxy(lab: Lab, port: number): Promise<Peer> {
  const config = [
    `Port ${port}`,
    `Listen ${OUTER[4]}`,
    "Timeout 600",
    "MaxClients 1000",
    "LogLevel Warning",
    `BasicAuth ${USER} ${PASSWORD}`,
    // There is no "all but".
    ...ALLOWED_PORTS.map((open) => `ConnectPort ${open}`),
    "",
  ];
  const file = writeFile(lab, "tinyproxy.conf", config.join("\n"));
  return ready(launch(lab, "tinyproxy", ["-d", "-c", file]), port, "http", CREDENTIALS);
}

/** squid with Basic; a rule keeps the echo service out. */
export function startSquid(lab: Lab, port: number): Promise<Peer> {
  return startSquidWith(lab, port, basic(lab), `http_port ${OUTER[4]}:${port}`, "http");
}

/** squid with Digest. */
export function startSquidDigest(lab: Lab, port: number): Promise<Peer> {
  // RFC 7616 §3.4.2, the form for files: user, realm, and A1 hashed.
  const a1 = createHash("md5").update(`${USER}:${DIGEST_REALM}:${PASSWORD}`).digest("hex");
  const users = writeFile(lab, "squid-digest", `${USER}:${DIGEST_REALM}:${a1}\n`);
  const auth = [
    `auth_param digest program ${SQUID_HELPERS}/digest_file_auth -c ${users}`,
    "auth_param digest children 1 startup=1",
    `auth_param digest realm ${DIGEST_REALM}`,
  ];
  return startSquidWith(lab, port, auth, `http_port ${OUTER[4]}:${port}`, "http");
}

/** squid with Basic behind a socat that speaks TLS and asks for a certificate of the test's authority. */
export async function startSquidTls(lab: Lab, port: number): Promise<Peer> {
  const { ca, serverCert, serverKey, clientCert, clientKey } = certificates(lab);
  const squid = await startSquid(lab, port + 1);
  const tls = `cert=${serverCert},key=${serverKey},cafile=${ca},verify=1`;
  const listen = `OPENSSL-LISTEN:${port},bind=${OUTER[4]},fork,reuseaddr,backlog=1024,${tls}`;
  const socat = launch(lab, "socat", [listen, `TCP:${OUTER[4]}:${port + 1}`]);
  const peer = await ready(socat, port, "https", CREDENTIALS);
  const read = (file: string): string => readFileSync(file, "utf8");
  return {
    ...peer,
    programs: [socat, ...squid.programs],
    flags: ["--proxy-ca", ca, "--proxy-cert", clientCert, "--proxy-key", clientKey],
    options: { tls: { ca: read(ca), cert: read(clientCert), key: read(clientKey) } },
  };
}

function basic(lab: Lab): string[] {
  const hash = execFileSync("openssl", ["passwd", "-apr1", PASSWORD], { encoding: "utf8" }).trim();
  const users = writeFile(lab, "squid-basic", `${USER}:${hash}\n`);
  return [
    `auth_param basic program ${SQUID_HELPERS}/basic_ncsa_auth ${users}`,
    "auth_param basic children 1 startup=1",
    "auth_param basic realm tunrelay test",
  ];
}

function startSquidWith(
  lab: Lab,
  port: number,
  auth: readonly string[],
  listen: string,
  scheme: string,
): Promise<Peer> {
  const directory = join(lab.directory, `squid-${port}`);
  mkdirSync(directory, { recursive: true, mode: 0o777 });
  chmodSync(lab.directory, 0o711);
  const config = [
    listen,
    ...auth,
    "acl authenticated proxy_auth REQUIRED",
    `acl echo port ${DENIED_PORT}`,
    "http_access deny echo",
    "http_access allow authenticated",
    "http_access deny all",
    "cache deny all",
    "access_log none",
    "cache_log /dev/stderr",
    "pid_filename none",
    "pinger_enable off",
    "shutdown_lifetime 0 seconds",
    `coredump_dir ${directory}`,
    `hosts_file ${writeHosts(lab)}`,
    `dns_nameservers ${SERVER[4]}`,
    "visible_hostname squid.test",
    "max_filedescriptors 4096",
    // It refuses to be root.
    "cache_effective_user proxy",
    "",
  ];
  const file = writeFile(lab, `squid-${port}.conf`, config.join("\n"));
  return ready(launch(lab, "squid", ["-N", "-f", file]), port, scheme, CREDENTIALS);
}

/** ncat: CONNECT with Basic, answers in HTTP/1.0, no rules. */
export function startNcat(lab: Lab, port: number): Promise<Peer> {
  const args = ["-l", OUTER[4], `${port}`, "-k", "--proxy-type", "http", "--proxy-auth", `${USER}:${PASSWORD}`];
  return ready(launch(lab, "ncat", args), port, "http", CREDENTIALS);
}

/** `tunrelay serve` as an HTTP proxy. */
export function startServeHttp(lab: Lab, port: number): Promise<Peer> {
  return startServeAs(lab, port, "http");
}
