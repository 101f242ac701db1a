/** A helper process of the demo: plain messages both ways, and an end that waits. */
import { type ChildProcess, spawn } from "node:child_process";

/** How long a helper may take to end by itself, ms. */
const END_MS = 1000;

/** A process that talks `Request` and `Reply` over Node's IPC channel and ends when the channel closes. */
export class Child<Request extends object, Reply extends object> {
  readonly #process: ChildProcess;
  readonly #name: string;
  readonly #listeners = new Set<(reply: Reply | Error) => void>();
  #ended: Error | null = null;

  /** @param name for errors, such as `client process` */
  constructor(name: string, command: string, args: readonly string[]) {
    this.#name = name;
    this.#process = spawn(command, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.#process.on("message", (message) => this.#tell(message as Reply));
    this.#process.on("error", (error) => this.#onEnd(`cannot start: ${error.message}`));
    this.#process.on("exit", (code, signal) => this.#onEnd(`ended with ${signal ?? `status ${code}`}`));
  }

  /** Process id; -1 when it could not be started. */
  get pid(): number {
    return this.#process.pid ?? -1;
  }

  send(request: Request): void {
    if (this.#process.connected) this.#process.send(request);
  }

  /**
   * Waits for the next message that `wanted` returns a value for.
   * @throws the reason of `signal`, or an error when the process ends first
   */
  async receive<T>(wanted: (reply: Reply) => T | null, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    if (this.#ended !== null) throw this.#ended;
    let stop = (): void => {};
    try {
      return await new Promise<T>((resolve, reject) => {
        const onAbort = (): void => reject(signal.reason);
        const listener = (reply: Reply | Error): void => {
          if (reply instanceof Error) {
            reject(reply);
            return;
          }
          const value = wanted(reply);
          if (value !== null) resolve(value);
        };
        this.#listeners.add(listener);
        signal.addEventListener("abort", onAbort, { once: true });
        stop = () => {
          this.#listeners.delete(listener);
          signal.removeEventListener("abort", onAbort);
        };
      });
    } finally {
      stop();
    }
  }

  /** Closes the channel and waits for the process to end, which is forced after a second. */
  async end(): Promise<void> {
    if (this.#ended !== null) return;
    const exited = new Promise<void>((resolve) => this.#process.once("exit", () => resolve()));
    if (this.#process.connected) this.#process.disconnect();
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), END_MS);
    await exited;
    clearTimeout(timer);
  }

  #onEnd(how: string): void {
    this.#ended ??= new Error(`The demo's ${this.#name} ${how}`);
    this.#tell(this.#ended);
  }

  #tell(reply: Reply | Error): void {
    for (const listener of [...this.#listeners]) listener(reply);
  }
}
