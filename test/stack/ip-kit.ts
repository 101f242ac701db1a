/** What the tests of IP have in common: fragments and extension headers by plain code of their own. */
import { CLIENT, type Family, ipPacket, type Kit, SERVER } from "./kit.ts";

export const FAMILIES: readonly Family[] = [4, 6];
export const ICMP: Readonly<Record<Family, number>> = { 4: 1, 6: 58 };

/** The four words of an address, IPv4 in mapped form. */
export function addressWords(address: Uint8Array): number[] {
  const view = new DataView(address.buffer, address.byteOffset, address.length);
  if (address.length === 4) return [0, 0, 0xffff, view.getInt32(0)];
  return [0, 4, 8, 12].map((at) => view.getInt32(at));
}

/** Local (the server) at 0, remote (the client) at 4. */
export function endWords(family: Family): Int32Array {
  return Int32Array.from([...addressWords(SERVER[family]), ...addressWords(CLIENT[family])]);
}

export function drops(kit: Kit): Readonly<Record<string, number>> {
  return kit.stack.stats().drops;
}

export function concat(...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** A fragment of a datagram from the client to the server. */
export interface FragmentFields {
  readonly protocol: number;
  readonly id?: number;
  /** Bytes in front, a multiple of 8. */
  readonly offset: number;
  readonly more: boolean;
  readonly source?: Uint8Array;
  readonly destination?: Uint8Array;
  readonly trafficClass?: number;
}

/** Builds a fragment; the family is that of the addresses. */
export function fragment(family: Family, fields: FragmentFields, data: Uint8Array): Uint8Array {
  const { protocol, id = 7, offset, more, trafficClass = 0 } = fields;
  const ends = { source: fields.source ?? CLIENT[family], destination: fields.destination ?? SERVER[family] };
  if (family === 6) {
    const field = offset | (more ? 1 : 0);
    const header = [protocol, 0, field >>> 8, field & 0xff, id >>> 24, id >>> 16, id >>> 8, id];
    const packet = ipPacket({ ...ends, protocol: 44 }, concat(header, data));
    packet.set([0x60 | (trafficClass >>> 4), (trafficClass << 4) & 0xff]);
    return packet;
  }
  const packet = ipPacket({ ...ends, protocol, fragment: (more ? 0x2000 : 0) | (offset >>> 3) }, data);
  packet[1] = trafficClass;
  packet.set([id >>> 8, id], 4);
  return withHeaderChecksum(packet);
}

/** Makes the checksum of an IPv4 header right again. */
export function withHeaderChecksum(packet: Uint8Array): Uint8Array {
  const header = packet.subarray(0, ((packet[0] as number) & 15) * 4);
  header.set([0, 0], 10);
  let sum = 0;
  for (let i = 0; i < header.length; i += 2) sum += ((header[i] as number) << 8) | (header[i + 1] as number);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  header.set([(0xffff - sum) >>> 8, (0xffff - sum) & 0xff], 10);
  return packet;
}

/** Cuts a whole packet without options into fragments at the given offsets of its payload, multiples of 8. */
export function cut(packet: Uint8Array, offsets: readonly number[], id = 7): Uint8Array[] {
  const family = ((packet[0] as number) >>> 4) as Family;
  const [header, protocol] = family === 4 ? [20, packet[9]] : [40, packet[6]];
  const payload = packet.subarray(header);
  const [source, destination] =
    family === 4 ? [packet.slice(12, 16), packet.slice(16, 20)] : [packet.slice(8, 24), packet.slice(24, 40)];
  const starts = [0, ...offsets];
  return starts.map((offset, i) => {
    const end = starts[i + 1] ?? payload.length;
    const more = end < payload.length;
    const fields = { protocol: protocol as number, id, offset, more, source, destination };
    return fragment(family, fields, payload.subarray(offset, end));
  });
}

/** Offsets at which a payload of `length` bytes is cut for an MTU. */
export function cutsFor(family: Family, length: number, mtu = 1500): number[] {
  const most = (mtu - (family === 4 ? 20 : 48)) & ~7;
  const offsets: number[] = [];
  for (let offset = most; offset < length; offset += most) offsets.push(offset);
  return offsets;
}
