// The pipeline over worker threads, checked as the original checks itself: losses and outputs equal
// those of the unpipelined model to the bit, gradients to 1e-13, on 2, 4 and 8 ranks.

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { Tensor } from "@open-infra/tensor";
import { seededRandom, testSeed } from "@open-infra/testing";
import { afterAll, describe, expect, it } from "vitest";
import { launchPipeline, type Pipeline, type StageValue } from "../../src/runtime/launch.ts";
import type { MlpOptions } from "../../src/runtime/reference/mlp-stage.ts";
import { sendWindow } from "../../src/runtime/transport.ts";
import { type SharedTensor, shareTensor, unshareTensor } from "../../src/runtime/values.ts";
import { portsOf, workerSeats } from "../../src/runtime/worker-transport.ts";
import { peakActivations } from "../../src/schedule/activations.ts";
import { buildSchedule } from "../../src/schedule/build.ts";
import { expectClose, expectSameBits, randomTensor, unpipelined } from "./reference.ts";

const stageModule = new URL("stages.ts", import.meta.url);
const mlp = { stageModule, stageExport: "createMlpStage", criterionExport: "mseLoss" };

/** As the original's test, but for the sizes: 20 chunks of 3 rows. */
const chunks = 20;
const rows = 3 * chunks;

interface Case {
  readonly schedule: "dualpipe" | "dualpipev" | "1f1b" | "zbv";
  readonly numRanks: number;
  readonly numChunks?: number;
  readonly dtype: "f64" | "f32";
}

const cases: readonly Case[] = [
  { schedule: "dualpipe", numRanks: 2, dtype: "f64" },
  { schedule: "dualpipe", numRanks: 4, dtype: "f32" },
  { schedule: "dualpipe", numRanks: 8, dtype: "f64" },
  { schedule: "dualpipev", numRanks: 2, dtype: "f32" },
  { schedule: "dualpipev", numRanks: 4, dtype: "f64" },
  { schedule: "dualpipev", numRanks: 1, numChunks: 5, dtype: "f64" },
  { schedule: "zbv", numRanks: 2, numChunks: 6, dtype: "f64" },
];

describe("over worker threads", () => {
  it.each(cases)("$schedule, $numRanks ranks, $dtype", async (one) => {
    const { schedule, numRanks, numChunks = chunks, dtype } = one;
    const stageOptions: MlpOptions = { features: 8, hidden: 32, dtype };
    await using pipeline = await launchPipeline({ numRanks, schedule, stageOptions, ...mlp });
    const random = seededRandom(testSeed());
    const hint = `${JSON.stringify(one)}, seed ${random.seed}`;
    const x = randomTensor(random, [rows, 8], dtype);
    const t = randomTensor(random, [rows, 8], dtype);
    const wanted = await unpipelined(pipeline.numStages, stageOptions, x, t, numChunks);

    const silent = await pipeline.step([x], { numChunks, labels: [t] });
    expect(silent.outputs, hint).toBeUndefined();
    expect(silent.losses, hint).toEqual(wanted.losses);
    await pipeline.call("zeroGradients");

    const trained = await pipeline.step([x], { numChunks, labels: [t], returnOutputs: true });
    expect(trained.losses, hint).toEqual(wanted.losses);
    expectSameBits(trained.microBatchOutputs?.flat() ?? [], wanted.outputs, hint);
    expect(
      trained.outputs?.map(({ shape }) => shape),
      hint,
    ).toEqual([[rows, 8]]);
    const built = buildSchedule(schedule, { numRanks, numMicroBatches: numChunks });
    const held = trained.ranks.map(({ peakHeld }) => peakHeld);
    expect(held, hint).toEqual(peakActivations(built).untilWeight);

    await pipeline.syncGradients();
    expectGradients(await pipeline.gradients(), wanted.gradients, hint);

    const inferred = await pipeline.step([x], { numChunks, inference: true, returnOutputs: true });
    expect(inferred.losses, hint).toBeUndefined();
    expectSameBits(inferred.microBatchOutputs?.flat() ?? [], wanted.outputs, hint);
    const scored = await pipeline.step([x], { numChunks, inference: true, labels: [t] });
    expect(scored.losses, hint).toEqual(wanted.losses);
    // Inference has left the gradients alone.
    expectGradients(await pipeline.gradients(), wanted.gradients, hint);
  });
});

function expectGradients(
  got: readonly StageValue<readonly Tensor[]>[],
  wanted: readonly (readonly Tensor[])[],
  hint: string,
): void {
  for (const { direction, stage, value } of got) {
    expectClose(value, wanted[stage] ?? [], `${hint}, stage ${stage} of direction ${direction}`);
  }
}

