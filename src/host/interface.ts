/**
 * Interfaces, addresses and routes of this network namespace through rtnetlink. What is set here through a TUN device
 * goes away with it; nothing outlives the process.
 */
import type { Addon } from "../io/addon.ts";
import { formatAddress, type IpBytes, parseAddress } from "../stack/flow/address.ts";
import { HostError, hostError } from "./errors.ts";
import {
  type NetlinkMessage,
  NetlinkRequest,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  parseAttributes,
  readBytes,
  readString,
  readU32,
  sendNetlink,
} from "./netlink.ts";

const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;

const RTM_NEWLINK = 16;
const RTM_GETLINK = 18;
const RTM_NEWADDR = 20;
const RTM_GETADDR = 22;
const RTM_NEWROUTE = 24;
const RTM_GETROUTE = 26;

/** struct ifinfomsg: family u8, pad u8, type u16, index s32, flags u32, change u32. */
const IFINFOMSG_LEN = 16;
const IFI_INDEX = 4;
const IFI_FLAGS = 8;
const IFF_UP = 0x1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_TXQLEN = 13;
const IFLA_NET_NS_PID = 19;
const IFLA_NET_NS_FD = 28;

/** struct ifaddrmsg: family u8, prefix length u8, flags u8, scope u8, index u32. */
const IFADDRMSG_LEN = 8;
const IFA_PREFIXLEN = 1;
const IFA_INDEX = 4;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
/** No duplicate address detection (RFC 4862 §5.4): on a TUN device nobody could answer, and it takes a second. */
const IFA_F_NODAD = 0x02;

/** struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type (u8 each), flags u32. */
const RTMSG_LEN = 12;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_TABLE = 15;
const RTA_MARK = 16;
const RT_TABLE_UNSPEC = 0;
const RT_TABLE_MAIN = 254;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RT_SCOPE_HOST = 254;
const RTN_UNSPEC = 0;
const RTN_UNICAST = 1;
const RTN_UNREACHABLE = 7;
/** The tag of routes that tunrelay made; `ip route show proto 180` lists them. */
const RTPROT_TUNRELAY = 180;

/** Longest interface name (IFNAMSIZ is 16 with its NUL). */
const MAX_NAME_LEN = 15;

/**
 * Packets that a TUN device of our own holds for us. Of 1,000 connections opened while the engine is busy the kernel's
 * default of 500 drops every second SYN, and each waits a second for the next; with this none of 4,000 was dropped. The
 * ring takes 8 bytes a packet; what waits in it is bounded by the send buffers of the sockets.
 */
export const TX_QUEUE_PACKETS = 10_000;

/** An address with the length of its prefix. */
export interface Cidr {
  /** With its host bits. */
  readonly address: IpBytes;
  /** 0..32 or 0..128 */
  readonly prefixLength: number;
}

/** What {@link setLink} changes; what is left out stays. */
export interface LinkChange {
  /** Bytes, 68..65535; below 1280 the kernel takes IPv6 off the interface. */
  readonly mtu?: number;
  readonly up?: boolean;
  /** Packets. */
  readonly txQueueLen?: number;
  /** Moves the interface into the network namespace of this process. */
  readonly netnsPid?: number;
  /** Moves the interface into the network namespace that this descriptor refers to. */
  readonly netnsFd?: number;
}

/** An interface as the kernel sees it now. */
export interface LinkState {
  readonly index: number;
  readonly name: string;
  /** Bytes. */
  readonly mtu: number;
  readonly up: boolean;
  /** Packets. */
  readonly txQueueLen: number;
}

/** One address of an interface. */
export interface InterfaceAddress extends Cidr {
  /** Interface index. */
  readonly index: number;
}

/** What the routing decision of {@link routeDevice} depends on beside the destination. */
export interface RouteQuery {
  /** SO_MARK of the socket. */
  readonly mark?: number;
  /** Interface the socket is bound to (SO_BINDTODEVICE), by name. */
  readonly oif?: string;
}

