/** What the UDP relay knows of one client endpoint. */
import type { IpBytes } from "../stack/flow/address.ts";
import { UDP_HEADER_IPV6 } from "./socks5-udp.ts";

/** A datagram that waits for its association. */
export interface Waiting {
  readonly address: IpBytes;
  readonly port: number;
  readonly bytes: Uint8Array;
}

const NO_ADDRESS: IpBytes = new Uint8Array(0);

/** All that is known of one client endpoint. */
export class Association {
  readonly slot: number;
  /** Address words and port of the client, then room for the source of a reply. */
  readonly words: Int32Array;
  readonly clientPort: number;
  /** Handle of the control connection, -1 without one. */
  control = -1;
  /** Handles of the datagram sockets; for SOCKS5 there is one, in the relay's family. */
  ipv4 = -1;
  ipv6 = -1;
  /** Datagrams that wait for the proxy's answer; null once it is in. */
  waiting: Waiting[] | null = [];
  readonly startedAt: number;
  usedAt: number;
  dnsOnly = true;
  /** Datagrams of the inbox for this association, in the turn at hand. */
  readonly batch: number[] = [];
  /** The destination sent to last, and the SOCKS5 header for it. */
  address: IpBytes = NO_ADDRESS;
  readonly to: Int32Array = new Int32Array(4);
  toPort = -1;
  readonly head: Uint8Array = new Uint8Array(UDP_HEADER_IPV6);
  headLength = 0;

  /** Payload bytes sent towards destinations, and brought back. */
  bytesUp = 0;
  bytesDown = 0;
  /** The destination sent to first, for the summary, and whether there were others. */
  firstAddress: IpBytes = NO_ADDRESS;
  firstPort = -1;
  hasOthers = false;

  constructor(slot: number, words: Int32Array, clientPort: number, now: number) {
    this.slot = slot;
    this.words = words;
    this.clientPort = clientPort;
    this.startedAt = now;
    this.usedAt = now;
  }
}
