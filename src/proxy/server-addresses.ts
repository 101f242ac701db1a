/**
 * The addresses of a proxy's name, shared by all that connect to it. Attempts start at the one that worked last; a flow
 * that meets a dead one goes on to the next, and each is tried once a flow.
 */
import type { IpBytes } from "../stack/flow/address.ts";

export class ServerAddresses {
  readonly #list: readonly IpBytes[];
  #preferred = 0;

  /** @param list in order of preference; empty where there is no proxy */
  constructor(list: readonly IpBytes[]) {
    this.#list = list;
  }

  get count(): number {
    return this.#list.length;
  }

  /** Index of the address to begin with. */
  get preferred(): number {
    return this.#preferred;
  }

  /** Index behind `index`, from the last to the first. */
  after(index: number): number {
    return (index + 1) % this.#list.length;
  }

  /** @throws RangeError when there is no such address */
  at(index: number): IpBytes {
    const address = this.#list[index];
    if (address === undefined) throw new RangeError(`proxy address ${index} of ${this.#list.length}`);
    return address;
  }

  /** The address at `index` works: later attempts begin with it. */
  worked(index: number): void {
    this.#preferred = index;
  }
}
