// A pipeline over worker threads, one a rank, and the host's handle on it. The host cuts batches
// and hands out programs; tensors go to the ranks and come back as references to shared memory.
//
// What must never happen: a call that hangs, or a thread that outlives the pipeline. Whatever goes
// wrong first, on whichever rank, ends everything: the shared word that every wait looks at is set,
// all threads are terminated, and only then do the calls that wait fail, with that first cause.

import { InputError } from "@open-infra/errors";
import type { Tensor } from "@open-infra/tensor";
import { ControlBlock } from "./control-block.ts";
import { PipelineAbortedError, PipelineClosedError } from "./errors.ts";
import { type CheckedLaunch, checkLaunch, type LaunchOptions } from "./launch-options.ts";
import {
  type Batch,
  joinBatch,
  type MicroBatch,
  namingChunks,
  splitBatch,
} from "./micro-batches.ts";
import type { StepStats } from "./parts.ts";
import { holderOf, type RankProgram, stagesOf } from "./program.ts";
import type { RankRequest, RankStart, StepReply, TraceReply } from "./protocol.ts";
import { rankPrograms } from "./rank-programs.ts";
import { RankThread } from "./rank-thread.ts";
import { type ChromeTrace, mergeTraces } from "./traces.ts";
import { packValue, shareBatches, unpackValue, unshareBatches } from "./values.ts";
import { describeOperation, Watchdog } from "./watchdog.ts";
import { type WorkerSeat, workerSeats } from "./worker-transport.ts";

/** How a step runs. */
export interface PipelineStepOptions {
  /** Micro-batches that the batch is cut into, over all directions. */
  readonly numChunks: number;
  /** Needed to train; in inference they bring losses. */
  readonly labels?: Batch;
  /** @default false */
  readonly returnOutputs?: boolean;
  /** Forward only. @default false */
  readonly inference?: boolean;
}

/** What a step counted on one rank. */
export interface RankStats extends StepStats {
  readonly rank: number;
  /** Shared memory that the messages sent by the rank have needed so far. */
  readonly messageBufferBytes: number;
}

/** What a step gave. */
export interface PipelineResult {
  /** One a micro-batch, in the order of the batch; undefined without labels. */
  readonly losses: Float64Array | undefined;
  /**
   * Joined along the batch dimension; undefined unless asked for, and for a list of micro-batches.
   */
  readonly outputs: readonly Tensor[] | undefined;
  /** The same, micro-batch by micro-batch. */
  readonly microBatchOutputs: readonly MicroBatch[] | undefined;
  readonly ranks: readonly RankStats[];
}

/** A copy of a stage, and what a call of it gave. */
export interface StageValue<T = unknown> {
  readonly rank: number;
  readonly direction: number;
  readonly stage: number;
  readonly value: T;
}

/** Which copies of stages a call goes to: those that fit all that is given. */
export interface StageFilter {
  readonly rank?: number;
  readonly direction?: number;
  readonly stage?: number;
}

interface Programs {
  readonly key: string;
  readonly list: readonly RankProgram[];
  /** Whether the ranks have them. */
  sent: boolean;
}

/** How long stages may take to let go of what they hold when the pipeline is closed. */
const closeTimeoutMs = 5000;

/** The host's handle; see `launchPipeline`. Calls are done one after another. */
export class Pipeline implements AsyncDisposable {
  readonly numRanks: number;
  readonly numStages: number;
  readonly #launch: CheckedLaunch;
  readonly #control: ControlBlock;
  readonly #threads: readonly RankThread[];
  readonly #placement: Pick<RankProgram, "rankOf" | "numStages">;
  readonly #programs = new Map<string, Programs>();
  #last: Promise<unknown> = Promise.resolve();
  #failure: Error | undefined;
  #gone: Promise<void> | undefined;
  #secondary: NodeJS.Timeout | undefined;

