import { readFileSync } from "node:fs";
import t from "tap";
import { expectedRows, renderReasons, renderTable } from "./matrix/document.ts";
import { type Columns, ENDS, FAILS, UPSTREAMS, type UpstreamKind, WORKS } from "./matrix/upstreams.ts";

const DOCUMENT = "docs/upstreams.md";

t.test("docs/upstreams.md shows what the matrix expects", async (t) => {
  const text = readFileSync(DOCUMENT, "utf8");
  const rows = expectedRows(UPSTREAMS);
  for (const part of [...[WORKS, FAILS, ENDS].map((columns) => renderTable(columns, rows)), renderReasons(UPSTREAMS)]) {
    t.ok(text.includes(`\n${part}\n`), `${DOCUMENT} has this part:\n${part}`);
  }
});

t.test("every row of the matrix has a cell for each column", async (t) => {
  const count = (columns: Columns): number => Object.keys(columns).length;
  for (const { name, works, fails, ends } of UPSTREAMS) {
    const counts = [works, fails, ends].map((row) => row.split(" | ").length);
    t.same(counts, [count(WORKS), count(FAILS), count(ENDS)], name);
  }
});

t.test("a cell that is worse than with the best proxy has a reason", async (t) => {
  const best = UPSTREAMS.find(({ name }) => name === "`tunrelay serve`, SOCKS5");
  const isWorse = ({ name, works, fails }: UpstreamKind): boolean =>
    name !== "`reject://`" &&
    (works.replaceAll("–", "ok") !== best?.works || !fails.startsWith(best.fails.slice(0, 30)));
  for (const kind of UPSTREAMS.filter(isWorse)) t.not(kind.because.length, 0, kind.name);
});
