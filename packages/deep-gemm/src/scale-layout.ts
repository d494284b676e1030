// Scales as the original's GPU kernels want them in memory: MN-major with padded columns, f32 or
// packed ue8m0. The CPU kernels read scales of any strides, so here these layouts serve exchange:
// checkpoints, files and buffers shared with a GPU. Values are never changed but by
// `notPowerOfTwo`.

import { expectTensor, ShapeError, Tensor } from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";
import {
  type PackUe8m0Options,
  packUe8m0ToInt,
  SCALES_PER_INT,
  type ScalePolicy,
} from "./ue8m0.ts";

/** The least multiple of `step` that is at least `x`. */
export function align(x: number, step: number): number {
  return Math.ceil(x / step) * step;
}

/** x / y, rounded up. */
export function ceilDiv(x: number, y: number): number {
  return Math.ceil(x / y);
}

/** Bytes that a column of a TMA layout begins at a multiple of. */
const tmaBytes = 16;

/** Elements of `elementBytes` that `x` of them are padded to (`get_tma_aligned_size`). */
export function getTmaAlignedSize(x: number, elementBytes: number): number {
  if (![1, 2, 4, 8, 16].includes(elementBytes)) {
    const allowed = "1, 2, 4, 8 or 16";
    throw new ArgumentError("getTmaAlignedSize", "elementBytes", `${elementBytes}`, allowed);
  }
  return align(x, tmaBytes / elementBytes);
}

/**
 * New memory for [..., mn, columns] with mn adjacent: strides (1, aligned mn) and, of a batch, all.
 */
function emptyMnMajor(shape: readonly number[], dtype: "f32" | "i32", name?: string): Tensor {
  const [mn, columns] = shape.slice(-2) as [number, number];
  const aligned = getTmaAlignedSize(mn, 4);
  const batch = shape.slice(0, -2);
  const padded = Tensor.empty([...batch, columns, aligned], dtype, name);
  return padded.slice(-1, 0, mn).transpose(-2, -1);
}

function isMnMajor(sf: Tensor): boolean {
  const [mn, columns] = sf.shape.slice(-2) as [number, number];
  const aligned = getTmaAlignedSize(mn, 4);
  const strides = [...(sf.rank === 3 ? [aligned * columns] : []), 1, aligned];
  return strides.every((s, i) => s === sf.strides[i]);
}

function expectMatrices(operation: string, sf: Tensor, dtypes: readonly ("f32" | "i32")[]): void {
  const pattern = sf.rank === 3 ? ["G", "mn", "sf_k"] : ["mn", "sf_k"];
  expectTensor(operation, "sf", sf, dtypes, pattern, {});
}

/**
 * f32 scales [mn, K'] or [G, mn, K'] with mn adjacent: the same shape and values, strides (1, mn
 * aligned to 16 bytes), of a batch (aligned · K', 1, aligned). Scales that lie so already are
 * returned as they are; else in new memory, zero in the padding (DeepGEMM
 * `get_mn_major_tma_aligned_tensor`).
 *
 * @throws DTypeError, ShapeError
 */
export function getMnMajorTmaAlignedTensor(sf: Tensor): Tensor {
  expectMatrices("getMnMajorTmaAlignedTensor", sf, ["f32"]);
  if (isMnMajor(sf)) return sf;
  return emptyMnMajor(sf.shape, "f32", sf.name).copyFrom(sf);
}

/**
 * The same as powers of two, four ue8m0 to an i32 along K': [.., mn, ceil(K'/4)], mn adjacent and
 * aligned (DeepGEMM `get_mn_major_tma_aligned_packed_ue8m0_tensor`).
 *
 * @throws DTypeError, ShapeError, ArgumentError naming a scale that is no power of two.
 */
export function getMnMajorTmaAlignedPackedUe8m0Tensor(
  sf: Tensor,
  options: PackUe8m0Options = {},
): Tensor {
  expectMatrices("getMnMajorTmaAlignedPackedUe8m0Tensor", sf, ["f32"]);
  const packed = packUe8m0ToInt(sf, options);
  return emptyMnMajor(packed.shape, "i32", sf.name).copyFrom(packed);
}

/** Options of {@link getKGroupedMnMajorTmaAlignedPackedUe8m0Tensor}. */
export interface KGroupedPackOptions extends PackUe8m0Options {
  /** f32 [Σ ceil(k/granK), mn]: the scales of group after group, mn adjacent or not. */
  readonly sf: Tensor;
  /** k of each group, 0 allowed. */
  readonly ks: readonly number[];
  /** k that share a scale. @default 128 */
  readonly granK?: number | undefined;
}

/**
 * Scales of groups along K, each packed alone, so that no int32 has scales of two groups: i32 [Σ
 * ceil(ceil(k/granK)/4), mn], strides (mn aligned to 16 bytes, 1) (DeepGEMM
 * `get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor`).
 *
 * @throws DTypeError, ShapeError, ArgumentError
 */
