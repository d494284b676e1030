// The one attention problem that every public function of this package is lowered to: rows of
// queries (request, token, head) against the keys of their request. The reference and the kernels
// know this form only; checking and naming of arguments is done before, in the public functions.

import { dtypeBits, type Tensor } from "@open-infra/tensor";
import { bytesPerKey, type KvFormat } from "./kv-layout.ts";
import type { Plan } from "./plan.ts";
import type { Workspace } from "./workspace.ts";

/** Keys of one split. Counted from key 0 of a request, so that a row's arithmetic is its own. */
export const SPLIT_KEYS = 256;
/** Keys of one online-softmax step. */
export const BLOCK_KEYS = 64;

/** Queries of equal length per request, `[b, s, h, …]`, or ragged ones, `[T, h, …]`. */
export type QueryLayout = "batched" | "ragged";

export interface AttentionCall {
  /** Public function, for messages and traces. */
  readonly operation: string;
  readonly layout: QueryLayout;
  readonly requests: number;
  readonly headsQ: number;
  readonly headsK: number;
  readonly headDimQk: number;
  readonly headDimV: number;
  readonly softmaxScale: number;
  readonly causal: boolean;
  /** Query tokens and visible keys of each request. */
  readonly queryLengths: Int32Array;
  readonly keyLengths: Int32Array;
  /** `[b, s, hq, d]` or `[T, hq, d]`, unit stride in the last dimension. */
  readonly q: Tensor;
  /** `[b, s, hq, dv]` or `[T, hq, dv]`. */
  readonly out: Tensor;
  /** `[b, hq, s]` or `[T, hq]` f32; null if not wanted. */
  readonly lse: Tensor | null;
  /** Largest score of each row, f32 in the shape of `lse`, with its own strides. */
  readonly maxLogits?: Tensor | null;
  /** f32 `[hq]`: a score that takes part in the softmax and has no value. */
  readonly sink?: Tensor | null;
  /** What the natural lse is multiplied by. @default 1 */
  readonly lseScale?: number;
  /** Whether probabilities may be rounded to bf16. @default true */
  readonly roundProbabilities?: boolean;
  /** i32 `[requests + 1]`; null for batched queries. */
  readonly cuSeqlensQ: Tensor | null;
  /** `[blocks, page, hk, d]`; values are the first `headDimV` channels. */
  readonly k: Tensor;
  /** How `k` stores keys; left out, by its dtype. */
  readonly kFormat?: KvFormat;
  readonly blockTable: Tensor;
  /** i32 `[requests]`. */
  readonly contextLens: Tensor;
  /** Null on backends that schedule for themselves. */
  readonly plan: Plan | null;
  /** What a device lends to a launch. */
  readonly workspace?: Workspace;
}

/** Keys that query token `i` of request `r` may see (causal masks are bottom-right aligned). */
export function visibleKeys(call: AttentionCall, r: number, i: number): number {
  const keys = call.keyLengths[r] as number;
  if (!call.causal) return keys;
  return Math.max(0, Math.min(keys, keys - (call.queryLengths[r] as number) + i + 1));
}

/** How a call's keys are stored. */
export function formatOfKeys(call: AttentionCall): KvFormat {
  return call.kFormat ?? (call.k.dtype as "f32" | "bf16" | "f16");
}

/**
 * Floating-point operations and least memory traffic of a call, as the original's tests count them.
 */
export function attentionWork(call: AttentionCall): { flops: number; bytes: number } {
  let pairs = 0;
  let keys = 0;
  let tokens = 0;
  for (let r = 0; r < call.requests; r++) {
    const n = call.queryLengths[r] as number;
    const all = call.keyLengths[r] as number;
    tokens += n;
    keys += all;
    const first = visibleKeys(call, r, 0);
    pairs += call.causal && n > 0 ? (n * (first + visibleKeys(call, r, n - 1))) / 2 : n * all;
  }
  const kvBytes = keys * call.headsK * bytesPerKey(formatOfKeys(call), call.headDimQk);
  const qBytes = (tokens * call.headsQ * call.headDimQk * dtypeBits[call.q.dtype]) / 8;
  const outBytes = (tokens * call.headsQ * call.headDimV * dtypeBits[call.out.dtype]) / 8;
  return {
    flops: 2 * pairs * call.headsQ * (call.headDimQk + call.headDimV),
    bytes: kvBytes + qBytes + outBytes,
  };
}
