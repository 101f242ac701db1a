/**
 * The joint between flows and the ways out: what an upstream is, how its handshake is driven, and how a failure is told.
 * Nothing here owns a socket: the relay connects, feeds bytes in, and sends what comes out.
 */
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

/** A way out. Immutable; shared by all flows. */
export interface Upstream {
  readonly scheme: string;
  /** The URL without the password, for logs and `stats()`. */
  readonly label: string;
  /** Host and port of the proxy; null when flows go straight to their destination or nowhere. */
  readonly server: { readonly host: string; readonly port: number } | null;
  readonly udp: UdpMode;
  /** Whether every flow is refused without a dial. */
  readonly rejects: boolean;
  /** The handshake that opens a stream to `destination`; null when the connection itself is the stream. */
  connect(destination: Destination): Handshake | null;
  /** The handshake that opens a UDP association; null where `udp` is not `associate`. */
  associate(): Handshake | null;
}
