// The public face of the package: products, their grouped and batched forms, and FP8 casts.

export { ArgumentError, type CallKind, type GemmCall } from "./call.ts";
export {
  type CastBackFromFp8Options,
  type CastToFp8Options,
  castBackFromFp8,
  ceilToUe8m0,
  perBlockCastToFp8,
  perTokenCastToFp8,
} from "./cast.ts";
export {
  type Bf16GemmArgs,
  bf16GemmNt,
  type ContiguousLayout,
  type EinsumArgs,
  einsum,
  type Fp8GemmArgs,
  fp8GemmNt,
  type MaskedLayout,
  mGroupedBf16GemmNtContiguous,
  mGroupedBf16GemmNtMasked,
  mGroupedFp8GemmNtContiguous,
  mGroupedFp8GemmNtMasked,
} from "./deepgemm.ts";
export {
  type GemmNtArgs,
  type GemmNtBatchedArgs,
  type GemmNtGroupedArgs,
  gemmNt,
  gemmNtBatched,
  gemmNtGrouped,
} from "./gemm.ts";
export { gemmOperation } from "./gemm-operation.ts";
export { isScaled, type Operand, SCALE_BLOCK, type ScaledTensor, scaleBlocks } from "./operand.ts";
