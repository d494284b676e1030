// What the pipeline page computes and draws, without a browser: times of stages, results beside the
// package's own, what of a row is seen, memory, transfers, commands.

import {
  activationCurve,
  bubbleFormula,
  buildSchedule,
  builtInNames,
  memoryCurve,
  OpKind,
  opAt,
  planPipeline,
  simulate,
  validateSchedule,
  withCommunication,
} from "@open-infra/dualpipe";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { buffersOf, compare, pipeline } from "../web/src/pages/pipeline/compute.ts";
import {
  compareRequest,
  countsOf,
  defaults,
  fieldOf,
  overlapShareOf,
  type PipelineValues,
  pairTimesOf,
  pipelineRequest,
  planCommand,
  presets,
  scheduleTexts,
  simulateCommand,
  stageTimes,
  timesFile,
  timesOf,
} from "../web/src/pages/pipeline/inputs.ts";
import {
  cellAtTime,
  cellNear,
  cellText,
  findCell,
  firstAbove,
  formatTime,
  transfersOf,
} from "../web/src/pages/pipeline/timeline/cells.ts";
import { clampTop, pipelineLayout } from "../web/src/pages/pipeline/timeline/layout.ts";
import {
  heldAt,
  peakOf,
  visibleCells,
  visibleMemory,
} from "../web/src/pages/pipeline/timeline/rows.ts";
import { queryOf, valuesFrom } from "../web/src/ui/form-values.ts";
import { failureOf } from "../web/src/ui/worker-answer.ts";

const run = (values: Partial<PipelineValues> = {}) =>
  pipeline(pipelineRequest({ ...defaults, ...values }));

describe("times", () => {
  it("are one number or a list, pairs also a share", () => {
    expect(timesOf(" 1.5 ")).toBe(1.5);
    expect(timesOf("1, 2;3  4")).toEqual([1, 2, 3, 4]);
    expect(timesOf("")).toBeNaN();
    expect(timesOf("fast")).toBeNaN();
    expect(pairTimesOf("")).toBeUndefined();
    expect(pairTimesOf("85 %")).toEqual({ shareOfSum: 0.85 });
    expect(pairTimesOf("2.5")).toBe(2.5);
    expect(countsOf("", 20)).toEqual([10, 20, 40]);
    expect(countsOf("16, 32 32", 20)).toEqual([16, 32]);
  });

  it("are those of a rank's share, cut for schedules with more stages", () => {
    const even = pipelineRequest({ ...defaults, fb: "2.5" });
    expect(stageTimes(even, 1)).toEqual({ F: 1, B: 2, W: 1, FB: 2.5 });
    expect(stageTimes(even, 2)).toEqual({ F: 0.5, B: 1, W: 0.5, FB: 1.25 });
    const uneven = pipelineRequest({ ...defaults, ranks: "2", f: "1 3" });
    expect(stageTimes(uneven, 2).F).toEqual([0.5, 0.5, 1.5, 1.5]);
    expect(() => stageTimes(pipelineRequest({ ...defaults, f: "1 2 3" }), 1)).toThrow(
      "times.F.length is 3; expected 1, or 8: one for each rank's share of the model",
    );
    expect(overlapShareOf({ F: 1, B: 2, W: 1, FB: [2, 3] })).toBeCloseTo(2.5 / 3, 12);
  });

  it("stand in the address", () => {
    const values = { ...defaults, f: "1 1.5", fb: "85 %", limit: "9" };
    const query = queryOf<keyof typeof defaults>(values, defaults);
    expect(query).toBe("?f=1+1.5&fb=85+%25&limit=9");
    expect(valuesFrom<keyof typeof defaults>(query, defaults)).toEqual(values);
  });
});

