/** The demo's result rows as a table for people. */

/** One row; also what `--json` prints. */
export interface DemoRow {
  /** Protocol and IP version, such as `TCP IPv6`. */
  readonly protocol: string;
  readonly flow: string;
  /** What the bytes went through. */
  readonly path: string;
  /** Payload that arrived and was checked. */
  readonly bytes: number;
  /** Null where a rate says nothing. */
  readonly mbitPerSecond: number | null;
  /** `ok`, or what differed. */
  readonly result: string;
}

const HEADINGS = ["protocol", "flow", "path", "bytes", "Mbit/s", "result"] as const;
/** Columns of numbers, which are set flush right. */
const RIGHT: readonly boolean[] = [false, false, false, true, true, false];

/** Formats rows under their headings, one line each, without a final newline. */
export function formatTable(rows: readonly DemoRow[]): string {
  const cells = rows.map((row) => [
    row.protocol,
    row.flow,
    row.path,
    groupDigits(row.bytes),
    row.mbitPerSecond === null ? "-" : groupDigits(row.mbitPerSecond),
    row.result,
  ]);
  const widths = HEADINGS.map((heading, i) => Math.max(heading.length, ...cells.map((line) => line[i]?.length ?? 0)));
  const rule = widths.map((width) => "-".repeat(width));
  return [HEADINGS, rule, ...cells].map((line) => formatLine(line, widths)).join("\n");
}

function formatLine(line: readonly string[], widths: readonly number[]): string {
  const padded = line.map((cell, i) =>
    RIGHT[i] === true ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
  );
  return padded.join("  ").trimEnd();
}

/** 1234567 as `1,234,567`, whatever the locale. */
function groupDigits(value: number): string {
  return value.toFixed(0).replace(/\B(?=(\d{3})+$)/g, ",");
}
