// Views against a naive model (nested arrays of numbers), and what a tensor refuses.

import {
  contiguousStrides,
  type Dims,
  type DType,
  DTypeError,
  dtypes,
  expectContiguous,
  expectRows,
  expectTensor,
  HostStorage,
  ShapeError,
  type Storage,
  StorageError,
  Tensor,
} from "@open-infra/tensor";
import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";

/** A view as its shape and its values in row-major order: no strides, no sharing. */
interface Model {
  readonly shape: readonly number[];
  readonly values: readonly number[];
}

function at(model: Model, index: readonly number[]): number {
  let flat = 0;
  for (let d = 0; d < index.length; d++) flat = flat * model.shape[d]! + index[d]!;
  return model.values[flat] as number;
}

function build(shape: readonly number[], value: (index: number[]) => number): Model {
  const values: number[] = [];
  const walk = (index: number[]): void => {
    if (index.length === shape.length) values.push(value(index));
    else for (let i = 0; i < shape[index.length]!; i++) walk([...index, i]);
  };
  walk([]);
  return { shape, values };
}

type Pair = [Tensor, Model];

const steps: readonly ((pair: Pair, random: Random) => Pair)[] = [
  function slice([tensor, model], random) {
    const d = random.int(0, model.shape.length);
    const start = random.int(0, model.shape[d]! + 1);
    const end = random.int(start, model.shape[d]! + 1);
    return [
      tensor.slice(random.pick([d, d - model.shape.length]), start, end),
      build(model.shape.with(d, end - start), (index) =>
        at(model, index.with(d, index[d]! + start)),
      ),
    ];
  },
  function transpose([tensor, model], random) {
    const a = random.int(0, model.shape.length);
    const b = random.int(0, model.shape.length);
    const swap = (of: readonly number[]): number[] => of.with(a, of[b]!).with(b, of[a]!);
    return [
      tensor.transpose(random.pick([a, a - model.shape.length]), b),
      build(swap(model.shape), (index) => at(model, swap(index))),
    ];
  },
  function select([tensor, model], random) {
    const d = random.int(0, model.shape.length);
    if (model.shape[d] === 0 || model.shape.length === 1) return [tensor, model];
    const i = random.int(0, model.shape[d]!);
    return [
      tensor.select(random.pick([d, d - model.shape.length]), i),
      build(model.shape.toSpliced(d, 1), (index) => at(model, index.toSpliced(d, 0, i))),
    ];
  },
  function contiguousAndReshape([tensor, model]) {
    const dense = tensor.contiguous();
    return [dense.reshape([model.values.length]).reshape(model.shape), model];
  },
];

