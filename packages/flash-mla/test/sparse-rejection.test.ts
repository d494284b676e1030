// Bad arguments of sparse attention and of FP8 caches: a typed error that names the argument,
// before anything runs (G12). Indices are no arguments that can be bad: see sparse-decode.test.ts.

import { type Device, ReferenceDevice } from "@open-infra/jit";
import { DTypeError, ShapeError, Tensor } from "@open-infra/tensor";
import { describe, expect, it } from "vitest";
import {
  ArgumentError,
  emptyKCache,
  flashMlaSparseFwd,
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

type Case = [string, object, new (...args: never[]) => Error, RegExp];

function sparseArgs() {
  return {
    q: Tensor.empty([2, 1, 4, 576], "bf16"),
    kCache: emptyKCache("v32", 3, 4) as Tensor,
    indices: i32([0, 1, -1, 11, 5, 6], [2, 1, 3]),
    headDimV: 512,
  };
}

describe("sparse flashMlaWithKvcache rejects", () => {
  const u8 = (shape: number[]): Tensor => Tensor.empty(shape, "u8");
  const cases: Case[] = [
    ["MODEL1 keys for d 576", { kCache: emptyKCache("model1", 3, 4) }, ShapeError, /512 channels/],
    ["other bytes a key", { kCache: u8([3, 4, 1, 600]) }, ShapeError, /656 \(V32\) or 584/],
    ["two key heads", { kCache: u8([3, 4, 2, 656]) }, ShapeError, /kCache is \[3,4,2,656\]/],
    ["a cache dtype", { kCache: Tensor.empty([3, 4, 1, 576], "i32") }, DTypeError, /kCache/],
    [
      "keys that are not packed",
      { kCache: u8([3, 4, 1, 700]).slice(3, 0, 656) },
      ShapeError,
      /strides .*keys of 656 bytes one after the other/,
    ],
    ["bf16 called FP8", fp8(Tensor.empty([3, 4, 1, 576], "bf16"), true), ArgumentError, /isFp8/],
    ["FP8 called bf16", fp8(emptyKCache("v32", 3, 4), false), ArgumentError, /isFp8Kvcache is fal/],
    [
      "indices of other queries",
      { indices: i32([0, 1], [2, 1]) },
      ShapeError,
      /indices is \[2,1\]/,
    ],
    ["an index dtype", { indices: Tensor.empty([2, 1, 3], "f32") }, DTypeError, /indices/],
    ["causal", { causal: true }, ArgumentError, /causal is true/],
    ["lengths of other requests", { topkLength: i32([1]) }, ShapeError, /topkLength is \[1\]/],
    [
      "a length beyond topk",
      { topkLength: i32([3, 4]) },
      ArgumentError,
      /topkLength\[1\] is 4; .*0..3/,
    ],
    ["a negative length", { topkLength: i32([-1, 3]) }, ArgumentError, /topkLength\[0\] is -1/],
    [
      "half an extra scope",
      { extraKCache: emptyKCache("v32", 1, 1) },
      ArgumentError,
      /extraIndices/,
    ],
    [
      "the other half",
      { extraIndicesInKvcache: i32([0, 1], [2, 1, 1]) },
      ArgumentError,
      /extraKCa/,
    ],
    ["an extra length alone", { extraTopkLength: i32([0, 0]) }, ArgumentError, /extraTopkLength/],
    [
      "an extra cache of another d",
      { extraKCache: emptyKCache("model1", 1, 1), extraIndicesInKvcache: i32([0, 1], [2, 1, 1]) },
      ShapeError,
      /extraKCache is .*512 channels/,
    ],
    [
      "sinks of other heads",
      { attnSink: Tensor.empty([3], "f32") },
      ShapeError,
      /attnSink is \[3\]/,
    ],
    ["a sink dtype", { attnSink: Tensor.empty([4], "bf16") }, DTypeError, /attnSink/],
    ["another lse base", { lseBase: "10" }, ArgumentError, /lseBase is 10; expected e or 2/],
    ["other probabilities", { probabilities: "f16" }, ArgumentError, /probabilities is f16/],
    ["maxLogits by token", { maxLogits: Tensor.empty([2, 1, 4], "f32") }, ShapeError, /maxLogits/],
    ["headDimV above d", { headDimV: 577 }, ArgumentError, /headDimV is 577/],
    ["an output's shape", { out: Tensor.empty([2, 1, 4, 500], "bf16") }, ShapeError, /out is/],
  ];
  it.each(cases)("%s", (_name, change, type, message) => {
    const args = { ...sparseArgs(), ...change };
    const call = (): unknown => flashMlaWithKvcache(untouchable, args as never);
    expect(call).toThrow(type);
    expect(call).toThrow(message);
    expect(call).toThrow(/^flashMlaWithKvcache: /);
  });

  it("stale metadata, whatever changed", () => {
    const args = {
      ...sparseArgs(),
      schedMeta: getMlaMetadata(),
      topkLength: i32([3, 2]),
      extraKCache: emptyKCache("v32", 1, 2),
      extraIndicesInKvcache: i32([0, 1, 1, 0], [2, 1, 2]),
      extraTopkLength: i32([2, 1]),
    };
    flashMlaWithKvcache(device, args);
    flashMlaWithKvcache(device, args);
    const stale = (change: object, message: RegExp): void => {
      const call = (): unknown => flashMlaWithKvcache(untouchable, { ...args, ...change });
      expect(call).toThrow(StaleMetadataError);
      expect(call).toThrow(message);
    };
    stale({ topkLength: i32([3, 1]) }, /topkLength of request 1 = 2, this call has 1/);
    stale({ extraTopkLength: i32([1, 1]) }, /extraTopkLength of request 0 = 2, this call has 1/);
    stale({ indices: i32(new Array(8).fill(0), [2, 1, 4]) }, /topk = 3, this call has 4/);
    stale({ kCache: emptyKCache("v32", 6, 2) }, /pageBlockSize = 4/);
    stale({ q: Tensor.empty([2, 1, 8, 576], "bf16") }, /h_q = 4/);
    const dense = {
      q: args.q,
      kCache: args.kCache,
      blockTable: i32([0, 1], [2, 1]),
      cacheSeqlens: i32([4, 4]),
      headDimV: 512,
      schedMeta: args.schedMeta,
    };
    expect(() => flashMlaWithKvcache(untouchable, dense)).toThrow(StaleMetadataError);
  });
});

function fp8(kCache: Tensor, isFp8Kvcache: boolean): object {
  return { kCache, isFp8Kvcache };
}

describe("dense flashMlaWithKvcache rejects", () => {
  const args = { q: Tensor.empty([1, 1, 2, 576], "bf16"), kCache: emptyKCache("v32", 2, 4) };
  it.each([
    ["no table", { cacheSeqlens: i32([1]) }, /blockTable is missing/],
    ["no lengths", { blockTable: i32([0], [1, 1]) }, /cacheSeqlens is missing/],
    ["list lengths", { topkLength: i32([1]) }, /topkLength is given without indices/],
    ["a second cache", { extraKCache: args.kCache }, /extraKCache is given without indices/],
  ])("%s", (_name, change, message) => {
    const call = (): unknown =>
      flashMlaWithKvcache(untouchable, { ...args, headDimV: 512, ...change });
    expect(call).toThrow(ArgumentError);
    expect(call).toThrow(message);
  });
});

describe("flashMlaSparseFwd rejects", () => {
  const args = {
    q: Tensor.empty([3, 4, 64], "bf16"),
    kv: Tensor.empty([9, 1, 64], "bf16"),
    indices: i32(new Array(6).fill(0), [3, 1, 2]),
    smScale: 0.5,
    dV: 64,
  };
  const cases: Case[] = [
    ["another d", { kv: Tensor.empty([9, 1, 32], "bf16") }, ShapeError, /kv is .*d_qk=64/],
    ["two key heads", { kv: Tensor.empty([9, 2, 64], "bf16") }, ShapeError, /kv is \[9,2,64\]/],
    ["a kv dtype", { kv: Tensor.empty([9, 1, 64], "u8") }, DTypeError, /kv has dtype u8/],
    ["a batch of some", { q: Tensor.empty([1, 3, 4, 64], "bf16") }, ShapeError, /kv is/],
    ["indices of other queries", { indices: i32([0], [1, 1, 1]) }, ShapeError, /indices is/],
    [
      "indices by columns",
      { indices: i32(new Array(6).fill(0), [2, 1, 3]).transpose(0, 2) },
      ShapeError,
      /stride 1/,
    ],
    ["a NaN scale", { smScale: Number.NaN }, ArgumentError, /smScale is NaN/],
    ["dV above d", { dV: 65 }, ArgumentError, /dV is 65; expected an integer in 1..64/],
    ["the default dV above d", { dV: undefined }, ArgumentError, /dV is 512/],
    ["a length beyond topk", { topkLength: i32([0, 3, 0]) }, ArgumentError, /topkLength\[1\] is 3/],
    ["lengths of others", { topkLength: i32([0, 3]) }, ShapeError, /topkLength is \[2\]/],
    ["no heads", { q: Tensor.empty([3, 0, 64], "bf16") }, ShapeError, /at least one head/],
    ["an lse's shape", { lse: Tensor.empty([4, 3], "f32") }, ShapeError, /lse is \[4,3\]/],
    ["maxLogits", { maxLogits: Tensor.empty([3, 4], "bf16") }, DTypeError, /maxLogits/],
  ];
  it.each(cases)("%s", (_name, change, type, message) => {
    const call = (): unknown => flashMlaSparseFwd(untouchable, { ...args, ...change } as never);
    expect(call).toThrow(type);
    expect(call).toThrow(message);
    expect(call).toThrow(/^flashMlaSparseFwd: /);
  });
});
