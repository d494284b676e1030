// Shared memory for messages, used again and again. A sender copies a message into a buffer, the
// receiver reads it in place and marks it free with one atomic store; no message goes back. V8 does
// not count shared buffers when it decides to collect garbage, so a fresh one for each message
// would pile up (NOTES.md has the measurement).

import { byteSize, type DType, HostStorage, Tensor } from "@open-infra/tensor";
import type { Message } from "./transport.ts";

/** The state word at the start of a buffer, then padding, so that tensors are aligned. */
const headerBytes = 64;
const alignment = 64;
const free = 0;
const taken = 1;

const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/** A tensor of a message: what it is and where its bytes begin. Plain data. */
export interface PackedTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly byteOffset: number;
}

/** A message as it crosses threads: shared memory is passed by reference. */
export interface PackedMessage {
  readonly buffer: SharedArrayBuffer;
  readonly tensors: readonly PackedTensor[];
}

/** The buffers of one sending thread. */
export class SharedBufferPool {
  /** By capacity, a power of two. */
  readonly #buffers = new Map<number, SharedArrayBuffer[]>();
  #allocatedBytes = 0;

  /** Bytes of all buffers ever made; they are kept until the thread ends. */
  get allocatedBytes(): number {
    return this.#allocatedBytes;
  }

  /** Copies tensors into a free buffer. */
  pack(tensors: readonly Tensor[]): PackedMessage {
    let bytes = headerBytes;
    const packed = tensors.map(({ dtype, shape, byteLength }) => {
      const byteOffset = bytes;
      bytes += aligned(byteLength);
      return { dtype, shape, byteOffset };
    });
    const buffer = this.#take(bytes);
    const target = new Uint8Array(buffer);
    tensors.forEach((tensor, i) => {
      target.set(tensor.bytes(), (packed[i] as PackedTensor).byteOffset);
    });
    return { buffer, tensors: packed };
  }

  #take(bytes: number): SharedArrayBuffer {
    const capacity = 2 ** Math.max(10, Math.ceil(Math.log2(bytes)));
    let buffers = this.#buffers.get(capacity);
    if (buffers === undefined) {
      buffers = [];
      this.#buffers.set(capacity, buffers);
    }
    for (const buffer of buffers) {
      const state = new Int32Array(buffer, 0, 1);
      if (Atomics.load(state, 0) !== free) continue;
      Atomics.store(state, 0, taken);
      return buffer;
    }
    const buffer = new SharedArrayBuffer(capacity);
    Atomics.store(new Int32Array(buffer, 0, 1), 0, taken);
    buffers.push(buffer);
    this.#allocatedBytes += capacity;
    return buffer;
  }
}

/** The tensors of a message, over its memory; `release` gives the buffer back to its sender. */
export function unpackMessage({ buffer, tensors }: PackedMessage): Message {
  const storages: HostStorage[] = [];
  const views = tensors.map(({ dtype, shape, byteOffset }) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const bytes = new Uint8Array(buffer, byteOffset, byteSize(dtype, count));
    const storage = new HostStorage(bytes);
    storages.push(storage);
    return new Tensor({ dtype, shape, storage });
  });
  let released = false;
  return {
    tensors: views,
    release: () => {
      if (released) return;
      released = true;
      // Whoever kept a tensor gets an error, not another message's numbers.
      for (const storage of storages) storage[Symbol.dispose]();
      Atomics.store(new Int32Array(buffer, 0, 1), 0, free);
    },
  };
}
