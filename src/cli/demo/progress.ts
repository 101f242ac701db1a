/** Progress on standard error: one line a step, rewritten in place on a terminal. */
import type { WriteStream } from "node:tty";

/** Shows which step runs and how the last one ended. */
export class Progress {
  readonly #stream: WriteStream;
  readonly #total: number;
  #step = 0;
  #label = "";

  /** @param total number of steps */
  constructor(stream: WriteStream, total: number) {
    this.#stream = stream;
    this.#total = total;
  }

  start(label: string): void {
    this.#step++;
    const width = `${this.#total}`.length;
    this.#label = `[${`${this.#step}`.padStart(width)}/${this.#total}] ${label}`;
    if (this.#stream.isTTY) this.#stream.write(`${this.#label} ...`);
  }

  end(result: string): void {
    // Erases what start() wrote (ECMA-48: carriage return, erase in line).
    if (this.#stream.isTTY) this.#stream.write("\r\x1b[K");
    this.#stream.write(`${this.#label}: ${result}\n`);
  }
}
