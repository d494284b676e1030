// One forward, one backward: the plain schedule (PipeDream-flush), and Megatron's interleaved one,
// where a rank holds several virtual stages.

import { InputError } from "@open-infra/errors";
import { checkSize, checkWhole, type ScheduleOptions } from "./options.ts";
import { withoutSurplus } from "./partial.ts";
import { linearPlacement, loopedPlacement } from "./placement.ts";
import { OpKind, type RankOps, RankOpsBuilder, type Schedule } from "./schedule.ts";

/** Phases of both schedules. */
const phases = { warmUp: 1, steady: 2, coolDown: 3 } as const;

/** Where the k-th forward, or backward, of a rank belongs. */
interface Cell {
  readonly stage: number;
  readonly microBatch: number;
}

/** Warm-up forwards, then pairs of a forward and a backward, then the backwards that are left. */
function alternate(
  total: number,
  warmUp: number,
  forwardAt: (k: number) => Cell,
  backwardAt: (k: number) => Cell,
): RankOps {
  const ops = new RankOpsBuilder(2 * total);
  const forward = (k: number, phase: number): void => {
    const { stage, microBatch } = forwardAt(k);
    ops.push(OpKind.F, 0, stage, microBatch, phase);
  };
  const backward = (k: number, phase: number): void => {
    const { stage, microBatch } = backwardAt(k);
    ops.push(OpKind.B, 0, stage, microBatch, phase);
  };
  for (let k = 0; k < warmUp; k++) forward(k, phases.warmUp);
  for (let k = warmUp; k < total; k++) {
    forward(k, phases.steady);
    backward(k - warmUp, phases.steady);
  }
  for (let k = total - warmUp; k < total; k++) backward(k, phases.coolDown);
  return ops.finish();
}

/** 1F1B: rank `r` starts with `numRanks − 1 − r` forwards. Any number of micro-batches. */
export function oneFOneB(options: ScheduleOptions): Schedule {
  checkSize(options, 1);
  const { numRanks, numMicroBatches } = options;
  const ranks = Array.from({ length: numRanks }, (_, rank) => {
    const cell = (k: number): Cell => ({ stage: rank, microBatch: k });
    return alternate(numMicroBatches, Math.min(numRanks - 1 - rank, numMicroBatches), cell, cell);
  });
  return {
    name: "1f1b",
    numRanks,
    numStages: numRanks,
    numDirections: 1,
    numMicroBatches,
    microBatchesOf: [numMicroBatches],
    rankOf: linearPlacement(numRanks),
    ranks,
    hasCommunication: false,
  };
}

/** What `interleaved1F1B` takes. */
export interface InterleavedOptions extends ScheduleOptions {
  /** Virtual stages of a rank, `v`; default 2. With 1 it is plain 1F1B. */
  readonly chunksPerRank?: number;
}

/**
 * Megatron's interleaved 1F1B. Virtual stage `v · numRanks + r` is on rank `r`; micro-batches go in
 * groups of `numRanks`, and a group passes all chunks of a rank before the next group starts.
 *
 * @throws InputError without `allowPartial` unless `numMicroBatches` is a multiple of `numRanks`.
 */
export function interleaved1F1B(options: InterleavedOptions): Schedule {
  const { numRanks, numMicroBatches, chunksPerRank = 2, allowPartial } = options;
  checkWhole("chunksPerRank", chunksPerRank, 1);
  checkSize(options, chunksPerRank);
  if (!allowPartial && numMicroBatches % numRanks !== 0) {
    const allowed = `a multiple of numRanks = ${numRanks}, or allowPartial`;
    throw new InputError("numMicroBatches", String(numMicroBatches), allowed);
  }
  const whole = Math.ceil(numMicroBatches / numRanks) * numRanks;
  const group = numRanks * chunksPerRank;
  const ranks = Array.from({ length: numRanks }, (_, rank) => {
    const cellAt = (k: number, chunk: number): Cell => ({
      stage: chunk * numRanks + rank,
      microBatch: Math.floor(k / group) * numRanks + (k % numRanks),
    });
    const chunkAt = (k: number): number => Math.floor((k % group) / numRanks);
    const farness = (chunksPerRank === 1 ? 1 : 2) * (numRanks - 1 - rank);
    return alternate(
      whole * chunksPerRank,
      Math.min(farness + (chunksPerRank - 1) * numRanks, whole * chunksPerRank),
      (k) => cellAt(k, chunkAt(k)),
      (k) => cellAt(k, chunksPerRank - 1 - chunkAt(k)),
    );
  });
  const schedule: Schedule = {
    name: "interleaved-1f1b",
    numRanks,
    numStages: group,
    numDirections: 1,
    numMicroBatches: whole,
    microBatchesOf: [whole],
    rankOf: loopedPlacement(numRanks, chunksPerRank),
    ranks,
    hasCommunication: false,
  };
  return withoutSurplus(schedule, [numMicroBatches], "first");
}
