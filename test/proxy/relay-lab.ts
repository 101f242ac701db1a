/** A relay over fake sockets, with the log, the summaries and a clock. */
import { DialLimits } from "../../src/proxy/dial-limits.ts";
import type { FlowSummary, Logger } from "../../src/proxy/logger.ts";
import { Relay } from "../../src/proxy/relay.ts";
import { ServerAddresses } from "../../src/proxy/server-addresses.ts";
import type { Upstream } from "../../src/proxy/upstream.ts";
import { parseUpstream } from "../../src/proxy/url.ts";
import type { Endpoint } from "../../src/stack/flow/address.ts";
import { Slab } from "../../src/stack/memory/index.ts";
import { FakeFlow, FakeSockets } from "./fake-sockets.ts";

export const PROXY: Uint8Array = Uint8Array.of(192, 0, 2, 1);
export const V4: Endpoint = { address: Uint8Array.of(198, 51, 100, 7), port: 80 };
export const V6: Endpoint = {
  address: Uint8Array.from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
  port: 443,
};
export const METHOD_NONE: readonly number[] = [5, 0];
export const GRANTED: readonly number[] = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

export interface LabOptions {
  readonly url?: string;
  /** In place of what the URL names. */
  readonly upstream?: Upstream;
  readonly earlyAccept?: boolean;
  readonly servers?: readonly Uint8Array[];
  readonly maxDials?: number;
  readonly idleTimeoutMs?: number;
  /** Whether the messages of handshakes may go out together. Default false. */
  readonly pipelines?: boolean;
}

/** The same upstream, whose messages always go in sequence. */
function inSequence(upstream: Upstream): Upstream {
  const { scheme, label, server, tls, udp, rejects, carriesIpv6 } = upstream;
  const connect: Upstream["connect"] = (destination) => upstream.connect(destination);
  const associate: Upstream["associate"] = () => upstream.associate();
  return { scheme, label, server, tls, udp, rejects, carriesIpv6, canPipeline: false, connect, associate };
}

export class Lab {
  readonly slab: Slab = new Slab(8 << 20);
  readonly sockets: FakeSockets = new FakeSockets(this.slab);
  readonly log: string[] = [];
  readonly summaries: FlowSummary[] = [];
  readonly limits: DialLimits;
  readonly relay: Relay;
  readonly #scratch: number = this.slab.take();

  constructor(options: LabOptions = {}) {
    const write = (message: string): void => {
      this.log.push(message);
    };
    const logger: Logger = {
      isEnabled: () => true,
      error: write,
      warn: write,
      info: write,
      debug: () => {},
      flow: (summary) => this.summaries.push(summary),
    };
    const upstream = options.upstream ?? parseUpstream(options.url ?? "socks5://proxy.test:1080");
    this.limits = new DialLimits(options.maxDials ?? 64, logger);
    this.relay = new Relay(this.sockets, this.slab, {
      upstream: options.pipelines === true ? upstream : inSequence(upstream),
      servers: new ServerAddresses(upstream.server, options.servers ?? [PROXY]),
      logger,
      limits: this.limits,
      earlyAccept: options.earlyAccept ?? false,
      connectTimeoutMs: 10_000,
      handshakeTimeoutMs: 30_000,
      idleTimeoutMs: options.idleTimeoutMs ?? 86_400_000,
    });
    this.sockets.onSent = (...args) => this.relay.onSent(...args);
    this.at(1);
  }

  /** Moves the clock and lets what is due happen. */
  at(now: number): void {
    this.limits.advance(now);
    this.relay.advance(now);
    if (this.relay.nextTimeout() <= now) this.relay.handleTimeout();
  }

  /** A client's SYN. */
  dial(local: { readonly address: Uint8Array; readonly port: number } = V4): FakeFlow {
    const flow = new FakeFlow(this.slab, local);
    this.relay.onFlow(flow);
    return flow;
  }

  /** The upstream sends bytes. */
  answer(handle: number, bytes: readonly number[]): void {
    this.slab.bytes.set(bytes, this.#scratch);
    this.relay.onData(handle, this.#scratch, bytes.length);
    this.relay.flush();
  }

  /** The stream is connected. */
  connected(handle: number): void {
    this.relay.onConnected(handle);
    this.relay.flush();
  }

  /** The socket failed. */
  error(handle: number, errno: number): void {
    this.sockets.close(handle);
    this.relay.onError(handle, errno);
  }

  /** Connects and goes through the handshake. */
  open(flow: FakeFlow): number {
    const handle = flow.tag;
    this.connected(handle);
    if (this.relay.stats().dialing > 0) {
      this.answer(handle, METHOD_NONE);
      this.answer(handle, GRANTED);
    }
    return handle;
  }

  /** The client's side changed. */
  changed(flow: FakeFlow): void {
    this.relay.onFlow(flow);
    this.relay.flush();
  }
}
