// Many small tensors as few large operations, as data-parallel training needs it: gradients live in
// buckets whose allreduce begins as soon as the last of a bucket is there, while the backward pass
// goes on; or tensors that lie anywhere are fused into one operation.

import { InputError } from "@open-infra/errors";
import { type CommEvent, type CommKernel, defineCommKernel, doneEvent } from "@open-infra/ranks";
import { byteSize, type DType, dtypeBits, HostStorage, Tensor } from "@open-infra/tensor";
import { addressOfTensor, checkOperand } from "./operands.ts";
import type { HfReduce, ReduceOptions } from "./reducer.ts";
import { NativeTable } from "./tables.ts";

/** A gradient to come. */
export interface GradientSpec {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** How gradients are put into buckets. */
export interface BucketOptions extends Pick<ReduceOptions, "op" | "wire" | "algorithm"> {
  /** @default 25 MiB, as PyTorch's DDP */
  readonly bucketBytes?: number;
  /** The first bucket is smaller, so that communication begins early. @default 1 MiB */
  readonly firstBucketBytes?: number;
}

/** Tensors begin at multiples of this in a bucket. */
const alignBytes = 64;
const aligned = (bytes: number): number => Math.ceil(bytes / alignBytes) * alignBytes;

/**
 * Which gradients share a bucket, by index, in the order in which buckets are sent: the last
 * gradient first, because a backward pass ends with the first. A bucket holds one dtype.
 */
export function planBuckets(
  specs: readonly GradientSpec[],
  options: Pick<BucketOptions, "bucketBytes" | "firstBucketBytes"> = {},
): number[][] {
  const { bucketBytes = 25 << 20, firstBucketBytes = 1 << 20 } = options;
  const buckets: number[][] = [];
  const open = new Map<DType, { readonly bucket: number[]; bytes: number; limit: number }>();
  for (let i = specs.length - 1; i >= 0; i--) {
    const { shape, dtype } = specs[i] as GradientSpec;
    const bytes = aligned(
      byteSize(
        dtype,
        shape.reduce((product, dim) => product * dim, 1),
      ),
    );
    let at = open.get(dtype);
    if (at === undefined || at.bytes + bytes > at.limit) {
      at = { bucket: [], bytes: 0, limit: buckets.length === 0 ? firstBucketBytes : bucketBytes };
      buckets.push(at.bucket);
      open.set(dtype, at);
    }
    at.bucket.push(i);
    at.bytes += bytes;
  }
  return buckets;
}

interface Bucket {
  readonly indices: readonly number[];
  readonly tensor: Tensor;
  missing: number;
}

/** Gradients of one rank that are combined with those of all members, bucket by bucket. */
export class GradientBuckets {
  /** Where to write each gradient, in the order of the specs. */
  readonly gradients: readonly Tensor[];
  readonly #reducer: HfReduce;
  readonly #options: BucketOptions;
  readonly #buckets: readonly Bucket[];
  readonly #bucketOf: readonly number[];
  readonly #ready: boolean[];
  #next = 0;
  #last: CommEvent = doneEvent;

  private constructor(
    reducer: HfReduce,
    options: BucketOptions,
    buckets: readonly Bucket[],
    gradients: readonly Tensor[],
  ) {
    this.#reducer = reducer;
    this.#options = options;
    this.#buckets = buckets;
    this.gradients = gradients;
    const bucketOf = new Array<number>(gradients.length).fill(0);
    buckets.forEach(({ indices }, b) => {
      for (const i of indices) bucketOf[i] = b;
    });
    this.#bucketOf = bucketOf;
    this.#ready = gradients.map(() => false);
  }

  /** All ranks of the reducer's group do so together, with the same specs. */
  static async create(
    reducer: HfReduce,
    specs: readonly GradientSpec[],
    options: BucketOptions = {},
  ): Promise<GradientBuckets> {
    const gradients: Tensor[] = [];
    const buckets: Bucket[] = [];
    for (const indices of planBuckets(specs, options)) {
      const { dtype } = specs[indices[0] as number] as GradientSpec;
      const elementsOf = (i: number): number => {
        const { shape } = specs[i] as GradientSpec;
        const size = shape.reduce((product, dim) => product * dim, 1);
        return (aligned(byteSize(dtype, size)) * 8) / dtypeBits[dtype];
      };
      const all = indices.reduce((sum, i) => sum + elementsOf(i), 0);
      const tensor = await reducer.allocate([all], dtype);
      let offset = 0;
      for (const i of indices) {
        const { shape } = specs[i] as GradientSpec;
        gradients[i] = new Tensor({ dtype, shape, storage: tensor.storage, offset });
        offset += elementsOf(i);
      }
      buckets.push({ indices, tensor, missing: indices.length });
    }
    return new GradientBuckets(reducer, options, buckets, gradients);
  }

