// The sort benchmark's public face.

export { checksumOf } from "./checksum.ts";
export { runGnuSort, type SortComparison, sameBytes } from "./gnu-sort.ts";
export { type GraysortOptions, type GraysortReport, graysort } from "./graysort.ts";
export {
  type GeneratorOptions,
  keyBytes,
  type RecordFormat,
  RecordGenerator,
  recordBytes,
} from "./records.ts";
export type { SortEngine } from "./steps.ts";
export { mergeSummaries, type SortSummary, SortValidator } from "./validate.ts";
