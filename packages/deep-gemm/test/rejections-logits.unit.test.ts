// Wrong arguments of logits, prenorm and casts: each is a typed error that names the operation and
// the argument, raised before anything is written. Needs no compiler.

import { createDevice } from "@open-infra/jit";
import { type DType, DTypeError, InfraError, ShapeError, Tensor } from "@open-infra/tensor";
import { describe, expect, it } from "vitest";
import {
  ArgumentError,
  castBackFromFp4,
  fp8MqaLogits,
  fp8PagedMqaLogits,
  getPagedMqaLogitsMetadata,
  kGroupedCastToFp8,
  packFp4,
  perChannelCastToFp8,
  perCustomDimsCastToFp8,
  perTokenCastToFp4,
  perTokenCastToFp8,
  supports,
  tf32HcPrenormGemm,
  transposePackedFp4,
  unpackFp4,
  unpackUe8m0FromInt,
} from "../src/index.ts";

const device = createDevice({ backend: "reference" });
const t = (shape: number[], dtype: DType = "f32"): Tensor => Tensor.empty(shape, dtype);
const i32 = (values: number[], shape = [values.length]): Tensor =>
  Tensor.from(values, shape, "i32");

const rows = {
  q: t([2, 4, 32], "e4m3fn"),
  kv: { data: t([9, 32], "e4m3fn"), scales: t([9]) },
  weights: t([2, 4]),
  cuSeqLenKStart: i32([0, 0]),
  cuSeqLenKEnd: i32([9, 5]),
};
const pages = {
  q: t([2, 1, 4, 32], "e4m3fn"),
  kvCache: t([3, 16, 1, 36], "u8"),
  weights: t([2, 4]),
  contextLens: i32([20, 3], [2, 1]),
  blockTable: i32([0, 2, 1, 2147480000], [2, 2]),
  maxContextLen: 32,
};
const hc = { a: t([3, 64], "bf16"), b: t([8, 64]), d: t([3, 8]), sqrSum: t([3]) };
const logits = (args: object) => (): unknown => fp8MqaLogits(device, { ...rows, ...args });
const paged = (args: object) => (): unknown => fp8PagedMqaLogits(device, { ...pages, ...args });
const prenorm = (args: object) => (): void => tf32HcPrenormGemm(device, { ...hc, ...args });

