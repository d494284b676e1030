// What calling a function of this package costs beside its kernel: checks, the plan, packing, the
// native call. Each function runs with its real arguments and parameters and an empty kernel, in
// turn with the native call alone. Alone: `node --conditions=@open-infra/source
// packages/deep-gemm/bench/launch.bench.ts [--quick]`.

import { parseArgs } from "node:util";
import {
  type AnyKernel,
  createDevice,
  type Device,
  NativeToolchain,
  type Operation,
} from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { type BenchRow, formatRows, median } from "@open-infra/testing";
import {
  bf16GemmNt,
  fp8GemmNt,
  fp8PagedMqaLogits,
  gemmNt,
  gemmNtGrouped,
  perTokenCastToFp8,
} from "../src/index.ts";

const source = new URL("empty.c", import.meta.url);

/** The device, each kernel replaced by one that takes the same parameters and does nothing. */
function withoutKernels(device: Device): Device {
  const emptied = new Map<object, Operation<never>>();
  const run: Device["run"] = (operation, args) => {
    let empty = emptied.get(operation) as typeof operation | undefined;
    if (empty === undefined) {
      const cpu = operation.kernels.cpu as AnyKernel<typeof args>;
      empty = { ...operation, kernels: { cpu: { ...cpu, source, entry: "empty" } } };
      emptied.set(operation, empty as Operation<never>);
    }
    device.run(empty, args);
  };
  return {
    backend: device.backend,
    description: device.description,
    threads: device.threads,
    run,
    supports: (operation, args) => device.supports(operation, args),
    warmup: (body, options) => device.warmup(body, options),
    [Symbol.dispose]: () => {},
  };
}

const t = (shape: readonly number[], dtype: DType): Tensor => Tensor.empty(shape, dtype);

/** Calls by name; small shapes, since a launch costs the same for all of them. */
function callsOf(device: Device): readonly (readonly [string, () => unknown])[] {
  const [m, n, k, groups] = [4, 256, 256, 64];
  const [a, b, d] = [t([m, k], "bf16"), t([n, k], "bf16"), t([m, n], "bf16")];
  const scaledA = { data: t([m, k], "e4m3fn"), scales: t([m, k / 128], "f32") };
  const scaledB = { data: t([n, k], "e4m3fn"), scales: t([n / 128, k / 128], "f32") };
  const experts = t([groups, n, k], "bf16");
  const ends = Array.from({ length: groups + 1 }, (_, g) => Math.min(m, g));
  const offsets = Tensor.from(ends, [groups + 1], "i32");
  const paged = {
    q: t([2, 1, 64, 128], "e4m3fn"),
    kvCache: t([4, 64, 1, 132], "u8"),
    weights: t([2, 64], "f32"),
    contextLens: Tensor.from([64, 128], [2, 1], "i32"),
    blockTable: Tensor.from([0, 3, 1, 2], [2, 2], "i32"),
    maxContextLen: 128,
    out: t([2, 128], "f32"),
  };
  return [
    ["gemmNt bf16", () => gemmNt(device, { a, b, d })],
    ["bf16GemmNt", () => bf16GemmNt(device, { a, b, d })],
    ["bf16GemmNt, C", () => bf16GemmNt(device, { a, b, d, c: d })],
    ["fp8GemmNt", () => fp8GemmNt(device, { a: scaledA, b: scaledB, d })],
    [`gemmNtGrouped, ${groups} groups`, () => gemmNtGrouped(device, { a, b: experts, d, offsets })],
    ["perTokenCastToFp8", () => perTokenCastToFp8(device, { x: a, out: scaledA })],
    ["fp8PagedMqaLogits", () => fp8PagedMqaLogits(device, paged)],
  ];
}

export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  using device = createDevice({ backend: "cpu", threads: 1 });
  const constants = {};
  const spec = {
    name: "bare",
    source,
    entry: "bare",
    constants,
    params: { unused: "i64" },
  } as const;
  const native = new NativeToolchain().load(spec).func("bare");
  const block = new Float64Array(16);
  const calls = [
    ["native call alone", () => native(block)] as const,
    ...callsOf(withoutKernels(device)),
  ];
  for (const [, call] of calls) for (let i = 0; i < 20_000; i++) call();
  const samples = new Map<string, number[]>(calls.map(([name]) => [name, []]));
  // Batches short enough that most are not interrupted.
  for (let round = 0; round < (options.quick ? 101 : 501); round++) {
    for (const [name, call] of calls) {
      const start = performance.now();
      for (let i = 0; i < 200; i++) call();
      samples.get(name)?.push((performance.now() - start) * 5);
    }
  }
  const us = (name: string): number => median(samples.get(name) as number[]);
  const alone = us("native call alone");
  return calls.map(([name]) => ({
    case: name,
    shape: "1 thread",
    us: us(name),
    peer: name === "native call alone" ? "" : `${(us(name) - alone).toFixed(2)} µs above it`,
  }));
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { quick: { type: "boolean" } } });
  console.log(formatRows(await run({ quick: values.quick ?? false })));
}