describe("a pipeline", () => {
  it("of the original's picture takes 66 and holds PP + 1", () => {
    const result = run();
    expect(result.makespan).toBe(66);
    expect(result.peakActivations).toEqual(Array(8).fill(9));
    expect(result.formula).toMatchObject({ makespan: 66, exact: true });
    expect(result.verdict).toMatchObject({ ok: true, readings: ["dataflow", "rendezvous"] });
  });

  it.each(builtInNames)("%s is the package's own", (schedule) => {
    const values = { ...defaults, schedule, microBatches: "24", fb: "2.75", latency: "0.1" };
    const request = pipelineRequest(values);
    const result = pipeline(request);
    const isInterleaved = schedule === "interleaved-1f1b";
    const built = buildSchedule(schedule, {
      numRanks: 8,
      numMicroBatches: 24,
      ...(isInterleaved && { chunksPerRank: 2 }),
    });
    const v = built.numStages / 8;
    const times = { F: 1 / v, B: 2 / v, W: 1 / v, FB: 2.75 / v };
    const expected = simulate(built, times, { communication: { latency: 0.1 } });
    expect(result.makespan).toBe(expected.makespan);
    expect(result.bubbleShare).toBe(expected.bubbleShare);
    expect(result.idleOf).toEqual(expected.idleOf);
    expect(result.lowerBound).toEqual(expected.lowerBound);
    expect(result.timeline).toEqual(expected.timeline);
    expect(result.peakActivations).toEqual(expected.peak.activations);
    const marked = result.critical.flatMap((marks, rank) =>
      Array.from(marks).flatMap((mark, index) => (mark ? [`${rank}:${index}`] : [])),
    );
    const steps = expected.criticalPath?.steps.map(({ rank, index }) => `${rank}:${index}`) ?? [];
    expect(new Set(marked)).toEqual(new Set(steps));
    expect(result.formula).toEqual(
      bubbleFormula(schedule, { numRanks: 8, numMicroBatches: 24, chunksPerRank: v, ...times }),
    );
    const checked = validateSchedule(withCommunication(built));
    expect(result.verdict.ok).toBe(checked.ok);
    // The same row stands in the comparison, so that a click on it shows what it said.
    const row = compare(compareRequest(values)).rows.find((one) => one.schedule === schedule);
    expect(row).toMatchObject({ makespan: result.makespan, bubbleShare: result.bubbleShare });
  });

  it("above its memory limit is told rank by rank", () => {
    const { verdict, limit } = run({ limit: "8" });
    expect(limit).toBe(8);
    expect(verdict.ok).toBe(false);
    expect(verdict.violations[0]?.message).toBe(
      "rank 0: holds 9 micro-batches until their backward at once; the limit is 8",
    );
    expect(run({ limit: "9" }).verdict.ok).toBe(true);
    // Two stages a rank: each counts half of the rank's share.
    expect(run({ schedule: "zbv", limit: "8" })).toMatchObject({
      limit: 16,
      verdict: { ok: true },
    });
  });

  it("that cannot be says why, for a field", () => {
    const failure = (values: Partial<PipelineValues>) => {
      try {
        run(values);
      } catch (error) {
        return failureOf(error);
      }
      return undefined;
    };
    const refused = (values: Partial<PipelineValues>) => {
      const { parameter = "", message = "" } = failure(values) ?? {};
      return [fieldOf(parameter), message];
    };
    expect(refused({ ranks: "7" })).toEqual([
      "ranks",
      expect.stringMatching(/^numRanks is 7; expected an even/),
    ]);
    expect(refused({ microBatches: "10" })[0]).toBe("microBatches");
    expect(refused({ microBatches: "" })).toEqual([
      "microBatches",
      "numMicroBatches is NaN; expected a whole number of at least 1",
    ]);
    expect(refused({ f: "x" })).toEqual(["f", "times.F is NaN; expected a finite number from 0"]);
    expect(refused({ w: "3" })[0]).toBe("w");
    expect(refused({ fb: "-1" })[0]).toBe("fb");
    expect(refused({ latency: "-1" })[0]).toBe("latency");
    expect(refused({ limit: "0" })[0]).toBe("limit");
    expect(refused({ schedule: "interleaved-1f1b", chunks: "0" })[0]).toBe("chunks");
    expect(refused({ ranks: "1000", microBatches: "100000" })).toEqual([
      "microBatches",
      expect.stringContaining("the command line takes more"),
    ]);
    expect(run({ microBatches: "9", partial: "yes" }).schedule.numMicroBatches).toBe(9);
  });

  it("hands its columns over once each", () => {
    const buffers = buffersOf(run());
    expect(new Set(buffers).size).toBe(buffers.length);
    expect(buffers).toHaveLength(8 * (8 + 2 + 1));
  });
});

