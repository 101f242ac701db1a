/**
 * The Linux TUN device with offloads: super-segments and unfinished checksums travel in both directions behind a
 * 10-byte virtio-net header in front of each packet.
 *
 * ```
 *  | flags | gso type | header len | gso size | csum start | csum offset |  IP packet ...
 *     u8       u8          u16         u16         u16           u16          host order
 * ```
 */
import { type Addon, Errno, errnoName, TunFlag, TunOffload } from "../io/addon.ts";
import {
  BATCH_PACKETS,
  ChecksumState,
  InputBlock,
  type ReceiveBatch,
  type Slab,
  type TransmitQueue,
} from "../stack/memory/index.ts";
import type { Device, Offload } from "./device.ts";
import { DeviceError } from "./errors.ts";

const VNET_HEADER = 10;
const GSO_TYPE = 1;
const HEADER_LENGTH = 2;
const GSO_SIZE = 4;
const CSUM_START = 6;
const CSUM_OFFSET = 8;

const FLAG_NEEDS_CSUM = 1;
const FLAG_DATA_VALID = 2;
const GSO_TCPV4 = 1;
const GSO_TCPV6 = 4;
const GSO_UDP_L4 = 5;
/** The ECN flag may stand in the type. */
const GSO_TYPE_MASK = 0x7f;
const TCP_CHECKSUM_OFFSET = 16;

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
/** Room a read needs when super-packets may come: header, the largest IPv4 packet or IPv6 payload, alignment. */
const SUPER_ROOM = VNET_HEADER + 65_535 + 40 + 16;
const NAME_BYTES = 16;
/** Of the interface's flags: it was made to stay (`ip tuntap add`), so others made it. linux/if_tun.h. */
const IFF_PERSIST = 0x800;

const TSO = TunOffload.CSUM | TunOffload.TSO4 | TunOffload.TSO6;
const USO = TunOffload.USO4 | TunOffload.USO6;

/** How much the device may do for us; `auto` takes all that the kernel has, step by step. */
export type OffloadLevel = "auto" | "tso" | "checksum" | "none";
const LEVELS: Readonly<Record<OffloadLevel, readonly number[]>> = {
  auto: [TSO | USO, TSO, TunOffload.CSUM, 0],
  tso: [TSO, TunOffload.CSUM, 0],
  checksum: [TunOffload.CSUM, 0],
  none: [],
};

export interface TunOptions {
  /** Interface name, at most 15 bytes; `tun%d` or empty lets the kernel choose. */
  readonly name: string;
  /** Largest IP packet; the interface itself is set up by the host's tools. Default 1500. */
  readonly mtu?: number;
  readonly offload?: OffloadLevel;
}

/**
 * Opens a TUN device and negotiates offloads.
 * @throws DeviceError
 */
export function openTun(addon: Addon, options: TunOptions): TunDevice {
  const { name, mtu = 1500, offload = "auto" } = options;
  if (Buffer.byteLength(name) >= NAME_BYTES || /[/\s:]/.test(name)) {
    throw new DeviceError(
      "DEVICE_NAME",
      `Device name "${name}" cannot be used: an interface name has at most 15 bytes and no space, "/" or ":"`,
    );
  }
  const control = new ArrayBuffer(64);
  const slabId = addon.registerSlab(control);
  if (slabId < 0) throw new DeviceError("DEVICE_FAILED", `Cannot share memory with the addon: ${errnoName(slabId)}`);
  try {
    return negotiate(addon, slabId, control, name, mtu, offload);
  } finally {
    addon.unregisterSlab(slabId);
  }
}

