// A batch cut into micro-batches along one dimension, and put together again.

import { InputError } from "@open-infra/errors";
import { Tensor } from "@open-infra/tensor";

/** The tensors of one micro-batch. */
export type MicroBatch = readonly Tensor[];

/** The micro-batches of a step themselves, instead of a batch to cut; shapes may differ. */
export interface MicroBatchList {
  readonly microBatches: readonly MicroBatch[];
}

/** A whole batch as tensors that are cut along the batch dimension, or its micro-batches. */
export type Batch = readonly Tensor[] | MicroBatchList;

/** Builds a schedule; what it says of `numMicroBatches` is about the step's `numChunks`. */
export function namingChunks<T>(build: () => T): T {
  try {
    return build();
  } catch (error) {
    if (!(error instanceof InputError) || error.parameter !== "numMicroBatches") throw error;
    throw new InputError("numChunks", error.got, error.allowed, { cause: error });
  }
}

function isList(batch: Batch): batch is MicroBatchList {
  return !Array.isArray(batch);
}

function checkTensors(parameter: string, tensors: readonly unknown[]): void {
  tensors.forEach((tensor, i) => {
    if (tensor instanceof Tensor) return;
    throw new InputError(`${parameter}[${i}]`, typeof tensor, "a Tensor");
  });
}

/**
 * Cuts `batch` into `count` micro-batches along dimension `batchDim`.
 *
 * @throws InputError where the dimension is missing or not a multiple of `count`, or where a list
 *   has another length.
 */
export function splitBatch(
  parameter: string,
  batch: Batch,
  count: number,
  batchDim: number,
): readonly MicroBatch[] {
  if (isList(batch)) {
    const { microBatches } = batch;
    if (microBatches.length !== count) {
      throw new InputError(`${parameter}.microBatches`, `${microBatches.length} long`, `${count}`);
    }
    microBatches.forEach((one, i) => {
      checkTensors(`${parameter}.microBatches[${i}]`, one);
    });
    return microBatches;
  }
  if (batch.length === 0) throw new InputError(parameter, "empty", "at least one tensor");
  checkTensors(parameter, batch);
  batch.forEach((tensor, i) => {
    const size = tensor.shape[batchDim];
    if (size !== undefined && size > 0 && size % count === 0) return;
    throw new InputError(
      `${parameter}[${i}]`,
      `[${tensor.shape}] with ${size ?? "no"} rows in dimension ${batchDim}`,
      `a multiple of the ${count} micro-batches it is cut into`,
    );
  });
  return Array.from({ length: count }, (_, i) =>
    batch.map((tensor) => {
      const rows = tensor.dim(batchDim) / count;
      return tensor.slice(batchDim, i * rows, (i + 1) * rows).contiguous();
    }),
  );
}

/**
 * Micro-batches put together along `batchDim`, tensor by tensor.
 *
 * @throws InputError where their number, dtypes or other dimensions differ.
 */
export function joinBatch(
  parameter: string,
  microBatches: readonly MicroBatch[],
  batchDim: number,
): readonly Tensor[] {
  const [first] = microBatches;
  if (first === undefined) return [];
  return first.map((model, t) => {
    const parts = microBatches.map((microBatch, i) => {
      const part = microBatch[t];
      const fits =
        part !== undefined &&
        microBatch.length === first.length &&
        part.dtype === model.dtype &&
        part.rank > batchDim &&
        `${part.shape.with(batchDim, 0)}` === `${model.shape.with(batchDim, 0)}`;
      if (fits) return part;
      const like = `${model.dtype}[${model.shape}]`;
      const wanted = `${like} but for dimension ${batchDim}, as in the first`;
      const got = part === undefined ? "absent" : `${part.dtype}[${part.shape}]`;
      throw new InputError(`${parameter}[${t}] of micro-batch ${i}`, got, wanted);
    });
    const rows = parts.reduce((sum, part) => sum + part.dim(batchDim), 0);
    const joined = Tensor.empty(model.shape.with(batchDim, rows), model.dtype, model.name);
    let at = 0;
    for (const part of parts) {
      const next = at + part.dim(batchDim);
      joined.slice(batchDim, at, next).copyFrom(part);
      at = next;
    }
    return joined;
  });
}
