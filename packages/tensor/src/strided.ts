// Arithmetic of shapes and strides, apart from any memory: row-major strides, density, and the walk
// over a strided view in runs of adjacent elements.

import { ShapeError } from "./errors.ts";

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

/** Whether a view with these strides visits adjacent elements in row-major order. */
export function isDense(shape: readonly number[], strides: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    const n = shape[i] as number;
    if (n !== 1 && strides[i] !== stride) return false;
    stride *= n;
  }
  return true;
}

/**
 * Number of elements of a shape.
 *
 * @throws ShapeError naming the dimension that is no count, or the shape if its size is unsafe.
 */
export function countElements(where: string, tensor: string, shape: readonly number[]): number {
  let count = 1;
  for (const [i, n] of shape.entries()) {
    if (!Number.isSafeInteger(n) || n < 0) {
      throw new ShapeError(where, tensor, `dimension ${i} = ${n}`, "a non-negative integer");
    }
    count *= n;
  }
  if (!Number.isSafeInteger(count * 8)) {
    throw new ShapeError(where, tensor, `[${shape}]`, "at most 2^50 elements");
  }
  return count;
}

/**
 * Calls `visit` for each run of adjacent elements of a view in row-major order: where the run
 * begins in the storage, how many came before it, and its length (the same for all runs).
 */
export function forEachRun(
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
  visit: (element: number, position: number, length: number) => void,
): void {
  if (shape.includes(0)) return;
  // Trailing dimensions that are dense together form the run.
  let outer = shape.length;
  let length = 1;
  while (outer > 0 && (shape[outer - 1] === 1 || strides[outer - 1] === length)) {
    length *= shape[--outer] as number;
  }
  const index = new Array<number>(outer).fill(0);
  let element = offset;
  for (let position = 0; ; position += length) {
    visit(element, position, length);
    let d = outer - 1;
    for (; d >= 0; d--) {
      index[d] = (index[d] as number) + 1;
      element += strides[d] as number;
      if ((index[d] as number) < (shape[d] as number)) break;
      element -= (shape[d] as number) * (strides[d] as number);
      index[d] = 0;
    }
    if (d < 0) return;
  }
}
