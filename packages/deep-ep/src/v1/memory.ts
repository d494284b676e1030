// The memory that peers write into and read from: blocks of symmetric windows, given out and taken
// back like a heap's. A window may be larger than the machine's memory, because its pages exist
// only once they are touched; blocks that come back are given out again first, so they stay warm.

import { viewOf } from "@open-infra/jit";
import type { Window } from "@open-infra/ranks";
import { byteSize, type DType, HostStorage, Tensor } from "@open-infra/tensor";

/** Rows begin on cache lines; large blocks on pages, which `trim` can give back. */
const lineBytes = 64;
const pageBytes = 4096;
const segmentShift = 2 ** 48;

/** Views of blocks that are kept for the next tensor of the same block. */
const pooledViewsMax = 64;

const alignTo = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;

/**
 * Sizes come in eighths of a power of two, so that blocks of nearly equal needs are the same again;
 * what is not needed is not touched.
 */
function sizeClass(atLeast: number): number {
  if (atLeast < 65_536) return alignTo(Math.max(atLeast, 1), lineBytes);
  const step = Math.max(pageBytes, 2 ** (Math.floor(Math.log2(atLeast)) - 3));
  return alignTo(atLeast, step);
}

/** A part of a segment. */
export interface Block {
  readonly segment: number;
  readonly offset: number;
  readonly bytes: number;
}

/** First-fit over one window: free ranges by offset, neighbours merged. */
class Segment {
  readonly window: Window;
  readonly capacity: number;
  #free: { offset: number; bytes: number }[];

  constructor(window: Window, from: number) {
    this.window = window;
    this.capacity = window.bytes - from;
    this.#free = this.capacity > 0 ? [{ offset: from, bytes: this.capacity }] : [];
  }

  allocate(bytes: number): number | undefined {
    const at = this.#free.findIndex((range) => range.bytes >= bytes);
    const range = this.#free[at];
    if (range === undefined) return undefined;
    const { offset } = range;
    if (range.bytes === bytes) this.#free.splice(at, 1);
    else this.#free[at] = { offset: offset + bytes, bytes: range.bytes - bytes };
    return offset;
  }

  release(offset: number, bytes: number): void {
    let at = this.#free.findIndex((range) => range.offset > offset);
    if (at < 0) at = this.#free.length;
    this.#free.splice(at, 0, { offset, bytes });
    const join = (i: number): void => {
      const [a, b] = [this.#free[i], this.#free[i + 1]];
      if (a === undefined || b === undefined || a.offset + a.bytes !== b.offset) return;
      this.#free.splice(i, 2, { offset: a.offset, bytes: a.bytes + b.bytes });
    };
    join(at);
    join(at - 1);
  }

  get free(): readonly { readonly offset: number; readonly bytes: number }[] {
    return this.#free;
  }
}

/** A rank's blocks, over one window or several. */
export class SharedMemory {
  readonly #segments: Segment[] = [];
  readonly #addresses: Tensor<"i64"> = Tensor.empty([32], "i64");
  /** Blocks whose views nobody holds any more, though nobody disposed them. */
  readonly #forgotten = new FinalizationRegistry(
    ({ block, token }: { readonly block: Block; readonly token: object }) => {
      this.#live.delete(token);
      this.release(block);
    },
  );
  readonly #views = new Map<number, Uint8Array>();
  readonly #live = new Map<object, WeakRef<HostStorage>>();
  #used = 0;

  /** Adds a window; what lies before `from` is not given out. */
  add(window: Window, from = 0): void {
    this.#addresses.raw()[this.#segments.length] = BigInt(window.address);
    this.#segments.push(new Segment(window, alignTo(from, pageBytes)));
  }

  /** Addresses of the segments' windows, for kernels. */
  get segments(): Tensor<"i64"> {
    return this.#addresses;
  }

  get capacityBytes(): number {
    return this.#segments.reduce((sum, { capacity }) => sum + capacity, 0);
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** A block, or undefined if no window has room. */
  allocate(atLeast: number): Block | undefined {
    return this.#take(sizeClass(atLeast)) ?? this.#take(alignTo(Math.max(atLeast, 1), lineBytes));
  }

  #take(bytes: number): Block | undefined {
    for (const [segment, part] of this.#segments.entries()) {
      const offset = part.allocate(bytes);
      if (offset === undefined) continue;
      this.#used += bytes;
      return { segment, offset, bytes };
    }
    return undefined;
  }

