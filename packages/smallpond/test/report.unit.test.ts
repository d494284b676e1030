// A report of many tasks: exact figures while they are few, near ones in bounded memory when they
// are not; the plan as a picture.

import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterEach, describe, expect, it } from "vitest";
import { layoutPlan, quantile, Sample, type StepLine } from "../src/live/index.ts";
import { JobReport } from "../src/session/report.ts";
import type { Task, TaskResult } from "../src/task/task.ts";

let folder = "";
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const step = (node: string, inputs: readonly string[], text = ""): StepLine => ({
  ...{ node, kind: "sql", text, inputs, source: "/srv/job.ts:3", tasks: 1 },
});

function taskOf(i: number): Task {
  return {
    ...{ key: `k${i}`, node: "a,b", partition: {}, inputs: [], outputs: 1, seed: 0 },
    ...{ op: { kind: "sql", queries: [] }, resources: { cpus: 1 } },
    parquet: { compression: "zstd" },
  };
}

const resultOf = (i: number, elapsedMs: number): TaskResult => ({
  ...{ key: `k${i}`, outputs: [] },
  metrics: {
    ...{ startedMs: i, elapsedMs, inputRows: undefined, outputRows: 2, outputBytes: 10 },
    ...{ cpuMs: 1, maxRssBytes: 5, executor: `local-${i % 2}` },
  },
});

describe("quantiles", () => {
  it("are nearest ranks", () => {
    expect(quantile([], 0.5)).toBeUndefined();
    expect([0, 0.5, 0.51, 0.75, 1].map((part) => quantile([1, 2, 3, 4], part))).toEqual([
      ...[1, 2, 3, 3, 4],
    ]);
  });

  it("of a hundred thousand values are near the true ones, and their ends and sum exact", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    const sample = new Sample();
    const all = Array.from({ length: 100_000 }, () => random.next() ** 3);
    for (const value of all) sample.add(value);
    expect(sample.values.length).toBeLessThan(5_000);
    const sorted = all.toSorted((a, b) => a - b);
    const got = sample.quantiles();
    expect([got.count, got.min, got.max]).toEqual([all.length, sorted[0], sorted.at(-1)]);
    expect(got.sum).toBeCloseTo(
      all.reduce((sum, value) => sum + value, 0),
      5,
    );
    for (const [name, part] of [
      ["p50", 0.5],
      ["p75", 0.75],
      ["p95", 0.95],
      ["p99", 0.99],
    ] as const) {
      // Where the value stands among all: five standard errors of a sample of 4,096.
      const rank = sorted.filter((value) => value <= got[name]).length / sorted.length;
      const error = 5 * Math.sqrt((part * (1 - part)) / 4096);
      expect(Math.abs(rank - part), `${name}, seed ${seed}`).toBeLessThan(error);
    }
  });
});

describe("a job's report", () => {
  it("counts all of many tasks, and keeps a part of them for the timeline", () => {
    folder = mkdtempSync(join(tmpdir(), "smallpond-report-"));
    mkdirSync(join(folder, "log"));
    const report = new JobReport(join(folder, "log"), "many");
    report.action([step("a,b", [])]);
    const count = 30_000;
    for (let i = 0; i < count; i++) {
      const base = { task: taskOf(i), attempt: 0, executor: `local-${i % 2}` };
      report.take({ ...base, type: "started" });
      report.take({ ...base, type: "finished", result: resultOf(i, i % 100) });
    }
    report.write();
    const read = (name: string): string => readFileSync(join(folder, "log", name), "utf8");
    const [head = "", line = ""] = read("metrics.csv").split("\n");
    const values = line.replace(/^"a,b",/, "node,").split(",");
    const at = (name: string): string | undefined => values[head.split(",").indexOf(name)];
    expect([at("tasks"), at("elapsed_ms_cnt"), at("elapsed_ms_max")]).toEqual([
      ...[`${count}`, `${count}`, "99"],
    ]);
    expect([at("output_rows_sum"), at("input_rows_cnt")]).toEqual([`${2 * count}`, "0"]);
    const trace = JSON.parse(read("timeline_exec.json"));
    const spans = trace.traceEvents.filter((event: { ph: string }) => event.ph === "X");
    expect(spans).toHaveLength(20_000);
    expect(spans.at(-1).args.key).toBe(`k${count - 1}`);
    expect(trace.otherData.note).toMatch(/10000 of 30000 tasks/);
  });

  it("draws the plan, whatever its texts are", () => {
    folder = mkdtempSync(join(tmpdir(), "smallpond-report-"));
    const report = new JobReport(folder, "plan");
    report.action([step("scan#0", []), step("sql#1", ["scan#0"], 'SELECT "a\\b" < 3 & 1')]);
    report.write();
    const dot = readFileSync(join(folder, "graph.dot"), "utf8");
    expect(dot).toContain('"scan#0" -> "sql#1";');
    expect(dot).toContain('SELECT \\"a\\\\b\\" < 3 & 1');
    const svg = readFileSync(join(folder, "graph.svg"), "utf8");
    expect(svg).toContain("&lt; 3 &amp; 1");
    expect(svg.match(/<rect/g)).toHaveLength(2);
  });

  it("puts inputs left of their users, and no box on another", () => {
    const diamond = [step("a", []), step("b", ["a"]), step("c", ["a"]), step("d", ["b", "c"])];
    const { steps, lines } = layoutPlan(diamond);
    expect(lines.every(({ from, to }) => from.x < to.x)).toBe(true);
    expect(new Set(steps.map(({ x, y }) => `${x} ${y}`)).size).toBe(4);
    const late = layoutPlan([
      step("a", []),
      step("b", ["a"]),
      step("z", []),
      step("c", ["b", "z"]),
    ]);
    const xOf = new Map(late.steps.map((placed) => [placed.step.node, placed.x]));
    expect(xOf.get("z")).toBe(xOf.get("b"));
  });
});
