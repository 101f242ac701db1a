/** A reader of TypeScript source that is just good enough for the house rules: it tells code from comments and text. */

/** One import of a module, of any kind. */
export interface ImportOf {
  /** As written; null where it is computed. */
  readonly specifier: string | null;
  readonly line: number;
  /** `export ... from` */
  readonly reExport: boolean;
  /** `import type ...`, which leaves nothing in the compiled file. */
  readonly typeOnly: boolean;
}

/** After these a slash starts a regular expression, not a division. */
const REGEX_MAY_FOLLOW = /(^|[(,=:[!&|?{};+\-*%<>~^]|\b(return|typeof|case|in|of|void|throw|yield|await|else|do))\s*$/;

/**
 * Replaces comments and the contents of strings, templates and regular expressions by spaces. Quotes, line breaks and
 * the code inside `${}` stay, and every character keeps its position.
 */
export function blankText(source: string): string {
  const out = source.split("");
  /** Depth of braces at which the code of each open `${` ends. */
  const templates: number[] = [];
  let depth = 0;
  let i = 0;
  const blank = (from: number, to: number): void => {
    for (let k = from; k < to && k < out.length; k++) if (out[k] !== "\n") out[k] = " ";
  };
  const skipTemplate = (from: number): number => {
    let k = from;
    for (; k < source.length; k++) {
      if (source[k] === "\\") k++;
      else if (source[k] === "`") {
        blank(from, k);
        return k + 1;
      } else if (source[k] === "$" && source[k + 1] === "{") {
        blank(from, k);
        templates.push(depth);
        depth++;
        return k + 2;
      }
    }
    blank(from, k);
    return k;
  };
  while (i < source.length) {
    const char = source.charAt(i);
    const next = source.charAt(i + 1);
    if (char === "/" && next === "/") {
      const end = endOf(source, "\n", i);
      blank(i, end);
      i = end;
    } else if (char === "/" && next === "*") {
      const end = endOf(source, "*/", i + 2) + 2;
      blank(i, end);
      i = end;
    } else if (char === '"' || char === "'") {
      let end = i + 1;
      while (end < source.length && source[end] !== char && source[end] !== "\n") end += source[end] === "\\" ? 2 : 1;
      blank(i + 1, end);
      i = end + 1;
    } else if (char === "`") {
      i = skipTemplate(i + 1);
    } else if (char === "/" && REGEX_MAY_FOLLOW.test(out.slice(Math.max(0, i - 40), i).join(""))) {
      const end = endOfRegex(source, i + 1);
      blank(i + 1, end);
      i = end + 1;
    } else if (char === "{") {
      depth++;
      i++;
    } else if (char === "}") {
      depth--;
      i++;
      if (templates.at(-1) === depth) {
        templates.pop();
        i = skipTemplate(i);
      }
    } else i++;
  }
  return out.join("");
}

function endOf(source: string, what: string, from: number): number {
  const at = source.indexOf(what, from);
  return at < 0 ? source.length : at;
}

function endOfRegex(source: string, from: number): number {
  let inClass = false;
  for (let i = from; i < source.length; i++) {
    const char = source[i];
    if (char === "\\") i++;
    else if (char === "[") inClass = true;
    else if (char === "]") inClass = false;
    else if (char === "\n" || (char === "/" && !inClass)) return i;
  }
  return source.length;
}

/** Line number, from 1, of a position. */
export function lineOf(source: string, position: number): number {
  return source.slice(0, position).split("\n").length;
}

/** All imports: static, of types only, for side effects, `export from`, `import()`, `import("x").T` and `require()`. */
export function importsOf(source: string): ImportOf[] {
  const code = blankText(source);
  const found: ImportOf[] = [];
  const patterns: readonly [RegExp, boolean][] = [
    [/\bimport\s+(?:[\w$*{][^;"'`=]*?\bfrom\s*)?(["'])( *)\1/g, false],
    [/\bexport\s+(?:type\s+)?(?:\*(?:\s*as\s+[\w$]+)?|\{[^}]*\})\s*from\s*(["'])( *)\1/g, true],
    [/\b(?:import|require)\s*\(\s*(["'`])( *)\1/g, false],
  ];
  for (const [pattern, reExport] of patterns) {
    for (const match of code.matchAll(pattern)) {
      const end = match.index + match[0].lastIndexOf(match[1] ?? "");
      const specifier = source.slice(end - (match[2] ?? "").length, end);
      const typeOnly = /^(?:import|export)\s+type\s+[{*\w]/.test(match[0]) && !/^import\s+type\s+from\b/.test(match[0]);
      found.push({ specifier, line: lineOf(source, match.index), reExport, typeOnly });
    }
  }
  for (const match of code.matchAll(/\b(?:import|require)\s*\(\s*[^"'`\s)]/g)) {
    found.push({ specifier: null, line: lineOf(source, match.index), reExport: false, typeOnly: false });
  }
  return found.sort((a, b) => a.line - b.line);
}
