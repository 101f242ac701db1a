/** Sources by hash: limits a source of traffic without a table of sources. Those that meet in a bucket share a limit. */

/** Number of buckets; a power of two. */
export const SOURCE_BUCKETS = 256;

/**
 * The bucket of the address in four words. IPv6 sources count by /64: whoever has one address of it has all of them.
 * @param seed secret 32 bits, so that nobody can choose whom to share a bucket with
 */
export function sourceBucket(seed: number, a0: number, a1: number, a2: number, a3: number): number {
  // Mapped IPv4 addresses have nothing in their upper half.
  const isMapped = a0 === 0 && a1 === 0 && a2 === 0xffff;
  let hash = Math.imul(seed ^ a0, 0x9e3779b1);
  hash ^= hash >>> 15;
  hash = Math.imul(hash ^ a1, 0x85ebca6b);
  hash ^= hash >>> 13;
  if (isMapped) hash = Math.imul(hash ^ a3, 0xc2b2ae35);
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x7feb352d);
  return (hash ^ (hash >>> 15)) & (SOURCE_BUCKETS - 1);
}
