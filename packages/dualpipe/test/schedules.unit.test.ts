// Builders: the published op lists to the letter, and what must hold for every size.

import { readFileSync } from "node:fs";
import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  type BuiltInName,
  buildSchedule,
  builtInNames,
  dualPipe,
  dualPipeV,
  formatRank,
  interleaved1F1B,
  OpKind,
  oneFOneB,
  peakActivations,
  rankToJson,
  type Schedule,
  stepCounts,
  validateSchedule,
  withCommunication,
  zb1p,
  zbv,
} from "../src/index.ts";
import { oracle } from "./oracle.ts";

interface GoldCase {
  readonly kind: "DualPipe" | "DualPipeV";
  readonly ranks: number;
  readonly chunks: number;
  readonly stages: number;
  readonly stepCounts: number[][];
  readonly ops: unknown[][];
  readonly peakInflight: number[];
  readonly times_F_B_W_FB: Record<string, { makespan: number; idle: number[] }>;
}

const fixture = new URL("fixtures/dualpipe.json", import.meta.url);
const gold = JSON.parse(readFileSync(fixture, "utf8")) as { cases: GoldCase[] };
const seed = testSeed();

const count = (schedule: Schedule, rank: number, ...kinds: OpKind[]): number =>
  schedule.ranks[rank]?.kind.reduce((n, kind) => n + (kinds.includes(kind as OpKind) ? 1 : 0), 0) ??
  0;

describe("the published schedules", () => {
  for (const one of gold.cases) {
    const options = { numRanks: one.ranks, numMicroBatches: one.chunks };
    const name = one.kind === "DualPipe" ? "dualpipe" : "dualpipev";
    describe(`${one.kind} over ${one.ranks} ranks, ${one.chunks} micro-batches`, () => {
      const schedule = buildSchedule(name, options);
      it("has the same operations", () => {
        expect(schedule.numStages).toBe(one.stages);
        expect(schedule.ranks.map(rankToJson)).toEqual(one.ops);
      });
      it("has the same table of steps and the same peaks", () => {
        expect(stepCounts(name, options)).toEqual(one.stepCounts);
        expect(peakActivations(schedule).untilBackward).toEqual(one.peakInflight);
        expect(peakActivations(schedule).untilWeight).toEqual(one.peakInflight);
      });
      it("takes the same time, also when transfers are rendezvous", () => {
        for (const [key, want] of Object.entries(one.times_F_B_W_FB)) {
          const [F = 0, B = 0, W = 0, FB = 0] = (key.match(/[\d.]+/g) ?? []).map(Number);
          const times = { F, B, I: B - W, W, FB };
          const { makespan, idle } = oracle(schedule, { times });
          expect({ makespan, idle }, key).toEqual(want);
          const communicating = withCommunication(schedule);
          expect(oracle(communicating, { times, rendezvous: true }).makespan).toBe(want.makespan);
        }
      });
    });
  }

  it("quotes of DualPipe(8, 20), its middle rank and its table", () => {
    expect(formatRank(dualPipe({ numRanks: 8, numMicroBatches: 20 }), 3)).toBe(
      ">F0 <F0 >F1 <F1 >F2 <F2 >F3 <F3 >F4 <B0 (<F4|>B0) (>F5|<B1) (<F5|>B1) (>F6|<B2) (<F6|>B2) " +
        "(>F7|<B3) (<F7|>B3) (>F8|<B4) (<F8|>B4) (>F9|<B5) (<F9|>B5) <B6 >B6 <B7 >B7 <I8 >I8 " +
        "<I9 >I9 <W8 >W8 <W9 >W9",
    );
    const half = [
      [6, 1, 3, 3, 3, 1, 3, 1],
      [4, 2, 2, 4, 2, 2, 2, 2],
      [2, 3, 1, 5, 1, 3, 1, 3],
      [0, 4, 0, 6, 0, 4, 0, 4],
    ];
    expect(stepCounts("dualpipe", { numRanks: 8, numMicroBatches: 20 })).toEqual([
      ...half,
      ...half.toReversed(),
    ]);
  });

  it("quotes of DualPipeV(4, 10), its first rank", () => {
    expect(formatRank(dualPipeV({ numRanks: 4, numMicroBatches: 10 }), 0)).toBe(
      "0F0 0F1 0F2 0F3 0F4 0F5 0F6 7F0 7I0 7W0 7F1 7I1 7W1 7F2 7I2 7W2 7F3 (0F7;7B3) (7F4;0B0) " +
        "(0F8;7B4) (7F5;0B1) (0F9;7B5) (7F6;0B2) 7B6 (7F7;0B3) 7B7 (7F8;0B4) 7B8 (7F9;0B5) 7B9 " +
        "0I6 0W6 0I7 0W7 0I8 0W8 0I9 0W9",
    );
  });
});

