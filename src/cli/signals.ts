/** SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once. */
import { constants } from "node:os";
import { SIGNAL_EXIT_BASE } from "./exit-codes.ts";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Resolves with the first signal's name. From then on a further one ends the process with 128 + its number. */
export function firstSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let count = 0;
    for (const signal of SIGNALS) {
      process.on(signal, () => {
        count++;
        if (count > 1) process.exit(SIGNAL_EXIT_BASE + constants.signals[signal]);
        resolve(signal);
      });
    }
  });
}