export function getKGroupedMnMajorTmaAlignedPackedUe8m0Tensor(
  options: KGroupedPackOptions,
): Tensor {
  const operation = "getKGroupedMnMajorTmaAlignedPackedUe8m0Tensor";
  const { sf, ks, granK = 128 } = options;
  if (!Number.isSafeInteger(granK) || granK < 1) {
    throw new ArgumentError(operation, "granK", `${granK}`, "a positive integer");
  }
  ks.forEach((k, g) => {
    if (Number.isSafeInteger(k) && k >= 0) return;
    throw new ArgumentError(operation, `ks[${g}]`, `${k}`, "a size of 0 or more");
  });
  const counts = ks.map((k) => ceilDiv(k, granK));
  const total = counts.reduce((a, b) => a + b, 0);
  expectTensor(operation, "sf", sf, ["f32"], [total, "mn"], {});
  const mn = sf.dim(1);
  const words = counts.reduce((a, count) => a + ceilDiv(count, SCALES_PER_INT), 0);
  const out = emptyMnMajor([mn, words], "i32", sf.name).transpose(0, 1);
  let [from, to] = [0, 0];
  for (const count of counts) {
    const group = sf.slice(0, from, from + count).transpose(0, 1);
    const packed = packUe8m0ToInt(group, options);
    out.slice(0, to, to + packed.dim(1)).copyFrom(packed.transpose(0, 1));
    from += count;
    to += packed.dim(1);
  }
  return out;
}

/** Options of {@link transformSfIntoRequiredLayout}. */
export interface TransformSfOptions {
  /** f32 [G?, ceil(mn/granMn), ceil(k/granK)], or packed i32 that is only checked. */
  readonly sf: Tensor;
  readonly mn: number;
  readonly k: number;
  /** (granM, granN, granK), with `isSfa` saying whose scales these are; or (granMn, granK). */
  readonly recipe: readonly [number, number, number] | readonly [number, number];
  /** For a recipe of three: whether `sf` belongs to A (granM) or to B (granN). */
  readonly isSfa?: boolean | undefined;
  /** Matrices in `sf`, its first dimension. @default none */
  readonly numGroups?: number | undefined;
  /**
   * What the kernel reads: f32 as Hopper's, or packed ue8m0 as Blackwell's. (The original asks the
   * machine.) @default "f32"
   */
  readonly target?: "f32" | "ue8m0" | undefined;
  /** Forbids turning f32 into ue8m0. @default false */
  readonly disableUe8m0Cast?: boolean | undefined;
  /** @default "reject" */
  readonly notPowerOfTwo?: ScalePolicy | undefined;
}

/**
 * Scales in the layout that a kernel of the original wants (`transform_sf_into_required_layout`):
 *
 * | target | sf             | becomes                                          |
 * | ------ | -------------- | ------------------------------------------------ |
 * | f32    | f32, (1, 128)  | {@link getMnMajorTmaAlignedTensor}               |
 * | f32    | f32, (128,128) | itself, checked                                  |
 * | ue8m0  | f32, (x, 32 or 128) | a scale for every row, packed and aligned   |
 * | ue8m0  | i32, (1, 32 or 128) | itself, checked to be packed and aligned    |
 *
 * @throws DTypeError, ShapeError; ArgumentError for any other combination.
 */
export function transformSfIntoRequiredLayout(options: TransformSfOptions): Tensor {
  const operation = "transformSfIntoRequiredLayout";
  const { sf, mn, k, numGroups, target = "f32" } = options;
  const [granMn, granK] = grainOf(operation, options);
  const packed = sf.dtype === "i32";
  const columns = ceilDiv(k, packed ? granK * SCALES_PER_INT : granK);
  const lead = numGroups === undefined ? [] : [numGroups];
  expectTensor(operation, "sf", sf, ["f32", "i32"], [...lead, ceilDiv(mn, granMn), columns], {});
  if (target === "f32" && !packed && granK === 128) {
    if (granMn === 1) return getMnMajorTmaAlignedTensor(sf);
    if (granMn === 128) return sf;
  }
  if (target === "ue8m0" && (granK === 32 || granK === 128)) {
    if (packed && granMn === 1) return expectAligned(operation, sf);
    if (!packed && options.disableUe8m0Cast !== true) {
      const policy = { notPowerOfTwo: options.notPowerOfTwo };
      return getMnMajorTmaAlignedPackedUe8m0Tensor(spreadRows(sf, mn, granMn), policy);
    }
  }
  const cast = options.disableUe8m0Cast === true ? ", ue8m0 cast disabled" : "";
  const got = `${sf.dtype} by (${granMn}, ${granK}) for ${target}${cast}`;
  const allowed =
    "f32 by (1, 128) or (128, 128) for f32; f32, or i32 by (1, …), along 32 or 128 for ue8m0";
  throw new ArgumentError(operation, "recipe", got, allowed);
}

function grainOf(operation: string, { recipe, isSfa }: TransformSfOptions): [number, number] {
  if (recipe.some((gran) => !Number.isSafeInteger(gran) || gran < 1)) {
    throw new ArgumentError(operation, "recipe", `(${recipe})`, "positive integers");
  }
  if (recipe.length === 2) return [recipe[0], recipe[1]];
  if (isSfa === undefined) {
    throw new ArgumentError(
      operation,
      "isSfa",
      "missing",
      "true or false beside a recipe of three",
    );
  }
  return [isSfa ? recipe[0] : recipe[1], recipe[2]];
}

function expectAligned(operation: string, sf: Tensor): Tensor {
  if (isMnMajor(sf)) return sf;
  const aligned = getTmaAlignedSize(sf.dim(-2), 4);
  const allowed = `mn adjacent and ${aligned} elements from column to column`;
  throw new ShapeError(operation, "sf", `strides [${sf.strides}]`, allowed);
}

/** [.., ceil(mn/gran), K'] as [.., mn, K'], each row `gran` times. */
function spreadRows(sf: Tensor, mn: number, gran: number): Tensor {
  if (gran === 1) return sf;
  const out = Tensor.empty([...sf.shape.slice(0, -2), mn, sf.dim(-1)], "f32", sf.name);
  for (let at = 0; at < mn; at++) {
    const row = Math.floor(at / gran);
    out.slice(-2, at, at + 1).copyFrom(sf.slice(-2, row, row + 1));
  }
  return out;
}
