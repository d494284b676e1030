// The planner: tries every schedule, depth, count of micro-batches and cut that is asked for, in
// the simulator, and ranks them by time for the same work. What cannot be used is listed with the
// constraint that forbids it. It searches a given, finite list and finds the best of it; the same
// input gives the same list.

import { InputError } from "@open-infra/errors";
import { type BuiltInName, buildSchedule, builtInNames } from "../schedule/build.ts";
import type { Schedule } from "../schedule/schedule.ts";
import type { Communication } from "../simulate/links.ts";
import { type SimulationResult, simulate } from "../simulate/simulate.ts";
import {
  type CutModel,
  cutByLayers,
  cutEvenly,
  type FullCost,
  fullCost,
  type LayerCost,
  memoryOf,
  type Scaling,
  timesOf,
} from "./costs.ts";

/** What to plan for. Give `share` or `layers`, and `numMicroBatches` or `batch`. */
export interface PlanOptions {
  /** Devices in all. */
  readonly numRanks: number;
  /** Ranks of one pipeline; the others run copies of it on other data. @default [numRanks] */
  readonly pipelineDepths?: readonly number[];
  /** Costs of 1 / numRanks of the model, for a model of equal parts. */
  readonly share?: LayerCost;
  /** Costs of each layer, embedding and head included; cut into stages as evenly as they allow. */
  readonly layers?: readonly LayerCost[];
  /** Time of an overlapped F and B over their sum, where a schedule overlaps them. @default 1 */
  readonly overlapShare?: number;
  /** Micro-batches of a step over all pipelines, as costs are given: candidates. */
  readonly numMicroBatches?: readonly number[];
  /** Or a step of so many tokens, cut into micro-batches of each of these sizes. */
  readonly batch?: {
    readonly tokens: number;
    readonly microBatchTokens: readonly number[];
    /** Tokens of the micro-batch that costs are given for; times and activations grow with them. */
    readonly costTokens: number;
  };
  /**
   * Time of each computation that does not grow with its tokens: launches, small kernels.
   *
   * @default 0
   */
  readonly overhead?: number;
  /** Between ranks of one pipeline; `bytes` are of the micro-batch that costs are given for. */
  readonly communication?: Omit<Communication, "bytes"> & { readonly bytes?: number };
  /** Bytes a rank may use for parameters and activations. @default no limit */
  readonly memoryLimitBytes?: number;
  /**
   * Micro-batches a rank may hold, each counted as one rank's share of the model.
   *
   * @default no limit
   */
  readonly activationLimit?: number;
  /** @default all */
  readonly schedules?: readonly BuiltInName[];
  /** Chunks a rank of the interleaved schedule. @default [2] */
  readonly chunksPerRank?: readonly number[];
  /** Also micro-batch counts that a schedule takes only by leaving cells out. @default false */
  readonly allowPartial?: boolean;
}

/** What a plan is: schedule, sizes. */
export interface PlanChoice {
  readonly schedule: BuiltInName;
  /** Ranks of one pipeline, and pipelines side by side. */
  readonly pipelineDepth: number;
  readonly numPipelines: number;
  /** More than 1 for the interleaved schedule only. */
  readonly chunksPerRank: number;
  /** Of one pipeline. */
  readonly numMicroBatches: number;
  /** With `batch`. */
  readonly microBatchTokens?: number;
}

/** A plan that can be used, and how it does. */
export interface Plan extends PlanChoice {
  readonly numStages: number;
  readonly makespan: number;
  /** Makespan over the micro-batches of all pipelines: what plans are ranked by, or by token. */
  readonly timePerMicroBatch: number;
  /** With `batch`: makespan over tokens of all pipelines. */
  readonly timePerToken?: number;
  /** Idle share of all ranks' time. */
  readonly bubbleShare: number;
  /** Most micro-batches a rank holds, each counted as one rank's share of the model. */
  readonly peakActivations: number;
  /** Copies of each parameter in a pipeline: 2 for DualPipe. */
  readonly parameterCopies: number;
  /** Most bytes of a rank, and of its parameters; 0 where costs name no bytes. */
  readonly peakBytes: number;
  readonly parameterBytes: number;
  readonly lowerBound: number;
  /** With `layers`: the first layer of each stage, and the number of layers. */
  readonly layerBounds?: readonly number[];
}