  release(block: Block): void {
    this.#used -= block.bytes;
    this.#segments[block.segment]?.release(block.offset, block.bytes);
  }

  /** How kernels name a block. */
  placeOf(block: Block): number {
    return block.segment * segmentShift + block.offset;
  }

  addressOf(block: Block): number {
    const { window } = this.#segments[block.segment] as Segment;
    return window.dataAddress(block.offset);
  }

  /** The place of memory that is part of a segment, else −1. */
  placeOfAddress(address: number): number {
    for (const [segment, { window }] of this.#segments.entries()) {
      const offset = address - window.dataAddress();
      if (offset >= 0 && offset < window.bytes) return segment * segmentShift + offset;
    }
    return -1;
  }

  /** A tensor over a block, which it returns when disposed or forgotten. */
  tensor<D extends DType>(block: Block, shape: readonly number[], dtype: D): Tensor<D> {
    const count = shape.reduce((product, n) => product * n, 1);
    const view = this.#view(block);
    const token = {};
    this.#forgotten.register(view.buffer, { block, token }, token);
    const storage = new HostStorage(view.subarray(0, byteSize(dtype, count)), () => {
      this.#forgotten.unregister(token);
      this.#live.delete(token);
      this.#keepView(block, view);
      this.release(block);
    });
    storage.address = this.addressOf(block);
    this.#live.set(token, new WeakRef(storage));
    return new Tensor({ dtype, shape, storage });
  }

  /**
   * A view that nobody else holds a tensor of. Fresh ones cost garbage collections, as the engine
   * counts their bytes as its own.
   */
  #view(block: Block): Uint8Array {
    const key = this.placeOf(block);
    const kept = this.#views.get(key);
    if (kept === undefined || kept.byteLength !== block.bytes) {
      return viewOf(this.addressOf(block), block.bytes);
    }
    this.#views.delete(key);
    return kept;
  }

  #keepView(block: Block, view: Uint8Array): void {
    this.#views.set(this.placeOf(block), view);
    if (this.#views.size <= pooledViewsMax) return;
    const [oldest] = this.#views.keys();
    if (oldest !== undefined) this.#views.delete(oldest);
  }

  /** Address and bytes of each free range of whole pages, for `trim`. */
  freeRanges(): bigint[] {
    return this.#segments.flatMap(({ window, free }) =>
      free.flatMap(({ offset, bytes }) => {
        const from = alignTo(offset, pageBytes);
        const end = Math.floor((offset + bytes) / pageBytes) * pageBytes;
        return end > from ? [BigInt(window.dataAddress(from)), BigInt(end - from)] : [];
      }),
    );
  }

  /** Disposes what is still held; gives the windows, which the caller closes. */
  close(): readonly Window[] {
    for (const storage of [...this.#live.values()]) storage.deref()?.[Symbol.dispose]();
    const windows = this.#segments.map(({ window }) => window);
    this.#segments.length = 0;
    this.#views.clear();
    return windows;
  }
}

/** Several blocks that are wanted together: all or none. */
export class Reservation {
  readonly #memory: SharedMemory;
  readonly #blocks: Block[] = [];
  #missing = 0;
  #wanted = 0;

  constructor(memory: SharedMemory) {
    this.#memory = memory;
  }

  /** A block, or undefined for no bytes or no room. */
  take(bytes: number): Block | undefined {
    if (bytes === 0) return undefined;
    this.#wanted += bytes;
    const block = this.#memory.allocate(bytes);
    if (block === undefined) this.#missing += bytes;
    else this.#blocks.push(block);
    return block;
  }

  get complete(): boolean {
    return this.#missing === 0;
  }

  /** Bytes of windows that would have been enough, with what is in use. */
  get neededBytes(): number {
    const taken = this.#blocks.reduce((sum, { bytes }) => sum + bytes, 0);
    return this.#memory.usedBytes - taken + this.#wanted + 64 * pageBytes;
  }

  release(): void {
    for (const block of this.#blocks) this.#memory.release(block);
    this.#blocks.length = 0;
  }
}
