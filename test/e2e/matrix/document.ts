/** The matrix as Markdown. */
import { type Columns, ENDS, FAILS, type UpstreamKind, WORKS } from "./upstreams.ts";

/** What was seen, by column; a column that was not tried is missing. */
export type Cells = Readonly<Record<string, string>>;

/** A row of a literal table by column. */
export function cellsOf(columns: Columns, row: string): Cells {
  const cells = row.split(" | ");
  return Object.fromEntries(Object.keys(columns).map((column, i) => [column, cells[i] ?? ""]));
}

/** All that is expected of an upstream. */
export function expectedOf(kind: UpstreamKind): Cells {
  return { ...cellsOf(WORKS, kind.works), ...cellsOf(FAILS, kind.fails), ...cellsOf(ENDS, kind.ends) };
}

/** A table of some columns, one row an upstream. */
export function renderTable(columns: Columns, rows: ReadonlyMap<string, Cells>): string {
  const keys = Object.keys(columns);
  const lines = [...rows].map(([name, cells]) => [name, ...keys.map((key) => cells[key] ?? "–")]);
  const table = [["upstream", ...Object.values(columns)], ["", ...keys].map(() => "---"), ...lines];
  return table.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** Rows of the tables as they are expected. */
export function expectedRows(kinds: readonly UpstreamKind[]): ReadonlyMap<string, Cells> {
  return new Map(kinds.map((kind) => [kind.name, expectedOf(kind)]));
}

/** The reasons below the tables. */
export function renderReasons(kinds: readonly UpstreamKind[]): string {
  return kinds
    .filter(({ because }) => because.length > 0)
    .map(({ name, because }) => `- ${name}: ${because.join("; ")}.`)
    .join("\n");
}
