// The validator: schedules broken at random must be noticed exactly when a slow oracle of another
// make says that they are broken; and each violation names its place.

import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import {
  assertValidSchedule,
  type BuiltInName,
  buildSchedule,
  builtInNames,
  dualPipe,
  dualPipeV,
  forwardOnly,
  type Op,
  type OpInput,
  oneFOneB,
  opAt,
  RankOpsBuilder,
  type Schedule,
  ScheduleError,
  type ViolationCode,
  validateSchedule,
  withCommunication,
  zb1p,
} from "../src/index.ts";
import { isComplete, oracle } from "./oracle.ts";

const seed = testSeed();

const toLists = (schedule: Schedule): Op[][] =>
  schedule.ranks.map((ops) => Array.from({ length: ops.length }, (_, i) => opAt(ops, i)));

function fromLists(schedule: Schedule, lists: readonly (readonly OpInput[])[]): Schedule {
  const ranks = lists.map((list) => {
    const builder = new RankOpsBuilder(list.length);
    for (const op of list) builder.add(op);
    return builder.finish();
  });
  return { ...schedule, name: "custom", ranks };
}

/** The schedule with one rank's list changed. */
function changed(schedule: Schedule, rank: number, change: (list: Op[]) => void): Schedule {
  const lists = toLists(schedule);
  change(lists[rank] as Op[]);
  return fromLists(schedule, lists);
}

const codes = (schedule: Schedule): ViolationCode[] =>
  validateSchedule(schedule).violations.map(({ code }) => code);

type Mutation = (lists: Op[][], random: Random) => void;

const anyRank = (lists: Op[][], random: Random): Op[] => random.pick(lists);
const at = (list: readonly Op[], random: Random): number => random.int(0, list.length);

const mutations: Readonly<Record<string, Mutation>> = {
  swap(lists, random) {
    const list = anyRank(lists, random);
    const [i, j] = [at(list, random), at(list, random)];
    [list[i], list[j]] = [list[j] as Op, list[i] as Op];
  },
  swapNeighbours(lists, random) {
    const list = anyRank(lists, random);
    const i = random.int(0, Math.max(1, list.length - 1));
    list.splice(i, 2, ...list.slice(i, i + 2).toReversed());
  },
  move(lists, random) {
    const list = anyRank(lists, random);
    const [op] = list.splice(at(list, random), 1);
    list.splice(random.int(0, list.length + 1), 0, op as Op);
  },
  drop(lists, random) {
    const list = anyRank(lists, random);
    list.splice(at(list, random), 1);
  },
  duplicate(lists, random) {
    const list = anyRank(lists, random);
    list.splice(at(list, random), 0, list[at(list, random)] as Op);
  },
  otherRank(lists, random) {
    const from = anyRank(lists, random);
    const [op] = from.splice(at(from, random), 1);
    const to = anyRank(lists, random);
    to.splice(at(to, random), 0, op as Op);
  },
  otherStage(lists, random) {
    const list = anyRank(lists, random);
    const i = at(list, random);
    const op = list[i] as Op;
    list[i] = { ...op, stage: Math.max(0, op.stage + random.pick([-1, 1])) };
  },
  otherMicroBatch(lists, random) {
    const list = anyRank(lists, random);
    const i = at(list, random);
    const op = list[i] as Op;
    list[i] = { ...op, microBatch: op.microBatch + random.pick([-1, 1]) };
  },
  otherKind(lists, random) {
    const list = anyRank(lists, random);
    const i = at(list, random);
    const { pair: _, ...op } = list[i] as Op;
    const kinds = ["F", "B", "I", "W", "SendF", "RecvF", "SendB", "RecvB"] as const;
    list[i] = { ...op, kind: random.pick(kinds) };
  },
  swapReceives(lists, random) {
    const list = anyRank(lists, random);
    const receives = list.flatMap((op, i) => (op.kind.startsWith("Recv") ? [i] : []));
    if (receives.length < 2) return;
    const [i, j] = [random.pick(receives), random.pick(receives)];
    [list[i], list[j]] = [list[j] as Op, list[i] as Op];
  },
};

