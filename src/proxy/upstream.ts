/**
 * The joint between flows and the ways out: what an upstream is, how its handshake is driven, and how a failure is told.
 * Nothing here owns a socket: the relay connects, feeds bytes in, and sends what comes out.
 */
import type { TlsSettings } from "../io/tls-settings.ts";
import type { IpBytes } from "../stack/flow/address.ts";

/** Where a flow wants to go: an address, or a name once names are known. */
export interface Destination {
  /** 4 or 16 bytes, or a host name (at most 255 bytes in ASCII). */
  readonly host: IpBytes | string;
  readonly port: number;
}

/**
 * Why a flow could not be opened, as the upstream told it. DESIGN: the relay answers each with what makes the client's
 * `connect()` fail in the same way.
 */
export const Refusal = {
  /** RST: connection refused. */
  refused: "refused",
  /** ICMP host unreachable. */
  hostUnreachable: "host-unreachable",
  /** ICMP network unreachable. */
  netUnreachable: "net-unreachable",
  /** ICMP administratively prohibited. */
  prohibited: "prohibited",
  /** RST: the upstream said no in a way that says nothing about the target, or closed. */
  failed: "failed",
  /** RST and a log line: the proxy itself is the trouble (down, wrong password, not a proxy, timeout). */
  proxyFault: "proxy-fault",
} as const;
export type Refusal = (typeof Refusal)[keyof typeof Refusal];

/** What a call of `Handshake.receive` led to. */
export const HandshakeStep = {
  /** More bytes are needed. */
  more: 0,
  /** `out` holds bytes to send now; then wait for more. */
  send: 1,
  /** The way is open; `consumed` bytes of the last input belonged to the handshake, the rest is payload. */
  done: 2,
  /** `refusal` and `reason` say why not. */
  failed: 3,
  /**
   * The same flow is to be dialled again, with a new handshake, on a new connection: the proxy has named what it wants
   * (a challenge of HTTP authentication) and closes this one. At most once a flow; then `refusal` and `reason` count.
   */
  again: 4,
} as const;
export type HandshakeStep = (typeof HandshakeStep)[keyof typeof HandshakeStep];

/** The client's half of a proxy handshake over a byte stream: bytes in, bytes and a result out. One per connection. */
export interface Handshake {
  /** Bytes to send as soon as the connection stands; may be empty when the upstream needs no handshake. */
  start(): Uint8Array;
  /**
   * Takes the next bytes of the stream, `bytes[start, end)`; they stay the caller's and are copied when kept.
   * After `done` or `failed` it is not called again.
   */
  receive(bytes: Uint8Array, start: number, end: number): HandshakeStep;
  /** After `send`: what to send. */
  readonly out: Uint8Array;
  /** After `done`: how many bytes of the last input were part of the handshake. */
  readonly consumed: number;
  /** After `failed`. */
  readonly refusal: Refusal;
  /** After `failed`: one sentence for the log, without secrets. */
  readonly reason: string;
  /** After `done` of UDP ASSOCIATE (RFC 1928 §6): BND.ADDR and BND.PORT as the proxy sent them, else null. */
  readonly bound: Destination | null;
}

/** How datagrams travel: one UDP ASSOCIATE a client endpoint, straight from a socket here, or not at all. */
export type UdpMode = "associate" | "direct" | "none";

/** Where a proxy listens: host and port, or the path of a Unix socket (abstract when it begins with `@`). */
export type ProxyServerAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** A way out, shared by all flows. What it may learn of its proxy (a challenge, say) never shows from outside. */
export interface Upstream {
  readonly scheme: string;
  /** The URL without the password, for logs and `stats()`. */
  readonly label: string;
  /** Where the (first) proxy listens; null when flows go straight to their destination or nowhere. */
  readonly server: ProxyServerAddress | null;
  /** TLS to that proxy, or null. Such upstreams need sockets that can. */
  readonly tls: TlsSettings | null;
  readonly udp: UdpMode;
  /** Whether every flow is refused without a dial. */
  readonly rejects: boolean;
  /** Whether its protocol can name IPv6 destinations; else they are refused as net unreachable, without a dial. */
  readonly carriesIpv6: boolean;
  /**
   * The handshake that opens a stream to `destination`; null when the connection itself is the stream.
   * @param pipelined whether greeting and request go out together; for upstreams where `canPipeline` holds
   */
  connect(destination: Destination, pipelined?: boolean): Handshake | null;
  /** Whether `connect` can put all of its messages into `start()`. Some proxies hang then: it has to be tried. */
  readonly canPipeline: boolean;
  /** Proxies on the way, each of which may ask for another connection once; 1 if absent. */
  readonly hops?: number;
  /** The handshake that opens a UDP association; null where `udp` is not `associate`. */
  associate(): Handshake | null;
}
