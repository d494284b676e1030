// Memory of results. What a caller disposes is kept for later results of about the same size: its
// pages are there already, and getting new ones from the system takes longer than filling them.

import { addressOf } from "@open-infra/jit";
import { byteSize, type DType, HostStorage, Tensor } from "@open-infra/tensor";

/** Rows start on a cache line, which writing past the caches needs. */
const alignmentBytes = 64;
const smallBytes = 4096;

interface Block {
  readonly bytes: Uint8Array;
  readonly address: number;
}

/** Gives out tensors and takes their memory back. */
export class ResultMemory {
  readonly #free: Block[] = [];
  readonly #limitBytes: number;
  #freeBytes = 0;

  /** @param limitBytes How much to keep of what was disposed. */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** A tensor whose elements are whatever was there. */
  tensor<D extends DType>(
    dtype: D,
    shape: readonly number[],
    name: string,
    strides?: readonly number[],
  ): Tensor<D> {
    const elements =
      strides === undefined
        ? shape.reduce((a, b) => a * b, 1)
        : shape.reduce((last, n, i) => last + Math.max(0, n - 1) * (strides[i] as number), 1);
    const block = this.#take(byteSize(dtype, elements));
    const storage = new HostStorage(block.bytes, () => this.#giveBack(block));
    storage.address = block.address;
    return new Tensor({ dtype, shape, storage, name, ...(strides !== undefined && { strides }) });
  }

  /** Lets go of what is kept. */
  clear(): void {
    this.#free.length = 0;
    this.#freeBytes = 0;
  }

  #take(bytes: number): Block {
    let best = -1;
    this.#free.forEach((block, i) => {
      const fits = block.bytes.length >= bytes && block.bytes.length <= 2 * bytes + smallBytes;
      const smaller = this.#free[best]?.bytes.length ?? Number.POSITIVE_INFINITY;
      if (fits && block.bytes.length < smaller) best = i;
    });
    const [found] = best < 0 ? [] : this.#free.splice(best, 1);
    if (found !== undefined) {
      this.#freeBytes -= found.bytes.length;
      return found;
    }
    // Some room, so that the next result, a little larger, fits too.
    const room = Math.max(alignmentBytes, Math.ceil(bytes * 1.0625));
    const buffer = new Uint8Array(new SharedArrayBuffer(room + alignmentBytes));
    const shift = -addressOf(buffer) & (alignmentBytes - 1);
    const aligned = buffer.subarray(shift, shift + room);
    return { bytes: aligned, address: addressOf(buffer) + shift };
  }

  #giveBack(block: Block): void {
    if (this.#freeBytes + block.bytes.length > this.#limitBytes) return;
    this.#free.push(block);
    this.#freeBytes += block.bytes.length;
  }
}
