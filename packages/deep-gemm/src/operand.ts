// What a factor of a product may be: a plain tensor, or FP8 or FP4 codes with float32 scales, and
// how many elements share a scale. Shapes are the callers' business.

import { DTypeError, ShapeError, type Tensor } from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";

/** Elements along K (and, for weights, rows along N) that share one scale by default. */
export const SCALE_BLOCK = 128;

/** Codes, e4m3 or e2m1, and their f32 scales: value = code · scale of its block. */
export interface ScaledTensor {
  readonly data: Tensor;
  readonly scales: Tensor;
}

/** A factor of a product. */
export type Operand = Tensor | ScaledTensor;

/** How many rows (of A or B), and how many elements along K, share a scale. */
export interface Grain {
  readonly mn: number;
  readonly k: number;
}

/** The grains of both factors. */
export interface Grains {
  readonly a: Grain;
  readonly b: Grain;
}

/** Recipe (1, 128, 128): a scale per row of A, and per 128 rows of B, for each 128 k. */
export const defaultGrains: Grains = {
  a: { mn: 1, k: SCALE_BLOCK },
  b: { mn: SCALE_BLOCK, k: SCALE_BLOCK },
};

/** Recipe (1, 1, 128), "1D1D": a scale per row of either factor, for each 128 k. */
export const rowGrains: Grains = { a: defaultGrains.a, b: { mn: 1, k: SCALE_BLOCK } };

/** How scales are laid out, as the original says it; give `recipe`, or `recipeA` with `recipeB`. */
export interface RecipeOptions {
  /** Rows of A, rows of B (weights' output channels), and k that share a scale. */
  readonly recipe?: readonly [granM: number, granN: number, granK: number] | undefined;
  /** Rows and k of A that share a scale. */
  readonly recipeA?: readonly [granM: number, granK: number] | undefined;
  /** Rows and k of B that share a scale. */
  readonly recipeB?: readonly [granN: number, granK: number] | undefined;
}

/**
 * The grains that a recipe asks for, `otherwise` without one.
 *
 * @throws ArgumentError if `recipe` meets `recipeA` or `recipeB`, or one of those is missing.
 */
export function grainsOf(operation: string, options: RecipeOptions, otherwise: Grains): Grains {
  const { recipe, recipeA, recipeB } = options;
  if (recipe === undefined && recipeA === undefined && recipeB === undefined) return otherwise;
  if (
    recipe === undefined ? recipeA === undefined || recipeB === undefined : (recipeA ?? recipeB)
  ) {
    const given = Object.entries({ recipe, recipeA, recipeB }).filter(([, r]) => r !== undefined);
    const got = given.map(([name]) => name).join(" and ");
    throw new ArgumentError(operation, "recipe", got, "recipe alone, or recipeA and recipeB");
  }
  if (recipe === undefined) {
    const [a, b] = [recipeA, recipeB] as [readonly [number, number], readonly [number, number]];
    return { a: { mn: a[0], k: a[1] }, b: { mn: b[0], k: b[1] } };
  }
  return { a: { mn: recipe[0], k: recipe[2] }, b: { mn: recipe[1], k: recipe[2] } };
}

/** Along K a grain is a multiple of this, so that a vector has one scale. */
const GRAIN_STEP = 32;

/** Requires positive whole grains that the kernels can apply. @throws ArgumentError */
export function expectGrain(operation: string, argument: string, { mn, k }: Grain): void {
  if (!Number.isSafeInteger(mn) || mn < 1 || mn > 1 << 20) {
    const got = `${mn} rows`;
    throw new ArgumentError(operation, `${argument}'s recipe`, got, "1 to 1048576 rows");
  }
  if (!Number.isSafeInteger(k) || k < GRAIN_STEP || k % GRAIN_STEP !== 0 || k > 1 << 20) {
    const allowed = `a multiple of ${GRAIN_STEP} up to 1048576`;
    throw new ArgumentError(operation, `${argument}'s recipe`, `${k} along K`, allowed);
  }
}

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

/** The same view of data and of scales. */
export function viewOf(operand: Operand, view: (tensor: Tensor) => Tensor): Operand {
  if (!isScaled(operand)) return view(operand);
  return { data: view(operand.data), scales: view(operand.scales) };
}

/** Blocks of 128 that cover `n`. */
export function scaleBlocks(n: number): number {
  return Math.ceil(n / SCALE_BLOCK);
}

const plainDTypes: readonly string[] = ["f32", "bf16", "f16"];
const scaledDTypes: readonly string[] = ["e4m3fn", "e2m1"];

/** The name of an operand's elements in messages. */
export function dataName(argument: string, operand: Operand): string {
  return isScaled(operand) ? `${argument}.data` : argument;
}

/**
 * Requires a plain float tensor, or e4m3 or e2m1 codes with f32 scales.
 *
 * @throws DTypeError
 */
export function expectOperand(operation: string, argument: string, operand: Operand): void {
  const { dtype } = dataOf(operand);
  if (!isScaled(operand)) {
    if (plainDTypes.includes(dtype)) return;
    const allowed = "f32, bf16 or f16, or {data: e4m3fn or e2m1, scales: f32}";
    throw new DTypeError(operation, argument, dtype, allowed);
  }
  if (!scaledDTypes.includes(dtype)) {
    throw new DTypeError(operation, `${argument}.data`, dtype, "e4m3fn or e2m1");
  }
  if (operand.scales.dtype !== "f32") {
    throw new DTypeError(operation, `${argument}.scales`, operand.scales.dtype, "f32");
  }
}

/** Whether elements along dimension `d` are adjacent, or at most one. */
function isUnit(tensor: Tensor, d: number): boolean {
  return tensor.dim(d) <= 1 || tensor.stride(d) === 1;
}

/** Whether the kernel reads an operand along K; else its rows, dimension `row`, are adjacent. */
export function isKMajor(tensor: Tensor, row: number): boolean {
  return isUnit(tensor, -1) || !isUnit(tensor, row);
}

/**
 * Requires elements that are adjacent along K or along the rows, dimension `row`; e2m1 must lie
 * along K, with every row on a byte of its own.
 *
 * @throws ShapeError
 */
export function expectMajor(
  operation: string,
  argument: string,
  operand: Operand,
  row: number,
): void {
  const data = dataOf(operand);
  if (data.size === 0) return;
  const name = dataName(argument, operand);
  const along = isUnit(data, -1);
  if (!along && (data.dtype === "e2m1" || !isUnit(data, row))) {
    const allowed =
      data.dtype === "e2m1"
        ? "stride 1 along K; pack it along K (transposePackedFp4)"
        : "stride 1 along K or along the rows";
    throw new ShapeError(operation, name, `strides [${data.strides}]`, allowed);
  }
  if (data.dtype !== "e2m1") return;
  const odd = data.strides.some((s, i) => i < data.rank - 1 && data.dim(i) > 1 && s % 2 !== 0);
  if (odd || data.offset % 2 !== 0) {
    const got = `strides [${data.strides}] from element ${data.offset}`;
    throw new ShapeError(operation, name, got, "rows that begin at even elements, two to a byte");
  }
}
