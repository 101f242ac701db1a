/** Log lines for programs: JSON by pino. Loading pino takes as long as starting Node, so only `--log-format json` does. */
import { pino } from "pino";
import type { FormatRecord } from "./log.ts";
import { safeText } from "./log-text.ts";

/**
 * Makes lines such as `{"level":"warn","time":"2026-01-31T14:03:07.123Z","msg":"proxy ... refused the connection"}`.
 * `heldBack` is there when the message came that often without a line of its own; a flow has `event: "flow"` and its
 * fields, a crash its `stack`.
 */
export function jsonFormat(): FormatRecord {
  let line = "";
  let time = 0;
  const logger = pino(
    {
      // Which levels are written is decided before.
      level: "trace",
      base: null,
      timestamp: () => `,"time":"${new Date(time).toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    {
      write: (text) => {
        line = text;
      },
    },
  );
  return (record) => {
    const { level, message, heldBack, flow, stack } = record;
    time = record.time;
    const fields = {
      ...(heldBack === 0 ? {} : { heldBack }),
      ...(stack === null ? {} : { stack: stack.map(safeText).join("\n") }),
      ...(flow === null
        ? {}
        : {
            event: "flow",
            protocol: flow.protocol,
            client: safeText(flow.client),
            destination: safeText(flow.destination),
            upstream: safeText(flow.upstream),
            end: safeText(flow.end),
            ...(flow.reason === undefined ? {} : { reason: safeText(flow.reason) }),
            durationMs: flow.durationMs,
            bytesUp: flow.bytesUp,
            bytesDown: flow.bytesDown,
          }),
    };
    logger[level](fields, safeText(message));
    return line.trimEnd();
  };
}
