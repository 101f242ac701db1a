// Reads TAP 14 as tap writes it (subtests indented by four spaces, diagnostics in YAML blocks) into a tree of results.

const POINT = /^(not )?ok\b(?: (\d+))?(.*)$/;
const DIRECTIVE = /(?<!\\)#\s*(skip|todo)\b\s*(.*)$/i;
const PLAN = /^1\.\.(\d+)(?:\s*#\s*(?:skip\b\s*)?(.*))?$/i;
const TIME = /(?<!\\)# time=[\d.]+m?s/;

/**
 * One result: a file, a subtest, or a single assertion.
 * @typedef {{ name: string, ok: boolean, directive: string | null, reason: string, isSubtest: boolean,
 *   children: TapResult[], diagnostic: string[] }} TapResult
 */

/** Parses the lines of one file one by one. */
export class TapTree {
  /** @type {TapResult[][]} results waiting for their parent's line, by depth */
  #open = [[]];
  /** @type {boolean[]} whether "# Subtest" was the announcement of the next result, by depth */
  #announced = [];
  /** @type {TapResult | null} the result whose YAML block we are in, and the block's indentation */
  #yamlOf = null;
  #yamlIndent = "";
  /** @type {TapResult | null} the last result: a YAML block or a braced subtest may follow it */
  #last = null;
  #lastDepth = 0;
  /** @type {TapResult[]} results whose children follow in braces */
  #braces = [];
  /** Reason of a `Bail out!` line, or null. */
  bailout = null;
  /** Number of results that the file promised (`1..N`), or null before it did. */
  plan = null;
  /** Why the whole file was skipped (`1..0 # reason`), or null. */
  skipReason = null;

  /** Takes one line without its newline. */
  line(text) {
    if (this.#yamlOf !== null) {
      if (text === `${this.#yamlIndent}...`) this.#yamlOf = null;
      else this.#yamlOf.diagnostic.push(text.slice(this.#yamlIndent.length));
      return;
    }
    const indent = /^ */.exec(text)[0].length;
    const rest = text.slice(indent);
    if (rest === "---" && this.#last !== null && indent === this.#lastDepth * 4 + 2) {
      this.#yamlOf = this.#last;
      this.#yamlIndent = " ".repeat(indent);
      return;
    }
    if (indent % 4 !== 0) return;
    const depth = indent / 4;
    if (rest.startsWith("Bail out!")) this.bailout = rest.slice("Bail out!".length).trim();
    else if (depth === 0 && PLAN.test(rest)) this.#takePlan(rest);
    else if (rest.startsWith("# Subtest")) this.#announced[depth] = true;
    else if (rest === "{" && this.#last !== null && depth === this.#lastDepth) this.#braces.push(this.#last);
    else if (rest === "}" && this.#braces.length > 0) this.#closeBrace(depth);
    else if (POINT.test(rest)) this.#point(rest, depth);
  }

  #takePlan(rest) {
    const [, count, reason = "no tests"] = PLAN.exec(rest);
    this.plan = Number(count);
    if (this.plan === 0) this.skipReason = reason;
  }

  #point(rest, depth) {
    const [, not, , tail] = POINT.exec(rest);
    const braced = / \{$/.test(tail);
    const directive = DIRECTIVE.exec(tail);
    const result = {
      name: tail
        .replace(/ \{$/, "")
        .replace(DIRECTIVE, "")
        .replace(TIME, "")
        .replace(/^\s*-\s*/, "")
        .replaceAll("\\#", "#")
        .trim(),
      ok: not === undefined,
      directive: directive === null ? null : directive[1].toLowerCase(),
      reason: directive === null ? "" : directive[2].replace(/ \{$/, "").replace(TIME, "").trim(),
      isSubtest: braced || this.#announced[depth] === true,
      children: this.#open[depth + 1] ?? [],
      diagnostic: [],
    };
    this.#announced[depth] = false;
    this.#open.length = Math.min(this.#open.length, depth + 1);
    while (this.#open.length <= depth) this.#open.push([]);
    this.#open[depth].push(result);
    this.#last = result;
    this.#lastDepth = depth;
    if (braced) this.#braces.push(result);
  }

  #closeBrace(depth) {
    const owner = this.#braces.pop();
    owner.isSubtest = true;
    owner.children = this.#open[depth + 1] ?? [];
    this.#open.length = depth + 1;
    this.#last = owner;
    this.#lastDepth = depth;
  }

  /** The results at depth 0. */
  get results() {
    return this.#open[0];
  }
}

/**
 * Counts the tests themselves: a test is a named subtest without subtests of its own (its assertions are part of it), or
 * a file of bare assertions. A failure that belongs to none of them (a broken plan, a crash) counts as one more failure.
 * @returns {{ passed: number, failed: { path: string[], diagnostic: string[] }[], skipped: { path: string[], reason: string }[] }}
 */
export function countTests(results, path = []) {
  const count = { passed: 0, failed: [], skipped: [] };
  for (const result of results) countOne(result, [...path, result.name], count);
  return count;
}

function countOne(result, path, count) {
  if (result.directive !== null) {
    count.skipped.push({ path, reason: [result.directive === "todo" ? "to do:" : "", result.reason].join(" ").trim() });
    return;
  }
  const tests = result.children.filter((child) => child.isSubtest || child.directive !== null);
  const assertions = result.children.filter((child) => !child.isSubtest && child.directive === null && !child.ok);
  if (tests.length === 0 && result.ok) {
    count.passed++;
    return;
  }
  const before = count.failed.length;
  for (const child of tests) countOne(child, [...path, child.name], count);
  if (tests.length === 0) {
    const lines = assertions.flatMap(({ name, diagnostic }) => [name, ...diagnostic]);
    count.failed.push({ path, diagnostic: lines.length > 0 ? lines : result.diagnostic });
    return;
  }
  for (const { name, diagnostic } of assertions) count.failed.push({ path: [...path, name], diagnostic });
  if (!result.ok && count.failed.length === before) count.failed.push({ path, diagnostic: result.diagnostic });
}
