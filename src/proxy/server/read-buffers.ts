/**
 * Buffers that sockets are read into. One small buffer is shared by all sockets: what is read into it is copied before
 * it is written on, so an idle connection holds none. A socket whose reads fill the buffer gets one of its own, four
 * times as large each time up to 1 MiB, from which data is written on without a copy; with short reads it shrinks back.
 *
 *     shared 16 KiB  <->  64 KiB  <->  256 KiB  <->  1 MiB
 *
 * Large reads are what makes bulk fast: 1 MiB a call moved 20 Gbit/s where 64 KiB moved 9-12 on the same machine.
 */

const KIB = 1024;
/** Size of the shared buffer, bytes. */
export const SHARED_BYTES: number = 16 * KIB;
const SIZES: readonly number[] = [64 * KIB, 256 * KIB, 1024 * KIB];
/** All buffers that sockets own, bytes; beyond it sockets share the small one, which is slower and nothing else. */
const LIMIT_BYTES = 64 * 1024 * KIB;
/** Free buffers kept for the next bulk transfer, bytes. */
const KEEP_BYTES = 8 * 1024 * KIB;

export class ReadBuffers {
  readonly shared: Uint8Array = Buffer.allocUnsafeSlow(SHARED_BYTES);
  readonly #free: readonly Uint8Array[][] = SIZES.map(() => []);
  #freeBytes = 0;
  #ownedBytes = 0;

  /** Bytes in buffers that sockets own. */
  get ownedBytes(): number {
    return this.#ownedBytes;
  }

  /** The buffer for the next read of a socket that has just read `length` bytes into `buffer` and is done with them. */
  next(buffer: Uint8Array, length: number): Uint8Array {
    if (length === buffer.length) return this.#larger(buffer);
    // A quarter would do; an eighth keeps a flow of mixed reads from going up and down.
    return buffer !== this.shared && length * 8 < buffer.length ? this.#smaller(buffer) : buffer;
  }

  /** Takes back the buffer of a closed socket. @param reusable false when a write may still read from it */
  release(buffer: Uint8Array, reusable: boolean): void {
    if (buffer === this.shared) return;
    this.#ownedBytes -= buffer.length;
    if (!reusable || this.#freeBytes + buffer.length > KEEP_BYTES) return;
    this.#freeBytes += buffer.length;
    this.#free[SIZES.indexOf(buffer.length)]?.push(buffer);
  }

  #larger(buffer: Uint8Array): Uint8Array {
    const size = SIZES[SIZES.indexOf(buffer.length) + 1];
    const held = buffer === this.shared ? 0 : buffer.length;
    if (size === undefined || this.#ownedBytes - held + size > LIMIT_BYTES) return buffer;
    this.release(buffer, true);
    return this.#take(size);
  }

  #smaller(buffer: Uint8Array): Uint8Array {
    const size = SIZES[SIZES.indexOf(buffer.length) - 1];
    this.release(buffer, true);
    return size === undefined ? this.shared : this.#take(size);
  }

  #take(size: number): Uint8Array {
    this.#ownedBytes += size;
    const free = this.#free[SIZES.indexOf(size)]?.pop();
    if (free === undefined) return Buffer.allocUnsafeSlow(size);
    this.#freeBytes -= size;
    return free;
  }
}
