/** The commands and their options. What a command does is in a file of its own, loaded when it is asked for. */
import { Command, Option } from "commander";
import type { ProxyFlags } from "./secrets.ts";
import type { LogFlags } from "./values.ts";
import { readVersion } from "./version.ts";

/** Options of `tunrelay run` as they were written. */
export interface RunFlags extends ProxyFlags, LogFlags {
  readonly proxy: readonly string[];
  readonly device: string;
  readonly mtu: string;
  readonly address: readonly string[];
  readonly route: readonly string[];
  readonly interface?: string;
  readonly fwmark?: string;
  readonly udpTimeout: string;
  readonly connectTimeout: string;
  readonly answerTimeout: string;
  readonly tcpTimeout: string;
  readonly keepalive?: string;
  readonly maxFlows?: string;
  readonly maxFlowsPerSource?: string;
  readonly maxDials: string;
  readonly maxHalfOpen: string;
  readonly maxUdp: string;
  readonly maxMemory: string;
  readonly earlyAccept?: boolean;
  readonly drain: string;
}

/** Options of `tunrelay serve` as they were written. */
export interface ServeFlags extends LogFlags {
  readonly listen?: readonly string[];
  readonly user?: string;
  readonly passwordFile?: string;
  readonly maxConnections?: string;
}

/** Options of `tunrelay demo` as they were written. */
export interface DemoFlags extends LogFlags {
  readonly json?: boolean;
}

/** Options of `tunrelay doctor` as they were written. */
export interface DoctorFlags {
  readonly json?: boolean;
}

/** Memory for packets without `--max-memory`. */
export const DEFAULT_MAX_MEMORY = "256M";

/** How a command ended. */
export type Finish = (exitCode: number) => void;

function collect(value: string, previous: readonly string[]): readonly string[] {
  return [...previous, value];
}

function repeatable(flags: string, description: string): Option {
  return new Option(flags, `${description} (repeatable)`).argParser(collect).default([], "none");
}

const LOGLEVEL = "-l, --loglevel <level>";
const LOGLEVEL_TEXT = "silent, error, warn, info or debug";
const LOG_FORMAT = "--log-format <format>";
const LOG_FORMAT_TEXT = "human, or json: one object a line";

/**
 * Builds the command line.
 * @param finish gets the exit code of the command that was run
 */
export function buildProgram(finish: Finish): Command {
  const program = new Command("tunrelay")
    .description("Relays the traffic of a TUN device through a proxy")
    .version(readVersion(), "-v, --version", "print the version")
    .helpOption("-h, --help", "show help")
    .helpCommand("help [command]", "show help for a command")
    .showSuggestionAfterError(true);
  addRun(program, finish);
  addServe(program, finish);
  addDemo(program, finish);
  addDoctor(program, finish);
  return program;
}

