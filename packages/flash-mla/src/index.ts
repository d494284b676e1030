// The public face of the package; see the README for what each operation computes.

export {
  type FlashMlaResult,
  type FlashMlaVarlenOptions,
  type FlashMlaWithKvcacheOptions,
  flashMlaVarlen,
  flashMlaWithKvcache,
} from "./decode.ts";
export { ArgumentError, BlockTableError, StaleMetadataError } from "./errors.ts";
export {
  getMlaMetadata,
  getMlaMetadataLegacy,
  type LegacyMetadata,
  type LegacyMetadataOptions,
  type SchedConfig,
  SchedMeta,
} from "./metadata.ts";
export {
  type FlashAttnVarlenOptions,
  type FlashAttnVarlenResult,
  flashAttnVarlenFunc,
} from "./mha.ts";
