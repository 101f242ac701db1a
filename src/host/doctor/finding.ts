/** What a check of the machine finds. */

/** `unknown`: it could not be tried, because something else is missing. */
export type State = "ok" | "warning" | "problem" | "unknown";

/** What a problem is made of: a right that this process lacks, or something that the system lacks. */
export type Lack = "right" | "system";

/** What was found: one line each. A finding has either `detail`, when it is ok, or a cause and a remedy. */
export type Verdict =
  | { readonly state: "ok"; readonly detail: string; readonly cause: null; readonly remedy: null; readonly lacks: null }
  | {
      readonly state: "warning" | "problem" | "unknown";
      readonly detail: null;
      readonly cause: string;
      readonly remedy: string;
      /** Null unless it is a problem. */
      readonly lacks: Lack | null;
    };

/** A verdict with the name of its check. */
export type Finding = Verdict & { readonly name: string };

export function ok(detail: string): Verdict {
  return { state: "ok", detail, cause: null, remedy: null, lacks: null };
}

/** Something is less than it could be; the relay works without. */
export function warning(cause: string, remedy: string): Verdict {
  return { state: "warning", detail: null, cause, remedy, lacks: null };
}

/** The relay cannot work. */
export function problem(lacks: Lack, cause: string, remedy: string): Verdict {
  return { state: "problem", detail: null, cause, remedy, lacks };
}

/** It could not be tried. */
export function unknown(cause: string, remedy: string): Verdict {
  return { state: "unknown", detail: null, cause, remedy, lacks: null };
}
