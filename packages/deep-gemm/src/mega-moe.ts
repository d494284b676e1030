// A mixture of experts in one call (DeepGEMM's Mega MoE): tokens to their experts, gate and up
// projection, SwiGLU, down projection, and the weighted sum, on one rank. It is put together from
// the public products and casts, so it gives what they give; several ranks come with deep-ep.

import type { Device } from "@open-infra/jit";
import { expectContiguous, expectRows, expectTensor, Tensor } from "@open-infra/tensor";
import { perTokenCastToFp8 } from "./cast.ts";
import { ArgumentError } from "./errors.ts";
import { mGroupedBf16GemmNtContiguous, mGroupedFp8GemmNtContiguous } from "./grouped.ts";
import { combineRows, gateRows, gatherRows } from "./moe-rows.ts";
import type { ScaledTensor } from "./operand.ts";
import { withFloatScales } from "./packed-scales.ts";

/** Elements along K that share a scale, in activations and weights. */
const GRAN_K = 32;
const recipe = [1, 1, GRAN_K] as const;

/** What a buffer is made for. */
export interface MegaMoeBufferOptions {
  readonly numExperts: number;
  readonly numMaxTokensPerRank: number;
  readonly numTopk: number;
  /** Multiple of 128 with `fp8xfp4`. */
  readonly hidden: number;
  /** Multiple of 128 with `fp8xfp4`. */
  readonly intermediateHidden: number;
  /** @default "fp8xfp4" */
  readonly mmaType?: "fp8xfp4" | "bf16xbf16" | undefined;
}

/** Where tokens and their experts are written before a call; of one rank. */
export interface MegaMoeBuffer {
  readonly options: MegaMoeBufferOptions;
  /** e4m3fn, or bf16 with `bf16xbf16`, [numMaxTokensPerRank, hidden] */
  readonly x: Tensor;
  /** Packed ue8m0, i32 [numMaxTokensPerRank, hidden/128]; undefined with `bf16xbf16`. */
  readonly xSf: Tensor | undefined;
  /** i64 [numMaxTokensPerRank, numTopk]: experts, −1 for none. */
  readonly topkIdx: Tensor<"i64">;
  /** f32 [numMaxTokensPerRank, numTopk] */
  readonly topkWeights: Tensor<"f32">;
}

/**
 * Memory for the tokens of calls (DeepGEMM `get_symm_buffer_for_mega_moe`).
 *
 * @throws ArgumentError
 */
export function getSymmBufferForMegaMoe(options: MegaMoeBufferOptions): MegaMoeBuffer {
  const operation = "getSymmBufferForMegaMoe";
  const { numExperts, numMaxTokensPerRank: tokens, numTopk, hidden } = options;
  const { intermediateHidden, mmaType = "fp8xfp4" } = options;
  const sizes = { numExperts, numMaxTokensPerRank: tokens, numTopk, hidden, intermediateHidden };
  for (const [name, value] of Object.entries(sizes)) {
    const step = mmaType === "fp8xfp4" && /idden/.test(name) ? 4 * GRAN_K : 1;
    if (Number.isSafeInteger(value) && value > 0 && value % step === 0) continue;
    const allowed = step === 1 ? "a positive integer" : `a multiple of ${step}`;
    throw new ArgumentError(operation, name, `${value}`, allowed);
  }
  const plain = mmaType === "bf16xbf16";
  return {
    options,
    x: Tensor.empty([tokens, hidden], plain ? "bf16" : "e4m3fn", "x"),
    xSf: plain ? undefined : Tensor.empty([tokens, hidden / (4 * GRAN_K)], "i32", "xSf"),
    topkIdx: Tensor.empty([tokens, numTopk], "i64", "topkIdx"),
    topkWeights: Tensor.empty([tokens, numTopk], "f32", "topkWeights"),
  };
}

interface MegaMoeArgs<W> {
  /** bf16 [tokens, hidden], rows may be apart; all of it is written. */
  readonly y: Tensor;
  /** [numExperts, 2 · intermediateHidden, hidden]: gates, then values. */
  readonly l1Weights: W;
  /** [numExperts, hidden, intermediateHidden] */
  readonly l2Weights: W;
  /** Whose first rows are y's tokens. */
  readonly symBuffer: MegaMoeBuffer;
  /** i32 [numExperts]: each expert's tokens are added to it. */
  readonly cumulativeLocalExpertRecvStats?: Tensor | undefined;
  /** Gates above it, values beyond ± it, become it. @default none */
  readonly activationClamp?: number | undefined;
  /** Threads to use at most. @default the device's */
  readonly threads?: number | undefined;
}