describe("DualPipe of any size", () => {
  const random = seededRandom(seed);
  for (const name of ["dualpipe", "dualpipev"] as const) {
    it(`${name}: work, splits and overlaps follow from the table`, () => {
      for (let n = 0; n < 40; n++) {
        const two = name === "dualpipe";
        const numRanks = two ? 2 * random.int(1, 9) : random.int(1, 11);
        const extra = random.int(0, 12);
        const numMicroBatches = 2 * numRanks + (two ? 2 * extra : extra);
        const label = `seed ${seed}, ${name}(${numRanks}, ${numMicroBatches})`;
        const schedule = buildSchedule(name, { numRanks, numMicroBatches });
        const cells = two ? numMicroBatches : 2 * numMicroBatches;
        stepCounts(name, { numRanks, numMicroBatches }).forEach((counts, rank) => {
          const outer = counts[2];
          const middle = outer === 0 ? 1 : 0;
          const overlapped = 2 * counts[3] + counts[4] - middle;
          const splits = 2 * outer + counts[1];
          expect(count(schedule, rank, OpKind.FB), label).toBe(overlapped);
          expect(count(schedule, rank, OpKind.I), label).toBe(splits);
          expect(count(schedule, rank, OpKind.W), label).toBe(splits);
          expect(count(schedule, rank, OpKind.F, OpKind.FB), label).toBe(cells);
          expect(count(schedule, rank, OpKind.B, OpKind.I, OpKind.FB), label).toBe(cells);
          const { phase } = schedule.ranks[rank] as Schedule["ranks"][number];
          expect(Array.from(phase), label).toEqual(Array.from(phase.toSorted()));
          expect(phase[0], label).toBe(outer === 0 ? 2 : 1);
          expect(phase.at(-1), label).toBe(8);
        });
        const stages = schedule.numStages;
        const peaks = peakActivations(schedule);
        expect(new Set([...peaks.untilBackward, ...peaks.untilWeight]), label).toEqual(
          new Set([stages + 1]),
        );
      }
    });
  }

  it("DualPipeV over P ranks is the first half of DualPipe over 2P ranks", () => {
    for (const [P, M] of [
      [1, 3],
      [2, 5],
      [4, 10],
      [5, 13],
    ] as const) {
      const v = dualPipeV({ numRanks: P, numMicroBatches: M });
      const two = dualPipe({ numRanks: 2 * P, numMicroBatches: 2 * M });
      for (let rank = 0; rank < P; rank++) {
        expect(v.ranks[rank]?.kind).toEqual(two.ranks[rank]?.kind);
        expect(v.ranks[rank]?.microBatch).toEqual(two.ranks[rank]?.microBatch);
        expect(v.ranks[rank]?.stage).toEqual(two.ranks[rank]?.stage);
      }
    }
  });
});

describe("the other schedules", () => {
  it("1F1B warms up with one forward less on each rank", () => {
    const schedule = oneFOneB({ numRanks: 4, numMicroBatches: 5 });
    expect(formatRank(schedule, 0)).toBe("0F0 0F1 0F2 0F3 0B0 0F4 0B1 0B2 0B3 0B4");
    expect(formatRank(schedule, 3)).toBe("3F0 3B0 3F1 3B1 3F2 3B2 3F3 3B3 3F4 3B4");
  });

  it("interleaved 1F1B has Megatron's order", () => {
    const schedule = interleaved1F1B({ numRanks: 2, numMicroBatches: 4, chunksPerRank: 2 });
    expect(formatRank(schedule, 0)).toBe(
      "0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 2B2 2B3 0B2 0B3",
    );
    expect(formatRank(schedule, 1)).toBe(
      "1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3",
    );
    const plain = interleaved1F1B({ numRanks: 4, numMicroBatches: 8, chunksPerRank: 1 });
    expect(plain.ranks).toEqual(oneFOneB({ numRanks: 4, numMicroBatches: 8 }).ranks);
  });

  it("ZB1P keeps 1F1B's memory and a third of its bubble", () => {
    for (const [P, M] of [
      [2, 2],
      [4, 8],
      [7, 19],
    ] as const) {
      const schedule = zb1p({ numRanks: P, numMicroBatches: M });
      expect(new Set(peakActivations(schedule).untilWeight)).toEqual(new Set([P]));
      expect(new Set(oracle(schedule).idle)).toEqual(new Set([P - 1]));
      const plain = oracle(oneFOneB({ numRanks: P, numMicroBatches: M }));
      expect(new Set(plain.idle)).toEqual(new Set([3 * (P - 1)]));
    }
  });

  it("ZBV never waits between its first cell and its last", () => {
    for (const [P, M] of [
      [1, 1],
      [2, 3],
      [3, 9],
      [6, 11],
      [6, 24],
    ] as const) {
      const schedule = zbv({ numRanks: P, numMicroBatches: M });
      const label = `${P} ranks, ${M} micro-batches`;
      expect(new Set(oracle(schedule).spanIdle), label).toEqual(new Set([0]));
      expect(new Set(peakActivations(schedule).untilWeight), label).toEqual(new Set([2 * P]));
    }
  });
});

