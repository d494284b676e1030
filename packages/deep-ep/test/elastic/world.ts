// Random worlds that every rank makes alike from a seed, and their tensors.

import { perTokenCastToFp8 } from "@open-infra/deep-ep";
import { bf16FromNumber, Tensor } from "@open-infra/tensor";
import { type Random, seededRandom } from "@open-infra/testing";
import type { ExpertOutput, RankTokens, World } from "./reference.ts";

/** What a world is drawn from. */
export interface WorldShape {
  readonly seed: number;
  readonly size: number;
  readonly scaleup: number;
  readonly numExperts: number;
  readonly numTopk: number;
  readonly numMaxTokensPerRank: number;
  readonly hidden: number;
  readonly expertAlignment: number;
  /** Share of selections that are −1. */
  readonly masked: number;
  /** Tokens of each rank; by default the maximum less the rank. */
  readonly tokens?: readonly number[];
  /** All tokens select this expert first. */
  readonly favourite?: number;
  /** Selections may repeat an expert. */
  readonly repeats?: boolean;
}

/** The same on every rank. */
export function makeWorld(shape: WorldShape): World {
  const random = seededRandom(shape.seed);
  const ranks = Array.from({ length: shape.size }, (_, rank): RankTokens => {
    const wanted = shape.tokens?.[rank] ?? Math.max(0, shape.numMaxTokensPerRank - rank);
    const tokens = Math.min(wanted, shape.numMaxTokensPerRank);
    const selected = Array.from({ length: tokens }, () => select(shape, random));
    const weights = selected.map((lanes) =>
      lanes.map((e) => (e < 0 ? 0 : Math.fround(random.next()))),
    );
    return { selected, weights };
  });
  return { ...shape, ranks };
}

function select(shape: WorldShape, random: Random): number[] {
  const free = Array.from({ length: shape.numExperts }, (_, e) => e);
  return Array.from({ length: shape.numTopk }, (_, k) => {
    if (random.next() < shape.masked) return -1;
    if (k === 0 && shape.favourite !== undefined) {
      const at = free.indexOf(shape.favourite);
      if (at >= 0) free.splice(at, 1);
      return shape.favourite;
    }
    const at = random.int(0, free.length);
    const chosen = free[at] as number;
    if (!shape.repeats) free.splice(at, 1);
    return chosen;
  });
}

/** Mixes integers into bits that look random; for elements that are computed, not stored. */
function mix(seed: number, a: number, b: number, c: number): number {
  let t = (seed ^ Math.imul(a + 1, 0x9e3779b1)) >>> 0;
  t = Math.imul(t ^ (t >>> 15), 0x85ebca77) ^ Math.imul(b + 1, 0xc2b2ae3d);
  t = Math.imul(t ^ (t >>> 13), 0x27d4eb2f) ^ Math.imul(c + 1, 0x165667b1);
  t = Math.imul(t ^ (t >>> 16), 0x2c1b3c6d);
  return (t ^ (t >>> 15)) >>> 0;
}

/**
 * Numbers whose sums in float32 depend on the order: large ones that cancel each other, and small
 * ones of which something is lost while a large one is in the sum.
 */
export function outputOf(seed: number): ExpertOutput {
  return (source, lane, column) => {
    const bits = mix(seed, source, lane, column);
    const large = bits & 0x1000000 ? 6144 : -6144;
    const small = ((bits & 0xffff) / 65536 - 0.5) / 64;
    return bf16FromNumber(bits & 0x2000000 ? large : small);
  };
}

/** A token's elements before dispatch. */
export function elementOf(seed: number, source: number, column: number): number {
  return bf16FromNumber((mix(seed, source, 77, column) / 2 ** 32 - 0.5) * 8);
}

/** The tokens of a rank as `dispatch` takes them. */
export function tokensOf(
  world: World,
  rank: number,
  options: { readonly seed: number; readonly hidden: number; readonly fp8: boolean },
): { readonly x: Tensor; readonly sf: Tensor | undefined } {
  const { hidden, seed } = options;
  const tokens = world.ranks[rank]?.selected.length ?? 0;
  const x = Tensor.empty([tokens, hidden], "bf16");
  x.raw().forEach((_, i) => {
    const source = rank * world.numMaxTokensPerRank + Math.floor(i / hidden);
    x.raw()[i] = elementOf(seed, source, i % hidden);
  });
  if (!options.fp8) return { x, sf: undefined };
  const { codes, scales } = perTokenCastToFp8(x);
  return { x: codes, sf: scales };
}

export function selectionOf(world: World, rank: number): Tensor<"i64"> {
  const { selected } = world.ranks[rank] as RankTokens;
  return Tensor.from(selected.flat(), [selected.length, world.numTopk], "i64");
}

export function weightsOf(world: World, rank: number): Tensor<"f32"> {
  const { weights } = world.ranks[rank] as RankTokens;
  return Tensor.from(weights.flat(), [weights.length, world.numTopk], "f32");
}