function randomSchedule(random: Random): { schedule: Schedule; label: string } {
  const name = random.pick(builtInNames) as BuiltInName;
  const numRanks = name === "dualpipe" ? 2 * random.int(1, 3) : random.int(1, 5);
  const numMicroBatches = random.int(1, 9);
  const schedule = buildSchedule(name, { numRanks, numMicroBatches, allowPartial: true });
  const placement = random.pick([undefined, "none", "arrival"] as const);
  const label = `${name}(${numRanks}, ${numMicroBatches}), transfers ${placement}`;
  if (placement === "none") return { schedule, label };
  return { schedule: withCommunication(schedule, placement ? { placement } : {}), label };
}

describe("schedules broken at random", () => {
  for (const [name, mutate] of Object.entries(mutations)) {
    it(`${name}: noticed exactly when the oracle cannot run it`, () => {
      const random = seededRandom(seed);
      let broken = 0;
      for (let n = 0; n < 150; n++) {
        const { schedule, label } = randomSchedule(random);
        const lists = toLists(schedule);
        for (let times = random.int(1, 3); times > 0; times--) mutate(lists, random);
        const mutant = fromLists(schedule, lists);
        const sound =
          isComplete(mutant) && oracle(mutant).done && oracle(mutant, { rendezvous: true }).done;
        const report = validateSchedule(mutant);
        const first = report.violations[0]?.message;
        expect(report.ok, `seed ${seed}, case ${n}, ${label}: ${first}`).toBe(sound);
        if (!sound) broken++;
      }
      expect(broken, `seed ${seed}: mutants that are broken`).toBeGreaterThan(10);
    });
  }
});

