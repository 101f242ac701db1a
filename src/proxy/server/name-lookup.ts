/** How the embedded proxy turns names into addresses. */
import dns from "node:dns";

/**
 * Looks `name` up and calls back once: with all its addresses, the preferred ones first, or with an error whose `code`
 * is one of `dns.lookup`'s (`ENOTFOUND`, `EAI_AGAIN`).
 */
export type NameLookup = (
  name: string,
  onResult: (error: NodeJS.ErrnoException | null, addresses: readonly string[]) => void,
) => void;

/** A name without spaces and control characters; the rest is for the resolver to judge. */
const NAME = /^[^\0-\x20\x7f]+$/;

/** The system's resolver, with /etc/hosts and its order of addresses (RFC 6724). */
export const systemLookup: NameLookup = (name, onResult) => {
  if (!NAME.test(name)) {
    const error: NodeJS.ErrnoException = new Error("Host name has spaces or control characters");
    error.code = "ENOTFOUND";
    process.nextTick(onResult, error, []);
    return;
  }
  dns.lookup(name, { all: true, verbatim: true }, (error, found) => {
    onResult(error, error === null ? found.map((entry) => entry.address) : []);
  });
};
