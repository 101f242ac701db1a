import { ExitCode } from "./exit-codes.ts";

/** Ends a command with one line on stderr and an exit code. The message names value, cause and remedy. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: ExitCode;

  constructor(exitCode: ExitCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/** A complaint about an option's value: `--mtu 70000: expected a number from 576 to 65535`. */
export function badValue(option: string, value: string, text: string): CliError {
  return new CliError(ExitCode.usage, `${option} ${value === "" ? '""' : value}: ${text}`);
}