function negotiate(
  addon: Addon,
  slabId: number,
  control: ArrayBuffer,
  name: string,
  mtu: number,
  level: OffloadLevel,
): TunDevice {
  const nameBytes = new Uint8Array(control, 0, NAME_BYTES);
  nameBytes.set(Buffer.from(name));
  const plain = TunFlag.TUN | TunFlag.NO_PI;
  let vnet = level !== "none";
  let fd = addon.tunOpen(slabId, 0, vnet ? plain | TunFlag.VNET_HDR : plain);
  if (fd === -Errno.EINVAL && vnet) {
    // A kernel without virtio-net headers, or an interface made without them.
    vnet = false;
    fd = addon.tunOpen(slabId, 0, plain);
  }
  if (fd < 0) throw openError(name, -fd);
  const actual = Buffer.from(nameBytes.subarray(0, nameBytes.indexOf(0))).toString();
  let granted = 0;
  if (vnet) {
    const sized = addon.tunSetVnetHdrSize(fd, VNET_HEADER);
    if (sized < 0) {
      addon.close(fd);
      throw new DeviceError("DEVICE_FAILED", `Cannot set the header size of ${actual}: ${errnoName(sized)}`);
    }
    granted = LEVELS[level].find((flags) => addon.tunSetOffload(fd, flags) === 0) ?? 0;
  }
  const flags = addon.tunGetIff(fd, slabId, 0);
  const persistent = flags > 0 && (flags & IFF_PERSIST) !== 0;
  return new TunDevice(addon, fd, actual, mtu, vnet, granted, persistent);
}

function openError(name: string, errno: number): DeviceError {
  switch (errno) {
    case Errno.ENOENT:
    case Errno.ENODEV:
    case Errno.ENXIO:
      return new DeviceError(
        "DEVICE_MISSING",
        `Cannot open /dev/net/tun: ${errnoName(-errno)}; load the module with "modprobe tun", or give the container the device (--device /dev/net/tun)`,
      );
    case Errno.EPERM:
    case Errno.EACCES:
      return new DeviceError(
        "DEVICE_DENIED",
        `Cannot make TUN device "${name}": ${errnoName(-errno)}; run as root or with CAP_NET_ADMIN and read-write access to /dev/net/tun`,
      );
    case Errno.EBUSY:
      return new DeviceError(
        "DEVICE_BUSY",
        `Device "${name}" is in use by another program; stop it or choose another name with --device`,
      );
    case Errno.EINVAL:
      return new DeviceError(
        "DEVICE_NAME",
        `Device name "${name}" was refused by the kernel (EINVAL): the name is not valid, or an interface of another kind has it`,
      );
    default:
      return new DeviceError(
        "DEVICE_FAILED",
        `Cannot make TUN device "${name}": ${errnoName(-errno)}; "tunrelay doctor" looks for the cause`,
      );
  }
}

/** An open TUN device. */
export class TunDevice implements Device {
  readonly name: string;
  readonly mtu: number;
  readonly offload: Offload;
  readonly fd: number;
  readonly description: string;
  /** Whether others made the interface, to stay: its settings are theirs. */
  readonly persistent: boolean;
  hasMore = false;
  writeErrors = 0;
  readonly #addon: Addon;
  readonly #vnet: boolean;
  readonly #room: number;
  #slab: Slab | null = null;
  #slabId = -1;
  #input: InputBlock | null = null;
  #meta = -1;
  #closed = false;

  /** @internal Made by `openTun`. */
  constructor(
    addon: Addon,
    fd: number,
    name: string,
    mtu: number,
    vnet: boolean,
    granted: number,
    persistent: boolean,
  ) {
    this.#addon = addon;
    this.fd = fd;
    this.name = name;
    this.mtu = mtu;
    this.persistent = persistent;
    this.#vnet = vnet;
    // What TUNSETOFFLOAD grants governs reads; writes may use segmentation and checksums whenever there is the header.
    this.offload = { checksum: vnet, tso: vnet, uso: (granted & USO) !== 0 };
    this.#room = (granted & TSO) > TunOffload.CSUM ? SUPER_ROOM : VNET_HEADER + mtu + 64;
    const offers = [
      ...((granted & TunOffload.TSO4) !== 0 ? ["tso"] : []),
      ...((granted & USO) !== 0 ? ["uso"] : []),
      ...((granted & TunOffload.CSUM) !== 0 ? ["checksum"] : []),
    ];
    this.description = `${name} (linux tun, offloads ${offers.length > 0 ? offers.join("+") : "none"}, mtu ${mtu})`;
  }