  /** Starts the threads; use `launchPipeline`, which waits until they are ready. */
  constructor(launch: CheckedLaunch) {
    this.#launch = launch;
    this.numRanks = launch.numRanks;
    const schedule = launch.build(2 * launch.numRanks);
    if (schedule.numRanks !== launch.numRanks) {
      const allowed = `the schedule's ${schedule.numRanks}`;
      throw new InputError("numRanks", `${launch.numRanks}`, allowed);
    }
    this.#placement = schedule;
    this.numStages = schedule.numStages;
    const { seats } = workerSeats(this.numRanks);
    this.#control = new ControlBlock(this.numRanks, seats[0]?.control);
    this.#threads = startThreads(launch, schedule, seats, (error) => this.#onFailure(error));
    launch.signal?.addEventListener("abort", this.#onAbort);
    if (launch.signal?.aborted) this.#onAbort();
  }

  /** Resolves when all stages are loaded. */
  async ready(): Promise<void> {
    const { loadTimeoutMs } = this.#launch;
    using _watchdog = this.#watch(loadTimeoutMs, () => "its stages");
    await Promise.all(this.#threads.map((thread) => thread.ready));
  }

  /**
   * Runs a batch through the pipeline. Micro-batches go to the directions in order: with DualPipe
   * the first half from rank 0, the second from the last rank. Inputs and labels must stay as they
   * are until the step is done.
   *
   * @throws InputError before anything runs; then StageError, RankLostError, WaitTimeoutError with
   *   the first cause, and the pipeline is over.
   */
  step(inputs: Batch, options: PipelineStepOptions): Promise<PipelineResult> {
    return this.#exclusive(() => this.#step(inputs, options));
  }

  /**
   * Calls a method of stages, by default of all, and gives its results in the order of direction
   * and stage; tensors in arguments and results are copies. A method that throws rejects this call
   * with a StageError and leaves the pipeline as it is.
   */
  call<T = unknown>(
    method: string,
    args: readonly unknown[] = [],
    where: StageFilter = {},
  ): Promise<StageValue<T>[]> {
    return this.#exclusive(() => this.#call<T>(method, args, where));
  }

  /** Copies of the gradients of stages; `call("gradients")`. */
  gradients(where: StageFilter = {}): Promise<StageValue<readonly Tensor[]>[]> {
    return this.call("gradients", [], where);
  }

  /** Adds up the gradients of the two copies of each stage; nothing to do with one direction. */
  syncGradients(): Promise<void> {
    return this.#exclusive(async () => {
      using _watchdog = this.#watch(this.#launch.timeoutMs, () => "the end of syncGradients");
      await this.#askAll(() => ({ type: "sync" }));
    });
  }

