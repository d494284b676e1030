// Small calls that reach every kernel of this package and each way through it, for the sanitizers
// (scripts/sanitize.ts): tails in every dimension, ragged and empty groups, transposed and strided
// operands. What they compute is not looked at here. A new operation is a line in the table.

import type { Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { seededRandom } from "@open-infra/testing";
import {
  bf16GemmNn,
  bf16GemmNt,
  bf16GemmTn,
  bf16GemmTt,
  bf16MegaMoe,
  castBackFromFp4,
  castBackFromFp8,
  einsum,
  fp8Einsum,
  fp8Fp4MegaMoe,
  fp8GemmNn,
  fp8GemmNt,
  fp8GemmNtSkipHeadMid,
  fp8GemmTn,
  fp8GemmTt,
  fp8MqaLogits,
  fp8PagedMqaLogits,
  gemmNt,
  getSymmBufferForMegaMoe,
  kGroupedBf16GemmTnContiguous,
  kGroupedCastToFp8,
  kGroupedFp8GemmNtContiguous,
  kGroupedFp8GemmTnContiguous,
  mGroupedBf16GemmNtContiguous,
  mGroupedBf16GemmNtMasked,
  mGroupedFp8GemmNnContiguous,
  mGroupedFp8GemmNtContiguous,
  mGroupedFp8GemmNtMasked,
  packUe8m0ToInt,
  perBlockCastToFp8,
  perChannelCastToFp8,
  perTokenCastToFp4,
  perTokenCastToFp8,
  type ScaledTensor,
  tf32HcPrenormGemm,
  transposePackedFp4,
} from "../src/index.ts";
import {
  type OperandKind,
  poisoned,
  randomOperand,
  randomScaled,
  randomTensor,
  turnedOperand,
  withRowGaps,
} from "./helpers.ts";
import { pagesOf, randomCodes, randomKeys } from "./mqa-helpers.ts";

const random = seededRandom(3);
const bf16 = (...shape: number[]): Tensor => randomTensor(random, shape, "bf16");
const fp8 = (granM: number, ...shape: number[]): ScaledTensor => randomScaled(random, shape, granM);
const i32 = (...values: number[]): Tensor => Tensor.from(values, [values.length], "i32");
const out = (dtype: DType, ...shape: number[]): Tensor => poisoned(shape, dtype);

/** Few rows, some, and more than a unit of work holds; columns and K beside every block size. */
const sizes = [
  [1, 37, 200],
  [5, 16, 129],
  [14, 130, 1030],
  [50, 67, 31],
  [200, 33, 515],
  [70, 80, 2200],
  [3, 1, 1],
] as const;

function dense(a: OperandKind, b: OperandKind, d: DType): (device: Device) => void {
  return (device) => {
    for (const [m, n, k] of sizes) {
      const [x, y] = [randomOperand(random, a, [m, k], 1), randomOperand(random, b, [n, k], 128)];
      gemmNt(device, { a: x, b: y, d: out(d, m, n) });
      gemmNt(device, { a: x, b: y, d: out(d, m, n), c: out(d, m, n) });
    }
  };
}

function turnings(device: Device): void {
  const [m, n, k] = [21, 37, 150];
  const d = withRowGaps(out("bf16", m, n), 3);
  const [a, b] = [withRowGaps(bf16(m, k), 5), withRowGaps(bf16(n, k), 1)];
  const [at, bt] = [turnedOperand(a, 3), turnedOperand(b, 7)];
  bf16GemmNt(device, { a, b, d });
  bf16GemmNn(device, { a, b: bt, d });
  bf16GemmTn(device, { a: at, b: bt, d });
  bf16GemmTt(device, { a: at, b, d });
}

function turningsFp8(device: Device): void {
  const [m, n, k] = [21, 140, 150];
  const d = out("bf16", m, n);
  const [a, b] = [fp8(1, m, k), fp8(128, n, k)];
  const [at, bt] = [turnedOperand(a, 3), turnedOperand(b, 7)];
  fp8GemmNn(device, { a, b: bt, d });
  fp8GemmTn(device, { a: at, b: bt, d });
  fp8GemmTt(device, { a: at, b, d });
  fp8GemmNt(device, { a, b: fp8(1, n, k), d: out("f32", m, n), recipe: [1, 1, 128] });
}

function fp4(device: Device): void {
  const [m, n, k] = [9, 33, 160];
  const b = randomScaled(random, [n, k], 1, 32, "e2m1");
  const d = out("f32", m, n);
  fp8GemmNt(device, { a: fp8(1, m, k), b, d, recipeA: [1, 128], recipeB: [1, 32] });
  const a = randomScaled(random, [m, k], 1, 32, "e2m1");
  fp8GemmNt(device, { a, b, d, recipe: [1, 1, 32] });
}

function grouped(device: Device): void {
  const [g, n, k] = [4, 35, 140];
  const ids = i32(...[0, 0, 0, -1, 1, 1, -1, -1, 3, 3, 3, 3, 3]);
  const m = ids.size;
  mGroupedBf16GemmNtContiguous(device, {
    a: bf16(m, k),
    b: bf16(g, n, k),
    d: out("bf16", m, n),
    groupedLayout: ids,
  });
  const [a, b] = [fp8(1, m, k), fp8(128, g, n, k)];
  mGroupedFp8GemmNtContiguous(device, { a, b, d: out("bf16", m, n), groupedLayout: ids });
  const ends = { groupedLayout: i32(3, 4, 9, 13), usePsumLayout: true, alignment: 2 };
  mGroupedFp8GemmNtContiguous(device, { a, b, d: out("bf16", m, n), ...ends });
  mGroupedFp8GemmNnContiguous(device, {
    a,
    b: turnedOperand(b),
    d: out("bf16", m, n),
    groupedLayout: ids,
  });
}

function masked(device: Device): void {
  const [g, m, n, k] = [3, 19, 35, 140];
  const maskedM = i32(0, 19, 7);
  mGroupedBf16GemmNtMasked(device, {
    a: bf16(g, m, k),
    b: bf16(g, n, k),
    d: out("bf16", g, m, n),
    maskedM,
  });
  const [a, b] = [fp8(1, g, m, k), fp8(128, g, n, k)];
  mGroupedFp8GemmNtMasked(device, { a, b, d: out("bf16", g, m, n), maskedM });
}

function kGrouped(device: Device): void {
  const [m, n] = [20, 35];
  const ks = [128, 0, 256, 60];
  const k = ks.reduce((x, y) => x + y, 0);
  const d = out("f32", ks.length, m, n);
  kGroupedBf16GemmTnContiguous(device, { a: bf16(k, m), b: bf16(k, n), d, c: d, ks });
  const lying = (width: number): ScaledTensor => ({
    data: randomTensor(random, [k, width], "e4m3fn"),
    scales: randomTensor(random, [4, width], "f32"),
  });
  kGroupedFp8GemmTnContiguous(device, { a: lying(m), b: lying(n), d, c: d, ks });
  // Matrix after matrix, each as long as its group.
  const flat = (width: number): ScaledTensor => ({
    data: randomTensor(random, [k * width], "e4m3fn"),
    scales: randomTensor(random, [width, 4], "f32"),
  });
  kGroupedFp8GemmNtContiguous(device, { a: flat(m), b: flat(n), d, c: d, ks });
}

function einsums(device: Device): void {
  const [s, m, n, k] = [3, 17, 35, 130];
  einsum(device, "bmk,bnk->mn", { a: bf16(s, m, k), b: bf16(s, n, k), d: out("f32", m, n) });
  const [tokens, heads, dim, rank] = [9, 2, 35, 130];
  const b = bf16(heads, dim, rank);
  const x = bf16(tokens, heads, rank + 8).slice(2, 0, rank);
  einsum(device, "bhr,hdr->bhd", { a: x, b, d: out("bf16", tokens, heads, dim) });
  const d = out("bf16", tokens, heads, rank);
  einsum(device, "bhd,hdr->bhr", { a: bf16(tokens, heads, dim), b, d });
  const up = out("bf16", tokens, heads, dim);
  fp8Einsum(device, "bhr,hdr->bhd", {
    a: fp8(1, tokens, heads, rank),
    b: fp8(128, heads, dim, rank),
    d: up,
  });
}

function epilogues(device: Device): void {
  const [m, n, k] = [13, 300, 200];
  const [a, b] = [fp8(1, m, k), fp8(128, n, k)];
  const bias = randomTensor(random, [n], "f32");
  fp8GemmNt(device, { a, b, d: out("f32", m, n), epilogue: { alpha: 0.5, bias } });
  const gate = { activation: "swiglu", bias, activationClamp: 3 } as const;
  fp8GemmNt(device, { a, b, d: out("bf16", m, n / 2), epilogue: gate });
  const scales = (width: number): Tensor => out("f32", m, Math.ceil(width / 128));
  fp8GemmNt(device, { a, b, d: { data: out("e4m3fn", m, n), scales: scales(n) } });
  const narrow = { data: out("e4m3fn", m, n / 2), scales: scales(n / 2) };
  fp8GemmNt(device, { a, b, d: narrow, epilogue: { ...gate, useUe8m0: true } });
}

function skipHeadMid(device: Device): void {
  const [m, heads, k] = [7, 3, 140];
  const b = fp8(128, heads * 50, k);
  const d = out("bf16", m, heads * 61);
  fp8GemmNtSkipHeadMid(device, { a: fp8(1, m, k), b, d, headSplits: [33, 11, 17] });
}

function casts(dtype: DType): (device: Device) => void {
  return (device) => {
    const x = withRowGaps(randomTensor(random, [11, 301], dtype), 3);
    const token = perTokenCastToFp8(device, { x, granK: 64, useUe8m0: true });
    castBackFromFp8(device, { x: token, granM: 1, granK: 64, out: out(dtype, 11, 301) });
    castBackFromFp8(device, { x: perBlockCastToFp8(device, { x }), granM: 128 });
    perChannelCastToFp8(device, { x, granM: 4 });
    kGroupedCastToFp8(device, { x, ks: [5, 0, 6], layout: "nt", granK: 4 });
    kGroupedCastToFp8(device, { x, ks: [5, 0, 6], layout: "tn", granK: 4 });
    const even = withRowGaps(randomTensor(random, [12, 302], dtype), 3);
    const narrow = perTokenCastToFp4(device, { x: even, granK: 32 });
    castBackFromFp4(device, { x: narrow, granK: 32, out: out(dtype, 12, 302) });
    transposePackedFp4(device, narrow.data);
    // More groups than are done at once.
    const long = withRowGaps(randomTensor(random, [3, 2214], dtype), 1);
    perTokenCastToFp8(device, { x: long });
    perTokenCastToFp8(device, { x: long, granK: 96 });
    perTokenCastToFp4(device, { x: long });
    perTokenCastToFp4(device, { x: long, granK: 32, useUe8m0: true });
  };
}

function packedScales(device: Device): void {
  const [m, n, k] = [5, 19, 700];
  const packed = ({ data, scales }: ScaledTensor): ScaledTensor => ({
    data,
    scales: packUe8m0ToInt(scales, { notPowerOfTwo: "ceil" }),
  });
  const [a, b] = [packed(fp8(1, m, k)), packed(fp8(1, n, k))];
  fp8GemmNt(device, { a, b, d: out("bf16", m, n) });
}

function megaMoe(device: Device): void {
  const [hidden, intermediateHidden, numExperts, numTopk] = [128, 128, 3, 2];
  const symBuffer = getSymmBufferForMegaMoe({
    numExperts,
    numMaxTokensPerRank: 4,
    numTopk,
    hidden,
    intermediateHidden,
  });
  symBuffer.topkIdx.raw().set([0n, 2n, -1n, -1n, 2n, 0n, 1n, -1n]);
  const l1Weights = randomScaled(
    random,
    [numExperts, 2 * intermediateHidden, hidden],
    1,
    32,
    "e2m1",
  );
  const l2Weights = randomScaled(random, [numExperts, hidden, intermediateHidden], 1, 32, "e2m1");
  const y = withRowGaps(out("bf16", 3, hidden), 1);
  fp8Fp4MegaMoe(device, { y, l1Weights, l2Weights, symBuffer, activationClamp: 3 });
  const plain = getSymmBufferForMegaMoe({
    ...symBuffer.options,
    hidden: 37,
    intermediateHidden: 21,
    mmaType: "bf16xbf16",
  });
  plain.topkIdx.raw().set([0n, 2n, -1n, -1n, 2n, 0n, 1n, -1n]);
  const [l1, l2] = [bf16(numExperts, 42, 37), bf16(numExperts, 37, 21)];
  const wide = out("bf16", 4, 37);
  bf16MegaMoe(device, { y: wide, l1Weights: l1, l2Weights: l2, symBuffer: plain });
}

function splitK(device: Device): void {
  for (const dtype of ["f32", "bf16", "f16", "e4m3fn"] as const) {
    const [m, n, k] = [3, 21, 1100];
    const [a, b, c] = [bf16(m, k), bf16(n, k), randomTensor(random, [m, n], dtype)];
    bf16GemmNt(device, { a, b, c, d: withRowGaps(out(dtype, m, n), 3), splitK: true });
  }
}

function hcPrenorm(device: Device): void {
  const [m, n, k] = [13, 24, 328];
  const [a, b] = [bf16(m, k), randomTensor(random, [n, k], "f32")];
  tf32HcPrenormGemm(device, { a, b, d: out("f32", m, n), sqrSum: out("f32", m) });
  const split = { d: out("f32", 3, m, n), sqrSum: out("f32", 3, m), numSplits: 3 };
  tf32HcPrenormGemm(device, { a, b, ...split });
}

function logits(type: "e4m3fn" | "e2m1"): (device: Device) => void {
  return (device) => {
    for (const [tokens, n, heads, dim] of [
      [5, 67, 3, 96],
      [9, 130, 16, 32],
      [2, 40, 50, 72],
    ] as const) {
      const q = randomCodes(random, [tokens, heads, dim], type);
      const kv = randomKeys(random, [n, dim], type);
      const weights = randomTensor(random, [tokens, heads], "f32");
      const starts = i32(...Array.from({ length: tokens }, (_, t) => t * 3));
      const ends = i32(...Array.from({ length: tokens }, (_, t) => (t === 2 ? 6 : n - t)));
      const windows = { cuSeqLenKStart: starts, cuSeqLenKEnd: ends };
      fp8MqaLogits(device, { q, kv, weights, ...windows });
      fp8MqaLogits(device, { q, kv, weights, ...windows, cleanLogits: false, maxSeqlenK: n });
    }
  };
}

function pagedLogits(type: "e4m3fn" | "e2m1"): (device: Device) => void {
  return (device) => {
    const [next, heads, dim, lengths] = [3, 5, 32, [70, 1, 5]];
    const keys = lengths.map((n) => randomKeys(random, [n, dim], type));
    const { cache, table } = pagesOf(random, keys, 16);
    const q = randomCodes(random, [lengths.length, next, heads, dim], type);
    const context = lengths.flatMap((n) =>
      Array.from({ length: next }, (_, t) => Math.max(0, n - t)),
    );
    fp8PagedMqaLogits(device, {
      q,
      kvCache: cache,
      weights: randomTensor(random, [lengths.length * next, heads], "f32"),
      contextLens: Tensor.from(context, [lengths.length, next], "i32"),
      blockTable: table,
      maxContextLen: 71,
      cleanLogits: true,
    });
    const rows = { q: randomCodes(random, [3, 1, heads, dim], type), kvCache: cache };
    fp8PagedMqaLogits(device, {
      ...rows,
      weights: randomTensor(random, [3, heads], "f32"),
      contextLens: Tensor.from([70, 69, 5], [3, 1], "i32"),
      blockTable: Tensor.from(
        [0, 0, 2].flatMap((b) => [...(table.select(0, b).raw() as Int32Array)]),
        [3, table.dim(1)],
        "i32",
      ),
      indices: i32(7, 7, 2),
      maxContextLen: 71,
    });
  };
}

/** Calls by name; each makes its own tensors. */
export const kernelCases: Readonly<Record<string, (device: Device) => void>> = {
  "bf16 × bf16 → bf16": dense("bf16", "bf16", "bf16"),
  "fp8 × fp8 → bf16": dense("fp8", "fp8", "bf16"),
  "bf16 × fp8 → f32": dense("bf16", "fp8", "f32"),
  "f32 × f32 → f32": dense("f32", "f32", "f32"),
  "f16 × f16 → f16": dense("f16", "f16", "f16"),
  "transposed bf16": turnings,
  "transposed fp8": turningsFp8,
  fp4,
  grouped,
  masked,
  "groups along K": kGrouped,
  einsum: einsums,
  epilogues,
  "skip head mid": skipHeadMid,
  "casts of f32": casts("f32"),
  "casts of bf16": casts("bf16"),
  "packed scales": packedScales,
  "split along K": splitK,
  "mega moe": megaMoe,
  "hc prenorm": hcPrenorm,
  "mqa logits fp8": logits("e4m3fn"),
  "mqa logits fp4": logits("e2m1"),
  "paged mqa logits fp8": pagedLogits("e4m3fn"),
  "paged mqa logits fp4": pagedLogits("e2m1"),
};
