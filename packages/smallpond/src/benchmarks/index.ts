// The benchmark programs beside the sort benchmark.

export { type CopyReport, type FileIoOptions, type FileIoReport, fileIo } from "./file-io.ts";
export {
  type FilePassReport,
  type FstestOptions,
  type FstestReport,
  fstest,
  type WrongPlace,
} from "./fstest.ts";
export {
  type HashPartitionOptions,
  type HashPartitionReport,
  hashPartition,
  type PartitionCount,
} from "./hash-partition.ts";
export type { BenchmarkOptions, RowSum, Timing } from "./measure.ts";
export {
  type UrlOrderReport,
  type UrlsSortOptions,
  type UrlsSortReport,
  urlsSort,
} from "./urls-sort.ts";
