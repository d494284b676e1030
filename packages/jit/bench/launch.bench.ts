// What a launch costs beside its kernel: the time of `device.run` for a kernel that does nothing,
// next to the bare native call below it; and what opening a device costs when nothing needs
// compiling. `of the limit` compares with that bare call.

import {
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

/** Microseconds of one call: the median of batches, each long enough for the clock. */
function timeUs(call: () => void, batches: number): number {
  for (let i = 0; i < 5000; i++) call();
  const samples: number[] = [];
  for (let b = 0; b < batches; b++) {
    const start = performance.now();
    for (let i = 0; i < 2000; i++) call();
    samples.push((performance.now() - start) / 2);
  }
  return median(samples);
}

function launchUs(device: Device, threads: number, batches: number): number {
  const operation = noop("noop");
  const x = Tensor.empty([16], "f32");
  const out = Tensor.empty([16], "f32");
  return timeUs(() => device.run(operation, { x, out, threads }), batches);
}

/** Rows of the bench runner. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const batches = options.quick ? 11 : 51;
  using device = createDevice({ backend: "cpu" });
  const counts = [...new Set([1, 2, device.threads])].filter((n) => n <= device.threads);
  const rows: BenchRow[] = [];
  const bareUs = rawCallUs(batches);
  const row = (name: string, shape: string, us: number): void => {
    rows.push({ case: name, shape, us, boundRatio: bareUs / us, bound: "compute" });
  };
  row("native call", "one pointer", bareUs);
  for (const threads of counts) {
    row("launch", `${threads} thread${threads > 1 ? "s" : ""}`, launchUs(device, threads, batches));
  }
  const opens = Array.from({ length: options.quick ? 3 : 9 }, () => {
    const start = performance.now();
    createDevice({ backend: "cpu" })[Symbol.dispose]();
    return (performance.now() - start) * 1000;
  });
  row("open a device", "warm cache", median(opens));
  return rows;
}

/** A native function that does nothing, called as launches are. */
function rawCallUs(batches: number): number {
  const compiler = findCompiler();
  if (compiler === undefined) return Number.NaN;
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
  return timeUs(() => call(block), batches);
}

if (import.meta.main) console.log(formatRows(await run()));
