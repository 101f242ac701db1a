/** Which destinations are private: not reachable through a server with `allowPrivate: false`. */
import { BlockList } from "node:net";
import { formatAddress, type IpBytes, parseAddress } from "../../stack/flow/address.ts";

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
  return PRIVATE.check(withoutZone(address), address.includes(":") ? "ipv6" : "ipv4");
}

/** `::ffff:192.0.2.1`, however it is written, as the IPv4 address it means (RFC 4291 §2.5.5.2); others as they are. */
export function unmapAddress(address: string): string {
  if (!address.includes(":")) return address;
  const bytes = parseAddress(withoutZone(address));
  return bytes !== null && isMapped(bytes) ? formatAddress(bytes.subarray(12)) : address;
}

function isMapped(bytes: IpBytes): boolean {
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return false;
  return bytes[10] === 0xff && bytes[11] === 0xff;
}

/** Link-local addresses come as `fe80::1%eth0` (RFC 4007 §11). */
export function withoutZone(address: string): string {
  const zone = address.indexOf("%");
  return zone < 0 ? address : address.slice(0, zone);
}
