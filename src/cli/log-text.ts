/** What a line for people or programs must not hold: control characters, and secrets that got into a message. */

/**
 * Control characters, and those that turn the direction of writing, which a peer may have put there, become visible;
 * what only separates becomes one space.
 */
export function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]+/g, (run) =>
    run.trim() === "" ? " " : "\ufffd",
  );
}

/** User and password of a URL. A password that was not percent-encoded may have any character, so up to the last `@`. */
const URL_CREDENTIALS = /:\/\/\S*@/g;
/** The same with spaces in the password; `://host:1080 ` is no user with a password that starts with 1080. */
const URL_CREDENTIALS_SPACED = /:\/\/[^\s:@/]*:(?!\d{1,5}(?:[\s/,;:)\]'"]|$)).*@/g;
/** A header field with credentials (RFC 9110 §11.6.2, §11.7.2), to the end of its line. */
const AUTHORIZATION = /\b((?:proxy-)?authorization["']?\s*[:=])\s*[^\r\n]*/gi;
/** Credentials of the Basic scheme (RFC 7617 §2) without their field: base64 of `user:password`. */
const BASIC = /\b(basic\s+)([A-Za-z0-9+/]{4,}={0,2})/gi;
/** What a Digest answer proves the password with, and what it could be guessed from (RFC 7616 §3.4). */
const DIGEST_RESPONSE = /\b(response\s*=\s*)("[^"]*"?|[^\s,]+)/gi;
/** `password=...` and the like, as in a query or a configuration. */
const PASSWORD = /\b(pass(?:word|wd|phrase)?=)("[^"]*"?|'[^']*'?|[^\s&;,]+)/gi;

/**
 * Takes secrets out of a text. The second wall: nothing that knows a password puts it into a message, but what a user
 * mistyped, a peer sent back, or a library complains about may hold one.
 */
export function hideSecrets(text: string): string {
  return text
    .replace(AUTHORIZATION, "$1 ...")
    .replace(URL_CREDENTIALS, "://...@")
    .replace(URL_CREDENTIALS_SPACED, "://...@")
    .replace(BASIC, (all, scheme: string, token: string) => (isBasicToken(token) ? `${scheme}...` : all))
    .replace(DIGEST_RESPONSE, "$1...")
    .replace(PASSWORD, "$1...");
}

/** Fit to be shown: one line, no secret. */
export function safeText(text: string): string {
  // In this order: a line break must not end a header field early.
  return hideSecrets(oneLine(text));
}

/** Whether this is `user:password` in base64, and not a word such as `authentication`. */
function isBasicToken(token: string): boolean {
  const bytes = Buffer.from(token, "base64");
  return bytes.includes(":") && bytes.toString("base64").replace(/=+$/, "") === token.replace(/=+$/, "");
}