describe("the comparison", () => {
  it("plans as the planner does, with its reasons", () => {
    const request = compareRequest({ ...defaults, limit: "8.5", counts: "20 40" });
    const { plans, infeasible, rows } = compare(request);
    const expected = planPipeline({
      numRanks: 8,
      share: { F: 1, B: 2, W: 1 },
      numMicroBatches: [20, 40],
      communication: { latency: 0 },
      activationLimit: 8.5,
    });
    expect(plans).toEqual(expected.plans);
    expect(infeasible).toEqual(expected.infeasible);
    const dualpipe = rows.find(({ schedule }) => schedule === "dualpipe");
    expect(dualpipe).toMatchObject({ parameterCopies: 2, peakActivations: 9, overLimit: true });
    expect(rows.find(({ schedule }) => schedule === "interleaved-1f1b")?.reason).toContain("20");
  });

  it("says of each schedule why it cannot be, and of others what they are", () => {
    const { rows } = compare(compareRequest({ ...defaults, ranks: "5" }));
    const reasons = rows.filter(({ reason }) => reason !== undefined);
    expect(reasons.map(({ schedule }) => schedule)).toContain("dualpipe");
    expect(rows.find(({ schedule }) => schedule === "1f1b")?.reason).toBeUndefined();
    expect(rows.map(({ schedule }) => schedule)).toEqual(builtInNames);
  });

  it("takes uneven times", () => {
    const { plans, planProblem } = compare(compareRequest({ ...defaults, ...presets[4]?.values }));
    expect(planProblem).toBeUndefined();
    const best = plans.find(
      ({ schedule, numMicroBatches }) => schedule === "1f1b" && numMicroBatches === 20,
    );
    expect(best?.makespan).toBeGreaterThan(81);
    expect(best?.peakActivations).toBe(8);
  });
});

/** Cells of a rank that overlap a part of time. */
function overlapping(
  { start, end }: { start: Float64Array; end: Float64Array },
  from: number,
  to: number,
) {
  return Array.from(start.keys()).filter(
    (i) =>
      (end[i] as number) > from &&
      (start[i] as number) < to &&
      (end[i] as number) > (start[i] as number),
  );
}

