/**
 * Makes a TUN device of no use and tries what the relay does with one. The device goes away when its descriptor is
 * closed, which the end of the process does in any case.
 */
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { type Addon, Errno, errnoName, TunFlag, TunOffload } from "../../io/addon.ts";
import { HostError } from "../errors.ts";
import { addAddress, addRoute, readLink, setLink, TX_QUEUE_PACKETS } from "../interface.ts";

/** Of benchmarking networks (RFC 2544 appendix C.2.2), which no other network uses. */
const OWN = "198.18.0.1";
const PEER = "198.18.0.2";
/** A unique local prefix (RFC 4193). */
const OWN_IPV6 = "fdfe:dcba:9876::1/64";
const DISCARD_PORT = 9;
/** A name that no rule for devices such as `tun*` matches. */
const NAME = "tunrelay%d";

const MTU = 1500;
const VNET_HEADER = 10;
const NAME_BYTES = 16;
/** Layout of the memory that is shared with the addon, bytes. */
const DESCRIPTOR_AT = 16;
const META_AT = 64;
const PACKETS_AT = 1024;
const MEMORY_BYTES = 256 * 1024;
/** Room for one read: the largest packet and its header. */
const READ_ROOM = 65_536 + 64;
/** IPv4 (RFC 791 §3.1) and UDP (RFC 768), offsets. */
const IP_PROTOCOL = 9;
const IP_SOURCE = 12;
const IP_DESTINATION = 16;
const UDP = 17;
/** How long a datagram may take there and back, in steps, ms. */
const STEP_MS = 10;
const STEPS = 300;

const TSO = TunOffload.CSUM | TunOffload.TSO4 | TunOffload.TSO6;
const USO = TunOffload.USO4 | TunOffload.USO6;

/** What the device could do. Errors are names such as `EPERM`, or a line; null is success. */
export interface DeviceTrial {
  /** Why there is no device; nothing else was tried then. */
  readonly open: string | null;
  /** Whether it was in a namespace of its own, where addresses and packets could be tried. */
  readonly apart: boolean;
  /** With headers that name offloads (IFF_VNET_HDR). */
  readonly vnetHeader: boolean;
  readonly checksum: boolean;
  readonly tso: boolean;
  readonly uso: boolean;
  /** Length of the transmit queue that was asked for and that the device got, packets, or the error. */
  readonly queueWanted: number;
  readonly queue: number | string;
  /** The first step of the IPv4 set-up that failed, and the IPv6 one; null also when not apart. */
  readonly ipv4: string | null;
  readonly ipv6: string | null;
  /** Why a datagram did not come through the device and back. */
  readonly packets: string | null;
}

/** What is known when there is no device. */
export function failedTrial(open: string): DeviceTrial {
  const none = { vnetHeader: false, checksum: false, tso: false, uso: false };
  const errors = { ipv4: null, ipv6: null, packets: null };
  return { open, apart: false, ...none, queueWanted: TX_QUEUE_PACKETS, queue: 0, ...errors };
}

/**
 * Makes the device, tries it, takes it away.
 * @param apart whether this network namespace is of no use to others, so that addresses may be set
 */
export async function tryDevice(addon: Addon, apart: boolean): Promise<DeviceTrial> {
  const memory = new ArrayBuffer(MEMORY_BYTES);
  const slab = addon.registerSlab(memory);
  if (slab < 0) return failedTrial(errnoName(slab));
  const bytes = Buffer.from(memory);
  bytes.write(NAME);
  const plain = TunFlag.TUN | TunFlag.NO_PI;
  let vnetHeader = true;
  let fd = addon.tunOpen(slab, 0, plain | TunFlag.VNET_HDR);
  if (fd === -Errno.EINVAL) {
    vnetHeader = false;
    fd = addon.tunOpen(slab, 0, plain);
  }
  if (fd < 0) return failedTrial(errnoName(fd));
  const name = bytes.toString("latin1", 0, bytes.subarray(0, NAME_BYTES).indexOf(0));
  try {
    if (vnetHeader) vnetHeader = addon.tunSetVnetHdrSize(fd, VNET_HEADER) === 0;
    const takes = (flags: number): boolean => vnetHeader && addon.tunSetOffload(fd, flags) === 0;
    // The last one that is taken stays set.
    const checksum = takes(TunOffload.CSUM);
    const tso = checksum && takes(TSO);
    const uso = tso && takes(TSO | USO);
    const queue = tryQueue(addon, name);
    const offload = { vnetHeader, checksum, tso, uso };
    const found = { open: null, apart, ...offload, queueWanted: TX_QUEUE_PACKETS, queue };
    if (!apart) return { ...found, ipv4: null, ipv6: null, packets: null };
    const ipv4 = errorOf(() => {
      setLink(addon, name, { mtu: MTU });
      addAddress(addon, name, `${OWN}/15`);
      setLink(addon, name, { up: true });
      addRoute(addon, name, "0.0.0.0/0");
    });
    const ipv6 = errorOf(() => {
      addAddress(addon, name, OWN_IPV6);
      addRoute(addon, name, "::/0");
    });
    const packets =
      ipv4 === null ? await tryPackets(addon, { fd, slab, bytes, header: vnetHeader ? VNET_HEADER : 0 }) : null;
    return { ...found, ipv4, ipv6, packets };
  } finally {
    addon.close(fd);
    addon.unregisterSlab(slab);
  }
}

