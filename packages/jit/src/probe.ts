// Measures what this machine can do, so that every figure of a bench stands beside its limit. The
// best of several short runs counts: a limit is what is possible, and other programs only take
// away.

import { freemem } from "node:os";
import { Tensor } from "@open-infra/tensor";
import type { Device } from "./device.ts";
import { UnsupportedError } from "./errors.ts";
import { defineKernel, type Operation } from "./operation.ts";
import { kernelUrl } from "./paths.ts";

/** Limits of a machine as a device uses it. */
export interface MachineLimits {
  /** float32 multiply-adds in registers, on one thread; a multiply-add is two operations. */
  readonly f32GflopsPerThread: number;
  /** The same, on all threads of the device. */
  readonly f32Gflops: number;
  /**
   * bf16 products with f32 sums, on all threads: by the dot-product instruction where the device
   * has one, else `f32Gflops`, because bf16 is then widened and multiplied as f32.
   */
  readonly bf16Gflops: number;
  /** Whether `bf16Gflops` comes from a bf16 instruction. */
  readonly bf16Instruction: boolean;
  /** Memory read as a stream by all threads, 1e9 bytes a second. */
  readonly readGBs: number;
  readonly readGBsPerThread: number;
  /** Size of the buffer that was read; beyond the caches unless the last one is larger. */
  readonly readBytes: number;
}

export interface MeasureOptions {
  /** @default 512 MiB, or less where memory is short */
  readonly readBytes?: number;
  /** Runs of each measurement, of which the best counts. @default 5 */
  readonly runs?: number;
  /** Length of one compute run, about. @default 20 */
  readonly milliseconds?: number;
}

interface ComputeArgs {
  readonly sums: Tensor<"f32">;
  readonly rounds: number;
  readonly threads: number;
}

interface ReadArgs {
  readonly data: Tensor<"u8">;
  readonly sums: Tensor<"f32">;
  readonly threads: number;
}

/** Floats of a thread's own cache line in `sums`. */
const SUM_STRIDE = 16;

function compute(entry: "probe_f32" | "probe_bf16"): Operation<ComputeArgs> {
  return {
    name: entry,
    check: () => {},
    reference: () => {
      throw new UnsupportedError(entry, "reference", "it measures hardware");
    },
    kernels: {
      cpu: defineKernel({
        language: "c",
        source: kernelUrl("probe.c"),
        entry,
        params: { data: "ptr", lines: "i64", sums: "ptr", rounds: "i64" },
        constants: () => ({}),
        pack: ({ sums, rounds }: ComputeArgs) => ({ data: null, lines: 0, sums, rounds }),
        threads: ({ threads }) => threads,
      }),
    },
  };
}

const f32Probe = compute("probe_f32");
const bf16Probe = compute("probe_bf16");

const readProbe: Operation<ReadArgs> = {
  name: "probe_read",
  check: () => {},
  reference: () => {
    throw new UnsupportedError("probe_read", "reference", "it measures hardware");
  },
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: kernelUrl("probe.c"),
      entry: "probe_read",
      params: { data: "ptr", lines: "i64", sums: "ptr", rounds: "i64" },
      constants: () => ({}),
      pack: ({ data, sums }: ReadArgs) => ({
        data,
        lines: Math.floor(data.size / 512) * 8,
        sums,
        rounds: 0,
      }),
      threads: ({ threads }) => threads,
    }),
  },
};

/**
 * Measures a device's machine; takes about a second.
 *
 * @throws UnsupportedError for a device that runs no native kernels.
 */
export function measureMachine(device: Device, options: MeasureOptions = {}): MachineLimits {
  const runs = options.runs ?? 5;
  const milliseconds = options.milliseconds ?? 20;
  using sums = Tensor.empty([device.threads * SUM_STRIDE], "f32", "sums");
  const gflops = (operation: Operation<ComputeArgs>, threads: number): number =>
    computeRate(device, operation, { sums, threads, runs, milliseconds });
  const f32GflopsPerThread = gflops(f32Probe, 1);
  const f32Gflops = device.threads === 1 ? f32GflopsPerThread : gflops(f32Probe, device.threads);
  const bf16Instruction = sums.raw()[2] === 1; // Every probe writes it.
  const bf16Gflops = bf16Instruction ? gflops(bf16Probe, device.threads) : f32Gflops;
  const readBytes = options.readBytes ?? Math.min(512 << 20, Math.floor(freemem() / 4));
  using data = Tensor.empty([Math.max(1 << 20, readBytes)], "u8", "stream");
  device.adviseHuge?.(data);
  data.bytes().fill(1); // Memory never written is one page of zeros, read from the cache.
  const readGBs = readRate(device, data, sums, device.threads, runs);
  const readGBsPerThread =
    device.threads === 1 ? readGBs : readRate(device, data, sums, 1, Math.ceil(runs / 2));
  return {
    f32GflopsPerThread,
    f32Gflops,
    bf16Gflops,
    bf16Instruction,
    readGBs,
    readGBsPerThread,
    readBytes: data.size,
  };
}

interface RateOptions {
  readonly sums: Tensor<"f32">;
  readonly threads: number;
  readonly runs: number;
  readonly milliseconds: number;
}

/** Operations a second in 1e9; the kernel says how many a round has. */
function computeRate(
  device: Device,
  operation: Operation<ComputeArgs>,
  { sums, threads, runs, milliseconds }: RateOptions,
): number {
  const time = (rounds: number): number => {
    const start = performance.now();
    device.run(operation, { sums, rounds, threads });
    return performance.now() - start;
  };
  let rounds = 1000;
  time(rounds);
  for (let ms = time(rounds); ms < milliseconds; ms = time(rounds)) {
    rounds = Math.ceil(rounds * Math.min(10, (1.2 * milliseconds) / Math.max(ms, 0.01)));
  }
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < runs; i++) best = Math.min(best, time(rounds));
  const flopsPerRound = sums.raw()[1] as number;
  return (rounds * flopsPerRound * threads) / best / 1e6;
}

/** Bytes a second in 1e9. */
function readRate(
  device: Device,
  data: Tensor<"u8">,
  sums: Tensor<"f32">,
  threads: number,
  runs: number,
): number {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    device.run(readProbe, { data, sums, threads });
    best = Math.min(best, performance.now() - start);
  }
  return data.size / best / 1e6;
}