describe("what of a row is seen", () => {
  it("is every wide cell, and one a column of the others", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    for (let round = 0; round < 300; round++) {
      const n = random.int(1, 120);
      const start = new Float64Array(n);
      const end = new Float64Array(n);
      let time = 0;
      for (let i = 0; i < n; i++) {
        time += random.next() < 0.3 ? random.next() * 4 : 0;
        start[i] = time;
        time += random.next() < 0.1 ? 0 : random.next() * (random.next() < 0.3 ? 5 : 0.3);
        end[i] = time;
      }
      const from = random.next() * time * 0.6 - 1;
      const to = from + 0.2 + random.next() * time;
      const width = random.int(1, 90);
      const note = `seed ${seed}, round ${round}`;
      const perPixel = (to - from) / width;
      const seen: number[] = [];
      const columns: number[] = [];
      visibleCells({ start, end }, { start: from, end: to, width }, (index, left, right) => {
        seen.push(index);
        expect(right - left, note).toBeGreaterThanOrEqual(1 - 1e-9);
        const size = ((end[index] as number) - (start[index] as number)) / perPixel;
        if (size < 1) columns.push(left);
        else expect(left, note).toBeCloseTo(((start[index] as number) - from) / perPixel, 6);
      });
      const expected = overlapping({ start, end }, from, to);
      const wide = expected.filter(
        (i) => ((end[i] as number) - (start[i] as number)) / perPixel >= 1,
      );
      expect(
        seen.filter((i) => wide.includes(i)),
        note,
      ).toEqual(wide);
      expect(
        seen.every((i) => expected.includes(i)),
        note,
      ).toBe(true);
      // Each narrow cell has a column of its own; the outermost are clipped.
      expect(new Set(columns).size, note).toBe(columns.length);
      expect(
        columns.every((column) => column >= -1 && column <= width),
        note,
      ).toBe(true);
    }
  });

  it("of memory is the most of every column", () => {
    const seed = testSeed();
    const random = seededRandom(seed);
    const { schedule, timeline, makespan } = run({
      schedule: "zb1p",
      ranks: "4",
      microBatches: "9",
    });
    const curves = [0, 1, 2, 3].map((rank) => memoryCurve(schedule, timeline, rank));
    for (let round = 0; round < 200; round++) {
      const curve = curves[random.int(0, 3)] as (typeof curves)[number];
      const from = random.next() * makespan - 4;
      const to = from + 0.5 + random.next() * makespan * 1.5;
      const width = random.int(1, 80);
      const drawn = new Array(width).fill(0);
      visibleMemory(curve, { start: from, end: to, width }, makespan, (held, left, right) => {
        for (let column = left; column < right; column++) drawn[column] = held;
      });
      const perPixel = (to - from) / width;
      const expected = drawn.map((_, column) => {
        const [begin, until] = [from + column * perPixel, from + (column + 1) * perPixel];
        if (until <= 0 || begin >= makespan) return 0;
        const inside = Array.from(curve.time.keys()).filter(
          (i) => (curve.time[i] as number) > begin && (curve.time[i] as number) < until,
        );
        return Math.max(heldAt(curve, begin), ...inside.map((i) => curve.activations[i] as number));
      });
      expect(drawn, `seed ${seed}, round ${round}`).toEqual(expected);
    }
  });

  it("has its peak where the schedule has it", () => {
    const { schedule, timeline } = run();
    schedule.ranks.forEach((ops, rank) => {
      const { held, time } = peakOf(memoryCurve(schedule, timeline, rank));
      expect(held).toBe(9);
      const at = activationCurve(ops).indexOf(9);
      expect(time).toBe(timeline[rank]?.start[at]);
    });
  });

  it("finds what runs at a time", () => {
    expect(firstAbove(Float64Array.from([1, 2, 2, 3]), 2)).toBe(3);
    const result = run();
    result.timeline.forEach(({ start, end }, rank) => {
      start.forEach((from, index) => {
        const middle = (from + (end[index] as number)) / 2;
        expect(cellAtTime(result, rank, middle)).toBe(index);
      });
    });
    expect(cellAtTime(result, 3, 1)).toBe(-1);
    expect(cellNear(result, 3, 1)).toBe(0);
    expect(cellNear(result, 3, 1e9)).toBe((result.timeline[3]?.end.length ?? 0) - 1);
    expect(cellAtTime(result, 99, 1)).toBe(-1);
  });

  it("shows as many ranks as have room", () => {
    expect(pipelineLayout(8)).toMatchObject({ rows: 8, cellRow: 30, memoryRow: 32 });
    expect(pipelineLayout(64).rows).toBe(64);
    const many = pipelineLayout(1024);
    expect(many.rows).toBeLessThan(100);
    expect(clampTop(5000, many)).toBe(1024 - many.rows);
    expect(clampTop(-3, many)).toBe(0);
  });
});

