/** Errors that callers of the proxy side are expected to catch. The `code` is stable; messages are for people. */

/** - `UPSTREAM_URL`: the text does not name an upstream that is served here. */
export type UpstreamErrorCode = "UPSTREAM_URL";

/** An upstream cannot be used as given. The message never holds a password. */
export class UpstreamError extends Error {
  readonly code: UpstreamErrorCode;

  constructor(code: UpstreamErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "UpstreamError";
    this.code = code;
  }
}

/**
 * - `LISTEN_IN_USE`: another program has the port.
 * - `LISTEN_ADDRESS`: this machine does not have the address, or the name does not resolve.
 * - `LISTEN_DENIED`: the right for this port is missing (ports below 1024).
 * - `LISTEN_OPTION`: an option is out of range.
 * - `LISTEN_FAILED`: any other failure; `cause` has it.
 */
export type ListenErrorCode = "LISTEN_IN_USE" | "LISTEN_ADDRESS" | "LISTEN_DENIED" | "LISTEN_OPTION" | "LISTEN_FAILED";

/** The embedded proxy cannot listen as asked. */
export class ListenError extends Error {
  readonly code: ListenErrorCode;

  constructor(code: ListenErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "ListenError";
    this.code = code;
  }
}
