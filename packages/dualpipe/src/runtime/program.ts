// One rank's part of a schedule: what a rank needs to run a step, and all that crosses a thread.

import type { RankOps, Schedule } from "../schedule/schedule.ts";

/** What one rank runs in a step. Plain data. */
export interface RankProgram {
  readonly scheduleName: string;
  /** In the pipeline, which need not be the transport's. */
  readonly rank: number;
  readonly numRanks: number;
  readonly numStages: number;
  readonly numDirections: number;
  readonly microBatchesOf: readonly number[];
  readonly rankOf: Int32Array;
  /** With sends and receives. */
  readonly ops: RankOps;
  /** Forward only: no backward will come. */
  readonly inference: boolean;
}

/** Rank of a stage of a direction; −1 before the first and after the last. */
export function holderOf(program: RankProgram, direction: number, stage: number): number {
  if (stage < 0 || stage >= program.numStages) return -1;
  return program.rankOf[direction * program.numStages + stage] as number;
}

/** The stages a rank holds, as pairs in order of direction and stage. */
export function stagesOf(
  schedule: Pick<Schedule, "rankOf" | "numStages">,
  rank: number,
): readonly { readonly direction: number; readonly stage: number }[] {
  const held: { direction: number; stage: number }[] = [];
  schedule.rankOf.forEach((holder, at) => {
    if (holder !== rank) return;
    held.push({ direction: Math.floor(at / schedule.numStages), stage: at % schedule.numStages });
  });
  return held;
}
