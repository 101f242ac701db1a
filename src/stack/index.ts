/** `tunrelay/stack`: the protocol stack, without any I/O. */
export { type Endpoint, formatAddress, formatEndpoint, type IpBytes, parseAddress } from "./flow/address.ts";
export { DatagramResult, type FlowErrorCode, Ready, type RejectReason, type TcpFlow } from "./flow/flow.ts";
export type { OutputOffload } from "./ip/output.ts";
export { Slab } from "./memory/slab.ts";
export { Stack, type StackOptions, type StackStats } from "./stack.ts";
export type { TcpConnection, TcpInfo } from "./tcp/connection.ts";
export type { FlowTuple, TcpOptions } from "./tcp/options.ts";
export type { RefusedCounts } from "./tcp/refused.ts";
export type { StateName } from "./tcp/state.ts";
