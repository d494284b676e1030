// What a launch costs beside its kernel: the time of `device.run` for kernels that do nothing, of
// few parameters and of many, in turn with the bare native call below it; and what opening a device
// costs when nothing needs compiling. `of the limit` compares with that bare call.

import {
  CompilerMissingError,
  createDevice,
  type Device,
  defineKernel,
  findCompiler,
  type Operation,
} from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import type { BenchRow } from "@open-infra/testing";
import { formatRows, median } from "@open-infra/testing";
import { KernelCache } from "../src/cache.ts";
import { scalarTarget } from "../src/isa.ts";
import { readJitOptions } from "../src/options.ts";

interface Args {
  readonly x: Tensor<"f32">;
  readonly out: Tensor<"f32">;
  readonly threads: number;
}

function noop(entry: "noop"): Operation<Args> {
  return {
    name: entry,
    check: () => {},
    reference: () => {},
    kernels: {
      cpu: defineKernel({
        language: "c",
        source: new URL("noop.c", import.meta.url),
        entry,
        params: { x: "ptr", out: "ptr", rows: "i64", cols: "i64", scale: "f64" },
        constants: () => ({ MODE: 1 }),
        pack: ({ x, out }: Args) => ({ x, out, rows: 1, cols: x.size, scale: 0.5 }),
        threads: ({ threads }) => threads,
      }),
    },
  };
}

/** As many parameters as a product has, their values at hand. */
function noopOfMany(x: Tensor<"f32">, out: Tensor<"f32">): Operation<Args> {
  const names = Array.from({ length: 30 }, (_, i) => `n${i}`);
  const params = Object.fromEntries(names.map((name) => [name, "i64"] as const));
  const values = { x, out, y: null, ...Object.fromEntries(names.map((name, i) => [name, i])) };
  return {
    name: "noop of many",
    check: () => {},
    reference: () => {},
    kernels: {
      cpu: defineKernel({
        language: "c",
        source: new URL("noop.c", import.meta.url),
        entry: "noop",
        params: { x: "ptr", out: "ptr", y: "ptr", ...params },
        constants: () => ({ MODE: 1 }),
        pack: () => values,
        threads: ({ threads }) => threads,
      }),
    },
  };
}

interface Call {
  readonly name: string;
  readonly shape: string;
  readonly run: () => void;
}

/** Microseconds of each call: medians of batches in turn, most of them not interrupted. */
function timesUs(calls: readonly Call[], batches: number): number[] {
  for (const { run } of calls) for (let i = 0; i < 5000; i++) run();
  const samples = calls.map((): number[] => []);
  for (let b = 0; b < batches; b++) {
    for (const [c, { run }] of calls.entries()) {
      const start = performance.now();
      for (let i = 0; i < 200; i++) run();
      samples[c]?.push((performance.now() - start) * 5);
    }
  }
  return samples.map(median);
}

function launchesOf(device: Device): Call[] {
  const x = Tensor.empty([16], "f32");
  const out = Tensor.empty([16], "f32");
  const few = noop("noop");
  const many = noopOfMany(x, out);
  const counts = [...new Set([1, 2, device.threads])].filter((n) => n <= device.threads);
  const calls = counts.map((threads) => ({
    name: "launch",
    shape: `${threads} thread${threads > 1 ? "s" : ""}`,
    run: () => device.run(few, { x, out, threads }),
  }));
  const run = (): void => device.run(many, { x, out, threads: 1 });
  return [...calls, { name: "launch of 33 parameters", shape: "1 thread", run }];
}

/** Rows of the bench runner. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const batches = options.quick ? 101 : 501;
  using device = createDevice({ backend: "cpu" });
  const calls = [
    { name: "native call", shape: "one pointer", run: bareCall() },
    ...launchesOf(device),
  ];
  const us = timesUs(calls, batches);
  const opens = Array.from({ length: options.quick ? 3 : 9 }, () => {
    const start = performance.now();
    createDevice({ backend: "cpu" })[Symbol.dispose]();
    return (performance.now() - start) * 1000;
  });
  const bareUs = us[0] as number;
  return [...calls, { name: "open a device", shape: "warm cache" }].map(({ name, shape }, i) => {
    const time = us[i] ?? median(opens);
    return { case: name, shape, us: time, boundRatio: bareUs / time, bound: "compute" };
  });
}

/** A native function that does nothing, called as launches are. */
function bareCall(): () => void {
  const compiler = findCompiler();
  if (compiler === undefined) throw new CompilerMissingError([]);
  const cache = new KernelCache(compiler, scalarTarget, readJitOptions());
  const source = new URL("noop.c", import.meta.url);
  const { library } = cache.load({
    name: "bare",
    source,
    entry: "bare",
    constants: {},
    params: { unused: "i64" },
  });
  const block = new Float64Array(16);
  const call = library.func("bare");
  return () => void call(block);
}

if (import.meta.main) console.log(formatRows(await run()));
