// The roofline's arithmetic on a made-up machine.

import { describe, expect, it } from "vitest";
import type { MachineLimits } from "../src/probe.ts";
import { computePeak, largestLimits, readBandwidth, roofline } from "../src/roofline.ts";

const machine: MachineLimits = {
  f32GflopsPerThread: 100,
  f32Gflops: 390,
  bf16DotGflopsPerThread: 50,
  bf16DotGflops: 195,
  bf16GflopsPerThread: 100,
  bf16Gflops: 390,
  bf16Instruction: false,
  bf16Unit: "bf16",
  int8GopsPerThread: 400,
  int8Gops: 1600,
  tiles: { bf16GflopsPerThread: 1600, bf16Gflops: 6400, int8GopsPerThread: 3200, int8Gops: 12800 },
  readGBs: 30,
  readGBsPerThread: 20,
  readBytes: 1 << 29,
  coreShare: 0.9,
};

describe("roofline", () => {
  it("takes the larger of compute and bandwidth", () => {
    // 1 ms at 390 GFLOP/s, or 1 ms at 30 GB/s.
    const flops = 390e6;
    const bytes = 30e6;
    const unit = "f32";
    expect(roofline(machine, { flops, bytes: bytes / 2 }, 2000, { unit })).toEqual({
      bound: "compute",
      boundRatio: 0.5,
      bestRatio: 0.5,
    });
    expect(roofline(machine, { flops: flops / 2, bytes }, 2000, { unit })).toEqual({
      bound: "bandwidth",
      boundRatio: 0.5,
      bestRatio: 0.5,
    });
  });

  it("holds a case against its own unit and against the machine's best", () => {
    const work = { flops: 195e6, bytes: 1e3 };
    const dot = roofline(machine, work, 1000, { unit: "bf16Dot" });
    expect(dot.boundRatio).toBeCloseTo(1, 12);
    expect(dot.bestRatio).toBeCloseTo(195 / 6400, 12);
    const wide = roofline({ ...machine, tiles: undefined }, work, 1000, { unit: "bf16" });
    expect(wide.boundRatio).toBeCloseTo(0.5, 12);
    expect(wide.bestRatio).toBeCloseTo(0.5, 12);
  });

  it("knows what some of the threads can do", () => {
    expect(computePeak(machine, "f32", 1)).toBe(100);
    expect(computePeak(machine, "f32", 3)).toBe(300);
    expect(computePeak(machine, "f32", 4)).toBe(390);
    expect(computePeak(machine, "f32")).toBe(390);
    expect(computePeak(machine, "int8Tiles", 1)).toBe(3200);
    expect(computePeak({ ...machine, tiles: undefined }, "int8Tiles")).toBe(0);
    expect(readBandwidth(machine, 1)).toBe(20);
    expect(readBandwidth(machine, 2)).toBe(30);
  });

  it("merges two measurements into the larger limits", () => {
    const other = {
      ...machine,
      f32Gflops: 300,
      bf16DotGflops: 400,
      readGBs: 33,
      tiles: undefined,
      coreShare: 0.7,
    };
    const merged = largestLimits(machine, other);
    expect(merged).toMatchObject({ f32Gflops: 390, bf16DotGflops: 400, readGBs: 33 });
    expect(merged).toMatchObject({ bf16Instruction: true, tiles: machine.tiles, coreShare: 0.7 });
  });
});
