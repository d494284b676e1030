// Measures what this machine can do, so that every figure of a bench stands beside its limit. The
// best of several short runs counts, each kind in turn within a run: a limit is what is possible,
// and other programs only take away. What a measured time means beside a limit is in roofline.ts.

import { freemem } from "node:os";
import { Tensor } from "@open-infra/tensor";
import { bf16Products } from "./bf16-products.ts";
import type { Device } from "./device.ts";
import { CompileError, UnsupportedError } from "./errors.ts";
import { defineKernel, type KernelConstants, type Operation } from "./operation.ts";
import { kernelUrl } from "./paths.ts";

/** Matrix tiles (Intel AMX): 16 × 16 sums an instruction. */
export interface TileLimits {
  readonly bf16GflopsPerThread: number;
  readonly bf16Gflops: number;
  readonly int8GopsPerThread: number;
  readonly int8Gops: number;
}

/**
 * Limits of a machine as a device uses it. Rates are 1e9 a second, and a multiply-add is two
 * operations. `…PerThread` is one thread alone; the others are all threads of the device at once.
 */
export interface MachineLimits {
  /** float32 multiply-adds in registers. */
  readonly f32GflopsPerThread: number;
  readonly f32Gflops: number;
  /**
   * bf16 products with f32 sums by the dot-product instruction; 0 without one. Intel's is half as
   * fast as its float32 multiply-adds, AMD's twice.
   */
  readonly bf16DotGflopsPerThread: number;
  readonly bf16DotGflops: number;
  /**
   * bf16 products with f32 sums by vector instructions, whichever way is faster: the dot product,
   * or widened (free of charge) and multiplied as f32.
   */
  readonly bf16GflopsPerThread: number;
  readonly bf16Gflops: number;
  /** Whether `bf16Gflops` comes from the dot-product instruction. */
  readonly bf16Instruction: boolean;
  /** What kernels of this device multiply bf16 with: matrix tiles, or vectors. */
  readonly bf16Unit: "bf16" | "bf16Tiles";
  /** Dot products of bytes with 32-bit sums; 0 without an instruction. */
  readonly int8GopsPerThread: number;
  readonly int8Gops: number;
  /** Undefined without tiles, or where the system or the compiler does not grant them. */
  readonly tiles: TileLimits | undefined;
  /** Memory read as a stream. */
  readonly readGBs: number;
  readonly readGBsPerThread: number;
  /** Size of the buffer that was read; beyond the caches unless the last one is larger. */
  readonly readBytes: number;
  /**
   * Median part of the compute runs' time that their threads had a core: 1 on an idle machine.
   * Limits of compute and of one thread count processor time and do not suffer, but `readGBs` and
   * what is measured beside the limits do: below some 0.9, run again in a quieter moment.
   */
  readonly coreShare: number;
}

export interface MeasureOptions {
  /** @default 512 MiB, or less where memory is short */
  readonly readBytes?: number;
  /** Runs of each measurement, of which the best counts. @default 5 */
  readonly runs?: number;
  /** Length of one compute run, about. @default 10 */
  readonly milliseconds?: number;
}

/** Of a probe; `lines` has 64 bytes for each thread. */
export interface ProbeArgs {
  readonly lines: Tensor<"f64">;
  readonly rounds: number;
  readonly threads: number;
  readonly data?: Tensor<"u8">;
}

/** Numbers of a thread's own cache line in `lines`: seconds, operations a round. */
const LINE = 8;

function probe(entry: string, file: string, constants: KernelConstants = {}): Operation<ProbeArgs> {
  return {
    name: entry,
    check: () => {},
    reference: () => {
      throw new UnsupportedError(entry, "reference", "it measures hardware");
    },
    kernels: {
      cpu: defineKernel({
        language: "c",
        source: kernelUrl(file),
        entry,
        params: { lines: "ptr", rounds: "i64", data: "ptr", blocks: "i64" },
        constants: () => ({ AHEAD: 0, ...constants }),
        pack: ({ lines, rounds, data }: ProbeArgs) => ({
          lines,
          rounds,
          data: data ?? null,
          blocks: Math.floor((data?.size ?? 0) / 512),
        }),
        threads: ({ threads }) => threads,
      }),
    },
  };
}

/** What compute probes measure. */
export type ComputeKind = "f32" | "bf16Dot" | "int8Dot" | "bf16Tiles" | "int8Tiles";

/** The compute probes; exported for the test that reads their assembly. */
export const computeProbes: Readonly<Record<ComputeKind, Operation<ProbeArgs>>> = {
  f32: probe("probe_f32", "probe.c"),
  bf16Dot: probe("probe_bf16", "probe.c"),
  int8Dot: probe("probe_int8", "probe.c"),
  bf16Tiles: probe("probe_tiles_bf16", "probe_tiles.c"),
  int8Tiles: probe("probe_tiles_int8", "probe_tiles.c"),
};

/** Hardware alone, and helped by software prefetch: which is faster depends on the machine. */
const readProbes = [0, 1024].map((AHEAD) => probe("probe_read", "probe.c", { AHEAD }));

/**
 * Measures a device's machine; takes about two seconds.
 *
 * @throws UnsupportedError for a device that runs no native kernels.
 */
