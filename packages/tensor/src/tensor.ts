// A tensor is a shape, strides and a dtype over a storage. Views share the storage; nothing here
// computes. Element conversion goes through convert.ts, kernels live in the packages above.

import { decodeInto, encodeInto } from "./convert.ts";
import { byteSize, type DType, dtypeBits, type RawArrays, rawView } from "./dtype.ts";
import { ShapeError, StorageError } from "./errors.ts";
import { HostStorage, type Storage } from "./storage.ts";

export interface TensorInit {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly storage: Storage;
  /** In elements; row-major when left out. */
  readonly strides?: readonly number[];
  /** Elements from the start of the storage. @default 0 */
  readonly offset?: number;
  /** Appears in error messages. */
  readonly name?: string | undefined;
}

/** Row-major strides, in elements. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= shape[i] as number;
  }
  return strides;
}

export class Tensor<D extends DType = DType> implements Disposable {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
  readonly storage: Storage;
  readonly name: string | undefined;
  /** Number of elements. */
  readonly size: number;

  constructor(init: TensorInit & { readonly dtype: D }) {
    this.dtype = init.dtype;
    this.shape = init.shape;
    this.strides = init.strides ?? contiguousStrides(init.shape);
    this.offset = init.offset ?? 0;
    this.storage = init.storage;
    this.name = init.name;
    this.size = init.shape.reduce((a, b) => a * b, 1);
    this.#checkBounds();
  }

  /** Uninitialised contiguous host memory (in fact zeroed by the allocator). */
  static empty<D extends DType>(shape: readonly number[], dtype: D, name?: string): Tensor<D> {
    for (const [i, n] of shape.entries()) {
      if (!Number.isSafeInteger(n) || n < 0) {
        throw new ShapeError(
          "Tensor.empty",
          name ?? "tensor",
          `dimension ${i} = ${n}`,
          "a non-negative integer",
        );
      }
    }
    const count = shape.reduce((a, b) => a * b, 1);
    const storage = HostStorage.allocate(byteSize(dtype, count));
    return new Tensor({ dtype, shape, storage, name });
  }

  /** A contiguous host tensor holding `values` converted (round to nearest even) to `dtype`. */
  static from<D extends DType>(
    values: ArrayLike<number>,
    shape: readonly number[],
    dtype: D,
    name?: string,
  ): Tensor<D> {
    const tensor = Tensor.empty(shape, dtype, name);
    if (values.length !== tensor.size) {
      throw new ShapeError(
        "Tensor.from",
        name ?? "values",
        `${values.length} values`,
        `${tensor.size} for shape [${shape}]`,
      );
    }
    encodeInto(dtype, values, tensor.raw());
    return tensor;
  }

  get rank(): number {
    return this.shape.length;
  }

  /** Byte length of a contiguous tensor of this shape and dtype. */
  get byteLength(): number {
    return byteSize(this.dtype, this.size);
  }

  /** Byte offset of the first element in the storage. */
  get byteOffset(): number {
    return (this.offset * dtypeBits[this.dtype]) / 8;
  }

  get isContiguous(): boolean {
    let stride = 1;
    for (let i = this.shape.length - 1; i >= 0; i--) {
      const n = this.shape[i] as number;
      if (n !== 1 && this.strides[i] !== stride) return false;
      stride *= n;
    }
    return true;
  }

  /** Size of dimension `i`; negative counts from the end. */
  dim(i: number): number {
    return this.shape[i < 0 ? i + this.shape.length : i] as number;
  }

  /** Stride of dimension `i` in elements; negative counts from the end. */
  stride(i: number): number {
    return this.strides[i < 0 ? i + this.strides.length : i] as number;
  }

  /** The raw elements of a contiguous host tensor, sharing memory. */
  raw(): RawArrays[D] {
    const bytes = this.bytes();
    return rawView(this.dtype, bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The bytes of a contiguous host tensor, sharing memory. */
  bytes(): Uint8Array {
    if (!(this.storage instanceof HostStorage)) {
      throw new StorageError(`${this.describe()} lives on a device; copy it to the host first`);
    }
    if (!this.isContiguous) {
      throw new ShapeError(
        "Tensor.bytes",
        this.label,
        `strided [${this.strides}]`,
        "a contiguous tensor; call contiguous() first",
      );
    }
    const all = this.storage.bytes;
    return new Uint8Array(all.buffer, all.byteOffset + this.byteOffset, this.byteLength);
  }

  /** All elements as numbers in row-major order, a copy. */
  toFloat32(): Float32Array {
    const dense = this.contiguous();
    const out = new Float32Array(this.size);
    decodeInto(this.dtype, dense.raw(), out);
    return out;
  }

  /** All elements as numbers in row-major order, a copy; exact for every dtype but `i64` beyond 2^53. */
  toFloat64(): Float64Array {
    const dense = this.contiguous();
    const out = new Float64Array(this.size);
    decodeInto(this.dtype, dense.raw(), out);
    return out;
  }

  /** A contiguous copy in another dtype, rounded to nearest even. */
  to<E extends DType>(dtype: E): Tensor<E> {
    const out = Tensor.empty(this.shape, dtype, this.name);
    encodeInto(dtype, this.toFloat64(), out.raw());
    return out;
  }

  /** This tensor if contiguous, else a dense copy. */
  contiguous(): Tensor<D> {
    if (this.isContiguous) return this;
    if (!(this.storage instanceof HostStorage)) {
      throw new StorageError(`${this.describe()} lives on a device; copy it to the host first`);
    }
    if (this.dtype === "e2m1") {
      throw new ShapeError(
        "Tensor.contiguous",
        this.label,
        "a strided e2m1 view",
        "a contiguous e2m1 tensor",
      );
    }
    const out = Tensor.empty(this.shape, this.dtype, this.name);
    const elementBytes = dtypeBits[this.dtype] / 8;
    const from = this.storage.bytes;
    const to = out.bytes();
    const inner = this.rank > 0 && this.stride(-1) === 1 ? this.dim(-1) : 1;
    const outerShape = inner === 1 ? this.shape : this.shape.slice(0, -1);
    const index = new Array<number>(outerShape.length).fill(0);
    const chunk = inner * elementBytes;
    for (let at = 0; at < to.length; at += chunk) {
      let element = this.offset;
      for (let d = 0; d < index.length; d++)
        element += (index[d] as number) * (this.strides[d] as number);
      to.set(from.subarray(element * elementBytes, element * elementBytes + chunk), at);
      for (let d = index.length - 1; d >= 0; d--) {
        index[d] = (index[d] as number) + 1;
        if ((index[d] as number) < (outerShape[d] as number)) break;
        index[d] = 0;
      }
    }
    return out;
  }

  /** The same elements under another shape; the tensor must be contiguous. */
  reshape(shape: readonly number[]): Tensor<D> {
    const count = shape.reduce((a, b) => a * b, 1);
    if (count !== this.size || !this.isContiguous) {
      throw new ShapeError(
        "Tensor.reshape",
        this.label,
        `[${this.shape}]${this.isContiguous ? "" : " (strided)"}`,
        `a contiguous tensor of ${count} elements for [${shape}]`,
      );
    }
    return this.#view(shape, contiguousStrides(shape), this.offset);
  }

  /** Elements `start` to `end` (exclusive) of dimension `d`, sharing memory. */
  slice(d: number, start: number, end: number): Tensor<D> {
    const n = this.dim(d);
    if (!(start >= 0 && start <= end && end <= n)) {
      throw new ShapeError(
        "Tensor.slice",
        this.label,
        `slice ${start}..${end} of dimension ${d}`,
        `a range inside 0..${n}`,
      );
    }
    const shape = this.shape.slice();
    shape[d] = end - start;
    return this.#view(shape, this.strides, this.offset + start * this.stride(d));
  }

  /** Element `i` of dimension `d`, with that dimension dropped, sharing memory. */
  select(d: number, i: number): Tensor<D> {
    const one = this.slice(d, i, i + 1);
    return this.#view(one.shape.toSpliced(d, 1), one.strides.toSpliced(d, 1), one.offset);
  }

  /** Two dimensions swapped, sharing memory. */
  transpose(a: number, b: number): Tensor<D> {
    const shape = this.shape.slice();
    const strides = this.strides.slice();
    [shape[a], shape[b]] = [this.dim(b), this.dim(a)];
    [strides[a], strides[b]] = [this.stride(b), this.stride(a)];
    return this.#view(shape, strides, this.offset);
  }

  /** The tensor's name, or 'tensor'. */
  get label(): string {
    return this.name ?? "tensor";
  }

  describe(): string {
    return `${this.label} ${this.dtype}[${this.shape}]`;
  }

  /** Disposes the storage, and with it every view of it. */
  [Symbol.dispose](): void {
    this.storage[Symbol.dispose]();
  }

  #view(shape: readonly number[], strides: readonly number[], offset: number): Tensor<D> {
    return new Tensor({
      dtype: this.dtype,
      shape,
      strides,
      offset,
      storage: this.storage,
      name: this.name,
    });
  }

  #checkBounds(): void {
    if (this.size === 0) return;
    let last = this.offset;
    let first = this.offset;
    for (let i = 0; i < this.shape.length; i++) {
      const span = ((this.shape[i] as number) - 1) * (this.strides[i] as number);
      if (span > 0) last += span;
      else first += span;
    }
    if (first < 0 || byteSize(this.dtype, last + 1) > this.storage.byteLength) {
      throw new ShapeError(
        "Tensor",
        this.label,
        `[${this.shape}] strides [${this.strides}] offset ${this.offset} ${this.dtype}`,
        `a view inside its ${this.storage.byteLength} bytes`,
      );
    }
  }
}