  get bucketCount(): number {
    return this.#buckets.length;
  }

  /** Buckets whose allreduce has begun in this step. */
  get begun(): number {
    return this.#next;
  }

  /**
   * Gradient `index` is complete. Once all of its bucket and of those before it are, the bucket's
   * allreduce begins: always in the same order, so that ranks may finish gradients in any.
   *
   * @throws InputError if it was ready already.
   */
  ready(index: number): void {
    if (this.#ready[index] !== false) {
      const got = this.#ready[index] ? `${index}, a second time` : `${index}`;
      throw new InputError("index", got, `each of 0 to ${this.#ready.length - 1} once a step`);
    }
    this.#ready[index] = true;
    const { op = "avg", wire, algorithm } = this.#options;
    const options = { op, ...(wire && { wire }), ...(algorithm && { algorithm }) };
    (this.#buckets[this.#bucketOf[index] as number] as Bucket).missing--;
    for (;;) {
      const bucket = this.#buckets[this.#next];
      if (bucket === undefined || bucket.missing > 0) return;
      this.#last = this.#reducer.allreduce(bucket.tensor, options);
      this.#next++;
    }
  }

  /**
   * Waits until all gradients are combined; then the next step may begin.
   *
   * @throws InputError naming gradients that were never ready; the group's failure.
   */
  async finish(): Promise<void> {
    const missing = this.#ready.flatMap((ready, i) => (ready ? [] : [i]));
    if (missing.length > 0) {
      throw new InputError("gradients", `without ${missing.join(", ")}`, "all ready");
    }
    await this.#last.finished();
    this.#next = 0;
    this.#ready.fill(false);
    for (const bucket of this.#buckets) bucket.missing = bucket.indices.length;
  }
}

const copyKernel: CommKernel<{ list: "ptr"; count: "i64" }> = defineCommKernel({
  name: "hfreduce_copy",
  source: new URL("../kernels/hfreduce_copy.c", import.meta.url),
  entry: "hfreduce_copy",
  params: { list: "ptr", count: "i64" },
});

/**
 * Combines tensors that lie anywhere, in place, as one operation for each dtype: copied into a
 * bucket, combined, copied back, all on the communication thread. All members bring the same
 * tensors in the same order.
 */
export function allreduceMany(
  reducer: HfReduce,
  tensors: readonly Tensor[],
  options: ReduceOptions = {},
): CommEvent {
  let last: CommEvent = doneEvent;
  for (const dtype of new Set(tensors.map((tensor) => tensor.dtype))) {
    const same = tensors.filter((tensor) => tensor.dtype === dtype && tensor.size > 0);
    const into: number[] = [];
    const back: number[] = [];
    const offsets: number[] = [];
    let bytes = 0;
    for (const tensor of same) {
      checkOperand("tensors", tensor, 1);
      offsets.push(bytes);
      bytes += aligned(tensor.byteLength);
    }
    const storage = HostStorage.allocate(bytes);
    const size = (bytes * 8) / dtypeBits[dtype];
    const bucket = new Tensor({ dtype, shape: [size], storage });
    const base = addressOfTensor(bucket);
    same.forEach((tensor, i) => {
      const at = addressOfTensor(tensor);
      const place = base + (offsets[i] as number);
      into.push(at, place, tensor.byteLength);
      back.push(place, at, tensor.byteLength);
    });
    const copy = (list: number[]): CommEvent => {
      const table = new NativeTable(list);
      const values = { list: table.address, count: same.length };
      return reducer.group.enqueue(copyKernel, {}, values, { keep: [table, same, bucket] });
    };
    copy(into);
    reducer.allreduce(bucket, options);
    last = copy(back);
  }
  return last;
}