it("ranks in threads of one's own, each with a DualPipe", async () => {
  const random = seededRandom(testSeed());
  const [x, t] = [0, 1].map(() => randomTensor(random, [8, 4], "f64")) as [Tensor, Tensor];
  const wanted = await unpipelined(2, { features: 4, hidden: 8, dtype: "f64" }, x, t, 8);
  const { seats } = workerSeats(2);
  const results = await Promise.all(
    seats.map(async (seat) => {
      const half = (of: Tensor, i: number) => shareTensor(of.slice(0, 4 * i, 4 * i + 4));
      const parts = { x: half(x, seat.rank), t: half(t, 1 - seat.rank) };
      const worker = new Worker(new URL("seat-worker.ts", import.meta.url), {
        workerData: { seat, ...parts, numChunks: 8 },
        transferList: [...portsOf(seat)],
      });
      const [result] = (await once(worker, "message")) as [
        { losses: Float64Array; gradients: SharedTensor[] },
      ];
      await worker.terminate();
      return result;
    }),
  );
  const losses = [...(results[1]?.losses ?? []), ...(results[0]?.losses ?? [])];
  expect(losses).toEqual([...wanted.losses]);
  results.forEach(({ gradients }, stage) => {
    expectClose(gradients.map(unshareTensor), wanted.gradients[stage] ?? [], `stage ${stage}`);
  });
});

