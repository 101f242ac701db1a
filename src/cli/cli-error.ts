import type { ExitCode } from "./exit-codes.ts";

/** Ends a command with one line on stderr and an exit code. The message names value, cause and remedy. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: ExitCode;

  constructor(exitCode: ExitCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
