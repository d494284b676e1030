// What a stage may do, and when the executor calls it.

import { Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { InProcessNetwork } from "../../src/runtime/in-process.ts";
import { rankPrograms } from "../../src/runtime/rank-programs.ts";
import { erf } from "../../src/runtime/reference/matrix.ts";
import { MlpStage, mseLoss } from "../../src/runtime/reference/mlp-stage.ts";
import { PipelineRunner, type RunnerOptions } from "../../src/runtime/runner.ts";
import type { Criterion, CriterionResult, Stage } from "../../src/runtime/stage.ts";
import { WeightGradStore } from "../../src/runtime/weight-grad-store.ts";
import { OpKind, RankOpsBuilder, type Schedule } from "../../src/schedule/schedule.ts";
import { contextOf, randomTensor } from "./reference.ts";

/** A schedule of one rank: `F0 F1 B0 …` by (kind, stage, micro-batch). */
function oneRank(
  numStages: number,
  numMicroBatches: number,
  write: (ops: RankOpsBuilder) => void,
): Schedule {
  const ops = new RankOpsBuilder();
  write(ops);
  return {
    name: "custom",
    numRanks: 1,
    numStages,
    numDirections: 1,
    numMicroBatches,
    microBatchesOf: [numMicroBatches],
    rankOf: new Int32Array(numStages),
    ranks: [ops.finish()],
    hasCommunication: true,
  };
}

const scalar = (x: number): Tensor => Tensor.from([x], [1], "f64");
const value = (tensors: readonly Tensor[]): number => tensors[0]?.toFloat64()[0] as number;

/** The output itself as the loss. */
const identityLoss: Criterion = {
  forward: (outputs) => ({ loss: value(outputs), gradOutputs: [scalar(1)] }),
};

/** Multiplies by 2 and notes every call. */
function doubler(log: string[], more: Partial<Stage> = {}): Stage {
  return {
    forward: ([x], { stage, microBatch }) => {
      log.push(`F${stage}.${microBatch}`);
      return { outputs: [scalar(2 * value([x as Tensor]))], saved: microBatch };
    },
    backwardInput: (saved, [g], { stage }) => {
      log.push(`I${stage}.${saved}`);
      return stage > 0 ? [scalar(2 * value([g as Tensor]))] : [];
    },
    backwardWeight: (saved, _, { stage }) => {
      log.push(`W${stage}.${saved}`);
    },
    ...more,
  };
}

function run(schedule: Schedule, stages: readonly Stage[], options: Partial<RunnerOptions> = {}) {
  const [program] = rankPrograms(schedule);
  const transport = new InProcessNetwork({ numRanks: 1 }).transport(0);
  const placed = stages.map((model, stage) => ({ direction: 0, stage, model }));
  const batches = Array.from({ length: schedule.numMicroBatches }, (_, m) => [scalar(m + 1)]);
  const runner = new PipelineRunner({ transport, stages: placed, ...options });
  return runner.run(program!, {
    inputs: new Map([[0, batches]]),
    labels: new Map([[0, batches]]),
    criterion: identityLoss,
    returnOutputs: true,
  });
}

describe("the calls of a stage", () => {
  it("B computes both gradients at once, I leaves the weights to its W", async () => {
    const log: string[] = [];
    const schedule = oneRank(1, 2, (ops) => {
      ops.push(OpKind.F, 0, 0, 0);
      ops.push(OpKind.F, 0, 0, 1);
      ops.push(OpKind.I, 0, 0, 0);
      ops.push(OpKind.B, 0, 0, 1);
      ops.push(OpKind.W, 0, 0, 0);
    });
    await run(schedule, [doubler(log)]);
    expect(log).toEqual(["F0.0", "F0.1", "I0.0", "I0.1", "W0.1", "W0.0"]);
  });

  it("B is `backward` where a stage has it", async () => {
    const log: string[] = [];
    const backward: Stage["backward"] = (saved) => {
      log.push(`B.${saved}`);
      return [];
    };
    const schedule = oneRank(1, 1, (ops) => {
      ops.push(OpKind.F, 0, 0, 0);
      ops.push(OpKind.B, 0, 0, 0);
    });
    await run(schedule, [doubler(log, { backward })]);
    expect(log).toEqual(["F0.0", "B.0"]);
  });

  it("weight gradients a stage puts aside itself wait for W, and run at once in B", async () => {
    const log: string[] = [];
    const model = doubler(log);
    const { backwardWeight: _, ...plain } = model;
    const stage: Stage = {
      ...plain,
      backwardInput: async (saved, grads, context) => {
        const made = await model.backwardInput(saved, grads, context);
        log.push(`enabled ${context.weightGrads.enabled}`);
        await context.weightGrads.put(() => void log.push(`a.${saved}`));
        await context.weightGrads.put(async () => void log.push(`b.${saved}`));
        return made;
      },
    };
    const schedule = oneRank(1, 2, (ops) => {
      ops.push(OpKind.F, 0, 0, 0);
      ops.push(OpKind.I, 0, 0, 0);
      ops.push(OpKind.F, 0, 0, 1);
      ops.push(OpKind.B, 0, 0, 1);
      ops.push(OpKind.W, 0, 0, 0);
    });
    await run(schedule, [stage]);
    const second = ["F0.1", "I0.1", "enabled false", "a.1", "b.1", "a.0", "b.0"];
    expect(log).toEqual(["F0.0", "I0.0", "enabled true", ...second]);
  });

  it("an overlapped pair is one call for stages of one class, else two", async () => {
    class Overlapping {
      readonly log: string[];
      constructor(log: string[]) {
        this.log = log;
      }
    }
    const make = (log: string[]): Stage => {
      const overlappedForwardBackward: Stage["overlappedForwardBackward"] = (f, b) => {
        log.push(`FB ${f.context.stage}.${f.context.microBatch} ${b.context.stage}.${b.saved}`);
        const outputs = [scalar(2 * value(f.inputs))];
        return { outputs, saved: f.context.microBatch, gradInputs: [] };
      };
      return Object.assign(new Overlapping(log), doubler(log, { overlappedForwardBackward }));
    };
    const schedule = oneRank(2, 2, (ops) => {
      ops.push(OpKind.F, 0, 0, 0);
      ops.push(OpKind.F, 0, 1, 0);
      ops.push(OpKind.B, 0, 1, 0);
      ops.push(OpKind.F, 0, 0, 1);
      ops.pushPair(
        { direction: 0, stage: 1, microBatch: 1 },
        { direction: 0, stage: 0, microBatch: 0 },
      );
      ops.push(OpKind.B, 0, 1, 1);
      ops.push(OpKind.B, 0, 0, 1);
    });
    const [same, other]: [string[], string[]] = [[], []];
    const { losses } = await run(schedule, [make(same), make(same)]);
    expect(same).toContain("FB 1.1 0.0");
    expect([...(losses.get(0) ?? [])]).toEqual([4, 8]);
    await run(schedule, [doubler(other), make(other)]);
    expect(other.slice(5, 8)).toEqual(["F1.1", "I0.0", "W0.0"]);
  });

  it("may be asynchronous, of changing shapes, and return its input as it is", async () => {
    const network = new InProcessNetwork({ numRanks: 2, delayTurns: () => 1 });
    const pass: Stage = {
      forward: async (inputs) => ({ outputs: inputs, saved: inputs }),
      backwardInput: async (_, grads) => grads,
    };
    const labels = Array.from({ length: 4 }, (_, m) => [
      Tensor.from([...Array(m).keys()], [m], "f64"),
    ]);
    const schedule = (await import("../../src/schedule/build.ts")).buildSchedule("zb1p", {
      numRanks: 2,
      numMicroBatches: 4,
    });
    const outcomes = await Promise.all(
      rankPrograms(schedule).map((program, rank) => {
        const stages = [{ direction: 0, stage: rank, model: pass }];
        const transport = network.transport(rank);
        return new PipelineRunner({ transport, stages }).run(program, {
          inputs: new Map(rank === 0 ? [[0, labels]] : []),
          labels: new Map(rank === 1 ? [[0, labels]] : []),
          criterion: {
            forward: async ([y]) => ({ loss: y?.size ?? -1, gradOutputs: [y?.clone() as Tensor] }),
          },
          returnOutputs: true,
        });
      }),
    );
    expect([...(outcomes[1]?.losses.get(0) ?? [])]).toEqual([0, 1, 2, 3]);
    expect(outcomes[1]?.outputs.get(0)?.map(([y]) => [...(y as Tensor).toFloat64()])).toEqual([
      [],
      [0],
      [0, 1],
      [0, 1, 2],
    ]);
  });

  it("sees no more than the executor holds: inputs are gone after their last use", async () => {
    const kept: Tensor[] = [];
    const network = new InProcessNetwork({ numRanks: 2 });
    const keep: Stage = {
      forward: (inputs) => {
        kept.push(...inputs);
        return { outputs: [scalar(value(inputs))], saved: inputs };
      },
      // The input is still there for the backward.
      backwardInput: (saved, grads) => [scalar(value(grads) * value(saved as Tensor[]))],
    };
    const { buildSchedule } = await import("../../src/schedule/build.ts");
    const programs = rankPrograms(buildSchedule("1f1b", { numRanks: 2, numMicroBatches: 3 }));
    const batches = [1, 2, 3].map((x) => [scalar(x)]);
    await Promise.all(
      programs.map((program, rank) => {
        const stages = [{ direction: 0, stage: rank, model: rank === 1 ? keep : doubler([]) }];
        return new PipelineRunner({ transport: network.transport(rank), stages }).run(program, {
          inputs: new Map(rank === 0 ? [[0, batches]] : []),
          labels: new Map(rank === 1 ? [[0, batches]] : []),
          criterion: identityLoss,
          returnOutputs: false,
        });
      }),
    );
    expect(kept).toHaveLength(3);
    for (const tensor of kept) expect(() => tensor.raw()).toThrow("disposed");
  });
});

describe("WeightGradStore", () => {
  it("is a FIFO of flushes, or finds an entry by its tag", async () => {
    const log: number[] = [];
    const store = new WeightGradStore();
    store.put(() => void log.push(0));
    expect(log).toEqual([0]);
    store.enabled = true;
    for (const tag of [5, 6, 7]) {
      store.put(() => void log.push(tag));
      store.put(() => void log.push(10 * tag));
      store.flush(tag);
    }
    expect(store.size).toBe(3);
    expect(await store.pop(6)).toBe(true);
    expect(await store.pop()).toBe(true);
    expect(await store.pop(6)).toBe(false);
    expect(log).toEqual([0, 6, 60, 5, 50]);
    store.clear();
    expect(await store.pop()).toBe(false);
  });
});

describe("the reference stage", () => {
  it("has the error function to 1e-15", () => {
    // From the tables of the NIST Handbook, to the digits of a double.
    const known = [
      [0, 0],
      [0.5, 0.5204998778130465],
      [1, 0.8427007929497149],
      [2, 0.9953222650189527],
      [3, 0.9999779095030014],
      [4, 0.9999999845827421],
      [7, 1],
    ] as const;
    for (const [x, y] of known) {
      expect(Math.abs(erf(x) - y), `erf(${x})`).toBeLessThan(1e-15);
      expect(erf(-x), `erf(${-x})`).toBe(-erf(x));
    }
  });

  it("has the gradients that finite differences have", () => {
    const random = seededRandom(testSeed());
    const stage = new MlpStage({ features: 5, hidden: 7, dtype: "f64" }, 1);
    const x = randomTensor(random, [3, 5], "f64");
    const t = randomTensor(random, [3, 5], "f64");
    const context = contextOf(1, 2);
    const lossOf = (outputs: readonly Tensor[]): CriterionResult =>
      mseLoss.forward(outputs, [t], context) as CriterionResult;
    const loss = (): number => lossOf(stage.forward([x], context).outputs).loss;
    const { outputs, saved } = stage.forward([x], context);
    const { gradOutputs = [] } = lossOf(outputs);
    const gradX = stage.backwardInput(saved, gradOutputs, context);
    stage.backwardWeight(saved, gradOutputs);
    const pairs = [
      [x, gradX[0]],
      [stage.weights[0], stage.gradients()[0]],
      [stage.weights[1], stage.gradients()[1]],
    ] as [Tensor<"f64">, Tensor<"f64">][];
    for (const [at, gradient] of pairs) {
      const values = at.raw();
      const slopes = Array.from(values, (old, i) => {
        values[i] = old + 1e-6;
        const up = loss();
        values[i] = old - 1e-6;
        const down = loss();
        values[i] = old;
        return (up - down) / 2e-6;
      });
      expect(calcDiff(slopes, gradient.raw()), `seed ${random.seed}`).toBeLessThan(1e-15);
    }
  });
});
