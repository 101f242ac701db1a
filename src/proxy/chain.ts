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

/** One proxy of a chain. */
interface Hop {
  readonly upstream: Upstream;
  /** Where it listens, as the proxy before it is told. */
  readonly place: Destination;
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
  readonly #hops: readonly Hop[];

  /**
   * @param upstreams the first one is connected to
   * @throws RangeError when they make no chain; the message begins with the number of the proxy concerned
   */
  constructor(upstreams: readonly Upstream[]) {
    if (upstreams.length < 2) throw new RangeError(`Chain has ${upstreams.length} proxies, expected 2 or more`);
    this.#hops = upstreams.map((upstream, index) => ({ upstream, place: placeOf(upstream, index) }));
    // Asked once, so that a proxy that cannot be told of the next one is found out before the first flow.
    for (let i = 1; i < upstreams.length; i++) this.#ask(i - 1, this.#hop(i).place);
    this.label = upstreams.map(({ label }) => label).join(" -> ");
    this.server = upstreams[0]?.server ?? null;
    this.carriesIpv6 = upstreams.at(-1)?.carriesIpv6 ?? false;
    Object.freeze(this);
  }

  /** TLS to the first proxy; a getter, as the client's key may stand in it. */
  get tls(): TlsSettings | null {
    return this.#hop(0).upstream.tls;
  }

  connect(destination: Destination): Handshake {
    return new ChainHandshake(
      this.#hops.length,
      (index) => {
        const { place } = index + 1 < this.#hops.length ? this.#hop(index + 1) : { place: destination };
        return this.#ask(index, place);
      },
      (index) => this.#describe(index),
    );
  }

  associate(): null {
    return null;
  }

  #hop(index: number): Hop {
    const hop = this.#hops[index];
    if (hop === undefined) throw new RangeError(`Proxy ${index + 1} of ${this.#hops.length}`);
    return hop;
  }

  #ask(index: number, place: Destination): Handshake {
    try {
      const handshake = this.#hop(index).upstream.connect(place);
      if (handshake !== null) return handshake;
    } catch (error) {
      throw new RangeError(`${this.#describe(index)}: ${error instanceof Error ? error.message : error}`, {
        cause: error,
      });
    }
    throw new RangeError(`${this.#describe(index)} is no proxy`);
  }

  /** Such as `Proxy 1 of 2 (socks5://192.0.2.7:1080)`. */
  #describe(index: number): string {
    return `Proxy ${index + 1} of ${this.#hops.length} (${this.#hop(index).upstream.label})`;
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
  readonly #length: number;
  readonly #ask: (index: number) => Handshake;
  readonly #describe: (index: number) => string;
  #index = 0;
  #current: Handshake;

  constructor(length: number, ask: (index: number) => Handshake, describe: (index: number) => string) {
    this.#length = length;
    this.#ask = ask;
    this.#describe = describe;
    this.#current = ask(0);
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
    if (this.#index === this.#length - 1) {
      this.consumed = consumed;
      return HandshakeStep.done;
    }
    this.#index++;
    if (consumed < length) {
      // Neither SOCKS nor HTTP lets the proxy speak first.
      this.refusal = Refusal.proxyFault;
      this.reason = `${this.#describe(this.#index)} sent ${length - consumed} bytes before it was asked`;
      return HandshakeStep.failed;
    }
    this.#current = this.#ask(this.#index);
    this.out = this.#current.start();
    return HandshakeStep.send;
  }

  /**
   * What the last proxy says of the destination is the client's answer. What one before it says is about the next proxy,
   * of which the client knows nothing: that is a fault of the chain.
   */
  #onFailed(): void {
    const { refusal, reason } = this.#current;
    if (this.#index === this.#length - 1 || refusal === Refusal.proxyFault) {
      this.refusal = refusal;
      this.reason = `${this.#describe(this.#index)}: ${reason}`;
      return;
    }
    this.refusal = Refusal.proxyFault;
    this.reason = `${this.#describe(this.#index)} does not reach the next one (${refusal}): ${reason}`;
  }
}
