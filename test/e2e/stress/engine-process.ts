/** The engine under test, a process in the outer namespace whose device is in the client's. */
import { readdirSync } from "node:fs";
import { performance } from "node:perf_hooks";
import type { Device } from "../../../src/device/device.ts";
import { type OffloadLevel, openTun } from "../../../src/device/tun.ts";
import { Engine, type EngineStats } from "../../../src/engine/engine.ts";
import { setLink } from "../../../src/host/interface.ts";
import { isAddonProblem, loadAddon } from "../../../src/io/addon.ts";
import { SILENT } from "../../../src/proxy/logger.ts";
import { parseUpstream, type UpstreamTlsOptions } from "../../../src/proxy/url.ts";
import { parseAddress } from "../../../src/stack/flow/address.ts";
import type { TcpOptions } from "../../../src/stack/tcp/options.ts";
import { type FaultOptions, type FaultStats, FaultyDevice } from "./faulty-device.ts";
import { answerCalls } from "./remote.ts";

/** A proxy with TLS. */
export interface ProxySettings {
  readonly url: string;
  readonly address: string;
  /** PEM of the authority to trust. */
  readonly ca?: string;
  /** SHA-256 of the certificate, in hexadecimal. */
  readonly pin?: string;
}

/** Options of a run; what is left out is the engine's default. */
export interface EngineSettings {
  readonly mtu?: number;
  readonly offload?: OffloadLevel;
  readonly slabBytes?: number;
  readonly tcp?: Omit<TcpOptions, "isn">;
  readonly udpTimeoutMs?: number;
  readonly connectTimeoutMs?: number;
  readonly handshakeTimeoutMs?: number;
  readonly maxAssociations?: number;
  readonly faults?: FaultOptions;
  readonly sockets?: "addon" | "node";
  readonly fwmark?: number;
  /** Default: straight to the servers. */
  readonly proxy?: ProxySettings;
}

/** What is there at one instant. */
export interface Snapshot {
  readonly stats: EngineStats;
  /** Resident memory of the process, bytes. */
  readonly rss: number;
  /** After garbage collection, bytes. */
  readonly heap: number;
  /** Open file descriptors of the process. */
  readonly descriptors: number;
  readonly faults: FaultStats | null;
}

/** Methods of the process. */
export interface EngineMethods {
  /** Opens a device and moves it into the namespace of `clientPid`; returns its description. */
  open(name: string, settings: EngineSettings, clientPid: number): string;
  start(): void;
  /** @param collect whether to collect garbage first, which `heap` needs */
  snapshot(collect: boolean): Snapshot;
  /** Stops the engine and returns how long that took, ms. */
  stop(drainMs: number): Promise<number>;
}

function tlsOf({ ca, pin }: ProxySettings): UpstreamTlsOptions {
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(pin === undefined ? {} : { pinSha256: Buffer.from(pin, "hex") }),
  };
}

let engine: Engine | null = null;
let faulty: FaultyDevice | null = null;
let stopping = false;

function current(): Engine {
  if (engine === null) throw new Error("no engine is open");
  return engine;
}

answerCalls<EngineMethods>({
  open(name, settings, clientPid) {
    const addon = loadAddon();
    if (isAddonProblem(addon)) throw new Error(addon.problem);
    const { mtu = 1500, offload = "auto", faults, proxy, ...options } = settings;
    const tun = openTun(addon, { name, mtu, offload });
    setLink(addon, name, { netnsPid: clientPid });
    faulty = faults === undefined ? null : new FaultyDevice(tun, faults);
    const device: Device = faulty ?? tun;
    const upstream = proxy === undefined ? parseUpstream("direct://") : parseUpstream(proxy.url, { tls: tlsOf(proxy) });
    const address = parseAddress(proxy?.address ?? "");
    const serverAddresses = address === null ? [] : [address];
    engine = new Engine({ addon, device, upstream, serverAddresses, logger: SILENT, ...options });
    stopping = false;
    void engine.failed.then((error) => {
      if (stopping) return;
      process.stderr.write(`the engine has failed: ${error.stack}\n`);
      process.exit(70);
    });
    return device.description;
  },
  start: () => current().start(),
  snapshot(collect) {
    if (collect) (globalThis as { gc?: () => void }).gc?.();
    const { rss, heapUsed } = process.memoryUsage();
    return {
      stats: current().stats(),
      rss,
      heap: heapUsed,
      descriptors: readdirSync("/proc/self/fd").length,
      faults: faulty?.stats() ?? null,
    };
  },
  async stop(drainMs) {
    const start = performance.now();
    stopping = true;
    await current().stop(drainMs);
    engine = null;
    return performance.now() - start;
  },
});
