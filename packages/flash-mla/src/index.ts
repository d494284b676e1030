// The public face of the package; see the README for what each operation computes.

export type { LseBase, Probabilities } from "./checks.ts";
export {
  type FlashMlaResult,
  type FlashMlaVarlenOptions,
  type FlashMlaWithKvcacheOptions,
  flashMlaVarlen,
  flashMlaWithKvcache,
} from "./decode.ts";
export { ArgumentError, BlockTableError, StaleMetadataError } from "./errors.ts";
export {
  emptyKCache,
  type Fp8KvLayout,
  type Fp8KvLayoutName,
  fp8KvLayouts,
} from "./kv-layout.ts";
export {
  getMlaMetadata,
  getMlaMetadataLegacy,
  type LegacyMetadata,
  type LegacyMetadataOptions,
  type SchedConfig,
  SchedMeta,
} from "./metadata.ts";
export {
  type FlashAttnVarlenInputs,
  type FlashAttnVarlenOptions,
  type FlashAttnVarlenResult,
  flashAttnVarlenFunc,
} from "./mha.ts";
export {
  type FlashAttnVarlenBackwardOptions,
  type FlashAttnVarlenGradients,
  flashAttnVarlenBackward,
} from "./mha-backward.ts";
export {
  type FlashAttnVarlenKvpackedBackwardOptions,
  type FlashAttnVarlenKvpackedOptions,
  type FlashAttnVarlenQkvpackedBackwardOptions,
  type FlashAttnVarlenQkvpackedOptions,
  flashAttnVarlenKvpackedBackward,
  flashAttnVarlenKvpackedFunc,
  flashAttnVarlenQkvpackedBackward,
  flashAttnVarlenQkvpackedFunc,
} from "./mha-packed.ts";
export {
  absIndicesToIndicesInKvcache,
  dequantizeKCache,
  quantizeKCache,
  writeKCache,
} from "./quantize.ts";
export {
  type FlashMlaSparseFwdOptions,
  type FlashMlaSparseFwdResult,
  flashMlaSparseFwd,
} from "./sparse-prefill.ts";
