// What must hold for any schedule and any times: the simulator against a plain one by events, and
// the laws of makespan, idle time, critical path and lower bound.

import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { simulateByEvents } from "../bench/event-queue.ts";
import {
  buildSchedule,
  builtInNames,
  DeadlockError,
  forwardOnly,
  OpKind,
  opAt,
  RankOpsBuilder,
  type Schedule,
  type SimulationResult,
  type StageTimes,
  simulate,
  validateSchedule,
  withCommunication,
} from "../src/index.ts";

const seed = testSeed();
const random = seededRandom(seed);
const rounds = 60;

function randomSchedule(): Schedule {
  const name = random.pick(builtInNames);
  const numRanks = name === "dualpipe" ? random.pick([2, 4, 6]) : random.int(1, 6);
  const chunksPerRank = random.int(2, 4);
  return buildSchedule(name, {
    numRanks,
    numMicroBatches: random.int(1, 20),
    allowPartial: true,
    ...(name === "interleaved-1f1b" && { chunksPerRank }),
  });
}

/** Eighths, so that sums are exact and equal times are equal. */
const eighths = (low: number, high: number): number => random.int(low, high) / 8;

interface RandomTimes {
  readonly F: number[];
  readonly B: number[];
  readonly W: number[];
  readonly I: number[];
  readonly FB: (f: number, b: number) => number;
}

function randomTimes(numStages: number): RandomTimes {
  const values = (): number[] => Array.from({ length: numStages }, () => eighths(1, 24));
  const [F, B, I, W] = [values(), values(), values(), values()];
  return { F, B, I, W, FB: (f, b) => ((F[f] as number) + (B[b] as number)) * 0.75 };
}

const latencyOf = (from: number, to: number): number => ((from * 3 + to * 5) % 7) / 8;

/** The same through the plain simulator. */
function plain(schedule: Schedule, times: RandomTimes) {
  return simulateByEvents(schedule, {
    duration: (op) =>
      op.kind === "FB"
        ? times.FB(op.stage, op.pair?.stage as number)
        : (times[op.kind as "F" | "B" | "I" | "W"][op.stage] as number),
    latency: latencyOf,
  });
}

function startsOf(schedule: Schedule, result: SimulationResult): number[][] {
  return schedule.ranks.map((ops, rank) =>
    [...(result.timeline?.[rank]?.start ?? [])].filter(
      (_, i) => (ops.kind[i] as number) <= OpKind.FB,
    ),
  );
}

/** The schedule with two neighbours of one rank swapped. */
function swapped(schedule: Schedule): Schedule {
  const rank = random.int(0, schedule.numRanks);
  const ranks = schedule.ranks.map((ops, r) => {
    if (r !== rank || ops.length < 2) return ops;
    const at = random.int(0, ops.length - 1);
    const copy = new RankOpsBuilder(ops.length);
    for (let i = 0; i < ops.length; i++) {
      copy.add(opAt(ops, i === at ? at + 1 : i === at + 1 ? at : i));
    }
    return copy.finish();
  });
  return { ...schedule, ranks };
}

