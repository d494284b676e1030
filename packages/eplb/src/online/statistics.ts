// What experts were loaded with lately: a sliding window or an exponential average over steps, in
// fixed memory. A step's counts are tokens of each logical expert of each layer, flat. Adding up
// the counts of several ranks is the caller's all-reduce; `mergeLoads` is its arithmetic.

import { InputError } from "@open-infra/errors";
import type { LoadRows, Placement } from "../placement.ts";

/** The model's side of a placement. */
export interface ExpertCount {
  readonly numLayers: number;
  /** Logical experts a layer. */
  readonly numLogical: number;
}

/** Loads of the last steps, per layer and logical expert. */
export interface LoadStatistics {
  /** Steps that were observed since the start or the last `reset`. */
  readonly steps: number;
  /** Adds one step: tokens of each expert, [numLayers × numLogical], finite and not negative. */
  observe(counts: ArrayLike<number>): void;
  /**
   * Mean tokens a step, [numLayers × numLogical]; zeros before the first step. Writes into `out`
   * if given.
   */
  loads(out?: Float64Array): Float64Array;
  /** Forgets everything: after a change of the model or of the traffic's source. */
  reset(): void;
}

/** A sliding window, as vLLM keeps it (`window_size`). */
export interface LoadWindowOptions extends ExpertCount {
  /** Steps the window spans; a multiple of `bucketSteps`. @default 1000 */
  readonly windowSteps?: number;
  /**
   * Steps that share one row of memory and leave the window together; the memory is
   * `windowSteps ÷ bucketSteps × numLayers × numLogical × 8` bytes. @default 1
   */
  readonly bucketSteps?: number;
}

/** An exponential average. */
export interface LoadEmaOptions extends ExpertCount {
  /** A step's weight falls to 1/e after this many steps. @default 300 */
  readonly timeConstantSteps?: number;
}

/** @throws InputError unless `value` is a whole number of at least `low`. */
export function checkWhole(parameter: string, value: number, low: number): void {
  if (!Number.isSafeInteger(value) || value < low) {
    throw new InputError(parameter, String(value), `a whole number of at least ${low}`);
  }
}

/** Most numbers a trace, a window or a table of slots may hold: 1 GiB of them. */
const numbersMax = 2 ** 27;

/** @throws InputError if the product of `factors` is more than can be held; names all of them. */
export function checkNumbers(parameter: string, factors: Readonly<Record<string, number>>): void {
  const product = Object.values(factors).reduce((all, factor) => all * factor, 1);
  if (product <= numbersMax) return;
  const got = Object.entries(factors).map(([what, factor]) => `${factor} ${what}`);
  throw new InputError(parameter, got.join(" × "), `at most ${numbersMax} numbers in all`);
}

/** @throws InputError unless there are as many counts as experts, all finite and not negative. */
export function checkCounts(
  counts: ArrayLike<number>,
  { numLayers, numLogical }: ExpertCount,
): void {
  const expected = numLayers * numLogical;
  if (counts.length !== expected) {
    const shape = `${numLayers} layers × ${numLogical} experts = ${expected} numbers`;
    throw new InputError("counts", `an array of ${counts.length}`, shape);
  }
  for (let i = 0; i < expected; i++) {
    const value = counts[i] as number;
    if (!(value >= 0 && value < Number.POSITIVE_INFINITY)) {
      const at = `counts[${Math.floor(i / numLogical)}][${i % numLogical}]`;
      throw new InputError(at, String(value), "a finite number of at least 0");
    }
  }
}

/**
 * Loads over the last `windowSteps` steps. A step costs one pass over the experts whatever the
 * window is: the sum is kept, what leaves is subtracted. Counts are whole numbers in practice, for
 * which that is exact; after others the sum is taken anew once a window, so that no error stays.
 */
export class LoadWindow implements LoadStatistics {
  steps = 0;
  readonly #counts: ExpertCount;
  readonly #bucketSteps: number;
  readonly #numBuckets: number;
  readonly #size: number;
  readonly #ring: Float64Array;
  readonly #sum: Float64Array;
  #fractions = false;

