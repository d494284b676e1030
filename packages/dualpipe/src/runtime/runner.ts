// One rank of any schedule: holds its stages and its end of the transport, and runs steps. It only
// interprets programs; `DualPipe` and `DualPipeV` are thin fronts over it.

import { InputError } from "@open-infra/errors";
import { nullRecorder, type Recorder } from "@open-infra/profile";
import type { RankParts, StepOutcome, StepWork } from "./parts.ts";
import { holderOf, type RankProgram } from "./program.ts";
import type { Stage } from "./stage.ts";
import { StepRun } from "./step-run.ts";
import { keysFit, type Transport } from "./transport.ts";

/** A stage copy and where it stands. */
export interface PlacedStage {
  readonly direction: number;
  readonly stage: number;
  readonly model: Stage;
}

/** What a rank is made of. */
export interface RunnerOptions {
  readonly transport: Transport;
  readonly stages: readonly PlacedStage[];
  /**
   * Rank in the pipeline of each rank of the transport, a permutation; the same on all ranks.
   * @default the same rank
   */
  readonly rankMapping?: readonly number[] | undefined;
  /** Longest wait for one message, milliseconds. @default 600_000 */
  readonly timeoutMs?: number | undefined;
  /** @default nullRecorder */
  readonly recorder?: Recorder | undefined;
  /** Called with the index of each operation that begins, and at last with their number. */
  readonly onOperation?: ((index: number) => void) | undefined;
}

/** What waits where the caller says nothing. As long as NCCL's watchdog. */
export const defaultTimeoutMs = 600_000;

/** A little less than the longest that a timer of Node can be set to. */
const timeoutMsMax = 2 ** 31 - 1 - 1000;

/** The timeout to use. @throws InputError */
export function checkTimeout(
  timeoutMs: number = defaultTimeoutMs,
  parameter = "timeoutMs",
): number {
  if (timeoutMs > 0 && timeoutMs <= timeoutMsMax) return timeoutMs;
  throw new InputError(parameter, `${timeoutMs}`, `more than 0 and at most ${timeoutMsMax}`);
}

/** Transport's rank of each rank of the pipeline. @throws InputError if it is no permutation. */
export function invertMapping(
  mapping: readonly number[] | undefined,
  numRanks: number,
): readonly number[] {
  if (mapping === undefined) return Array.from({ length: numRanks }, (_, rank) => rank);
  const inverse = new Array<number>(numRanks).fill(-1);
  mapping.forEach((rank, transportRank) => {
    if (inverse[rank] === -1) inverse[rank] = transportRank;
  });
  if (mapping.length === numRanks && !inverse.includes(-1)) return inverse;
  throw new InputError("rankMapping", `[${mapping}]`, `each of 0 to ${numRanks - 1} once`);
}

/** Runs programs on one rank. All ranks must run the same steps in the same order. */
export class PipelineRunner {
  readonly transport: Transport;
  /** In the pipeline. */
  readonly rank: number;
  readonly stages: readonly PlacedStage[];
  readonly #parts: RankParts;
  readonly #inverse: readonly number[];
  #steps = 0;
  #running = false;

  constructor(options: RunnerOptions) {
    const { transport, stages, rankMapping } = options;
    this.transport = transport;
    this.stages = stages;
    this.#inverse = invertMapping(rankMapping, transport.numRanks);
    this.rank = this.#inverse.indexOf(transport.rank);
    this.#parts = {
      transport,
      stageAt: (direction, stage) =>
        stages.find((one) => one.direction === direction && one.stage === stage)?.model,
      transportRank: (rank) => this.transportRank(rank),
      timeoutMs: checkTimeout(options.timeoutMs),
      recorder: options.recorder ?? nullRecorder,
      onOperation: options.onOperation,
    };
  }

  get timeoutMs(): number {
    return this.#parts.timeoutMs;
  }

  /** The transport's rank of a rank of the pipeline. */
  transportRank(rank: number): number {
    return this.#inverse[rank] as number;
  }

  /** The number of the next step, or of a collective exchange between steps. */
  nextStep(): number {
    return this.#steps++;
  }

  /**
   * Runs one step. If it fails, all ranks fail, and nothing runs on this transport afterwards.
   * Wrong arguments on this rank count too, because the others may be waiting for it already.
   *
   * @throws InputError before anything runs; then StageError, PipelineAbortedError,
   *   WaitTimeoutError, ScheduleExecutionError.
   */
  async run(program: RankProgram, work: StepWork): Promise<StepOutcome> {
    if (this.#running) throw new InputError("step", "called during a step", "one step at a time");
    this.#running = true;
    try {
      this.#check(program, work);
      return await new StepRun(this.#parts, program, work, this.nextStep()).run();
    } catch (error) {
      this.transport.abort(error as Error);
      throw error;
    } finally {
      this.#running = false;
    }
  }

  #check(program: RankProgram, work: StepWork): void {
    const { numRanks, numDirections, numStages, microBatchesOf, rank } = program;
    if (numRanks !== this.transport.numRanks) {
      throw new InputError("numRanks", `${numRanks}`, `the transport's ${this.transport.numRanks}`);
    }
    if (rank !== this.rank) throw new InputError("rank", `${rank}`, `this rank, ${this.rank}`);
    if (!keysFit(numDirections, numStages, Math.max(...microBatchesOf))) {
      const sizes = `${numDirections} directions, ${numStages} stages`;
      const size = `${sizes}, ${microBatchesOf} micro-batches`;
      throw new InputError("the schedule", size, "at most 2 directions, 2^16 stages and 2^20 each");
    }
    for (let direction = 0; direction < numDirections; direction++) {
      const count = microBatchesOf[direction] as number;
      const entry = holderOf(program, direction, 0) === this.rank;
      const exit = holderOf(program, direction, numStages - 1) === this.rank;
      const { inputs, labels, criterion } = work;
      checkEnd("inputs", direction, inputs.get(direction)?.length, count, entry, this.rank);
      const learns = exit && !program.inference;
      if (learns && criterion === undefined) {
        const why = `the last stage of direction ${direction} is on rank ${this.rank}`;
        throw new InputError("criterion", "undefined", `a criterion: ${why}`);
      }
      const given = labels.get(direction)?.length;
      if (learns || given !== undefined) {
        checkEnd("labels", direction, given, count, exit, this.rank);
      }
    }
  }
}

/** Tensors must be given on the rank that uses them, one micro-batch each, and nowhere else. */
function checkEnd(
  parameter: string,
  direction: number,
  given: number | undefined,
  count: number,
  used: boolean,
  rank: number,
): void {
  if (given === (used ? count : undefined)) return;
  const got = given === undefined ? "undefined" : `${given} micro-batches`;
  const where = `on rank ${rank} for direction ${direction}`;
  const allowed = used ? `${count} micro-batches` : "nothing: this rank does not use them";
  throw new InputError(`${parameter} ${where}`, got, allowed);
}