describe("views", () => {
  it.each(dtypes)("of %s agree with the naive model", (dtype) => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 60; round++) {
      const shape = Array.from({ length: random.int(1, 5) }, () => random.int(1, 5));
      const model = build(shape, () => random.pick([0.5, 1, 2, 4].slice(dtype === "u8" ? 1 : 0)));
      const integers = dtype === "i32" || dtype === "i64";
      const values = integers ? model.values.map((x) => Math.ceil(x)) : model.values;
      let pair: Pair = [Tensor.from(values, shape, dtype), { shape, values }];
      for (let i = 0; i < 5; i++) pair = random.pick(steps)(pair, random);
      const [tensor, expected] = pair;
      const hint = `seed ${random.seed}, round ${round}`;
      expect(tensor.shape, hint).toEqual(expected.shape);
      expect([...tensor.toFloat64()], hint).toEqual(expected.values);
      expect([...tensor.toFloat32()], hint).toEqual(expected.values);
      expect([...tensor.clone().to("f32").raw()], hint).toEqual(expected.values);
      expect(tensor.contiguous().strides, hint).toEqual(
        tensor.isContiguous ? tensor.strides : contiguousStrides(tensor.shape),
      );
    }
  });

  it.each(dtypes)("of %s take fill and copyFrom without touching their neighbours", (dtype) => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 40; round++) {
      const shape = [random.int(1, 5), random.int(1, 5), random.int(1, 5)];
      const whole = Tensor.from(
        new Float32Array(shape.reduce((a, b) => a * b)).fill(1),
        shape,
        dtype,
      );
      const before = [...whole.toFloat64()];
      const d = random.int(0, 3);
      const start = random.int(0, shape[d]!);
      const part = whole.slice(d, start, random.int(start, shape[d]!) + 1).transpose(0, 2);
      part.fill(2);
      const filled = whole.toFloat64().filter((x) => x === 2).length;
      const kept = whole.toFloat64().filter((x) => x === 1).length;
      expect([filled, kept], `seed ${random.seed}, round ${round}`).toEqual([
        part.size,
        whole.size - part.size,
      ]);
      part.copyFrom(Tensor.from(new Float32Array(part.size).fill(1), part.shape, "bf16"));
      expect([...whole.toFloat64()], `seed ${random.seed}, round ${round}`).toEqual(before);
    }
  });

  it("copy onto themselves in another order", () => {
    const tensor = Tensor.from([1, 2, 3, 4], [2, 2], "f32");
    tensor.copyFrom(tensor.transpose(0, 1));
    expect([...tensor.raw()]).toEqual([1, 3, 2, 4]);
    tensor.transpose(0, 1).copyFrom(tensor);
    expect([...tensor.raw()]).toEqual([1, 2, 3, 4]);
  });

  it("share memory, and clone does not", () => {
    const tensor = Tensor.from([1, 2, 3, 4], [2, 2], "f32");
    const copy = tensor.clone();
    tensor.select(0, 1).raw()[0] = 9;
    expect([...tensor.raw()]).toEqual([1, 2, 9, 4]);
    expect([...copy.raw()]).toEqual([1, 2, 3, 4]);
  });

  it("accept zero and negative strides inside the storage", () => {
    const { storage } = Tensor.from([1, 2, 3], [3], "f32");
    const init = { dtype: "f32", storage } as const;
    const repeated = new Tensor({ ...init, shape: [2, 3], strides: [0, 1] });
    expect([...repeated.toFloat32()]).toEqual([1, 2, 3, 1, 2, 3]);
    const backwards = new Tensor({ ...init, shape: [3], strides: [-1], offset: 2 });
    expect([...backwards.toFloat32()]).toEqual([3, 2, 1]);
  });

  it("of e2m1 that begin inside a byte are not contiguous until copied", () => {
    const tensor = Tensor.from([0.5, 1, 1.5, 2, 3, 4], [2, 3], "e2m1", "w");
    const row = tensor.select(0, 1);
    expect(row.isContiguous).toBe(false);
    expect(() => row.bytes()).toThrow(ShapeError);
    expect(() => row.byteOffset).toThrow(/w is an e2m1 view from element 3/);
    expect([...row.contiguous().bytes()]).toEqual([0x54, 0x06]);
    expect(tensor.byteLength).toBe(3);
  });
});

describe("a tensor refuses", () => {
  const tensor = Tensor.from([1, 2, 3, 4, 5, 6], [2, 3], "f32", "weight");
  const { storage } = tensor;
  const cases: readonly [string, () => unknown, string][] = [
    ["a negative size", () => Tensor.empty([2, -1], "f32", "x"), "x is dimension 1 = -1"],
    ["a fractional size", () => Tensor.empty([1.5], "f32"), "tensor is dimension 0 = 1.5"],
    ["an overflowing size", () => Tensor.empty([2 ** 40, 2 ** 40], "f32"), "at most 2^50 elements"],
    ["too few values", () => Tensor.from([1], [2], "f32", "x"), "x is 1 values; expected 2"],
    [
      "a missing dimension",
      () => tensor.dim(2),
      "weight is [2,3], asked for dimension 2; expected -2 to 1",
    ],
    ["a missing stride", () => tensor.stride(-3), "asked for dimension -3"],
    ["a fractional dimension", () => tensor.dim(0.5), "asked for dimension 0.5"],
    ["a dimension of a scalar", () => tensor.select(0, 0).select(0, 0).dim(0), "with dimensions"],
    [
      "a slice past the end",
      () => tensor.slice(1, 1, 4),
      "1..4 of dimension 1; expected a range inside 0..3",
    ],
    ["a slice backwards", () => tensor.slice(1, 2, 1), "2..1 of dimension 1"],
    ["a fractional slice", () => tensor.slice(1, 0.5, 1), "0.5..1 of dimension 1"],
    [
      "an index past the end",
      () => tensor.select(-1, 3),
      "element 3 of dimension -1; expected an index from 0 to 2",
    ],
    ["a negative index", () => tensor.select(0, -1), "element -1 of dimension 0"],
    ["a dimension to swap", () => tensor.transpose(0, 2), "asked for dimension 2"],
    [
      "a reshape to another size",
      () => tensor.reshape([4]),
      "expected a contiguous tensor of 4 elements",
    ],
    ["a reshape of a strided view", () => tensor.transpose(0, 1).reshape([6]), "[3,2] (strided)"],
    ["raw elements of a strided view", () => tensor.transpose(0, 1).raw(), "strided [1,3]"],
    [
      "a copy of another shape",
      () => tensor.copyFrom(tensor.transpose(0, 1)),
      "weight is [3,2]; expected [2,3]",
    ],
    [
      "a view past the end",
      () => new Tensor({ dtype: "f32", shape: [7], storage, name: "v" }),
      "v is [7] with strides [1] from element 0 of f32; expected a view inside its 24 bytes",
    ],
    [
      "a view before the start",
      () => new Tensor({ dtype: "f32", shape: [3], strides: [-1], offset: 1, storage }),
      "a view inside its 24 bytes",
    ],
    [
      "strides of another rank",
      () => new Tensor({ dtype: "f32", shape: [2], strides: [1, 1], storage }),
      "one integer stride a dimension",
    ],
    [
      "a negative offset",
      () => new Tensor({ dtype: "f32", shape: [1], offset: -1, storage }),
      "a non-negative offset",
    ],
  ];
  it.each(cases)("%s", (_, act, message) => {
    expect(act).toThrow(ShapeError);
    expect(act).toThrow(message);
  });

  it("memory that its elements do not align with", () => {
    const odd = new HostStorage(new Uint8Array(new ArrayBuffer(9), 1));
    const tensor = new Tensor({ dtype: "f32", shape: [2], storage: odd, name: "mapped" });
    expect(() => tensor.raw()).toThrow("mapped f32[2] begins at byte 1 of its buffer");
    expect(tensor.bytes()).toHaveLength(8);
  });

  it("memory there is none of", () => {
    expect(() => HostStorage.allocate(2 ** 52)).toThrow(StorageError);
  });

  it("to read device memory", () => {
    const device: Storage = {
      kind: "device",
      byteLength: 8,
      disposed: false,
      [Symbol.dispose]() {},
    };
    const tensor = new Tensor({ dtype: "f32", shape: [2], storage: device, name: "kv" });
    for (const act of [() => tensor.raw(), () => tensor.fill(1), () => tensor.toFloat32()]) {
      expect(act).toThrow("kv f32[2] lives on a device; copy it to the host first");
    }
  });
});

