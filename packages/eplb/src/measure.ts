// How good a placement is under given loads: what every policy returns beside the placement, and
// what the controller and the console show. A replica carries its expert's load ÷ replicas, because
// tokens are spread evenly over replicas. All sums are float64.

import { InputError } from "@open-infra/errors";
import { LayerBounds } from "./bound.ts";
import { checkComplete } from "./convert.ts";
import { movedInGpu } from "./moves.ts";
import { keepsNodeLimit } from "./node-limit.ts";
import type { BalanceReport, EplbShape, LayerBalance, LoadRows, Placement } from "./placement.ts";
import { checkShape, type LoadMatrix, loadMatrix, nodeOfGpu } from "./shape.ts";

/** How a placement is measured. */
export interface MeasureOptions {
  /** The placement before, to count moved slots from. */
  readonly from?: Placement;
}

/** A gap below this is rounding of sums: the bound is met. */
const roundingGap = 1e-9;

/**
 * Balance of a placement under `weight`: loads, lower bound and gap, duplicates, moved slots.
 *
 * @throws InputError if the loads, the shape and the placements do not fit each other, or an expert
 *   has no slot.
 */
export function measurePlacement(
  weight: LoadRows,
  placement: Placement,
  shape: EplbShape,
  options: MeasureOptions = {},
): BalanceReport {
  const matrix = loadMatrix(weight);
  checkShape(shape, matrix.numLogical);
  checkFits(placement, matrix, shape, "placement");
  checkComplete(placement, "placement.phy2log");
  if (options.from !== undefined) checkFits(options.from, matrix, shape, "from");
  return measure(matrix, placement, shape, options.from);
}

/** @throws InputError if a placement is of other sizes than the loads and the shape. */
export function checkFits(
  placement: Placement,
  matrix: LoadMatrix,
  shape: EplbShape,
  name: string,
): void {
  const wanted = {
    numLayers: [matrix.numLayers, "the rows of weight"],
    numLogical: [matrix.numLogical, "the loads of a row of weight"],
    numReplicas: [shape.numReplicas, "numReplicas of the shape"],
  } as const;
  for (const key of ["numLayers", "numLogical", "numReplicas"] as const) {
    const [value, what] = wanted[key];
    if (placement[key] === value) continue;
    throw new InputError(`${name}.${key}`, String(placement[key]), `${value}, ${what}`);
  }
}

/** `measurePlacement` of checked input. */
export function measure(
  matrix: LoadMatrix,
  placement: Placement,
  shape: EplbShape,
  from?: Placement,
): BalanceReport {
  const nodeLimit = keepsNodeLimit(placement, shape);
  const bounds = new LayerBounds(matrix.numLogical, shape, nodeLimit);
  const balance = new Int32Array(matrix.numLogical);
  const lastGpu = new Int32Array(matrix.numLogical);
  const layers: LayerBalance[] = [];
  for (let layer = 0; layer < matrix.numLayers; layer++) {
    const start = layer * matrix.numLogical;
    const loads = matrix.data.subarray(start, start + matrix.numLogical);
    const lowerBound = bounds.lowerBound(loads);
    const scratch = { balance, lastGpu: lastGpu.fill(-1) };
    layers.push(measureLayer({ loads, placement, shape, layer, lowerBound, from, ...scratch }));
  }
  return summary(layers, nodeLimit, placement.phy2log.length);
}

interface LayerInput {
  readonly loads: Float64Array;
  readonly placement: Placement;
  readonly shape: EplbShape;
  readonly layer: number;
  readonly lowerBound: number;
  /** Zeros, one an expert; zeros again afterwards. */
  readonly balance: Int32Array;
  /** −1, one an expert; afterwards the last GPU that holds it. */
  readonly lastGpu: Int32Array;
  readonly from: Placement | undefined;
}

function measureLayer(input: LayerInput): LayerBalance {
  const { loads, placement, shape, layer, lowerBound, balance, lastGpu, from } = input;
  const { numLogical, numReplicas, phy2log, logcnt } = placement;
  const { numGpus, numNodes } = shape;
  const perGpu = numReplicas / numGpus;
  const gpuLoads = new Float64Array(numGpus);
  const nodeLoads = new Float64Array(numNodes);
  let [maxLoad, maxReplicaLoad, total, squares, duplicates, movedSlots] = [0, 0, 0, 0, 0, 0];
  for (let gpu = 0; gpu < numGpus; gpu++) {
    const start = layer * numReplicas + gpu * perGpu;
    let sum = 0;
    for (let slot = start; slot < start + perGpu; slot++) {
      const expert = phy2log[slot] as number;
      const share = (loads[expert] as number) / (logcnt[layer * numLogical + expert] as number);
      sum += share;
      maxReplicaLoad = Math.max(maxReplicaLoad, share);
      if (lastGpu[expert] === gpu) duplicates++;
      lastGpu[expert] = gpu;
    }
    gpuLoads[gpu] = sum;
    const node = nodeOfGpu(gpu, shape);
    nodeLoads[node] = (nodeLoads[node] as number) + sum;
    maxLoad = Math.max(maxLoad, sum);
    if (from === undefined) continue;
    const before = from.phy2log.subarray(start, start + perGpu);
    movedSlots += movedInGpu(before, phy2log.subarray(start, start + perGpu), balance);
  }
  for (const load of loads) total += load;
  const meanLoad = total / numGpus;
  for (const load of gpuLoads) squares += (load - meanLoad) ** 2;
  const gap = lowerBound > 0 ? maxLoad / lowerBound - 1 : 0;
  const isMet = gap < roundingGap;
  return {
    maxLoad,
    meanLoad,
    maxOverMean: meanLoad > 0 ? Math.max(1, maxLoad / meanLoad) : 1,
    balancedness: maxLoad > 0 ? Math.min(1, meanLoad / maxLoad) : 1,
    lowerBound: isMet ? maxLoad : lowerBound,
    gap: isMet ? 0 : gap,
    maxReplicaLoad,
    variation: meanLoad > 0 ? Math.sqrt(squares / numGpus) / meanLoad : 0,
    gpuLoads,
    nodeLoads,
    duplicates,
    movedSlots,
  };
}

function summary(
  layers: readonly LayerBalance[],
  nodeLimit: boolean,
  slots: number,
): BalanceReport {
  const total = (value: (layer: LayerBalance) => number): number =>
    layers.reduce((sum, layer) => sum + value(layer), 0);
  const worst = (value: (layer: LayerBalance) => number): number =>
    layers.reduce((most, layer) => Math.max(most, value(layer)), 0);
  const sumOfMax = total((layer) => layer.maxLoad);
  const movedSlots = total((layer) => layer.movedSlots);
  return {
    nodeLimit,
    layers,
    meanMaxOverMean: total((layer) => layer.maxOverMean) / layers.length,
    worstMaxOverMean: worst((layer) => layer.maxOverMean),
    balancedness: sumOfMax > 0 ? Math.min(1, total((layer) => layer.meanLoad) / sumOfMax) : 1,
    worstGap: worst((layer) => layer.gap),
    duplicates: total((layer) => layer.duplicates),
    movedSlots,
    movedShare: movedSlots / slots,
  };
}