/** Weights of e2m1 or e4m3 with a scale per row and 32 k, f32 or packed ue8m0. */
export type Fp8Fp4MegaMoeArgs = MegaMoeArgs<ScaledTensor>;

/** Weights of bf16. */
export type Bf16MegaMoeArgs = MegaMoeArgs<Tensor>;

/** Which tokens each expert gets, in order, and where each of their choices lies. */
interface Routing {
  /** i32 [numExperts]: where each expert's rows end. */
  readonly ends: Tensor;
  /** i32 [rows] */
  readonly tokens: Tensor;
  /** f32 [rows] */
  readonly weights: Tensor;
  /** i32 [tokens, numTopk]: the row, or −1. */
  readonly rows: Tensor;
  readonly counts: Int32Array;
}

function routingOf(
  operation: string,
  { topkIdx, topkWeights, options }: MegaMoeBuffer,
  count: number,
): Routing {
  const { numExperts, numTopk } = options;
  const chosen = Array.from(topkIdx.raw().subarray(0, count * numTopk), Number);
  const counts = new Int32Array(numExperts);
  chosen.forEach((expert, i) => {
    if (expert === -1) return;
    if (expert < 0 || expert >= numExperts) {
      const at = `topkIdx[${Math.floor(i / numTopk)}, ${i % numTopk}]`;
      throw new ArgumentError(operation, at, `${expert}`, `-1 to ${numExperts - 1}`);
    }
    counts[expert] = (counts[expert] as number) + 1;
  });
  const ends = Tensor.empty([numExperts], "i32");
  const next = new Int32Array(numExperts);
  let total = 0;
  counts.forEach((n, expert) => {
    next[expert] = total;
    total += n;
    ends.raw()[expert] = total;
  });
  const tokens = Tensor.empty([total], "i32");
  const weights = Tensor.empty([total], "f32");
  const rows = Tensor.empty([count, numTopk], "i32");
  const given = topkWeights.raw();
  chosen.forEach((expert, i) => {
    const row = expert < 0 ? -1 : (next[expert] as number);
    rows.raw()[i] = row;
    if (row < 0) return;
    next[expert] = row + 1;
    tokens.raw()[row] = Math.floor(i / numTopk);
    weights.raw()[row] = given[i] as number;
  });
  return { ends, tokens, weights, rows, counts };
}

function checkCall(operation: string, args: MegaMoeArgs<unknown>, l1: Tensor, l2: Tensor): void {
  const { y, symBuffer, cumulativeLocalExpertRecvStats: stats, activationClamp } = args;
  const { numExperts, numMaxTokensPerRank, hidden, intermediateHidden } = symBuffer.options;
  expectTensor(operation, "y", y, ["bf16"], ["tokens", hidden], {});
  expectRows(operation, "y", y);
  if (y.dim(0) > numMaxTokensPerRank) {
    const allowed = `at most ${numMaxTokensPerRank}, numMaxTokensPerRank`;
    throw new ArgumentError(operation, "y", `${y.dim(0)} tokens`, allowed);
  }
  const shapes = [
    ["l1Weights", l1, [numExperts, 2 * intermediateHidden, hidden]],
    ["l2Weights", l2, [numExperts, hidden, intermediateHidden]],
  ] as const;
  for (const [name, tensor, shape] of shapes) {
    expectTensor(operation, name, tensor, [tensor.dtype], shape, {});
  }
  if (activationClamp !== undefined && !(activationClamp > 0)) {
    const got = `${activationClamp}`;
    throw new ArgumentError(operation, "activationClamp", got, "a positive number");
  }
  if (stats === undefined) return;
  expectTensor(operation, "cumulativeLocalExpertRecvStats", stats, ["i32"], [numExperts], {});
  expectContiguous(operation, "cumulativeLocalExpertRecvStats", stats);
}

function gathered(device: Device, x: Tensor, tokens: Tensor): Tensor {
  const out = Tensor.empty([tokens.size, x.dim(1)], x.dtype, x.name);
  device.run(gatherRows, { x, tokens, out });
  return out;
}

/** Gate, value and weight of each row. */
function activated(
  device: Device,
  l1: Tensor,
  weights: Tensor,
  clamp: number | undefined,
  dtype: "f32" | "bf16",
): Tensor {
  const out = Tensor.empty([l1.dim(0), l1.dim(1) / 2], dtype, "activations");
  device.run(gateRows, { x: l1, weights, out, clamp: clamp ?? Number.POSITIVE_INFINITY });
  return out;
}

