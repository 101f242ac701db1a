/** Exit codes of the command line: small numbers of our own, and those of sysexits.h where one fits. docs/cli.md has the table. */

export const ExitCode = {
  ok: 0,
  /** Something failed that no other code names. */
  failure: 1,
  /** An option, URL, address or combination of them cannot be used; nothing was changed. */
  usage: 2,
  /** EX_UNAVAILABLE: the proxy's name does not resolve. */
  unavailable: 69,
  /** EX_OSERR: the system lacks what is needed (device node, addon, kernel feature), or the device died. */
  system: 71,
  /** EX_CANTCREAT: the device or the port is in use. */
  inUse: 73,
  /** EX_NOPERM: a right is missing. */
  permission: 77,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** Added to the number of the signal that ended the program. */
export const SIGNAL_EXIT_BASE = 128;

/** What the stable `code` of our errors means for the exit code; what is not here is a plain failure. */
const BY_ERROR_CODE: Readonly<Record<string, ExitCode>> = {
  UPSTREAM_URL: ExitCode.usage,
  LISTEN_IN_USE: ExitCode.inUse,
  LISTEN_ADDRESS: ExitCode.usage,
  LISTEN_DENIED: ExitCode.permission,
  LISTEN_OPTION: ExitCode.usage,
  LISTEN_FAILED: ExitCode.system,
  DEVICE_MISSING: ExitCode.system,
  DEVICE_DENIED: ExitCode.permission,
  DEVICE_BUSY: ExitCode.inUse,
  DEVICE_NAME: ExitCode.usage,
  DEVICE_GONE: ExitCode.system,
  DEVICE_FAILED: ExitCode.system,
  IO_ADDON: ExitCode.system,
  IO_POLLER: ExitCode.system,
  HOST_PERMISSION: ExitCode.permission,
  HOST_EXISTS: ExitCode.inUse,
  HOST_NO_DEVICE: ExitCode.usage,
  HOST_UNREACHABLE: ExitCode.usage,
  HOST_INVALID: ExitCode.usage,
  HOST_IPV6_DISABLED: ExitCode.system,
  HOST_FAILED: ExitCode.system,
};

/** The exit code for what a command threw. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof Error)) return ExitCode.failure;
  if ("exitCode" in error && typeof error.exitCode === "number") return error.exitCode;
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return BY_ERROR_CODE[code] ?? ExitCode.failure;
}
