// The README documents the JSON of the analyses: every field that a result has must be named there.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { analyzeTrace, diffTraces } from "@open-infra/profile/analyze";
import { describe, expect, it } from "vitest";
import { TraceMaker } from "./trace-maker.ts";

const readme = readFileSync(fileURLToPath(new URL("../README.md", import.meta.url)), "utf8");

/** All keys of a value, however deep; kernels' and classes' names are values, not keys. */
function keysOf(value: unknown, keys = new Set<string>()): Set<string> {
  if (Array.isArray(value)) for (const item of value) keysOf(item, keys);
  else if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      keys.add(key);
      keysOf(inner, keys);
    }
  }
  return keys;
}

/** Something of everything: steps, annotations, launches, grids, two streams, issue and wait. */
function richTrace(name: string) {
  const maker = new TraceMaker();
  const ll = "void deep_ep::internode_ll::dispatch<true, 7168>(void*)";
  for (let step = 0; step < 2; step++) {
    const at = 1000 * step;
    maker.annotation(`ProfilerStep#${step}`, at, at + 900).launch(3 * step, at + 10, at + 12);
    maker.launch(3 * step + 1, at + 20, at + 22).launch(3 * step + 2, at + 30, at + 32);
    maker.kernel(ll, at + 40, at + 50, { correlation: 3 * step, grid: 20 });
    maker.kernel(name, at + 60, at + 400, { correlation: 3 * step + 1, grid: 112 });
    maker.kernel(ll, at + 420, at + 450, { correlation: 3 * step + 2, grid: 20 });
    maker.kernel("ncclDevKernel_SendRecv()", at + 100, at + 500, { stream: 20 });
  }
  return analyzeTrace(maker.table({ deviceProperties: [{ id: 0, numSms: 132 }] }));
}

describe("the README", () => {
  it("names every field of an analysis and of a comparison", () => {
    const analysis = richTrace("void deep_gemm::fp8_gemm<1>()");
    const diff = diffTraces(analysis, richTrace("void deep_gemm::fp8_gemm<2>()"));
    const missing = [...keysOf(analysis), ...keysOf(diff)].filter((key) => {
      // `…Percent` stands for the three shares of idle time.
      const named = new RegExp(`\`[^\`\\n]*\\b${key}\\b`).test(readme);
      return !named && !/^(?:hostWait|kernelWait|other)(?:Percent)?$/.test(key);
    });
    expect(missing).toEqual([]);
  });
});
