// What builders take, and the checks that all of them share. Each error names the constraint with
// its numbers.

import { InputError } from "@open-infra/errors";

/** What every builder takes. */
export interface ScheduleOptions {
  /** Ranks of the pipeline: PP, or half the stages in the V shapes. */
  readonly numRanks: number;
  /** Micro-batches of a step, over all directions; `num_chunks` of the original. */
  readonly numMicroBatches: number;
  /**
   * Takes micro-batch counts that the schedule itself does not: it is built for the next count it
   * takes, and the surplus micro-batches are left out. Every dependency lies within a micro-batch
   * or within a rank's order, so what remains is complete, legal and free of deadlock, and needs no
   * more memory; cells that lost their other half run alone. Default false: such counts are an
   * `InputError`.
   */
  readonly allowPartial?: boolean;
}

/** `stage` of an operation is stored in 16 bits. */
const stagesMax = 65_536;
/** More operations than this would not fit the columns of one process. */
const cellsMax = 2 ** 28;

/** Throws unless `value` is a whole number of at least `low`. */
export function checkWhole(parameter: string, value: number, low: number): void {
  if (Number.isSafeInteger(value) && value >= low) return;
  throw new InputError(parameter, String(value), `a whole number of at least ${low}`);
}

/** Checks that hold for every schedule of `stagesPerRank` stages a rank. */
export function checkSize(options: ScheduleOptions, stagesPerRank: number): void {
  const { numRanks, numMicroBatches } = options;
  checkWhole("numRanks", numRanks, 1);
  checkWhole("numMicroBatches", numMicroBatches, 1);
  const numStages = numRanks * stagesPerRank;
  if (numStages > stagesMax) {
    const most = Math.floor(stagesMax / stagesPerRank);
    const why = `${stagesPerRank} stages a rank and ${stagesMax} stages in all`;
    throw new InputError("numRanks", String(numRanks), `at most ${most} (${why})`);
  }
  const cells = numStages * numMicroBatches;
  if (cells > cellsMax) {
    const got = `${numMicroBatches} for ${numStages} stages, ${cells} cells`;
    const most = Math.floor(cellsMax / numStages);
    throw new InputError("numMicroBatches", got, `at most ${most} (2^28 cells)`);
  }
}