/** Every built-in schedule at small sizes, with the sizes it does not have of its own. */
function* grid(ranksMax: number, microBatchesMax: number): Generator<[string, Schedule]> {
  for (const name of builtInNames) {
    for (let numRanks = 1; numRanks <= ranksMax; numRanks++) {
      if (name === "dualpipe" && numRanks % 2 !== 0) continue;
      for (let numMicroBatches = 1; numMicroBatches <= microBatchesMax; numMicroBatches++) {
        const options = { numRanks, numMicroBatches, allowPartial: true };
        const label = `${name}(${numRanks}, ${numMicroBatches})`;
        yield [label, buildSchedule(name, options)];
        if (name !== "interleaved-1f1b") continue;
        yield [`${label} of 3`, buildSchedule(name, { ...options, chunksPerRank: 3 })];
      }
    }
  }
}

describe("every builder at every small size, surplus left out where need be", () => {
  it("is valid alone and with transfers, wherever they are posted", () => {
    for (const [label, schedule] of grid(7, 17)) {
      expect(validateSchedule(schedule).violations, label).toEqual([]);
      const placed = withCommunication(schedule);
      expect(validateSchedule(placed).violations, label).toEqual([]);
      const byArrival = withCommunication(schedule, { placement: "arrival" });
      expect(validateSchedule(byArrival).violations, label).toEqual([]);
    }
  });

  it("the slow oracle agrees, and transfers cost no time where they take none", () => {
    for (const [label, schedule] of grid(4, 9)) {
      const placed = withCommunication(schedule);
      const alone = oracle(schedule);
      expect(alone.done, label).toBe(true);
      expect(oracle(placed).makespan, label).toBe(alone.makespan);
      expect(oracle(placed, { rendezvous: true }).done, label).toBe(true);
    }
  });

  it("ends whatever transfers take, also as rendezvous", () => {
    const random = seededRandom(seed);
    for (const [label, schedule] of grid(4, 6)) {
      const delay = (): number => random.next() * 5;
      const run = oracle(withCommunication(schedule), { rendezvous: true, delay });
      expect(run.done, `seed ${seed}, ${label}`).toBe(true);
    }
  });

  it("holds no more than the whole schedule where micro-batches are left out", () => {
    for (const [label, schedule] of grid(6, 15)) {
      const limit: Record<BuiltInName, number> = {
        "1f1b": schedule.numRanks,
        "interleaved-1f1b": Number.POSITIVE_INFINITY,
        zb1p: schedule.numRanks,
        zbv: 2 * schedule.numRanks,
        dualpipe: schedule.numRanks + 1,
        dualpipev: 2 * schedule.numRanks + 1,
      };
      const memoryLimit = limit[schedule.name as BuiltInName];
      const report = validateSchedule(schedule, { memoryLimit, heldUntil: "weight" });
      expect(report.violations, label).toEqual([]);
    }
  });
});

describe("what builders refuse", () => {
  const message = (name: BuiltInName, options: Record<string, unknown>): string => {
    try {
      buildSchedule(name, options as never);
    } catch (error) {
      return (error as Error).message;
    }
    return "nothing was thrown";
  };
  it.each([
    ["dualpipe", { numRanks: 3, numMicroBatches: 8 }, /numRanks is 3; expected an even number/],
    [
      "dualpipe",
      { numRanks: 3, numMicroBatches: 8, allowPartial: true },
      /numRanks is 3; expected an even number/,
    ],
    [
      "dualpipe",
      { numRanks: 4, numMicroBatches: 9 },
      /numMicroBatches is 9; expected an even number of at least 2 · numRanks = 8/,
    ],
    ["dualpipe", { numRanks: 8, numMicroBatches: 14 }, /is 14; .* 2 · numRanks = 16/],
    ["dualpipev", { numRanks: 3, numMicroBatches: 5 }, /is 5; .* 2 · numRanks = 6/],
    ["interleaved-1f1b", { numRanks: 4, numMicroBatches: 6 }, /is 6; .*multiple of numRanks = 4/],
    [
      "interleaved-1f1b",
      { numRanks: 4, numMicroBatches: 8, chunksPerRank: 0 },
      /chunksPerRank is 0/,
    ],
    ["1f1b", { numRanks: 4, numMicroBatches: 6, chunksPerRank: 2 }, /chunksPerRank is 2 for 1f1b/],
    ["1f1b", { numRanks: 0, numMicroBatches: 6 }, /numRanks is 0; .* at least 1/],
    ["zbv", { numRanks: 2, numMicroBatches: 1.5 }, /numMicroBatches is 1.5/],
    ["zb1p", { numRanks: 2, numMicroBatches: Number.NaN }, /numMicroBatches is NaN/],
    ["zbv", { numRanks: 40_000, numMicroBatches: 8 }, /numRanks is 40000; expected at most 32768/],
    ["1f1b", { numRanks: 1024, numMicroBatches: 1e9 }, /at most 262144/],
    ["gpipe", { numRanks: 2, numMicroBatches: 4 }, /schedule is gpipe; expected one of 1f1b/],
  ] as const)("%s %o", (name, options, expected) => {
    expect(message(name as BuiltInName, options)).toMatch(expected);
  });
});
