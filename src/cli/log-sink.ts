/**
 * Where lines go: a descriptor that is written to at once, so that nothing is lost in a crash, and that never stops the
 * program. Who reads our lines may be slow, stopped (Ctrl-S, a pager) or gone.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { isatty } from "node:tty";

const STDERR = 2;
/** What may wait for a reader, bytes. */
const MAX_WAITING = 64 * 1024;
/** How often a full descriptor is tried again, ms. */
const RETRY_MS = 100;
/** How long the end of the program waits for a reader, ms. */
const CLOSE_MS = 500;
const CLOSE_STEP_MS = 10;

/** What waits to be written. */
interface Entry {
  bytes: Buffer;
  /** Lines that are lost with it: more than one when it tells of others. */
  readonly lines: number;
}

/** Writes bytes and returns how many were taken; throws as `fs.writeSync` does. */
export type WriteBytes = (bytes: Uint8Array) => number;

/**
 * Takes lines. What the descriptor does not take waits, up to 64 KiB; lines beyond are counted, and `lostLine` says so
 * when there is room again. Once the reader is gone all is dropped.
 */
export class LineSink {
  readonly #write: WriteBytes;
  readonly #lostLine: (lines: number) => string;
  #waiting: Entry[] = [];
  #waitingBytes = 0;
  #lost = 0;
  #gone = false;
  #timer: NodeJS.Timeout | null = null;

  /** @param lostLine the line that tells how many could not be written */
  constructor(write: WriteBytes, lostLine: (lines: number) => string) {
    this.#write = write;
    this.#lostLine = lostLine;
  }

  /** Writes a line; it must not end in a newline. */
  line(text: string): void {
    if (this.#gone) return;
    const bytes = Buffer.from(`${text}\n`);
    if (this.#waitingBytes + bytes.length > MAX_WAITING) this.#flush();
    if (this.#waitingBytes > 0 && this.#waitingBytes + bytes.length > MAX_WAITING) {
      this.#lost++;
      return;
    }
    this.#push(bytes, 1);
    this.#flush();
  }

  /** Waits a moment for what is left to be taken. */
  close(): void {
    this.#flush();
    for (let waitedMs = 0; this.#waiting.length > 0 && waitedMs < CLOSE_MS; waitedMs += CLOSE_STEP_MS) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, CLOSE_STEP_MS);
      this.#flush();
    }
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #push(bytes: Buffer, lines: number): void {
    this.#waiting.push({ bytes, lines });
    this.#waitingBytes += bytes.length;
  }

  #flush(): void {
    while (!this.#gone) {
      const [entry] = this.#waiting;
      if (entry === undefined) {
        if (this.#lost === 0) return;
        this.#push(Buffer.from(`${this.#lostLine(this.#lost)}\n`), this.#lost);
        this.#lost = 0;
        continue;
      }
      const taken = this.#try(entry);
      if (taken < 0) return;
      this.#waitingBytes -= taken;
      if (taken === entry.bytes.length) this.#waiting.shift();
      else entry.bytes = entry.bytes.subarray(taken);
    }
  }

  /** @returns bytes that were taken, or -1 for no more now */
  #try(entry: Entry): number {
    try {
      return this.#write(entry.bytes);
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : "";
      if (code === "EINTR") return 0;
      if (code === "EAGAIN") {
        // The line that is under way stays first; the loop of the program must not be kept alive for it.
        this.#timer ??= setTimeout(() => {
          this.#timer = null;
          this.#flush();
        }, RETRY_MS).unref();
      } else if (code === "ENOSPC" || code === "EDQUOT") {
        // There may be room again when the next line comes.
        this.#waiting.shift();
        this.#waitingBytes -= entry.bytes.length;
        this.#lost += entry.lines;
      } else {
        // EPIPE, EIO, EBADF: nobody reads any more.
        this.#gone = true;
        this.#waiting = [];
        this.#waitingBytes = 0;
      }
      return -1;
    }
  }
}

/** A writer for standard error that does not wait for whoever reads it, where that can be had. */
export function stderrWriter(): WriteBytes {
  const fd = ownStderr();
  return (bytes) => writeSync(fd, bytes);
}

/**
 * Standard error opened once more: a description of our own can be made non-blocking without doing that to the shell
 * and to others who share it. A socket cannot be opened like that, a file never blocks: these stay as they are.
 */
function ownStderr(): number {
  try {
    if (!fstatSync(STDERR).isFIFO() && !isatty(STDERR)) return STDERR;
    return openSync(`/proc/self/fd/${STDERR}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    // No /proc, a terminal of another user, or nobody reads.
    return STDERR;
  }
}
