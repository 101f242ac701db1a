/** Reads the challenges of HTTP authentication (RFC 9110 §11.3, §11.6.1): several in one field, or in several. */

/** One challenge: the scheme in lower case, and its parameters by lower-case name, values without quotes. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** More than anybody offers; what follows is not looked at. */
const MAX_CHALLENGES = 16;
const MAX_PARAMETERS = 32;

/** RFC 9110 §5.6.2. */
const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
/** RFC 9110 §11.2, token68: what Negotiate and NTLM send in place of parameters. */
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;
const SPACE = /[ \t]+/y;
const LIST_SPACE = /[ \t,]+/y;
const EQUALS = /[ \t]*=[ \t]*/y;
/** RFC 9110 §5.6.4; one that is never closed goes to the end. */
const QUOTED = /"((?:[^"\\]|\\.)*)(?:"|\\?$)/y;

/** A place in a text, and what can be read there. */
class Cursor {
  readonly text: string;
  at = 0;

  constructor(text: string) {
    this.text = text;
  }

  get isAtEnd(): boolean {
    return this.at >= this.text.length;
  }

  /** What `pattern` (sticky) matches here, its first group if it has one; null for nothing. */
  take(pattern: RegExp): string | null {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text);
    if (match === null) return null;
    this.at = pattern.lastIndex;
    return match[1] ?? match[0];
  }
}

/**
 * Reads the values of all Proxy-Authenticate (or WWW-Authenticate) fields. What cannot be read is left out: a challenge
 * that is not understood is as good as none (RFC 9110 §11.3).
 */
export function parseChallenges(fields: readonly string[]): Challenge[] {
  const challenges: Challenge[] = [];
  for (const field of fields) {
    const cursor = new Cursor(field);
    cursor.take(LIST_SPACE);
    while (!cursor.isAtEnd && challenges.length < MAX_CHALLENGES) {
      const challenge = takeChallenge(cursor);
      if (challenge === null) break;
      challenges.push(challenge);
    }
  }
  return challenges;
}

/** A comma may stand before a parameter or before the next scheme: an equals sign behind the token tells. */
function takeChallenge(cursor: Cursor): Challenge | null {
  const scheme = cursor.take(TOKEN);
  if (scheme === null) return null;
  const parameters = new Map<string, string>();
  const challenge = { scheme: scheme.toLowerCase(), parameters };
  if (cursor.take(SPACE) !== null) cursor.take(TOKEN68);
  for (;;) {
    cursor.take(LIST_SPACE);
    const beforeName = cursor.at;
    const name = cursor.take(TOKEN);
    if (name === null) {
      // Not a list: the rest of the field is lost, what was read stands.
      cursor.at = cursor.text.length;
      return challenge;
    }
    if (cursor.take(EQUALS) === null) {
      cursor.at = beforeName;
      return challenge;
    }
    const quoted = cursor.take(QUOTED);
    const value = quoted === null ? (cursor.take(TOKEN) ?? "") : quoted.replace(/\\(.)/g, "$1");
    // RFC 9110 §11.2: a name occurs once; of several the first counts.
    const key = name.toLowerCase();
    if (parameters.size < MAX_PARAMETERS && !parameters.has(key)) parameters.set(key, value);
  }
}
