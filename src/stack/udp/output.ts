/** Datagrams to clients (RFC 768). */
import { DatagramResult } from "../flow/flow.ts";
import { FragmentsResult, finishInFragments, firstFragmentBody } from "../ip/fragmentation.ts";
import type { IpOutput } from "../ip/output.ts";
import { wordsSum } from "../ip/output.ts";
import { pathMtuFloor } from "../ip/path-mtu.ts";
import { isMapped, Protocol } from "../wire/ip.ts";
import { emitUdp, UDP_CHECKSUM, UDP_HEADER_LEN } from "../wire/udp.ts";

/** What the length field of UDP, or of IPv4, can say. */
const MAX_LENGTH = 65_535;

/**
 * Queues a datagram of `length` bytes at slab `offset`, by reference; in fragments when it is larger than what the
 * device, or the way to the client, takes.
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
  now: number,
): DatagramResult {
  const { queue, slab } = output;
  const isIpv4 = isMapped(words[remote] as number, words[remote + 1] as number, words[remote + 2] as number);
  const ipLength = output.headerLength(isIpv4);
  const udpLength = UDP_HEADER_LEN + length;
  if (udpLength > (isIpv4 ? MAX_LENGTH - ipLength : MAX_LENGTH)) return DatagramResult.tooBig;
  if (ipLength + udpLength > pathMtuFloor(isIpv4)) {
    output.pathMtus.noteSent(Protocol.udp, words, local, remote, (localPort << 16) | remotePort);
  }
  const mtu = output.pathMtus.to(words, remote, output.mtu, now);
  if (ipLength + udpLength > mtu) {
    if (!queue.hasRoom()) return DatagramResult.full;
    emitUdp(slab, firstFragmentBody(output, isIpv4), localPort, remotePort, udpLength);
    const result = finishInFragments(
      output,
      isIpv4,
      Protocol.udp,
      UDP_CHECKSUM,
      words,
      local,
      remote,
      offset,
      length,
      mtu,
    );
    if (result === FragmentsResult.sent) return DatagramResult.sent;
    return result === FragmentsResult.full ? DatagramResult.full : DatagramResult.tooBig;
  }
  if (!queue.hasRoom()) return DatagramResult.full;
  const at = queue.begin();
  const l4 = at + ipLength;
  emitUdp(slab, l4, localPort, remotePort, udpLength);
  output.writeHeader(at, isIpv4, Protocol.udp, udpLength, words, local, remote);
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
