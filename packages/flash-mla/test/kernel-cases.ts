// Small calls that reach every kernel of this package and each way through it, for the sanitizers
// (scripts/sanitize.ts). What they compute is not looked at here. A new operation is a line in the
// table.

import type { Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { seededRandom } from "@open-infra/testing";
import {
  flashAttnVarlenBackward,
  flashAttnVarlenFunc,
  flashMlaSparseFwd,
  flashMlaVarlen,
  flashMlaWithKvcache,
} from "../src/index.ts";
import { cumulative, type MhaShape, mhaProblem } from "./mha-problems.ts";
import { pagedProblem } from "./problems.ts";
import { type Format, type ScopeShape, sparseProblem } from "./sparse-problems.ts";

const random = seededRandom(5);

function decode(dtype: DType, d: number, dv: number, page: number): (device: Device) => void {
  return (device) => {
    for (const [sq, hq, hk] of [
      [1, 1, 1],
      [2, 9, 3],
      [1, 16, 1],
      [3, 40, 1],
    ] as const) {
      const lens = [0, 1, 33, 65, 130];
      const problem = pagedProblem(random, { sq, hq, hk, d, dv, page, dtype, lens });
      const options = { ...problem, headDimV: dv, causal: sq > 1 };
      flashMlaWithKvcache(device, options);
      if (dtype === "bf16") flashMlaWithKvcache(device, { ...options, probabilities: "f32" });
    }
  };
}

function varlen(device: Device): void {
  const [d, dv, hq] = [96, 64, 5];
  const lens = [70, 3, 40];
  const shape = { sq: 1, hq, d, dv, page: 16, dtype: "bf16" as const, lens };
  const { kCache, blockTable, cacheSeqlens } = pagedProblem(random, shape);
  const queries = [7, 1, 12];
  const total = 20;
  const q = Tensor.empty([total, hq, d], "bf16");
  const out = Tensor.empty([total, hq, dv], "bf16");
  const context = { q, kCache, blockTable, contextLens: cacheSeqlens, headDimV: dv, out };
  flashMlaVarlen(device, { ...context, cuSeqlensQ: cumulative(queries) });
}

function sparse(main: Format, extra?: Format): (device: Device) => void {
  return (device) => {
    const d = main === "model1" ? 512 : 576;
    for (const [sq, hq] of [
      [1, 1],
      [2, 7],
      [1, 64],
    ] as const) {
      const scope = (format: Format, page: number, topk: number): ScopeShape => ({
        format,
        page,
        numBlocks: 3,
        topk,
        lengths: [topk, 5, 0],
      });
      const problem = sparseProblem(random, {
        b: 3,
        sq,
        hq,
        d,
        dv: 512,
        dtype: "bf16",
        main: scope(main, 13, 37),
        ...(extra !== undefined && { extra: scope(extra, 8, 9) }),
      });
      const [own, second] = problem.scopes;
      flashMlaWithKvcache(device, {
        q: problem.q,
        kCache: (own as NonNullable<typeof own>).cache,
        indices: (own as NonNullable<typeof own>).indices,
        headDimV: 512,
        isFp8Kvcache: main === "v32" || main === "model1",
        attnSink: Tensor.from(new Float32Array(hq).fill(0.5), [hq], "f32"),
        ...(own?.lengths && { topkLength: own.lengths }),
        ...(second && { extraKCache: second.cache, extraIndicesInKvcache: second.indices }),
        ...(second?.lengths && { extraTopkLength: second.lengths }),
      });
    }
  };
}

function sparsePrefill(device: Device): void {
  const [sq, hq, d, keys, topk] = [5, 9, 512, 70, 33];
  const index = (): number => random.int(-3, keys + 3);
  flashMlaSparseFwd(device, {
    q: Tensor.from(new Float32Array(sq * hq * d).fill(0.01), [sq, hq, d], "bf16"),
    kv: Tensor.from(new Float32Array(keys * d).fill(0.02), [keys, 1, d], "bf16"),
    indices: Tensor.from(Array.from({ length: sq * topk }, index), [sq, 1, topk], "i32"),
    smScale: 0.5,
    topkLength: Tensor.from([0, 1, 32, 33, 20], [sq], "i32"),
    indexerTopk: 256,
  });
}

function mha(dtype: DType, dqk: number, dv: number): (device: Device) => void {
  return (device) => {
    for (const causal of [true, false]) {
      const lens = { lensQ: [1, 17, 0, 70], lensK: [40, 17, 5, 66] };
      const shape: MhaShape = { h: 4, hkv: 2, dqk, dv, ...lens, dtype, causal };
      const problem = mhaProblem(random, shape);
      for (const probabilities of ["f32", "bf16"] as const) {
        const { out, lse } = flashAttnVarlenFunc(device, { ...problem, probabilities });
        flashAttnVarlenBackward(device, { ...problem, probabilities, out, lse });
      }
      // Infinities take slower ways around those who do not see them.
      for (const name of ["q", "k", "v", "dOut"] as const) {
        const values = problem[name].toFloat64();
        values.fill(Number.POSITIVE_INFINITY, values.length / 2, values.length / 2 + 9);
        const spoilt = { ...problem, [name]: Tensor.from(values, problem[name].shape, dtype) };
        const { out, lse } = flashAttnVarlenFunc(device, spoilt);
        flashAttnVarlenBackward(device, { ...spoilt, out, lse });
      }
    }
  };
}

/** Calls by name; each makes its own tensors. */
export const kernelCases: Readonly<Record<string, (device: Device) => void>> = {
  "decode bf16 576/512": decode("bf16", 576, 512, 64),
  "decode f16 odd sizes": decode("f16", 70, 37, 5),
  "decode f32": decode("f32", 96, 64, 16),
  varlen,
  "sparse v32": sparse("v32"),
  "sparse model1 and an extra scope": sparse("model1", "model1"),
  "sparse bf16": sparse("bf16"),
  "sparse prefill": sparsePrefill,
  "mha 192/128 bf16": mha("bf16", 192, 128),
  "mha 64/32 bf16": mha("bf16", 64, 32),
  "mha odd sizes f16": mha("f16", 5, 9),
  "mha f32": mha("f32", 48, 32),
};