describe("what it says", () => {
  const small = oneFOneB({ numRanks: 2, numMicroBatches: 3 });

  it("names rank, position and operation", () => {
    const swapped = changed(small, 1, (list) => list.reverse());
    const { violations } = validateSchedule(swapped);
    expect(violations[0]).toEqual({
      code: "order",
      rank: 1,
      position: 0,
      op: "1B2",
      message: "rank 1, operation 0, 1B2: its F does not stand before it",
    });
  });

  it("names the circle of a deadlock in dataflow order", () => {
    // Rank 0 wants the gradient of 0 before it sends 1; rank 1 wants 1 before it makes that.
    const swap = (list: Op[]): void => {
      list.splice(1, 2, ...list.slice(1, 3).toReversed());
    };
    const stuck = changed(changed(small, 0, swap), 1, swap);
    const { violations, readings } = validateSchedule(stuck);
    expect(readings).toEqual(["dataflow"]);
    expect(violations).toEqual([
      {
        code: "deadlock",
        rank: 0,
        position: 1,
        op: "0B0",
        message:
          "rank 0, operation 1, 0B0: in dataflow order 2 ranks stand still: " +
          "rank 0 at operation 1, 0B0, waits for its output's gradient; " +
          "rank 1 at operation 1, 1F1, waits for its input",
      },
    ]);
  });

  it("finds deadlocks that only rendezvous has", () => {
    // Rank 1 asks for micro-batch 2 before it has done 0, which rank 0 needs to get to 2.
    const schedule = withCommunication(small);
    const early = changed(schedule, 1, (list) => {
      const at = list.findIndex(({ kind, microBatch }) => kind === "RecvF" && microBatch === 2);
      list.unshift(...list.splice(at, 1));
    });
    expect(oracle(early).done).toBe(true);
    expect(oracle(early, { rendezvous: true }).done).toBe(false);
    const { violations, readings } = validateSchedule(early);
    expect(readings).toEqual(["dataflow", "rendezvous"]);
    expect(violations.map(({ message }) => message)).toEqual([
      "rank 0, operation 5, 0B0: in rendezvous order 2 ranks stand still: " +
        "rank 0 at operation 5, 0B0, waits for 0SEND_F1 to meet RECV_F of stage 1, micro-batch 1 " +
        "of rank 1; rank 1 at operation 2, 1F0, waits for 1RECV_F2 to meet SEND_F of stage 0, " +
        "micro-batch 2 of rank 0",
    ]);
  });

  it.each<[string, Schedule, ViolationCode]>([
    ["a dropped cell", changed(small, 0, (list) => list.pop()), "missing"],
    ["a cell twice", changed(small, 0, (list) => list.push(list[0] as Op)), "duplicate"],
    [
      "a stage of another rank",
      changed(small, 0, (list) => list.push(...toLists(small)[1]!)),
      "rank",
    ],
    [
      "a micro-batch too many",
      changed(small, 0, (list) => list.push({ ...(list[0] as Op), microBatch: 3 })),
      "range",
    ],
    [
      "a B and an I of one cell",
      changed(small, 0, (list) => list.push({ ...(list.at(-1) as Op), kind: "I" })),
      "split",
    ],
    [
      "a W out of turn",
      changed(zb1p({ numRanks: 2, numMicroBatches: 3 }), 1, (list) =>
        list.splice(-2, 2, ...list.slice(-2).toReversed()),
      ),
      "fifo",
    ],
    [
      "transfers not announced",
      { ...withCommunication(small), hasCommunication: false },
      "transfer",
    ],
    ["transfers announced that are not there", { ...small, hasCommunication: true }, "order"],
    ["rankOf too short", { ...small, rankOf: new Int32Array(1) }, "shape"],
    ["too few lists", { ...small, ranks: small.ranks.slice(1) }, "shape"],
    ["counts that do not add up", { ...small, numMicroBatches: 4 }, "shape"],
    [
      "more cells than could be",
      { ...small, numMicroBatches: 2 ** 30, microBatchesOf: [2 ** 30] },
      "missing",
    ],
  ])("%s", (_, schedule, code) => {
    expect(codes(schedule)).toContain(code);
  });

  it("counts what it does not list", () => {
    const empty = fromLists(small, [[], []]);
    expect(validateSchedule(empty).ok).toBe(false);
    const twice = changed(small, 0, (list) => list.push(...list));
    const report = validateSchedule(twice, { violationsMax: 2 });
    expect(report.violations).toHaveLength(2);
    expect(report.omitted).toBe(4);
    expect(() => assertValidSchedule(twice)).toThrow(ScheduleError);
    expect(() => assertValidSchedule(twice)).toThrow(/rank 0, operation 6, 0F0: .*5 more/);
    expect(() => assertValidSchedule(small)).not.toThrow();
  });

  it("holds ranks to a memory limit, by either count, one for all or one a rank", () => {
    const schedule = dualPipe({ numRanks: 4, numMicroBatches: 8 });
    expect(validateSchedule(schedule, { memoryLimit: 5 }).ok).toBe(true);
    const report = validateSchedule(schedule, { memoryLimit: 4 });
    expect(report.violations).toHaveLength(4);
    expect(report.violations[2]?.message).toBe(
      "rank 2: holds 5 micro-batches until their backward at once; the limit is 4",
    );
    const half = validateSchedule(schedule, { memoryLimit: [5, 5, 4, 4], heldUntil: "weight" });
    expect(half.violations.map(({ rank }) => rank)).toEqual([2, 3]);
    const h1 = zb1p({ numRanks: 4, numMicroBatches: 8 });
    expect(validateSchedule(h1, { memoryLimit: [4, 3, 2, 1] }).ok).toBe(true);
    expect(validateSchedule(h1, { memoryLimit: [4, 3, 2, 1], heldUntil: "weight" }).ok).toBe(false);
  });

  it("takes forwards alone if they are expected", () => {
    for (const schedule of [
      dualPipe({ numRanks: 4, numMicroBatches: 10 }),
      withCommunication(dualPipeV({ numRanks: 3, numMicroBatches: 7 })),
    ]) {
      const forwards = forwardOnly(schedule);
      expect(validateSchedule(forwards, { forwardOnly: true }).violations).toEqual([]);
      expect(validateSchedule(forwards).ok).toBe(false);
      expect(validateSchedule(schedule, { forwardOnly: true }).ok).toBe(false);
    }
  });
});
