/** `tunrelay serve`: the embedded proxy on one or more addresses. */
import { readFileSync, statSync } from "node:fs";
import { ProxyServer } from "../proxy/server/server.ts";
import { formatEndpoint, parseAddress } from "../stack/flow/address.ts";
import { badValue, CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";
import { LineLogger } from "./log.ts";
import type { ServeFlags } from "./program.ts";
import { firstSignal } from "./signals.ts";
import { parseCount, parseListen, parseLogLevel } from "./values.ts";

const DEFAULT_LISTEN = ["127.0.0.1:1080"];
const MAX_CONNECTIONS = 1_000_000;
/** How long open connections may go on after a signal, ms. */
const DRAIN_MS = 1000;
const PASSWORD_VARIABLE = "TUNRELAY_SERVE_PASSWORD";

/** Serves until a signal; returns the exit code. */
export async function serve(flags: ServeFlags): Promise<number> {
  const endpoints = (flags.listen ?? DEFAULT_LISTEN).map(parseListen);
  const logger = new LineLogger(parseLogLevel(flags.loglevel));
  const limits =
    flags.maxConnections === undefined
      ? {}
      : { maxConnections: parseCount("--max-connections", flags.maxConnections, 1, MAX_CONNECTIONS) };
  const credentials = readCredentials(flags, logger);
  const stopped = firstSignal();
  const servers: ProxyServer[] = [];
  try {
    for (const endpoint of endpoints) {
      servers.push(await ProxyServer.listen({ ...endpoint, ...limits, ...credentials, logger }));
    }
  } catch (error) {
    await Promise.all(servers.map((server) => server.close()));
    throw error;
  }
  for (const { address } of servers) {
    const { host, port } = address;
    const bytes = parseAddress(host);
    const where = bytes === null ? `${host}:${port}` : formatEndpoint(bytes, port);
    process.stdout.write(`listening on ${where}\n`);
    if (credentials.username === undefined && !isLoopback(host)) {
      logger.warn(`anyone who reaches ${where} can use this proxy: give --user and a password, or listen on 127.0.0.1`);
    }
  }
  const signal = await stopped;
  logger.debug(`${signal}: ending within ${DRAIN_MS} ms`);
  await Promise.all(servers.map((server) => server.close(DRAIN_MS)));
  logger.close();
  return ExitCode.ok;
}

function isLoopback(host: string): boolean {
  return host === "::1" || host.startsWith("127.");
}

interface CredentialOptions {
  readonly username?: string;
  readonly password?: string;
}

function readCredentials(flags: ServeFlags, logger: LineLogger): CredentialOptions {
  const { user, passwordFile } = flags;
  const password = passwordFile === undefined ? process.env[PASSWORD_VARIABLE] : readPassword(passwordFile, logger);
  if (user === undefined) {
    if (password === undefined) return {};
    const source = passwordFile === undefined ? PASSWORD_VARIABLE : "--password-file";
    throw new CliError(ExitCode.usage, `${source} gives a password without a name: add --user NAME`);
  }
  if (password === undefined) {
    throw badValue("--user", user, `it has no password: give --password-file FILE or set ${PASSWORD_VARIABLE}`);
  }
  return { username: user, password };
}

function readPassword(file: string, logger: LineLogger): string {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
    if ((statSync(file).mode & 0o077) !== 0) {
      logger.warn(`other users of this machine may read or change ${file}: chmod 600 ${file}`);
    }
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : error;
    throw badValue("--password-file", file, `it cannot be read (${code})`);
  }
  const password = text.split(/\r?\n/, 1)[0] ?? "";
  if (password === "") throw badValue("--password-file", file, "its first line is empty, expected the password");
  return password;
}
