/** `tunrelay/proxy`: upstreams, their codecs, and the embedded proxy server. */

export { ChainUpstream } from "./chain.ts";
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
export {
  DIRECT,
  HttpUpstream,
  type HttpUpstreamOptions,
  type ProxyUpstreamOptions,
  REJECT,
  Socks5Upstream,
  SocksPackageUpstream,
  type SocksPackageUpstreamOptions,
} from "./upstreams.ts";
export { parseUpstream, type UpstreamOptions, type UpstreamTlsOptions } from "./url.ts";
