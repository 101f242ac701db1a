/**
 * Where a proxy can be reached, shared by all that connect to it: the addresses of its name, or a Unix socket. Attempts
 * start at the one that worked last; a flow that meets a dead one goes on to the next, and each is tried once a flow.
 */
import type { StreamTarget } from "../io/sockets.ts";
import { formatEndpoint, type IpBytes } from "../stack/flow/address.ts";
import type { ProxyServerAddress } from "./upstream.ts";

/** One place to connect to. */
export interface ServerPlace {
  readonly target: StreamTarget;
  /** 0 for a Unix socket. */
  readonly port: number;
}

export class ServerAddresses {
  readonly #list: readonly ServerPlace[];
  #preferred = 0;

  /**
   * @param server null where there is no proxy
   * @param addresses of the proxy's name, in order of preference; not looked at for a Unix socket
   */
  constructor(server: ProxyServerAddress | null, addresses: readonly IpBytes[]) {
    if (server === null) this.#list = [];
    else if (server.kind === "unix") this.#list = [{ target: server.path, port: 0 }];
    else this.#list = addresses.map((target) => ({ target, port: server.port }));
  }

  get count(): number {
    return this.#list.length;
  }

  /** Index of the place to begin with. */
  get preferred(): number {
    return this.#preferred;
  }

  /** Index behind `index`, from the last to the first. */
  after(index: number): number {
    return (index + 1) % this.#list.length;
  }

  /** @throws RangeError when there is no such place */
  at(index: number): ServerPlace {
    const place = this.#list[index];
    if (place === undefined) throw new RangeError(`proxy address ${index} of ${this.#list.length}`);
    return place;
  }

  /** The place at `index` works: later attempts begin with it. */
  worked(index: number): void {
    this.#preferred = index;
  }
}

/** Such as `192.0.2.7:1080`, `[2001:db8::7]:1080` or the path of a Unix socket. */
export function formatPlace({ target, port }: ServerPlace): string {
  return typeof target === "string" ? target : formatEndpoint(target, port);
}
