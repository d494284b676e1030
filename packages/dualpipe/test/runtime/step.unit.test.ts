// The executor over the in-process transport: every schedule equals the unpipelined model, whatever
// the messages do on their way, and holds no more than its schedule says.

import { Tensor } from "@open-infra/tensor";
import { calcDiff, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { DualPipe, DualPipeV } from "../../src/runtime/dual-pipe.ts";
import { mseLoss } from "../../src/runtime/reference/mlp-stage.ts";
import { peakActivations } from "../../src/schedule/activations.ts";
import { type BuiltInName, buildSchedule } from "../../src/schedule/build.ts";
import { pipesOf, runSchedule } from "./in-process-ranks.ts";
import { bitsOf, expectClose, expectSameBits, randomTensor, unpipelined } from "./reference.ts";

const mlp = { features: 6, hidden: 10, dtype: "f64" } as const;

interface Case {
  readonly name: BuiltInName;
  readonly numRanks: number;
  readonly numMicroBatches: number;
  readonly chunksPerRank?: number;
  readonly allowPartial?: boolean;
}

describe("every schedule equals the unpipelined model", () => {
  const cases: readonly Case[] = [
    { name: "1f1b", numRanks: 1, numMicroBatches: 3 },
    { name: "1f1b", numRanks: 4, numMicroBatches: 6 },
    { name: "1f1b", numRanks: 5, numMicroBatches: 3 },
    { name: "interleaved-1f1b", numRanks: 3, numMicroBatches: 6, chunksPerRank: 2 },
    { name: "interleaved-1f1b", numRanks: 2, numMicroBatches: 4, chunksPerRank: 3 },
    { name: "zb1p", numRanks: 4, numMicroBatches: 7 },
    { name: "zbv", numRanks: 3, numMicroBatches: 7 },
    { name: "dualpipe", numRanks: 2, numMicroBatches: 4 },
    { name: "dualpipe", numRanks: 6, numMicroBatches: 12 },
    { name: "dualpipe", numRanks: 4, numMicroBatches: 5, allowPartial: true },
    { name: "dualpipev", numRanks: 1, numMicroBatches: 2 },
    { name: "dualpipev", numRanks: 3, numMicroBatches: 9 },
    { name: "dualpipev", numRanks: 4, numMicroBatches: 3, allowPartial: true },
  ];

  it.each(cases)("$name, $numRanks ranks, $numMicroBatches micro-batches", async (one) => {
    const { name, ...options } = one;
    const random = seededRandom(testSeed());
    const hint = `${JSON.stringify(one)}, seed ${random.seed}`;
    const schedule = buildSchedule(name, options);
    const { numStages, numMicroBatches: count } = schedule;
    const x = randomTensor(random, [2 * count, 6], "f64");
    const t = randomTensor(random, [2 * count, 6], "f64");
    const wanted = await unpipelined(numStages, mlp, x, t, count);
    const delayTurns = (): number => random.int(0, 6);
    const { outcomes, gradients } = await runSchedule(schedule, mlp, x, t, { delayTurns });
    const again = await runSchedule(schedule, mlp, x, t);

    const losses = schedule.microBatchesOf.flatMap((_, d) =>
      outcomes.flatMap((outcome) => [...(outcome.losses.get(d) ?? [])]),
    );
    expect(losses, hint).toEqual([...wanted.losses]);
    const outputs = schedule.microBatchesOf.flatMap((_, d) =>
      outcomes.flatMap((outcome) => (outcome.outputs.get(d) ?? []).map(([y]) => y as Tensor)),
    );
    expectSameBits(outputs, wanted.outputs, hint);
    gradients.forEach((stage, s) => {
      const close = stage.map((g) => Tensor.from(g, [g.length], "f64"));
      expectClose(close, wanted.gradients[s] ?? [], `${hint}, stage ${s}`);
    });
    expect(gradients, `${hint}: bits do not depend on delays`).toEqual(again.gradients);
    const peaks = peakActivations(schedule);
    expect(
      outcomes.map(({ stats }) => stats.peakActivations),
      hint,
    ).toEqual(peaks.untilBackward);
    expect(
      outcomes.map(({ stats }) => stats.peakHeld),
      hint,
    ).toEqual(peaks.untilWeight);
  });

  it("at random sizes and delays, in DualPipe and DualPipeV", async () => {
    const random = seededRandom(testSeed());
    for (let round = 0; round < 12; round++) {
      const name = random.pick(["dualpipe", "dualpipev"] as const);
      const numRanks = name === "dualpipe" ? 2 * random.int(1, 6) : random.int(1, 6);
      const more = random.int(0, 7);
      const numMicroBatches = 2 * numRanks + (name === "dualpipe" ? 2 * more : more);
      const hint = `seed ${random.seed}, round ${round}: ${name} ${numRanks} × ${numMicroBatches}`;
      const schedule = buildSchedule(name, { numRanks, numMicroBatches });
      const x = randomTensor(random, [numMicroBatches, 6], "f64");
      const t = randomTensor(random, [numMicroBatches, 6], "f64");
      const most = random.int(0, 12);
      const delayTurns = (): number => random.int(0, most + 1);
      const slow = await runSchedule(schedule, mlp, x, t, { delayTurns });
      const wanted = await unpipelined(schedule.numStages, mlp, x, t, numMicroBatches);
      const losses = [0, 1].flatMap((d) =>
        slow.outcomes.flatMap((outcome) => [...(outcome.losses.get(d) ?? [])]),
      );
      expect(losses, hint).toEqual([...wanted.losses]);
      wanted.gradients.forEach((stage, s) => {
        stage.forEach((gradient, i) => {
          const got = slow.gradients[s]?.[i] as Float64Array;
          expect(calcDiff(got, gradient.toFloat64()), `${hint}, stage ${s}`).toBeLessThan(1e-13);
        });
      });
    }
  });
});

describe("DualPipe on its ranks", () => {
  it("gives losses and outputs at both ends, and sums the two copies' gradients", async () => {
    const random = seededRandom(testSeed());
    const [P, M] = [4, 10];
    const { pipes, stages } = pipesOf(DualPipe, P, mlp);
    const [x, t] = [0, 1].map(() => randomTensor(random, [2 * M, 6], "f64")) as [Tensor, Tensor];
    const half = (batch: Tensor, i: number): Tensor => batch.slice(0, i * M, (i + 1) * M);
    const wanted = await unpipelined(P, mlp, x, t, M);
    for (let step = 1; step <= 2; step++) {
      const results = await Promise.all(
        pipes.map((pipe, rank) => {
          const end = rank === 0 ? 0 : 1;
          const options = { numChunks: M, criterion: mseLoss, returnOutputs: true };
          if (rank > 0 && rank < P - 1) return pipe.step(undefined, options);
          // The labels of what the other end gives.
          return pipe.step([half(x, end)], { ...options, labels: [half(t, 1 - end)] });
        }),
      );
      expect(results.map(({ losses }) => losses?.length)).toEqual([5, undefined, undefined, 5]);
      const [first, last] = [results[0], results[P - 1]];
      expect([...(last?.losses ?? []), ...(first?.losses ?? [])]).toEqual([...wanted.losses]);
      const outputs = [...(last?.microBatchOutputs ?? []), ...(first?.microBatchOutputs ?? [])];
      expectSameBits(outputs.flat(), wanted.outputs, "outputs");
      expect(last?.outputs?.map((o) => o.shape)).toEqual([[M, 6]]);
      if (step === 1) for (const stage of stages.flat()) stage.zeroGradients();
    }
    await Promise.all(pipes.map((pipe) => pipe.syncGradients()));
    for (let rank = 0; rank < P; rank++) {
      const [down, up] = stages[rank] ?? [];
      expectClose(down?.gradients() ?? [], wanted.gradients[rank] ?? [], `stage ${rank}`);
      // The other copy of the same stage is on the mirrored rank, with the same bits.
      const mirror = stages[P - 1 - rank]?.[1];
      expect(down?.gradients().map(bitsOf)).toEqual(mirror?.gradients().map(bitsOf));
      expectClose(up?.gradients() ?? [], wanted.gradients[P - 1 - rank] ?? [], "the other");
    }
  });

  it("infers without labels, or with losses, and keeps nothing", async () => {
    const random = seededRandom(testSeed());
    const [P, M] = [3, 6];
    const { pipes, stages } = pipesOf(DualPipeV, P, mlp);
    const [x, t] = [0, 1].map(() => randomTensor(random, [M, 6], "f64")) as [Tensor, Tensor];
    const wanted = await unpipelined(2 * P, mlp, x, t, M);
    for (const labels of [undefined, [t]]) {
      const results = await Promise.all(
        pipes.map((pipe, rank) =>
          pipe.step(rank === 0 ? [x] : undefined, {
            numChunks: M,
            inference: true,
            returnOutputs: true,
            ...(rank === 0 && labels && { labels, criterion: mseLoss }),
          }),
        ),
      );
      const [first] = results;
      expectSameBits(
        first?.outputs ?? [],
        [Tensor.from(joined(wanted.outputs), [M, 6], "f64")],
        "",
      );
      expect(first?.losses).toEqual(labels && wanted.losses);
      expect(results.every(({ stats }) => stats.peakActivations === 0)).toBe(true);
      expect(results.map(({ stats }) => stats.peakHeld)).toEqual([1, 1, 1]);
    }
    expect(stages.flat().every((s) => s.gradients().every((g) => !g.bytes().some((b) => b)))).toBe(
      true,
    );
  });

  it("runs on ranks in another order", async () => {
    const random = seededRandom(testSeed());
    const { InProcessNetwork } = await import("../../src/runtime/in-process.ts");
    const { MlpStage } = await import("../../src/runtime/reference/mlp-stage.ts");
    const rankMapping = [2, 0, 3, 1];
    const network = new InProcessNetwork({ numRanks: 4 });
    const x = randomTensor(random, [8, 6], "f64");
    const wanted = await unpipelined(4, mlp, x, x, 8);
    const results = await Promise.all(
      rankMapping.map((rank, at) => {
        const stages = [new MlpStage(mlp, rank), new MlpStage(mlp, 3 - rank)] as const;
        const pipe = new DualPipe({ stages, transport: network.transport(at), rankMapping });
        const options = { numChunks: 8, criterion: mseLoss };
        if (rank !== 0 && rank !== 3) return pipe.step(undefined, options);
        const [own, other] = rank === 0 ? [0, 4] : [4, 0];
        const labels = [x.slice(0, other, other + 4)];
        return pipe.step([x.slice(0, own, own + 4)], { ...options, labels });
      }),
    );
    const losses = [...(results[2]?.losses ?? []), ...(results[1]?.losses ?? [])];
    expect(losses).toEqual([...wanted.losses]);
  });
});

const joined = (tensors: readonly Tensor[]): number[] => tensors.flatMap((t) => [...t.toFloat64()]);