/** What {@link setUpInterface} does to an interface that exists already. */
export interface InterfaceSetup {
  readonly name: string;
  /** Bytes. */
  readonly mtu: number;
  /** Packets, such as {@link TX_QUEUE_PACKETS} for a device of our own; what is set there stays when it is left out. */
  readonly txQueueLen?: number;
  /** CIDRs such as `198.18.0.1/15` and `fdfe::1/64`; an address without a prefix length stands alone. */
  readonly addresses: readonly string[];
  /** CIDRs such as `0.0.0.0/0`; `default` is both default routes. */
  readonly routes: readonly string[];
}

/**
 * Parses `address/prefixLength`; without a length it is that of a single address.
 * @throws HostError `HOST_INVALID`
 */
export function parseCidr(text: string): Cidr {
  const slash = text.indexOf("/");
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (address === null) {
    throw new HostError(
      "HOST_INVALID",
      `${text} is not an address with a prefix length, such as 10.0.0.1/24 or fd00::1/64`,
    );
  }
  const bits = address.length * 8;
  const suffix = slash < 0 ? `${bits}` : text.slice(slash + 1);
  const prefixLength = /^\d{1,3}$/.test(suffix) ? Number(suffix) : -1;
  if (prefixLength < 0 || prefixLength > bits) {
    throw new HostError("HOST_INVALID", `${text} has prefix length ${suffix}, expected a number from 0 to ${bits}`);
  }
  return { address, prefixLength };
}

/** The first address of the prefix: all host bits zero. */
export function networkAddress(cidr: Cidr): IpBytes {
  return cidr.address.map((byte, i) => {
    const bits = Math.min(8, Math.max(0, cidr.prefixLength - 8 * i));
    return byte & ~(0xff >>> bits);
  });
}

/**
 * Changes an interface.
 * @throws HostError when there is none of this name, rights are missing, or a value is out of range
 */
export function setLink(addon: Addon, name: string, change: LinkChange): void {
  checkName(name);
  const up = change.up === undefined ? 0 : IFF_UP;
  const request = new NetlinkRequest(RTM_NEWLINK, NLM_F_ACK);
  putLinkHeader(request, change.up === true ? IFF_UP : 0, up);
  request.attributeString(IFLA_IFNAME, name);
  if (change.mtu !== undefined) request.attributeU32(IFLA_MTU, change.mtu);
  if (change.txQueueLen !== undefined) request.attributeU32(IFLA_TXQLEN, change.txQueueLen);
  if (change.netnsPid !== undefined) request.attributeU32(IFLA_NET_NS_PID, change.netnsPid);
  if (change.netnsFd !== undefined) request.attributeU32(IFLA_NET_NS_FD, change.netnsFd);
  ask(addon, request, `Cannot set ${describeChange(change)} of interface ${name}`);
}

/**
 * Reads the state of an interface.
 * @throws HostError `HOST_NO_DEVICE` when there is none of this name
 */
export function readLink(addon: Addon, name: string): LinkState {
  checkName(name);
  const request = new NetlinkRequest(RTM_GETLINK, 0);
  putLinkHeader(request, 0, 0);
  request.attributeString(IFLA_IFNAME, name);
  return parseLink(ask(addon, request, `Cannot look up interface ${name}`), name);
}

/**
 * Looks up the index of an interface.
 * @throws HostError `HOST_NO_DEVICE` when there is none of this name
 */
export function linkIndex(addon: Addon, name: string): number {
  return readLink(addon, name).index;
}

/**
 * Adds an address; IPv6 ones are usable at once (no duplicate address detection).
 * @param cidr such as `198.18.0.1/15` or `fdfe::1/64`
 */
