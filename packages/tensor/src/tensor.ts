// A tensor is a shape, strides and a dtype over a storage. Views share the storage; nothing here
// computes. Element conversion goes through convert.ts, kernels live in the packages above.

import { convertInto, decodeInto, type EncodeOptions, encodeInto } from "./convert.ts";
import { byteSize, type DType, dtypeBits, type RawArrays, rawView } from "./dtype.ts";
import { ConversionError, ShapeError, StorageError } from "./errors.ts";
import { HostStorage, type Storage } from "./storage.ts";
import { contiguousStrides, countElements, forEachRun, isDense } from "./strided.ts";

/** What a view is made of. */
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

/** A typed, strided view of a storage; see the package's README for the rules. */
export class Tensor<D extends DType = DType> implements Disposable {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
  readonly storage: Storage;
  readonly name: string | undefined;
  /** Number of elements. */
  readonly size: number;
  /** What `raw` returned last: index tensors are looked into at every launch. */
  #raw: RawArrays[D] | undefined;

  constructor(init: TensorInit & { readonly dtype: D }) {
    this.dtype = init.dtype;
    this.shape = init.shape;
    this.strides = init.strides ?? contiguousStrides(init.shape);
    this.storage = init.storage;
    this.name = init.name;
    this.size = countElements("Tensor", this.label, init.shape);
    // An empty view has no first element; counting from the start keeps it inside its storage.
    this.offset = this.size === 0 ? 0 : (init.offset ?? 0);
    this.#checkBounds();
  }

  /** Contiguous host memory for the caller to fill; its bytes are zero. */
  static empty<D extends DType>(shape: readonly number[], dtype: D, name?: string): Tensor<D> {
    const count = countElements("Tensor.empty", name ?? "tensor", shape);
    const storage = HostStorage.allocate(byteSize(dtype, count));
    return new Tensor({ dtype, shape, storage, name });
  }

  /**
   * A contiguous host tensor holding `values` converted to `dtype`, by the rules of `encodeInto`.
   *
   * @throws ShapeError if their number does not fit, ConversionError if a value does not.
   */
  static from<D extends DType>(
    values: ArrayLike<number>,
    shape: readonly number[],
    dtype: D,
    name?: string,
    options: EncodeOptions = {},
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
    named(tensor, () => encodeInto(dtype, values, tensor.raw(), options));
    return tensor;
  }

  get rank(): number {
    return this.shape.length;
  }

  /** Byte length of a contiguous tensor of this shape and dtype. */
  get byteLength(): number {
    return byteSize(this.dtype, this.size);
  }

  /**
   * Byte offset of the first element in the storage.
   *
   * @throws ShapeError for an `e2m1` view that begins in the middle of a byte.
   */
  get byteOffset(): number {
    if (!this.#startsOnByte) {
      throw new ShapeError(
        "Tensor.byteOffset",
        this.label,
        `an e2m1 view from element ${this.offset}`,
        "a view from an even element, as two share a byte; call contiguous() first",
      );
    }
    return (this.offset * dtypeBits[this.dtype]) / 8;
  }

  /** Whether the elements lie densely in row-major order, from the start of a byte. */
  get isContiguous(): boolean {
    return isDense(this.shape, this.strides) && this.#startsOnByte;
  }

