// The public face of the package: products, their grouped and batched forms, and FP8 casts.

export { ArgumentError, type CallKind, type GemmCall } from "./call.ts";
export {
  type CastBackFromFp8Options,
  type CastToFp8Options,
  castBackFromFp8,
  perBlockCastToFp8,
  perTokenCastToFp8,
  type TokenCastOptions,
} from "./cast.ts";
export {
  type ChannelCastOptions,
  type KGroupedCastOptions,
  kGroupedCastToFp8,
  perChannelCastToFp8,
} from "./cast-channels.ts";
export {
  type CustomDimsCastOptions,
  perCustomDimsCastToFp8,
  perRecipeCastToFp8,
  type RecipeCastOptions,
} from "./cast-custom.ts";
export {
  type CastBackFromFp4Options,
  type CastToFp4Options,
  castBackFromFp4,
  packFp4,
  perTokenCastToFp4,
  transposePackedFp4,
  unpackFp4,
} from "./cast-fp4.ts";
export {
  createDeepGemm,
  type DeepGemm,
  type DeepGemmFunctions,
  type DeepGemmOptions,
} from "./context.ts";
export {
  type Bf16GemmArgs,
  bf16GemmNn,
  bf16GemmNt,
  bf16GemmTn,
  bf16GemmTt,
  type DenseOptions,
  type Fp8GemmArgs,
  fp8Fp4GemmNn,
  fp8Fp4GemmNt,
  fp8Fp4GemmTn,
  fp8Fp4GemmTt,
  fp8GemmNn,
  fp8GemmNt,
  fp8GemmNtSkipHeadMid,
  fp8GemmTn,
  fp8GemmTt,
  type GemmOptions,
  type Output,
  type SkipHeadMidArgs,
} from "./deepgemm.ts";
export { type EinsumArgs, einsum, type Fp8EinsumArgs, fp8Einsum } from "./einsum.ts";
export type { Epilogue, HeadSplits } from "./epilogue.ts";
export { fp4CodeOf } from "./fp4-scale.ts";
export { ceilToUe8m0 } from "./fp8-scale.ts";
export {
  type GemmNtArgs,
  type GemmNtBatchedArgs,
  type GemmNtGroupedArgs,
  gemmNt,
  gemmNtBatched,
  gemmNtGrouped,
} from "./gemm.ts";
export { gemmOperation } from "./gemm-operation.ts";
export {
  type ContiguousLayout,
  type GroupedBf16Args,
  type GroupedFp8Args,
  type KGroupedBf16Args,
  type KGroupedFp8Args,
  type KGroupedLayout,
  kGroupedBf16GemmTnContiguous,
  kGroupedFp8GemmNtContiguous,
  kGroupedFp8GemmTnContiguous,
  type MaskedLayout,
  MK_ALIGNMENT,
  mGroupedBf16GemmNnContiguous,
  mGroupedBf16GemmNtContiguous,
  mGroupedBf16GemmNtMasked,
  mGroupedFp8Fp4GemmNnContiguous,
  mGroupedFp8Fp4GemmNtContiguous,
  mGroupedFp8Fp4GemmNtMasked,
  mGroupedFp8GemmNnContiguous,
  mGroupedFp8GemmNtContiguous,
  mGroupedFp8GemmNtMasked,
} from "./grouped.ts";
export { type HcPrenormArgs, tf32HcPrenormGemm } from "./hc-prenorm.ts";
export {
  type Bf16MegaMoeArgs,
  bf16MegaMoe,
  type Fp8Fp4MegaMoeArgs,
  fp8Fp4MegaMoe,
  getSymmBufferForMegaMoe,
  type MegaMoeBuffer,
  type MegaMoeBufferOptions,
  transformWeightsForMegaMoe,
} from "./mega-moe.ts";
export {
  type Fp8MqaLogitsArgs,
  type Fp8PagedMqaLogitsArgs,
  fp8Fp4MqaLogits,
  fp8Fp4PagedMqaLogits,
  fp8MqaLogits,
  fp8PagedMqaLogits,
  type MqaOptions,
} from "./mqa-logits.ts";
export {
  getPagedMqaLogitsMetadata,
  type PagedMqaLogitsMetadataOptions,
  SPLIT_KEYS,
} from "./mqa-metadata.ts";
export {
  type Grain,
  type Grains,
  isScaled,
  type Operand,
  type RecipeOptions,
  SCALE_BLOCK,
  type ScaledTensor,
  scaleBlocks,
} from "./operand.ts";
export {
  align,
  ceilDiv,
  getKGroupedMnMajorTmaAlignedPackedUe8m0Tensor,
  getMnMajorTmaAlignedPackedUe8m0Tensor,
  getMnMajorTmaAlignedTensor,
  getTmaAlignedSize,
  type KGroupedPackOptions,
  type TransformSfOptions,
  transformSfIntoRequiredLayout,
} from "./scale-layout.ts";
export { SPLIT_K } from "./split-k.ts";
export { type DeviceFunction, type SpecOf, supports, type TensorSpec } from "./supports.ts";
export {
  type PackUe8m0Options,
  packUe8m0ToInt,
  type ScalePolicy,
  unpackUe8m0FromInt,
} from "./ue8m0.ts";
