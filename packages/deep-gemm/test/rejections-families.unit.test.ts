// Wrong arguments of layouts, recipes, groups, einsums and epilogues: typed errors that name the
// argument, raised before anything is written. And what `supports` says. Needs no compiler.

import { createDevice } from "@open-infra/jit";
import { type DType, ShapeError, Tensor } from "@open-infra/tensor";
import { describe, expect, it } from "vitest";
import {
  ArgumentError,
  bf16GemmNn,
  bf16GemmNt,
  einsum,
  fp8Einsum,
  fp8GemmNn,
  fp8GemmNt,
  fp8GemmNtSkipHeadMid,
  kGroupedBf16GemmTnContiguous,
  kGroupedFp8GemmNtContiguous,
  kGroupedFp8GemmTnContiguous,
  mGroupedBf16GemmNtContiguous,
  type ScaledTensor,
  supports,
} from "../src/index.ts";

const device = createDevice({ backend: "reference" });
const t = (shape: number[], dtype: DType = "bf16"): Tensor => Tensor.empty(shape, dtype);
const scaled = (shape: number[], scales: number[]): ScaledTensor => ({
  data: t(shape, "e4m3fn"),
  scales: t(scales, "f32"),
});
const i32 = (values: number[]): Tensor => Tensor.from(values, [values.length], "i32");

