/** How many clients the server takes, and what that needs: open files are what a proxy runs out of first. */

/** Clients above the limit that get an answer instead of a reset, at most. */
const MAX_SURPLUS = 64;
/** The same where the limit is small; a quarter of the limit is added. */
const MIN_SURPLUS = 8;

/** Open client connections where nothing else is said. */
export const DEFAULT_MAX_CONNECTIONS = 10_000;

/** Clients above `maxConnections` that are let in to be told so. */
export function surplusOf(maxConnections: number): number {
  return Math.min(MAX_SURPLUS, MIN_SURPLUS + (maxConnections >> 2));
}

/**
 * The largest `maxConnections` whose tunnels, of two open files each, and surplus clients fit into `descriptors`; at
 * least 1. UDP associations take up to four: where many of those meet, the one that finds none left is refused.
 */
export function maxConnectionsWithin(descriptors: number): number {
  return Math.max(
    1,
    Math.floor((descriptors - MAX_SURPLUS) / 2),
    // 2 n for the tunnels and n / 4 + MIN_SURPLUS for the surplus.
    Math.floor((descriptors - MIN_SURPLUS) / 2.25),
  );
}
