// Products against the machine's own limits: weights stream from memory (a pool larger than the
// caches is walked through), times are medians, and every row stands beside the limit that applies.
// One thread is timed by its processor time, several by the wall's.
// Alone: `node --conditions=@open-infra/source packages/deep-gemm/bench/gemm.bench.ts [--quick]
// [--json] [--threads N]`.

import { parseArgs } from "node:util";
import {
  createDevice,
  type Device,
  largestLimits,
  type MachineLimits,
  measureMachine,
  roofline,
} from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { type BenchRow, formatRows, median } from "@open-infra/testing";
import { gemmNt, gemmNtGrouped, type Operand, scaleBlocks } from "../src/index.ts";

export interface GemmBenchOptions {
  readonly quick?: boolean;
  /** @default the machine's available parallelism */
  readonly threads?: number;
}

type Kind = "bf16" | "fp8" | "w8a16";

interface Case {
  readonly kind: Kind;
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** Memory that all operands are cut from, larger than the last cache of most machines. */
class Pool {
  readonly #words: Tensor<"bf16">;
  #at = 0;

  /** In huge pages where there are some, as a model's weights are. */
  constructor(device: Device, bytes: number) {
    this.#words = Tensor.empty([bytes / 2], "bf16");
    device.adviseHuge?.(this.#words);
    const words = this.#words.raw();
    // Numbers that are normal in bf16 and no NaN in e4m3, whichever a byte is read as.
    let state = 1;
    const pattern = Math.min(words.length, 1 << 20);
    for (let i = 0; i < pattern; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      words[i] = ((state >>> 16) & 0x8000) | 0x3f00 | ((state >>> 8) & 0x3f);
    }
    for (let at = pattern; at < words.length; at += pattern) words.copyWithin(at, 0, pattern);
  }

  /** The next tensor, starting over at the pool's end. */
  take(shape: readonly number[], dtype: "bf16" | "e4m3fn"): Tensor {
    const bytes = shape.reduce((a, b) => a * b, 1) * (dtype === "bf16" ? 2 : 1);
    if (this.#at + bytes > this.#words.byteLength) this.#at = 0;
    const offset = this.#at / (dtype === "bf16" ? 2 : 1);
    this.#at += Math.ceil(bytes / 4096) * 4096;
    return new Tensor({ dtype, shape, offset, storage: this.#words.storage });
  }

  get byteLength(): number {
    return this.#words.byteLength;
  }
}

function ones(shape: readonly number[]): Tensor {
  const tensor = Tensor.empty(shape, "f32");
  tensor.raw().fill(1);
  return tensor;
}

function operand(pool: Pool, scaled: boolean, shape: readonly number[], granM: number): Operand {
  const data = pool.take(shape, scaled ? "e4m3fn" : "bf16");
  if (!scaled) return data;
  const rows = Math.ceil((shape.at(-2) as number) / granM);
  return { data, scales: ones([...shape.slice(0, -2), rows, scaleBlocks(shape.at(-1) as number)]) };
}

/**
 * Microseconds of a call; each call gets its own weights. Of one thread its processor time, which
 * others on the machine do not lengthen, but which the system counts so coarsely that only many
 * calls together have one; of several the median of the wall's.
 */
function time(device: Device, call: (i: number) => void, quick: boolean): number {
  call(0);
  const samples: number[] = [];
  const start = process.threadCpuUsage();
  const end = performance.now() + (quick ? 150 : 600);
  for (let i = 1; samples.length < 5 || (performance.now() < end && samples.length < 400); i++) {
    const before = performance.now();
    call(i);
    samples.push((performance.now() - before) * 1000);
  }
  if (device.threads > 1) return median(samples);
  const { user, system } = process.threadCpuUsage(start);
  return (user + system) / samples.length;
}

interface Measured {
  readonly case: string;
  readonly shape: string;
  readonly us: number;
  readonly flops: number;
  readonly bytes: number;
}

function rowOf({ us, flops, bytes, ...names }: Measured, limits: MachineLimits): BenchRow {
  const { bestRatio, ...bound } = roofline(limits, { flops, bytes }, us, { unit: limits.bf16Unit });
  const otherUnit = limits.tiles !== undefined && limits.bf16Unit !== "bf16Tiles";
  return {
    ...names,
    us,
    gflops: flops / us / 1000,
    gbs: bytes / us / 1000,
    ...bound,
    ...(otherUnit && { bestRatio }),
  };
}

function runDense(device: Device, pool: Pool, c: Case, quick: boolean): Measured {
  const { kind, m, n, k } = c;
  const scaledB = kind !== "bf16";
  const weightBytes = n * k * (scaledB ? 1 : 2);
  const a = operand(pool, kind === "fp8", [m, k], 1);
  const d = Tensor.empty([m, n], "bf16");
  const copies = Math.max(2, Math.floor(pool.byteLength / weightBytes) - 1);
  const weights = Array.from({ length: copies }, () => operand(pool, scaledB, [n, k], 128));
  const call = (i: number): void => gemmNt(device, { a, b: weights[i % copies] as Operand, d });
  const us = time(device, call, quick);
  const bytes = weightBytes + m * k * (kind === "fp8" ? 1 : 2) + m * n * 2;
  return { case: `${kind} gemmNt`, shape: `${m}×${n}×${k}`, us, flops: 2 * m * n * k, bytes };
}

/** Ragged groups, some empty, of `rows` rows in all. */
function runGrouped(
  device: Device,
  pool: Pool,
  kind: Kind,
  rows: number,
  quick: boolean,
): Measured {
  const [groups, n, k] = [8, 1408, 2048];
  const shares = [0.3, 0, 0.15, 0.05, 0.2, 0, 0.1, 0.2];
  const offsets = Tensor.empty([groups + 1], "i32");
  const ends = offsets.raw();
  let share = 0;
  for (let g = 0; g < groups; g++) {
    share += shares[g] as number;
    ends[g + 1] = Math.round(share * rows);
  }
  const scaled = kind !== "bf16";
  const a = operand(pool, kind === "fp8", [rows, k], 1);
  const d = Tensor.empty([rows, n], "bf16");
  const groupBytes = n * k * (scaled ? 1 : 2);
  const copies = Math.max(2, Math.floor(pool.byteLength / (groups * groupBytes)) - 1);
  const weights = Array.from({ length: copies }, () => operand(pool, scaled, [groups, n, k], 128));
  const call = (i: number): void => {
    gemmNtGrouped(device, { a, b: weights[i % copies] as Operand, d, offsets });
  };
  const us = time(device, call, quick);
  const used = ends.reduce(
    (sum, end, g) => sum + (g > 0 && end > (ends[g - 1] as number) ? 1 : 0),
    0,
  );
  const bytes = used * groupBytes + rows * k * (kind === "fp8" ? 1 : 2) + rows * n * 2;
  const shape = `${rows}×${n}×${k}, ${used} of ${groups} groups`;
  return { case: `${kind} gemmNtGrouped`, shape, us, flops: 2 * rows * n * k, bytes };
}

export async function run(options: GemmBenchOptions = {}): Promise<readonly BenchRow[]> {
  const quick = options.quick ?? false;
  const threads = options.threads;
  using device = createDevice({ backend: "cpu", ...(threads === undefined ? {} : { threads }) });
  const before = measureMachine(device);
  const pool = new Pool(device, before.readBytes);
  const rows: Measured[] = [];
  for (const kind of ["bf16", "fp8"] as const) {
    for (const m of quick ? [1, 128] : [1, 2, 4, 8, 16, 64, 128, 512]) {
      rows.push(runDense(device, pool, { kind, m, n: 4096, k: 7168 }, quick));
      if (quick || (m !== 1 && m !== 128)) continue;
      rows.push(runDense(device, pool, { kind, m, n: 2112, k: 7168 }, quick));
      rows.push(runDense(device, pool, { kind, m, n: 7168, k: 2048 }, quick));
    }
  }
  rows.push(runDense(device, pool, { kind: "w8a16", m: 1, n: 4096, k: 7168 }, quick));
  for (const kind of ["bf16", "fp8"] as const) {
    for (const m of quick ? [256] : [12, 256, 1024]) {
      rows.push(runGrouped(device, pool, kind, m, quick));
    }
  }
  const limits = largestLimits(before, measureMachine(device));
  return rows.map((row) => rowOf(row, limits));
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean" },
      json: { type: "boolean" },
      threads: { type: "string" },
    },
  });
  const rows = await run({
    quick: values.quick ?? false,
    ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
  });
  console.log(values.json ? JSON.stringify(rows, null, 2) : formatRows(rows));
}
