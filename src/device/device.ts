/** The joint between the engine and where packets come from: a TUN device, memory, or a wrapper around either. */
import type { ReceiveBatch, Slab, TransmitQueue } from "../stack/memory/index.ts";

/** What the device does for packets that are written to it. */
export interface Offload {
  /** Completes L4 checksums. */
  readonly checksum: boolean;
  /** Cuts TCP super-segments up to 64 KiB. */
  readonly tso: boolean;
  /** Cuts UDP super-datagrams. */
  readonly uso: boolean;
}

/** A source and sink of raw IP packets. */
export interface Device {
  /** Interface name, or a made-up one where there is no interface. */
  readonly name: string;
  /** One line for people: what it is and what it offers. */
  readonly description: string;
  /** Largest IP packet, bytes. */
  readonly mtu: number;
  readonly offload: Offload;
  /** The descriptor that the poller watches, level-triggered; -1 when there is none. */
  readonly fd: number;
  /** Packets the device refused to take. */
  readonly writeErrors: number;
  /**
   * Gives the device the packet memory to read into and write from. Called once, before `read` and `write`.
   * @param slabId the slab's number in the native addon
   */
  attach(slab: Slab, slabId: number): void;
  /**
   * Empties `batch` and reads as many packets as are there and fit. What was read before must not be used any more,
   * unless its block is retained. Returns how many.
   * @throws DeviceError when the device is gone
   */
  read(batch: ReceiveBatch): number;
  /** Whether the last `read` stopped because the batch or the memory was full, so that more may be waiting. */
  readonly hasMore: boolean;
  /** Writes what `queue` holds, in order. What the device refuses is counted and lost, as packets may be. */
  write(queue: TransmitQueue): void;
  /** Closes the device; a TUN interface that it made goes with it. */
  close(): void;
}
