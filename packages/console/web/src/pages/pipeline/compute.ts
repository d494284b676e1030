// The work of the pipeline page: a schedule built, checked and simulated; all schedules beside each
// other; the planner. Pure; the page's worker runs it, tests call it.

import {
  type BubbleFormula,
  type BuiltInName,
  bubbleFormula,
  buildSchedule,
  builtInNames,
  type InfeasiblePlan,
  type LayerCost,
  type Plan,
  planPipeline,
  type Schedule,
  type SimulationResult,
  type StageTimes,
  simulate,
  type Violation,
  validateSchedule,
  withCommunication,
} from "@open-infra/dualpipe";
import { InputError } from "@open-infra/errors";
import {
  type CompareRequest,
  overlapShareOf,
  type PipelineRequest,
  type ShareTimes,
  stageTimes,
} from "./inputs.ts";

/** What validation said. */
export interface Verdict {
  readonly ok: boolean;
  readonly violations: readonly Violation[];
  readonly omitted: number;
  readonly readings: readonly string[];
}

/** Everything the page shows of one pipeline. */
export interface PipelineResult
  extends Pick<
    SimulationResult,
    "makespan" | "busy" | "idle" | "idleOf" | "bubbleShare" | "lowerBound" | "numOperations"
  > {
  readonly schedule: Schedule;
  readonly stagesPerRank: number;
  readonly timeline: NonNullable<SimulationResult["timeline"]>;
  /** Most micro-batches each rank holds, each counted once a stage. */
  readonly peakActivations: readonly number[];
  /** The same until the weights' gradients. */
  readonly peakUntilWeight: readonly number[];
  /** The limit in the same count. */
  readonly limit: number | undefined;
  /** [rank][operation]: 1 on the critical path. */
  readonly critical: readonly Uint8Array[];
  readonly criticalPath: {
    readonly steps: number;
    readonly computeTime: number;
    readonly communicationTime: number;
    readonly numHops: number;
  };
  readonly verdict: Verdict;
  /** Where all stages are alike. */
  readonly formula: BubbleFormula | undefined;
  readonly elapsedMs: number;
}

/** More cells than this are for the command line. */
const cellsMax = 6_000_000;
/** Up to so many operations the order of transfers is checked too. */
const communicationMax = 400_000;

function build(
  name: BuiltInName,
  request: Omit<PipelineRequest, "kind" | "schedule">,
): { readonly schedule: Schedule; readonly stagesPerRank: number } {
  const { numRanks, numMicroBatches, chunksPerRank, allowPartial } = request;
  const isInterleaved = name === "interleaved-1f1b";
  const stages = isInterleaved ? chunksPerRank : name === "zbv" || name === "dualpipev" ? 2 : 1;
  if (numRanks * numMicroBatches * stages > cellsMax) {
    const got = `${numMicroBatches} on ${numRanks} ranks`;
    const most = Math.floor(cellsMax / (numRanks * stages));
    throw new InputError(
      "numMicroBatches",
      got,
      `at most ${most} here; the command line takes more`,
    );
  }
  const schedule = buildSchedule(name, {
    numRanks,
    numMicroBatches,
    allowPartial,
    ...(isInterleaved && { chunksPerRank }),
  });
  return { schedule, stagesPerRank: schedule.numStages / numRanks };
}

function formulaOf(
  name: BuiltInName,
  { numRanks, numMicroBatches }: Pick<PipelineRequest, "numRanks" | "numMicroBatches">,
  stagesPerRank: number,
  { F, B, W, FB }: StageTimes,
): BubbleFormula | undefined {
  if (typeof F !== "number" || typeof B !== "number" || typeof W !== "number") return undefined;
  let pair = F + B;
  if (typeof FB === "number") pair = FB;
  else if (typeof FB === "object" && "shareOfSum" in FB) pair = FB.shareOfSum * (F + B);
  else if (FB !== undefined) return undefined;
  const chunksPerRank = Math.max(1, stagesPerRank);
  return bubbleFormula(name, { numRanks, numMicroBatches, chunksPerRank, F, B, W, FB: pair });
}

function verdictOf(schedule: Schedule, limit: number | undefined, operations: number): Verdict {
  const full = operations <= communicationMax ? withCommunication(schedule) : schedule;
  const options = limit === undefined ? {} : { memoryLimit: limit };
  const { ok, violations, omitted, readings } = validateSchedule(full, options);
  return {
    ok,
    violations: violations.slice(0, 20),
    omitted: omitted + Math.max(0, violations.length - 20),
    readings,
  };
}

/**
 * The answer to a question about one pipeline.
 *
 * @throws InputError as the package does.
 */
export function pipeline(request: PipelineRequest): PipelineResult {
  const startedMs = performance.now();
  const { schedule, stagesPerRank } = build(request.schedule, request);
  const times = stageTimes(request, stagesPerRank);
  const result = simulate(schedule, times, { communication: { latency: request.latency } });
  const limit = limitOf(request.activationLimit, stagesPerRank);
  const critical = schedule.ranks.map(({ length }) => new Uint8Array(length));
  for (const { rank, index } of result.criticalPath?.steps ?? []) {
    (critical[rank] as Uint8Array)[index] = 1;
  }
  const {
    steps = [],
    computeTime = 0,
    communicationTime = 0,
    numHops = 0,
  } = result.criticalPath ?? {};
  const { makespan, busy, idle, idleOf, bubbleShare, lowerBound, numOperations } = result;
  return {
    makespan,
    busy,
    idle,
    idleOf,
    bubbleShare,
    lowerBound,
    numOperations,
    schedule,
    stagesPerRank,
    timeline: result.timeline ?? [],
    peakActivations: result.peak.activations,
    peakUntilWeight: result.peak.activationsUntilW,
    limit,
    critical,
    criticalPath: { steps: steps.length, computeTime, communicationTime, numHops },
    verdict: verdictOf(schedule, limit, numOperations),
    formula: formulaOf(request.schedule, request, stagesPerRank, times),
    elapsedMs: performance.now() - startedMs,
  };
}

