/** The upstreams that are served. Each is immutable and shared by all flows; none owns a socket. */
import { emitPasswordAuth, socks5Associate, socks5Connect } from "./socks5.ts";
import type { Destination, Handshake, ProxyServerAddress, UdpMode, Upstream } from "./upstream.ts";

/** Flows go straight to their destination. */
export const DIRECT: Upstream = Object.freeze({
  scheme: "direct",
  label: "direct://",
  server: null,
  tls: null,
  canPipeline: false,
  udp: "direct",
  rejects: false,
  connect: () => null,
  associate: () => null,
});

/** Every flow is refused without a dial. */
export const REJECT: Upstream = Object.freeze({
  scheme: "reject",
  label: "reject://",
  server: null,
  tls: null,
  canPipeline: false,
  udp: "none",
  rejects: true,
  connect: () => null,
  associate: () => null,
});

/** A SOCKS5 proxy. Bytes, not text: users and passwords need not be UTF-8. */
export interface Socks5UpstreamOptions {
  /** Name or address, IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  /** 1 to 255 bytes; without it no password is offered. */
  readonly user?: Uint8Array;
  /** At most 255 bytes, default empty. */
  readonly password?: Uint8Array;
  /** The URL for logs, without the password. */
  readonly label: string;
}

/** SOCKS5 with CONNECT and UDP ASSOCIATE (RFC 1928, RFC 1929). */
export class Socks5Upstream implements Upstream {
  readonly scheme: string = "socks5";
  readonly label: string;
  readonly server: ProxyServerAddress;
  readonly tls: null = null;
  readonly canPipeline: boolean = false;
  readonly udp: UdpMode = "associate";
  readonly rejects: boolean = false;
  /** Private, so that no inspection or JSON of the upstream shows the password. */
  readonly #auth: Uint8Array | null;

  /** @throws RangeError when user or password do not fit into RFC 1929's message */
  constructor(options: Socks5UpstreamOptions) {
    this.label = options.label;
    this.server = Object.freeze({ kind: "tcp", host: options.host, port: options.port });
    this.#auth =
      options.user === undefined ? null : emitPasswordAuth(options.user, options.password ?? new Uint8Array(0));
    Object.freeze(this);
  }

  connect(destination: Destination): Handshake {
    return socks5Connect(destination, this.#auth);
  }

  associate(): Handshake {
    return socks5Associate(this.#auth);
  }
}
