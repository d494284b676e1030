// A rank that trains with DualPipe over a group, and the same in one event loop to compare with.

import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { seededRandom } from "@open-infra/testing";
import { DualPipe } from "../../../src/runtime/dual-pipe.ts";
import { InProcessNetwork } from "../../../src/runtime/in-process.ts";
import { RanksTransport } from "../../../src/runtime/ranks-transport.ts";
import { MlpStage, mseLoss } from "../../../src/runtime/reference/mlp-stage.ts";
import type { Transport } from "../../../src/runtime/transport.ts";

export interface TrainData {
  readonly numChunks: number;
  readonly steps: number;
  readonly seed: number;
  /** The last rank's stages are of another size. */
  readonly mismatch?: boolean;
}

/** What a rank has at the end: plain data to compare. */
export interface Trained {
  readonly losses: readonly (readonly number[])[];
  /** Of both stages, as bits. */
  readonly weights: readonly string[];
}

const features = 6;

function batch(data: TrainData, rank: number, salt: number): Tensor {
  const random = seededRandom(data.seed * 100 + rank * 10 + salt);
  const rows = data.numChunks;
  const values = Float64Array.from({ length: rows * features }, () => random.normal());
  return Tensor.from(values, [rows, features], "f64");
}

const bits = (tensor: Tensor): string => Buffer.from(tensor.bytes()).toString("hex");

async function train(transport: Transport, data: TrainData): Promise<Trained> {
  const { rank, numRanks } = transport;
  const odd = data.mismatch === true && rank === numRanks - 1;
  const options = { features, hidden: odd ? 8 : 7, dtype: "f64" as const };
  const stages = [new MlpStage(options, rank), new MlpStage(options, numRanks - 1 - rank)] as const;
  const pipe = new DualPipe({ stages, transport, timeoutMs: 20_000 });
  const losses: number[][] = [];
  for (let step = 0; step < data.steps; step++) {
    const atEnd = rank === 0 || rank === numRanks - 1;
    const { losses: own } = await pipe.step(atEnd ? [batch(data, rank, step)] : undefined, {
      numChunks: data.numChunks,
      criterion: mseLoss,
      ...(atEnd && { labels: [batch(data, rank, step + 5)] }),
    });
    losses.push([...(own ?? [])]);
    await pipe.syncGradients();
    for (const stage of stages) stage.optimizerStep(0.05);
  }
  return { losses, weights: stages.flatMap((stage) => stage.parameters().map(bits)) };
}

/** All ranks here. */
export function trainInOneLoop(numRanks: number, data: TrainData): Promise<Trained[]> {
  const network = new InProcessNetwork({ numRanks });
  const ranks = Array.from({ length: numRanks }, (_, rank) => network.transport(rank));
  return Promise.all(ranks.map((transport) => train(transport, data)));
}

/** One rank of a group. */
export default async function run(group: Group, data: TrainData): Promise<Trained> {
  const transport = await RanksTransport.open(group);
  const trained = await train(transport, data);
  transport.close();
  return trained;
}