describe("disposal", () => {
  it("ends every view, once, and says which tensor was used", () => {
    let released = 0;
    const storage = new HostStorage(new Uint8Array(8), () => released++);
    let view: Tensor;
    {
      using tensor = new Tensor({ dtype: "f32", shape: [2], storage, name: "cache" });
      view = tensor.slice(0, 1, 2);
      expect(view.toFloat32()).toHaveLength(1);
    }
    expect(released).toBe(1);
    for (const act of [() => view.raw(), () => view.to("f16"), () => view.fill(0)]) {
      expect(act).toThrow(StorageError);
      expect(act).toThrow("cache f32[1] was used after its memory was disposed");
    }
    expect(storage.disposed).toBe(true);
    expect(() => storage.bytes).toThrow("after disposal");
    view[Symbol.dispose]();
    expect(released).toBe(1);
  });

  it("memory is shared between threads by default", () => {
    expect(Tensor.empty([1], "u8").bytes().buffer).toBeInstanceOf(SharedArrayBuffer);
  });
});

describe("argument checks", () => {
  const make = (shape: number[], dtype: DType = "bf16"): Tensor => Tensor.empty(shape, dtype, "t");

  it("bind dimension names on first sight and hold later arguments to them", () => {
    const dims: Dims = {};
    expectTensor("gemm", "a", make([2, 64]), ["bf16"], ["m", "k"], dims);
    expectTensor("gemm", "b", make([8, 64]), ["bf16", "f32"], ["n", "k"], dims);
    expect(dims).toEqual({ m: 2, k: 64, n: 8 });
    const wrong = (): void => expectTensor("gemm", "d", make([2, 9]), ["bf16"], ["m", "n"], dims);
    expect(wrong).toThrow("gemm: d is [2,9]; expected [m=2, n=8]");
    const rank = (): void => expectTensor("gemm", "s", make([2]), ["bf16"], [2, "q"], dims);
    expect(rank).toThrow("gemm: s is [2]; expected [2, q]");
    const dtype = (): void => expectTensor("gemm", "a", make([2]), ["f32", "f16"], ["m"], dims);
    expect(dtype).toThrow(DTypeError);
    expect(dtype).toThrow("gemm: a has dtype bf16; expected f32 or f16");
  });

  it("name strides that a kernel cannot walk", () => {
    const turned = make([4, 3]).transpose(0, 1);
    expect(() => expectRows("gemm", "a", turned)).toThrow("stride 1 in the last dimension");
    expect(() => expectRows("gemm", "a", make([4, 3]).slice(1, 0, 2))).not.toThrow();
    expect(() => expectContiguous("gemm", "a", make([4, 3]).slice(1, 0, 2))).toThrow(
      "gemm: a is strides [3,1]; expected a contiguous tensor",
    );
  });
});
