/**
 * Sockets by small integers: descriptor, generation and flags in columns. A handle is used again after its socket is
 * closed; the generation tells events of the old one apart.
 */

/** The socket is open. Other bits belong to the user of the table. */
export const OPEN = 1;
/** In a list of handles with input waiting: it is not given away again before the list was walked. */
export const LISTED = 2;

const FIRST_LENGTH = 256;

export class HandleTable {
  fds: Int32Array = new Int32Array(FIRST_LENGTH).fill(-1);
  generations: Int32Array = new Int32Array(FIRST_LENGTH);
  flags: Uint16Array = new Uint16Array(FIRST_LENGTH);
  readonly #free: number[] = [];
  /** Closed while they were in a list. */
  readonly #parked: number[] = [];
  /** Handles below this one were given away at least once. */
  used = 0;
  /** Open handles. */
  open = 0;

  /** Gives a handle away; its descriptor is set by the caller. */
  allocate(flags: number): number {
    let handle = this.#free.pop();
    if (handle === undefined) {
      handle = this.used++;
      if (handle === this.fds.length) this.#grow();
    }
    this.generations[handle] = ((this.generations[handle] as number) + 1) | 0;
    this.flags[handle] = flags | OPEN;
    this.open++;
    return handle;
  }

  #grow(): void {
    const length = this.fds.length * 2;
    const fds = new Int32Array(length).fill(-1);
    fds.set(this.fds);
    this.fds = fds;
    const generations = new Int32Array(length);
    generations.set(this.generations);
    this.generations = generations;
    const flags = new Uint16Array(length);
    flags.set(this.flags);
    this.flags = flags;
  }

  /** Takes a handle back whose socket is closed. */
  forget(handle: number): void {
    this.fds[handle] = -1;
    this.flags[handle] = this.flag(handle) & LISTED;
    this.open--;
    if (this.flag(handle) === 0) this.#free.push(handle);
    else this.#parked.push(handle);
  }

  fd(handle: number): number {
    return this.fds[handle] as number;
  }

  flag(handle: number): number {
    return this.flags[handle] as number;
  }

  isOpen(handle: number): boolean {
    return (this.flag(handle) & OPEN) !== 0;
  }

  /** Whether `handle` is open and still the socket it was. */
  isSame(handle: number, generation: number): boolean {
    return this.generations[handle] === generation && this.isOpen(handle);
  }

  /** Puts a handle into a list, unless it is in one. */
  list(handle: number, list: number[]): void {
    const flags = this.flag(handle);
    if ((flags & LISTED) !== 0) return;
    this.flags[handle] = flags | LISTED;
    list.push(handle);
  }

  /** After a list was walked: handles closed meanwhile can be given away. */
  unpark(): void {
    let kept = 0;
    for (const handle of this.#parked) {
      if ((this.flag(handle) & LISTED) === 0) this.#free.push(handle);
      else this.#parked[kept++] = handle;
    }
    this.#parked.length = kept;
  }
}
