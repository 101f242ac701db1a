/** What the library says of itself goes here; the command line writes lines, others may do what they like. */
export interface Logger {
  isEnabled(level: "error" | "warn" | "info" | "debug"): boolean;
  error(message: string): void;
  warn(message: string): void;
  info(message: string): void;
  debug(message: string): void;
}

/** Says nothing. */
export const SILENT: Logger = {
  isEnabled: () => false,
  error: () => {},
  warn: () => {},
  info: () => {},
  debug: () => {},
};
