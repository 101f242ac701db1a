/** Calls of named methods in a child process: arguments and results travel as JSON, exceptions as their text. */
import { type ChildProcess, spawn } from "node:child_process";

type Method = (...args: never[]) => unknown;
/** An object of methods only, whose arguments and results are plain data. */
export type Methods<M> = { readonly [K in keyof M]: Method };

interface Call {
  readonly id: number;
  readonly method: string;
  readonly args: readonly unknown[];
}

interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly problem?: string;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** How long a process may take to end by itself, ms. */
const END_MS = 3000;

/** A process that answers calls, see {@link answerCalls}. Its output goes where ours goes. */
export class Remote<M extends Methods<M>> {
  readonly #process: ChildProcess;
  readonly #name: string;
  readonly #waiting = new Map<number, Waiting>();
  #ids = 0;
  #ended: Error | null = null;

  constructor(name: string, command: string, args: readonly string[]) {
    this.#name = name;
    this.#process = spawn(command, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.#process.on("message", (message) => this.#onAnswer(message as Answer));
    this.#process.on("error", (error) => this.#onEnd(`cannot start: ${error.message}`));
    this.#process.on("exit", (code, signal) => this.#onEnd(`ended with ${signal ?? `status ${code}`}`));
  }

  get pid(): number {
    return this.#process.pid ?? -1;
  }

  /** Calls a method. Rejects when it throws, or when the process ends first. */
  call<K extends keyof M & string>(method: K, ...args: Parameters<M[K]>): Promise<Awaited<ReturnType<M[K]>>> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== null) {
        reject(this.#ended);
        return;
      }
      const id = this.#ids++;
      this.#waiting.set(id, { resolve: resolve as Waiting["resolve"], reject });
      this.#process.send({ id, method, args } satisfies Call);
    });
  }

  /** Closes the channel and waits for the end, which is forced after a while. */
  async end(): Promise<void> {
    if (this.#ended !== null) return;
    const exited = new Promise<void>((resolve) => this.#process.once("exit", () => resolve()));
    if (this.#process.connected) this.#process.disconnect();
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), END_MS);
    await exited;
    clearTimeout(timer);
  }

  #onAnswer(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (answer.problem === undefined) waiting?.resolve(answer.value);
    else waiting?.reject(new Error(`${this.#name}: ${answer.problem}`));
  }

  #onEnd(how: string): void {
    this.#ended ??= new Error(`${this.#name} ${how}`);
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}

/** Answers the calls of the parent process until it closes the channel. */
export function answerCalls<M extends Methods<M>>(methods: M): void {
  const answer = async ({ id, method, args }: Call): Promise<Answer> => {
    try {
      return { id, value: await methods[method as keyof M](...(args as never[])) };
    } catch (error) {
      return { id, problem: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    }
  };
  process.on("message", (message) => {
    void answer(message as Call).then((reply) => process.send?.(reply));
  });
  process.on("disconnect", () => process.exit(0));
  // Ctrl-C reaches the whole group; the parent decides when it is over.
  process.on("SIGINT", () => {});
}
