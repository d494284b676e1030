// The oracle of attention of ordinary heads: forward and analytic backward in float64, one row at a
// time, rounded once at the end. Not for speed.

import type { Tensor } from "@open-infra/tensor";
import { type MhaBackwardCall, type MhaCall, visibleTo } from "./mha-call.ts";
import { attendRow, store } from "./reference.ts";

/** One query row: where it lies, and the rows of keys it sees. */
interface QueryRow {
  /** Index of the row in `[Tq, H]`. */
  readonly at: number;
  /** Index of key j's row in `[Tkv, Hkv]`. */
  key(j: number): number;
  readonly visible: number;
}

function* queryRows(call: MhaCall): Generator<QueryRow> {
  const { headsQ, headsK } = call;
  const group = headsQ / headsK;
  const startsQ = call.cuSeqlensQ.raw();
  const startsK = call.cuSeqlensK.raw();
  for (let r = 0; r < call.queryLengths.length; r++) {
    for (let i = 0; i < (call.queryLengths[r] as number); i++) {
      for (let h = 0; h < headsQ; h++) {
        const start = startsK[r] as number;
        const head = Math.floor(h / group);
        yield {
          at: ((startsQ[r] as number) + i) * headsQ + h,
          key: (j) => (start + j) * headsK + head,
          visible: visibleTo(call, r, i),
        };
      }
    }
  }
}

/** Σ a[x·n + c] · b[y·n + c]. */
function dot(a: Float64Array, x: number, b: Float64Array, y: number, n: number): number {
  let sum = 0;
  for (let c = 0; c < n; c++) sum += (a[x * n + c] as number) * (b[y * n + c] as number);
  return sum;
}

/** to[x·n + c] += factor · from[y·n + c]. */
function add(
  to: Float64Array,
  x: number,
  factor: number,
  from: Float64Array,
  y: number,
  n: number,
): void {
  for (let c = 0; c < n; c++) {
    to[x * n + c] = (to[x * n + c] as number) + factor * (from[y * n + c] as number);
  }
}

/** Computes a call in float64 and stores `out` and `lse`. */
export function mhaReference(call: MhaCall): void {
  const { headDimQk: d, headDimV: dv } = call;
  const q = call.q.toFloat64();
  const k = call.k.toFloat64();
  const v = call.v.toFloat64();
  const out = new Float64Array(call.out.size);
  const lse = new Float64Array(call.lse.size);
  for (const { at, key, visible } of queryRows(call)) {
    const scores = Float64Array.from(
      { length: visible },
      (_, j) => dot(q, at, k, key(j), d) * call.softmaxScale,
    );
    const row = attendRow(scores, (j, c) => v[key(j) * dv + c] as number, dv);
    out.set(row.out, at * dv);
    lse[at] = row.lse;
  }
  store(call.out, out);
  store(call.lse, lse);
}

/**
 * The analytic gradients in float64. With P = exp(S − lse), dP = dO·Vᵀ and δ = Σ out·dO − dLse:
 * dV = Pᵀ·dO, dS = P∘(dP − δ), dQ = scale·dS·K, dK = scale·dSᵀ·Q, summed over the query heads of a
 * key head. P comes from the scores themselves, not from the stored `lse`, and δ from P and dP.
 */
export function mhaBackwardReference(call: MhaBackwardCall): void {
  const { headDimQk: d, headDimV: dv, softmaxScale } = call;
  const q = call.q.toFloat64();
  const k = call.k.toFloat64();
  const v = call.v.toFloat64();
  const dOut = call.dOut.toFloat64();
  const dLse = call.dLse?.toFloat64();
  const zeros = (like: Tensor): Float64Array => new Float64Array(like.size);
  const dq = zeros(call.dq);
  const dk = zeros(call.dk);
  const dvSum = zeros(call.dv);
  for (const { at, key, visible } of queryRows(call)) {
    const scores = Float64Array.from(
      { length: visible },
      (_, j) => dot(q, at, k, key(j), d) * softmaxScale,
    );
    const top = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const p = scores.map((s) => Math.exp(s - top));
    const sum = p.reduce((a, b) => a + b, 0);
    const dp = Float64Array.from({ length: visible }, (_, j) => dot(dOut, at, v, key(j), dv));
    let delta = -(dLse?.[at] ?? 0);
    for (let j = 0; j < visible; j++) {
      p[j] = (p[j] as number) / sum;
      delta += (p[j] as number) * (dp[j] as number);
    }
    for (let j = 0; j < visible; j++) {
      const ds = (p[j] as number) * ((dp[j] as number) - delta) * softmaxScale;
      add(dvSum, key(j), p[j] as number, dOut, at, dv);
      add(dq, at, ds, k, key(j), d);
      add(dk, key(j), ds, q, at, d);
    }
  }
  store(call.dq, dq);
  store(call.dk, dk);
  store(call.dv, dvSum);
}
