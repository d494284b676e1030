// Where transfers are posted: for DualPipe and DualPipeV against the steps of the original written
// out in words, for the others by what must hold.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  buildSchedule,
  builtInNames,
  formatRank,
  type Op,
  type OpInput,
  oneFOneB,
  opAt,
  type RankOps,
  RankOpsBuilder,
  type Schedule,
  ScheduleError,
  stepCounts,
  withCommunication,
} from "../src/index.ts";
import { oracle } from "./oracle.ts";
import { originalOps } from "./original-steps.ts";

const seed = testSeed();

const isEnd = (op: OpInput): boolean => /^(Send|Recv)/.test(op.kind);
const text = ({ kind, direction, stage, microBatch, pair }: OpInput): string => {
  const tail = pair ? `|${pair.direction}:${pair.stage}:${pair.microBatch}` : "";
  return `${kind} ${direction}:${stage}:${microBatch}${tail}`;
};
const list = (ops: RankOps): Op[] => Array.from({ length: ops.length }, (_, i) => opAt(ops, i));

/** Operations as text, transfers between two cells sorted, for their order there means nothing. */
function normal(ops: readonly OpInput[]): string[] {
  const out: string[] = [];
  let gap: string[] = [];
  for (const op of ops) {
    if (isEnd(op)) gap.push(text(op));
    else {
      out.push(...gap.toSorted(), text(op));
      gap = [];
    }
  }
  return [...out, ...gap.toSorted()];
}

function slotsOf(schedule: Schedule, rank: number) {
  const { numStages, rankOf } = schedule;
  const slots = Array.from(rankOf.entries())
    .filter(([, holder]) => holder === rank)
    .map(([i]) => {
      const direction = Math.floor(i / numStages);
      const stage = i % numStages;
      const crosses = (s: number): boolean =>
        s >= 0 && s < numStages && rankOf[direction * numStages + s] !== rank;
      return { direction, stage, before: crosses(stage - 1), after: crosses(stage + 1) };
    });
  return slots.toSorted((a, b) => a.stage - b.stage);
}

describe("the original's places", () => {
  for (const name of ["dualpipe", "dualpipev"] as const) {
    it(`${name}: the steps in words give the same lists`, () => {
      const random = seededRandom(seed);
      for (let n = 0; n < 25; n++) {
        const two = name === "dualpipe";
        const numRanks = two ? 2 * random.int(1, 8) : random.int(1, 9);
        const numMicroBatches = 2 * numRanks + (two ? 2 : 1) * random.int(0, 9);
        const schedule = withCommunication(buildSchedule(name, { numRanks, numMicroBatches }));
        stepCounts(name, { numRanks, numMicroBatches }).forEach((counts, rank) => {
          const [slot0, slot1] = slotsOf(schedule, rank);
          const middle = counts[2] === 0;
          const depth = two ? Math.min(rank, numRanks - 1 - rank) : rank;
          const words = originalOps({ slots: [slot0!, slot1!], counts, middle, depth });
          const ours = list(schedule.ranks[rank] as RankOps);
          const label = `seed ${seed}, ${name}(${numRanks}, ${numMicroBatches}), rank ${rank}`;
          expect(normal(ours), label).toEqual(normal(words));
        });
      }
    });
  }

  it("a rank in the middle of DualPipe(4, 8), spelled out", () => {
    const schedule = withCommunication(
      buildSchedule("dualpipe", { numRanks: 4, numMicroBatches: 8 }),
    );
    expect(formatRank(schedule, 1).split(" ").slice(0, 29).join(" ")).toBe(
      ">RECV_F0 >F0 >SEND_F0 >RECV_F1 <RECV_F0 <F0 <SEND_F0 >F1 >SEND_F1 >RECV_F2 <RECV_F1 <F1 " +
        ">F2 <SEND_F1 <RECV_B0 <B0 >SEND_F2 <SEND_B0 <RECV_F2 >RECV_B0 (<F2|>B0) <SEND_F2 " +
        ">SEND_B0 >RECV_F3 <RECV_B1 (>F3|<B1) >SEND_F3 <SEND_B1 <RECV_F3",
    );
  });
});

describe("any schedule", () => {
  it("keeps its cells and their phases, and has both ends of every transfer once", () => {
    for (const name of builtInNames) {
      for (const placement of ["arrival", undefined] as const) {
        const alone = buildSchedule(name, { numRanks: 4, numMicroBatches: 8 });
        const placed = withCommunication(alone, placement ? { placement } : {});
        const ends = new Map<string, number>();
        placed.ranks.forEach((ops, rank) => {
          const all = list(ops);
          expect(all.filter((op) => !isEnd(op))).toEqual(list(alone.ranks[rank] as RankOps));
          for (const { kind, direction: d, stage: s, microBatch: m } of all.filter(isEnd)) {
            const isSend = kind.startsWith("Send");
            const to = isSend ? s + (kind === "SendF" ? 1 : -1) : s;
            const key = `${kind.slice(4)} ${d} ${to} ${m}`;
            ends.set(key, (ends.get(key) ?? 0) + (isSend ? 1 : 100));
          }
        });
        expect(new Set(ends.values()), name).toEqual(new Set([101]));
      }
    }
  });

  it("posts none on a single rank or at the turn of a V", () => {
    for (const name of builtInNames.filter((n) => n !== "dualpipe")) {
      const one = withCommunication(buildSchedule(name, { numRanks: 1, numMicroBatches: 3 }));
      expect(list(one.ranks[0] as RankOps).some(isEnd), name).toBe(false);
      expect(one.hasCommunication).toBe(true);
    }
    const v = withCommunication(buildSchedule("dualpipev", { numRanks: 2, numMicroBatches: 4 }));
    const ends = list(v.ranks[1] as RankOps).filter(isEnd);
    expect(new Set(ends.map(({ kind, stage }) => `${kind} ${stage}`))).toEqual(
      new Set(["RecvF 1", "SendB 1", "SendF 2", "RecvB 2"]),
    );
  });

  it("costs no time as rendezvous where transfers take none, but for the interleaved", () => {
    for (const name of builtInNames.filter((n) => n !== "interleaved-1f1b")) {
      for (const numRanks of [2, 4, 6]) {
        for (const numMicroBatches of [2 * numRanks, 2 * numRanks + 6]) {
          const alone = buildSchedule(name, { numRanks, numMicroBatches });
          const { makespan } = oracle(withCommunication(alone), { rendezvous: true });
          expect(makespan, `${name}(${numRanks}, ${numMicroBatches})`).toBe(oracle(alone).makespan);
        }
      }
    }
  });

  it("is given transfers once", () => {
    const placed = withCommunication(oneFOneB({ numRanks: 2, numMicroBatches: 2 }));
    expect(withCommunication(placed)).toBe(placed);
  });

  it("is refused if its cells wait for themselves", () => {
    const schedule = oneFOneB({ numRanks: 2, numMicroBatches: 2 });
    const backwardFirst = new RankOpsBuilder(4);
    for (const op of list(schedule.ranks[0] as RankOps).toReversed()) backwardFirst.add(op);
    const [, second] = schedule.ranks;
    const broken = { ...schedule, ranks: [backwardFirst.finish(), second as RankOps] };
    expect(() => withCommunication(broken)).toThrow(ScheduleError);
    expect(() => withCommunication(broken)).toThrow(/rank 0 never gets past operation 0, B of/);
  });
});
