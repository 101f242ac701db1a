/** Datagrams to clients (RFC 768). */
import { DatagramResult } from "../flow/flow.ts";
import type { IpOutput } from "../ip/output.ts";
import { wordsSum } from "../ip/output.ts";
import { isMapped, Protocol } from "../wire/ip.ts";
import { emitUdp, UDP_CHECKSUM, UDP_HEADER_LEN } from "../wire/udp.ts";

/**
 * Queues a datagram of `length` bytes at slab `offset`, by reference.
 * @param words address words: `local` (the source the client sees) and `remote` (the client)
 */
export function sendDatagram(
  output: IpOutput,
  words: Int32Array,
  local: number,
  localPort: number,
  remote: number,
  remotePort: number,
  offset: number,
  length: number,
): DatagramResult {
  const { queue, slab } = output;
  const isIpv4 = isMapped(words[remote] as number, words[remote + 1] as number, words[remote + 2] as number);
  const ipLength = output.headerLength(isIpv4);
  if (ipLength + UDP_HEADER_LEN + length > output.mtu) return DatagramResult.tooBig;
  if (!queue.hasRoom()) return DatagramResult.full;
  const at = queue.begin();
  const l4 = at + ipLength;
  emitUdp(slab, l4, localPort, remotePort, UDP_HEADER_LEN + length);
  output.writeHeader(at, isIpv4, Protocol.udp, UDP_HEADER_LEN + length, words, local, remote);
  if (length > 0) queue.addPayload(offset, length);
  output.finish(
    at,
    l4,
    l4 + UDP_HEADER_LEN,
    UDP_HEADER_LEN,
    length,
    0,
    Protocol.udp,
    UDP_CHECKSUM,
    wordsSum(words, local) + wordsSum(words, remote),
  );
  return DatagramResult.sent;
}
