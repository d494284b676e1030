// What a measured time means beside a machine's limits: the roofline. Limits themselves are
// measured in probe.ts.

import type { MachineLimits } from "./probe.ts";

/** What a case must do at least. */
export interface Work {
  /** A multiply-add is two. */
  readonly flops: number;
  readonly bytes: number;
}

/**
 * The instruction that a kernel multiplies with: `f32` multiply-adds, the `bf16Dot` product, the
 * faster of the two for bf16 operands (`bf16`), the `int8Dot` product, or matrix tiles. Which one a
 * device's kernels take for bf16 is `MachineLimits.bf16Unit`.
 */
export type ComputeUnit = "f32" | "bf16" | "bf16Dot" | "int8Dot" | "bf16Tiles" | "int8Tiles";

/** How near a time is to what bounds it. */
export interface Bound {
  /** The larger of flops ÷ peak and bytes ÷ bandwidth says which. */
  readonly bound: "compute" | "bandwidth";
  /** Fraction of that bound: 1 is the limit. */
  readonly boundRatio: number;
  /**
   * The same against the fastest unit of this machine for the same operands, matrix tiles
   * included: what a library that uses them could reach.
   */
  readonly bestRatio: number;
}

/** Peak of a unit in 1e9 operations a second, 0 where the machine lacks it. */
export function computePeak(limits: MachineLimits, unit: ComputeUnit, threads?: number): number {
  const { tiles } = limits;
  const peaks: Readonly<Record<ComputeUnit, readonly [one: number, all: number]>> = {
    f32: [limits.f32GflopsPerThread, limits.f32Gflops],
    bf16: [limits.bf16GflopsPerThread, limits.bf16Gflops],
    bf16Dot: [limits.bf16DotGflopsPerThread, limits.bf16DotGflops],
    int8Dot: [limits.int8GopsPerThread, limits.int8Gops],
    bf16Tiles: [tiles?.bf16GflopsPerThread ?? 0, tiles?.bf16Gflops ?? 0],
    int8Tiles: [tiles?.int8GopsPerThread ?? 0, tiles?.int8Gops ?? 0],
  };
  return ofThreads(peaks[unit], threads);
}

/** Read bandwidth in 1e9 bytes a second of some threads, all when left out. */
export function readBandwidth(limits: MachineLimits, threads?: number): number {
  return ofThreads([limits.readGBsPerThread, limits.readGBs], threads);
}

/** One thread has its own limit; several have theirs together, never more than all. */
function ofThreads([one, all]: readonly [number, number], threads: number | undefined): number {
  return threads === undefined ? all : Math.min(all, one * threads);
}

const fastest: Readonly<Record<ComputeUnit, readonly ComputeUnit[]>> = {
  f32: ["f32"],
  bf16: ["bf16", "bf16Tiles"],
  bf16Dot: ["bf16", "bf16Tiles"],
  bf16Tiles: ["bf16", "bf16Tiles"],
  int8Dot: ["int8Dot", "int8Tiles"],
  int8Tiles: ["int8Dot", "int8Tiles"],
};

/** A case's time beside its roofline. */
export function roofline(
  limits: MachineLimits,
  work: Work,
  us: number,
  options: { readonly unit: ComputeUnit; readonly threads?: number },
): Bound {
  const { unit, threads } = options;
  const memoryUs = work.bytes / readBandwidth(limits, threads) / 1e3;
  const computeUs = work.flops / computePeak(limits, unit, threads) / 1e3;
  const best = Math.max(...fastest[unit].map((other) => computePeak(limits, other, threads)));
  return {
    bound: computeUs > memoryUs ? "compute" : "bandwidth",
    boundRatio: Math.max(computeUs, memoryUs) / us,
    bestRatio: Math.max(work.flops / best / 1e3, memoryUs) / us,
  };
}

/**
 * The larger of each limit of two measurements, before and after a bench: on a shared machine a
 * limit can only come out too low.
 */
export function largestLimits(a: MachineLimits, b: MachineLimits): MachineLimits {
  const larger = <T extends object>(x: T, y: T): T =>
    Object.fromEntries(
      Object.entries(x).map(([key, value]) => {
        const other = (y as Readonly<Record<string, unknown>>)[key];
        return [key, typeof value === "number" ? Math.max(value, other as number) : value];
      }),
    ) as T;
  const merged = larger(a, b);
  return {
    ...merged,
    bf16Instruction: merged.bf16DotGflops > merged.f32Gflops,
    tiles: a.tiles && b.tiles ? larger(a.tiles, b.tiles) : (a.tiles ?? b.tiles),
    coreShare: Math.min(a.coreShare, b.coreShare),
  };
}
