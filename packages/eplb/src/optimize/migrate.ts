// Minimal migration over all layers: plans every layer alone, and if the plans together exceed the
// budget, spends it where a moved slot takes most off the maximum load of a layer.

import { InputError } from "@open-infra/errors";
import { alignGpu } from "../moves.ts";
import { nodeLimitBreak } from "../node-limit.ts";
import type { EplbShape, Placement } from "../placement.ts";
import type { LoadMatrix } from "../shape.ts";
import { type LayerGoal, LayerMigrator } from "./layer-migrator.ts";
import type { PathPoint } from "./migration-search.ts";

/** What migration is to reach, and with how much. */
export interface MigrationGoal extends LayerGoal {
  /** Most slots that may move, over all layers; may be infinite. */
  readonly maxMovedSlots: number;
}

/**
 * Slots of all layers after migration from `from`.
 *
 * @throws InputError if `from` breaks the node limit that it must keep, or the budget does not
 *   suffice to fill slots and place experts that `from` lacks.
 */
export function migratedSlots(
  matrix: LoadMatrix,
  shape: EplbShape,
  from: Placement,
  goal: MigrationGoal,
): Int32Array {
  const { numLayers, numLogical, data } = matrix;
  const { numReplicas } = shape;
  if (goal.nodeLimit) checkNodes(from, shape);
  const migrator = new LayerMigrator(numLogical, shape, goal);
  const slots = new Int32Array(numLayers * numReplicas);
  const loadsOf = (layer: number): Float64Array =>
    data.subarray(layer * numLogical, (layer + 1) * numLogical);
  const slotsOf = (all: Int32Array, layer: number): Int32Array =>
    all.subarray(layer * numReplicas, (layer + 1) * numReplicas);

  const paths: PathPoint[][] = [];
  for (let layer = 0; layer < numLayers; layer++) {
    const old = slotsOf(from.phy2log, layer);
    paths.push(migrator.plan(loadsOf(layer), old, slotsOf(slots, layer)));
  }
  const points = spend(paths, goal.maxMovedSlots);
  for (const [layer, path] of paths.entries()) {
    const point = points[layer] as number;
    if (point === path.length - 1) continue; // Planned so already, fresh or not.
    const cap = (path[point] as PathPoint).moved;
    migrator.migrate(loadsOf(layer), slotsOf(from.phy2log, layer), slotsOf(slots, layer), cap);
  }
  // An expert may have come back to its GPU by another slot.
  const perGpu = numReplicas / shape.numGpus;
  for (let at = 0; at < slots.length; at += perGpu) {
    alignGpu(from.phy2log.subarray(at, at + perGpu), slots.subarray(at, at + perGpu));
  }
  return slots;
}

/** Chooses a point of every layer's path: always the step that lowers most for each moved slot. */
function spend(paths: readonly PathPoint[][], budget: number): Int32Array {
  const wanted = paths.reduce((sum, path) => sum + (path.at(-1) as PathPoint).moved, 0);
  if (wanted <= budget) return Int32Array.from(paths, (path) => path.length - 1);
  const at = new Int32Array(paths.length);
  let left = budget;
  for (const path of paths) left -= (path[0] as PathPoint).moved;
  if (left < 0) {
    const allowed = `at least ${budget - left}, the empty slots and missing experts of from`;
    throw new InputError("maxMovedSlots", String(budget), allowed);
  }
  for (;;) {
    let layer = -1;
    let next = 0;
    let best = 0;
    for (const [i, path] of paths.entries()) {
      const here = path[at[i] as number] as PathPoint;
      for (let j = (at[i] as number) + 1; j < path.length; j++) {
        const point = path[j] as PathPoint;
        const cost = point.moved - here.moved;
        const gain = here.maxLoad - point.maxLoad;
        if (cost > left || gain <= 0) continue;
        const value = gain / Math.max(cost, 0.5);
        if (value <= best) continue;
        best = value;
        layer = i;
        next = j;
      }
    }
    if (layer < 0) return at;
    const path = paths[layer] as PathPoint[];
    left -= (path[next] as PathPoint).moved - (path[at[layer] as number] as PathPoint).moved;
    at[layer] = next;
  }
}

/** @throws InputError naming a group of `from` on two nodes, or a node with too many groups. */
function checkNodes(from: Placement, shape: EplbShape): void {
  const found = nodeLimitBreak(from, shape);
  if (found === undefined) return;
  const where = `from.phy2log[${found.layer}]`;
  const advice = 'or policy "minimal-migration-global"';
  if ("nodes" in found) {
    const got = `a row with group ${found.group} on nodes ${found.nodes.join(" and ")}`;
    throw new InputError(where, got, `every group on one node, ${advice}`);
  }
  const got = `a row with ${found.groups} groups on node ${found.node}`;
  throw new InputError(where, got, `${shape.numGroups / shape.numNodes} groups a node, ${advice}`);
}