  /** Size of dimension `i`; negative counts from the end. */
  dim(i: number): number {
    return this.shape[this.#axis("Tensor.dim", i)] as number;
  }

  /** Stride of dimension `i` in elements; negative counts from the end. */
  stride(i: number): number {
    return this.strides[this.#axis("Tensor.stride", i)] as number;
  }

  /** The raw elements of a contiguous host tensor, sharing memory. */
  raw(): RawArrays[D] {
    if (this.#raw !== undefined && !this.storage.disposed) return this.#raw;
    const bytes = this.bytes();
    const elementBytes = Math.max(1, dtypeBits[this.dtype] / 8);
    if (bytes.byteOffset % elementBytes !== 0) {
      throw new StorageError(
        `${this.describe()} begins at byte ${bytes.byteOffset} of its buffer; ` +
          `expected a multiple of ${elementBytes}`,
      );
    }
    this.#raw = rawView(this.dtype, bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return this.#raw;
  }

  /** The bytes of a contiguous host tensor, sharing memory. */
  bytes(): Uint8Array {
    const all = this.#hostBytes();
    if (!this.isContiguous) {
      throw new ShapeError(
        "Tensor.bytes",
        this.label,
        `strided [${this.strides}] from element ${this.offset}`,
        "a contiguous tensor; call contiguous() first",
      );
    }
    return new Uint8Array(all.buffer, all.byteOffset + this.byteOffset, this.byteLength);
  }

  /** All elements as numbers in row-major order, a copy. */
  toFloat32(): Float32Array {
    const dense = this.contiguous();
    const out = new Float32Array(this.size);
    decodeInto(this.dtype, dense.raw(), out);
    return out;
  }

  /**
   * All elements as numbers in row-major order, a copy; exact for every dtype but `i64` beyond
   * 2^53.
   */
  toFloat64(): Float64Array {
    const dense = this.contiguous();
    const out = new Float64Array(this.size);
    decodeInto(this.dtype, dense.raw(), out);
    return out;
  }

  /**
   * A contiguous copy in another dtype, by the rules of `encodeInto`; bit by bit in the same one.
   */
  to<E extends DType>(dtype: E, options: EncodeOptions = {}): Tensor<E> {
    const out = Tensor.empty(this.shape, dtype, this.name);
    const dense = this.contiguous();
    named(this, () => convertInto(this.dtype, dense.raw(), dtype, out.raw(), this.size, options));
    return out;
  }

  /** This tensor if contiguous, else a dense copy. */
  contiguous(): Tensor<D> {
    if (this.isContiguous) return this;
    const from = this.#hostBytes();
    const out = Tensor.empty(this.shape, this.dtype, this.name);
    const to = out.bytes();
    forEachRun(this.shape, this.strides, this.offset, (element, position, length) =>
      copyElements(this.dtype, from, element, to, position, length),
    );
    return out;
  }

  /** A dense copy, always with memory of its own. */
  clone(): Tensor<D> {
    if (!this.isContiguous) return this.contiguous();
    const out = Tensor.empty(this.shape, this.dtype, this.name);
    out.bytes().set(this.bytes());
    return out;
  }

  /** Sets every element to `value`, converted by the rules of `encodeInto`. */
  fill(value: number, options: EncodeOptions = {}): this {
    const to = this.#hostBytes();
    // Two elements, so that those of e2m1 fill a whole byte.
    const pair = Tensor.from([value, value], [2], this.dtype, this.name, options).bytes();
    forEachRun(this.shape, this.strides, this.offset, (element, _position, length) => {
      copyElements(this.dtype, pair, 0, to, element, 1);
      for (let done = 1; done < length; done *= 2) {
        const count = Math.min(done, length - done);
        copyElements(this.dtype, to, element, to, element + done, count);
      }
    });
    return this;
  }

  /**
   * Copies all elements of a tensor of the same shape into this one, converting by the rules of
   * `encodeInto` if the dtypes differ. Either may be strided, and they may overlap.
   */
  copyFrom(source: Tensor, options: EncodeOptions = {}): this {
    if (`${source.shape}` !== `${this.shape}`) {
      throw new ShapeError("Tensor.copyFrom", source.label, `[${source.shape}]`, `[${this.shape}]`);
    }
    const to = this.#hostBytes();
    let dense: Tensor = source;
    if (source.dtype !== this.dtype) dense = source.to(this.dtype, options);
    else if (source.storage === this.storage) dense = source.clone();
    const from = dense.contiguous().bytes();
    forEachRun(this.shape, this.strides, this.offset, (element, position, length) =>
      copyElements(this.dtype, from, position, to, element, length),
    );
    return this;
  }

  /** The same elements under another shape; the tensor must be contiguous. */
  reshape(shape: readonly number[]): Tensor<D> {
    const count = countElements("Tensor.reshape", this.label, shape);
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

  /**
   * Elements `start` to `end` (exclusive) of dimension `d`, sharing memory. A negative `d` counts
   * from the end; `start` and `end` do not.
   */
  slice(d: number, start: number, end: number): Tensor<D> {
    const axis = this.#axis("Tensor.slice", d);
    const n = this.shape[axis] as number;
    const whole = Number.isSafeInteger(start) && Number.isSafeInteger(end);
    if (!whole || start < 0 || start > end || end > n) {
      throw new ShapeError(
        "Tensor.slice",
        this.label,
        `[${this.shape}], asked for ${start}..${end} of dimension ${d}`,
        `a range inside 0..${n}`,
      );
    }
    const offset = this.offset + start * (this.strides[axis] as number);
    return this.#view(this.shape.with(axis, end - start), this.strides, offset);
  }

  /** Element `i` (from the start) of dimension `d`, with that dimension dropped, sharing memory. */
  select(d: number, i: number): Tensor<D> {
    const axis = this.#axis("Tensor.select", d);
    const n = this.shape[axis] as number;
    if (!Number.isSafeInteger(i) || i < 0 || i >= n) {
      throw new ShapeError(
        "Tensor.select",
        this.label,
        `[${this.shape}], asked for element ${i} of dimension ${d}`,
        n === 0 ? "a dimension that is not empty" : `an index from 0 to ${n - 1}`,
      );
    }
    const offset = this.offset + i * (this.strides[axis] as number);
    return this.#view(this.shape.toSpliced(axis, 1), this.strides.toSpliced(axis, 1), offset);
  }

  /** Two dimensions swapped, sharing memory; negative ones count from the end. */
  transpose(a: number, b: number): Tensor<D> {
    const i = this.#axis("Tensor.transpose", a);
    const j = this.#axis("Tensor.transpose", b);
    const swap = (of: readonly number[]): number[] =>
      of.with(i, of[j] as number).with(j, of[i] as number);
    return this.#view(swap(this.shape), swap(this.strides), this.offset);
  }

  /** The tensor's name, or 'tensor'. */
  get label(): string {
    return this.name ?? "tensor";
  }

  /** Name, dtype and shape, for messages. */
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

  get #startsOnByte(): boolean {
    return this.dtype !== "e2m1" || this.offset % 2 === 0;
  }

  /** Index of dimension `d`, which may count from the end. */
  #axis(where: string, d: number): number {
    const axis = d < 0 ? d + this.shape.length : d;
    if (this.shape[axis] !== undefined) return axis;
    throw new ShapeError(
      where,
      this.label,
      `[${this.shape}], asked for dimension ${d}`,
      this.rank === 0 ? "a tensor with dimensions" : `${-this.rank} to ${this.rank - 1}`,
    );
  }

  #hostBytes(): Uint8Array {
    if (!(this.storage instanceof HostStorage)) {
      throw new StorageError(`${this.describe()} lives on a device; copy it to the host first`);
    }
    if (this.storage.disposed) {
      throw new StorageError(`${this.describe()} was used after its memory was disposed`);
    }
    return this.storage.bytes;
  }

  #checkBounds(): void {
    const { shape, strides, offset } = this;
    const integers = strides.every(Number.isSafeInteger) && Number.isSafeInteger(offset);
    if (strides.length !== shape.length || !integers || offset < 0) {
      throw new ShapeError(
        "Tensor",
        this.label,
        `[${shape}] with strides [${strides}] from element ${offset}`,
        "one integer stride a dimension and a non-negative offset",
      );
    }
    if (this.size === 0) return;
    let last = offset;
    let first = offset;
    for (let i = 0; i < shape.length; i++) {
      const span = ((shape[i] as number) - 1) * (strides[i] as number);
      if (span > 0) last += span;
      else first += span;
    }
    if (first < 0 || byteSize(this.dtype, last + 1) > this.storage.byteLength) {
      throw new ShapeError(
        "Tensor",
        this.label,
        `[${shape}] with strides [${strides}] from element ${offset} of ${this.dtype}`,
        `a view inside its ${this.storage.byteLength} bytes`,
      );
    }
  }
}

/** Names the tensor in a conversion error from `convert`. */
function named(tensor: Tensor, convert: () => void): void {
  try {
    convert();
  } catch (error) {
    throw error instanceof ConversionError ? error.at(error.index, tensor.label) : error;
  }
}

/** Copies adjacent elements between byte arrays; two `e2m1` share a byte, the even one low. */
function copyElements(
  dtype: DType,
  from: Uint8Array,
  fromElement: number,
  to: Uint8Array,
  toElement: number,
  count: number,
): void {
  if (dtype !== "e2m1") {
    const width = dtypeBits[dtype] / 8;
    to.set(from.subarray(fromElement * width, (fromElement + count) * width), toElement * width);
    return;
  }
  for (let i = 0; i < count; i++) {
    const source = fromElement + i;
    const target = toElement + i;
    const code = ((from[source >>> 1] as number) >>> ((source & 1) * 4)) & 0xf;
    const shift = (target & 1) * 4;
    const kept = (to[target >>> 1] as number) & (0xf0 >>> shift);
    to[target >>> 1] = kept | (code << shift);
  }
}