export function measureMachine(device: Device, options: MeasureOptions = {}): MachineLimits {
  const runs = options.runs ?? 5;
  const milliseconds = options.milliseconds ?? 10;
  const readBytes = options.readBytes ?? Math.min(512 << 20, Math.floor(freemem() / 4));
  using lines = Tensor.empty([device.threads * LINE], "f64", "lines");
  using data = Tensor.empty([Math.max(1 << 20, readBytes)], "u8", "stream");
  device.adviseHuge?.(data);
  data.bytes().fill(1); // Memory never written is one page of zeros, read from the cache.
  const counts = device.threads === 1 ? [1] : [1, device.threads];
  const computed = computeCases(device, { lines, counts, milliseconds });
  const best = new Map<string, number>();
  const keep = (key: string, rate: number): void => {
    best.set(key, Math.max(best.get(key) ?? 0, rate));
  };
  const shares: number[] = [];
  for (let run = 0; run < runs; run++) {
    for (const one of computed) {
      const { rate, share } = runCompute(device, lines, one);
      keep(`${one.kind} ${one.threads}`, rate);
      shares.push(share);
    }
    for (const threads of counts) {
      for (const read of readProbes) {
        keep(`read ${threads}`, readRate(device, read, { data, lines, threads, rounds: 0 }));
      }
    }
  }
  return {
    ...limitsOf((kind, threads) => best.get(`${kind} ${threads}`) ?? 0, device.threads),
    bf16Unit: bf16Products(device.isa ?? "") === "tiles" ? "bf16Tiles" : "bf16",
    readBytes: data.size,
    coreShare: shares.toSorted((a, b) => a - b)[shares.length >> 1] as number,
  };
}

function limitsOf(
  rate: (kind: ComputeKind | "read", threads: number) => number,
  threads: number,
): Omit<MachineLimits, "bf16Unit" | "readBytes" | "coreShare"> {
  const [f32One, f32All] = [rate("f32", 1), rate("f32", threads)];
  const [dotOne, dotAll] = [rate("bf16Dot", 1), rate("bf16Dot", threads)];
  const tiles = {
    bf16GflopsPerThread: rate("bf16Tiles", 1),
    bf16Gflops: rate("bf16Tiles", threads),
    int8GopsPerThread: rate("int8Tiles", 1),
    int8Gops: rate("int8Tiles", threads),
  };
  return {
    f32GflopsPerThread: f32One,
    f32Gflops: f32All,
    bf16DotGflopsPerThread: dotOne,
    bf16DotGflops: dotAll,
    bf16GflopsPerThread: Math.max(f32One, dotOne),
    bf16Gflops: Math.max(f32All, dotAll),
    bf16Instruction: dotAll > f32All,
    int8GopsPerThread: rate("int8Dot", 1),
    int8Gops: rate("int8Dot", threads),
    tiles: tiles.bf16Gflops > 0 ? tiles : undefined,
    readGBs: Math.max(rate("read", threads), rate("read", 1)),
    readGBsPerThread: rate("read", 1),
  };
}

interface ComputeCase {
  readonly kind: ComputeKind;
  readonly threads: number;
  readonly rounds: number;
}

interface CaseOptions {
  readonly lines: Tensor<"f64">;
  readonly counts: readonly number[];
  readonly milliseconds: number;
}

/** What the machine has, each with as many rounds as fill the time. */
function computeCases(device: Device, options: CaseOptions): ComputeCase[] {
  const { lines, counts, milliseconds } = options;
  return (Object.keys(computeProbes) as ComputeKind[]).flatMap((kind) => {
    const operation = computeProbes[kind];
    const seconds = (rounds: number): number => {
      device.run(operation, { lines, rounds, threads: 1 });
      return lines.raw()[0] as number;
    };
    try {
      seconds(1);
    } catch (error) {
      // An older compiler does not know the tiles' instructions; all others every compiler does.
      if (error instanceof CompileError && kind.endsWith("Tiles")) return [];
      throw error;
    }
    if (lines.raw()[1] === 0) return [];
    let rounds = 1000;
    for (let took = seconds(rounds); took * 1e3 < milliseconds; took = seconds(rounds)) {
      const factor = (1.2 * milliseconds) / Math.max(took * 1e3, 0.01);
      rounds = Math.ceil(rounds * Math.min(10, Math.max(1.2, factor)));
    }
    return counts.map((threads) => ({ kind, threads, rounds }));
  });
}

/** Operations in 1e9 a second, and the part of the wall's time that the threads ran. */
function runCompute(
  device: Device,
  lines: Tensor<"f64">,
  { kind, threads, rounds }: ComputeCase,
): { readonly rate: number; readonly share: number } {
  const start = performance.now();
  device.run(computeProbes[kind], { lines, rounds, threads });
  const wall = (performance.now() - start) / 1e3;
  const values = lines.raw();
  let rate = 0;
  let busy = 0;
  for (let thread = 0; thread < threads; thread++) {
    const seconds = values[thread * LINE] as number;
    rate += (rounds * (values[thread * LINE + 1] as number)) / seconds / 1e9;
    busy += seconds;
  }
  return { rate, share: Math.min(1, busy / (wall * threads)) };
}

/**
 * Bytes in 1e9 a second: one thread by its processor time, several by the wall's, because what they
 * wait for is shared.
 */
function readRate(
  device: Device,
  operation: Operation<ProbeArgs>,
  args: ProbeArgs & { readonly data: Tensor<"u8"> },
): number {
  const start = performance.now();
  device.run(operation, args);
  const wall = (performance.now() - start) / 1e3;
  return args.data.size / (args.threads === 1 ? (args.lines.raw()[0] as number) : wall) / 1e9;
}