  attach(slab: Slab, slabId: number): void {
    this.#slab = slab;
    this.#slabId = slabId;
    this.#input = new InputBlock(slab, 0);
    this.#meta = slab.take();
    if (this.#meta < 0) throw new RangeError("slab is too small for a device");
  }

  read(batch: ReceiveBatch): number {
    batch.clear();
    this.hasMore = false;
    const slab = this.#slab;
    const input = this.#input;
    if (slab === null || input === null) return 0;
    if (!input.prepare(this.#room)) {
      this.hasMore = true;
      return 0;
    }
    // The IP header is to stand on a multiple of 4.
    const from = this.#vnet ? input.position + 2 : input.position;
    const count = this.#addon.tunRead(this.fd, this.#slabId, from, input.limit, this.#room, this.#meta, BATCH_PACKETS);
    if (count < 0) throw this.#gone(count);
    const words = slab.words;
    const at = this.#meta >> 2;
    for (let i = 0; i < count; i++) {
      const start = words[at + 2 * i] as number;
      const end = start + (words[at + 2 * i + 1] as number);
      if (this.#vnet) this.#push(batch, slab, start, end);
      else batch.push(start, end, ChecksumState.unverified, 0);
      if (i === count - 1) input.advanceTo(end);
    }
    this.hasMore = count === BATCH_PACKETS || (count > 0 && input.limit - input.position < this.#room + 8);
    return batch.count;
  }

  #gone(error: number): DeviceError {
    return new DeviceError(
      "DEVICE_GONE",
      `Device ${this.name} is gone (${errnoName(error)}): the interface was deleted or taken away`,
    );
  }

  #push(batch: ReceiveBatch, slab: Slab, start: number, end: number): void {
    const { view } = slab;
    if (end - start < VNET_HEADER) return;
    const flags = view.getUint8(start);
    const type = view.getUint8(start + GSO_TYPE) & GSO_TYPE_MASK;
    const trusted = (flags & (FLAG_NEEDS_CSUM | FLAG_DATA_VALID)) !== 0;
    batch.push(
      start + VNET_HEADER,
      end,
      trusted ? ChecksumState.trusted : ChecksumState.unverified,
      type === 0 ? 0 : view.getUint16(start + GSO_SIZE, LITTLE_ENDIAN),
    );
  }

  write(queue: TransmitQueue): void {
    if (this.#vnet) this.#addHeaders(queue);
    const end = queue.descriptorOffset + queue.descriptorBytes;
    let done = 0;
    while (done < queue.count) {
      const from = (queue.descriptor[done] as number) << 2;
      const written = this.#addon.tunWrite(this.fd, this.#slabId, from, end - from, queue.count - done);
      if (written > 0) {
        done += written;
        continue;
      }
      if (written === -Errno.EBADFD || written === -Errno.EBADF) throw this.#gone(written);
      // The packet is lost: refused by the kernel, or its queue is full.
      this.writeErrors++;
      done++;
    }
  }

  /** Puts the virtio-net header in front of each packet, into the room that the queue leaves. */
  #addHeaders(queue: TransmitQueue): void {
    const { words, view } = queue.slab;
    for (let i = 0; i < queue.count; i++) {
      const piece = (queue.descriptor[i] as number) + 1;
      const ip = words[piece] as number;
      const at = ip - VNET_HEADER;
      words[piece] = at;
      words[piece + 1] = (words[piece + 1] as number) + VNET_HEADER;
      const checksumStart = queue.checksumStart[i] as number;
      const checksumOffset = queue.checksumOffset[i] as number;
      const segmentSize = queue.segmentSize[i] as number;
      view.setUint8(at, checksumStart > 0 ? FLAG_NEEDS_CSUM : 0);
      view.setUint8(at + GSO_TYPE, segmentSize === 0 ? 0 : gsoType(view.getUint8(ip) >>> 4, checksumOffset));
      view.setUint16(at + HEADER_LENGTH, segmentSize === 0 ? 0 : (queue.headerLength[i] as number), LITTLE_ENDIAN);
      view.setUint16(at + GSO_SIZE, segmentSize, LITTLE_ENDIAN);
      view.setUint16(at + CSUM_START, checksumStart, LITTLE_ENDIAN);
      view.setUint16(at + CSUM_OFFSET, checksumOffset, LITTLE_ENDIAN);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#addon.close(this.fd);
    this.#input?.close();
    if (this.#meta >= 0) this.#slab?.release(this.#meta);
  }
}

function gsoType(version: number, checksumOffset: number): number {
  if (checksumOffset !== TCP_CHECKSUM_OFFSET) return GSO_UDP_L4;
  return version === 4 ? GSO_TCPV4 : GSO_TCPV6;
}
