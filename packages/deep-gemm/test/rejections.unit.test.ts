// Wrong arguments: each is a typed error that names the operation and the argument, raised before
// anything is written. Needs no compiler.

import { createDevice } from "@open-infra/jit";
import { type DType, DTypeError, ShapeError, Tensor } from "@open-infra/tensor";
import { describe, expect, it } from "vitest";
import {
  ArgumentError,
  bf16GemmNt,
  castBackFromFp8,
  einsum,
  fp8GemmNt,
  gemmNt,
  gemmNtBatched,
  gemmNtGrouped,
  gemmOperation,
  mGroupedBf16GemmNtContiguous,
  mGroupedBf16GemmNtMasked,
  perTokenCastToFp8,
  type ScaledTensor,
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
    "K differs",
    () => gemmNt(device, { a: t([2, 8]), b: t([3, 9]), d: t([2, 3]) }),
    ShapeError,
    /gemmNt: b .*\[3,9\].*K=8/,
  ],
  [
    "rank",
    () => gemmNt(device, { a: t([2, 8, 1]), b: t([3, 8]), d: t([2, 3]) }),
    ShapeError,
    /a is \[2,8,1\]/,
  ],
  [
    "d shape",
    () => gemmNt(device, { a: t([2, 8]), b: t([3, 8]), d: t([3, 3]) }),
    ShapeError,
    /d is \[3,3\].*M=2/,
  ],
  [
    "d dtype",
    () => gemmNt(device, { a: t([2, 8]), b: t([3, 8]), d: t([2, 3], "i32") }),
    DTypeError,
    /d has dtype i32/,
  ],
  [
    "a dtype",
    () => gemmNt(device, { a: t([2, 8], "i32"), b: t([3, 8]), d: t([2, 3]) }),
    DTypeError,
    /a has dtype i32.*f32, bf16 or f16/,
  ],
  [
    "e4m3 without scales",
    () => gemmNt(device, { a: t([2, 8]), b: t([3, 8], "e4m3fn"), d: t([2, 3]) }),
    DTypeError,
    /b has dtype e4m3fn.*scales/,
  ],
  [
    "scaled bf16",
    () =>
      gemmNt(device, {
        a: { data: t([2, 8]), scales: t([2, 1], "f32") },
        b: t([3, 8]),
        d: t([2, 3]),
      }),
    DTypeError,
    /a\.data has dtype bf16/,
  ],
  [
    "a.scales shape",
    () =>
      fp8GemmNt(device, { a: scaled([2, 200], [2, 1]), b: scaled([3, 200], [1, 2]), d: t([2, 3]) }),
    ShapeError,
    /a\.scales is \[2,1\].*\[2, 2\]/,
  ],
  [
    "b.scales shape",
    () =>
      fp8GemmNt(device, {
        a: scaled([2, 200], [2, 2]),
        b: scaled([300, 200], [2, 2]),
        d: t([2, 300]),
      }),
    ShapeError,
    /b\.scales is \[2,2\].*\[3, 2\]/,
  ],
  [
    "scales dtype",
    () =>
      fp8GemmNt(device, {
        a: { data: t([2, 8], "e4m3fn"), scales: t([2, 1], "u8") },
        b: scaled([3, 8], [1, 1]),
        d: t([2, 3]),
      }),
    DTypeError,
    /a\.scales has dtype u8/,
  ],
  [
    "c dtype",
    () => gemmNt(device, { a: t([2, 8]), b: t([3, 8]), d: t([2, 3]), c: t([2, 3], "f32") }),
    DTypeError,
    /c has dtype f32.*bf16, as d/,
  ],
  [
    "neither K nor rows adjacent",
    () => gemmNt(device, { a: t([2, 8, 3]).select(2, 0), b: t([3, 8]), d: t([2, 3]) }),
    ShapeError,
    /a is strides \[24,3\].*stride 1 along K or along the rows/,
  ],
  [
    "columns of d apart",
    () => gemmNt(device, { a: t([2, 8]), b: t([3, 8]), d: t([3, 2]).transpose(0, 1) }),
    ShapeError,
    /d is strides/,
  ],
  [
    "bf16GemmNt of f32",
    () => bf16GemmNt(device, { a: t([2, 8], "f32"), b: t([3, 8]), d: t([2, 3]) }),
    DTypeError,
    /bf16GemmNt: a has dtype f32/,
  ],
  [
    "bf16GemmNt into i32",
    () => bf16GemmNt(device, { a: t([2, 8]), b: t([3, 8]), d: t([2, 3], "i32") }),
    DTypeError,
    /d has dtype i32.*f32 or bf16 or f16 or e4m3fn/,
  ],
  [
    "fp8GemmNt of bf16",
    () => fp8GemmNt(device, { a: t([2, 8]) as never, b: scaled([3, 8], [1, 1]), d: t([2, 3]) }),
    DTypeError,
    /fp8GemmNt: a has dtype bf16/,
  ],
  [
    "offsets length",
    () =>
      gemmNtGrouped(device, { a: t([4, 8]), b: t([2, 3, 8]), d: t([4, 3]), offsets: i32([0, 4]) }),
    ShapeError,
    /offsets is \[2\]; expected \[3\]/,
  ],
  [
    "offsets fall",
    () =>
      gemmNtGrouped(device, {
        a: t([4, 8]),
        b: t([2, 3, 8]),
        d: t([4, 3]),
        offsets: i32([0, 3, 2]),
      }),
    ArgumentError,
    /offsets\[2\] is 2.*3 to M=4/,
  ],
  [
    "offsets beyond M",
    () =>
      gemmNtGrouped(device, {
        a: t([4, 8]),
        b: t([2, 3, 8]),
        d: t([4, 3]),
        offsets: i32([0, 3, 5]),
      }),
    ArgumentError,
    /offsets\[2\] is 5/,
  ],
  [
    "offsets negative",
    () =>
      gemmNtGrouped(device, {
        a: t([4, 8]),
        b: t([2, 3, 8]),
        d: t([4, 3]),
        offsets: i32([-1, 3, 4]),
      }),
    ArgumentError,
    /offsets\[0\] is -1/,
  ],
  [
    "offsets dtype",
    () =>
      gemmNtGrouped(device, {
        a: t([4, 8]),
        b: t([2, 3, 8]),
        d: t([4, 3]),
        offsets: t([3], "i64"),
      }),
    DTypeError,
    /offsets has dtype i64/,
  ],
  [
    "row id",
    () =>
      mGroupedBf16GemmNtContiguous(device, {
        a: t([2, 8]),
        b: t([2, 3, 8]),
        d: t([2, 3]),
        groupedLayout: i32([0, 2]),
      }),
    ArgumentError,
    /groupedLayout\[1\] is 2.*0 to 1/,
  ],
  [
    "row id below",
    () =>
      mGroupedBf16GemmNtContiguous(device, {
        a: t([2, 8]),
        b: t([2, 3, 8]),
        d: t([2, 3]),
        groupedLayout: i32([-2, 0]),
      }),
    ArgumentError,
    /groupedLayout\[0\] is -2/,
  ],
  [
    "maskedM",
    () =>
      mGroupedBf16GemmNtMasked(device, {
        a: t([2, 4, 8]),
        b: t([2, 3, 8]),
        d: t([2, 4, 3]),
        maskedM: i32([4, 5]),
      }),
    ArgumentError,
    /maskedM\[1\] is 5.*0 to M=4/,
  ],
  [
    "heads",
    () => gemmNtBatched(device, { a: t([2, 4, 8]), b: t([3, 3, 8]), d: t([2, 4, 3]) }),
    ShapeError,
    /b is \[3,3,8\].*H=4/,
  ],
  [
    "einsum",
    () => einsum(device, "ij,jk->ik", { a: t([2, 8]), b: t([3, 8]), d: t([2, 3]) }),
    ArgumentError,
    /einsum: expression is 'ij,jk->ik'/,
  ],
  [
    "cast of i32",
    () => perTokenCastToFp8(device, { x: t([2, 8], "i32") }),
    DTypeError,
    /perTokenCastToFp8: x has dtype i32/,
  ],
  ["cast of a vector", () => perTokenCastToFp8(device, { x: t([8]) }), ShapeError, /x is \[8\]/],
  [
    "granK",
    () => perTokenCastToFp8(device, { x: t([2, 8]), granK: 0 }),
    ArgumentError,
    /granK is 0/,
  ],
  [
    "out of the cast",
    () => perTokenCastToFp8(device, { x: t([2, 200]), out: scaled([2, 200], [2, 1]) }),
    ShapeError,
    /scales is \[2,1\].*\[2, 2\]/,
  ],
  [
    "cast back",
    () => castBackFromFp8(device, { x: scaled([2, 200], [2, 1]), granM: 1 }),
    ShapeError,
    /scales/,
  ],
];