  /** @throws InputError for sizes that are not whole, or a window that buckets do not divide. */
  constructor(options: LoadWindowOptions) {
    const { numLayers, numLogical, windowSteps = 1000, bucketSteps = 1 } = options;
    checkWhole("numLayers", numLayers, 1);
    checkWhole("numLogical", numLogical, 1);
    checkWhole("bucketSteps", bucketSteps, 1);
    checkWhole("windowSteps", windowSteps, 1);
    if (windowSteps % bucketSteps !== 0) {
      const allowed = `a multiple of bucketSteps (${bucketSteps})`;
      throw new InputError("windowSteps", String(windowSteps), allowed);
    }
    this.#counts = { numLayers, numLogical };
    this.#bucketSteps = bucketSteps;
    this.#numBuckets = windowSteps / bucketSteps;
    const buckets = this.#numBuckets;
    checkNumbers("windowSteps", { buckets, layers: numLayers, experts: numLogical });
    this.#size = numLayers * numLogical;
    this.#ring = new Float64Array(this.#numBuckets * this.#size);
    this.#sum = new Float64Array(this.#size);
  }

  observe(counts: ArrayLike<number>): void {
    checkCounts(counts, this.#counts);
    const bucket = Math.floor(this.steps / this.#bucketSteps) % this.#numBuckets;
    const row = this.#ring.subarray(bucket * this.#size, (bucket + 1) * this.#size);
    if (this.steps % this.#bucketSteps === 0) this.#retire(row, bucket);
    const sum = this.#sum;
    for (let i = 0; i < row.length; i++) {
      const value = counts[i] as number;
      if (!Number.isSafeInteger(value)) this.#fractions = true;
      row[i] = (row[i] as number) + value;
      sum[i] = (sum[i] as number) + value;
    }
    this.steps++;
  }

  loads(out: Float64Array = new Float64Array(this.#size)): Float64Array {
    const covered = this.#covered();
    for (let i = 0; i < this.#size; i++) {
      out[i] = covered === 0 ? 0 : (this.#sum[i] as number) / covered;
    }
    return out;
  }

  reset(): void {
    this.steps = 0;
    this.#fractions = false;
    this.#ring.fill(0);
    this.#sum.fill(0);
  }

  /** Steps whose counts are in the sum: whole buckets, and the one being filled. */
  #covered(): number {
    const held = Math.ceil(this.steps / this.#bucketSteps);
    if (held <= this.#numBuckets) return this.steps;
    const filling = this.steps - (held - 1) * this.#bucketSteps;
    return (this.#numBuckets - 1) * this.#bucketSteps + filling;
  }

  #retire(row: Float64Array, bucket: number): void {
    const sum = this.#sum;
    for (let i = 0; i < row.length; i++) sum[i] = (sum[i] as number) - (row[i] as number);
    row.fill(0);
    if (bucket === 0 && this.#fractions) this.#recount();
  }

  #recount(): void {
    this.#sum.fill(0);
    for (let at = 0; at < this.#ring.length; at++) {
      const i = at % this.#size;
      this.#sum[i] = (this.#sum[i] as number) + (this.#ring[at] as number);
    }
  }
}

/**
 * Loads as an exponential average, in the memory of one step. The average is over what was seen:
 * it is not drawn towards the zeros before the first step.
 */
export class LoadEma implements LoadStatistics {
  steps = 0;
  readonly #counts: ExpertCount;
  readonly #keep: number;
  readonly #average: Float64Array;
  /** Sum of the weights of all steps so far; tends to 1. */
  #weight = 0;

  /** @throws InputError for sizes that are not whole or a time constant that is not positive. */
  constructor(options: LoadEmaOptions) {
    const { numLayers, numLogical, timeConstantSteps = 300 } = options;
    checkWhole("numLayers", numLayers, 1);
    checkWhole("numLogical", numLogical, 1);
    if (!(timeConstantSteps > 0 && timeConstantSteps < Number.POSITIVE_INFINITY)) {
      throw new InputError("timeConstantSteps", String(timeConstantSteps), "a positive number");
    }
    checkNumbers("numLayers", { layers: numLayers, experts: numLogical });
    this.#counts = { numLayers, numLogical };
    this.#keep = Math.exp(-1 / timeConstantSteps);
    this.#average = new Float64Array(numLayers * numLogical);
  }

  observe(counts: ArrayLike<number>): void {
    checkCounts(counts, this.#counts);
    const keep = this.#keep;
    const average = this.#average;
    for (let i = 0; i < average.length; i++) {
      average[i] = keep * (average[i] as number) + (1 - keep) * (counts[i] as number);
    }
    this.#weight = keep * this.#weight + (1 - keep);
    this.steps++;
  }

  loads(out: Float64Array = new Float64Array(this.#average.length)): Float64Array {
    for (let i = 0; i < this.#average.length; i++) {
      out[i] = this.steps === 0 ? 0 : (this.#average[i] as number) / this.#weight;
    }
    return out;
  }

  reset(): void {
    this.steps = 0;
    this.#weight = 0;
    this.#average.fill(0);
  }
}

/**
 * Adds up what several ranks counted in the same step; all arrays have the same length.
 *
 * @throws InputError when there is none, or lengths differ.
 */
export function mergeLoads(parts: readonly ArrayLike<number>[]): Float64Array {
  const first = parts[0];
  if (first === undefined) throw new InputError("parts", "an empty list", "counts of a rank");
  const sum = new Float64Array(first.length);
  parts.forEach((part, rank) => {
    if (part.length !== sum.length) {
      const allowed = `${sum.length} numbers, as parts[0] has`;
      throw new InputError(`parts[${rank}]`, `an array of ${part.length}`, allowed);
    }
    for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (part[i] as number);
  });
  return sum;
}

/**
 * Tokens of logical experts from tokens counted in physical slots, [numLayers × numReplicas]. Pass
 * the placement that routed those very tokens: after a change the same slot is another expert.
 *
 * @throws InputError on a wrong length, or tokens in a slot the placement does not route to.
 */
export function loadsFromSlots(slotCounts: ArrayLike<number>, placement: Placement): Float64Array {
  const { numLayers, numLogical, numReplicas, phy2log } = placement;
  if (slotCounts.length !== numLayers * numReplicas) {
    const shape = `${numLayers} layers × ${numReplicas} slots = ${numLayers * numReplicas} numbers`;
    throw new InputError("slotCounts", `an array of ${slotCounts.length}`, shape);
  }
  const loads = new Float64Array(numLayers * numLogical);
  for (let at = 0; at < phy2log.length; at++) {
    const count = slotCounts[at] as number;
    const expert = phy2log[at] as number;
    if (expert < 0) {
      if (count === 0) continue;
      const where = `slotCounts[${Math.floor(at / numReplicas)}][${at % numReplicas}]`;
      throw new InputError(where, String(count), "0: the placement does not route to this slot");
    }
    const i = Math.floor(at / numReplicas) * numLogical + expert;
    loads[i] = (loads[i] as number) + count;
  }
  return loads;
}

/**
 * Rows of loads as one flat array, [numLayers × numLogical].
 *
 * @throws InputError when rows differ in length.
 */
export function flattenLoads(rows: LoadRows): Float64Array {
  const numLogical = rows[0]?.length ?? 0;
  const flat = new Float64Array(rows.length * numLogical);
  rows.forEach((row, layer) => {
    if (row.length !== numLogical) {
      const allowed = `${numLogical} numbers, as the first row has`;
      throw new InputError(`loads[${layer}]`, `a row of ${row.length}`, allowed);
    }
    for (let e = 0; e < numLogical; e++) flat[layer * numLogical + e] = row[e] as number;
  });
  return flat;
}

/** Views of a flat array as rows, a row a layer; nothing is copied. */
export function loadRows(flat: Float64Array, numLogical: number): Float64Array[] {
  return Array.from({ length: flat.length / numLogical }, (_, layer) =>
    flat.subarray(layer * numLogical, (layer + 1) * numLogical),
  );
}