const cases: readonly [string, () => unknown, new (...a: never[]) => Error, RegExp][] = [
  ["q dtype", logits({ q: t([2, 4, 32], "bf16") }), DTypeError, /q has dtype bf16.*e4m3fn/],
  ["q rank", logits({ q: t([2, 32], "e4m3fn") }), ShapeError, /q is \[2,32\].*\[S, H, D\]/],
  ["channels differ", logits({ q: t([2, 4, 64], "e4m3fn") }), ShapeError, /kv\.data.*D=64/],
  [
    "kv scales",
    logits({ kv: { data: t([9, 32], "e4m3fn"), scales: t([8]) } }),
    ShapeError,
    /kv\.scales is \[8\].*N=9/,
  ],
  [
    "FP4 keys with float scales",
    logits({ kv: { data: t([9, 32], "e2m1"), scales: t([9]) } }),
    DTypeError,
    /kv\.scales has dtype f32.*i32/,
  ],
  [
    "FP4 of more channels than scales",
    logits({
      q: { data: t([2, 4, 160], "e2m1"), scales: t([2, 4], "i32") },
      kv: { data: t([9, 160], "e2m1"), scales: t([9], "i32") },
    }),
    ShapeError,
    /up to 128/,
  ],
  ["weights", logits({ weights: t([2, 5]) }), ShapeError, /weights is \[2,5\].*H=4/],
  ["starts", logits({ cuSeqLenKStart: i32([0]) }), ShapeError, /cuSeqLenKStart is \[1\]/],
  ["maxSeqlenK", logits({ maxSeqlenK: -1 }), ArgumentError, /maxSeqlenK is -1/],
  [
    "window wider than maxSeqlenK",
    logits({ maxSeqlenK: 6 }),
    ArgumentError,
    /window 0 is 9 columns wide.*at most 6/,
  ],
  ["out shape", logits({ out: t([2, 8]) }), ShapeError, /out is \[2,8\]/],
  ["out dtype", logits({ out: t([2, 9], "f16") }), DTypeError, /out has dtype f16/],
  ["page bytes", paged({ kvCache: t([3, 16, 1, 32], "u8") }), ShapeError, /kvCache.*36/],
  [
    "context too long",
    paged({ maxContextLen: 19 }),
    ArgumentError,
    /contextLens\[0\] is 20.*0 to 19/,
  ],
  [
    "context beyond the table",
    paged({ contextLens: i32([33, 3], [2, 1]), maxContextLen: 99 }),
    ArgumentError,
    /contextLens\[0\] is 33.*0 to 32/,
  ],
  ["negative context", paged({ contextLens: i32([-1, 3], [2, 1]) }), ArgumentError, /contextLens/],
  [
    "page that is not there",
    paged({ blockTable: i32([0, 3, 1, 0], [2, 2]) }),
    ArgumentError,
    /blockTable\[0, 1\] is 3.*0 to 2/,
  ],
  ["context of one dimension", paged({ contextLens: i32([20, 3]) }), ShapeError, /contextLens/],
  ["indices", paged({ indices: i32([0, 0, 1]) }), ShapeError, /indices is \[3\].*\[2\]/],
  [
    "indices and several tokens a row",
    paged({
      q: t([1, 2, 4, 32], "e4m3fn"),
      contextLens: i32([20, 3], [1, 2]),
      blockTable: i32([0, 2], [1, 2]),
      indices: i32([0]),
    }),
    ShapeError,
    /contextLens is \[1,2\] with indices/,
  ],
  [
    "tokens of one sequence in different pages",
    paged({ indices: i32([4, 4]) }),
    ArgumentError,
    /blockTable\[1, 0\] is 1; expected 0, as in row 0/,
  ],
  [
    "schedule of other lengths",
    paged({
      scheduleMeta: getPagedMqaLogitsMetadata({
        contextLens: i32([20, 600], [2, 1]),
        blockKv: 16,
        numSms: 2,
      }),
    }),
    ArgumentError,
    /scheduleMeta is .* by these contextLens/,
  ],
  [
    "metadata of negative lengths",
    () => getPagedMqaLogitsMetadata({ contextLens: i32([-2], [1, 1]), blockKv: 64, numSms: 2 }),
    ArgumentError,
    /contextLens\[0\] is -2/,
  ],
  [
    "metadata for no SMs",
    () => getPagedMqaLogitsMetadata({ contextLens: i32([2], [1, 1]), blockKv: 64, numSms: 0 }),
    ArgumentError,
    /numSms is 0/,
  ],
  ["prenorm b", prenorm({ b: t([8, 64], "bf16") }), DTypeError, /b has dtype bf16/],
  ["prenorm K", prenorm({ b: t([8, 65]) }), ShapeError, /b is \[8,65\].*K=64/],
  ["prenorm splits", prenorm({ numSplits: 2 }), ShapeError, /d is \[3,8\].*2/],
  ["prenorm split count", prenorm({ numSplits: 0 }), ArgumentError, /numSplits is 0/],
  [
    "prenorm aliasing",
    prenorm({ d: hc.b.slice(0, 0, 3).slice(1, 0, 8) }),
    ShapeError,
    /d is a view/,
  ],
  [
    "odd FP4 columns",
    () => perTokenCastToFp4(device, { x: t([2, 7]) }),
    ShapeError,
    /x is \[2,7\].*even/,
  ],
  [
    "odd granK",
    () => perTokenCastToFp4(device, { x: t([2, 8]), granK: 3 }),
    ArgumentError,
    /granK is 3/,
  ],
  [
    "packed without powers of two",
    () => perTokenCastToFp4(device, { x: t([2, 8]), usePackedUe8m0: true }),
    ArgumentError,
    /usePackedUe8m0/,
  ],
  [
    "packed FP8 without powers of two",
    () => perTokenCastToFp8(device, { x: t([2, 8]), usePackedUe8m0: true }),
    ArgumentError,
    /usePackedUe8m0/,
  ],
  [
    "FP4 back of e4m3",
    () => castBackFromFp4(device, { x: { data: t([2, 8], "e4m3fn"), scales: t([2, 1]) } }),
    DTypeError,
    /x\.data has dtype e4m3fn/,
  ],
  ["turning odd sizes", () => transposePackedFp4(device, t([3, 4], "e2m1")), ShapeError, /even/],
  [
    "codes above 15",
    () => packFp4(Tensor.from([1, 16], [2], "u8")),
    ArgumentError,
    /codes\[1\] is 16/,
  ],
  ["unpacking bytes", () => unpackFp4(t([2], "u8")), DTypeError, /u8/],
  ["too many groups", () => unpackUe8m0FromInt(t([2, 1], "i32"), 5), ArgumentError, /groups is 5/],
  [
    "granM",
    () => perChannelCastToFp8(device, { x: t([2, 8]), granM: 0 }),
    ArgumentError,
    /granM is 0/,
  ],
  [
    "ks that miss rows",
    () => kGroupedCastToFp8(device, { x: t([9, 4]), ks: [4, 4], layout: "tn" }),
    ArgumentError,
    /ks is \[4,4\].*9 rows/,
  ],
  [
    "a dimension twice",
    () => perCustomDimsCastToFp8(device, { x: t([2, 8]), dims: [1, -1] }),
    ArgumentError,
    /each dimension once/,
  ],
  [
    "a dimension beyond",
    () => perCustomDimsCastToFp8(device, { x: t([2, 8]), dims: [2] }),
    ArgumentError,
    /dims is \[2\]/,
  ],
];

