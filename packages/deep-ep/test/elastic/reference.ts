// What ElasticBuffer must do, as one program that sees all ranks: an all-to-all of whole lists,
// and sums in float32 in the order of selections, rounded to bf16 at each level. It shares nothing
// with the kernels but the definitions.

import { bf16FromNumber, bf16ToNumber } from "@open-infra/tensor";

const { fround } = Math;

/** The tokens of one rank: its selections by token. */
export interface RankTokens {
  readonly selected: readonly (readonly number[])[];
  readonly weights: readonly (readonly number[])[];
}

/** All ranks. */
export interface World {
  readonly ranks: readonly RankTokens[];
  readonly numExperts: number;
  readonly numTopk: number;
  readonly numMaxTokensPerRank: number;
  readonly scaleup: number;
  readonly expertAlignment: number;
}

/** A token that arrives. */
export interface Arrival {
  readonly rank: number;
  readonly token: number;
  /** `rank · numMaxTokensPerRank + token`. */
  readonly source: number;
  /** Local experts by lane, −1 for others'. */
  readonly local: readonly number[];
  /** Slots in the expanded layout by lane, −1 for none. */
  readonly slots: readonly number[];
  readonly weights: readonly number[];
}

/** What a rank receives. */
export interface Received {
  readonly arrivals: readonly Arrival[];
  /** Selections of each local expert. */
  readonly counts: readonly number[];
  /** Where each expert's rows begin in the expanded layout, and where they would end aligned. */
  readonly starts: readonly number[];
  readonly expandedRows: number;
}

export const alignUp = (value: number, to: number): number => Math.ceil(value / to) * to;

/** Everything a rank receives, in the order it must lie in. */
export function receive(world: World, me: number): Received {
  const local = world.numExperts / world.ranks.length;
  const mine = (e: number): number =>
    Math.floor(e / local) === me && e >= 0 ? e - me * local : -1;
  const plain = world.ranks.flatMap(({ selected, weights }, rank) =>
    selected
      .map((lanes, token) => ({
        rank,
        token,
        local: lanes.map(mine),
        weights: weights[token] ?? [],
      }))
      .filter((arrival) => arrival.local.some((e) => e >= 0)),
  );
  const counts = Array.from({ length: local }, (_, e) =>
    plain.reduce((sum, { local: lanes }) => sum + lanes.filter((lane) => lane === e).length, 0),
  );
  const starts: number[] = [];
  let rows = 0;
  for (const count of counts) {
    starts.push(rows);
    rows += alignUp(count, world.expertAlignment);
  }
  const next = [...starts];
  const arrivals = plain.map((arrival) => ({
    ...arrival,
    source: arrival.rank * world.numMaxTokensPerRank + arrival.token,
    slots: arrival.local.map((e) => {
      if (e < 0) return -1;
      const slot = next[e] as number;
      next[e] = slot + 1;
      return slot;
    }),
  }));
  return { arrivals, counts, starts, expandedRows: rows };
}

/** The value of an output's element before any sum: of a token's selection. Bits of a bf16. */
export type ExpertOutput = (source: number, lane: number, column: number) => number;

/** What a sum is made of: a selection's value by lane, or sums that are rounded first. */
type Sum = number | readonly Sum[];

/** One addend, with the lane that says where in the order it stands. */
interface Term {
  readonly lane: number;
  readonly sum: Sum;
}

/** Terms of equal groups become one, at the last lane of the group. */
function level(terms: readonly Term[], groupOf: (lane: number) => number): Term[] {
  const groups = Map.groupBy(terms, ({ lane }) => groupOf(lane));
  return [...groups.values()]
    .map((group) => ({
      lane: Math.max(...group.map(({ lane }) => lane)),
      sum: group.map(({ sum }) => sum),
    }))
    .sort((a, b) => a.lane - b.lane);
}

/** In order, in float32; a sum of one is that one, any other is rounded to bf16. */
function evaluate(sum: Sum, value: (lane: number) => number): number {
  if (typeof sum === "number") return value(sum);
  if (sum.length === 1) return evaluate(sum[0] as Sum, value);
  return rounded(sum.reduce<number>((all, part) => fround(all + evaluate(part, value)), 0));
}

const rounded = (value: number): number => bf16ToNumber(bf16FromNumber(value));

/** How sums are made. */
export interface Recipe {
  /** Of a rank's selections first. */
  readonly byRank: boolean;
  /** Then of a node's ranks. */
  readonly byNode: boolean;
}

/** The sum of a token by column, as bf16 bits; `biases` are rows. */
export function combined(
  world: World,
  recipe: Recipe,
  at: { readonly rank: number; readonly token: number; readonly hidden: number },
  output: ExpertOutput,
  biases: readonly ArrayLike<number>[],
): number[] {
  const local = world.numExperts / world.ranks.length;
  const lanes = world.ranks[at.rank]?.selected[at.token] ?? [];
  const source = at.rank * world.numMaxTokensPerRank + at.token;
  const rankOf = (lane: number): number => Math.floor((lanes[lane] as number) / local);
  let terms: Term[] = lanes.map((e, lane) => ({ e, lane, sum: lane })).filter(({ e }) => e >= 0);
  if (recipe.byRank) terms = level(terms, rankOf);
  if (recipe.byNode) terms = level(terms, (lane) => Math.floor(rankOf(lane) / world.scaleup));
  return Array.from({ length: at.hidden }, (_, column) => {
    const value = (lane: number): number => bf16ToNumber(output(source, lane, column));
    const [first = 0, second] = biases.map((bias) => bias[column] as number);
    const start = second === undefined ? first : fround(first + second);
    const total = terms.reduce((sum, term) => fround(sum + evaluate(term.sum, value)), start);
    return bf16FromNumber(total);
  });
}

/** What a rank hands to combine for one received token where it sums by itself. */
export function summedLocally(arrival: Arrival, output: ExpertOutput, column: number): number {
  const lanes = arrival.local.flatMap((e, lane) => (e < 0 ? [] : [lane]));
  const value = (lane: number): number => bf16ToNumber(output(arrival.source, lane, column));
  return bf16FromNumber(evaluate(lanes, value));
}
