// Chooses a token at random from a row whose tokens are already sorted into bins by logit. min_p,
// top_k and top_p each keep a beginning of the tokens in order of logit (equal ones in order of
// id), so the kept set is: all bins before a boundary, and the first few tokens of the boundary
// bin. Only that bin is ever sorted, and only the bin that the random number lands in is walked.

import { BINS, binOf, distance } from "./logits-ops.ts";

/** One row as the scan left it. */
export interface BinnedRow {
  /** The logits that were scanned. */
  readonly logits: Float32Array;
  /** The largest logit. */
  readonly maximum: number;
  /** 1 / temperature, as f32. */
  readonly scale: number;
  /** [BINS] */
  readonly counts: Int32Array;
  /** [BINS] */
  readonly masses: Float32Array;
  /** Token ids of a range of bins (both ends included), ascending. */
  collect(first: number, last: number): Int32Array;
}

export interface Filters {
  /** 0 keeps all. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
}

interface Kept {
  /** Bins kept whole: 0 to wholeBins − 1, and their mass. */
  readonly wholeBins: number;
  readonly wholeMass: number;
  /** Tokens kept of the next bin, best first, and their weights. */
  readonly tail: Int32Array;
  readonly tailWeights: Float64Array;
  readonly tailMass: number;
}

const NO_IDS = new Int32Array(0);
const NO_WEIGHTS = new Float64Array(0);

/** The token that `u` in [0, 1) picks among those the filters keep. */
export function pickToken(row: BinnedRow, filters: Filters, u: number): number {
  const kept = keepTopP(row, keepMinPAndTopK(row, filters), filters.topP);
  const target = u * (kept.wholeMass + kept.tailMass);
  if (target >= kept.wholeMass && kept.tail.length > 0) {
    return walk(kept.tail, kept.tailWeights, target - kept.wholeMass);
  }
  let before = 0;
  let bin = 0;
  for (; bin < kept.wholeBins - 1; bin++) {
    const mass = row.masses[bin] as number;
    if (mass > 0 && before + mass > target) break;
    before += mass;
  }
  // Rounding may carry the target past the last mass: then the last bin that has any.
  while (bin > 0 && row.masses[bin] === 0) before -= row.masses[--bin] as number;
  const ids = row.collect(bin, bin);
  const weights = weightsOf(row, ids);
  const share = (target - before) / (row.masses[bin] as number);
  return walk(ids, weights, share * sum(weights));
}

/** The `n` most likely tokens, best first, equal ones in order of id. */
export function topTokens(row: BinnedRow, n: number): number[] {
  if (n === 0) return [];
  let last = 0;
  for (let seen = row.counts[0] as number; seen < n && last < BINS - 1; ) {
    seen += row.counts[++last] as number;
  }
  return Array.from(sorted(row, row.collect(0, last)).subarray(0, n));
}

/** log Σ exp over the scaled logits. */
export function logSumExp(row: BinnedRow): number {
  return row.maximum * row.scale + Math.log(sum(row.masses));
}

function keepMinPAndTopK(row: BinnedRow, filters: Filters): Kept {
  const farthest =
    filters.minP > 0 ? Math.fround(-Math.log(filters.minP)) : Number.POSITIVE_INFINITY;
  const minPBin = filters.minP > 0 ? binOf(farthest) : BINS;
  let topKBin = BINS;
  let before = 0;
  if (filters.topK > 0 && filters.topK < row.logits.length) {
    for (topKBin = 0; before + (row.counts[topKBin] as number) < filters.topK; topKBin++) {
      before += row.counts[topKBin] as number;
    }
  }
  const boundary = Math.min(minPBin, topKBin);
  if (boundary === BINS) return whole(row, BINS, NO_IDS);
  let tail = sorted(row, row.collect(boundary, boundary));
  if (boundary === topKBin) tail = tail.subarray(0, filters.topK - before);
  const near = (id: number): boolean => distanceOf(row, id) <= farthest;
  return whole(row, boundary, filters.minP > 0 ? tail.filter(near) : tail);
}

function keepTopP(row: BinnedRow, kept: Kept, topP: number): Kept {
  if (topP >= 1) return kept;
  const target = topP * (kept.wholeMass + kept.tailMass);
  let before = 0;
  for (let bin = 0; bin < kept.wholeBins; bin++) {
    const mass = row.masses[bin] as number;
    if (mass > 0 && before + mass >= target) {
      return whole(row, bin, untilMass(row, sorted(row, row.collect(bin, bin)), target - before));
    }
    before += mass;
  }
  return whole(row, kept.wholeBins, untilMass(row, kept.tail, target - before));
}

/** The first tokens whose weights together reach `mass`; at least one. */
function untilMass(row: BinnedRow, ids: Int32Array, mass: number): Int32Array {
  let reached = 0;
  for (let i = 0; i < ids.length; i++) {
    reached += Math.exp(-distanceOf(row, ids[i] as number));
    if (reached >= mass) return ids.subarray(0, i + 1);
  }
  return ids;
}

function whole(row: BinnedRow, wholeBins: number, tail: Int32Array): Kept {
  const tailWeights = tail.length === 0 ? NO_WEIGHTS : weightsOf(row, tail);
  const wholeMass = sum(row.masses.subarray(0, wholeBins));
  return { wholeBins, wholeMass, tail, tailWeights, tailMass: sum(tailWeights) };
}

/** The token at which the running sum of weights passes `target`; never one of weight 0. */
function walk(ids: Int32Array, weights: Float64Array, target: number): number {
  let reached = 0;
  let chosen = ids[0] as number;
  for (let i = 0; i < ids.length; i++) {
    const weight = weights[i] as number;
    if (weight === 0) continue;
    reached += weight;
    chosen = ids[i] as number;
    if (reached > target) break;
  }
  return chosen;
}

function distanceOf(row: BinnedRow, id: number): number {
  return distance(row.maximum, row.logits[id] as number, row.scale);
}

function weightsOf(row: BinnedRow, ids: Int32Array): Float64Array {
  const weights = new Float64Array(ids.length);
  for (let i = 0; i < ids.length; i++) weights[i] = Math.exp(-distanceOf(row, ids[i] as number));
  return weights;
}

/** Best first; equal logits in order of id. Sorts in place. */
function sorted(row: BinnedRow, ids: Int32Array): Int32Array {
  const { logits } = row;
  return ids.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
}

function sum(values: Float32Array | Float64Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i] as number;
  return total;
}
