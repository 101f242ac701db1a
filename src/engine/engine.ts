/**
 * The engine: the only loop, the only clock, the only timer. It moves packets between the device and the stack, and
 * flows between the stack and the relays.
 *
 * Theory of operation. The event loop wakes the engine while a descriptor is ready. A turn then goes through rounds of:
 *
 *   1. fetch events; read all ready sockets into the slab, and let the relays take the bytes
 *   2. read a batch of packets from the device; let the stack take them
 *   3. hand changed flows and datagrams to the relays; one gathered write a flow to the upstream
 *   4. collect what flows may send: data, or one acknowledgment a flow; one batched write to the device
 *
 * until nothing is ready, or `MAX_ROUNDS` are over; then the event loop gets its turn. When memory is short, sources wait
 * and are tried again.
 *
 * Timers: one `setTimeout`, for the earliest deadline of the stack and the relays. It is only moved forward when a
 * deadline is earlier; a wake-up that finds nothing due arms it anew.
 */
import { randomBytes } from "node:crypto";
import { performance } from "node:perf_hooks";
import type { Device } from "../device/device.ts";
import type { Addon } from "../io/addon.ts";
import { AddonSockets } from "../io/addon-sockets.ts";
import { NodeSockets } from "../io/node-sockets.ts";
import { Poller, type PollSink } from "../io/poller.ts";
import type { KeepAlive, PolledSockets, SocketOptions, SocketSink } from "../io/sockets.ts";
import { DialLimits } from "../proxy/dial-limits.ts";
import type { Logger } from "../proxy/logger.ts";
import { Relay, type RelayStats } from "../proxy/relay.ts";
import { ServerAddresses } from "../proxy/server-addresses.ts";
import { UdpRelay, type UdpRelayStats } from "../proxy/udp-relay.ts";
import type { Upstream } from "../proxy/upstream.ts";
import type { IpBytes } from "../stack/flow/address.ts";
import { ChecksumState, ReceiveBatch, Slab } from "../stack/memory/index.ts";
import { Stack, type StackStats } from "../stack/stack.ts";
import type { TcpOptions } from "../stack/tcp/options.ts";
import { StackLimits } from "./stack-limits.ts";

/** Rounds in a turn: bounds how long the event loop's own timers wait. */
const MAX_ROUNDS = 8;
/** Token of the device in the poller; sockets use 0 and above. */
const DEVICE_TOKEN = -1;
/** Longest `setTimeout` in use; deadlines beyond are looked at again then. */
const MAX_SLEEP_MS = 60_000;
const DAY_MS = 86_400_000;
/** How soon sources are tried again when memory was short. */
const RETRY_MS = 5;

export interface EngineOptions {
  readonly addon: Addon;
  /** Open; the engine closes it in `stop`. */
  readonly device: Device;
  readonly upstream: Upstream;
  /** Resolved addresses of the upstream's server; may be empty for `direct://` and `reject://`. */
  readonly serverAddresses: readonly IpBytes[];
  readonly logger: Logger;
  /** SO_MARK of sockets towards upstreams. */
  readonly fwmark?: number;
  /** Interface that sockets towards upstreams are bound to. */
  readonly interface?: string;
  /** What carries the sockets towards upstreams: the addon, or Node where the upstream wants TLS. Default: as the upstream wants. */
  readonly sockets?: "addon" | "node";
  /** Accept TCP flows before the upstream has answered. Default false. */
  readonly earlyAccept?: boolean;
  /** Idle time of UDP associations, ms; those that only ever asked DNS end after 10 s at most. Default 120,000. */
  readonly udpTimeoutMs?: number;
  /** Time for connecting to proxy or destination, ms. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Time for the proxy's answer once connected, ms. Default 30,000. */
  readonly handshakeTimeoutMs?: number;
  /** How long an open TCP flow may be without data in either direction, ms. Default 86,400,000: a day. */
  readonly tcpTimeoutMs?: number;
  /** Keep-alive probes on the connections to the upstream; for those to clients see `tcp`. Default none. */
  readonly keepAlive?: KeepAlive;
  /** Most connections that wait for the upstream at a time, of TCP and UDP together. Default 4096. */
  readonly maxDials?: number;
  /**
   * Most UDP associations. Beyond, the client address that holds most gives up the one that was idle for longest.
   * Default 4096.
   */
  readonly maxAssociations?: number;
  /** Knobs of TCP towards clients; limits of flows are here. */
  readonly tcp?: TcpOptions;
  /** Packet memory, bytes: the limit on what is buffered in all. Default 256 MiB of address space, touched as needed. */
  readonly slabBytes?: number;
}

