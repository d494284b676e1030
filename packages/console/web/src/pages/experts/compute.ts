// The work of the experts page: loads, the placement before, the placement after, and what both are
// worth. Pure; the page's worker runs it, tests call it.

import {
  type BalanceReport,
  type EplbShape,
  generateLoads,
  type LoadRows,
  LoadWindow,
  measurePlacement,
  type Placement,
  type PolicyName,
  placementFrom,
  rebalanceExperts,
  type SimulationResult,
  simulateEplb,
} from "@open-infra/eplb";
import { InputError } from "@open-infra/errors";
import {
  type Baseline,
  type LoadSource,
  type OnlineRequest,
  type PlaceRequest,
  startsFromBaseline,
} from "./inputs.ts";

/** One placement and its balance. */
export interface Side {
  readonly numReplicas: number;
  /** [layer × slot]: expert, −1 for an empty slot. */
  readonly phy2log: Int32Array;
  /** [layer × expert]: replicas. */
  readonly logcnt: Int32Array;
  readonly report: BalanceReport;
}

/** Everything the page shows of a placement. */
export interface PlaceResult {
  readonly numLayers: number;
  readonly numLogical: number;
  readonly shape: EplbShape;
  readonly policy: PolicyName;
  readonly baseline: Baseline;
  /** [layer × expert]. */
  readonly weight: Float64Array;
  readonly before: Side;
  readonly after: Side;
  /** Slots of `after` that need a copy from another GPU, 1 each; undefined without a start. */
  readonly moved: Uint8Array | undefined;
  /** Time of the policy alone. */
  readonly elapsedMs: number;
}

/** Tokens of a step and layer in made-up loads: enough that rounding makes few ties. */
const tokensPerLayer = 1_000_000;
/** More numbers than this are for the command line. */
const numbersMax = 4_000_000;

/** Loads as rows. */
export function loadsOf(source: LoadSource): number[][] {
  if (source.kind === "rows") return source.weight as number[][];
  const { kind: _, ...options } = source;
  const numbers = options.numLayers * options.numLogical;
  if (numbers > numbersMax) {
    const allowed = `at most ${numbersMax} loads in all; the command line takes more`;
    throw new InputError(
      "numLogical",
      `${options.numLogical} × ${options.numLayers} layers`,
      allowed,
    );
  }
  const trace = generateLoads({
    ...options,
    numSteps: 1,
    noise: 0,
    hotExperts: 1,
    tokensPerStep: tokensPerLayer,
  });
  const [step] = Array.from(trace, (loads) => Array.from(loads));
  const { numLayers, numLogical } = options;
  return Array.from({ length: numLayers }, (__, layer) =>
    (step as number[]).slice(layer * numLogical, (layer + 1) * numLogical),
  );
}

/** Experts in order; redundant slots begin again at expert 0. */
function inOrder(numLayers: number, numLogical: number, numReplicas: number): Placement {
  const row = Array.from({ length: numReplicas }, (_, slot) => slot % numLogical);
  return placementFrom(
    Array.from({ length: numLayers }, () => row),
    numLogical,
  );
}

/** In order without redundant slots, which are empty at the end of each GPU. */
function withoutReplicas(numLayers: number, numLogical: number, shape: EplbShape): Placement {
  const { numGpus, numReplicas } = shape;
  const each = numLogical / numGpus;
  const slots = numReplicas / numGpus;
  const row = Array.from({ length: numReplicas }, (_, slot) => {
    const place = slot % slots;
    return place < each ? Math.floor(slot / slots) * each + place : -1;
  });
  return placementFrom(
    Array.from({ length: numLayers }, () => row),
    numLogical,
    { allowMissing: true },
  );
}

interface Before {
  /** To start migration from, in the slots of the cluster. */
  readonly placement: Placement;
  readonly side: Side;
}

function sideOf(placement: Placement, report: BalanceReport): Side {
  const { numReplicas, phy2log, logcnt } = placement;
  return { numReplicas, phy2log, logcnt, report };
}

function oldPlacement(request: PlaceRequest, numLogical: number): Placement {
  if (request.old === undefined) {
    throw new InputError("from", "missing", "a placement: drop the JSON of eplb rebalance here");
  }
  return placementFrom(request.old, numLogical);
}

/** Loads as they were before each changed by up to `share`, the same for the same seed. */
export function earlierLoads(
  weight: LoadRows,
  share: number | undefined,
  seed: number,
): number[][] {
  if (share === undefined || !(share >= 0 && share < 1)) {
    throw new InputError("drift", `${(share ?? Number.NaN) * 100} %`, "0 % to below 100 %");
  }
  let state = seed | 0;
  const uniform = (): number => {
    // A congruential generator is plenty for this, and needs no state of its own elsewhere.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return (state >>> 0) / 2 ** 32;
  };
  return weight.map((row) => Array.from(row, (load) => load * (1 + share * (2 * uniform() - 1))));
}

