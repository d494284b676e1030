// The simulator against the published figures, and what it says of small schedules known by hand.

import { readFileSync } from "node:fs";
import { InputError } from "@open-infra/errors";
import { describe, expect, it } from "vitest";
import {
  buildSchedule,
  type Communication,
  DeadlockError,
  dualPipe,
  dualPipeV,
  memoryCurve,
  type OpInput,
  oneFOneB,
  RankOpsBuilder,
  type Schedule,
  type SimulationResult,
  type StageTimes,
  simulate,
  withCommunication,
  zb1p,
} from "../src/index.ts";

interface GoldCase {
  readonly kind: "DualPipe" | "DualPipeV";
  readonly ranks: number;
  readonly chunks: number;
  readonly peakInflight: number[];
  readonly times_F_B_W_FB: Record<string, { makespan: number; idle: number[] }>;
}

const fixture = new URL("fixtures/dualpipe.json", import.meta.url);
const gold = JSON.parse(readFileSync(fixture, "utf8")) as { cases: GoldCase[] };
const unit: StageTimes = { F: 1, B: 2, W: 1, FB: 3 };

/** A schedule from lists of operations; ranks hold the stages of their number. */
function handWritten(lists: readonly (readonly OpInput[])[], numMicroBatches = 1): Schedule {
  const ranks = lists.map((list) => {
    const ops = new RankOpsBuilder();
    for (const op of list) ops.add(op);
    return ops.finish();
  });
  const isTransfer = (kind: string): boolean => kind.startsWith("Send") || kind.startsWith("Recv");
  return {
    name: "custom",
    numRanks: lists.length,
    numStages: lists.length,
    numDirections: 1,
    numMicroBatches,
    microBatchesOf: [numMicroBatches],
    rankOf: Int32Array.from(lists.keys()),
    ranks,
    hasCommunication: lists.some((list) => list.some(({ kind }) => isTransfer(kind))),
  };
}

const op = (kind: OpInput["kind"], stage: number, microBatch = 0): OpInput => ({
  kind,
  direction: 0,
  stage,
  microBatch,
});

function expectClose(got: ArrayLike<number>, want: readonly number[]): void {
  expect(got.length).toBe(want.length);
  want.forEach((value, i) => {
    expect(Math.abs((got[i] as number) - value)).toBeLessThanOrEqual(1e-12 * Math.abs(value));
  });
}

describe("the published figures", () => {
  for (const { kind, ranks, chunks, peakInflight, times_F_B_W_FB: cases } of gold.cases) {
    const build = kind === "DualPipe" ? dualPipe : dualPipeV;
    const schedule = build({ numRanks: ranks, numMicroBatches: chunks });
    for (const [key, { makespan, idle }] of Object.entries(cases)) {
      const [F, B, W, FB] = key.slice(1, -1).split(",").map(Number) as [
        number,
        number,
        number,
        number,
      ];
      it(`${kind}(${ranks}, ${chunks}) with times ${key}`, () => {
        const withTransfers = withCommunication(schedule);
        for (const result of [
          simulate(schedule, { F, B, W, FB }),
          simulate(withTransfers, { F, B, W, FB }),
          simulate(withTransfers, { F, B, W, FB }, { mode: "rendezvous" }),
        ]) {
          expectClose([result.makespan], [makespan]);
          expectClose(result.idle, idle);
          expect(result.peak.activations).toEqual(peakInflight);
          expect(result.peak.activationsUntilW).toEqual(peakInflight);
        }
      });
    }
  }

  const makespanOf = (schedule: Schedule, communication: Communication = {}, FB = 3): number =>
    simulate(schedule, { ...unit, FB }, { communication }).makespan;
  const dual = (numRanks: number, numMicroBatches: number): Schedule =>
    dualPipe({ numRanks, numMicroBatches });

  it("makespans of the reference table", () => {
    expect([16, 20, 32].map((m) => makespanOf(dual(8, m)))).toEqual([54, 66, 102]);
    expect([8, 20].map((m) => makespanOf(dual(4, m)))).toEqual([26, 62]);
    expect(makespanOf(dual(8, 20), {}, 2.5)).toBe(59);
    expect(makespanOf(dual(8, 20), {}, 2)).toBe(52);
    expect(makespanOf(oneFOneB({ numRanks: 8, numMicroBatches: 20 }))).toBe(81);
  });

  it("idle time of the reference table", () => {
    const idleOf = (schedule: Schedule, times: StageTimes): number[] => [
      ...simulate(schedule, times).idle,
    ];
    expect(idleOf(dual(8, 20), unit)).toEqual(Array(8).fill(6));
    expect(idleOf(dual(16, 40), unit)).toEqual(Array(16).fill(14));
    expect(idleOf(dual(2, 8), unit)).toEqual([0, 0]);
    expect(idleOf(oneFOneB({ numRanks: 8, numMicroBatches: 20 }), unit)).toEqual(Array(8).fill(21));
    expectClose(idleOf(dual(8, 20), { F: 1, B: 2, W: 0.8, FB: 3 }), Array(8).fill(7.2));
    const uneven = idleOf(dual(8, 20), { F: 1, B: 2.2, W: 0.9, FB: 2.7 });
    expectClose([Math.min(...uneven), Math.max(...uneven)], [4.7, 5.7]);
  });

  it("latency: an input arrives its latency after the producer's end", () => {
    const v = dualPipeV({ numRanks: 4, numMicroBatches: 10 });
    const one = oneFOneB({ numRanks: 8, numMicroBatches: 20 });
    const at = (latency: number): number[] =>
      [dual(8, 20), v, one].map((schedule) => makespanOf(schedule, { latency }));
    expectClose(at(0.1), [68.6, 67.8, 85.6]);
    expectClose(at(0.5), [79.5, 77, 104]);
  });
});

