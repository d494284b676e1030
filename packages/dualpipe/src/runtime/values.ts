// Values across threads: tensors go as references to shared memory, everything else as structured
// clones. Functions cannot go, and are refused by the path at which they lie.

import { InputError } from "@open-infra/errors";
import { type DType, HostStorage, Tensor } from "@open-infra/tensor";
import type { MicroBatch } from "./micro-batches.ts";

/** A tensor as it crosses: its bytes are shared, not copied. */
export interface SharedTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A dense tensor over shared memory; bytes that are not shared yet are copied once. */
export function shareTensor(tensor: Tensor): SharedTensor {
  const dense = tensor.contiguous();
  const own = dense.bytes();
  const bytes = own.buffer instanceof SharedArrayBuffer ? own : dense.clone().bytes();
  return { dtype: tensor.dtype, shape: tensor.shape, bytes };
}

/** The tensor on the other side, over the same memory. */
export function unshareTensor({ dtype, shape, bytes }: SharedTensor): Tensor {
  return new Tensor({ dtype, shape, storage: new HostStorage(bytes) });
}

/** Micro-batches by direction, as they cross. */
export type SharedBatches = readonly (readonly [number, readonly (readonly SharedTensor[])[]])[];

export function shareBatches(
  batches: Iterable<readonly [number, readonly MicroBatch[]]>,
): SharedBatches {
  return [...batches].map(([direction, list]) => [direction, list.map((b) => b.map(shareTensor))]);
}

export function unshareBatches(batches: SharedBatches): Map<number, readonly MicroBatch[]> {
  return new Map(
    batches.map(([direction, list]) => [direction, list.map((b) => b.map(unshareTensor))]),
  );
}

/** The key that marks a tensor inside a packed value. */
const mark = "@open-infra/tensor";

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * A value for `postMessage`: tensors in arrays and plain objects become copies in shared memory, a
 * snapshot that later changes do not touch.
 *
 * @param path How the value is called in an error.
 * @throws InputError where it holds a function.
 */
export function packValue(path: string, value: unknown): unknown {
  if (typeof value === "function") {
    const allowed =
      "plain data; functions cannot cross threads, export them from the stage's module";
    throw new InputError(path, "a function", allowed);
  }
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Tensor) return { [mark]: shareTensor(value.clone()) };
  if (Array.isArray(value)) return value.map((one, i) => packValue(`${path}[${i}]`, one));
  if (!isPlain(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, packValue(`${path}.${key}`, one)]),
  );
}

/** The value again. */
export function unpackValue(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(unpackValue);
  if (!isPlain(value)) return value;
  const tensor = (value as Record<string, unknown>)[mark];
  if (tensor !== undefined) return unshareTensor(tensor as SharedTensor);
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, unpackValue(one)]));
}