const cases: readonly [string, () => void, new (...a: never[]) => Error, RegExp][] = [
  [
    "e2m1 across K",
    () =>
      fp8GemmNn(device, {
        a: scaled([2, 64], [2, 2]),
        b: { data: t([64, 4], "e2m1"), scales: t([2, 4], "f32") },
        d: t([2, 4]),
        recipeA: [1, 32],
        recipeB: [1, 32],
      }),
    ShapeError,
    /fp8GemmNn: b\.data is strides.*transposePackedFp4/,
  ],
  [
    "shapes of turned operands, as they were given",
    () => bf16GemmNn(device, { a: t([2, 8]), b: t([9, 3]), d: t([2, 3]) }),
    ShapeError,
    /bf16GemmNn: b is \[9,3\]; expected \[K=8, N\]/,
  ],
  [
    "scales of turned operands, as they were given",
    () =>
      fp8GemmNn(device, {
        a: scaled([2, 200], [2, 2]),
        b: scaled([200, 300], [3, 2]),
        d: t([2, 300]),
      }),
    ShapeError,
    /fp8GemmNn: b\.scales is \[3,2\]; expected \[2, 3\]/,
  ],
  [
    "recipe beside recipeA",
    () =>
      fp8GemmNt(device, {
        a: scaled([2, 8], [2, 1]),
        b: scaled([3, 8], [1, 1]),
        d: t([2, 3]),
        recipe: [1, 128, 128],
        recipeA: [1, 128],
      }),
    ArgumentError,
    /recipe is recipe and recipeA; expected recipe alone, or recipeA and recipeB/,
  ],
  [
    "recipeA alone",
    () =>
      fp8GemmNt(device, {
        a: scaled([2, 8], [2, 1]),
        b: scaled([3, 8], [1, 1]),
        d: t([2, 3]),
        recipeA: [1, 128],
      }),
    ArgumentError,
    /recipe is recipeA/,
  ],
  [
    "recipe along K",
    () =>
      fp8GemmNt(device, {
        a: scaled([2, 8], [2, 1]),
        b: scaled([3, 8], [1, 1]),
        d: t([2, 3]),
        recipe: [1, 1, 48],
      }),
    ArgumentError,
    /a's recipe is 48 along K; expected a multiple of 32/,
  ],
  [
    "scales of another recipe",
    () =>
      fp8GemmNt(device, {
        a: scaled([2, 8], [2, 1]),
        b: scaled([300, 8], [3, 1]),
        d: t([2, 300]),
        recipe: [1, 1, 128],
      }),
    ShapeError,
    /b\.scales is \[3,1\]; expected \[300, 1\]/,
  ],
  [
    "psum end before its start",
    () =>
      mGroupedBf16GemmNtContiguous(device, {
        a: t([300, 8]),
        b: t([2, 3, 8]),
        d: t([300, 3]),
        groupedLayout: i32([100, 120]),
        usePsumLayout: true,
      }),
    ArgumentError,
    /groupedLayout\[1\] is 120; expected the group's end, 128 to M=300/,
  ],
  [
    "psum end beyond M",
    () =>
      mGroupedBf16GemmNtContiguous(device, {
        a: t([30, 8]),
        b: t([2, 3, 8]),
        d: t([30, 3]),
        groupedLayout: i32([10, 31]),
        usePsumLayout: true,
        alignment: 10,
      }),
    ArgumentError,
    /groupedLayout\[1\] is 31/,
  ],
  [
    "alignment",
    () =>
      mGroupedBf16GemmNtContiguous(device, {
        a: t([30, 8]),
        b: t([2, 3, 8]),
        d: t([30, 3]),
        groupedLayout: i32([10, 20]),
        usePsumLayout: true,
        alignment: 0,
      }),
    ArgumentError,
    /alignment is 0/,
  ],
  [
    "sizes that miss K",
    () =>
      kGroupedBf16GemmTnContiguous(device, {
        a: t([10, 2]),
        b: t([10, 3]),
        d: t([2, 2, 3], "f32"),
        ks: [4, 5],
      }),
    ArgumentError,
    /ks is 4,5 \(9\); expected sizes that add up to K=10/,
  ],
  [
    "a negative size",
    () =>
      kGroupedBf16GemmTnContiguous(device, {
        a: t([10, 2]),
        b: t([10, 3]),
        d: t([2, 2, 3], "f32"),
        ks: i32([-1, 11]),
      }),
    ArgumentError,
    /ks\[0\] is -1/,
  ],
  [
    "no sizes",
    () => kGroupedBf16GemmTnContiguous(device, { a: t([4, 2]), b: t([4, 3]), d: t([1, 2, 3]) }),
    ArgumentError,
    /ks is missing/,
  ],
  [
    "as many sizes as matrices",
    () =>
      kGroupedBf16GemmTnContiguous(device, {
        a: t([4, 2]),
        b: t([4, 3]),
        d: t([3, 2, 3]),
        ks: [2, 2],
      }),
    ShapeError,
    /ks is \[2\]; expected \[3\]/,
  ],
  [
    "flat length",
    () =>
      kGroupedFp8GemmNtContiguous(device, {
        a: scaled([7], [2, 1]),
        b: scaled([12], [3, 1]),
        d: t([1, 2, 3], "f32"),
        ks: [4],
      }),
    ShapeError,
    /a\.data is \[7\]; expected \[8\]/,
  ],
  [
    "k-grouped scales",
    () =>
      kGroupedFp8GemmTnContiguous(device, {
        a: scaled([260, 2], [2, 2]),
        b: scaled([260, 3], [3, 3]),
        d: t([2, 2, 3], "f32"),
        ks: [130, 130],
      }),
    ShapeError,
    /a\.scales is \[2,2\]; expected \[4, 2\]/,
  ],
  [
    "einsum by letters",
    () => einsum(device, "bhd,hdr->bhr", { a: t([2, 3, 4]), b: t([3, 5, 6]), d: t([2, 3, 6]) }),
    ShapeError,
    /einsum: b is \[3,5,6\]; expected \[H=3, D=4, R\]/,
  ],
  [
    "fp8Einsum of a sum",
    () =>
      fp8Einsum(device, "bmk,bnk->mn", {
        a: scaled([1, 2, 8], [1, 2, 1]),
        b: scaled([1, 3, 8], [1, 1, 1]),
        d: t([2, 3]),
      }),
    ArgumentError,
    /fp8Einsum: expression is 'bmk,bnk->mn'/,
  ],
  [
    "head splits",
    () =>
      fp8GemmNtSkipHeadMid(device, {
        a: scaled([2, 8], [2, 1]),
        b: scaled([10, 8], [1, 1]),
        d: t([2, 14]),
        headSplits: [2, 1, 2.5],
      }),
    ArgumentError,
    /headSplits is \[2, 1, 2.5\].*dividing N=10/,
  ],
  [
    "columns of a result with gaps",
    () =>
      fp8GemmNtSkipHeadMid(device, {
        a: scaled([2, 8], [2, 1]),
        b: scaled([10, 8], [1, 1]),
        d: t([2, 10]),
        headSplits: [3, 1, 2],
      }),
    ShapeError,
    /d is \[2,10\]; expected \[M=2, 12\]/,
  ],
  [
    "bias",
    () =>
      bf16GemmNt(device, {
        a: t([2, 8]),
        b: t([3, 8]),
        d: t([2, 3]),
        epilogue: { bias: t([4], "f32") },
      }),
    ShapeError,
    /epilogue\.bias is \[4\]; expected \[3\]/,
  ],
  [
    "c of a gated product",
    () =>
      bf16GemmNt(device, {
        a: t([2, 8]),
        b: t([4, 8]),
        d: t([2, 2]),
        c: t([2, 2]),
        epilogue: { activation: "swiglu" },
      }),
    ArgumentError,
    /c is given with an activation/,
  ],
  [
    "swiglu of an odd N",
    () =>
      bf16GemmNt(device, {
        a: t([2, 8]),
        b: t([5, 8]),
        d: t([2, 2]),
        epilogue: { activation: "swiglu" },
      }),
    ArgumentError,
    /swiglu of N=5; expected an even N/,
  ],
  [
    "clamp without activation",
    () =>
      bf16GemmNt(device, {
        a: t([2, 8]),
        b: t([4, 8]),
        d: t([2, 4]),
        epilogue: { activationClamp: 2 },
      }),
    ArgumentError,
    /activationClamp is 2 without an activation/,
  ],
  [
    "alpha",
    () =>
      bf16GemmNt(device, {
        a: t([2, 8]),
        b: t([4, 8]),
        d: t([2, 4]),
        epilogue: { alpha: Number.NaN },
      }),
    ArgumentError,
    /epilogue\.alpha is NaN/,
  ],
  [
    "scales of a requantised result",
    () => bf16GemmNt(device, { a: t([2, 8]), b: t([200, 8]), d: scaled([2, 200], [2, 1]) }),
    ShapeError,
    /d\.scales is \[2,1\]; expected \[2, 2\]/,
  ],
  [
    "threads",
    () => bf16GemmNt(device, { a: t([2, 8]), b: t([4, 8]), d: t([2, 4]), threads: 0 }),
    ArgumentError,
    /threads is 0/,
  ],
];