describe("a pipeline of two stages, by hand", () => {
  const lists = [
    [op("F", 0), op("F", 0, 1), op("I", 0), op("W", 0), op("B", 0, 1)],
    [op("F", 1), op("B", 1), op("F", 1, 1), op("B", 1, 1)],
  ];
  const schedule = handWritten(lists, 2);
  const times: StageTimes = { F: [1, 2], B: [3, 4], W: [1, 1] };

  it("starts each operation when its rank is free and its inputs are there", () => {
    const { makespan, timeline, busy } = simulate(schedule, times);
    expect([...(timeline?.[0]?.start ?? [])]).toEqual([0, 1, 7, 9, 13]);
    expect([...(timeline?.[1]?.start ?? [])]).toEqual([1, 3, 7, 9]);
    expect(makespan).toBe(16);
    expect([...busy]).toEqual([8, 12]);
  });

  it("says where the idle time is", () => {
    const { idleOf } = simulate(schedule, times);
    expect(idleOf[0]).toMatchObject({ total: 8, warmUp: 5, steady: 0, coolDown: 3, afterEnd: 0 });
    expect(idleOf[1]).toMatchObject({ total: 4, warmUp: 1, steady: 0, coolDown: 3, afterEnd: 3 });
  });

  it("walks the critical path with its reasons", () => {
    const path = simulate(schedule, times, { communication: { latency: 0.5 } }).criticalPath;
    const steps = path?.steps.map(({ rank, index, reason, communication }) => [
      rank,
      index,
      reason,
      communication,
    ]);
    expect(steps).toEqual([
      [0, 0, "start", 0],
      [1, 0, "communication", 0.5],
      [1, 1, "order", 0],
      [1, 2, "order", 0],
      [1, 3, "order", 0],
      [0, 4, "communication", 0.5],
    ]);
    expect(path).toMatchObject({ computeTime: 16, communicationTime: 1, numHops: 2 });
  });

  it("holds activations and bytes as the operations take and free them", () => {
    const memory = { activationBytes: [10, 20], weightGradBytes: [4, 5], parameterBytes: [100, 7] };
    const { peak, timeline } = simulate(schedule, times, { memory });
    expect(peak.activations).toEqual([2, 1]);
    expect(peak.activationsUntilW).toEqual([2, 1]);
    expect([...(peak.bytes ?? [])]).toEqual([120, 27]);
    expect([...(peak.parameterBytes ?? [])]).toEqual([100, 7]);
    const curve = memoryCurve(schedule, timeline, 0, memory);
    expect([...curve.time]).toEqual([0, 0, 1, 9, 10, 16]);
    expect([...curve.activations]).toEqual([0, 1, 2, 1, 1, 0]);
    expect([...(curve.bytes ?? [])]).toEqual([100, 110, 120, 114, 110, 100]);
  });

  it("adds bytes over bandwidth, and lets an exclusive link queue", () => {
    const forwards = [
      [op("F", 0), op("F", 0, 1), op("F", 0, 2)],
      [op("F", 1), op("F", 1, 1), op("F", 1, 2)],
    ];
    const startsOf = (communication: Communication): number[] => {
      const run = simulate(handWritten(forwards, 3), { F: 1, B: 0 }, { communication });
      return [...(run.timeline?.[1]?.start ?? [])];
    };
    const link = { bytes: 30, bandwidth: 10, latency: 0.5 };
    expect(startsOf(link)).toEqual([4.5, 5.5, 6.5]);
    expect(startsOf({ ...link, exclusiveLinks: true })).toEqual([4.5, 7.5, 10.5]);
    const path = simulate(
      handWritten(forwards, 3),
      { F: 1, B: 0 },
      {
        communication: { ...link, exclusiveLinks: true },
      },
    ).criticalPath;
    // The last transfer queues behind the two before it: the queue began with the first forward.
    expect(path).toMatchObject({ computeTime: 2, communicationTime: 9.5 });
  });

  it("takes links by pair of ranks, by rule and by node", () => {
    const chain = handWritten([[op("F", 0)], [op("F", 1)], [op("F", 2)]]);
    const end = (latency: Communication["latency"]): number =>
      simulate(chain, { F: 1, B: 0 }, { communication: { ...(latency && { latency }) } }).makespan;
    expect(end((from, to) => from + to)).toBe(3 + 1 + 3);
    expect(end({ ranksPerNode: 2, intraNode: 0.25, interNode: 2 })).toBe(5.25);
    const table = [
      [0, 0.5, 9],
      [9, 0, 0.125],
      [9, 9, 0],
    ];
    expect(end(table)).toBe(3.625);
  });

  it("takes slow ranks and measured durations", () => {
    expect(simulate(schedule, { ...times, rankSlowdown: [1, 2] }).makespan).toBe(1 + 24 + 3);
    const durations = [[1, 1, 2, 1, Number.NaN], Array(4).fill(0.5)];
    expect(simulate(schedule, times, { durations }).makespan).toBe(1 + 1 + 2 + 1 + 3);
  });
});