  /** All that was recorded since the start, if `trace` was asked for. */
  trace(): Promise<ChromeTrace> {
    return this.#exclusive(async () => {
      const replies = await this.#askAll(() => ({ type: "trace" }));
      return mergeTraces(replies as TraceReply[]);
    });
  }

  /**
   * Ends the pipeline. Stages with a `Symbol.dispose` or `Symbol.asyncDispose` are disposed, unless
   * a call is running, which then fails. Further calls do nothing.
   *
   * @throws StageError if a stage fails to dispose itself; the threads are gone even so.
   */
  async close(): Promise<void> {
    const busy = this.#threads.some((thread) => thread.busy);
    const failed = busy || this.#failure ? undefined : await this.#disposeStages();
    const how = busy ? "was closed during a call" : "is closed";
    this.#fail(new PipelineClosedError(`the pipeline ${how}`));
    await this.#gone;
    if (failed !== undefined) throw failed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Gives stages a moment to let go of what they hold; the error of one that fails at it. */
  async #disposeStages(): Promise<Error | undefined> {
    const { promise: late, resolve } = Promise.withResolvers<undefined>();
    const timer = setTimeout(resolve, closeTimeoutMs, undefined);
    const done = this.#askAll(() => ({ type: "close" })).then(
      () => undefined,
      (error: Error) => error,
    );
    const failed = await Promise.race([done, late]);
    clearTimeout(timer);
    return failed;
  }

  async #step(inputs: Batch, options: PipelineStepOptions): Promise<PipelineResult> {
    const { numChunks, labels, returnOutputs = false, inference = false } = options;
    const { batchDim, criterionExport } = this.#launch;
    const programs = this.#programsFor(numChunks, inference);
    if (!inference && criterionExport === undefined) {
      throw new InputError("criterionExport", "undefined", "the name of the criterion, to train");
    }
    if (!inference && labels === undefined) {
      throw new InputError("labels", "undefined", "a batch, to train");
    }
    const cut = splitBatch("inputs", inputs, numChunks, batchDim);
    const truth = labels && splitBatch("labels", labels, numChunks, batchDim);
    const programOf = (rank: number): RankProgram => programs.list[rank] as RankProgram;
    using _watchdog = this.#watch(this.#launch.timeoutMs, (rank, index) =>
      describeOperation(programOf(rank), index),
    );
    const replies = await this.#askAll((rank) => {
      const program = programOf(rank);
      return {
        type: "step",
        programKey: programs.key,
        ...(!programs.sent && { program }),
        inputs: shareBatches(portions(program, cut, 0)),
        labels: shareBatches(truth ? portions(program, truth, program.numStages - 1) : []),
        returnOutputs,
      };
    });
    programs.sent = true;
    const joined = Array.isArray(inputs) ? batchDim : undefined;
    return collect(programs.list[0] as RankProgram, replies as StepReply[], joined);
  }

  async #call<T>(
    method: string,
    args: readonly unknown[],
    where: StageFilter,
  ): Promise<StageValue<T>[]> {
    const packed = args.map((arg, i) => packValue(`argument ${i} of ${method}`, arg));
    const perRank = this.#threads.map(({ rank }) =>
      stagesOf(this.#placement, rank).filter(
        ({ direction, stage }) =>
          (where.rank ?? rank) === rank &&
          (where.direction ?? direction) === direction &&
          (where.stage ?? stage) === stage,
      ),
    );
    if (perRank.every(({ length }) => length === 0)) {
      const held = `${this.numRanks} ranks and ${this.numStages} stages`;
      throw new InputError("where", JSON.stringify(where), `a stage of the ${held}`);
    }
    using _watchdog = this.#watch(this.#launch.timeoutMs, () => `the end of ${method}`);
    const answers = await Promise.all(
      this.#threads.map((thread) => {
        const stages = perRank[thread.rank] ?? [];
        if (stages.length === 0) return [];
        return thread.ask({ type: "call", method, args: packed, stages });
      }),
    );
    const values = perRank.flatMap((stages, rank) =>
      stages.map((place, i) => {
        const value = unpackValue((answers[rank] as unknown[])[i]) as T;
        return { rank, ...place, value };
      }),
    );
    return values.sort((a, b) => a.direction - b.direction || a.stage - b.stage);
  }

  #programsFor(numChunks: number, inference: boolean): Programs {
    const key = `${numChunks} ${inference}`;
    let programs = this.#programs.get(key);
    if (programs === undefined) {
      const schedule = namingChunks(() => this.#launch.build(numChunks));
      if (`${schedule.rankOf}` !== `${this.#placement.rankOf}`) {
        const got = `another placement of stages for ${numChunks} micro-batches`;
        throw new InputError("schedule", got, "one that does not depend on their number");
      }
      programs = { key, list: rankPrograms(schedule, { inference }), sent: false };
      this.#programs.set(key, programs);
    }
    return programs;
  }

  #askAll(request: (rank: number) => RankRequest): Promise<unknown[]> {
    const requests = this.#threads.map(({ rank }) => request(rank));
    return Promise.all(this.#threads.map((thread, i) => thread.ask(requests[i] as RankRequest)));
  }

  async #exclusive<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => {
      if (this.#failure === undefined) return run();
      const { message, cause } = this.#failure;
      if (this.#failure instanceof PipelineClosedError) {
        throw new PipelineClosedError(message, { cause });
      }
      const text = `the pipeline has failed: ${message}`;
      throw new PipelineClosedError(text, { cause: this.#failure });
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  #watch(timeoutMs: number, awaited: (rank: number, index: number) => string): Watchdog {
    return new Watchdog(this.#control, {
      timeoutMs,
      awaited,
      isBusy: (rank) => this.#threads[rank]?.busy ?? false,
      onStuck: (error) => this.#fail(error),
    });
  }

  readonly #onAbort = (): void => {
    const { reason } = this.#launch.signal as AbortSignal;
    this.#fail(new PipelineClosedError("the pipeline was aborted", { cause: reason }));
  };

  #onFailure(error: Error): void {
    if (!(error instanceof PipelineAbortedError)) {
      this.#fail(error);
      return;
    }
    // The rank only says that another has ended the pipeline, whose cause is on its way.
    this.#secondary ??= setTimeout(() => this.#fail(error), closeTimeoutMs);
  }

  /** Ends everything; the first call counts. */
  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearTimeout(this.#secondary);
    this.#launch.signal?.removeEventListener("abort", this.#onAbort);
    this.#control.end(-1);
    this.#gone = Promise.all(this.#threads.map((thread) => thread.terminate())).then(() => {
      for (const thread of this.#threads) thread.reject(error);
    });
  }
}

