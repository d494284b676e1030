// The paper's figures, by the model: gold test 14's second half.

import { describe, expect, it } from "vitest";
import {
  estimateNccl,
  estimateTree,
  fireFlyer2,
  memoryOperations,
  paperBytes,
  paperGpus,
  paperRows,
  pcieUnits,
  planAllreduce,
  simulateAllreduce,
  type Variant,
} from "../src/model/index.ts";

describe("memory operations", () => {
  it("are the paper's: 24, 30 and 16, and the ceilings that follow", () => {
    const of = (variant: Variant): [number, number] => {
      const { total, ceilingGBs } = memoryOperations(fireFlyer2, variant);
      return [total, Number(ceilingGBs.toFixed(1))];
    };
    expect(of("gdrcopy")).toEqual([24, 13.3]);
    expect(of("memcpy")).toEqual([30, 10.7]);
    expect(of("nvlink")).toEqual([16, 20]);
    const { steps } = memoryOperations(fireFlyer2);
    expect(steps.map(({ reads, writes }) => [reads, writes])).toEqual([
      [0, 8],
      [8, 1],
      [3, 2],
      [2, 0],
    ]);
  });

  it("PCIe units are 1 against (2n − 1)/n, or 2(n − 1)/n by steps", () => {
    expect(pcieUnits(8)).toEqual({ hfreduce: 1, ncclPaper: 15 / 8, ncclSteps: 14 / 8 });
  });
});

describe("the table of 186 MiB", () => {
  const simulate = (variant: Variant, zones: number): number[] =>
    paperGpus.map((gpus) => {
      const options = { nodes: gpus / 8, bytes: paperBytes, variant, zones };
      return simulateAllreduce(options, fireFlyer2).GBs;
    });
  const rows: [string, Variant, number, number][] = [
    ["hfreduce", "gdrcopy", 1, 0.15],
    ["nvlink", "nvlink", 1, 0.16],
    ["nvlinkCrossZone", "nvlink", 2, 0.15],
  ];
  for (const [row, variant, zones, within] of rows) {
    it(`${row} comes out within ${within * 100} %`, () => {
      simulate(variant, zones).forEach((GBs, i) => {
        const paper = paperRows[row]?.[i];
        if (paper === undefined) return;
        expect(Math.abs(GBs / paper - 1), `${paperGpus[i]} GPUs: ${GBs}`).toBeLessThan(within);
      });
    });
  }

  it("the order of 256 and 512, which the source leaves open, does not matter", () => {
    const all = simulate("gdrcopy", 1);
    for (const at of [4, 5]) {
      for (const paper of [7.12, 7.33])
        expect(Math.abs((all[at] as number) / paper - 1)).toBeLessThan(0.15);
    }
  });

  it("NCCL's ring is where the paper has it at the ends, about", () => {
    const at = (gpus: number): number => estimateNccl({ gpus, bytes: paperBytes }, fireFlyer2).GBs;
    expect(at(64)).toBeCloseTo(4.29, 0);
    expect(at(1440)).toBeCloseTo(1.65, 0);
  });
});

describe("simulation and estimate", () => {
  it("agree within 20 % from 2 nodes to 180", () => {
    for (const nodes of [2, 4, 16, 64, 180]) {
      const options = { nodes, bytes: paperBytes };
      const ratio =
        estimateTree(options, fireFlyer2).GBs / simulateAllreduce(options, fireFlyer2).GBs;
      expect(Math.abs(ratio - 1), `${nodes} nodes`).toBeLessThan(0.2);
    }
  });

  it("keep to the bounds: memory, root port, NIC", () => {
    for (const variant of ["gdrcopy", "memcpy", "nvlink"] as const) {
      const { GBs, busy } = simulateAllreduce({ nodes: 8, bytes: 1e9, variant }, fireFlyer2);
      expect(GBs).toBeLessThan(memoryOperations(fireFlyer2, variant).ceilingGBs);
      for (const share of Object.values(busy)) expect(share).toBeLessThanOrEqual(1);
    }
  });

  it("a lone node neither sends nor waits", () => {
    const { busy } = simulateAllreduce({ nodes: 1, bytes: 1e8 }, fireFlyer2);
    expect(busy.send).toBe(0);
    expect(busy.rootPort).toBeGreaterThan(0.9);
  });
});

describe("plans", () => {
  it("take the tree for many nodes, name what limits, and go beyond the paper", () => {
    const plan = planAllreduce({ gpus: 10_000, bytes: 4 << 20 });
    expect(plan).toMatchObject({ nodes: 1250, zones: 3, memoryOperations: 24 });
    expect(plan.ways[0]?.way).toBe("tree");
    expect(plan.ways.find(({ way }) => way === "ring")?.GBs).toBeLessThan(1);
    expect(plan.limitedBy).toBe("latency");
    const small = planAllreduce({ gpus: 16, bytes: paperBytes });
    expect(small.limitedBy).toBe("rootPort");
    expect(planAllreduce({ gpus: 1440, bytes: 1024 }).limitedBy).toBe("latency");
  });

  it("refuse what cannot be", () => {
    expect(() => planAllreduce({ gpus: 0, bytes: 1 })).toThrow(
      "gpus is 0; expected a whole number",
    );
    expect(() => planAllreduce({ gpus: 8, bytes: 0.5 })).toThrow("bytes");
    expect(() => planAllreduce({ gpus: 8, bytes: 1, zones: 2 })).toThrow("zones");
  });
});
