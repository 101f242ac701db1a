/** The datagram half of a `Sockets`; handles are shared with its streams. */
import type { IpBytes } from "../stack/flow/address.ts";
import type { Sender } from "./sockets.ts";

export interface Datagrams {
  readonly sender: Sender;
  /** Whether the last `receive` left input waiting for want of memory. */
  readonly waitsForMemory: boolean;
  /** Whether sockets are left with input waiting. */
  readonly hasReadable: boolean;
  /** Opens a socket; with an `address` it sends to and receives from that one only. @returns a handle, or -errno */
  open(family: 4 | 6, address: IpBytes | null, port: number): number;
  /** The poller says that a socket has input or an error. */
  onReady(handle: number): void;
  /** Reads what is there, within limits of one turn. */
  receive(): void;
  /** Queues a datagram; `flush` must have been called when there is no room for its head. @returns false then */
  send(
    handle: number,
    address: IpBytes | null,
    port: number,
    head: Uint8Array | null,
    headLength: number,
    offset: number,
    length: number,
  ): boolean;
  /** Sends what is queued. */
  flush(): void;
  /** Closes a socket; what is queued for it leaves first. The handle is void afterwards. */
  close(handle: number): void;
  /** Gives all memory back; the sockets are closed already. */
  closeAll(): void;
}
