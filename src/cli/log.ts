/** The logger of the command line: one line an event on stderr, and repeats held back. */

/** From silent to talkative. */
export const LOG_LEVELS = ["silent", "error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** A message is written at most once in this time, ms. */
const REPEAT_MS = 1000;
/** Messages remembered for that; the one that was quiet for longest is forgotten first. */
const MAX_REMEMBERED = 256;

export interface LoggerOptions {
  /** Takes a finished line without newline; stderr by default. */
  readonly write?: (line: string) => void;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

interface Remembered {
  readonly level: LogLevel;
  /** When it was last written. */
  writtenAt: number;
  heldBack: number;
}

/**
 * Writes lines such as `14:03:07 warn proxy 192.0.2.7:1080 refused the connection`. The same message is written at most
 * once a second; the next one says how many were held back, and `close` tells what is left. Holds at most 256 messages.
 */
export class LineLogger {
  readonly #rank: number;
  readonly #write: (line: string) => void;
  readonly #now: () => number;
  readonly #seen = new Map<string, Remembered>();

  constructor(level: LogLevel, options: LoggerOptions = {}) {
    this.#rank = LOG_LEVELS.indexOf(level);
    this.#write = options.write ?? writeToStderr;
    this.#now = options.now ?? Date.now;
  }

  /** Whether messages of this level are written; ask before building a costly one. */
  isEnabled(level: LogLevel): boolean {
    return LOG_LEVELS.indexOf(level) <= this.#rank;
  }

  error(message: string): void {
    this.#log("error", message);
  }

  warn(message: string): void {
    this.#log("warn", message);
  }

  info(message: string): void {
    this.#log("info", message);
  }

  debug(message: string): void {
    this.#log("debug", message);
  }

  /** Writes how often the messages came that were held back. */
  close(): void {
    for (const [message, entry] of this.#seen) this.#tellRest(message, entry);
    this.#seen.clear();
  }

  #log(level: LogLevel, message: string): void {
    if (!this.isEnabled(level)) return;
    const now = this.#now();
    const entry = this.#seen.get(message);
    if (entry !== undefined && now - entry.writtenAt < REPEAT_MS) {
      entry.heldBack++;
      return;
    }
    this.#seen.delete(message);
    this.#seen.set(message, { level, writtenAt: now, heldBack: 0 });
    this.#line(level, now, message, entry?.heldBack ?? 0);
    if (this.#seen.size > MAX_REMEMBERED) this.#forgetOldest();
  }

  #forgetOldest(): void {
    for (const [message, entry] of this.#seen) {
      this.#seen.delete(message);
      this.#tellRest(message, entry);
      return;
    }
  }

  #tellRest(message: string, entry: Remembered): void {
    if (entry.heldBack > 0) this.#line(entry.level, this.#now(), message, entry.heldBack);
  }

  #line(level: LogLevel, now: number, message: string, heldBack: number): void {
    const time = new Date(now).toTimeString().slice(0, 8);
    const count = heldBack === 0 ? "" : ` (and ${heldBack} more of these)`;
    this.#write(`${time} ${level.padEnd(5)} ${oneLine(message)}${count}`);
  }
}

/** Control characters, which a peer may have put there, become visible. */
export function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, (run) => (run.trim() === "" ? " " : "\ufffd"));
}

function writeToStderr(line: string): void {
  process.stderr.write(`${line}\n`);
}
