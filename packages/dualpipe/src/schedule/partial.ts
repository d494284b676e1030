// Leaves micro-batches out of a schedule. Every dependency lies within a micro-batch or within the
// order of a rank, so what remains of a legal schedule is legal; this is how builders serve counts
// of micro-batches that their pattern does not have.

import { OpKind, type RankOps, RankOpsBuilder, type Schedule } from "./schedule.ts";

/** The operations that remain; a cell that loses one half becomes the other half alone. */
function remaining(
  ops: RankOps,
  keeps: (direction: number, microBatch: number) => boolean,
): RankOps {
  const kept = new RankOpsBuilder(ops.length);
  for (let i = 0; i < ops.length; i++) {
    const kind = ops.kind[i] as OpKind;
    const forward = {
      direction: ops.direction[i] as number,
      stage: ops.stage[i] as number,
      microBatch: ops.microBatch[i] as number,
    };
    const { direction, stage, microBatch } = forward;
    const phase = ops.phase[i] as number;
    const keepsFirst = keeps(direction, microBatch);
    if (kind !== OpKind.FB) {
      if (keepsFirst) kept.push(kind, direction, stage, microBatch, phase);
      continue;
    }
    const backward = {
      direction: ops.pairDirection[i] as number,
      stage: ops.pairStage[i] as number,
      microBatch: ops.pairMicroBatch[i] as number,
    };
    const keepsSecond = keeps(backward.direction, backward.microBatch);
    if (keepsFirst && keepsSecond) kept.pushPair(forward, backward, phase);
    else if (keepsFirst) kept.push(OpKind.F, direction, stage, microBatch, phase);
    else if (keepsSecond) {
      kept.push(OpKind.B, backward.direction, backward.stage, backward.microBatch, phase);
    }
  }
  return kept.finish();
}

/**
 * The schedule with only the first `kept[d]` micro-batches of each direction. Returns the same
 * schedule if that is all of them. It must have no communication yet.
 */
export function withoutMicroBatches(schedule: Schedule, kept: readonly number[]): Schedule {
  if (kept.every((count, direction) => count === schedule.microBatchesOf[direction])) {
    return schedule;
  }
  const keeps = (direction: number, microBatch: number): boolean =>
    microBatch < (kept[direction] as number);
  return {
    ...schedule,
    numMicroBatches: kept.reduce((sum, count) => sum + count, 0),
    microBatchesOf: kept,
    ranks: schedule.ranks.map((ops) => remaining(ops, keeps)),
  };
}