/** A plan that cannot be used. */
export interface InfeasiblePlan extends PlanChoice {
  /** The option whose value forbids it: `memoryLimitBytes`, `numMicroBatches`, `layers`, … */
  readonly constraint: string;
  /** The sentence with the numbers. */
  readonly reason: string;
}

/** What can be used and what cannot. */
export interface PlanResult {
  /** Usable plans, best first. */
  readonly plans: readonly Plan[];
  readonly infeasible: readonly InfeasiblePlan[];
}

/** A constraint that one choice breaks; others may hold. */
class Infeasible extends Error {
  readonly constraint: string;
  constructor(constraint: string, message: string) {
    super(message);
    this.constraint = constraint;
  }
}

interface Model {
  cut(numStages: number): CutModel;
}

function modelOf({ share, layers, numRanks }: PlanOptions): Model {
  if ((share === undefined) === (layers === undefined)) {
    const got = share === undefined ? "neither" : "both";
    throw new InputError("share and layers", got, "one of them");
  }
  if (share !== undefined) {
    const full = fullCost("share", share);
    return { cut: (numStages) => cutEvenly(full, numRanks, numStages) };
  }
  const given = layers as readonly LayerCost[];
  if (given.length === 0) throw new InputError("layers", "empty", "at least one layer");
  const full: readonly FullCost[] = given.map((cost, i) => fullCost(`layers[${i}]`, cost));
  const cuts = new Map<number, CutModel>();
  const cut = (numStages: number): CutModel => {
    const known = cuts.get(numStages) ?? cutByLayers(full, numStages);
    cuts.set(numStages, known);
    return known;
  };
  return { cut };
}

/** Micro-batches of all pipelines together, with their size in tokens where that varies. */
interface Amount {
  readonly total: number;
  readonly tokens?: number;
  readonly size: number;
}

function whole(name: string, value: number): number {
  if (Number.isInteger(value) && value > 0) return value;
  throw new InputError(name, String(value), "a whole number from 1");
}

function amountsOf({ numMicroBatches, batch }: PlanOptions): Amount[] {
  if ((numMicroBatches === undefined) === (batch === undefined)) {
    const got = batch === undefined ? "neither" : "both";
    throw new InputError("numMicroBatches and batch", got, "one of them");
  }
  if (batch === undefined) {
    const counts = numMicroBatches as readonly number[];
    return counts.map((count, i) => ({ total: whole(`numMicroBatches[${i}]`, count), size: 1 }));
  }
  const costTokens = whole("batch.costTokens", batch.costTokens);
  const all = whole("batch.tokens", batch.tokens);
  return batch.microBatchTokens.map((tokens, i) => {
    const total = all / whole(`batch.microBatchTokens[${i}]`, tokens);
    if (Number.isInteger(total)) return { total, tokens, size: tokens / costTokens };
    const allowed = `a divisor of batch.tokens, ${all}`;
    throw new InputError(`batch.microBatchTokens[${i}]`, String(tokens), allowed);
  });
}

/** Limits are positive, and one in bytes has bytes to count. */
function checkOptions({ numRanks, share, layers, ...limits }: PlanOptions): void {
  whole("numRanks", numRanks);
  for (const name of ["memoryLimitBytes", "activationLimit"] as const) {
    const limit = limits[name];
    if (limit === undefined || limit > 0) continue;
    throw new InputError(name, String(limit), "a number above 0");
  }
  if (limits.memoryLimitBytes === undefined) return;
  const costs = share === undefined ? (layers ?? []) : [share];
  const isCounted = costs.some(
    (cost) => (cost.parameterBytes ?? cost.activationBytes) !== undefined,
  );
  if (isCounted) return;
  const allowed = "no limit where no cost has parameterBytes or activationBytes";
  throw new InputError("memoryLimitBytes", String(limits.memoryLimitBytes), allowed);
}

