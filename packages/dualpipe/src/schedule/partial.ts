// Leaves micro-batches out of a schedule. Every dependency lies within a micro-batch or within the
// order of a rank, so what remains of a legal schedule is legal; this is how builders serve counts
// of micro-batches that their pattern does not have.

import { OpKind, type RankOps, RankOpsBuilder, type Schedule } from "./schedule.ts";

/** Micro-batches of one direction that stay. */
interface Range {
  readonly from: number;
  readonly to: number;
}

/** A micro-batch's new number; −1 if it goes. */
function renumbered(microBatch: number, { from, to }: Range): number {
  return microBatch < to ? Math.max(microBatch - from, -1) : -1;
}

/** The operations that remain. A cell that loses one half becomes the other half alone. */
function remaining(ops: RankOps, ranges: readonly Range[]): RankOps {
  const kept = new RankOpsBuilder(ops.length);
  for (let i = 0; i < ops.length; i++) {
    const kind = ops.kind[i] as OpKind;
    const phase = ops.phase[i] as number;
    const direction = ops.direction[i] as number;
    const stage = ops.stage[i] as number;
    const microBatch = renumbered(ops.microBatch[i] as number, ranges[direction] as Range);
    if (kind !== OpKind.FB) {
      if (microBatch >= 0) kept.push(kind, direction, stage, microBatch, phase);
      continue;
    }
    const pairDirection = ops.pairDirection[i] as number;
    const backward = {
      direction: pairDirection,
      stage: ops.pairStage[i] as number,
      microBatch: renumbered(ops.pairMicroBatch[i] as number, ranges[pairDirection] as Range),
    };
    const backwardStays = backward.microBatch >= 0;
    if (microBatch >= 0 && backwardStays) {
      kept.pushPair({ direction, stage, microBatch }, backward, phase);
    } else if (microBatch >= 0) kept.push(OpKind.F, direction, stage, microBatch, phase);
    else if (backwardStays) {
      kept.push(OpKind.B, pairDirection, backward.stage, backward.microBatch, phase);
    }
  }
  return kept.finish();
}

/**
 * The schedule with `kept[d]` micro-batches in each direction. Returns the same schedule if that is
 * all of them. It must have no communication yet.
 *
 * `leaveOut` says which go. Either is legal; NOTES.md has the makespans by which builders choose.
 */
export function withoutSurplus(
  schedule: Schedule,
  kept: readonly number[],
  leaveOut: "first" | "last",
): Schedule {
  const surplus = schedule.microBatchesOf.map((count, direction) => count - (kept[direction] ?? 0));
  if (surplus.every((count) => count === 0)) return schedule;
  const ranges = kept.map((count, direction) => {
    const from = leaveOut === "first" ? (surplus[direction] as number) : 0;
    return { from, to: from + count };
  });
  return {
    ...schedule,
    numMicroBatches: kept.reduce((sum, count) => sum + count, 0),
    microBatchesOf: kept,
    ranks: schedule.ranks.map((ops) => remaining(ops, ranges)),
  };
}
