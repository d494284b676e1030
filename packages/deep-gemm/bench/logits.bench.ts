// The indexer's logits, the projection of hyper-connections, and the casts, beside the limit that
// applies: codes are multiplied exactly, so logits are bound by what bf16 is bound by; casts by
// memory. Alone: `node --conditions=@open-infra/source packages/deep-gemm/bench/logits.bench.ts
// [--quick] [--threads N]`.

import { parseArgs } from "node:util";
import {
  type ComputeUnit,
  createDevice,
  type Device,
  largestLimits,
  measureMachine,
  roofline,
  type Work,
} from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { type BenchRow, formatRows, median } from "@open-infra/testing";
import {
  fp8MqaLogits,
  fp8PagedMqaLogits,
  perBlockCastToFp8,
  perChannelCastToFp8,
  perTokenCastToFp4,
  perTokenCastToFp8,
  tf32HcPrenormGemm,
} from "../src/index.ts";

export interface LogitsBenchOptions {
  readonly quick?: boolean;
  /** @default the machine's available parallelism */
  readonly threads?: number;
}

type Codes = "e4m3fn" | "e2m1";

interface Case {
  readonly name: string;
  readonly shape: string;
  readonly work: Work;
  readonly unit: ComputeUnit;
  run(): void;
}

function random(shape: readonly number[], dtype: DType): Tensor {
  let state = 1;
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32 - 0.5) * 4;
  };
  const size = shape.reduce((x, y) => x * y, 1);
  return Tensor.from(Float32Array.from({ length: size }, next), shape, dtype);
}

function filled(shape: readonly number[], dtype: DType, value: number): Tensor {
  return Tensor.empty(shape, dtype).fill(value);
}

/** Four ue8m0 scales of 1. */
const packedOnes = 0x7f7f7f7f;

const name = (type: Codes): string => (type === "e2m1" ? "fp4" : "fp8");

/** Every token sees every key. */
function prefill(device: Device, type: Codes, tokens: number, n: number): Case {
  const [heads, dim] = [64, 128];
  const q = random([tokens, heads, dim], type);
  const args = {
    q: type === "e4m3fn" ? q : { data: q, scales: filled([tokens, heads], "i32", packedOnes) },
    kv: {
      data: random([n, dim], type),
      scales: type === "e4m3fn" ? filled([n], "f32", 1) : filled([n], "i32", packedOnes),
    },
    weights: random([tokens, heads], "f32"),
    cuSeqLenKStart: filled([tokens], "i32", 0),
    cuSeqLenKEnd: filled([tokens], "i32", n),
    out: Tensor.empty([tokens, n], "f32"),
  };
  return {
    name: `${name(type)} mqaLogits`,
    shape: `${tokens} × ${n} keys, ${heads}×${dim}`,
    work: { flops: 2 * tokens * n * heads * dim, bytes: args.kv.data.byteLength + 4 * tokens * n },
    unit: "bf16",
    run: () => void fp8MqaLogits(device, args),
  };
}

function decode(device: Device, type: Codes, sequences: number, next: number, n: number): Case {
  const [heads, dim, perPage] = [64, 128, 64];
  const pages = (sequences * n) / perPage;
  const bytes = type === "e4m3fn" ? dim : dim / 2;
  // Codes 0x30 are a positive number in either type; scales behind them are read as some number.
  const kvCache = filled([pages, perPage, 1, bytes + 4], "u8", 0x30);
  const table = Int32Array.from({ length: pages }, (_, i) => (i * 7919) % pages);
  const q = random([sequences, next, heads, dim], type);
  const scales = filled([sequences, next, heads], "i32", packedOnes);
  const args = {
    q: type === "e4m3fn" ? q : { data: q, scales },
    kvCache,
    weights: random([sequences * next, heads], "f32"),
    contextLens: filled([sequences, next], "i32", n),
    blockTable: Tensor.from(table, [sequences, n / perPage], "i32"),
    maxContextLen: n,
    out: Tensor.empty([sequences * next, n], "f32"),
  };
  return {
    name: `${name(type)} pagedMqaLogits`,
    shape: `${sequences} × ${next} × ${n} keys, ${heads}×${dim}`,
    work: {
      flops: 2 * sequences * next * n * heads * dim,
      bytes: kvCache.byteLength + 4 * sequences * next * n,
    },
    unit: "bf16",
    run: () => void fp8PagedMqaLogits(device, args),
  };
}