function* choicesOf(options: PlanOptions): Generator<{ choice: PlanChoice; amount: Amount }> {
  const { numRanks, schedules = builtInNames, chunksPerRank = [2] } = options;
  const amounts = amountsOf(options);
  for (const pipelineDepth of options.pipelineDepths ?? [numRanks]) {
    const numPipelines = numRanks / whole("pipelineDepths", pipelineDepth);
    if (!Number.isInteger(numPipelines)) {
      const allowed = `divisors of numRanks, ${numRanks}`;
      throw new InputError("pipelineDepths", String(pipelineDepth), allowed);
    }
    for (const schedule of schedules) {
      for (const chunks of schedule === "interleaved-1f1b" ? chunksPerRank : [1]) {
        for (const amount of amounts) {
          const numMicroBatches = amount.total / numPipelines;
          const choice = {
            schedule,
            pipelineDepth,
            numPipelines,
            chunksPerRank: chunks,
            numMicroBatches,
            ...(amount.tokens !== undefined && { microBatchTokens: amount.tokens }),
          };
          yield { choice, amount };
        }
      }
    }
  }
}

function build(choice: PlanChoice, allowPartial: boolean): Schedule {
  const { schedule, pipelineDepth, chunksPerRank, numMicroBatches, numPipelines } = choice;
  if (!Number.isInteger(numMicroBatches)) {
    const total = numMicroBatches * numPipelines;
    const message = `${total} micro-batches do not divide into ${numPipelines} pipelines`;
    throw new Infeasible("numMicroBatches", message);
  }
  return buildSchedule(schedule, {
    numRanks: pipelineDepth,
    numMicroBatches,
    ...(schedule === "interleaved-1f1b" && { chunksPerRank }),
    ...(allowPartial && { allowPartial }),
  });
}

/** Largest value of a list, and where it stands. */
function largest(values: ArrayLike<number>): { readonly value: number; readonly at: number } {
  let at = 0;
  for (let i = 1; i < values.length; i++) {
    if ((values[i] as number) > (values[at] as number)) at = i;
  }
  return { value: values[at] ?? 0, at };
}

function checkLimits(
  { memoryLimitBytes, activationLimit }: PlanOptions,
  { peak }: Pick<SimulationResult, "peak">,
  activationShare: number,
): void {
  const held = largest(peak.activations);
  const activations = held.value * activationShare;
  if (activationLimit !== undefined && activations > activationLimit) {
    const message =
      `rank ${held.at} holds ${activations} micro-batches of its share; ` +
      `the limit is ${activationLimit}`;
    throw new Infeasible("activationLimit", message);
  }
  const bytes = largest(peak.bytes as Float64Array);
  if (memoryLimitBytes !== undefined && bytes.value > memoryLimitBytes) {
    const parameters = peak.parameterBytes?.[bytes.at] as number;
    const message =
      `rank ${bytes.at} needs ${bytes.value} bytes (${parameters} of parameters, ` +
      `${bytes.value - parameters} of activations); the limit is ${memoryLimitBytes}`;
    throw new Infeasible("memoryLimitBytes", message);
  }
}

class Planner {
  readonly #options: PlanOptions;
  readonly #model: Model;
  readonly #scaling: Omit<Scaling, "size">;
  /** The last schedule built: sizes in tokens share one. */
  #last: { readonly key: string; readonly schedule: Schedule } | undefined;

  constructor(options: PlanOptions) {
    this.#options = options;
    this.#model = modelOf(options);
    const overlapShare = options.overlapShare ?? 1;
    const overhead = options.overhead ?? 0;
    if (!(overlapShare > 0 && overlapShare <= 1)) {
      throw new InputError("overlapShare", String(overlapShare), "above 0 and at most 1");
    }
    if (!(overhead >= 0 && overhead < Number.POSITIVE_INFINITY)) {
      throw new InputError("overhead", String(overhead), "a finite number from 0");
    }
    this.#scaling = { overlapShare, overhead };
  }

