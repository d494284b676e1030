// How the kernels of ordinary heads multiply on a machine, and the scratch that takes. Both follow
// from dtypes and head dimensions alone, never from how long a sequence is.

import type { Tensor } from "@open-infra/tensor";
import type { MhaCall } from "./mha-call.ts";
import { matrixSteps, vectorSteps } from "./mha-plan.ts";
import { dotConstants, EXACT_PARTS } from "./workspace.ts";

/**
 * DOT_PAYS is 1 where the bf16 dot product beats float multiply-adds, 0 where it does not, -1 where
 * there is none or an input is not bf16: then nothing is rounded, and one kernel serves all dtypes.
 * P_PARTS is 0 but for matrix tiles, which multiply a probability in so many parts.
 */
export interface MhaArithmetic {
  readonly DOT_PAYS: number;
  readonly ROUND_P: number;
  readonly P_PARTS: number;
}

/** The constants by which a kernel with these inputs chooses its arithmetic. */
export function mhaArithmetic(
  isa: string,
  call: MhaCall,
  inputs: readonly Tensor[],
): MhaArithmetic {
  const there = isa === "avx512bf16" || isa === "amx";
  if (!there || inputs.some((t) => t.dtype !== "bf16")) {
    return { DOT_PAYS: -1, ROUND_P: 0, P_PARTS: 0 };
  }
  const { headDimQk, headDimV, roundProbabilities } = call;
  if (isa === "amx" && headDimQk % 32 === 0 && headDimV % 32 === 0) {
    return { DOT_PAYS: -1, ROUND_P: 0, P_PARTS: roundProbabilities ? 1 : EXACT_PARTS };
  }
  const { DOT_PAYS } = dotConstants(isa, call.q);
  return { DOT_PAYS, ROUND_P: roundProbabilities ? 1 : 0, P_PARTS: 0 };
}

/** Units of a scratch row: an odd number of cache lines. */
export function padded(channels: number): number {
  return (Math.ceil(channels / 16) | 1) * 16;
}

/** Scratch of a thread whose forward items have up to `rowTile` rows. */
export function forwardScratchBytes(call: MhaCall, rowTile: number, parts: number): number {
  const { headDimQk, headDimV } = call;
  const [d, dv] = [padded(headDimQk), padded(headDimV)];
  if (parts > 0) {
    // In the order of carve_scratch of kernels/mha_forward_amx.h: queries on the way in and packed,
    // keys, values; scores, probabilities, sums of a tile; sums of rows and their statistics.
    const rows = Math.ceil(rowTile / 16) * 16;
    const operands = 2 * ((16 + rows) * headDimQk + 256 * (headDimQk + headDimV));
    return operands + 1024 * (32 + 16 * parts + 4) + 4 * rows * (dv + 5) + 2048;
  }
  // In the order of carve_scratch of kernels/mha_forward_vectors.h: queries, sums, keys, values,
  // scores, rows, spare, statistics.
  const rows = padded(rowTile);
  const floats = (d + dv + 4) * rows + 128 * (d + dv + 48) + 16 * (d + dv) + 48 * dv;
  return 4 * floats + 1024;
}

/** Scratch of a thread in the backward pass. */
export function backwardScratchBytes(call: MhaCall, parts: number): number {
  const { headDimQk, headDimV } = call;
  if (parts > 0) {
    // In the order of carve_scratch of kernels/mha_backward_amx.h: keys thrice and their sums, rows
    // twice, P, dS and dS again, tiles; rows on the way in, statistics.
    const { chunkKeys, stepRows } = matrixSteps;
    const keys = chunkKeys * (2 * (2 * headDimQk + headDimV) + 4 * (headDimQk + headDimV));
    const rows = stepRows * 4 * (headDimQk + headDimV);
    const products = 3 * 2 * parts * chunkKeys * stepRows;
    return keys + rows + products + 3 * 4096 + 32 * Math.max(headDimQk, headDimV) + 4096;
  }
  const { chunkKeys, stepRows } = vectorSteps;
  const [d, dv] = [padded(headDimQk), padded(headDimV)];
  const lanes = padded(chunkKeys);
  // In the order of carve_scratch of kernels/mha_backward_vectors.h; pairs of bf16 take less than
  // the floats counted here.
  const keys = (d + dv) * lanes + chunkKeys * (2 * d + dv);
  const rows = stepRows * (2 * d + 2 * dv + 3 * lanes);
  return 4 * (keys + rows + 16 * (d + dv) + 8 * 48 + 4 * lanes) + 2048;
}
