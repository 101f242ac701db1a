/** Capability sets as /proc/PID/status shows them (capabilities(7), proc(5)). */

/** linux/capability.h. */
export const CAP_NET_ADMIN = 12n;

/** Whether a set, effective or bounding, has a capability; null where that is not told. */
export function hasCapability(status: string | null, set: "CapEff" | "CapBnd", capability: bigint): boolean | null {
  const [, mask] = new RegExp(`^${set}:\\s*([0-9a-f]+)$`, "m").exec(status ?? "") ?? [];
  return mask === undefined ? null : ((BigInt(`0x${mask}`) >> capability) & 1n) === 1n;
}
