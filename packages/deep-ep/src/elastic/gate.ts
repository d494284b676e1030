// Selections as a router makes them when experts are not equally liked: the original's test
// generators, one that skews random scores and one that hits the ratio. For tests and benches of
// whatever depends on balance.

import { InputError } from "@open-infra/errors";
import { Tensor } from "@open-infra/tensor";
import { expectCount } from "../config.ts";
import { checkExperts } from "../layout.ts";

/** What to select. */
export interface SelectionShape {
  readonly numTokens: number;
  readonly numExperts: number;
  readonly numRanks: number;
  readonly numTopk: number;
  /** Tokens that reach rank 0, over those of the other ranks on average. @default 1 */
  readonly ratio?: number;
  /**
   * Hit the ratio within a few percent and all other ranks alike, by construction; else by scores,
   * as chance has it. @default false
   */
  readonly precise?: boolean;
  /** Share of selections to take away again. @default 0 */
  readonly maskedRatio?: number;
}

/** A token's experts and their weights. */
export interface Selection {
  /** `[tokens, k]`, −1 where masked. */
  readonly topkIdx: Tensor<"i64">;
  /** `[tokens, k]`, in (0, 1), 0 where masked. */
  readonly topkWeights: Tensor<"f32">;
}

/**
 * Experts for random tokens.
 *
 * @param random Gives numbers in [0, 1).
 * @throws InputError for a ratio that so many ranks and selections cannot have
 */
export function unbalancedSelection(shape: SelectionShape, random: () => number): Selection {
  const { numTokens, numTopk, numExperts, ratio = 1, maskedRatio = 0 } = shape;
  expectCount("numTokens", numTokens, 0);
  expectCount("numTopk", numTopk, 1);
  checkExperts(numExperts, shape.numRanks);
  if (numTopk > numExperts) {
    throw new InputError("numTopk", `${numTopk}`, `at most the ${numExperts} experts`);
  }
  if (!(ratio >= 1)) throw new InputError("ratio", `${ratio}`, "at least 1");
  const chosen = shape.precise
    ? preciseExperts(shape, ratio, random)
    : scoredExperts(shape, factorFor(shape, ratio, random), numTokens, random);
  const topkIdx = Tensor.empty([numTokens, numTopk], "i64");
  const topkWeights = Tensor.empty([numTokens, numTopk], "f32");
  const indices = topkIdx.raw();
  for (let i = 0; i < chosen.length; i++) {
    const masked = maskedRatio > 0 && random() < maskedRatio;
    indices[i] = masked ? -1n : BigInt(chosen[i] as number);
    topkWeights.raw()[i] = masked ? 0 : 0.001 + 0.998 * random();
  }
  return { topkIdx, topkWeights };
}

/** The `k` experts with the highest scores; those of rank 0 are drawn from a wider range. */
function scoredExperts(
  shape: SelectionShape,
  factor: number,
  tokens: number,
  random: () => number,
): Int32Array {
  const { numExperts, numRanks, numTopk } = shape;
  const local = numExperts / numRanks;
  const chosen = new Int32Array(tokens * numTopk);
  const scores = new Float64Array(numExperts);
  for (let token = 0; token < tokens; token++) {
    for (let e = 0; e < numExperts; e++) scores[e] = random() * (e < local ? factor : 1);
    for (let k = 0; k < numTopk; k++) {
      let best = 0;
      for (let e = 1; e < numExperts; e++) {
        if ((scores[e] as number) > (scores[best] as number)) best = e;
      }
      scores[best] = -1;
      chosen[token * numTopk + k] = best;
    }
  }
  return chosen;
}

/** Finds the factor by halving; the ratio grows with it. */
function factorFor(shape: SelectionShape, ratio: number, random: () => number): number {
  if (ratio === 1 || shape.numRanks === 1) return 1;
  let low = 1;
  let high = 100;
  for (let i = 0; i < 16; i++) {
    const middle = (low + high) / 2;
    const tokens = Math.min(shape.numTokens, 512);
    const counts = tokensPerRank(shape, scoredExperts(shape, middle, tokens, random));
    const others = counts.slice(1).reduce((a, b) => a + b, 0) / (shape.numRanks - 1);
    if ((counts[0] as number) > others * ratio) high = middle;
    else low = middle;
  }
  return low;
}

function tokensPerRank(shape: SelectionShape, chosen: Int32Array): number[] {
  const { numExperts, numRanks, numTopk } = shape;
  const local = numExperts / numRanks;
  const counts = new Array<number>(numRanks).fill(0);
  for (let from = 0; from < chosen.length; from += numTopk) {
    const ranks = new Set(chosen.subarray(from, from + numTopk).map((e) => Math.floor(e / local)));
    for (const rank of ranks) counts[rank] = (counts[rank] as number) + 1;
  }
  return counts;
}

/**
 * How many ranks each token reaches is as chance would have it; which ones is dealt out: rank 0 to
 * as many tokens as the ratio asks for, the others in turn.
 */
function preciseExperts(shape: SelectionShape, ratio: number, random: () => number): Int32Array {
  const { numTokens, numExperts, numRanks, numTopk } = shape;
  const local = numExperts / numRanks;
  const least = Math.ceil(numTopk / local);
  const most = Math.min(numTopk, numRanks, Math.floor((numRanks - 1) / ratio) + 1);
  if (least > most || numRanks < 2) {
    const got = `${ratio} for ${numTopk} of ${numExperts} experts on ${numRanks} ranks`;
    throw new InputError("ratio", got, "one that leaves a token enough ranks for its experts");
  }
  const plain = scoredExperts(shape, 1, numTokens, random);
  const reach = Array.from({ length: numTokens }, (_, token) => {
    const own = plain.subarray(token * numTopk, (token + 1) * numTopk);
    return Math.min(most, new Set(own.map((e) => Math.floor(e / local))).size);
  });
  const special = specialTokens(reach, shape, ratio, random);
  const others = shuffled(numRanks - 1, random).map((i) => i + 1);
  const chosen = new Int32Array(numTokens * numTopk);
  let next = 0;
  for (let token = 0; token < numTokens; token++) {
    const ranks: number[] = special.has(token) ? [0] : [];
    while (ranks.length < (reach[token] as number)) {
      ranks.push(others[next++ % others.length] as number);
    }
    const experts = ranks.map(() => shuffled(local, random));
    for (let k = 0; k < numTopk; k++) {
      const i = k % ranks.length;
      const expert = experts[i]?.[Math.floor(k / ranks.length)] as number;
      chosen[token * numTopk + k] = (ranks[i] as number) * local + expert;
    }
  }
  return chosen;
}

/** The tokens that rank 0 gets: all that reach every rank, and others by lot. */
function specialTokens(
  reach: readonly number[],
  shape: SelectionShape,
  ratio: number,
  random: () => number,
): ReadonlySet<number> {
  const normal = shape.numRanks - 1;
  const all = reach.reduce((a, b) => a + b, 0);
  const each = Math.floor(all / (normal + ratio));
  const wanted = Math.min(all - each * normal, Math.floor(each * ratio) + 1);
  const chosen = new Set<number>();
  reach.forEach((ranks, token) => {
    if (ranks === shape.numRanks) chosen.add(token);
  });
  for (const token of shuffled(reach.length, random)) {
    if (chosen.size >= wanted) break;
    chosen.add(token);
  }
  return chosen;
}

function shuffled(count: number, random: () => number): number[] {
  const items = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [items[i], items[j]] = [items[j] as number, items[i] as number];
  }
  return items;
}
