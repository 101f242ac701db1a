/** Which destinations are private: not reachable through a server with `allowPrivate: false`. */
import { BlockList } from "node:net";

/** Special-purpose addresses that are not globally reachable (RFC 6890 §2.2, RFC 4193, RFC 4291 §2.5). */
const PRIVATE = new BlockList();
for (const [net, prefix] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["224.0.0.0", 4],
  ["240.0.0.0", 4],
] as const) {
  PRIVATE.addSubnet(net, prefix, "ipv4");
}
for (const [net, prefix] of [
  ["::", 127],
  // 64:ff9b::/96 and 2002::/16 carry IPv4 addresses, private ones too (RFC 6052, RFC 3056).
  ["64:ff9b::", 95],
  ["2002::", 16],
  ["fc00::", 7],
  ["fe80::", 10],
  ["fec0::", 10],
  ["ff00::", 8],
] as const) {
  PRIVATE.addSubnet(net, prefix, "ipv6");
}

/** Whether `address` (text, IPv4-mapped ones already unmapped) is loopback, private, link-local or not unicast. */
export function isPrivateAddress(address: string): boolean {
  return PRIVATE.check(address, address.includes(":") ? "ipv6" : "ipv4");
}

/** `::ffff:192.0.2.1` as the IPv4 address it means (RFC 4291 §2.5.5.2), anything else as it is. */
export function unmapAddress(address: string): string {
  return /^::ffff:\d+\.\d+\.\d+\.\d+$/i.test(address) ? address.slice(7) : address;
}
