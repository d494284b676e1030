// Table of the paper, 186 MiB: what the model is held against.

/** Gradient bytes of the table. */
export const paperBytes: number = 186 * 1024 * 1024;
export const paperGpus: readonly number[] = [16, 32, 64, 128, 256, 512, 1024, 1440];

/** GB/s by number of GPUs; the values at 256 and 512 may be swapped in the source. */
export const paperRows: Readonly<Record<string, readonly (number | undefined)[]>> = {
  hfreduce: [8.1, 8.03, 7.95, 7.78, 7.12, 7.33, 6.31, 6.99],
  nvlink: [19.18, 13, 12.07, 10.3, 9.66, 8.56, 7.99, undefined],
  nvlinkCrossZone: [undefined, undefined, undefined, 9.27, 8.63, 8.06, 7.75, undefined],
  /** 3.73, 4.83 and 4.62 stand between, in an order that the source does not settle. */
  nccl: [4.01, 4.41, 4.29, undefined, undefined, undefined, 1.63, 1.65],
};