describe("rejections", () => {
  it.each(cases)("%s", (_, call, type, message) => {
    let error: unknown;
    try {
      call();
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(type);
    expect(error).toBeInstanceOf(InfraError);
    expect((error as Error).message).toMatch(message);
  });

  it("what they refuse is fine otherwise", () => {
    expect(logits({})).not.toThrow();
    expect(paged({})).not.toThrow();
    expect(prenorm({})).not.toThrow();
  });

  it("supports() answers without memory", () => {
    const shapes = {
      q: { dtype: "e4m3fn", shape: [2, 4, 32] },
      kv: {
        data: { dtype: "e4m3fn", shape: [9, 32] },
        scales: { dtype: "f32", shape: [9] },
      },
      weights: { dtype: "f32", shape: [2, 4] },
      cuSeqLenKStart: { dtype: "i32", shape: [2] },
      cuSeqLenKEnd: { dtype: "i32", shape: [2] },
    } as const;
    expect(supports(fp8MqaLogits, shapes, "cpu")).toBe(true);
    expect(supports(fp8MqaLogits, shapes, "cuda")).toMatch(/no cuda kernel for fp8MqaLogits/);
  });
});

describe("getPagedMqaLogitsMetadata", () => {
  it("shares every split once, in order, evenly, and ends with (B, 0)", () => {
    for (const lens of [[0], [1, 256, 257], [0, 0, 1000, 0, 5000, 3], [100000, 1, 1, 1]]) {
      for (const numSms of [1, 2, 7, 132]) {
        const contextLens = i32(lens, [lens.length, 1]);
        const meta = getPagedMqaLogitsMetadata({ contextLens, blockKv: 64, numSms });
        expect(meta.shape).toEqual([numSms + 1, 2]);
        const splits = lens.map((n) => Math.ceil(n / 256));
        const before = splits.map((_, b) => splits.slice(0, b).reduce((x, y) => x + y, 0));
        const total = splits.reduce((x, y) => x + y, 0);
        const values = [...(meta.raw() as Int32Array)];
        const starts = Array.from({ length: numSms + 1 }, (_, i) => {
          const [b, split] = [values[2 * i] as number, values[2 * i + 1] as number];
          if (b < lens.length) expect(split).toBeLessThan(splits[b] as number);
          return (before[b] ?? total) + split;
        });
        expect(values.slice(-2)).toEqual([lens.length, 0]);
        const sizes = starts.slice(1).map((end, i) => end - (starts[i] as number));
        expect(starts[0]).toBe(0);
        expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
        expect(sizes.toSorted((x, y) => y - x)).toEqual(sizes);
      }
    }
  });
});