describe("what else a pipeline does", () => {
  const running: Pipeline[] = [];
  const open = async (more: object): Promise<Pipeline> => {
    const stageOptions: MlpOptions = { features: 4, hidden: 8, dtype: "f64" };
    const common = { numRanks: 2, schedule: "dualpipe", stageOptions, ...mlp } as const;
    const pipeline = await launchPipeline({ ...common, ...more });
    running.push(pipeline);
    return pipeline;
  };
  afterAll(async () => {
    await Promise.all(running.map((pipeline) => pipeline.close()));
  });

  it("takes micro-batches of different shapes, and other counts from step to step", async () => {
    const pipeline = await open({});
    const random = seededRandom(testSeed());
    for (const numChunks of [4, 8, 4]) {
      const microBatches = Array.from({ length: numChunks }, (_, i) => [
        randomTensor(random, [1 + (i % 3), 4], "f64"),
      ]);
      const { microBatchOutputs, losses, outputs } = await pipeline.step(
        { microBatches },
        { numChunks, labels: { microBatches }, returnOutputs: true },
      );
      expect(microBatchOutputs?.map(([y]) => y?.shape)).toEqual(
        microBatches.map(([x]) => x?.shape),
      );
      expect(losses).toHaveLength(numChunks);
      expect(outputs).toBeUndefined();
    }
  });

  it("cuts along another dimension", async () => {
    const pipeline = await open({ batchDim: 1 });
    const random = seededRandom(testSeed());
    const x = randomTensor(random, [3, 8, 4], "f64");
    const options = { numChunks: 4, inference: true, returnOutputs: true };
    const { outputs, microBatchOutputs } = await pipeline.step([x], options);
    expect(microBatchOutputs?.map(([y]) => y?.shape)).toEqual(Array(4).fill([3, 2, 4]));
    const whole = await unpipelined(2, { features: 4, hidden: 8, dtype: "f64" }, x, x, 1);
    expectSameBits(outputs ?? [], whole.outputs, "joined");
  });

  it("takes a function as its schedule, and refuses one that moves stages", async () => {
    const build = (name: "zb1p" | "1f1b") => (numMicroBatches: number) =>
      buildSchedule(name, { numRanks: 2, numMicroBatches });
    const pipeline = await open({ schedule: build("zb1p") });
    const x = randomTensor(seededRandom(testSeed()), [6, 4], "f64");
    const { losses } = await pipeline.step([x], { numChunks: 3, labels: [x] });
    const mlpOptions: MlpOptions = { features: 4, hidden: 8, dtype: "f64" };
    expect(losses).toEqual((await unpipelined(2, mlpOptions, x, x, 3)).losses);

    const fickle = (m: number) =>
      buildSchedule(m === 4 ? "dualpipe" : "1f1b", { numRanks: 2, numMicroBatches: m });
    const moving = await open({ schedule: fickle });
    await expect(moving.step([x], { numChunks: 3, labels: [x] })).rejects.toThrow(
      "schedule is another placement of stages for 3 micro-batches",
    );
  });

  it("runs calls in the order they were made, and gives snapshots", async () => {
    const pipeline = await open({});
    const random = seededRandom(testSeed());
    const x = randomTensor(random, [4, 4], "f64");
    const step = pipeline.step([x], { numChunks: 4, labels: [x] });
    const gradients = pipeline.gradients({ stage: 1 });
    const zeroed = pipeline.call("zeroGradients");
    const [values] = await Promise.all([gradients, step, zeroed]);
    expect(values.map(({ rank, direction, stage }) => [rank, direction, stage])).toEqual([
      [1, 0, 1],
      [0, 1, 1],
    ]);
    for (const { value } of values) expect(value[0]?.toFloat64().some((g) => g !== 0)).toBe(true);
  });

  it("records every operation and transfer in one trace, if asked to", async () => {
    const pipeline = await open({ trace: true });
    const random = seededRandom(testSeed());
    const x = randomTensor(random, [8, 4], "f64");
    await pipeline.step([x], { numChunks: 8, labels: [x] });
    const { traceEvents, droppedEvents } = await pipeline.trace();
    expect(droppedEvents).toBe(0);
    const lanes = traceEvents.filter(({ name }) => name === "thread_name");
    expect(lanes.map(({ tid, args }) => [tid, args?.name])).toEqual([
      [1, "rank 0"],
      [2, "rank 1"],
    ]);
    const spans = traceEvents.filter(({ ph }) => ph === "X");
    const programs = buildSchedule("dualpipe", { numRanks: 2, numMicroBatches: 8 }).ranks;
    for (const [rank, ops] of programs.entries()) {
      const cells = spans.filter(
        ({ tid, name }) => tid === rank + 1 && /^(F|B|I|W|FB)$/.test(name),
      );
      // A pair of stages that do not overlap is two spans.
      const pairs = ops.kind.filter((kind) => kind === 4).length;
      expect(cells).toHaveLength(ops.length + pairs);
      expect(cells[0]).toMatchObject({
        name: "F",
        args: { direction: rank, stage: 0, microBatch: 0 },
      });
    }
    const flows = traceEvents.filter(({ name }) => name.startsWith("transfer "));
    const ends = Map.groupBy(flows, ({ id }) => id);
    // Eight forwards and eight backwards cross between the two ranks.
    expect(ends.size).toBe(16);
    for (const [start, end] of ends.values()) {
      const sides = [start, end].toSorted(
        (a, b) => (a?.ph === "s" ? -1 : 1) - (b?.ph === "s" ? -1 : 1),
      );
      expect(sides.map((side) => side?.ph)).toEqual(["s", "f"]);
      expect(sides[0]?.tid).not.toBe(sides[1]?.tid);
      const inside = spans.some(
        ({ tid, ts, dur = 0, name }) =>
          tid === sides[1]?.tid &&
          /^(F|B|I|FB)$/.test(name) &&
          ts <= sides[1].ts &&
          sides[1].ts <= ts + dur,
      );
      expect(inside, "an arrow ends in the cell that uses what came").toBe(true);
    }
  });

  it("moves messages while a rank computes", async () => {
    const numChunks = 8;
    const begun = new Int32Array(new SharedArrayBuffer(4));
    const pipeline = await open({
      schedule: "1f1b",
      stageExport: "createWaiting",
      stageOptions: { begun, wanted: numChunks },
    });
    const x = randomTensor(seededRandom(testSeed()), [numChunks, 4], "f64");
    const { ranks } = await pipeline.step([x], { numChunks, inference: true });
    // Stage 1 was in its first forward until stage 0 had begun its last: all but the first and the
    // last message came while it computed, and waited for it when it came to use them.
    expect(ranks[1]?.messagesReceived).toBe(numChunks);
    expect(ranks[1]?.readyOnUse).toBeGreaterThanOrEqual(numChunks - 2);
  });

  it("does not let a fast rank fill the memory", async () => {
    const numChunks = 64;
    const begun = new Int32Array(new SharedArrayBuffer(4));
    const pipeline = await open({
      schedule: "1f1b",
      stageExport: "createWaiting",
      stageOptions: { begun, wanted: 8 },
    });
    const x = Tensor.empty([numChunks, 64], "f64");
    const { ranks } = await pipeline.step([x], { numChunks, inference: true });
    expect(ranks[0]?.messagesSent).toBe(numChunks);
    // A window without a receive, the receive posted ahead, the one in use, and the one being sent.
    expect(ranks[0]?.messageBufferBytes).toBeLessThanOrEqual((sendWindow + 3) * 1024);
  });
});
