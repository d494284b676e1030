// Checks at the edge: the cluster's shape and the loads. What passes here is never checked again,
// so every message names the constraint that failed and the numbers that failed it. Nothing is
// rounded, padded or dropped to make an input fit.

import { InputError } from "@open-infra/errors";
import type { EplbShape, LoadRows } from "./placement.ts";

/** Most slots a layer may have: sort keys carry a slot's index in 20 bits (see order.ts). */
export const maxSlots: number = 1 << 20;

/** Loads of all layers in one block, row-major. */
export interface LoadMatrix {
  readonly numLayers: number;
  readonly numLogical: number;
  readonly data: Float64Array;
}

/** A value in an error: numbers and the like as they are, texts in quotes, the rest by its kind. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 40));
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  if (typeof value === "bigint") return `${value}n`;
  return typeof value === "function" ? "a function" : String(value);
}

/** @throws InputError unless `value` is a whole number of at least 1. */
export function checkPositiveInteger(name: string, value: unknown): void {
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return;
  throw new InputError(name, shown(value), "an integer of at least 1");
}

function checkDivides(name: string, value: number, divisorName: string, divisor: number): void {
  if (value % divisor === 0) return;
  throw new InputError(
    name,
    String(value),
    `a multiple of ${divisorName} ${divisor} (${value} % ${divisor} = ${value % divisor})`,
  );
}

/** True if the original would take the hierarchical policy: whole groups fit whole nodes. */
export function isHierarchical(shape: EplbShape): boolean {
  return shape.numGroups % shape.numNodes === 0;
}

/**
 * Checks a shape against the number of experts. What only the node limit needs (experts in whole
 * groups, GPUs in whole nodes) is checked by `checkNodeLimit`; the original's global policy runs
 * without.
 *
 * @throws InputError naming the option, its value and the divisor or bound it misses.
 */
export function checkShape(shape: EplbShape, numLogical: number): void {
  const { numReplicas, numGroups, numNodes, numGpus } = shape;
  for (const [name, value] of Object.entries({ numReplicas, numGroups, numNodes, numGpus })) {
    checkPositiveInteger(name, value);
  }
  checkDivides("numReplicas", numReplicas, "numGpus", numGpus);
  if (numReplicas < numLogical) {
    throw new InputError(
      "numReplicas",
      String(numReplicas),
      `at least one slot for each of the ${numLogical} experts`,
    );
  }
  if (numReplicas > maxSlots) {
    throw new InputError("numReplicas", String(numReplicas), `at most ${maxSlots}`);
  }
}

/**
 * Checks that whole groups can be packed to nodes. Then every node has the same number of experts,
 * GPUs and slots.
 *
 * @throws InputError naming the number that does not divide.
 */
export function checkNodeLimit(shape: EplbShape, numLogical: number): void {
  checkDivides("numGroups", shape.numGroups, "numNodes", shape.numNodes);
  checkDivides("the number of experts", numLogical, "numGroups", shape.numGroups);
  checkDivides("numGpus", shape.numGpus, "numNodes", shape.numNodes);
}

/** Node of a GPU. Where nodes do not divide the GPUs, they differ by one GPU at most. */
export function nodeOfGpu(gpu: number, shape: Pick<EplbShape, "numGpus" | "numNodes">): number {
  return Math.floor((gpu * shape.numNodes) / shape.numGpus);
}

function checkLoad(value: unknown, layer: number, expert: number): number {
  const ok = typeof value === "number" && value >= 0 && Number.isFinite(Math.fround(value));
  if (ok) return value + 0; // Turns −0 into 0.
  throw new InputError(
    `weight[${layer}][${expert}]`,
    shown(value),
    "a finite number, at least 0, in the range of float32",
  );
}

/**
 * Copies the loads of all layers into one block.
 *
 * @throws InputError for no rows, empty or ragged rows, and any load that is no number, negative,
 *   NaN or infinite (also once rounded to float32, which the original does first).
 */
export function loadMatrix(weight: LoadRows): LoadMatrix {
  const isList = Array.isArray(weight) || ArrayBuffer.isView(weight);
  if (!isList) throw new InputError("weight", shown(weight), "an array of rows, one a layer");
  if (weight.length === 0) throw new InputError("weight", "no rows", "at least one layer");
  const numLogical = rowLength(weight[0], 0);
  const data = new Float64Array(weight.length * numLogical);
  for (let layer = 0; layer < weight.length; layer++) {
    const row = weight[layer] as ArrayLike<number>;
    const length = rowLength(row, layer);
    if (length !== numLogical) {
      const allowed = `a row of ${numLogical}, as weight[0] is`;
      throw new InputError(`weight[${layer}]`, `a row of ${length}`, allowed);
    }
    const base = layer * numLogical;
    for (let e = 0; e < numLogical; e++) data[base + e] = checkLoad(row[e], layer, e);
  }
  return { numLayers: weight.length, numLogical, data };
}

function rowLength(row: unknown, layer: number): number {
  if (!Array.isArray(row) && !ArrayBuffer.isView(row)) {
    throw new InputError(`weight[${layer}]`, shown(row), "a row of loads, one an expert");
  }
  const { length } = row as unknown as ArrayLike<number>;
  if (length > 0) return length;
  throw new InputError(`weight[${layer}]`, "an empty row", "at least one expert");
}
