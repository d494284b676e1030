// The oracle of sparse attention: float64, one query row at a time. Not for speed.

import type { Tensor } from "@open-infra/tensor";
import { attendRow, cacheValues, store } from "./reference.ts";
import { listLength, type SparseCall, type SparseScope } from "./sparse-call.ts";

/** Where a key's numbers begin in its scope's values. */
interface ListedKey {
  readonly values: Float64Array;
  readonly at: number;
}

function listedKeys(
  call: SparseCall,
  scope: SparseScope,
  values: Float64Array,
  indices: Int32Array,
  r: number,
  i: number,
  most = Number.POSITIVE_INFINITY,
): ListedKey[] {
  const topk = scope.indices.dim(2);
  const first = scope.perRequest ? r * scope.keys : 0;
  const list: ListedKey[] = [];
  for (let j = 0; j < Math.min(most, listLength(scope, r, i)); j++) {
    const index = indices[(r * call.tokens + i) * topk + j] as number;
    if (index < 0 || index >= scope.keys) continue;
    list.push({ values, at: (first + index) * call.headDimQk });
  }
  return list;
}

/** Computes a call in float64 and stores `out` and the logarithms. */
export function sparseReference(call: SparseCall): void {
  const { headsQ, headDimQk: d, headDimV: dv, tokens } = call;
  const q = call.q.toFloat64();
  const scopes = call.scopes.map((scope) => ({
    scope,
    values: cacheValues(scope.cache, scope.format),
    indices: scope.indices.contiguous().raw() as Int32Array,
  }));
  const sink = call.sink?.toFloat64();
  const rows = call.requests * tokens * headsQ;
  const out = new Float64Array(rows * dv);
  const lse = new Float64Array(rows);
  const maxLogits = new Float64Array(rows);
  const prefixLse = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const r = Math.floor(row / (tokens * headsQ));
    const i = Math.floor(row / headsQ) % tokens;
    const keys = scopes.flatMap((s) => listedKeys(call, s.scope, s.values, s.indices, r, i));
    const scores = Float64Array.from(keys, ({ values, at }) => {
      let dot = 0;
      for (let c = 0; c < d; c++) dot += (q[row * d + c] as number) * (values[at + c] as number);
      return dot * call.softmaxScale;
    });
    const value = (j: number, c: number): number => {
      const key = keys[j] as ListedKey;
      return key.values[key.at + c] as number;
    };
    const result = attendRow(scores, value, dv, sink?.[row % headsQ]);
    out.set(result.out, row * dv);
    lse[row] = result.lse * call.lseScale;
    maxLogits[row] = result.max;
    if (call.prefix === undefined) continue;
    const { scope, values, indices } = scopes[0] as (typeof scopes)[number];
    const first = listedKeys(call, scope, values, indices, r, i, call.prefix.places).length;
    const part = attendRow(scores.subarray(0, first), value, 0);
    prefixLse[row] = part.lse * call.lseScale;
  }
  store(call.out, out);
  storeIf(call.lse, lse);
  storeIf(call.maxLogits, maxLogits);
  storeIf(call.prefix?.lse ?? null, prefixLse);
}

function storeIf(tensor: Tensor | null, values: Float64Array): void {
  if (tensor !== null) store(tensor, values);
}