describe(`any schedule and times (seed ${seed})`, () => {
  it("gives the starts that a plain event queue gives", () => {
    for (let round = 0; round < rounds; round++) {
      const schedule = round % 7 === 0 ? forwardOnly(randomSchedule()) : randomSchedule();
      const times = randomTimes(schedule.numStages);
      const result = simulate(schedule, times, { communication: { latency: latencyOf } });
      const events = plain(schedule, times);
      const message = `seed ${seed}, round ${round}, ${schedule.name}`;
      expect(startsOf(schedule, result), message).toEqual(
        events.runs.map((runs) => runs.map(({ start }) => start)),
      );
      expect(result.makespan, message).toBe(events.makespan);
    }
  });

  it("adds up: busy and idle, idle by position and by phase, critical path, bound", () => {
    for (let round = 0; round < rounds; round++) {
      const message = `seed ${seed}, round ${round}`;
      const schedule = randomSchedule();
      const times = randomTimes(schedule.numStages);
      const isRendezvous = round % 2 === 1;
      const ops = isRendezvous ? withCommunication(schedule) : schedule;
      const mode = isRendezvous ? "rendezvous" : "dataflow";
      const result = simulate(ops, times, { communication: { latency: latencyOf }, mode });
      const { makespan, criticalPath, lowerBound } = result;
      result.idleOf.forEach((idle, rank) => {
        expect(idle.total + (result.busy[rank] as number), message).toBe(makespan);
        expect(idle.warmUp + idle.steady + idle.coolDown, message).toBe(idle.total);
        const byPhase = idle.byPhase.reduce((sum, part) => sum + part, idle.afterEnd);
        expect(byPhase, message).toBe(idle.total);
      });
      const { steps = [], computeTime = 0, communicationTime = 0 } = criticalPath ?? {};
      expect(computeTime + communicationTime, message).toBe(makespan);
      expect(steps.at(-1)?.end, message).toBe(makespan);
      let end = 0;
      for (const step of steps) {
        expect(step.start - step.communication, message).toBe(end);
        end = step.end;
      }
      expect(lowerBound.makespan, message).toBeLessThanOrEqual(makespan);
      expect(lowerBound.head + lowerBound.body + lowerBound.tail, message).toBe(
        lowerBound.makespan,
      );
    }
  });

  it("never beats the lower bound by another order of the same operations", () => {
    for (let round = 0; round < rounds; round++) {
      let schedule = randomSchedule();
      const times = randomTimes(schedule.numStages);
      const bound = simulate(schedule, times).lowerBound.makespan;
      for (let swap = 0; swap < 20; swap++) {
        const next = swapped(schedule);
        try {
          const result = simulate(next, times);
          const message = `seed ${seed}, round ${round}, swap ${swap}`;
          expect(result.lowerBound.makespan, message).toBe(bound);
          expect(result.makespan, message).toBeGreaterThanOrEqual(bound);
          schedule = next;
        } catch (error) {
          if (!(error instanceof DeadlockError)) throw error;
        }
      }
    }
  });

  it("takes no less time when anything takes more", () => {
    for (let round = 0; round < rounds; round++) {
      const schedule = randomSchedule();
      const times = randomTimes(schedule.numStages);
      const before = simulate(schedule, times).makespan;
      const kind = random.pick(["F", "B", "I", "W"] as const);
      const longer = times[kind].slice();
      const stage = random.int(0, longer.length);
      longer[stage] = (longer[stage] as number) + eighths(1, 40);
      const slower: StageTimes = { ...times, [kind]: longer };
      const message = `seed ${seed}, round ${round}`;
      expect(simulate(schedule, slower).makespan, message).toBeGreaterThanOrEqual(before);
      const late = simulate(schedule, times, { communication: { latency: latencyOf } });
      expect(late.makespan, message).toBeGreaterThanOrEqual(before);
      const posted = simulate(withCommunication(schedule), times, {
        communication: { latency: latencyOf },
        mode: "rendezvous",
      });
      expect(posted.makespan, message).toBeGreaterThanOrEqual(late.makespan);
    }
  });

  it("scales with the unit of time, and does not mind what is not asked for", () => {
    for (let round = 0; round < rounds; round++) {
      const schedule = randomSchedule();
      const { F, B, I, W } = randomTimes(schedule.numStages);
      const result = simulate(schedule, { F, B, I, W });
      const doubled = [F, B, I, W].map((values) => values.map((value) => value * 2));
      const [F2, B2, I2, W2] = doubled as [number[], number[], number[], number[]];
      const message = `seed ${seed}, round ${round}`;
      expect(simulate(schedule, { F: F2, B: B2, I: I2, W: W2 }).makespan, message).toBe(
        result.makespan * 2,
      );
      const lean = simulate(schedule, { F, B, I, W }, { timeline: false, criticalPath: false });
      const { timeline: _, criticalPath: __, ...rest } = result;
      expect(lean, message).toEqual(rest);
      expect(simulate(withCommunication(schedule), { F, B, I, W }).makespan, message).toBe(
        result.makespan,
      );
    }
  });

  it("stops where the validator says that it must", () => {
    let broken = 0;
    for (let round = 0; round < rounds * 5; round++) {
      const schedule = swapped(randomSchedule());
      const times = randomTimes(schedule.numStages);
      const sound = validateSchedule(schedule).violations.every(({ code }) => code === "fifo");
      let stopped = false;
      try {
        simulate(schedule, times);
      } catch (error) {
        if (!(error instanceof DeadlockError)) throw error;
        stopped = true;
      }
      if (stopped) broken++;
      const message = `seed ${seed}, round ${round}, ${schedule.name}`;
      expect(stopped, message).toBe(!sound);
      expect(plain(schedule, times).stuck.length > 0, message).toBe(stopped);
    }
    expect(broken).toBeGreaterThan(10);
  });

  it("stops in rendezvous where the validator says so", () => {
    let broken = 0;
    for (let round = 0; round < rounds * 5; round++) {
      const schedule = swapped(withCommunication(randomSchedule()));
      const { violations } = validateSchedule(schedule);
      const sound = violations.every(({ code }) => code === "fifo");
      let stopped = false;
      try {
        simulate(schedule, randomTimes(schedule.numStages), { mode: "rendezvous" });
      } catch (error) {
        if (!(error instanceof DeadlockError)) throw error;
        stopped = true;
      }
      if (stopped) broken++;
      const message = `seed ${seed}, round ${round}: ${violations[0]?.message}`;
      expect(stopped, message).toBe(!sound);
    }
    expect(broken).toBeGreaterThan(10);
  });
});