function finish(device: Device, args: MegaMoeArgs<unknown>, l2: Tensor, routing: Routing): void {
  device.run(combineRows, { x: l2, rows: routing.rows, out: args.y });
  const stats = args.cumulativeLocalExpertRecvStats?.raw() as Int32Array | undefined;
  if (stats === undefined) return;
  routing.counts.forEach((n, expert) => {
    stats[expert] = (stats[expert] as number) + n;
  });
}

/**
 * y[t] = Σ over t's experts of weight · down(silu(gate(x)) · up(x)), FP8 activations by FP4 or FP8
 * weights (DeepGEMM `fp8_fp4_mega_moe`, one rank). Between the products activations, weighted, are
 * rounded to e4m3 with a ue8m0 scale each 32; sums are float32, in the order of t's choices. A
 * token without experts gives 0.
 *
 * @throws DTypeError, ShapeError, ArgumentError naming the argument, before y is written.
 */
export function fp8Fp4MegaMoe(device: Device, args: Fp8Fp4MegaMoeArgs): void {
  const operation = "fp8Fp4MegaMoe";
  const { y, l1Weights, l2Weights, symBuffer, threads, activationClamp } = args;
  checkCall(operation, args, l1Weights.data, l2Weights.data);
  const { x, xSf } = symBuffer;
  if (xSf === undefined) {
    throw new ArgumentError(operation, "symBuffer", "bf16xbf16", "a buffer for fp8xfp4");
  }
  const routing = routingOf(operation, symBuffer, y.dim(0));
  const rows = routing.tokens.size;
  const layout = { groupedLayout: routing.ends, usePsumLayout: true, alignment: 1, threads };
  const { hidden, intermediateHidden } = symBuffer.options;
  const packed = {
    data: gathered(device, x, routing.tokens),
    scales: gathered(device, xSf, routing.tokens),
  };
  const scales = { granK: GRAN_K, sizes: [hidden] };
  const a = withFloatScales(device, operation, "a", packed, scales);
  const l1 = Tensor.empty([rows, 2 * intermediateHidden], "f32");
  mGroupedFp8GemmNtContiguous(device, { a, b: l1Weights, d: l1, recipe, ...layout });
  const between = activated(device, l1, routing.weights, activationClamp, "f32");
  const codes = perTokenCastToFp8(device, { x: between, granK: GRAN_K, useUe8m0: true });
  const l2 = Tensor.empty([rows, hidden], "f32");
  mGroupedFp8GemmNtContiguous(device, { a: codes, b: l2Weights, d: l2, recipe, ...layout });
  finish(device, args, l2, routing);
}

/** The same of bf16 throughout; activations are rounded to bf16 in between (`bf16_mega_moe`). */
export function bf16MegaMoe(device: Device, args: Bf16MegaMoeArgs): void {
  const operation = "bf16MegaMoe";
  const { y, l1Weights, l2Weights, symBuffer, threads, activationClamp } = args;
  checkCall(operation, args, l1Weights, l2Weights);
  if (symBuffer.xSf !== undefined) {
    throw new ArgumentError(operation, "symBuffer", "fp8xfp4", "a buffer for bf16xbf16");
  }
  const routing = routingOf(operation, symBuffer, y.dim(0));
  const rows = routing.tokens.size;
  const layout = { groupedLayout: routing.ends, usePsumLayout: true, alignment: 1, threads };
  const { hidden, intermediateHidden } = symBuffer.options;
  const a = gathered(device, symBuffer.x, routing.tokens);
  const l1 = Tensor.empty([rows, 2 * intermediateHidden], "f32");
  mGroupedBf16GemmNtContiguous(device, { a, b: l1Weights, d: l1, ...layout });
  const between = activated(device, l1, routing.weights, activationClamp, "bf16");
  const l2 = Tensor.empty([rows, hidden], "f32");
  mGroupedBf16GemmNtContiguous(device, { a: between, b: l2Weights, d: l2, ...layout });
  finish(device, args, l2, routing);
}

/**
 * The weights as these functions take them, which is as they are: gates need not be interleaved
 * with values, nor scales tiled (DeepGEMM `transform_weights_for_mega_moe`).
 */
export function transformWeightsForMegaMoe<W>(l1: W, l2: W): readonly [l1: W, l2: W] {
  return [l1, l2];
}
