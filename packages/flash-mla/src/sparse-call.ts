// The lowered form of sparse attention: every query has a list of keys of its own, in one or two
// caches (scopes) that share one softmax. Decode and prefill are both this; checking and naming of
// arguments is done before, in sparse-decode.ts and sparse-prefill.ts.

import type { Tensor } from "@open-infra/tensor";
import { SPLIT_KEYS } from "./call.ts";
import { bytesPerKey, type KvFormat } from "./kv-layout.ts";
import type { Plan, PlanProblem } from "./plan.ts";
import type { Workspace } from "./workspace.ts";

/** A cache, and which of its keys each query sees. */
export interface SparseScope {
  /** `[blocks, page, 1, d | bytes]`; blocks of one request where `perRequest`, else of all. */
  readonly cache: Tensor;
  readonly format: KvFormat;
  /** Keys an index may name: 0 to `keys` − 1. Every other index is no key. */
  readonly keys: number;
  /** Whether request r's keys are those of block r alone (prefill) or all of the cache's. */
  readonly perRequest: boolean;
  /** i32 `[b, s, topk]`, unit stride in the last dimension. */
  readonly indices: Tensor;
  /** i32 `[b, s]` (strides may be 0): how many leading indices count; null for all. */
  readonly lengths: Tensor | null;
}

export interface SparseCall {
  /** Public function, for messages and traces. */
  readonly operation: string;
  readonly requests: number;
  readonly tokens: number;
  readonly headsQ: number;
  readonly headDimQk: number;
  readonly headDimV: number;
  readonly softmaxScale: number;
  /** One or two; the second is joined behind the first. */
  readonly scopes: readonly SparseScope[];
  /** `[b, s, h, d]`, unit stride in the last dimension; likewise `out`, `[b, s, h, dv]`. */
  readonly q: Tensor;
  readonly out: Tensor;
  /** f32 `[b, s, h]`, any strides. */
  readonly lse: Tensor | null;
  readonly maxLogits: Tensor | null;
  /** The logarithm over the first `places` of every list, a multiple of {@link SPLIT_KEYS}. */
  readonly prefix?: { readonly places: number; readonly lse: Tensor };
  /** What the natural lse is multiplied by. */
  readonly lseScale: number;
  /** Whether probabilities may be rounded to bf16. */
  readonly roundProbabilities: boolean;
  /** f32 `[h]`. */
  readonly sink: Tensor | null;
  /** Null on backends that schedule for themselves. */
  readonly plan: Plan | null;
  /** What a device lends to a launch. */
  readonly workspace?: Workspace;
}

/** How many leading indices of query (r, i) count in a scope. */
export function listLength(scope: SparseScope, r: number, i: number): number {
  const { lengths } = scope;
  if (lengths === null) return scope.indices.dim(2);
  return lengths
    .select(0, r)
    .slice(0, i, i + 1)
    .raw()[0] as number;
}

/** The lengths of all queries' lists, request by request. */
export function listLengths(call: SparseCall, scope: SparseScope): Int32Array {
  const all = new Int32Array(call.requests * call.tokens);
  if (scope.lengths === null) return all.fill(scope.indices.dim(2));
  const lengths = scope.lengths.contiguous().raw() as Int32Array;
  all.set(lengths);
  return all;
}

/**
 * The scheduling problem: every query is a request of its own, its heads the rows. A split never
 * crosses from one scope to the next, so the first list counts as whole splits.
 */
export function sparseProblem(call: SparseCall): Omit<PlanProblem, "threads"> {
  const queries = call.requests * call.tokens;
  const keyLengths = new Int32Array(queries);
  for (const scope of call.scopes) {
    const lengths = listLengths(call, scope);
    for (let u = 0; u < queries; u++) {
      const before = Math.ceil((keyLengths[u] as number) / SPLIT_KEYS) * SPLIT_KEYS;
      const n = lengths[u] as number;
      if (n > 0) keyLengths[u] = before + n;
    }
  }
  return {
    queryLengths: new Int32Array(queries).fill(1),
    keyLengths,
    headsQ: call.headsQ,
    headsK: 1,
    headDimV: call.headDimV,
    causal: false,
  };
}

/** Flops and bytes as the original counts them: every listed key once a query. */
export function sparseWork(call: SparseCall): { flops: number; bytes: number } {
  let pairs = 0;
  let bytes = call.requests * call.tokens * call.headsQ * (call.headDimQk + call.headDimV) * 2;
  for (const scope of call.scopes) {
    const listed = listLengths(call, scope).reduce((sum, n) => sum + n, 0);
    pairs += listed;
    bytes += listed * (bytesPerKey(scope.format, call.headDimQk) + 4);
  }
  return { flops: 2 * pairs * call.headsQ * (call.headDimQk + call.headDimV), bytes };
}
