/** Entry of the command line: `bin/tunrelay` starts it. The only file that ends the process. */
import type { Command, CommanderError } from "commander";
import { ExitCode, exitCodeOf } from "./exit-codes.ts";
import { reportCrash, stderrSink } from "./log.ts";
import { safeText } from "./log-text.ts";
import { print } from "./print.ts";
import { buildProgram } from "./program.ts";

/** Long options of tun2socks' older releases, which took them with a single dash. */
const SINGLE_DASH = /^-(proxy|device|mtu|fwmark|interface|loglevel|udp-timeout|version|help)(=.*)?$/s;

function complain(message: string): void {
  // What was mistyped may be a URL with a password.
  stderrSink().line(`tunrelay: ${safeText(message)}`);
}

/** One line for each mistake, in place of commander's two. */
function quieten(command: Command): void {
  command.exitOverride();
  const help = command.parent === null ? "tunrelay --help" : `tunrelay ${command.name()} --help`;
  command.configureOutput({
    writeOut: print,
    outputError: (text) => complain(`${text.replace(/^error: /, "").trim()}; see ${help}`),
  });
  for (const child of command.commands) quieten(child);
}

function isCommanderError(error: unknown): error is CommanderError {
  return error instanceof Error && "code" in error && String(error.code).startsWith("commander.");
}

/** Runs the command line and returns its exit code. */
async function main(args: readonly string[]): Promise<number> {
  const odd = args.find((arg) => SINGLE_DASH.test(arg));
  if (odd !== undefined) {
    const name = odd.replace(/=.*$/s, "");
    complain(`${name}: long options have two dashes; write -${name}`);
    return ExitCode.usage;
  }
  let exitCode: number = ExitCode.ok;
  const program = buildProgram((code) => {
    exitCode = code;
  });
  quieten(program);
  try {
    await program.parseAsync(args, { from: "user" });
    return exitCode;
  } catch (error) {
    if (isCommanderError(error)) return error.exitCode === 0 ? ExitCode.ok : ExitCode.usage;
    complain(error instanceof Error ? error.message : String(error));
    if (
      error instanceof Error &&
      exitCodeOf(error) === ExitCode.failure &&
      process.env["TUNRELAY_TRACE"] !== undefined
    ) {
      stderrSink().line((error.stack ?? "").split("\n").map(safeText).join("\n"));
    }
    return exitCodeOf(error);
  }
}

// `nohup`: Node has put SIGHUP back to its default, which would end us when the terminal goes.
const ignored = BigInt(`0x${/^[0-9a-f]+$/.exec(process.env["TUNRELAY_SIGIGN"] ?? "")?.[0] ?? "0"}`);
if ((ignored & 1n) === 1n) process.on("SIGHUP", () => {});
process.on("uncaughtException", (error) => {
  reportCrash(error);
  process.exit(ExitCode.failure);
});
// The arguments may hold a password; the title takes their place in what `ps` shows.
const args = process.argv.slice(2);
process.title = ["tunrelay", args[0] ?? ""].join(" ").trim();
process.exit(await main(args));
