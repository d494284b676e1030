// Where a tensor's bytes live. Host storage is a (shared) array buffer that both JavaScript and
// native kernels read; device storage is an opaque handle owned by a device backend.

import { StorageError } from "./errors.ts";

/** A block of memory with one owner. Disposing it makes every tensor over it unusable. */
export interface Storage extends Disposable {
  readonly kind: "host" | "device";
  readonly byteLength: number;
  readonly disposed: boolean;
}

/**
 * Memory that JavaScript can read. Shared by default, so that worker threads see the same bytes.
 */
export class HostStorage implements Storage {
  readonly kind = "host";
  readonly byteLength: number;
  #bytes: Uint8Array | undefined;
  readonly #release: (() => void) | undefined;
  /** Native address of the first byte; filled in by the FFI driver, 0 until then. */
  address = 0;

  /** Wraps existing memory; `release` runs once on disposal (for mapped or foreign memory). */
  constructor(bytes: Uint8Array, release?: () => void) {
    this.#bytes = bytes;
    this.byteLength = bytes.byteLength;
    this.#release = release;
  }

  static allocate(byteLength: number): HostStorage {
    try {
      return new HostStorage(new Uint8Array(new SharedArrayBuffer(byteLength)));
    } catch (cause) {
      throw new StorageError(`cannot allocate ${byteLength} bytes of host memory`, { cause });
    }
  }

  get bytes(): Uint8Array {
    if (this.#bytes === undefined) throw new StorageError("host memory was used after disposal");
    return this.#bytes;
  }

  get disposed(): boolean {
    return this.#bytes === undefined;
  }

  [Symbol.dispose](): void {
    if (this.#bytes === undefined) return;
    this.#bytes = undefined;
    this.address = 0;
    this.#release?.();
  }
}
