// A result as the JSON that `eplb rebalance --json` prints, and the loads and the placement before
// as files for that command.

import {
  type BalanceReport,
  type NestedPlacement,
  placementFrom,
  toNested,
} from "@open-infra/eplb";
import type { PlaceResult } from "./compute.ts";

/** Rows of a flat table. */
export function rowsOf(flat: ArrayLike<number>, numRows: number): number[][] {
  const length = flat.length / numRows;
  return Array.from({ length: numRows }, (_, row) =>
    Array.from({ length }, (__, at) => flat[row * length + at] as number),
  );
}

/** Typed arrays would become objects in JSON. */
function plainReport(report: BalanceReport): unknown {
  const layers = report.layers.map((layer) => ({
    ...layer,
    gpuLoads: Array.from(layer.gpuLoads),
    nodeLoads: Array.from(layer.nodeLoads),
  }));
  return { ...report, layers };
}

function nested(rows: number[][], numLogical: number): NestedPlacement {
  return toNested(placementFrom(rows, numLogical));
}

/** The document of the command; `before` stands in it where the command would know it. */
export function resultJson(result: PlaceResult): string {
  const { policy, numLayers, numLogical, shape, after, before, moved, baseline } = result;
  const complete = moved !== undefined && baseline !== "none";
  return JSON.stringify({
    policy,
    numLayers,
    numLogical,
    ...shape,
    ...nested(rowsOf(after.phy2log, numLayers), numLogical),
    report: plainReport(after.report),
    ...(complete && { before: plainReport(before.report) }),
  });
}

/** The loads as rows. */
export function loadsJson({ weight, numLayers }: PlaceResult): string {
  return JSON.stringify(rowsOf(weight, numLayers));
}

/** The placement before, in the slots of the cluster; empty slots are −1. */
export function beforeJson({ before, numLayers, shape }: PlaceResult): string {
  const { numReplicas, numGpus } = shape;
  const perGpu = numReplicas / numGpus;
  const held = before.numReplicas / numGpus;
  const phy2log = rowsOf(before.phy2log, numLayers).map((row) =>
    Array.from({ length: numReplicas }, (_, slot) => {
      const place = slot % perGpu;
      return place < held ? (row[Math.floor(slot / perGpu) * held + place] as number) : -1;
    }),
  );
  return JSON.stringify({ phy2log });
}