function tryQueue(addon: Addon, name: string): number | string {
  let length = 0;
  const error = errorOf(() => {
    setLink(addon, name, { txQueueLen: TX_QUEUE_PACKETS });
    length = readLink(addon, name).txQueueLen;
  });
  return error ?? length;
}

interface OpenDevice {
  readonly fd: number;
  readonly slab: number;
  readonly bytes: Buffer;
  /** Length of the header in front of each packet, bytes. */
  readonly header: number;
}

/** Sends a datagram into the device, turns it round there, and waits for it. */
async function tryPackets(addon: Addon, device: OpenDevice): Promise<string | null> {
  const socket = createSocket("udp4");
  const text = "tunrelay doctor";
  let answer: string | null = null;
  try {
    socket.on("message", (message) => {
      answer = message.toString();
    });
    await sendTo(socket, text);
    let returned = false;
    for (let step = 0; step < STEPS && answer === null; step++) {
      if (!returned) {
        const result = turnRound(addon, device);
        if (typeof result === "string") return result;
        returned = result;
      }
      await pause(STEP_MS);
    }
    if (!returned) return "a datagram that was routed into the device did not arrive there";
    if (answer === null) return "a datagram that was written to the device did not arrive at its socket";
    return answer === text ? null : "a datagram came back with other content";
  } catch (error) {
    return `a datagram could not be sent (${error instanceof Error ? error.message : error})`;
  } finally {
    socket.close();
  }
}

async function sendTo(socket: Socket, text: string): Promise<void> {
  socket.bind(0, OWN);
  await once(socket, "listening");
  await new Promise<void>((resolve, reject) => {
    socket.send(text, DISCARD_PORT, PEER, (error) => (error === null ? resolve() : reject(error)));
  });
}

/** Reads what is there; writes our datagram back with its two ends exchanged, which leaves the checksums as they are. */
function turnRound(addon: Addon, { fd, slab, bytes, header }: OpenDevice): boolean | string {
  const max = 8;
  const count = addon.tunRead(fd, slab, PACKETS_AT, MEMORY_BYTES, READ_ROOM, META_AT, max);
  if (count < 0) return `the device cannot be read (${errnoName(count)})`;
  const words = new Int32Array(bytes.buffer, 0, PACKETS_AT / 4);
  for (let i = 0; i < count; i++) {
    const at = words[META_AT / 4 + 2 * i] as number;
    const length = words[META_AT / 4 + 2 * i + 1] as number;
    const packet = bytes.subarray(at + header, at + length);
    if ((packet[0] ?? 0) >>> 4 !== 4 || packet[IP_PROTOCOL] !== UDP) continue;
    const udp = ((packet[0] as number) & 0xf) * 4;
    if (packet.length < udp + 8 || packet.readUInt16BE(udp + 2) !== DISCARD_PORT) continue;
    exchange(packet, IP_SOURCE, IP_DESTINATION, 4);
    exchange(packet, udp, udp + 2, 2);
    words.set([1, at, length], DESCRIPTOR_AT / 4);
    const written = addon.tunWrite(fd, slab, DESCRIPTOR_AT, 12, 1);
    return written === 1 ? true : `the device cannot be written (${errnoName(written)})`;
  }
  return false;
}

function exchange(packet: Buffer, a: number, b: number, length: number): void {
  const kept = Buffer.from(packet.subarray(a, a + length));
  packet.copy(packet, a, b, b + length);
  kept.copy(packet, b);
}

function errorOf(step: () => void): string | null {
  try {
    step();
    return null;
  } catch (error) {
    if (error instanceof HostError) return error.errno ?? error.message;
    throw error;
  }
}
