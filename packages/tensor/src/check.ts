// Argument checks that every operation runs before it launches anything. Dimension names bind on
// first sight and must agree afterwards, so that one line states an operation's shape rule.

import type { DType } from "./dtype.ts";
import { DTypeError, ShapeError } from "./errors.ts";
import type { Tensor } from "./tensor.ts";

/** Sizes bound so far, by name. */
export type Dims = Record<string, number>;

/**
 * Checks `tensor` against a shape pattern: a number is a required size, a name binds a size in
 * `dims` or must equal what it was bound to.
 *
 * @throws DTypeError, ShapeError naming the operation, the argument, what came and what is allowed.
 */
export function expectTensor(
  operation: string,
  argument: string,
  tensor: Tensor,
  allowed: readonly DType[],
  pattern: readonly (string | number)[],
  dims: Dims,
): void {
  if (tensor.dtype !== allowed[0] && !allowed.includes(tensor.dtype)) {
    throw new DTypeError(operation, argument, tensor.dtype, allowed.join(" or "));
  }
  const { shape } = tensor;
  let fits = shape.length === pattern.length;
  for (let i = 0; fits && i < pattern.length; i++) {
    const want = pattern[i] as string | number;
    const got = shape[i] as number;
    if (typeof want === "number") {
      fits = got === want;
      continue;
    }
    const bound = dims[want];
    if (bound === undefined) dims[want] = got;
    else fits = bound === got;
  }
  if (fits) return;
  const wanted = pattern.map((p) =>
    typeof p === "number" || dims[p] === undefined ? p : `${p}=${dims[p]}`,
  );
  throw new ShapeError(operation, argument, `[${shape}]`, `[${wanted.join(", ")}]`);
}

/** Requires unit stride in the last dimension, which every kernel here relies on. */
export function expectRows(operation: string, argument: string, tensor: Tensor): void {
  if (tensor.size > 0 && tensor.rank > 0 && tensor.dim(-1) > 1 && tensor.stride(-1) !== 1) {
    throw new ShapeError(
      operation,
      argument,
      `strides [${tensor.strides}]`,
      "stride 1 in the last dimension",
    );
  }
}

/** Requires a dense row-major tensor. */
export function expectContiguous(operation: string, argument: string, tensor: Tensor): void {
  if (!tensor.isContiguous) {
    throw new ShapeError(operation, argument, `strides [${tensor.strides}]`, "a contiguous tensor");
  }
}