function limitOf(activationLimit: number | undefined, stagesPerRank: number): number | undefined {
  if (activationLimit === undefined) return undefined;
  if (!(activationLimit > 0)) {
    throw new InputError(
      "activationLimit",
      String(activationLimit),
      "a number above 0, or nothing",
    );
  }
  return activationLimit * stagesPerRank;
}

/** One schedule of the comparison. */
export type ComparedRow = { readonly schedule: BuiltInName } & (
  | { readonly reason: string }
  | {
      readonly reason?: undefined;
      readonly makespan: number;
      readonly bubbleShare: number;
      /** Times the model's parameters are held over all ranks. */
      readonly parameterCopies: number;
      /** Most micro-batches a rank holds, each counted as one rank's share of the model. */
      readonly peakActivations: number;
      readonly devices: number;
      readonly formula: string | undefined;
      readonly overLimit: boolean;
    }
);

export interface CompareResult {
  readonly rows: readonly ComparedRow[];
  readonly plans: readonly Plan[];
  readonly infeasible: readonly InfeasiblePlan[];
  /** Why the planner could not be asked at all. */
  readonly planProblem: string | undefined;
}

function compared(name: BuiltInName, request: CompareRequest): ComparedRow {
  try {
    const { schedule, stagesPerRank } = build(name, request);
    const times = stageTimes(request, stagesPerRank);
    const result = simulate(schedule, times, {
      communication: { latency: request.latency },
      timeline: false,
      criticalPath: false,
    });
    const peakActivations = Math.max(...result.peak.activations) / stagesPerRank;
    return {
      schedule: name,
      makespan: result.makespan,
      bubbleShare: result.bubbleShare,
      parameterCopies: schedule.numDirections,
      peakActivations,
      devices: schedule.numRanks,
      formula: formulaOf(name, request, stagesPerRank, times)?.formula,
      overLimit: peakActivations > (request.activationLimit ?? Number.POSITIVE_INFINITY),
    };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { schedule: name, reason: error.message };
  }
}

/** Uneven shares as layers that every schedule can cut: each share in equal parts. */
function layersOf({ times, numRanks, chunksPerRank }: CompareRequest): LayerCost[] {
  const parts = 2 * Math.max(1, chunksPerRank);
  const at = (value: ShareTimes, rank: number): number =>
    (typeof value === "number" ? value : (value[rank] as number)) / parts;
  return Array.from({ length: numRanks * parts }, (_, layer) => {
    const rank = Math.floor(layer / parts);
    // Activations are what limits are counted in, so that parts of a share hold parts of one.
    return { F: at(times.F, rank), B: at(times.B, rank), W: at(times.W, rank) };
  });
}

function plansOf(request: CompareRequest): Pick<CompareResult, "plans" | "infeasible"> {
  const { times, numRanks, counts, chunksPerRank, latency, activationLimit, allowPartial } =
    request;
  const { F, B, W } = times;
  const isEven = typeof F === "number" && typeof B === "number" && typeof W === "number";
  return planPipeline({
    numRanks,
    ...(isEven ? { share: { F, B, W } } : { layers: layersOf(request) }),
    numMicroBatches: counts,
    overlapShare: overlapShareOf(times),
    communication: { latency },
    ...(activationLimit !== undefined && { activationLimit }),
    chunksPerRank: [chunksPerRank],
    allowPartial,
  });
}

/** All schedules for the same model, and the planner's list. */
export function compare(request: CompareRequest): CompareResult {
  const rows = builtInNames.map((name) => compared(name, request));
  const cells = request.numRanks * 2 * request.counts.reduce((sum, count) => sum + count, 0);
  if (!(cells <= cellsMax)) {
    const planProblem = "Too many cells to plan here; open-infra dualpipe plan takes more.";
    return { rows, plans: [], infeasible: [], planProblem };
  }
  try {
    return { rows, ...plansOf(request), planProblem: undefined };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { rows, plans: [], infeasible: [], planProblem: error.message };
  }
}

/** What of a result can be handed over instead of copied. */
export function buffersOf(result: PipelineResult | CompareResult): ArrayBuffer[] {
  if (!("schedule" in result)) return [];
  const buffers = new Set<ArrayBuffer>();
  const take = (...arrays: readonly ArrayBufferView[]): void => {
    for (const { buffer } of arrays) buffers.add(buffer as ArrayBuffer);
  };
  for (const ops of result.schedule.ranks) {
    take(ops.kind, ops.direction, ops.stage, ops.microBatch);
    take(ops.pairDirection, ops.pairStage, ops.pairMicroBatch, ops.phase);
  }
  for (const { start, end } of result.timeline) take(start, end);
  take(...result.critical);
  return [...buffers];
}
