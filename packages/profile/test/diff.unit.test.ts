// Comparisons of small traces whose changes are known.

import {
  analyzeTrace,
  builtinRules,
  createClassifier,
  type DiffOptions,
  diffTraces,
  parseRules,
  type TraceAnalysis,
} from "@open-infra/profile/analyze";
import { describe, expect, it } from "vitest";
import { TraceMaker } from "./trace-maker.ts";

const gemm = "void deep_gemm::fp8_gemm_kernel<7168>(int)";
const dispatch = "void deep_ep::internode::dispatch<false, 8, false, 8>(int4*)";

/** A GEMM, and a dispatch that outlasts it by `exposed`. */
function run(gemmUs: number, exposed: number, names = { gemm, dispatch }): TraceAnalysis {
  const table = new TraceMaker()
    .kernel(names.gemm, 0, gemmUs)
    .kernel(names.dispatch, 0, gemmUs + exposed, { stream: 27 })
    .table();
  return analyzeTrace(table);
}

const names = (entries: readonly { name: string }[]) => entries.map(({ name }) => name);

describe("the gate", () => {
  it("passes what did not change", () => {
    const diff = diffTraces(run(1000, 100), run(1000, 100));
    expect(diff).toMatchObject({
      verdict: "pass",
      failures: [],
      regressions: [],
      improvements: [],
    });
  });

  it("fails more exposed communication, names it first by size", () => {
    const diff = diffTraces(run(1000, 100), run(1000, 300));
    expect(diff.verdict).toBe("fail");
    expect(diff.failures).toMatchObject([
      { kind: "metric", name: "communicationUs", deltaUs: 200, deltaPercent: 18.18 },
      { kind: "metric", name: "exposedCommunicationUs", deltaUs: 200, deltaPercent: 200 },
      { kind: "metric", name: "spanUs", deltaUs: 200 },
      { kind: "class", name: "ep_dispatch", deltaUs: 200, beforeCount: 1, afterCount: 1 },
    ]);
    expect(diff.overlapPercent).toEqual({ before: 90.91, after: 76.92 });
  });

  it("calls the way back an improvement", () => {
    const diff = diffTraces(run(1000, 300), run(1000, 100));
    expect(diff.verdict).toBe("pass");
    expect(names(diff.improvements)).toContain("exposedCommunicationUs");
  });

  it.each([
    ["a change of both thresholds is not above them", { relativePercent: 10, absoluteUs: 100 }, 0],
    ["above both fails", { relativePercent: 9.99, absoluteUs: 99 }, 4],
    ["small in µs is noise", { relativePercent: 1, absoluteUs: 101 }, 0],
    ["small in percent is noise", { relativePercent: 11, absoluteUs: 0 }, 0],
  ])("%s", (_, thresholds, failures) => {
    // 1,000 to 1,100: the GEMM, its class, span, and the dispatch that runs beside it.
    const options: DiffOptions = { thresholds };
    const diff = diffTraces(run(1000, 0), run(1100, 0), options);
    expect(diff.failures.filter(({ name }) => name !== "communicationUs")).toHaveLength(failures);
  });

  it("fails on kernels only when asked", () => {
    const split = (a: number, b: number) =>
      analyzeTrace(
        new TraceMaker()
          .kernel("void at::native::a<1>()", 0, a)
          .kernel("void at::native::b<1>()", a, a + b)
          .table(),
      );
    const before = split(500, 500);
    const after = split(700, 300);
    expect(diffTraces(before, after).verdict).toBe("pass");
    const strict = diffTraces(before, after, { failOn: ["kernel"] });
    expect(strict.failures).toMatchObject([{ name: "void at::native::a<1>()", deltaUs: 200 }]);
  });

  it.each([{ relativePercent: -1 }, { absoluteUs: Number.NaN }])("refuses %j", (thresholds) => {
    expect(() => diffTraces(run(1, 1), run(1, 1), { thresholds })).toThrow("thresholds.");
  });
});

describe("kernels that changed their names", () => {
  it("are matched by what is left of them", () => {
    const templated = "void deep_gemm::fp8_gemm_kernel<4096>(int)";
    const other = "void deep_ep::hybrid::dispatch_tokens<1>(int)";
    const diff = diffTraces(run(1000, 0), run(1300, 0, { gemm: templated, dispatch: other }));
    expect(diff.kernels).toMatchObject(
      [
        { name: templated, renamedFrom: gemm, presence: "both", deltaUs: 300 },
        { name: other, renamedFrom: dispatch, presence: "both", deltaUs: 300 },
      ].sort((a, b) => (a.name < b.name ? -1 : 1)),
    );
  });

  it("are added or removed where nothing is alike", () => {
    const before = analyzeTrace(new TraceMaker().kernel(gemm, 0, 1000).table());
    const after = analyzeTrace(new TraceMaker().kernel("rotary_kernel", 0, 900).table());
    const diff = diffTraces(before, after);
    expect(
      diff.kernels.map(({ name, presence, deltaPercent }) => [name, presence, deltaPercent]),
    ).toEqual([
      [gemm, "removed", -100],
      ["rotary_kernel", "added", null],
    ]);
    expect(names(diff.failures)).toEqual(["rope"]);
    expect(names(diff.improvements)).toContain("gemm_fp8");
  });
});

describe("what is not alike", () => {
  const steps = (count: number, gemmUs: number) => {
    const maker = new TraceMaker();
    for (let i = 0; i < count; i++) {
      const at = 10_000 * i;
      maker.annotation(`ProfilerStep#${i}`, at, at + 10_000).launch(i, at + 1, at + 2);
      maker.kernel(gemm, at + 10, at + 10 + gemmUs, { correlation: i });
    }
    return analyzeTrace(maker.table());
  };

  it("in number of steps is compared per step", () => {
    const diff = diffTraces(steps(2, 1000), steps(4, 1000));
    expect(diff.dividedBy).toEqual({ before: 2, after: 4 });
    expect(diff.classes[0]).toMatchObject({ beforeUs: 1000, afterUs: 1000, beforeCount: 2 });
    expect(diff.warnings[0]).toContain("2 and 4 steps");
  });

  it("in length of the kernel list is not taken for a change", () => {
    const full = run(1000, 100);
    const cut = {
      ...full,
      kernels: { ...full.kernels, kernels: full.kernels.kernels.slice(0, 1) },
    };
    const diff = diffTraces(cut, full);
    expect(diff.kernels).toHaveLength(1);
    expect(diff.warnings[0]).toContain("before lists only 1 of 2 kernels");
  });

  it("survives JSON: an analysis saved is as good as one made now", () => {
    const saved = JSON.parse(JSON.stringify(run(1000, 100))) as TraceAnalysis;
    expect(diffTraces(saved, run(1000, 300))).toEqual(diffTraces(run(1000, 100), run(1000, 300)));
  });

  it("in rules gives classes of one side only", () => {
    const rules = parseRules([{ match: "dispatch", class: "mine", group: "communication" }]);
    const classifier = createClassifier([...rules, ...builtinRules]);
    const table = new TraceMaker().kernel(dispatch, 0, 100).table();
    const diff = diffTraces(analyzeTrace(table), analyzeTrace(table, { classifier }));
    expect(diff.classes.map(({ name, presence }) => [name, presence])).toEqual([
      ["ep_dispatch", "removed"],
      ["mine", "added"],
    ]);
    expect(diff.kernels).toMatchObject([{ presence: "both", deltaUs: 0 }]);
  });
});