  evaluate(choice: PlanChoice, amount: Amount): Plan {
    const { schedule, cut } = this.#prepare(choice);
    const { numStages, numRanks, numDirections } = schedule;
    const communication = this.#communication(amount.size);
    const result = simulate(schedule, timesOf(cut, { ...this.#scaling, size: amount.size }), {
      timeline: false,
      criticalPath: false,
      memory: memoryOf(cut, amount.size),
      communication,
    });
    const activationShare = numRanks / numStages;
    checkLimits(this.#options, result, activationShare);
    const { makespan, peak } = result;
    return {
      ...choice,
      numStages,
      makespan,
      timePerMicroBatch: makespan / amount.total,
      ...(amount.tokens !== undefined && {
        timePerToken: makespan / (amount.total * amount.tokens),
      }),
      bubbleShare: result.bubbleShare,
      peakActivations: largest(peak.activations).value * activationShare,
      parameterCopies: numDirections,
      peakBytes: largest(peak.bytes as Float64Array).value,
      parameterBytes: largest(peak.parameterBytes as Float64Array).value,
      lowerBound: result.lowerBound.makespan,
      ...(cut.layerBounds && { layerBounds: cut.layerBounds }),
    };
  }

  #communication(size: number): Communication {
    const { communication = {} } = this.#options;
    const { bytes } = communication;
    return { ...communication, ...(bytes !== undefined && { bytes: bytes * size }) };
  }

  /** Schedule and stages of a choice; what a builder or the cut refuses is a constraint of it. */
  #prepare(choice: PlanChoice): { readonly schedule: Schedule; readonly cut: CutModel } {
    try {
      const schedule = this.#build(choice);
      return { schedule, cut: this.#model.cut(schedule.numStages) };
    } catch (error) {
      if (error instanceof InputError) throw new Infeasible(error.parameter, error.message);
      throw error;
    }
  }

  #build(choice: PlanChoice): Schedule {
    const { schedule, pipelineDepth, chunksPerRank, numMicroBatches } = choice;
    const key = [schedule, pipelineDepth, chunksPerRank, numMicroBatches].join(" ");
    if (this.#last?.key === key) return this.#last.schedule;
    this.#last = { key, schedule: build(choice, this.#options.allowPartial ?? false) };
    return this.#last.schedule;
  }
}

/** What plans are ranked by, to twelve digits, so that rounding makes no difference of equals. */
function rankingTime({ timePerToken, timePerMicroBatch }: Plan): number {
  return Number((timePerToken ?? timePerMicroBatch).toPrecision(12));
}

/** Less time for the same work first; where it is the same, less memory. */
function compare(a: Plan, b: Plan): number {
  return (
    rankingTime(a) - rankingTime(b) ||
    a.peakBytes - b.peakBytes ||
    a.peakActivations - b.peakActivations ||
    a.parameterCopies - b.parameterCopies ||
    a.numStages - b.numStages
  );
}

/**
 * Ranks schedules and micro-batch counts for given costs and limits.
 *
 * @throws InputError for options that cannot be, whatever the schedule. What only some schedules do
 *   not take is not thrown but listed in `infeasible`.
 */
export function planPipeline(options: PlanOptions): PlanResult {
  checkOptions(options);
  const planner = new Planner(options);
  const plans: Plan[] = [];
  const infeasible: InfeasiblePlan[] = [];
  for (const { choice, amount } of choicesOf(options)) {
    try {
      plans.push(planner.evaluate(choice, amount));
    } catch (error) {
      if (!(error instanceof Infeasible)) throw error;
      infeasible.push({ ...choice, constraint: error.constraint, reason: error.message });
    }
  }
  return { plans: plans.toSorted(compare), infeasible };
}
