/** `tunrelay/stack`: the protocol stack, without any I/O. */
export { type Endpoint, formatAddress, formatEndpoint, type IpBytes, parseAddress } from "./flow/address.ts";
export type { OutputOffload } from "./ip/output.ts";
export { Slab } from "./memory/slab.ts";
export { Stack, type StackOptions, type StackStats } from "./stack.ts";
export type { RejectReason, TcpConnection, TcpInfo } from "./tcp/connection.ts";
export type { FlowTuple, TcpOptions } from "./tcp/options.ts";
export type { StateName } from "./tcp/state.ts";
export { type FlowErrorCode, Ready } from "./tcp/tcb.ts";
export { DatagramResult } from "./udp/output.ts";
export { Unreachable } from "./wire/icmp.ts";