/** Counters and gauges of the engine and its parts. */
export interface EngineStats {
  readonly device: string;
  /** What carries the upstream's connections: `addon` or `node`. */
  readonly backend: string;
  readonly sockets: number;
  readonly deviceWriteErrors: number;
  /** Turns and rounds of the loop. */
  readonly turns: number;
  readonly rounds: number;
  readonly stack: StackStats;
  readonly tcp: RelayStats;
  readonly udp: UdpRelayStats;
}

export class Engine implements PollSink, SocketSink {
  readonly #device: Device;
  readonly #logger: Logger;
  readonly #slab: Slab;
  readonly #poller: Poller;
  readonly #stack: Stack;
  readonly #sockets: PolledSockets;
  readonly #limits: DialLimits;
  readonly #stackLimits: StackLimits;
  readonly #relay: Relay;
  readonly #udp: UdpRelay;
  readonly #batch: ReceiveBatch = new ReceiveBatch();
  #deviceReady = false;
  #timer: NodeJS.Timeout | null = null;
  #timerAt = Number.POSITIVE_INFINITY;
  #immediate: NodeJS.Immediate | null = null;
  #stopped = false;
  #turns = 0;
  #rounds = 0;
  /** Resolves with the reason when the device fails; never rejects. */
  readonly failed: Promise<Error>;
  readonly #fail: (error: Error) => void;