describe("rejections", () => {
  it.each(cases)("%s", (_name, call, type, message) => {
    expect(call).toThrow(type);
    expect(call).toThrow(message);
  });
});

describe("supports", () => {
  const spec = (shape: number[], dtype: DType = "bf16"): { shape: number[]; dtype: DType } => ({
    shape,
    dtype,
  });
  // More memory than there is: nothing is allocated.
  const a = spec([1 << 20, 1 << 16]);
  const b = spec([1 << 20, 1 << 16]);

  it("is true for shapes that run", () => {
    const d = spec([1 << 20, 1 << 20], "f32");
    for (const backend of ["cpu", "reference", device] as const) {
      expect(supports(bf16GemmNt, { a, b, d }, backend)).toBe(true);
    }
    const layout = { groupedLayout: spec([2], "i32"), usePsumLayout: true };
    const grouped = { a: spec([64, 32]), b: spec([2, 8, 32]), d: spec([64, 8]), ...layout };
    expect(supports(mGroupedBf16GemmNtContiguous, grouped, "cpu")).toBe(true);
    const codes = { data: spec([4, 256], "e4m3fn"), scales: spec([4, 2], "f32") };
    const product = { a: codes, b: codes, d: spec([4, 4], "f32"), recipe: [1, 1, 128] as const };
    expect(supports(fp8GemmNt, product, "cpu")).toBe(true);
  });

  it("says why not", () => {
    const d = spec([1 << 20, 1 << 20], "f32");
    expect(supports(bf16GemmNt, { a, b, d }, "webgpu")).toBe("no webgpu kernel for bf16GemmNt");
    expect(supports(bf16GemmNt, { a, b, d }, "cuda")).toBe("no cuda kernel for bf16GemmNt");
    const wrong = supports(bf16GemmNt, { a, b: spec([8, 9]), d }, "cpu");
    expect(wrong).toMatch(/bf16GemmNt: b is \[8,9\]; expected \[N=8, K=65536\]/);
    const apart = { shape: [4, 8], strides: [16, 2], dtype: "bf16" } as const;
    const strided = supports(bf16GemmNt, { a: apart, b: spec([3, 8]), d: spec([4, 3]) }, "cpu");
    expect(strided).toMatch(/a is strides \[16,2\]/);
  });

  it("passes other errors on", () => {
    const broken = (): never => {
      throw new TypeError("not ours");
    };
    expect(() => supports(broken, {}, "cpu")).toThrow(TypeError);
  });
});
