/**
 * A chain of proxies: the first one is connected to, and each is asked for a way to the next one, the last for the way
 * to the destination. All of it goes over one stream, one handshake after the other.
 *
 *     tunrelay ── connects ── A ── CONNECT B ── B ── CONNECT destination ── destination
 *
 * Names of later proxies are looked up by the one before them.
 */
import type { TlsSettings } from "../io/tls-settings.ts";
import { parseAddress } from "../stack/flow/address.ts";
import {
  type Destination,
  type Handshake,
  HandshakeStep,
  type ProxyServerAddress,
  Refusal,
  type UdpMode,
  type Upstream,
} from "./upstream.ts";

const NOTHING = new Uint8Array(0);

/** The proxies of a chain, in order. */
class Hops {
  readonly #upstreams: readonly Upstream[];
  /** Where each listens, as the one before it is told. */
  readonly #places: readonly Destination[];

  constructor(upstreams: readonly Upstream[]) {
    this.#upstreams = upstreams;
    this.#places = upstreams.map(placeOf);
    // Asked once, so that a proxy that cannot be told of the next one is found out before the first flow.
    for (let i = 0; i + 1 < upstreams.length; i++) this.ask(i, { host: "", port: 0 });
  }

  get length(): number {
    return this.#upstreams.length;
  }

  at(index: number): Upstream {
    const upstream = this.#upstreams[index];
    if (upstream === undefined) throw new RangeError(`Proxy ${index + 1} of ${this.length}`);
    return upstream;
  }

  /** The handshake with proxy `index`: for the way to the next one, or to `destination` if it is the last. */
  ask(index: number, destination: Destination): Handshake {
    try {
      const handshake = this.at(index).connect(this.#places[index + 1] ?? destination);
      if (handshake !== null) return handshake;
    } catch (error) {
      const why = error instanceof Error ? error.message : error;
      throw new RangeError(`${this.describe(index)}: ${why}`, { cause: error });
    }
    throw new RangeError(`${this.describe(index)} is no proxy`);
  }

  /** Such as `Proxy 1 of 2 (socks5://192.0.2.7:1080)`. */
  describe(index: number): string {
    return `Proxy ${index + 1} of ${this.length} (${this.at(index).label})`;
  }
}

/** Two or more proxies in a row: TCP only, as a datagram could not be handed on from one to the next. */
export class ChainUpstream implements Upstream {
  readonly scheme: string = "chain";
  readonly label: string;
  readonly server: ProxyServerAddress | null;
  readonly canPipeline: boolean = false;
  readonly udp: UdpMode = "none";
  readonly rejects: boolean = false;
  readonly carriesIpv6: boolean;
  readonly #hops: Hops;
  readonly hops: number;

  /**
   * @param upstreams the first one is connected to
   * @throws RangeError when they make no chain
   */
  constructor(upstreams: readonly Upstream[]) {
    if (upstreams.length < 2) throw new RangeError(`Chain has ${upstreams.length} proxies, expected 2 or more`);
    this.#hops = new Hops([...upstreams]);
    this.hops = upstreams.length;
    this.label = upstreams.map(({ label }) => label).join(" -> ");
    this.server = this.#hops.at(0).server;
    this.carriesIpv6 = this.#hops.at(upstreams.length - 1).carriesIpv6;
    Object.freeze(this);
  }

  /** TLS to the first proxy; a getter, as the client's key may stand in it. */
  get tls(): TlsSettings | null {
    return this.#hops.at(0).tls;
  }

  connect(destination: Destination): Handshake {
    return new ChainHandshake(this.#hops, destination);
  }

  associate(): null {
    return null;
  }
}

/** @throws RangeError when the upstream cannot stand at this place of a chain */
function placeOf({ label, server, tls }: Upstream, index: number): Destination {
  const which = `Proxy ${index + 1} (${label})`;
  if (server === null) throw new RangeError(`${which} is no proxy, and a chain is made of proxies: leave it out`);
  if (index > 0 && tls !== null) {
    throw new RangeError(`${which} wants TLS, which only the first proxy of a chain can have: put it first`);
  }
  if (server.kind === "tcp") return { host: parseAddress(server.host) ?? server.host, port: server.port };
  if (index > 0) throw new RangeError(`${which} is a Unix socket, which no other proxy can reach: put it first`);
  return { host: server.path, port: 0 };
}

class ChainHandshake implements Handshake {
  out: Uint8Array = NOTHING;
  consumed = 0;
  refusal: Refusal = Refusal.failed;
  reason = "";
  readonly bound: null = null;
  readonly #hops: Hops;
  readonly #destination: Destination;
  #index = 0;
  #current: Handshake;

  constructor(hops: Hops, destination: Destination) {
    this.#hops = hops;
    this.#destination = destination;
    this.#current = hops.ask(0, destination);
  }

  start(): Uint8Array {
    return this.#current.start();
  }

  receive(bytes: Uint8Array, start: number, end: number): HandshakeStep {
    const step = this.#current.receive(bytes, start, end);
    switch (step) {
      case HandshakeStep.more:
        return step;
      case HandshakeStep.send:
        this.out = this.#current.out;
        return step;
      case HandshakeStep.done:
        return this.#onDone(end - start);
      case HandshakeStep.again:
      case HandshakeStep.failed:
        this.#onFailed();
        return step;
    }
  }

  #onDone(length: number): HandshakeStep {
    const { consumed } = this.#current;
    if (this.#index === this.#hops.length - 1) {
      this.consumed = consumed;
      return HandshakeStep.done;
    }
    this.#index++;
    if (consumed < length) {
      // Neither SOCKS nor HTTP lets the proxy speak first.
      this.refusal = Refusal.proxyFault;
      this.reason = `${this.#hops.describe(this.#index)} sent ${length - consumed} bytes before it was asked`;
      return HandshakeStep.failed;
    }
    this.#current = this.#hops.ask(this.#index, this.#destination);
    this.out = this.#current.start();
    return HandshakeStep.send;
  }

  /**
   * What the last proxy says of the destination is the client's answer. What one before it says is about the next proxy,
   * of which the client knows nothing: that is a fault of the chain.
   */
  #onFailed(): void {
    const { refusal, reason } = this.#current;
    if (this.#index === this.#hops.length - 1 || refusal === Refusal.proxyFault) {
      this.refusal = refusal;
      this.reason = `${this.#hops.describe(this.#index)}: ${reason}`;
      return;
    }
    this.refusal = Refusal.proxyFault;
    this.reason = `${this.#hops.describe(this.#index)} does not reach the next one, ${this.#hops.at(this.#index + 1).label} (${refusal}): ${reason}`;
  }
}
