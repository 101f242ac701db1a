/** The logger of the command line: one line an event on stderr, for people or for programs, and repeats held back. */
import type { FlowSummary, Logger } from "../proxy/logger.ts";
import { LineSink, stderrWriter } from "./log-sink.ts";
import { safeText } from "./log-text.ts";

/** From silent to talkative. */
export const LOG_LEVELS = ["silent", "error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** For people, or one JSON object a line. */
export const LOG_FORMATS = ["human", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** What was asked for on the command line. */
export interface LogOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** Whether every flow gets a line when it has ended. */
  readonly flows: boolean;
}

/** Ranks in {@link LOG_LEVELS}. */
const ERROR = 1;
const WARN = 2;
const INFO = 3;
const DEBUG = 4;

/** A message is written at most once in this time, ms. */
const REPEAT_MS = 1000;
/** Messages remembered for that; the one that was quiet for longest is forgotten first. */
const MAX_REMEMBERED = 256;

/** What a line is made of; texts as they came, with whatever is in them. */
export interface LogRecord {
  readonly level: Exclude<LogLevel, "silent">;
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly message: string;
  /** How often the same message came without a line of its own. */
  readonly heldBack: number;
  readonly flow: FlowSummary | null;
  /** Where a crash was, a line a call. */
  readonly stack: readonly string[] | null;
}

/** Makes a line, without newline, control characters and secrets. A human one may have more lines, for a stack. */
export type FormatRecord = (record: LogRecord) => string;

export interface LoggerOptions {
  /** Takes a finished line without newline; stderr by default. */
  readonly write?: (line: string) => void;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  /** {@link formatHuman} by default. */
  readonly format?: FormatRecord;
  /** Whether `flow` is there; false by default. */
  readonly flows?: boolean;
}

interface Remembered {
  readonly level: LogRecord["level"];
  /** When it was last written. */
  writtenAt: number;
  heldBack: number;
}

/**
 * Writes lines such as `14:03:07 warn  proxy 192.0.2.7:1080 refused the connection`. The same message is written at most
 * once a second; the next one says how many were held back, and `close` tells what is left. Holds at most 256 messages.
 */
export class LineLogger implements Logger {
  readonly #rank: number;
  readonly #write: (line: string) => void;
  readonly #now: () => number;
  readonly #format: FormatRecord;
  readonly #seen = new Map<string, Remembered>();
  /** Writes the summary of a flow, each of them; undefined unless it was asked for, so that none is made in vain. */
  readonly flow: ((summary: FlowSummary) => void) | undefined;

  constructor(level: LogLevel, options: LoggerOptions = {}) {
    this.#rank = LOG_LEVELS.indexOf(level);
    this.#write = options.write ?? ((line) => stderrSink().line(line));
    this.#now = options.now ?? Date.now;
    this.#format = options.format ?? formatHuman;
    const wanted = options.flows === true && level !== "silent";
    this.flow = wanted ? (summary) => this.#line("info", describeFlow(summary), 0, summary) : undefined;
  }

  /** Whether messages of this level are written; ask before building a costly one. */
  isEnabled(level: LogLevel): boolean {
    return LOG_LEVELS.indexOf(level) <= this.#rank;
  }

  error(message: string): void {
    if (this.#rank >= ERROR) this.#log("error", message);
  }

  warn(message: string): void {
    if (this.#rank >= WARN) this.#log("warn", message);
  }

  info(message: string): void {
    if (this.#rank >= INFO) this.#log("info", message);
  }

  debug(message: string): void {
    if (this.#rank >= DEBUG) this.#log("debug", message);
  }

  /** Writes what ended the program against its will, at every level but silent. */
  crash(error: unknown): void {
    if (this.#rank < ERROR) return;
    const { message, stack } = describeCrash(error);
    this.#line("error", message, 0, null, stack);
  }

  /** Writes how often the messages came that were held back. */
  close(): void {
    for (const [message, entry] of this.#seen) this.#tellRest(message, entry);
    this.#seen.clear();
  }

  #log(level: LogRecord["level"], message: string): void {
    const now = this.#now();
    const entry = this.#seen.get(message);
    if (entry !== undefined && now - entry.writtenAt < REPEAT_MS) {
      entry.heldBack++;
      return;
    }
    this.#seen.delete(message);
    this.#seen.set(message, { level, writtenAt: now, heldBack: 0 });
    this.#line(level, message, entry?.heldBack ?? 0);
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
    if (entry.heldBack > 0) this.#line(entry.level, message, entry.heldBack);
  }

  #line(
    level: LogRecord["level"],
    message: string,
    heldBack: number,
    flow: FlowSummary | null = null,
    stack: readonly string[] | null = null,
  ): void {
    this.#write(this.#format({ level, time: this.#now(), message, heldBack, flow, stack }));
  }
}

/** `14:03:07 warn  MESSAGE (and 41 more of these)`, in local time. */
export function formatHuman({ level, time, message, heldBack, stack }: LogRecord): string {
  const clock = new Date(time).toTimeString().slice(0, 8);
  const count = heldBack === 0 ? "" : ` (and ${heldBack} more of these)`;
  const line = `${clock} ${level.padEnd(5)} ${safeText(message)}${count}`;
  return stack === null ? line : [line, ...stack.map((call) => `    ${safeText(call).trim()}`)].join("\n");
}

/** `flow tcp 198.18.0.1:40222 -> 192.0.2.9:443 via socks5://127.0.0.1:1080: closed after 1.234 s, 517 bytes up, 4096 down`. */
function describeFlow(flow: FlowSummary): string {
  const { protocol, client, destination, upstream, end, reason, durationMs, bytesUp, bytesDown } = flow;
  const cause = reason === undefined ? "" : ` (${reason})`;
  const seconds = (durationMs / 1000).toFixed(3);
  return `flow ${protocol} ${client} -> ${destination} via ${upstream}: ${end}${cause} after ${seconds} s, ${bytesUp} bytes up, ${bytesDown} down`;
}

function describeCrash(error: unknown): { message: string; stack: readonly string[] } {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  const calls = error instanceof Error ? (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line)) : [];
  return { message: `internal error, please report it: ${text}`, stack: calls };
}

/** The logger that crashes go to, and how it writes a line about lines. */
let current: LineLogger | null = null;
let currentFormat: FormatRecord = formatHuman;
let sink: LineSink | null = null;

/** Standard error, shared by all that write lines to it; what waits for its reader gets a last chance at the end. */
export function stderrSink(): LineSink {
  if (sink !== null) return sink;
  const made = new LineSink(stderrWriter(), (lines) => {
    const message = `${lines} lines could not be written: whoever reads standard error did not take them`;
    return currentFormat({ level: "warn", time: Date.now(), message, heldBack: 0, flow: null, stack: null });
  });
  process.once("exit", () => {
    current?.close();
    made.close();
  });
  sink = made;
  return made;
}

/** Makes the program's logger: what it holds back is told however the program ends. */
export async function openLogger({ level, format, flows }: LogOptions): Promise<LineLogger> {
  if (format === "json") currentFormat = (await import("./log-json.ts")).jsonFormat();
  const logger = new LineLogger(level, { format: currentFormat, flows });
  current = logger;
  return logger;
}

/** Writes an error that nobody expected where the program's messages go. */
export function reportCrash(error: unknown): void {
  if (current !== null) {
    current.crash(error);
    return;
  }
  const { message, stack } = describeCrash(error);
  stderrSink().line([`tunrelay: ${safeText(message)}`, ...stack.map(safeText)].join("\n"));
}