describe("times", () => {
  const split = zb1p({ numRanks: 2, numMicroBatches: 4 });
  const makespan = (times: StageTimes): number => simulate(split, times).makespan;

  it("fills in the parts of the backward that are not given", () => {
    expect(makespan({ F: 1, B: 3, W: 1 })).toBe(makespan({ F: 1, B: 3, I: 2, W: 1 }));
    expect(makespan({ F: 1, B: 3, I: 1 })).toBe(makespan({ F: 1, B: 3, I: 1, W: 2 }));
    expect(makespan({ F: 1, B: 3 })).toBe(makespan({ F: 1, B: 3, I: 1.5, W: 1.5 }));
  });

  it("takes pairs as a sum, a share, a value by stage and a rule", () => {
    const pairs = dualPipe({ numRanks: 4, numMicroBatches: 8 });
    const end = (FB?: StageTimes["FB"]): number =>
      simulate(pairs, { F: 1, B: 2, W: 1, ...(FB !== undefined && { FB }) }).makespan;
    expect(end()).toBe(end(3));
    expect(end({ shareOfSum: 0.75 })).toBe(end(2.25));
    expect(end([2, 2, 2, 2])).toBe(end(2));
    expect(end((f, b) => (f + b === 3 ? 2.5 : 1000))).toBe(end(2.5));
  });
});

describe("refusals", () => {
  const schedule = oneFOneB({ numRanks: 2, numMicroBatches: 2 });
  const run = (times: StageTimes, communication?: Communication) => (): SimulationResult =>
    simulate(schedule, times, { ...(communication && { communication }) });

  it("names what cannot be, with the numbers", () => {
    expect(run({ F: -1, B: 2 })).toThrow("times.F is -1; expected a finite number from 0");
    expect(run({ F: 1, B: [1, Number.NaN] })).toThrow("times.B[1] is NaN");
    expect(run({ F: [1, 2, 3], B: 2 })).toThrow("times.F.length is 3; expected 2 stages");
    expect(run({ F: 1, B: 2, W: 3 })).toThrow("times.W[0] is 3; expected at most times.B[0], 2");
    expect(run({ F: 1, B: 2, rankSlowdown: [1] })).toThrow("times.rankSlowdown.length is 1");
    expect(run({ F: 1, B: 2 }, { latency: -1 })).toThrow("communication.latency(0, 1) is -1");
    const word = { latency: "x" } as unknown as Communication;
    expect(run({ F: 1, B: 2 }, word)).toThrow('communication.latency is "x"; expected a number, a');
    const short = { latency: [[0]] };
    expect(run({ F: 1, B: 2 }, short)).toThrow("latency is 1 rows of 1; expected at least 2 rows");
    expect(run({ F: 1, B: 2 }, { bandwidth: 1 })).toThrow("communication.bytes is undefined");
    expect(run({ F: 1, B: 2 }, { bandwidth: 0, bytes: 1 })).toThrow("bandwidth(0, 1) is 0");
    const mode = "eager" as "dataflow";
    expect(() => simulate(schedule, unit, { mode })).toThrow('mode is eager; expected "dataflow"');
    const nothing = null as unknown as number;
    expect(run({ F: 1, B: 2, FB: nothing })).toThrow("times.FB is null; expected a number, or one");
    expect(run({ F: 1, B: 2 }, { bandwidth: 1, bytes: nothing })).toThrow("bytes is null");
    expect(run({ F: 1, B: 2 }, { bandwidth: 1, bytes: [] })).toThrow(
      "bytes is 0 numbers; expected",
    );
    const memory = { activationBytes: [4, 4], weightGradBytes: [4, 5] };
    expect(() => simulate(schedule, unit, { memory })).toThrow(
      "memory.weightGradBytes[1] is 5; expected at most memory.activationBytes[1], 4",
    );
    expect(() => simulate(schedule, unit, { mode: "rendezvous" })).toThrow("withCommunication");
    expect(run({ F: -1, B: 2 })).toThrow(InputError);
  });

  it("of operations on the wrong rank, beyond the micro-batches, or done twice", () => {
    const wrong = (...list: OpInput[]): Schedule => handWritten([list, [op("F", 1)]]);
    expect(() => simulate(wrong(op("F", 1)), unit)).toThrow("a stage of rank 0; this one is on 1");
    expect(() => simulate(wrong(op("F", 0, 1)), unit)).toThrow("a micro-batch below 1");
    expect(() => simulate(wrong(op("F", 0), op("F", 0)), unit)).toThrow("micro-batch 0 again");
  });
});

