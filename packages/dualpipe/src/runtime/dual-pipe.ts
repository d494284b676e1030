// DualPipe and DualPipeV with the interface of the original (deepseek-ai/DualPipe): every rank
// makes one, holding its two stages, and all call `step` together. What the original takes from the
// process (its group, its gradient mode, global shapes) is given here.

import { InputError } from "@open-infra/errors";
import type { Recorder } from "@open-infra/profile";
import { dualPipe, dualPipeV } from "../schedule/dualpipe.ts";
import type { ScheduleOptions } from "../schedule/options.ts";
import type { Schedule } from "../schedule/schedule.ts";
import {
  type Batch,
  joinBatch,
  type MicroBatch,
  namingChunks,
  splitBatch,
} from "./micro-batches.ts";
import type { StepOutcome, StepStats, StepWork } from "./parts.ts";
import { holderOf, type RankProgram } from "./program.ts";
import { rankPrograms } from "./rank-programs.ts";
import { PipelineRunner, type PlacedStage } from "./runner.ts";
import type { Criterion, Stage } from "./stage.ts";
import { syncGradients } from "./sync-gradients.ts";
import type { Transport } from "./transport.ts";

/** What both take. */
export interface DualPipeOptions {
  /** The two stages of this rank; which ones, the class says. */
  readonly stages: readonly [Stage, Stage];
  readonly transport: Transport;
  /** Dimension that inputs and labels are cut along. @default 0 */
  readonly batchDim?: number;
  /** Rank in the pipeline of each rank of the transport. @default the same rank */
  readonly rankMapping?: readonly number[];
  /** Longest wait for one message, milliseconds. @default 600_000 */
  readonly timeoutMs?: number;
  /** @default nullRecorder */
  readonly recorder?: Recorder;
  /**
   * Takes counts of micro-batches that the original does not; see `ScheduleOptions`. @default false
   */
  readonly allowPartial?: boolean;
}

/** How a step runs. All ranks give the same `numChunks` and `inference`. */
export interface DualPipeStepOptions {
  /** Micro-batches of the step, over both directions. */
  readonly numChunks: number;
  /** Needed where a last stage is, except in inference. */
  readonly criterion?: Criterion;
  /** Needed where a last stage is, except in inference, where they bring losses. */
  readonly labels?: Batch;
  /** Whether the last stage's outputs are kept. @default false */
  readonly returnOutputs?: boolean;
  /** Forward only: the schedule without its backwards. @default false */
  readonly inference?: boolean;
}

/** What a step gave on this rank. */
export interface DualPipeResult {
  /** One a micro-batch of the direction that ends on this rank; undefined elsewhere. */
  readonly losses: Float64Array | undefined;
  /** Outputs joined along the batch dimension, if asked for and made on this rank. */
  readonly outputs: readonly MicroBatch[number][] | undefined;
  /** The same, micro-batch by micro-batch. */
  readonly microBatchOutputs: readonly MicroBatch[] | undefined;
  readonly stats: StepStats;
}

type Builder = (options: ScheduleOptions) => Schedule;

/** What the two share: a runner, and the schedule's program for each `numChunks` met. */
class TwoStagePipe {
  readonly runner: PipelineRunner;
  readonly #build: Builder;
  readonly #batchDim: number;
  readonly #allowPartial: boolean;
  readonly #programs = new Map<string, RankProgram>();

  constructor(options: DualPipeOptions, build: Builder, place: (rank: number) => PlacedStage[]) {
    const { transport, rankMapping, timeoutMs, recorder } = options;
    this.#build = build;
    this.#batchDim = options.batchDim ?? 0;
    this.#allowPartial = options.allowPartial ?? false;
    const rank = rankMapping?.[transport.rank] ?? transport.rank;
    const stages = place(rank);
    this.runner = new PipelineRunner({ transport, rankMapping, timeoutMs, recorder, stages });
  }

