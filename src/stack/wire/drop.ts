/** Why a packet was not processed. Each reason is a named counter; malformed input is normal and never an exception. */
export const Drop = {
  none: 0,
  ipTruncated: 1,
  ipVersion: 2,
  ipHeaderLength: 3,
  ipTotalLength: 4,
  ipChecksum: 5,
  ipFragment: 6,
  ipSourceRoute: 7,
  ipMartianSource: 8,
  ipDestination: 9,
  ipHopLimit: 10,
  ipExtensionHeader: 11,
  ipProtocol: 12,
  tcpTruncated: 13,
  tcpDataOffset: 14,
  tcpChecksum: 15,
  tcpPort: 16,
  tcpFlags: 17,
  tcpDestination: 18,
  tcpNoFlow: 19,
  tcpFlowLimit: 20,
  tcpUnacceptable: 21,
  tcpMemory: 22,
  udpTruncated: 23,
  udpLength: 24,
  udpChecksum: 25,
  udpPort: 26,
  udpQueueFull: 27,
  icmpTruncated: 28,
  icmpChecksum: 29,
  icmpType: 30,
  icmpRateLimit: 31,
  transmitQueueFull: 32,
  closed: 33,
  tcpSourceLimit: 34,
  tcpHalfOpenLimit: 35,
  /** An IPv6 option whose type says that a packet with it is not for who does not know it. */
  ipOption: 36,
  ipRoutingHeader: 37,
  ipNoNextHeader: 38,
  ipFragmentOverlap: 39,
  ipFragmentTooLarge: 40,
  /** No room for a fragment, or a datagram given up for newer ones. */
  ipFragmentLimit: 41,
  /** A datagram whose fragments did not all come in time. */
  ipFragmentTimeout: 42,
  /** An ICMP error about nothing that was sent, or one that changes nothing. */
  icmpIgnored: 43,
} as const;
export type Drop = (typeof Drop)[keyof typeof Drop];

/** Names of the reasons, in the order of their numbers. */
export const DROP_NAMES: readonly string[] = Object.keys(Drop);
