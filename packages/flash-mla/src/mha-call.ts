// The lowered form of attention of ordinary heads over packed sequences: what the public functions
// check their arguments into, what the reference computes, and how the work is cut for threads.

import { dtypeBits, type Tensor } from "@open-infra/tensor";

export interface MhaCall {
  /** Public function, for messages and traces. */
  readonly operation: string;
  readonly headsQ: number;
  readonly headsK: number;
  readonly headDimQk: number;
  readonly headDimV: number;
  readonly softmaxScale: number;
  readonly causal: boolean;
  /** Whether probabilities, and gradients of scores, may be rounded to bf16. */
  readonly roundProbabilities: boolean;
  /** Query tokens and keys of each sequence. */
  readonly queryLengths: Int32Array;
  readonly keyLengths: Int32Array;
  /** i32 `[sequences + 1]`. */
  readonly cuSeqlensQ: Tensor;
  readonly cuSeqlensK: Tensor;
  /** `[Tq, H, dqk]`, `[Tkv, Hkv, dqk]`, `[Tkv, Hkv, dv]`, unit stride in the last dimension. */
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  /** `[Tq, H, dv]`, written by the forward pass and read by the backward one. */
  readonly out: Tensor;
  /** f32 `[Tq, H]`. */
  readonly lse: Tensor;
}

export interface MhaBackwardCall extends MhaCall {
  /** `[Tq, H, dv]`. */
  readonly dOut: Tensor;
  /** f32 `[Tq, H]`: gradient of the logarithms; null for zeros. */
  readonly dLse: Tensor | null;
  /** In the shapes of q, k and v. */
  readonly dq: Tensor;
  readonly dk: Tensor;
  readonly dv: Tensor;
}

/** Keys that query token `i` of sequence `r` sees (causal masks are bottom-right aligned). */
export function visibleTo(call: MhaCall, r: number, i: number): number {
  const keys = call.keyLengths[r] as number;
  if (!call.causal) return keys;
  return Math.max(0, Math.min(keys, keys - (call.queryLengths[r] as number) + i + 1));
}

/** Pairs of a query token and a key it sees in sequence `r`. */
export function visiblePairs(call: MhaCall, r: number): number {
  const queries = call.queryLengths[r] as number;
  const keys = call.keyLengths[r] as number;
  if (!call.causal) return queries * keys;
  const blind = Math.max(0, queries - keys);
  const first = visibleTo(call, r, blind);
  return queries === blind ? 0 : ((queries - blind) * (first + keys)) / 2;
}

function bytesOf(...tensors: readonly Tensor[]): number {
  return tensors.reduce((sum, t) => sum + (t.size * dtypeBits[t.dtype]) / 8, 0);
}

function allPairs(call: MhaCall): number {
  let pairs = 0;
  for (let r = 0; r < call.queryLengths.length; r++) pairs += visiblePairs(call, r);
  return pairs * call.headsQ;
}

/** Two products: Q·Kᵀ and P·V. */
export function forwardWork(call: MhaCall): { flops: number; bytes: number } {
  return {
    flops: 2 * allPairs(call) * (call.headDimQk + call.headDimV),
    bytes: bytesOf(call.q, call.k, call.v, call.out),
  };
}

/** Five products: Q·Kᵀ, dO·Vᵀ, dS·K, dSᵀ·Q and Pᵀ·dO. */
export function backwardWork(call: MhaBackwardCall): { flops: number; bytes: number } {
  return {
    flops: 2 * allPairs(call) * (3 * call.headDimQk + 2 * call.headDimV),
    bytes: bytesOf(call.q, call.k, call.v, call.out, call.dOut, call.dq, call.dk, call.dv),
  };
}
