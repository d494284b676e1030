// Cases of the normal mode and what must come out of them, computed by plain loops. Every rank
// makes every rank's data from the case's seed, so each can check its own results alone.

import { bf16FromNumber, bf16ToNumber, Tensor } from "@open-infra/tensor";
import { type Random, seededRandom } from "@open-infra/testing";

/** One dispatch and combine. */
export interface NormalCase {
  readonly seed: number;
  /** Of each rank. */
  readonly tokens: readonly number[];
  readonly hidden: number;
  readonly topk: number;
  readonly numExperts: number;
  readonly kind: "bf16" | "fp8" | "fp8-columns" | "fp8-ue8m0" | "f32";
  /** Experts come from this many nodes of each token's choice. */
  readonly topkGroups?: number;
  /** Share of selections that are −1. */
  readonly maskedRatio?: number;
  /** All to this expert. */
  readonly onlyExpert?: number;
  readonly withTopk: boolean;
  readonly alignment: number;
  readonly worst: boolean;
  readonly cached: boolean;
  readonly biases: number;
  readonly previous: boolean;
  readonly async: boolean;
}

/** One rank's input. */
export interface RankInput {
  /** `[tokens][k]`. */
  readonly topk: readonly (readonly number[])[];
  readonly topkIdx: Tensor<"i64">;
  readonly topkWeights: Tensor<"f32">;
  readonly x: Tensor;
  readonly scales: Tensor | undefined;
}

function choose(random: Random, c: NormalCase, ranks: number, ranksPerNode: number): number[] {
  if (c.onlyExpert !== undefined) {
    return [c.onlyExpert, ...new Array<number>(c.topk - 1).fill(-1)];
  }
  const perNode = (c.numExperts / ranks) * ranksPerNode;
  const nodes = Math.ceil(c.numExperts / perNode);
  const allowed = new Set<number>();
  while (allowed.size < Math.min(c.topkGroups ?? nodes, nodes)) allowed.add(random.int(0, nodes));
  const pool: number[] = [];
  for (let e = 0; e < c.numExperts; e++) if (allowed.has(Math.floor(e / perNode))) pool.push(e);
  return Array.from({ length: c.topk }, () => {
    const [expert = -1] = pool.length > 0 ? pool.splice(random.int(0, pool.length), 1) : [];
    return random.next() < (c.maskedRatio ?? 0) ? -1 : expert;
  });
}

function bytesOf(random: Random, tensor: Tensor): void {
  const bytes = tensor.bytes();
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.int(0, 256);
}

/** Rows of random bits: dispatch moves them whatever they mean. */
export function makeInput(
  c: NormalCase,
  rank: number,
  ranks: number,
  ranksPerNode: number,
): RankInput {
  const random = seededRandom(c.seed * 1000 + rank);
  const tokens = c.tokens[rank] as number;
  const topk = Array.from({ length: tokens }, () => choose(random, c, ranks, ranksPerNode));
  const topkIdx = Tensor.from(topk.flat(), [tokens, c.topk], "i64");
  const topkWeights = Tensor.empty([tokens, c.topk], "f32");
  topkWeights.raw().forEach((_, i, all) => {
    all[i] = Math.fround(random.next());
  });
  const blocks = Math.ceil(c.hidden / 128);
  const dtype = c.kind === "bf16" || c.kind === "f32" ? c.kind : "e4m3fn";
  const x = Tensor.empty([tokens, c.hidden], dtype);
  bytesOf(random, x);
  let scales: Tensor | undefined;
  if (c.kind === "fp8") scales = Tensor.empty([tokens, blocks], "f32");
  if (c.kind === "fp8-columns") scales = Tensor.empty([blocks, tokens], "f32");
  if (c.kind === "fp8-ue8m0") scales = Tensor.empty([tokens, Math.ceil(blocks / 4)], "i32");
  if (scales !== undefined) bytesOf(random, scales);
  if (c.kind === "fp8-columns") scales = scales?.transpose(0, 1);
  return { topk, topkIdx, topkWeights, x, scales };
}

/** Distinct ranks of a token, ascending. */
export function ranksOf(choice: readonly number[], numExperts: number, ranks: number): number[] {
  const local = numExperts / ranks;
  const found = choice.filter((e) => e >= 0).map((e) => Math.floor(e / local));
  return [...new Set(found)].sort((a, b) => a - b);
}

/** The rows that a rank receives: source rank and token, in order. */
export function receivedBy(
  to: number,
  inputs: readonly RankInput[],
  numExperts: number,
): { readonly source: number; readonly token: number }[] {
  return inputs.flatMap(({ topk }, source) =>
    topk.flatMap((choice, token) =>
      ranksOf(choice, numExperts, inputs.length).includes(to) ? [{ source, token }] : [],
    ),
  );
}

/** What an "expert" makes of a row: bf16 bits that depend on all three. */
export function expertBits(to: number, source: number, token: number, column: number): number {
  let h = Math.imul(to * 7919 + source * 104_729 + token * 31 + column, 0x9e3779b1) >>> 0;
  h ^= h >>> 15;
  return bf16FromNumber(((h % 2001) - 1000) / 64);
}

/** Sums bf16 in float32, in order, rounded once; the first is taken as it is. */
export function sumBits(bits: readonly number[]): number {
  if (bits.length === 0) return 0;
  let sum = bf16ToNumber(bits[0] as number);
  for (const b of bits.slice(1)) sum = Math.fround(sum + bf16ToNumber(b));
  return bf16FromNumber(sum);
}

/** One element of a token's sum: biases, then nodes; another node's part is rounded first. */
export function combinedBits(
  biases: readonly number[],
  ranks: readonly number[],
  own: number,
  ranksPerNode: number,
  bitsOf: (rank: number) => number,
): number {
  const nodeOf = (rank: number): number => Math.floor(rank / ranksPerNode);
  const nodes = [...new Set(ranks.map(nodeOf))];
  const terms = nodes.flatMap((node) => {
    const rows = ranks.filter((rank) => nodeOf(rank) === node).map(bitsOf);
    return node === nodeOf(own) ? rows : [sumBits(rows)];
  });
  return sumBits([...biases, ...terms]);
}