describe("rejections", () => {
  it.each(cases)("%s", (_name, call, type, message) => {
    expect(call).toThrow(type);
    expect(call).toThrow(message);
  });

  it("a c that overlaps d elsewhere than exactly", () => {
    const buffer = t([40], "bf16");
    const at = (from: number): Tensor => buffer.slice(0, from, from + 6).reshape([2, 3]);
    const args = { a: t([2, 8]), b: t([3, 8]) };
    expect(() => gemmNt(device, { ...args, d: at(0), c: at(3) })).toThrow(
      /c is offset 3.*overlapping d/,
    );
    gemmNt(device, { ...args, d: at(0), c: at(6) });
    gemmNt(device, { ...args, d: at(0), c: at(0) });
  });

  it("leaves d alone when it refuses", () => {
    const d = Tensor.from([1, 2, 3, 4, 5, 6], [2, 3], "f32");
    expect(() => gemmNt(device, { a: t([2, 8]), b: t([3, 9]), d })).toThrow(ShapeError);
    expect([...d.toFloat32()]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("supports answers for a lowered call", () => {
    const call = {
      operation: "gemmNt",
      kind: "dense",
      a: t([2, 8]),
      b: t([3, 8]),
      d: t([2, 3]),
      c: null,
      index: null,
    } as const;
    expect(device.supports(gemmOperation("gemmNt"), call)).toBe(true);
  });
});
