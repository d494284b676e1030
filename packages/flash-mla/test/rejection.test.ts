// Bad arguments: a typed error that names the argument, before anything runs (G12).

import { type Device, ReferenceDevice } from "@open-infra/jit";
import { DTypeError, ShapeError, Tensor } from "@open-infra/tensor";
import { describe, expect, it } from "vitest";
import {
  ArgumentError,
  BlockTableError,
  flashAttnVarlenFunc,
  flashMlaVarlen,
  flashMlaWithKvcache,
  getMlaMetadata,
  StaleMetadataError,
} from "../src/index.ts";

const i32 = (values: number[], shape = [values.length]): Tensor =>
  Tensor.from(values, shape, "i32");

/** A device on which nothing may run. */
class Untouchable extends ReferenceDevice {
  override run(): void {
    throw new Error("launched");
  }
}
const device: Device = new ReferenceDevice();
const untouchable: Device = new Untouchable();

function decodeArgs() {
  return {
    q: Tensor.empty([2, 1, 4, 64], "bf16"),
    kCache: Tensor.empty([4, 16, 1, 64], "bf16"),
    blockTable: i32([0, 1, 2, 3], [2, 2]),
    cacheSeqlens: i32([5, 32]),
    headDimV: 48,
  };
}

describe("flashMlaWithKvcache rejects", () => {
  const cases: [string, object, new (...args: never[]) => Error, RegExp][] = [
    ["a dtype of q", { q: Tensor.empty([2, 1, 4, 64], "i32") }, DTypeError, /q has dtype i32/],
    ["a rank of q", { q: Tensor.empty([2, 4, 64], "bf16") }, ShapeError, /q is \[2,4,64\]/],
    [
      "q by columns",
      { q: Tensor.empty([2, 1, 64, 4], "bf16").transpose(2, 3) },
      ShapeError,
      /stride 1/,
    ],
    ["another d", { kCache: Tensor.empty([4, 16, 1, 32], "bf16") }, ShapeError, /kCache .*d=64/],
    ["a cache dtype", { kCache: Tensor.empty([4, 16, 1, 64], "e4m3fn") }, DTypeError, /e4m3fn/],
    [
      "an empty page",
      { kCache: Tensor.empty([4, 0, 1, 64], "bf16") },
      ShapeError,
      /page of at least/,
    ],
    [
      "h_q % h_k",
      { kCache: Tensor.empty([4, 16, 3, 64], "bf16") },
      ShapeError,
      /4 heads for 3 key/,
    ],
    ["headDimV 0", { headDimV: 0 }, ArgumentError, /headDimV is 0; expected an integer in 1..64/],
    ["headDimV above d", { headDimV: 65 }, ArgumentError, /headDimV is 65/],
    ["a fraction", { headDimV: 1.5 }, ArgumentError, /headDimV is 1.5/],
    ["a NaN scale", { softmaxScale: Number.NaN }, ArgumentError, /softmaxScale is NaN/],
    ["other lengths", { cacheSeqlens: i32([5]) }, ShapeError, /cacheSeqlens is \[1\]/],
    ["a negative length", { cacheSeqlens: i32([5, -1]) }, ArgumentError, /cacheSeqlens\[1\] is -1/],
    [
      "a length past the table",
      { cacheSeqlens: i32([5, 33]) },
      ArgumentError,
      /expected 0..32 \(2/,
    ],
    ["a table dtype", { blockTable: Tensor.empty([2, 2], "f32") }, DTypeError, /blockTable/],
    ["a table's rows", { blockTable: i32([0, 1], [1, 2]) }, ShapeError, /blockTable is \[1,2\]/],
    [
      "an output's shape",
      { out: Tensor.empty([2, 1, 4, 64], "bf16") },
      ShapeError,
      /out is .*headDimV=48/,
    ],
    ["an lse's shape", { lse: Tensor.empty([2, 1, 4], "f32") }, ShapeError, /lse is \[2,1,4\]/],
  ];
  it.each(cases)("%s", (_name, change, type, message) => {
    const call = (): unknown => flashMlaWithKvcache(untouchable, { ...decodeArgs(), ...change });
    expect(call).toThrow(type);
    expect(call).toThrow(message);
    expect(call).toThrow(/^flashMlaWithKvcache: /);
  });

  it.each([-1, 4, 2147480000])("block %i inside the used range, on every backend", (id) => {
    const args = { ...decodeArgs(), blockTable: i32([0, 1, 2, id], [2, 2]) };
    expect(() => flashMlaWithKvcache(device, args)).toThrow(BlockTableError);
    expect(() => flashMlaWithKvcache(device, args)).toThrow(
      `blockTable[1, 1] is ${id}; expected a block in 0..3`,
    );
    const unused = { ...args, cacheSeqlens: i32([5, 16]) };
    expect(() => flashMlaWithKvcache(device, unused)).not.toThrow();
  });

  it("stale metadata", () => {
    const schedMeta = getMlaMetadata();
    const args = { ...decodeArgs(), schedMeta };
    flashMlaWithKvcache(device, args);
    flashMlaWithKvcache(device, args);
    (args.cacheSeqlens.raw() as Int32Array)[0] = 6;
    expect(() => flashMlaWithKvcache(untouchable, args)).toThrow(StaleMetadataError);
    expect(() => flashMlaWithKvcache(untouchable, args)).toThrow(/request 0 = 5, this call has 6/);
    (args.cacheSeqlens.raw() as Int32Array)[0] = 5;
    expect(() => flashMlaWithKvcache(untouchable, { ...args, causal: true })).toThrow(
      StaleMetadataError,
    );
  });
});

describe("flashMlaVarlen rejects", () => {
  const args = {
    q: Tensor.empty([3, 4, 64], "f32"),
    kCache: Tensor.empty([4, 16, 1, 64], "f32"),
    blockTable: i32([0, 1], [2, 1]),
    cuSeqlensQ: i32([0, 1, 3]),
    contextLens: i32([5, 6]),
    headDimV: 64,
    out: Tensor.empty([3, 4, 64], "f32"),
  };
  it.each([
    ["sums that fall", { cuSeqlensQ: i32([0, 4, 3]) }, /cuSeqlensQ\[2\] is 3; expected at least 4/],
    ["a first sum", { cuSeqlensQ: i32([1, 2, 3]) }, /cuSeqlensQ\[0\] is 1/],
    ["a last sum", { cuSeqlensQ: i32([0, 1, 2]) }, /cuSeqlensQ\[2\] is 2; expected .*, 3/],
    ["no sums", { cuSeqlensQ: i32([]) }, /cuSeqlensQ is \[0\]/],
    ["contexts", { contextLens: i32([5, 6, 7]) }, /contextLens is \[3\]/],
    ["an output", { out: Tensor.empty([2, 4, 64], "f32") }, /out is \[2,4,64\]/],
    ["an lse", { lse: Tensor.empty([4, 3], "f32") }, /lse is \[4,3\]/],
  ])("%s", (_name, change, message) => {
    expect(() => flashMlaVarlen(untouchable, { ...args, ...change })).toThrow(message);
  });
});

describe("flashAttnVarlenFunc rejects", () => {
  const args = {
    q: Tensor.empty([3, 4, 24], "bf16"),
    k: Tensor.empty([5, 2, 24], "bf16"),
    v: Tensor.empty([5, 2, 16], "bf16"),
    cuSeqlensQ: i32([0, 3]),
    cuSeqlensK: i32([0, 5]),
  };
  it.each([
    ["another dqk", { k: Tensor.empty([5, 2, 32], "bf16") }, /k is .*dqk=24/],
    ["other tokens", { v: Tensor.empty([6, 2, 16], "bf16") }, /v is .*Tkv=5/],
    [
      "a dtype of v",
      { v: Tensor.empty([5, 2, 16], "f32") },
      /v has dtype f32; expected bf16, as k/,
    ],
    ["heads", { q: Tensor.empty([3, 3, 24], "bf16") }, /3 heads for 2 key heads/],
    ["requests", { cuSeqlensK: i32([0, 5, 5]) }, /cuSeqlensK is \[3\]; expected \[2\]/],
    ["no channels", { v: Tensor.empty([5, 2, 0], "bf16") }, /at least one channel/],
  ])("%s", (_name, change, message) => {
    expect(() => flashAttnVarlenFunc(untouchable, { ...args, ...change })).toThrow(message);
  });
});
