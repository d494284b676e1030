// Views of native memory by address. Making one costs a call and work for the collector, and a
// link meets the same buffers again and again.

import { viewOf } from "@open-infra/jit";

const limit = 512;

/**
 * Remembers views. A view is an address and a length only: whether there is memory behind it is for
 * whoever names the address to know.
 */
export class MemoryViews {
  readonly #views = new Map<number, Uint8Array>();

  at(address: number, bytes: number): Uint8Array {
    const known = this.#views.get(address);
    if (known !== undefined && known.length >= bytes) {
      return known.length === bytes ? known : known.subarray(0, bytes);
    }
    if (this.#views.size >= limit) this.#views.clear();
    const view = viewOf(address, bytes);
    this.#views.set(address, view);
    return view;
  }
}