  /**
   * Runs `numChunks` micro-batches forward and backward. Inputs are given on the rank of a first
   * stage, labels on that of a last one; losses and outputs come there.
   *
   * @throws InputError before anything runs; then StageError, PipelineAbortedError,
   *   WaitTimeoutError.
   */
  async step(inputs: Batch | undefined, options: DualPipeStepOptions): Promise<DualPipeResult> {
    const { numChunks, criterion, labels, inference = false, returnOutputs = false } = options;
    const program = this.#program(numChunks, inference);
    try {
      const work: StepWork = {
        inputs: this.#split("inputs", inputs, program, 0),
        labels: this.#split("labels", labels, program, program.numStages - 1),
        criterion,
        returnOutputs,
      };
      return this.#result(await this.runner.run(program, work), inputs);
    } catch (error) {
      // The other ranks have taken theirs, and would wait for this one.
      this.runner.transport.abort(error as Error);
      throw error;
    }
  }

  #program(numChunks: number, inference: boolean): RankProgram {
    const key = `${numChunks} ${inference}`;
    let program = this.#programs.get(key);
    if (program === undefined) {
      const { numRanks } = this.runner.transport;
      const allowPartial = this.#allowPartial;
      const schedule = namingChunks(() =>
        this.#build({ numRanks, numMicroBatches: numChunks, allowPartial }),
      );
      program = rankPrograms(schedule, { inference })[this.runner.rank] as RankProgram;
      this.#programs.set(key, program);
    }
    return program;
  }

  /** Cuts a batch for the direction whose `stage` is on this rank. */
  #split(
    parameter: string,
    batch: Batch | undefined,
    program: RankProgram,
    stage: number,
  ): Map<number, readonly MicroBatch[]> {
    if (batch === undefined) return new Map();
    const { rank } = this.runner;
    for (let direction = 0; direction < program.numDirections; direction++) {
      if (holderOf(program, direction, stage) !== rank) continue;
      const count = program.microBatchesOf[direction] as number;
      return new Map([[direction, splitBatch(parameter, batch, count, this.#batchDim)]]);
    }
    const which = stage === 0 ? "first" : "last";
    throw new InputError(`${parameter} on rank ${rank}`, "given", `none: no ${which} stage here`);
  }

  #result({ losses, outputs, stats }: StepOutcome, inputs: Batch | undefined): DualPipeResult {
    const [own] = [...losses.values()];
    const [made] = [...outputs.values()];
    const cut = inputs === undefined || Array.isArray(inputs);
    return {
      losses: own,
      outputs: made && cut ? joinBatch("outputs", made, this.#batchDim) : undefined,
      microBatchOutputs: made,
      stats,
    };
  }
}

/**
 * DualPipe on one rank of `P`: rank `r` holds stage `r` of the model for the direction from rank 0,
 * and stage `P − 1 − r` for the direction from the last rank, each with weights of its own. Rank 0
 * and the last rank each give `numChunks / 2` micro-batches, and the labels of what the other
 * gives.
 */
export class DualPipe extends TwoStagePipe {
  /** @throws InputError for an odd number of ranks, or a `rankMapping` that is no permutation. */
  constructor(options: DualPipeOptions) {
    const { numRanks } = options.transport;
    if (numRanks % 2 !== 0) throw new InputError("numRanks", `${numRanks}`, "an even number");
    super(options, dualPipe, (rank) => [
      { direction: 0, stage: rank, model: options.stages[0] },
      { direction: 1, stage: numRanks - 1 - rank, model: options.stages[1] },
    ]);
  }

  /**
   * Adds up the gradients of the two copies of each stage, on both ranks that hold one; the
   * original leaves it to its caller. All ranks call it together.
   */
  syncGradients(): Promise<void> {
    return syncGradients(this.runner);
  }
}

/**
 * DualPipeV on one rank of `P`: rank `r` holds stages `r` and `2P − 1 − r` of a model of `2P`. Rank
 * 0 gives all inputs and labels, and gets all losses and outputs. There is one copy of each stage.
 */
export class DualPipeV extends TwoStagePipe {
  /** @throws InputError for a `rankMapping` that is no permutation. */
  constructor(options: DualPipeOptions) {
    const { numRanks } = options.transport;
    super(options, dualPipeV, (rank) => [
      { direction: 0, stage: rank, model: options.stages[0] },
      { direction: 0, stage: 2 * numRanks - 1 - rank, model: options.stages[1] },
    ]);
  }
}
