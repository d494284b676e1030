// The helpers that every other test leans on.

import {
  type BenchRow,
  calcDiff,
  formatRows,
  hasProgram,
  markdownRows,
  maxAbsDiff,
  median,
  requirement,
  rmsDiff,
  seededRandom,
  sharedDir,
  testSeed,
} from "@open-infra/testing";
import { afterEach, describe, expect, it, vi } from "vitest";

afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

describe("differences", () => {
  it("calcDiff is DeepGEMM's: 1 - 2xy / (xx + yy)", () => {
    expect(calcDiff([1, 2, 3], [1, 2, 3])).toBe(0);
    expect(calcDiff([0, 0], [0, 0])).toBe(0);
    expect(calcDiff([1, 0], [0, 1])).toBe(1);
    expect(calcDiff([1, 1], [-1, -1])).toBe(2);
    expect(calcDiff([1], [2])).toBeCloseTo(1 - 4 / 5, 12);
    expect(calcDiff([0], [1e-30])).toBe(1);
  });

  it("maxAbsDiff and rmsDiff measure what they say", () => {
    expect(maxAbsDiff([1, -2, 3], [1, 2, 2.5])).toBe(4);
    expect(rmsDiff([3, 0], [0, 4])).toBeCloseTo(Math.sqrt(12.5), 12);
    expect([maxAbsDiff([], []), rmsDiff([], [])]).toEqual([0, 0]);
    expect(maxAbsDiff([Number.POSITIVE_INFINITY], [Number.POSITIVE_INFINITY])).toBe(0);
  });

  it("a NaN on one side is never within a bound", () => {
    for (const difference of [calcDiff, maxAbsDiff, rmsDiff]) {
      expect(difference([1, Number.NaN], [1, 5]) < 1e9, difference.name).toBe(false);
      expect(() => difference([1, 2], [1])).toThrow("cannot compare 2 values with 1");
    }
    expect(maxAbsDiff([Number.NaN, 1], [Number.NaN, 3])).toBe(2);
  });
});

describe("requirement", () => {
  const missing = "no gcc; install it with apt install gcc";

  it("met: runs, and says nothing", () => {
    const log = vi.spyOn(console, "log").mockImplementation(() => {});
    vi.stubEnv("REQUIRE_ALL", "1");
    expect(requirement("kernels", true)).toBe(false);
    expect(log).not.toHaveBeenCalled();
  });

  it("missing: skips with one line that says what and how", () => {
    const log = vi.spyOn(console, "log").mockImplementation(() => {});
    vi.stubEnv("REQUIRE_ALL", undefined);
    expect(requirement("kernels", missing)).toBe(true);
    expect(log.mock.calls).toEqual([[`SKIP kernels: ${missing}`]]);
  });

  it("missing under REQUIRE_ALL=1: fails, unless optional", () => {
    const log = vi.spyOn(console, "log").mockImplementation(() => {});
    vi.stubEnv("REQUIRE_ALL", "1");
    expect(() => requirement("kernels", missing)).toThrow(
      `REQUIRE_ALL=1, but SKIP kernels: no gcc`,
    );
    expect(requirement("gold", "no ../shared", "optional")).toBe(true);
    expect(log.mock.calls).toEqual([["SKIP gold: no ../shared"]]);
  });

  it("finds programs and folders, or not", () => {
    expect(hasProgram(process.execPath)).toBe(true);
    expect(hasProgram("no-such-program-anywhere")).toBe(false);
    expect(sharedDir("no/such/folder")).toBeUndefined();
  });
});

describe("seeds", () => {
  it("give the same numbers again, and others for another seed", () => {
    const draw = (seed: number): number[] => {
      const random = seededRandom(seed);
      return [random.next(), random.int(0, 100), random.normal(), random.pick([1, 2, 3])];
    };
    expect(draw(5)).toEqual(draw(5));
    expect(draw(5)).not.toEqual(draw(6));
    expect(seededRandom(5).seed).toBe(5);
  });

  it("draw what they claim to", () => {
    const random = seededRandom(testSeed());
    const hint = `seed ${random.seed}`;
    const normals = Float64Array.from({ length: 20_000 }, () => random.normal());
    expect(Math.abs(normals.reduce((a, b) => a + b) / normals.length), hint).toBeLessThan(0.05);
    expect(rmsDiff(normals, new Float64Array(normals.length)), hint).toBeCloseTo(1, 1);
    const ints = Array.from({ length: 1000 }, () => random.int(-2, 3));
    expect(new Set(ints), hint).toEqual(new Set([-2, -1, 0, 1, 2]));
  });

  it("come from OPEN_INFRA_TEST_SEED, which must be a seed", () => {
    vi.stubEnv("OPEN_INFRA_TEST_SEED", "");
    expect(testSeed(3)).toBe(3);
    vi.stubEnv("OPEN_INFRA_TEST_SEED", "4294967295");
    expect(testSeed(3)).toBe(4294967295);
    for (const wrong of ["seven", "-1", "1.5", "4294967296"]) {
      vi.stubEnv("OPEN_INFRA_TEST_SEED", wrong);
      expect(() => testSeed(), wrong).toThrow(`OPEN_INFRA_TEST_SEED is ${wrong}; expected`);
    }
  });
});

describe("bench rows", () => {
  const rows: readonly BenchRow[] = [
    { case: "gemm", shape: "1×2", us: 12.345, boundRatio: 0.714, bound: "bandwidth", gbs: 8.25 },
    { case: "attention", shape: "64", us: 1234.5, boundRatio: 1, bound: "compute" },
  ];

  it("become a table for the terminal, columns aligned", () => {
    const [head, first, second] = formatRows(rows).split("\n") as [string, string, string];
    expect(head).toMatch(/^case +shape +µs +GB\/s +of the limit$/);
    expect(first).toMatch(/^gemm +1×2 +12\.35? +8\.3 +71 % of bandwidth$/);
    expect(second.indexOf("64")).toBe(first.indexOf("1×2"));
  });

  it("become a Markdown table without empty columns", () => {
    expect(markdownRows(rows).split("\n")).toEqual([
      "| case | shape | µs | GB/s | of the limit |",
      "| --- | --- | --- | --- | --- |",
      "| gemm | 1×2 | 12.35 | 8.3 | 71 % of bandwidth |",
      "| attention | 64 | 1235 |  | 100 % of compute |",
    ]);
  });

  it("say what the machine's best unit could do, and why a peer is missing", () => {
    const row: BenchRow = { case: "gemm", shape: "1", us: 1, bestRatio: 0.064, peer: "no peer" };
    expect(markdownRows([row])).toContain("| 1.00 | 6 % | no peer |");
    expect(markdownRows([{ ...row, peerRatio: 2 }])).toContain("| 6 % | 2.00× no peer |");
  });

  it("take the median", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
  });
});
