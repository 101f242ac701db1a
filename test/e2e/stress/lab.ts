/**
 * The namespaces and processes of a stress test. Import `../../host/in-namespace.ts` first: the test itself is then in
 * the outer namespace. Everything ends with the test.
 */
import { fileURLToPath } from "node:url";
import { addAddress, setLink } from "../../../src/host/interface.ts";
import { type Addon, isAddonProblem, loadAddon } from "../../../src/io/addon.ts";
import type { ClientMethods, ProgramResult } from "./client-process.ts";
import type { EngineMethods, EngineSettings, Snapshot } from "./engine-process.ts";
import { SERVER, VERSIONS } from "./network.ts";
import { Remote } from "./remote.ts";
import type { ServerMethods } from "./server-process.ts";

/** Whether the long forms of the tests are wanted. */
export const IS_LONG: boolean = process.env["TUNRELAY_LONG"] === "1";
export const TUN = "tun0";
export const MIB: number = 1 << 20;

/** What the lab needs of a test. */
export interface Owner {
  teardown(handler: () => unknown): unknown;
}

function script(name: string): string {
  return fileURLToPath(new URL(`./${name}.js`, import.meta.url));
}

function requireAddon(): Addon {
  const addon = loadAddon();
  if (isAddonProblem(addon)) throw new Error(addon.problem);
  return addon;
}

/** A process of clients. */
export type Client = Remote<ClientMethods>;

export class Lab {
  readonly server: Remote<ServerMethods>;
  readonly client: Client;
  readonly engine: Remote<EngineMethods>;

  private constructor(server: Remote<ServerMethods>, client: Client, engine: Remote<EngineMethods>) {
    this.server = server;
    this.client = client;
    this.engine = engine;
  }

  /** Starts servers, clients and the process for the engine. */
  static async open(owner: Owner): Promise<Lab> {
    const addon = requireAddon();
    setLink(addon, "lo", { up: true });
    for (const version of VERSIONS) addAddress(addon, "lo", `${SERVER[version]}/${version === 4 ? 32 : 128}`);
    const server = new Remote<ServerMethods>("server process", process.execPath, [script("server-process")]);
    owner.teardown(() => server.end());
    const client = startClient("client process");
    owner.teardown(() => client.end());
    const engineArgs = ["--enable-source-maps", "--expose-gc", script("engine-process")];
    const engine = new Remote<EngineMethods>("engine process", process.execPath, engineArgs);
    owner.teardown(() => engine.end());
    await server.call("listen");
    const lab = new Lab(server, client, engine);
    await lab.run("ip", "link", "set", "lo", "up");
    return lab;
  }

  /** Opens the device and starts the engine; returns the device's description. */
  async start(settings: EngineSettings): Promise<string> {
    const description = await this.engine.call("open", TUN, settings, this.client.pid);
    await this.client.call("setUp", TUN, settings.mtu ?? 1500);
    await this.engine.call("start");
    return description;
  }

  /** Runs a program in the client namespace. @throws when it fails */
  async run(command: string, ...args: string[]): Promise<ProgramResult> {
    const result = await this.client.call("run", command, args);
    if (result.status !== 0) throw new Error(`${command} ${args.join(" ")}: ${result.stderr}`);
    return result;
  }

  snapshot(collect = false): Promise<Snapshot> {
    return this.engine.call("snapshot", collect);
  }

  /** Takes snapshots until `wanted` holds; the last one in any case. */
  async until(wanted: (snapshot: Snapshot) => boolean, limitMs: number): Promise<Snapshot> {
    const end = performance.now() + limitMs;
    for (;;) {
      const snapshot = await this.snapshot();
      if (wanted(snapshot) || performance.now() > end) return snapshot;
      await sleep(50);
    }
  }

  /** Waits until nothing is left of flows and datagrams. */
  untilIdle(limitMs: number): Promise<Snapshot> {
    return this.until(({ stats }) => isIdle(stats), limitMs);
  }
}

/** Starts a client process in a namespace of its own. */
export function startClient(name: string): Client {
  return new Remote<ClientMethods>(name, "unshare", ["--net", "--", process.execPath, script("client-process")]);
}

/** Whether nothing is left of flows and datagrams; fragments of datagrams that never come in full wait for a minute. */
export function isIdle({ stack, tcp, udp, sockets }: Snapshot["stats"]): boolean {
  const timers = stack.timersArmed - stack.fragments.datagrams;
  return sockets === 0 && timers === 0 && tcp.open + tcp.dialing === 0 && udp.associations === 0;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Such as `12.3 MiB`. */
export function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}
