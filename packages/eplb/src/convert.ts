// Placements from and to other forms: the columns from a table of slots, nested arrays and JSON for
// people and files, and back with every check a stranger's file needs.

import { InputError } from "@open-infra/errors";
import type { Placement } from "./placement.ts";
import { maxSlots, shown } from "./shape.ts";

/** A placement as nested arrays, the original's three returns. */
export interface NestedPlacement {
  /** [layer][slot]: expert. */
  readonly phy2log: number[][];
  /** [layer][expert][replica]: slot, padded with −1 to the most replicas of any expert. */
  readonly log2phy: number[][][];
  /** [layer][expert]: replicas. */
  readonly logcnt: number[][];
}

/**
 * Completes a table of slots to a placement. `rank` says which replica of its expert a slot is;
 * without it replicas are numbered in the order of their slots. Slots of −1 are empty.
 */
export function completePlacement(
  numLayers: number,
  numLogical: number,
  phy2log: Int32Array,
  rank?: Int32Array,
): Placement {
  const numReplicas = phy2log.length / numLayers;
  const logcnt = new Int32Array(numLayers * numLogical);
  let maxReplicas = 1;
  for (let i = 0; i < phy2log.length; i++) {
    const expert = phy2log[i] as number;
    if (expert < 0) continue;
    const at = Math.floor(i / numReplicas) * numLogical + expert;
    const count = (logcnt[at] as number) + 1;
    logcnt[at] = count;
    if (count > maxReplicas) maxReplicas = count;
  }
  const log2phy = new Int32Array(logcnt.length * maxReplicas).fill(-1);
  const seen = rank === undefined ? new Int32Array(logcnt.length) : undefined;
  for (let i = 0; i < phy2log.length; i++) {
    const expert = phy2log[i] as number;
    if (expert < 0) continue;
    const layer = Math.floor(i / numReplicas);
    const at = layer * numLogical + expert;
    let replica: number;
    if (seen === undefined) replica = (rank as Int32Array)[i] as number;
    else {
      replica = seen[at] as number;
      seen[at] = replica + 1;
    }
    log2phy[at * maxReplicas + replica] = i - layer * numReplicas;
  }
  return { numLayers, numLogical, numReplicas, maxReplicas, phy2log, log2phy, logcnt };
}

function rows(flat: Int32Array, length: number): number[][] {
  const result: number[][] = [];
  for (let at = 0; at < flat.length; at += length) {
    result.push(Array.from(flat.subarray(at, at + length)));
  }
  return result;
}

/** The placement as nested arrays, in the shapes the original returns. JSON can carry them. */
export function toNested(placement: Placement): NestedPlacement {
  const { numLogical, numReplicas, maxReplicas } = placement;
  const log2phy: number[][][] = [];
  for (let at = 0; at < placement.log2phy.length; at += numLogical * maxReplicas) {
    const layer = placement.log2phy.subarray(at, at + numLogical * maxReplicas);
    log2phy.push(rows(layer, maxReplicas));
  }
  return {
    phy2log: rows(placement.phy2log, numReplicas),
    log2phy,
    logcnt: rows(placement.logcnt, numLogical),
  };
}

/** How `placementFrom` reads. */
export interface PlacementFromOptions {
  /**
   * Allows slots of −1 (empty, their GPU was lost) and experts without a slot. Only migration can
   * start from such a placement: it fills them first. Default false.
   */
  readonly allowMissing?: boolean;
}

/**
 * Reads a placement from its `phy2log` rows, one a layer.
 *
 * @throws InputError for no rows, ragged rows, an expert out of range, and, unless `allowMissing`,
 *   an expert that no slot of a layer holds.
 */
export function placementFrom(
  phy2log: readonly ArrayLike<number>[],
  numLogical: number,
  options: PlacementFromOptions = {},
): Placement {
  const { allowMissing = false } = options;
  if (!Number.isSafeInteger(numLogical) || numLogical < 1) {
    throw new InputError("numLogical", shown(numLogical), "an integer of at least 1");
  }
  if (!Array.isArray(phy2log) || phy2log.length === 0) {
    throw new InputError("phy2log", shown(phy2log), "an array of rows, one a layer");
  }
  const numReplicas = slotsOf(phy2log[0], 0);
  const flat = new Int32Array(phy2log.length * numReplicas);
  for (let layer = 0; layer < phy2log.length; layer++) {
    const row = phy2log[layer] as ArrayLike<number>;
    const length = slotsOf(row, layer);
    if (length !== numReplicas) {
      const allowed = `a row of ${numReplicas}, as phy2log[0] is`;
      throw new InputError(`phy2log[${layer}]`, `a row of ${length}`, allowed);
    }
    for (let slot = 0; slot < numReplicas; slot++) {
      const expert = row[slot] as number;
      const lowest = allowMissing ? -1 : 0;
      if (!Number.isSafeInteger(expert) || expert < lowest || expert >= numLogical) {
        const allowed = `an expert from ${lowest} to ${numLogical - 1}`;
        throw new InputError(`phy2log[${layer}][${slot}]`, shown(expert), allowed);
      }
      flat[layer * numReplicas + slot] = expert;
    }
  }
  const placement = completePlacement(phy2log.length, numLogical, flat);
  if (!allowMissing) checkComplete(placement);
  return placement;
}

function slotsOf(row: unknown, layer: number): number {
  const isRow = Array.isArray(row) || ArrayBuffer.isView(row);
  const length = isRow ? (row as unknown as ArrayLike<number>).length : 0;
  if (length > 0 && length <= maxSlots) return length;
  const got = isRow ? `a row of ${length}` : shown(row);
  throw new InputError(`phy2log[${layer}]`, got, `a row of 1 to ${maxSlots} slots`);
}

/** @throws InputError naming the first expert that has no slot. */
export function checkComplete(placement: Placement, name = "phy2log"): void {
  const at = placement.logcnt.indexOf(0);
  if (at < 0) return;
  const layer = Math.floor(at / placement.numLogical);
  const expert = at % placement.numLogical;
  throw new InputError(
    `${name}[${layer}]`,
    `a row without expert ${expert}`,
    `every expert from 0 to ${placement.numLogical - 1} in at least one slot`,
  );
}
