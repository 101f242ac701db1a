/** The upstreams of one proxy or none. Each is immutable and shared by all flows; none owns a socket. */
import type { TlsSettings } from "../io/tls-settings.ts";
import { parseAddress } from "../stack/flow/address.ts";
import { httpConnect } from "./http-connect.ts";
import { HttpCredentials } from "./http-credentials.ts";
import { loadSocks, type SocksHop, socksPackageConnect } from "./socks-package.ts";
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
  carriesIpv6: true,
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
  carriesIpv6: true,
  connect: () => null,
  associate: () => null,
});

/** What every proxy has. Bytes, not text: users and passwords need not be UTF-8. */
export interface ProxyUpstreamOptions {
  /** Where it listens. */
  readonly server: ProxyServerAddress;
  /** Without it no password is offered. */
  readonly user?: Uint8Array;
  /** Default empty. */
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
  readonly canPipeline: boolean = true;
  readonly udp: UdpMode = "associate";
  readonly rejects: boolean = false;
  readonly carriesIpv6: boolean = true;
  /** Private, so that no inspection or JSON of the upstream shows the password. */
  readonly #auth: Uint8Array | null;

  /**
   * @param options user and password of at most 255 bytes each
   * @throws RangeError when they do not fit into RFC 1929's message
   */
  constructor(options: ProxyUpstreamOptions) {
    this.label = options.label;
    this.server = Object.freeze({ ...options.server });
    this.#auth = authOf(options);
    Object.freeze(this);
  }

  connect(destination: Destination, pipelined = false): Handshake {
    return socks5Connect(destination, this.#auth, pipelined);
  }

  associate(): Handshake {
    return socks5Associate(this.#auth);
  }
}

function authOf({ user, password }: ProxyUpstreamOptions): Uint8Array | null {
  return user === undefined ? null : emitPasswordAuth(user, password ?? new Uint8Array(0));
}

/** Options of a proxy whose SOCKS the `socks` package speaks. */
export interface SocksPackageUpstreamOptions extends ProxyUpstreamOptions {
  readonly scheme: "socks4" | "socks4a" | "socks5";
}

/** SOCKS4 and SOCKS4a, and SOCKS5 as a hop of a chain: TCP only, spoken by the `socks` package. */
export class SocksPackageUpstream implements Upstream {
  readonly scheme: string;
  readonly label: string;
  readonly server: ProxyServerAddress;
  readonly tls: null = null;
  readonly canPipeline: boolean = false;
  readonly udp: UdpMode = "none";
  readonly rejects: boolean = false;
  readonly carriesIpv6: boolean;
  /** Whether it looks names up itself: SOCKS4 has no way to send one. */
  readonly carriesNames: boolean;
  readonly #hop: SocksHop;

  constructor(options: SocksPackageUpstreamOptions) {
    this.scheme = options.scheme;
    this.label = options.label;
    this.server = Object.freeze({ ...options.server });
    this.carriesIpv6 = options.scheme === "socks5";
    this.carriesNames = options.scheme !== "socks4";
    loadSocks();
    this.#hop =
      options.scheme === "socks5"
        ? { version: 5, userId: "", auth: authOf(options) }
        : { version: 4, userId: Buffer.from(options.user ?? []).toString(), auth: null };
    Object.freeze(this);
  }

  /** @throws RangeError when the protocol cannot name the destination */
  connect(destination: Destination): Handshake {
    if (!this.carriesNames && typeof destination.host === "string" && parseAddress(destination.host) === null) {
      throw new RangeError("SOCKS4 cannot carry a name, SOCKS4a can");
    }
    return socksPackageConnect(this.#hop, destination);
  }

  associate(): null {
    return null;
  }
}

/** Options of an HTTP proxy. */
export interface HttpUpstreamOptions extends ProxyUpstreamOptions {
  /** TLS to the proxy (`https://`); by default none. */
  readonly tls?: TlsSettings;
}

/** HTTP CONNECT (RFC 9110 §9.3.6) with Basic or Digest authentication, whatever the proxy asks for: TCP only. */
export class HttpUpstream implements Upstream {
  readonly scheme: string;
  readonly label: string;
  readonly server: ProxyServerAddress;
  readonly canPipeline: boolean = false;
  readonly udp: UdpMode = "none";
  readonly rejects: boolean = false;
  readonly carriesIpv6: boolean = true;
  readonly #credentials: HttpCredentials | null;
  /** Private, as the client's key stands in it. */
  readonly #tls: TlsSettings | null;

  constructor(options: HttpUpstreamOptions) {
    this.scheme = options.tls === undefined ? "http" : "https";
    this.label = options.label;
    this.server = Object.freeze({ ...options.server });
    this.#tls = options.tls ?? null;
    this.#credentials =
      options.user === undefined ? null : new HttpCredentials(options.user, options.password ?? new Uint8Array(0));
    Object.freeze(this);
  }

  get tls(): TlsSettings | null {
    return this.#tls;
  }

  connect(destination: Destination): Handshake {
    return httpConnect(destination, this.#credentials);
  }

  associate(): null {
    return null;
  }
}