describe("a cell", () => {
  it.each(builtInNames)("of %s takes from and gives to its neighbours in time", (schedule) => {
    const result = run({ schedule, microBatches: "16", latency: "0.25" });
    let transfers = 0;
    result.schedule.ranks.forEach((ops, rank) => {
      for (let index = 0; index < ops.length; index++) {
        for (const { from, to } of transfersOf(result.schedule, { rank, index })) {
          transfers++;
          expect([from, to]).toContainEqual({ rank, index });
          const sent = result.timeline[from.rank]?.end[from.index] as number;
          const used = result.timeline[to.rank]?.start[to.index] as number;
          expect(used - sent).toBeGreaterThanOrEqual(0.25 - 1e-9);
        }
      }
    });
    // Every boundary between ranks, there and back, told at both of its ends.
    const { rankOf, numStages, numDirections, microBatchesOf } = result.schedule;
    let crossings = 0;
    for (let direction = 0; direction < numDirections; direction++) {
      for (let stage = 1; stage < numStages; stage++) {
        const row = direction * numStages + stage;
        if (rankOf[row] !== rankOf[row - 1]) crossings += microBatchesOf[direction] as number;
      }
    }
    expect(transfers).toBe(4 * crossings);
  });

  it("is told in words", () => {
    const result = run();
    const index = Array.from(result.schedule.ranks[2]?.kind ?? []).indexOf(OpKind.FB);
    const op = opAt(result.schedule.ranks[2] as never, index);
    const text = cellText(result, { rank: 2, index }, 9);
    expect(text).toContain(`of micro-batch ${op.microBatch}, stage ${op.stage}`);
    expect(text).toContain(`overlapped with backward`);
    expect(text).toContain(`step ${op.phase} of the schedule; the rank holds 9`);
    expect(
      findCell(result.schedule, { direction: 0, stage: 8, microBatch: 0 }, true),
    ).toBeUndefined();
    expect(formatTime(-0)).toBe("0");
    expect(formatTime(0.1 + 0.2)).toBe("0.3");
    expect(formatTime(Number.NaN)).toBe("–");
  });
});

describe("the command", () => {
  it("says the same as the form", () => {
    const request = pipelineRequest({ ...defaults, schedule: "zbv", fb: "2.5", latency: "0.1" });
    expect(simulateCommand(request, 2)).toBe(
      "open-infra dualpipe simulate --schedule zbv --num-ranks 8 --num-micro-batches 20 " +
        "--time-f 0.5 --time-b 1 --time-w 0.5 --fb 1.25 --latency 0.1 --json",
    );
    const uneven = pipelineRequest({ ...defaults, ranks: "2", f: "1 3", partial: "yes" });
    expect(simulateCommand(uneven, 1)).toBe(
      "open-infra dualpipe simulate --schedule dualpipe --num-ranks 2 --num-micro-batches 20 " +
        "--allow-partial --stage-times times.json --json",
    );
    expect(JSON.parse(timesFile(uneven, 1) ?? "")).toEqual({ F: [1, 3], B: 2, W: 1 });
    expect(timesFile(request, 2)).toBeUndefined();
    const plan = compareRequest({ ...defaults, fb: "2.4", limit: "9", schedule: "dualpipe" });
    expect(planCommand(plan)).toBe(
      "open-infra dualpipe plan --num-ranks 8 --num-micro-batches 10,20,40 --chunks-per-rank 2 " +
        "--time-f 1 --time-b 2 --time-w 1 --overlap-share 0.7999999999999999 --activation-limit 9",
    );
    expect(planCommand(compareRequest({ ...defaults, f: "1 2 3 4 5 6 7 8" }))).toBeUndefined();
  });

  it("has a sentence for every schedule", () => {
    for (const name of builtInNames) expect(scheduleTexts[name]).toMatch(/\.$/);
  });
});
