/** `tunrelay serve`: the embedded proxy on one or more addresses. */

import { readDescriptors } from "../host/descriptors.ts";
import { DEFAULT_MAX_CONNECTIONS, maxConnectionsWithin } from "../proxy/server/capacity.ts";
import { ProxyServer } from "../proxy/server/server.ts";
import { formatEndpoint, parseAddress } from "../stack/flow/address.ts";
import { badValue, CliError } from "./cli-error.ts";
import { ExitCode } from "./exit-codes.ts";
import { type LineLogger, openLogger } from "./log.ts";
import { print } from "./print.ts";
import type { ServeFlags } from "./program.ts";
import { readPasswordFile } from "./secret-files.ts";
import { firstSignal } from "./signals.ts";
import { parseCount, parseListen, parseLogOptions } from "./values.ts";

const DEFAULT_LISTEN = ["127.0.0.1:1080"];
const MAX_CONNECTIONS = 1_000_000;
/** Open files kept for look-ups of names and for clients on their way out, beside one for each address. */
const SPARE_DESCRIPTORS = 8;
/** How long open connections may go on after a signal, ms. */
const DRAIN_MS = 1000;
const PASSWORD_VARIABLE = "TUNRELAY_SERVE_PASSWORD";

/** Serves until a signal; returns the exit code. */
export async function serve(flags: ServeFlags): Promise<number> {
  const endpoints = (flags.listen ?? DEFAULT_LISTEN).map(parseListen);
  const logger = await openLogger(parseLogOptions(flags));
  const { maxConnections, lowered } = readCapacity(flags, endpoints.length);
  const credentials = readCredentials(flags, logger);
  const stopped = firstSignal();
  const servers: ProxyServer[] = [];
  try {
    for (const endpoint of endpoints) {
      servers.push(await ProxyServer.listen({ ...endpoint, maxConnections, ...credentials, logger }));
    }
  } catch (error) {
    await Promise.all(servers.map((server) => server.close()));
    throw error;
  }
  // Who asked for a number must know that it is not met; the default is as good as what the machine allows.
  if (lowered !== null) logger[flags.maxConnections === undefined ? "info" : "warn"](lowered);
  for (const { address } of servers) {
    const { host, port } = address;
    const bytes = parseAddress(host);
    const where = bytes === null ? `${host}:${port}` : formatEndpoint(bytes, port);
    print(`listening on ${where}\n`);
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

interface Capacity {
  readonly maxConnections: number;
  /** Why that is less than what was asked for; null when it is not. */
  readonly lowered: string | null;
}

/** As many as were asked for, or as many as can be served: a client that is let in must find a second file to open. */
function readCapacity(flags: ServeFlags, listeners: number): Capacity {
  const { maxConnections: text } = flags;
  const asked =
    text === undefined ? DEFAULT_MAX_CONNECTIONS : parseCount("--max-connections", text, 1, MAX_CONNECTIONS);
  const descriptors = readDescriptors();
  if (descriptors === null) return { maxConnections: asked, lowered: null };
  const { limit, open } = descriptors;
  const maxConnections = maxConnectionsWithin(Math.floor((limit - open - SPARE_DESCRIPTORS) / listeners) - 1);
  if (maxConnections >= asked) return { maxConnections: asked, lowered: null };
  const where = listeners === 1 ? "" : " on each address";
  const most = `at most ${maxConnections} clients at a time${where}, not ${asked}`;
  return { maxConnections, lowered: `${most}: the limit of open files is ${limit}; raise it (ulimit -n)` };
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
  const { password, warning } = readPasswordFile("--password-file", file);
  if (warning !== null) logger.warn(warning);
  return Buffer.from(password).toString();
}