/** A thread for each seat. */
function startThreads(
  launch: CheckedLaunch,
  placement: Pick<RankProgram, "rankOf" | "numStages">,
  seats: readonly WorkerSeat[],
  onFailure: (error: Error) => void,
): readonly RankThread[] {
  const { stageModule, stageExport, criterionExport, stageOptions, timeoutMs, trace } = launch;
  return seats.map((seat) => {
    const start: RankStart = {
      seat,
      numStages: placement.numStages,
      stages: stagesOf(placement, seat.rank),
      stageModule,
      stageExport,
      criterionExport,
      stageOptions,
      timeoutMs,
      trace,
    };
    return new RankThread(start, onFailure);
  });
}

/** The micro-batches of the directions whose `stage` is on a program's rank. */
function portions(
  program: RankProgram,
  all: readonly MicroBatch[],
  stage: number,
): (readonly [number, readonly MicroBatch[]])[] {
  let from = 0;
  const found: [number, readonly MicroBatch[]][] = [];
  program.microBatchesOf.forEach((count, direction) => {
    const part = all.slice(from, from + count);
    from += count;
    if (holderOf(program, direction, stage) === program.rank) found.push([direction, part]);
  });
  return found;
}

/** Puts together what the ranks gave, in the order of the batch. */
function collect(
  { microBatchesOf }: RankProgram,
  replies: readonly StepReply[],
  joinDim: number | undefined,
): PipelineResult {
  const losses = new Map(replies.flatMap((reply) => reply.losses));
  const outputs = new Map(replies.flatMap((reply) => [...unshareBatches(reply.outputs)]));
  const made = microBatchesOf.flatMap((_, direction) => outputs.get(direction) ?? []);
  const known = microBatchesOf.flatMap((_, direction) => [...(losses.get(direction) ?? [])]);
  const any = outputs.size > 0;
  return {
    losses: losses.size > 0 ? Float64Array.from(known) : undefined,
    outputs: any && joinDim !== undefined ? joinBatch("outputs", made, joinDim) : undefined,
    microBatchOutputs: any ? made : undefined,
    ranks: replies.map(({ stats, messageBufferBytes }, rank) => ({
      rank,
      ...stats,
      messageBufferBytes,
    })),
  };
}

/**
 * Starts a worker thread for each rank, which loads its stages from a module, and gives a handle to
 * run steps: `await using pipeline = await launchPipeline({ … })`.
 *
 * @throws InputError naming the option; StageError where a stage cannot be made, RankLostError
 *   where a thread ends.
 */
export async function launchPipeline(options: LaunchOptions): Promise<Pipeline> {
  const pipeline = new Pipeline(checkLaunch(options));
  try {
    await pipeline.ready();
    return pipeline;
  } catch (error) {
    await pipeline.close();
    throw error;
  }
}