/** A placement before that fills all slots. */
function wholeBaseline(weight: LoadRows, numLogical: number, request: PlaceRequest): Placement {
  const { shape, baseline, drift, driftSeed } = request;
  if (baseline === "deepseek") return rebalanceExperts(weight, shape);
  if (baseline === "drifted")
    return rebalanceExperts(earlierLoads(weight, drift, driftSeed), shape);
  if (baseline === "file") return oldPlacement(request, numLogical);
  return inOrder(weight.length, numLogical, shape.numReplicas);
}

function beforeOf(weight: LoadRows, numLogical: number, request: PlaceRequest): Before {
  const { shape, baseline } = request;
  const numLayers = weight.length;
  if (baseline === "none") {
    if (numLogical % shape.numGpus !== 0) {
      const allowed = `a divisor of the ${numLogical} experts, for one slot an expert before`;
      throw new InputError("numGpus", String(shape.numGpus), allowed);
    }
    const bare = inOrder(numLayers, numLogical, numLogical);
    const report = measurePlacement(weight, bare, { ...shape, numReplicas: numLogical });
    return { placement: withoutReplicas(numLayers, numLogical, shape), side: sideOf(bare, report) };
  }
  const placement = wholeBaseline(weight, numLogical, request);
  return { placement, side: sideOf(placement, measurePlacement(weight, placement, shape)) };
}

/** Slots of each GPU that hold an expert beyond those the GPU held before. */
export function movedSlotsOf(before: Int32Array, after: Int32Array, perGpu: number): Uint8Array {
  const moved = new Uint8Array(after.length);
  for (let start = 0; start < after.length; start += perGpu) {
    const held = Array.from(before.subarray(start, start + perGpu));
    const left: number[] = [];
    // Slots that did not change come first: an equal expert elsewhere must not take their place.
    for (let slot = 0; slot < perGpu; slot++) {
      if (after[start + slot] === held[slot]) held[slot] = -2;
      else left.push(slot);
    }
    for (const slot of left) {
      const at = held.indexOf(after[start + slot] as number);
      if (at >= 0) held[at] = -2;
      else moved[start + slot] = 1;
    }
  }
  return moved;
}

/**
 * The answer to a question about a placement.
 *
 * @throws InputError as the package does.
 */
export function place(request: PlaceRequest): PlaceResult {
  const { shape, policy, targetMaxOverMean, maxMovedSlots } = request;
  const weight = loadsOf(request.loads);
  const numLogical = weight[0]?.length ?? 0;
  // First, so that loads and cluster are checked before anything is derived from them.
  rebalanceExperts(weight.slice(0, 1), { ...shape, policy: "deepseek" });
  const before = beforeOf(weight, numLogical, request);
  const from = startsFromBaseline(request) ? before.placement : undefined;
  const startedMs = performance.now();
  const result = rebalanceExperts(weight, {
    ...shape,
    policy,
    ...(from && { from }),
    ...(targetMaxOverMean !== undefined && { targetMaxOverMean }),
    ...(maxMovedSlots !== undefined && { maxMovedSlots }),
  });
  const elapsedMs = performance.now() - startedMs;
  const flat = new Float64Array(weight.length * numLogical);
  weight.forEach((row, layer) => {
    flat.set(row, layer * numLogical);
  });
  const perGpu = shape.numReplicas / shape.numGpus;
  return {
    numLayers: weight.length,
    numLogical,
    shape,
    policy,
    baseline: request.baseline,
    weight: flat,
    before: before.side,
    after: sideOf(result, result.report),
    moved: from && movedSlotsOf(from.phy2log, result.phy2log, perGpu),
    elapsedMs,
  };
}

/** What the online part shows. */
export type OnlineResult = Pick<
  SimulationResult,
  "numSteps" | "windows" | "controller" | "fixed" | "fresh" | "peakStepBytes" | "metrics"
>;

/** Steps times loads a replay may have; more are for the command line. */
const replayMax = 40_000_000;

/**
 * Replays a made-up load through the controller.
 *
 * @throws InputError as the package does.
 */
export function replay(request: OnlineRequest): OnlineResult {
  const { kind: _, shape, policy, intervalSteps, maxBytesPerStep, ...load } = request;
  const { numLayers, numLogical, numSteps } = load;
  if (numLayers * numLogical * numSteps > replayMax) {
    const got = `${numSteps} of ${numLayers} × ${numLogical} experts`;
    const most = Math.floor(replayMax / (numLayers * numLogical));
    throw new InputError("numSteps", got, `at most ${most} here; the command line takes more`);
  }
  const trace = generateLoads(load);
  const result = simulateEplb(trace, {
    ...shape,
    policy,
    intervalSteps,
    windowSteps: Math.max(1, Math.ceil(numSteps / 40)),
    statistics: () => new LoadWindow({ numLayers, numLogical, windowSteps: intervalSteps }),
    bytesPerExpert: 1,
    ...(maxBytesPerStep !== undefined && { maxBytesPerStep }),
  });
  const { windows, controller, fixed, fresh, peakStepBytes, metrics } = result;
  return { numSteps, windows, controller, fixed, fresh, peakStepBytes, metrics };
}