  /**
   * Joins device, stack and upstream. Nothing moves until `start`.
   * @throws IoError, RangeError
   */
  constructor(options: EngineOptions) {
    const { addon, device, upstream, serverAddresses, logger } = options;
    this.#device = device;
    this.#logger = logger;
    this.#slab = new Slab(options.slabBytes);
    this.#poller = Poller.open(addon, this.#slab, () => this.#turn());
    device.attach(this.#slab, this.#poller.slabId);
    const random = (): number => randomBytes(4).readInt32LE(0);
    this.#stack = new Stack({
      random,
      mtu: device.mtu,
      offload: device.offload,
      slab: this.#slab,
      ...(options.tcp === undefined ? {} : { tcp: options.tcp }),
    });
    try {
      this.#sockets = this.#openSockets(options);
    } catch (error) {
      this.#poller.close();
      throw error;
    }
    const connectTimeoutMs = options.connectTimeoutMs ?? 10_000;
    const handshakeTimeoutMs = options.handshakeTimeoutMs ?? 30_000;
    this.#limits = new DialLimits(options.maxDials ?? 4096, logger);
    this.#stackLimits = new StackLimits(logger);
    const limits = this.#limits;
    const servers = new ServerAddresses(upstream.server, serverAddresses);
    this.#relay = new Relay(this.#sockets, this.#slab, {
      upstream,
      servers,
      logger,
      limits,
      earlyAccept: options.earlyAccept ?? false,
      connectTimeoutMs,
      handshakeTimeoutMs,
      idleTimeoutMs: options.tcpTimeoutMs ?? DAY_MS,
    });
    this.#udp = new UdpRelay(
      this.#sockets,
      this.#stack,
      {
        upstream,
        servers,
        logger,
        limits,
        idleMs: options.udpTimeoutMs ?? 120_000,
        connectTimeoutMs,
        handshakeTimeoutMs,
        maxAssociations: options.maxAssociations ?? 4096,
        seed: random(),
      },
      () => this.#transmit(),
    );
    let fail: (error: Error) => void = () => {};
    this.failed = new Promise((resolve) => {
      fail = resolve;
    });
    this.#fail = fail;
  }

  #openSockets(options: EngineOptions): PolledSockets {
    const { tls } = options.upstream;
    const socketOptions: SocketOptions = {
      ...(options.fwmark === undefined ? {} : { mark: options.fwmark }),
      ...(options.interface === undefined ? {} : { interface: options.interface }),
      ...(options.keepAlive === undefined ? {} : { keepAlive: options.keepAlive }),
      ...(tls === null ? {} : { tls }),
    };
    if (tls === null && options.sockets !== "node") return new AddonSockets(this.#poller, this, socketOptions);
    return new NodeSockets(this.#slab, this.#poller, this, () => this.#turnSoon(), socketOptions);
  }

  /** Begins to read the device. */
  start(): void {
    const result = this.#poller.addReader(this.#device.fd, DEVICE_TOKEN);
    if (result < 0) throw new Error(`Cannot watch device ${this.#device.name}: error ${-result}`);
  }

  stats(): EngineStats {
    return {
      device: this.#device.description,
      backend: this.#sockets.backend,
      sockets: this.#sockets.open,
      deviceWriteErrors: this.#device.writeErrors,
      turns: this.#turns,
      rounds: this.#rounds,
      stack: this.#stack.stats(),
      tcp: this.#relay.stats(),
      udp: this.#udp.stats(),
    };
  }

  /**
   * Stops: refuses new flows, waits up to `drainMs` for open ones to end by themselves, resets what is left, and closes
   * the device.
   * @param drainMs 0 ends at once
   */
  async stop(drainMs: number): Promise<void> {
    this.#relay.drain();
    const until = performance.now() + drainMs;
    while (!this.#stopped && performance.now() < until && (this.#stack.openFlows > 0 || this.#sockets.lingering > 0)) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    this.#close();
  }

  #close(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    try {
      // Clients learn that their connections are over.
      const now = performance.now();
      this.#stack.advance(now);
      this.#relay.advance(now);
      this.#udp.advance(now);
      this.#relay.stop();
      this.#udp.stop();
      let done = false;
      while (!done) {
        done = this.#stack.reset();
        this.#transmit();
      }
    } catch (error) {
      this.#logger.debug(`Resets could not be sent: ${error instanceof Error ? error.message : error}`);
    }
    this.#sockets.closeAll();
    this.#stack.close();
    this.#device.close();
    this.#poller.close();
  }

  #turn(): void {
    if (this.#stopped) return;
    this.#turns++;
    try {
      this.#runRounds();
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
      this.#close();
    }
  }

  #runRounds(): void {
    const now = performance.now();
    this.#stack.advance(now);
    this.#limits.advance(now);
    this.#relay.advance(now);
    this.#udp.advance(now);
    let more = true;
    for (let round = 0; more && round < MAX_ROUNDS; round++) more = this.#round(now);
    this.#handleTimeouts(now);
    this.#stackLimits.look(this.#stack.refused, now);
    if (more) this.#turnSoon();
    this.#arm(now);
  }

  /** Has a turn when the event loop has been through all that is ready. */
  #turnSoon(): void {
    if (this.#stopped || this.#immediate !== null) return;
    this.#immediate = setImmediate(() => {
      this.#immediate = null;
      this.#turn();
    });
  }

  /** One pass over all sources; returns whether there may be more to do at once. */
  #round(now: number): boolean {
    this.#rounds++;
    const events = this.#poller.poll(this);
    const moreInput = this.#sockets.receive();
    const packets = this.#deviceReady ? this.#readDevice(now) : 0;
    this.#settle();
    return events > 0 || packets > 0 || moreInput || this.#relay.hasPending;
  }

  /** Brings flows, upstreams and the device to rest after changes. */
  #settle(): void {
    for (let flow = this.#stack.nextReady(); flow !== null; flow = this.#stack.nextReady()) this.#relay.onFlow(flow);
    this.#udp.takeInbox();
    this.#relay.flush();
    this.#transmit();
  }

  #readDevice(now: number): number {
    const batch = this.#batch;
    const count = this.#device.read(batch);
    for (let i = 0; i < count; i++) {
      this.#stack.receiveReference(
        batch.start[i] as number,
        batch.end[i] as number,
        batch.checksum[i] === ChecksumState.trusted,
        batch.segmentSize[i] as number,
        now,
      );
    }
    if (!this.#device.hasMore) this.#deviceReady = false;
    return count;
  }

  #transmit(): void {
    const { queue } = this.#stack;
    while (this.#stack.fill() > 0) {
      this.#device.write(queue);
      queue.clear();
    }
  }

  #handleTimeouts(now: number): void {
    const due = this.#nextTimeout() <= now;
    if (!due) return;
    this.#stack.handleTimeout(now);
    this.#relay.handleTimeout();
    this.#udp.handleTimeout();
    this.#settle();
  }

  #nextTimeout(): number {
    return Math.min(this.#stack.nextTimeout(), this.#relay.nextTimeout(), this.#udp.nextTimeout());
  }

  /** Arms the timer for the next deadline, when it is not armed for an earlier one. */
  #arm(now: number): void {
    let at = this.#nextTimeout();
    if (this.#slab.scarce || this.#stack.isStarved || this.#sockets.waitsForMemory) at = Math.min(at, now + RETRY_MS);
    if (at === Number.POSITIVE_INFINITY || at >= this.#timerAt) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => this.#onTimer(), Math.min(MAX_SLEEP_MS, Math.max(1, Math.ceil(at - now))));
  }

  #onTimer(): void {
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    this.#turn();
  }

  /** @hidden */
  onPoll(token: number, generation: number, events: number): void {
    if (token === DEVICE_TOKEN) this.#deviceReady = true;
    else this.#sockets.dispatch(token, generation, events);
  }

  /** @hidden */
  onConnected(handle: number): void {
    if (this.#relay.has(handle)) this.#relay.onConnected(handle);
    else if (this.#udp.has(handle)) this.#udp.onConnected(handle);
  }

  /** @hidden */
  onData(handle: number, offset: number, length: number): void {
    if (this.#relay.has(handle)) this.#relay.onData(handle, offset, length);
    else if (this.#udp.has(handle)) this.#udp.onData(handle, offset, length);
  }

  /** @hidden */
  onEnd(handle: number): void {
    if (this.#relay.has(handle)) this.#relay.onEnd(handle);
    else if (this.#udp.has(handle)) this.#udp.onEnd(handle);
  }

  /** @hidden */
  onError(handle: number, errno: number): void {
    if (this.#relay.has(handle)) this.#relay.onError(handle, errno);
    else if (this.#udp.has(handle)) this.#udp.onError(handle, errno);
  }

  /** @hidden */
  onSent(handle: number, sent: number, length: number, ended: boolean): void {
    if (this.#relay.has(handle)) this.#relay.onSent(handle, sent, length, ended);
    else if (this.#udp.has(handle)) this.#udp.onSent(handle, sent, length);
  }

  /** @hidden */
  onWritable(handle: number): void {
    if (this.#relay.has(handle)) this.#relay.onWritable(handle);
  }

  /** @hidden */
  onDatagram(handle: number, offset: number, length: number): void {
    if (this.#udp.has(handle)) this.#udp.onDatagram(handle, offset, length);
  }

  /** @hidden */
  onDatagramError(handle: number, errno: number): void {
    if (this.#udp.has(handle)) this.#udp.onDatagramError(handle, errno);
  }
}