describe("deadlock", () => {
  function deadlockOf(schedule: Schedule, mode: "dataflow" | "rendezvous"): DeadlockError {
    try {
      simulate(schedule, unit, { mode });
    } catch (error) {
      if (error instanceof DeadlockError) return error;
      throw error;
    }
    throw new Error("no deadlock");
  }

  it("names the ranks of a circle and what each waits for", () => {
    const lists = [
      [op("B", 0), op("F", 0)],
      [op("F", 1), op("B", 1)],
    ];
    const own = deadlockOf(handWritten(lists), "dataflow");
    expect(own.code).toBe("deadlock");
    expect(own.circle).toEqual([0]);
    expect(own.message).toContain(
      "rank 0 at operation 0, B of direction 0, stage 0, micro-batch 0, waits for " +
        "F of direction 0, stage 0, micro-batch 0 on rank 0",
    );
    const crossed = [
      [op("F", 0), op("B", 0), op("F", 0, 1), op("B", 0, 1)],
      [op("F", 1, 1), op("B", 1, 1), op("F", 1), op("B", 1)],
    ];
    const { circle, blocked } = deadlockOf(handWritten(crossed, 2), "dataflow");
    expect(circle).toEqual([0, 1]);
    expect(blocked.map(({ rank, index, waitsForRank }) => [rank, index, waitsForRank])).toEqual([
      [0, 1, 1],
      [1, 0, 0],
    ]);
  });

  it("tells a missing operation from a circle", () => {
    const { circle, message } = deadlockOf(handWritten([[], [op("F", 1)]]), "dataflow");
    expect(circle).toEqual([]);
    expect(message).toContain("1 of 2 ranks wait for what never comes: rank 1 at operation 0");
  });

  it("is found where only buffers would help", () => {
    // Rank 1 posts a receive too early: its forward then waits for what rank 0 sends only later.
    const lists = [
      [op("F", 0), op("SendF", 0), op("F", 0, 1), op("RecvB", 0), op("B", 0), op("SendF", 0, 1)],
      [op("RecvF", 1, 1), op("RecvF", 1), op("F", 1), op("B", 1), op("SendB", 1), op("F", 1, 1)],
    ];
    const schedule = handWritten(lists, 2);
    expect(simulate(schedule, unit).makespan).toBe(6);
    const { circle, blocked } = deadlockOf(schedule, "rendezvous");
    expect(circle).toEqual([0, 1]);
    expect(blocked.map(({ waitsFor }) => waitsFor)).toEqual([
      "SendB of direction 0, stage 1, micro-batch 0",
      "SendF of direction 0, stage 0, micro-batch 1",
    ]);
  });

  it("of a last send that nobody receives", () => {
    const lists = [[op("F", 0), op("SendF", 0)], []];
    const { blocked } = deadlockOf(handWritten(lists), "rendezvous");
    expect(blocked[0]).toMatchObject({
      rank: 0,
      index: 1,
      waitsForRank: 1,
      waitsFor: "RecvF of direction 0, stage 1, micro-batch 0",
    });
  });
});

describe("all builders", () => {
  it("run in both modes to the same end", () => {
    for (const name of [
      "1f1b",
      "interleaved-1f1b",
      "zb1p",
      "zbv",
      "dualpipe",
      "dualpipev",
    ] as const) {
      const schedule = buildSchedule(name, { numRanks: 4, numMicroBatches: 12 });
      const { makespan } = simulate(schedule, unit);
      const rendezvous = simulate(withCommunication(schedule), unit, { mode: "rendezvous" });
      expect(rendezvous.makespan, name).toBe(makespan);
    }
  });
});
