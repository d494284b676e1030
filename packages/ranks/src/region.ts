// Memory that ranks of one host share. It has no name: the maker's process holds it by a file
// descriptor, other processes map it through that, threads of the same process use its address. So
// nothing can be left behind, whoever is killed.

import { viewOf } from "@open-infra/jit";
import { type RanksNative, Words } from "./native.ts";

/** How others find a region; plain data for the rendezvous. */
export interface RegionName {
  readonly pid: number;
  readonly fd: number;
  readonly address: number;
  readonly bytes: number;
}

/** A mapped region. */
export class Region implements Disposable {
  readonly address: number;
  readonly bytes: number;
  readonly #native: RanksNative;
  /** The maker's descriptor; −1 if the memory is another process's. */
  readonly #fd: number;
  #view: Uint8Array | undefined;
  #open = true;

  private constructor(
    native: RanksNative,
    at: { readonly address: number; readonly bytes: number; readonly fd: number },
  ) {
    this.#native = native;
    this.address = at.address;
    this.bytes = at.bytes;
    this.#fd = at.fd;
  }

  /** Zeroed memory of at least one byte. @throws RanksSystemError if it is not granted. */
  static create(native: RanksNative, atLeast: number): Region {
    const bytes = Math.max(atLeast, 1);
    const what = `making ${bytes} bytes of shared memory`;
    const words = native.must(what, "oi_region_create", new Words([bytes], 2));
    return new Region(native, { address: words.at(0), bytes, fd: words.at(1) });
  }

  /** Another rank's region. @throws RanksSystemError */
  static open(native: RanksNative, name: RegionName): Region {
    const { pid, fd, address, bytes } = name;
    if (pid === process.pid) {
      native.call("oi_region_retain", new Words([address, bytes]));
      return new Region(native, { address, bytes, fd });
    }
    const what = `mapping ${bytes} bytes of process ${pid}`;
    const words = native.must(what, "oi_region_map", new Words([bytes, pid, fd]));
    return new Region(native, { address: words.at(0), bytes, fd: -1 });
  }

  /** For the maker's rendezvous. */
  get name(): RegionName {
    return { pid: process.pid, fd: this.#fd, address: this.address, bytes: this.bytes };
  }

  /** All of it as bytes; not to be touched after disposal. */
  view(): Uint8Array {
    this.#view ??= viewOf(this.address, this.bytes);
    return this.#view;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    const symbol = this.#fd < 0 ? "oi_region_unmap" : "oi_region_release";
    this.#native.call(symbol, new Words([this.address, this.bytes, this.#fd]));
  }
}