function addRun(program: Command, finish: Finish): void {
  program
    .command("run")
    .summary("make a TUN device and relay what is routed into it")
    .description(
      "Makes a TUN device and relays TCP and UDP that is routed into it. Ends with SIGINT or SIGTERM. What the machine lacks for it, `tunrelay doctor` says.",
    )
    .addOption(
      new Option(
        "-p, --proxy <url>",
        "socks5://, socks4://, socks4a://, http://, https://, direct:// or reject://; TUNRELAY_PROXY if absent (repeatable: a chain)",
      )
        .argParser(collect)
        .default([], "none"),
    )
    .option("--password-file <file>", "its first line is the proxy's password; TUNRELAY_PROXY_PASSWORD if absent")
    .option("--proxy-ca <file>", "authorities to trust for an https:// proxy, PEM")
    .option("--proxy-pin <sha256>", "the only certificate to trust for an https:// proxy")
    .option("--proxy-cert <file>", "client certificate for an https:// proxy, PEM")
    .option("--proxy-key <file>", "its key, PEM; --proxy-cert if absent")
    .option("--proxy-sni <name>", "name of an https:// proxy in its certificate, if not that of its URL")
    .option("-d, --device <name>", "name of the device, also as tun://NAME", "tun0")
    .option("--mtu <bytes>", "largest IP packet, 576 to 65535", "1500")
    .addOption(repeatable("--address <cidr>", "address of the device, such as 198.18.0.1/15"))
    .addOption(repeatable("--route <cidr>", "route into the device, such as 192.0.2.0/24, or default"))
    .option("--interface <name>", "send upstream traffic through this interface")
    .option("--fwmark <number>", "mark upstream traffic, for `ip rule`; decimal or 0x")
    .option("--udp-timeout <duration>", "forget a UDP client without datagrams after this time", "120s")
    .option("--connect-timeout <duration>", "time for connecting to proxy or destination", "10s")
    .option("--answer-timeout <duration>", "time for the proxy's answer", "30s")
    .option("--tcp-timeout <duration>", "reset a connection without data for this time", "24h")
    .option("--keepalive <duration>", "ask silent clients and upstreams whether they are still there; off if absent")
    .option("--max-flows <number>", "connections at a time, 65536 if absent")
    .option("--max-flows-per-source <number>", "connections at a time of one client address; no limit if absent")
    .option("--max-dials <number>", "connections that wait for the upstream at a time", "4096")
    .option("--max-half-open <number>", "connections that wait for the client at a time", "1024")
    .option("--max-udp <number>", "UDP clients at a time", "4096")
    .option("--max-memory <size>", "memory for packets and what is buffered", DEFAULT_MAX_MEMORY)
    .option("--early-accept", "answer a connection before the upstream has connected")
    .option("--drain <duration>", "time for open flows after SIGINT or SIGTERM", "1s")
    .option(LOGLEVEL, LOGLEVEL_TEXT, "info")
    .option(LOG_FORMAT, LOG_FORMAT_TEXT, "human")
    .option("--log-flows", "write a line for every flow that ends")
    .action(async (flags: RunFlags) => finish(await (await import("./run.ts")).run(flags)));
}

function addServe(program: Command, finish: Finish): void {
  program
    .command("serve")
    .summary("a SOCKS5 and HTTP CONNECT proxy")
    .description(
      "Serves SOCKS5 (CONNECT, UDP ASSOCIATE) and HTTP CONNECT on the same port. Ends with SIGINT or SIGTERM.",
    )
    .addOption(
      new Option(
        "--listen <host:port>",
        "address and port, 127.0.0.1:1080 if absent; [::1]:1080 for IPv6 (repeatable)",
      ).argParser((value: string, previous: readonly string[] | undefined) => [...(previous ?? []), value]),
    )
    .option("--user <name>", "ask clients for this name and a password")
    .option("--password-file <file>", "its first line is the password; TUNRELAY_SERVE_PASSWORD if absent")
    .option("--max-connections <number>", "refuse clients beyond this number")
    .option(LOGLEVEL, LOGLEVEL_TEXT, "info")
    .option(LOG_FORMAT, LOG_FORMAT_TEXT, "human")
    .action(async (flags: ServeFlags) => finish(await (await import("./serve.ts")).serve(flags)));
}

function addDemo(program: Command, finish: Finish): void {
  program
    .command("demo")
    .summary("real programs through a TUN device, the stack and a proxy, here and now")
    .description(
      "Makes namespaces of its own, sends the traffic of real programs through them, and checks what arrives.",
    )
    .option("--json", "print the rows as JSON")
    .option(LOGLEVEL, LOGLEVEL_TEXT, "warn")
    .option(LOG_FORMAT, LOG_FORMAT_TEXT, "human")
    .action(async (flags: DemoFlags) => finish(await (await import("./demo/demo.ts")).runDemo(flags)));
}

function addDoctor(program: Command, finish: Finish): void {
  program
    .command("doctor")
    .summary("what this machine lacks for run, and what helps")
    .description(
      "Looks at everything that `run` needs, by trying it, and changes nothing. Each finding has a cause and a remedy.",
    )
    .option("--json", "print the findings as JSON")
    .action(async (flags: DoctorFlags) => finish((await import("./doctor.ts")).doctor(flags)));
}
