// All ranks of a pipeline in this event loop, over the reference stage.

import type { Tensor } from "@open-infra/tensor";
import { DualPipe, type DualPipeV } from "../../src/runtime/dual-pipe.ts";
import { InProcessNetwork, type InProcessOptions } from "../../src/runtime/in-process.ts";
import type { StepOutcome } from "../../src/runtime/parts.ts";
import { holderOf, type RankProgram, stagesOf } from "../../src/runtime/program.ts";
import { rankPrograms } from "../../src/runtime/rank-programs.ts";
import { type MlpOptions, MlpStage, mseLoss } from "../../src/runtime/reference/mlp-stage.ts";
import { PipelineRunner } from "../../src/runtime/runner.ts";
import type { Schedule } from "../../src/schedule/schedule.ts";

export type Network = Omit<InProcessOptions, "numRanks">;

/** A `DualPipe` or `DualPipeV` on every rank. */
export function pipesOf<T extends DualPipe | DualPipeV>(
  Pipe: new (options: ConstructorParameters<typeof DualPipe>[0]) => T,
  numRanks: number,
  mlp: MlpOptions,
  network: Network = {},
): { readonly pipes: readonly T[]; readonly stages: readonly (readonly MlpStage[])[] } {
  const net = new InProcessNetwork({ numRanks, ...network });
  const last = (Pipe as unknown) === DualPipe ? numRanks - 1 : 2 * numRanks - 1;
  const stages = Array.from(
    { length: numRanks },
    (_, rank) => [new MlpStage(mlp, rank), new MlpStage(mlp, last - rank)] as const,
  );
  const pipes = stages.map(
    (own, rank) => new Pipe({ stages: own, transport: net.transport(rank), timeoutMs: 20_000 }),
  );
  return { pipes, stages };
}

export interface RunResult {
  readonly outcomes: readonly StepOutcome[];
  /** Of every stage, its copies added up. */
  readonly gradients: readonly (readonly Float64Array[])[];
}

/** Runs any schedule for one step, over a batch whose parts go to the directions in order. */
export async function runSchedule(
  schedule: Schedule,
  mlp: MlpOptions,
  inputs: Tensor,
  labels: Tensor,
  network: Network = {},
): Promise<RunResult> {
  const { numRanks, numStages, numMicroBatches } = schedule;
  const net = new InProcessNetwork({ numRanks, ...network });
  const rows = inputs.dim(0) / numMicroBatches;
  const cut = (batch: Tensor, at: number, count: number): Tensor[][] =>
    Array.from({ length: count }, (_, m) => [batch.slice(0, (at + m) * rows, (at + m + 1) * rows)]);
  const models = Array.from({ length: numRanks }, (_, rank) =>
    stagesOf(schedule, rank).map((place) => ({ ...place, model: new MlpStage(mlp, place.stage) })),
  );
  const programs = rankPrograms(schedule);
  const outcomes = await Promise.all(
    programs.map((program, rank) => {
      const at = (parameter: Tensor, stage: number): Map<number, Tensor[][]> => {
        let from = 0;
        const parts = new Map<number, Tensor[][]>();
        schedule.microBatchesOf.forEach((count, direction) => {
          const mine = holderOf(program as RankProgram, direction, stage) === rank;
          if (mine) parts.set(direction, cut(parameter, from, count));
          from += count;
        });
        return parts;
      };
      const stages = models[rank] ?? [];
      const transport = net.transport(rank);
      return new PipelineRunner({ transport, stages, timeoutMs: 20_000 }).run(program, {
        inputs: at(inputs, 0),
        labels: at(labels, numStages - 1),
        criterion: mseLoss,
        returnOutputs: true,
      });
    }),
  );
  const gradients = Array.from({ length: numStages }, (_, stage) => {
    const copies = models.flat().filter((one) => one.stage === stage);
    const [first, ...others] = copies.map(({ model }) => model.gradients());
    return (first ?? []).map((gradient, i) => {
      const sum = gradient.toFloat64();
      for (const other of others) {
        (other[i] as Tensor).toFloat64().forEach((x, j) => {
          (sum[j] as number) += x;
        });
      }
      return sum;
    });
  });
  return { outcomes, gradients };
}
