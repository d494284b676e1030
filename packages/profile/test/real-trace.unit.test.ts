// The published training trace of DeepSeek-V3 (one forward and one backward chunk of DualPipe, four
// layers, 64 ranks), read and analysed; figures found independently from the same file. The file
// has no licence and is not in the repository: without it these tests do nothing.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  analyzeTrace,
  diffTraces,
  type EventTable,
  readTrace,
  type TraceAnalysis,
} from "@open-infra/profile/analyze";
import { sharedDir } from "@open-infra/testing";
import { beforeAll, describe, expect, it } from "vitest";

const folder = sharedDir("data");

describe.skipIf(folder === undefined)("the published training trace", () => {
  let table: EventTable;
  let result: TraceAnalysis;
  beforeAll(async () => {
    table = await readTrace(readFileSync(join(folder as string, "deepseek-train-trace.json")));
    result = analyzeTrace(table);
  });

  it("has the temporal breakdown of the reference", () => {
    expect(result.summary).toMatchObject({
      spanUs: 129_012,
      busyUs: 128_515,
      idleUs: 497,
      computeUs: 124_310,
      communicationUs: 113_440,
      memoryUs: 28,
      overlapUs: 109_250,
      exposedCommunicationUs: 4_190,
      overlapPercent: 96.31,
    });
    expect(result.warnings).toEqual([]);
  });

  it("hides 96 % of dispatch, combine and notify", () => {
    const { dispatchCombine, notify, streams } = result.overlap;
    expect(dispatchCombine).toMatchObject({
      communicationUs: 80_452,
      overlapUs: 77_496,
      overlapPercent: 96.33,
    });
    expect(notify).toMatchObject({ communicationUs: 32_578, overlapUs: 31_372 });
    expect(streams.find(({ a, b }) => a === 7 && b === 23)?.overlapUs).toBe(5_262);
  });

  it("has the streams' busy and idle times by HTA's rule", () => {
    const streams = result.devices[0]?.streams.map(({ stream, busyUs }) => [stream, busyUs]);
    expect(streams).toEqual([
      [7, 118_193],
      [23, 11_355],
      [27, 114_521],
    ]);
    const idle = result.idle.map((row) => [row.hostWaitUs, row.kernelWaitUs, row.otherUs]);
    expect(idle).toEqual([
      [417, 1_797, 8_130],
      [82_308, 13, 4_900],
      [1_107, 131, 10_756],
    ]);
  });

  it("has the classes of the reference, counts and sums", () => {
    const sums = (name: string) => {
      const all = result.kernels.classes.filter((each) => each.class === name);
      return all.map(({ count, sumUs }) => [count, sumUs]);
    };
    expect(sums("ep_dispatch")).toEqual([[8, 31_004]]);
    expect(sums("ep_combine")).toEqual([[8, 49_448]]);
    expect(sums("ep_notify")).toEqual([[16, 32_578]]);
    expect(sums("ep_layout")).toEqual([[4, 410]]);
    expect(sums("gemm_fp8")).toEqual([[140, 74_520]]);
    expect(sums("attention_forward")).toEqual([[4, 4_948]]);
    expect(sums("attention_backward")).toEqual([[12, 17_017]]);
    expect(sums("quant_cast")).toEqual([[176, 14_845]]);
    expect(sums("permute")).toEqual([[24, 5_067]]);
    expect(sums("norm")).toEqual([[64, 3_448]]);
    expect(sums("swiglu")).toEqual([[12, 1_863]]);
    expect(sums("rope")).toEqual([[24, 1_512]]);
    expect(sums("router")).toEqual([[20, 639]]);
    expect(sums("cublas")).toEqual([[12, 537]]);
    expect(sums("unclassified")).toEqual([]);
    const variants = result.kernels.classes
      .find((each) => each.class === "ep_dispatch")
      ?.variants.map(({ variant, count, sumUs }) => [variant, count, sumUs]);
    expect(variants).toEqual([
      ["", 4, 17_383],
      ["cached", 4, 13_621],
    ]);
  });

  it("belongs to the annotations of the reference, all of it", () => {
    const rows = result.annotations.annotations.flatMap(({ name, streams }) =>
      streams.map(({ stream, sumUs }) => [name, stream, sumUs]),
    );
    expect(rows).toEqual([
      ["combine(B)", 27, 23_077],
      ["attn(F)", 7, 17_479],
      ["mlp(B)", 7, 21_224],
      ["dispatch(F)", 27, 26_761],
      ["dispatch(B)", 27, 29_947],
      ["mlp(W)", 7, 14_158],
      ["mlp(W)", 23, 11_355],
      ["mlp(F)", 7, 18_415],
      ["attn(B)", 7, 37_363],
      ["attn(W)", 7, 9_554],
      ["combine(F)", 27, 34_736],
    ]);
    expect(result.annotations.unattributedEvents).toBe(0);
  });

  it("has launches, partition, cycles and bounds", () => {
    expect(result.launches).toMatchObject({
      matched: 983,
      unmatched: 0,
      queueDelay: { minUs: -2, medianUs: 15_494, maxUs: 24_346 },
    });
    expect(result.smPartition[0]).toMatchObject({
      numSms: 132,
      communicationSms: 20,
      computeSms: 112,
      confidence: "high",
    });
    expect(result.phases.kind).toBe("cycles");
    expect(result.phases.cycle).toHaveLength(10);
    expect(result.phases.phases).toHaveLength(4);
    expect(result.bounds).toMatchObject({ lowerBoundUs: 124_310, fullOverlapSavesUs: 4_190 });
  });

  it("is itself again when compared with itself", () => {
    expect(diffTraces(result, result)).toMatchObject({ verdict: "pass", regressions: [] });
  });
});
