// What a factor of a product may be: a plain tensor, or e4m3 codes with float32 scales. Shapes are
// the callers' business; this file knows types and the size of a scaled block.

import { DTypeError, expectRows, type Tensor } from "@open-infra/tensor";

/** Elements along K (and, for weights, rows along N) that share one scale. */
export const SCALE_BLOCK = 128;

/** e4m3 codes and their f32 scales: value = code · scale of its block. */
export interface ScaledTensor {
  readonly data: Tensor;
  readonly scales: Tensor;
}

/** A factor of a product. */
export type Operand = Tensor | ScaledTensor;

/** True for codes with scales. */
export function isScaled(operand: Operand): operand is ScaledTensor {
  return "scales" in operand;
}

/** The elements of an operand, without the scales. */
export function dataOf(operand: Operand): Tensor {
  return isScaled(operand) ? operand.data : operand;
}

/** The scales of an operand, null if it has none. */
export function scalesOf(operand: Operand): Tensor | null {
  return isScaled(operand) ? operand.scales : null;
}

/** Blocks of 128 that cover `n`. */
export function scaleBlocks(n: number): number {
  return Math.ceil(n / SCALE_BLOCK);
}

const plainDTypes = ["f32", "bf16", "f16"] as const;

/**
 * Requires a plain float tensor, or e4m3 codes with f32 scales, with unit stride along K.
 *
 * @throws DTypeError, ShapeError
 */
export function expectOperand(operation: string, argument: string, operand: Operand): void {
  const data = dataOf(operand);
  if (!isScaled(operand)) {
    if (!(plainDTypes as readonly string[]).includes(data.dtype)) {
      const allowed = "f32, bf16 or f16, or {data: e4m3fn, scales: f32}";
      throw new DTypeError(operation, argument, data.dtype, allowed);
    }
  } else {
    if (data.dtype !== "e4m3fn") {
      throw new DTypeError(operation, `${argument}.data`, data.dtype, "e4m3fn");
    }
    if (operand.scales.dtype !== "f32") {
      throw new DTypeError(operation, `${argument}.scales`, operand.scales.dtype, "f32");
    }
  }
  expectRows(operation, isScaled(operand) ? `${argument}.data` : argument, data);
}