export function addAddress(addon: Addon, name: string, cidr: string): void {
  const { address, prefixLength } = parseCidr(cidr);
  const index = linkIndex(addon, name);
  const scope = address.length === 4 && address[0] === 127 ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
  const request = new NetlinkRequest(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  request.u8(familyOf(address)).u8(prefixLength).u8(0).u8(scope).u32(index);
  request.attribute(IFA_LOCAL, address).attribute(IFA_ADDRESS, address);
  if (address.length === 16) request.attributeU32(IFA_FLAGS, IFA_F_NODAD);
  ask(addon, request, `Cannot add address ${cidr} to interface ${name}`);
}

/** Lists the addresses of one interface, or of all. */
export function listAddresses(addon: Addon, name?: string): InterfaceAddress[] {
  const only = name === undefined ? 0 : linkIndex(addon, name);
  const request = new NetlinkRequest(RTM_GETADDR, NLM_F_DUMP);
  request.u8(AF_UNSPEC).u8(0).u8(0).u8(0).u32(0);
  const addresses: InterfaceAddress[] = [];
  for (const message of ask(addon, request, "Cannot list addresses")) {
    if (message.type !== RTM_NEWADDR || message.payload.byteLength < IFADDRMSG_LEN) continue;
    const index = readU32(message.payload, IFA_INDEX);
    const attributes = parseAttributes(message.payload, IFADDRMSG_LEN);
    // On a point-to-point interface IFA_ADDRESS is the other end; IFA_LOCAL is ours where it is there at all.
    const address = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
    if (address === undefined || (only !== 0 && index !== only)) continue;
    addresses.push({ index, address: readBytes(address), prefixLength: message.payload.getUint8(IFA_PREFIXLEN) });
  }
  return addresses;
}

/**
 * Adds a route that leads into an interface.
 * @param cidr destination, such as `0.0.0.0/0`
 * @param table route table, the main one when left out
 */
export function addRoute(addon: Addon, name: string, cidr: string, table: number = RT_TABLE_MAIN): void {
  const destination = parseRoute(cidr);
  const scope = destination.address.length === 4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  const request = newRoute(destination, table, scope, RTN_UNICAST);
  request.attributeU32(RTA_OIF, linkIndex(addon, name));
  ask(addon, request, `Cannot add route ${cidr} through interface ${name}`);
}

/**
 * Adds a route that makes its destinations unreachable: `connect()` fails with EHOSTUNREACH at once. Unlike the routes
 * of an interface it stays until it is removed or the namespace ends.
 */
export function addUnreachableRoute(addon: Addon, cidr: string, table: number = RT_TABLE_MAIN): void {
  const request = newRoute(parseRoute(cidr), table, RT_SCOPE_UNIVERSE, RTN_UNREACHABLE);
  ask(addon, request, `Cannot add unreachable route ${cidr}`);
}

/**
 * Asks the kernel which interface it would use now for packets to `address`.
 * @returns its name, or null where no route leads there
 */
export function routeDevice(addon: Addon, address: IpBytes, query: RouteQuery = {}): string | null {
  const request = new NetlinkRequest(RTM_GETROUTE, 0);
  putRouteHeader(request, familyOf(address), address.length * 8, RT_TABLE_UNSPEC, 0, RT_SCOPE_UNIVERSE, RTN_UNSPEC);
  request.attribute(RTA_DST, address);
  if (query.oif !== undefined) request.attributeU32(RTA_OIF, linkIndex(addon, query.oif));
  if (query.mark !== undefined) request.attributeU32(RTA_MARK, query.mark);
  let messages: readonly NetlinkMessage[];
  try {
    messages = ask(addon, request, `Cannot look up the route to ${formatAddress(address)}`);
  } catch (error) {
    // Besides "no route": unreachable (EHOSTUNREACH), prohibit (EACCES) and blackhole (EINVAL) routes.
    const none = ["ENETUNREACH", "EHOSTUNREACH", "EACCES", "EINVAL", "ENETDOWN"];
    if (error instanceof HostError && error.errno !== null && none.includes(error.errno)) return null;
    throw error;
  }
  const route = messages.find((message) => message.type === RTM_NEWROUTE);
  if (route === undefined) return null;
  const index = readU32(parseAttributes(route.payload, RTMSG_LEN).get(RTA_OIF));
  return index === 0 ? null : linkName(addon, index);
}

/**
 * Sets the MTU and the queue length, brings the interface up, and adds its addresses and routes, in the order that works.
 * @throws HostError at the first step that fails; what was done before stays and goes away with the interface
 */
export function setUpInterface(addon: Addon, setup: InterfaceSetup): void {
  const routes = setup.routes.flatMap((route) => (route === "default" ? ["0.0.0.0/0", "::/0"] : [route]));
  for (const cidr of setup.addresses) parseCidr(cidr);
  for (const cidr of routes) parseRoute(cidr);
  const { mtu, txQueueLen } = setup;
  setLink(addon, setup.name, { mtu, ...(txQueueLen === undefined ? {} : { txQueueLen }) });
  for (const cidr of setup.addresses) addAddress(addon, setup.name, cidr);
  setLink(addon, setup.name, { up: true });
  for (const cidr of routes) addRoute(addon, setup.name, cidr);
}

function linkName(addon: Addon, index: number): string {
  const request = new NetlinkRequest(RTM_GETLINK, 0);
  request.u8(AF_UNSPEC).u8(0).u16(0).u32(index).u32(0).u32(0);
  return parseLink(ask(addon, request, `Cannot look up interface ${index}`), `${index}`).name;
}

function parseLink(messages: readonly NetlinkMessage[], wanted: string): LinkState {
  const message = messages.find(({ type, payload }) => type === RTM_NEWLINK && payload.byteLength >= IFINFOMSG_LEN);
  if (message === undefined) {
    throw new HostError("HOST_NO_DEVICE", `The kernel's answer about interface ${wanted} has no interface in it`);
  }
  const attributes = parseAttributes(message.payload, IFINFOMSG_LEN);
  return {
    index: readU32(message.payload, IFI_INDEX),
    name: readString(attributes.get(IFLA_IFNAME)),
    mtu: readU32(attributes.get(IFLA_MTU)),
    up: (readU32(message.payload, IFI_FLAGS) & IFF_UP) !== 0,
    txQueueLen: readU32(attributes.get(IFLA_TXQLEN)),
  };
}

function parseRoute(cidr: string): Cidr {
  const parsed = parseCidr(cidr);
  const network = networkAddress(parsed);
  if (network.some((byte, i) => byte !== parsed.address[i])) {
    const meant = `${formatAddress(network)}/${parsed.prefixLength}`;
    throw new HostError("HOST_INVALID", `Route ${cidr} has bits set after its prefix; did you mean ${meant}`);
  }
  return parsed;
}

function newRoute(destination: Cidr, table: number, scope: number, type: number): NetlinkRequest {
  const request = new NetlinkRequest(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  const family = familyOf(destination.address);
  // Tables above 255 only fit into the attribute.
  const shortTable = table > 255 ? RT_TABLE_UNSPEC : table;
  putRouteHeader(request, family, destination.prefixLength, shortTable, RTPROT_TUNRELAY, scope, type);
  if (destination.prefixLength > 0) request.attribute(RTA_DST, destination.address);
  return request.attributeU32(RTA_TABLE, table);
}

function putLinkHeader(request: NetlinkRequest, flags: number, changeMask: number): void {
  request.u8(AF_UNSPEC).u8(0).u16(0).u32(0).u32(flags).u32(changeMask);
}

function putRouteHeader(
  request: NetlinkRequest,
  family: number,
  dstLen: number,
  table: number,
  protocol: number,
  scope: number,
  type: number,
): void {
  request.u8(family).u8(dstLen).u8(0).u8(0).u8(table).u8(protocol).u8(scope).u8(type).u32(0);
}

function ask(addon: Addon, request: NetlinkRequest, what: string): readonly NetlinkMessage[] {
  const reply = sendNetlink(addon, request);
  if ("messages" in reply) return reply.messages;
  throw hostError(what, reply.errno);
}

function familyOf(address: IpBytes): number {
  return address.length === 4 ? AF_INET : AF_INET6;
}

function checkName(name: string): void {
  // dev_valid_name() of Linux: 1 to 15 bytes, no slash, colon or space, not . or ..
  const valid = /^[!-.0-9;-~]+$/.test(name) && name.length <= MAX_NAME_LEN && name !== "." && name !== "..";
  if (valid) return;
  throw new HostError(
    "HOST_INVALID",
    `Interface name ${JSON.stringify(name)} is not usable, expected 1 to ${MAX_NAME_LEN} ASCII characters without space, / or :`,
  );
}

function describeChange(change: LinkChange): string {
  const parts: string[] = [];
  if (change.mtu !== undefined) parts.push(`MTU ${change.mtu}`);
  if (change.txQueueLen !== undefined) parts.push(`queue length ${change.txQueueLen}`);
  if (change.up !== undefined) parts.push(change.up ? "state up" : "state down");
  if (change.netnsPid !== undefined) parts.push(`the network namespace (of process ${change.netnsPid})`);
  if (change.netnsFd !== undefined) parts.push("the network namespace");
  return parts.join(" and ");
}
