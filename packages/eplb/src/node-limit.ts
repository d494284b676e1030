// Whether a placement keeps the node limit: every group of a layer has all its slots on one node,
// and no node has more groups than its share. Finds the first break; what follows from one (a
// report without the limit, a refused migration) is the business of the callers.

import type { EplbShape, Placement } from "./placement.ts";
import { isHierarchical } from "./shape.ts";

/** The first place where a placement breaks the node limit. */
export type NodeLimitBreak =
  | { readonly layer: number; readonly group: number; readonly nodes: readonly [number, number] }
  | { readonly layer: number; readonly node: number; readonly groups: number };

/**
 * Looks through the layers; undefined if all keep the limit. The shape must allow one: nodes divide
 * groups and GPUs, groups the experts. Empty slots break nothing.
 */
export function nodeLimitBreak(
  { numLogical, numReplicas, phy2log }: Placement,
  shape: EplbShape,
): NodeLimitBreak | undefined {
  const groupSize = numLogical / shape.numGroups;
  const slotsPerNode = numReplicas / shape.numNodes;
  const groupsPerNode = shape.numGroups / shape.numNodes;
  const nodeOf = new Int32Array(shape.numGroups);
  const groupsOn = new Int32Array(shape.numNodes);
  for (let base = 0; base < phy2log.length; base += numReplicas) {
    const layer = base / numReplicas;
    nodeOf.fill(-1);
    groupsOn.fill(0);
    for (let slot = 0; slot < numReplicas; slot++) {
      const expert = phy2log[base + slot] as number;
      if (expert < 0) continue;
      const group = Math.floor(expert / groupSize);
      const node = Math.floor(slot / slotsPerNode);
      const known = nodeOf[group] as number;
      if (known === node) continue;
      if (known >= 0) return { layer, group, nodes: [known, node] };
      nodeOf[group] = node;
      const groups = (groupsOn[node] as number) + 1;
      if (groups > groupsPerNode) return { layer, node, groups };
      groupsOn[node] = groups;
    }
  }
  return undefined;
}

/**
 * True if the placement could come from a hierarchical policy: the shape allows the node limit, and
 * every layer keeps it.
 */
export function keepsNodeLimit(placement: Placement, shape: EplbShape): boolean {
  const { numGroups, numNodes, numGpus } = shape;
  const isWhole = placement.numLogical % numGroups === 0 && numGpus % numNodes === 0;
  return isHierarchical(shape) && isWhole && nodeLimitBreak(placement, shape) === undefined;
}
