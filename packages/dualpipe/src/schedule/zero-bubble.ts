// Schedules of the zero-bubble line (Qi et al., "Zero Bubble Pipeline Parallelism" and "Pipeline
// Parallelism with Controllable Memory"): the backward is split, and the weights' gradients fill
// what would be bubbles. Both keep the memory of 1F1B. Weight gradients leave one FIFO a rank.

import { checkSize, type ScheduleOptions } from "./options.ts";
import { withoutSurplus } from "./partial.ts";
import { linearPlacement, vPlacement } from "./placement.ts";
import { OpKind, type RankOps, RankOpsBuilder, type Schedule } from "./schedule.ts";

/** Phases of both schedules. */
const phases = { warmUp: 1, steady: 2, coolDown: 3 } as const;

/** Writes one rank's forwards, split backwards and weight gradients, in the order asked for. */
class SplitProgram {
  readonly #ops: RankOpsBuilder;
  readonly #stages: readonly number[];
  readonly #forward: number[];
  readonly #backward: number[];
  /** Stage and micro-batch of each I, flat, in order. */
  readonly #waiting: number[] = [];
  #taken = 0;
  phase: number = phases.warmUp;

  constructor(capacity: number, stages: readonly number[]) {
    this.#ops = new RankOpsBuilder(capacity);
    this.#stages = stages;
    this.#forward = stages.map(() => 0);
    this.#backward = stages.map(() => 0);
  }

  /** Forwards written of a chunk. */
  forwards(chunk: number): number {
    return this.#forward[chunk] as number;
  }

  /** Weight gradients that wait. */
  get waiting(): number {
    return this.#waiting.length / 2 - this.#taken;
  }

  F(chunk: number): void {
    const microBatch = this.#forward[chunk] as number;
    this.#forward[chunk] = microBatch + 1;
    this.#ops.push(OpKind.F, 0, this.#stages[chunk] as number, microBatch, this.phase);
  }

  I(chunk: number): void {
    const microBatch = this.#backward[chunk] as number;
    this.#backward[chunk] = microBatch + 1;
    const stage = this.#stages[chunk] as number;
    this.#ops.push(OpKind.I, 0, stage, microBatch, this.phase);
    this.#waiting.push(stage, microBatch);
  }

  W(): void {
    const at = 2 * this.#taken++;
    const stage = this.#waiting[at] as number;
    this.#ops.push(OpKind.W, 0, stage, this.#waiting[at + 1] as number, this.phase);
  }

  finish(): RankOps {
    while (this.waiting > 0) this.W();
    return this.#ops.finish();
  }
}

/**
 * ZB-H1, here ZB1P: 1F1B with split backwards. Rank `r` lags `r` weight gradients behind, so that
 * every rank holds at most `numRanks` micro-batches until their weight gradients. Any number of
 * micro-batches.
 */
export function zb1p(options: ScheduleOptions): Schedule {
  checkSize(options, 1);
  const { numRanks, numMicroBatches } = options;
  const ranks = Array.from({ length: numRanks }, (_, rank) => {
    const program = new SplitProgram(3 * numMicroBatches, [rank]);
    const warmUp = Math.min(numRanks - 1 - rank, numMicroBatches);
    for (let i = 0; i < warmUp; i++) program.F(0);
    program.phase = phases.steady;
    for (let i = 0; i < numMicroBatches; i++) {
      if (i < numMicroBatches - warmUp) program.F(0);
      else program.phase = phases.coolDown;
      program.I(0);
      if (i >= rank) program.W();
    }
    return program.finish();
  });
  return {
    name: "zb1p",
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

/** One rank of ZB-V with at least `2 · numRanks − 1` micro-batches. */
function zbvRank(numRanks: number, rank: number, numMicroBatches: number): RankOps {
  const program = new SplitProgram(6 * numMicroBatches, [rank, 2 * numRanks - 1 - rank]);
  const [down, up] = [0, 1];
  const near = numRanks - rank;
  const step = (chunk: number): void => {
    program.I(chunk);
    program.W();
  };
  for (let i = 0; i < 2 * near - 1; i++) program.F(down);
  for (let i = 0; i < rank; i++) {
    program.F(up);
    program.F(down);
  }
  for (let i = 0; i < near; i++) {
    program.F(up);
    step(up);
  }
  program.phase = phases.steady;
  while (program.forwards(up) < numMicroBatches) {
    if (program.forwards(down) < numMicroBatches) program.F(down);
    step(down);
    program.F(up);
    step(up);
  }
  program.phase = phases.coolDown;
  for (let i = 0; i < rank; i++) {
    program.I(down);
    program.I(up);
  }
  for (let i = 0; i < near; i++) step(down);
  return program.finish();
}

/**
 * ZB-V: rank `r` holds stages `r` and `2 · numRanks − 1 − r`. With F = I = W no rank waits between
 * its first cell and its last; a rank holds at most `2 · numRanks` micro-batches of its stages,
 * each half as large as a stage of 1F1B. Fewer than `2 · numRanks − 1` micro-batches run in the
 * order of that many, with the surplus left out, as PyTorch does.
 */
export function zbv(options: ScheduleOptions): Schedule {
  checkSize(options, 2);
  const { numRanks, numMicroBatches } = options;
  const whole = Math.max(2 * numRanks - 1, numMicroBatches);
  const schedule: Schedule = {
    name: "zbv",
    numRanks,
    numStages: 2 * numRanks,
    numDirections: 1,
    numMicroBatches: whole,
    microBatchesOf: [whole],
    rankOf: vPlacement(numRanks),
    ranks: Array.from({ length: numRanks }, (_, rank) => zbvRank(numRanks, rank, whole)),
    hasCommunication: false,
  };
  return withoutSurplus(schedule, [numMicroBatches], "last");
}