function prenorm(device: Device, m: number, k: number): Case {
  const n = 24;
  const [a, b] = [random([m, k], "bf16"), random([n, k], "f32")];
  const [d, sqrSum] = [Tensor.empty([m, n], "f32"), Tensor.empty([m], "f32")];
  return {
    name: "tf32HcPrenormGemm",
    shape: `${m}×${n}×${k}`,
    work: { flops: 2 * m * k * (n + 1), bytes: a.byteLength + b.byteLength },
    unit: "f32",
    run: () => tf32HcPrenormGemm(device, { a, b, d, sqrSum }),
  };
}

/** Reads count once and writes once, though a cast looks at its source twice. */
function casts(device: Device, m: number, k: number): Case[] {
  const x = random([m, k], "bf16");
  const rows = perTokenCastToFp8(device, { x });
  const blocks = perBlockCastToFp8(device, { x });
  const groups = perTokenCastToFp4(device, { x, granK: 32 });
  const columns = perChannelCastToFp8(device, { x });
  const shape = `${m}×${k} bf16`;
  const work = { flops: 0, bytes: 3 * m * k };
  const to = (name: string, run: () => void): Case => ({ name, shape, work, unit: "f32", run });
  return [
    to("perTokenCastToFp8", () => void perTokenCastToFp8(device, { x, out: rows })),
    to("perBlockCastToFp8", () => void perBlockCastToFp8(device, { x, out: blocks })),
    to("perChannelCastToFp8", () => void perChannelCastToFp8(device, { x, out: columns })),
    {
      ...to(
        "perTokenCastToFp4",
        () => void perTokenCastToFp4(device, { x, granK: 32, out: groups }),
      ),
      work: { flops: 0, bytes: 2.5 * m * k },
    },
  ];
}

/** Microseconds of processor time so far, which other processes do not lengthen. */
function processorUs(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

const wallUs = (): number => performance.now() * 1000;

/** Median microseconds; of processor time where there is one thread, as the limits are. */
function time(call: () => void, quick: boolean, threads: number): number {
  const now = threads === 1 ? processorUs : wallUs;
  call();
  const samples: number[] = [];
  const end = performance.now() + (quick ? 100 : 500);
  while (samples.length < 5 || (performance.now() < end && samples.length < 200)) {
    const start = now();
    call();
    samples.push(now() - start);
  }
  return median(samples);
}

function casesOf(device: Device, quick: boolean): (() => Case)[] {
  const small = [
    () => prefill(device, "e4m3fn", 64, 2048),
    () => decode(device, "e4m3fn", 4, 1, 4096),
    () => prenorm(device, 137, 7168),
  ];
  if (quick) return small;
  return [
    () => prefill(device, "e4m3fn", 64, 8192),
    () => prefill(device, "e2m1", 64, 8192),
    () => prefill(device, "e4m3fn", 1, 65536),
    () => decode(device, "e4m3fn", 8, 1, 8192),
    () => decode(device, "e4m3fn", 8, 2, 8192),
    () => decode(device, "e2m1", 8, 1, 8192),
    () => prenorm(device, 13, 7168),
    () => prenorm(device, 137, 7168),
    () => prenorm(device, 1024, 7168),
  ];
}

export async function run(options: LogitsBenchOptions = {}): Promise<readonly BenchRow[]> {
  const { quick = false, threads } = options;
  using device = createDevice({ backend: "cpu", ...(threads === undefined ? {} : { threads }) });
  const before = measureMachine(device);
  const measured: (Case & { readonly us: number })[] = [];
  const measure = (item: Case): void => {
    measured.push({ ...item, us: time(item.run, quick, device.threads) });
  };
  for (const make of casesOf(device, quick)) measure(make());
  for (const item of casts(device, quick ? 256 : 4096, 7168)) measure(item);
  const limits = largestLimits(before, measureMachine(device));
  return measured.map(({ name, shape, work, unit, us }) => {
    const by = unit === "bf16" ? limits.bf16Unit : unit;
    const { bound, boundRatio } = roofline(limits, work, us, { unit: by });
    const rate = work.flops === 0 ? {} : { gflops: work.flops / us / 1e3 };
    return { case: name, shape, us, ...rate, gbs: work.bytes / us / 1e3, bound, boundRatio };
  });
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { quick: { type: "boolean" }, threads: { type: "string" } },
  });
  const rows = await run({
    quick: values.quick ?? false,
    ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
  });
  console.log(formatRows(rows));
}
