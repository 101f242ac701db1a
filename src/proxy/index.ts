/** `tunrelay/proxy`: upstreams, their codecs, and the embedded proxy server. */

export { ListenError, type ListenErrorCode, UpstreamError, type UpstreamErrorCode } from "./errors.ts";
export type { NameLookup } from "./server/name-lookup.ts";
export type { ProxyServerOptions, ProxyServerStats, ServerLogger } from "./server/options.ts";
export { ProxyServer } from "./server/server.ts";
export { emitPasswordAuth, socks5Associate, socks5Connect } from "./socks5.ts";
export {
  emitUdpHeader,
  parseUdpHeader,
  Socks5UdpHeader,
  Socks5UdpResult,
  UDP_HEADER_IPV4,
  UDP_HEADER_IPV6,
  udpHeaderLength,
} from "./socks5-udp.ts";
export { type Destination, type Handshake, HandshakeStep, Refusal, type UdpMode, type Upstream } from "./upstream.ts";
export { DIRECT, REJECT, Socks5Upstream, type Socks5UpstreamOptions } from "./upstreams.ts";
export { parseUpstream } from "./url.ts";
