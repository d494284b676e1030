// The executor: what it adds to an operation, how fast messages cross threads beside a plain copy,
// what two ranks gain over one on the same work, and how close DualPipe and 1F1B come to their
// simulations when stages sleep instead of computing.

import { type BuiltInName, buildSchedule, simulate } from "@open-infra/dualpipe";
import {
  InProcessNetwork,
  launchPipeline,
  type Pipeline,
  PipelineRunner,
  rankPrograms,
} from "@open-infra/dualpipe/runtime";
import { Tensor } from "@open-infra/tensor";
import { type BenchRow, median } from "@open-infra/testing";
import { createEmpty, type SleepOptions } from "./sleeping-stage.ts";

interface Options {
  readonly quick?: boolean;
}

const stageModule = new URL("sleeping-stage.ts", import.meta.url);
const runtime = import.meta.resolve("@open-infra/dualpipe/runtime");

async function timeUs(run: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await run();
  return (performance.now() - start) * 1000;
}

/** One rank, two empty stages, everything handed over in place: the interpreter alone. */
async function operationRow(quick: boolean): Promise<BenchRow> {
  const numMicroBatches = 2000;
  const schedule = buildSchedule("dualpipev", { numRanks: 1, numMicroBatches });
  const [program] = rankPrograms(schedule);
  const transport = new InProcessNetwork({ numRanks: 1 }).transport(0);
  const stages = [0, 1].map((stage) => ({ direction: 0, stage, model: createEmpty() }));
  const runner = new PipelineRunner({ transport, stages });
  const batches = Array.from({ length: numMicroBatches }, () => [Tensor.empty([1], "f32")]);
  const parts = new Map([[0, batches]]);
  const gradOutputs = [Tensor.empty([1], "f32")];
  const criterion = { forward: () => ({ loss: 0, gradOutputs }) };
  const work = { inputs: parts, labels: parts, criterion, returnOutputs: false };
  const cells = 4 * numMicroBatches;
  const times: number[] = [];
  for (let i = 0; i < (quick ? 4 : 12); i++) {
    times.push((await timeUs(() => runner.run(program!, work))) / cells);
  }
  const us = median(times);
  return {
    case: "a forward or backward, empty stages",
    shape: "1 rank, 2 stages, 2000 micro-batches",
    us,
    rate: `${(1000 / us).toFixed(0)} k/s`,
  };
}

/** Time for a message of `bytes` from thread to thread, many under way. */
async function messageRow(bytes: number, quick: boolean): Promise<BenchRow> {
  const numChunks = quick ? 64 : 256;
  await using pipeline = await launchPipeline({
    numRanks: 2,
    schedule: "1f1b",
    stageModule,
    stageExport: "createSource",
    stageOptions: { bytes },
  });
  const x = Tensor.empty([numChunks], "u8");
  const step = (): Promise<unknown> => pipeline.step([x], { numChunks, inference: true });
  await step();
  const from = new Uint8Array(new SharedArrayBuffer(bytes)).fill(1);
  // Always the same target, as the transport's first free buffer mostly is.
  const to = new Uint8Array(new SharedArrayBuffer(2 * bytes), 64, bytes);
  const [ours, copies]: [number[], number[]] = [[], []];
  for (let i = 0; i < (quick ? 3 : 9); i++) {
    ours.push((await timeUs(step)) / numChunks);
    copies.push(
      (await timeUs(async () => {
        for (let c = 0; c < numChunks; c++) to.set(from);
      })) / numChunks,
    );
  }
  const us = median(ours);
  const row = { case: "a message between threads", us };
  if (bytes < 1024) return { ...row, shape: `${bytes} B`, rate: `${(1000 / us).toFixed(0)} k/s` };
  const shape = `${bytes / 2 ** 20} MiB`;
  const peerRatio = median(copies) / us;
  return { ...row, shape, gbs: bytes / us / 1000, peer: "one copy", peerRatio };
}

/** The reference stage on two ranks against the same stages and micro-batches on one. */
async function speedUpRow(quick: boolean): Promise<BenchRow> {
  const stageOptions = { features: 128, dtype: "f32" };
  const common = {
    stageModule: runtime,
    stageExport: "createMlpStage",
    criterionExport: "mseLoss",
    stageOptions,
  } as const;
  await using two = await launchPipeline({ ...common, numRanks: 2, schedule: "dualpipe" });
  await using one = await launchPipeline({
    ...common,
    numRanks: 1,
    schedule: "interleaved-1f1b",
    chunksPerRank: 2,
  });
  const [numChunks, rows] = [16, 16 * 32];
  const x = Tensor.from(
    Float64Array.from({ length: rows * 128 }, (_, i) => Math.sin(i)),
    [rows, 128],
    "f32",
  );
  const step = (pipeline: Pipeline) => () => pipeline.step([x], { numChunks, labels: [x] });
  const [ours, alone]: [number[], number[]] = [[], []];
  for (let i = 0; i < (quick ? 4 : 12); i++) {
    ours.push(await timeUs(step(two)));
    alone.push(await timeUs(step(one)));
  }
  const us = median(ours.slice(1));
  return {
    case: "DualPipe on 2 ranks, MLP 128–512–128",
    shape: `2 stages, ${numChunks} × ${rows / numChunks} rows, f32`,
    us,
    peer: "one rank",
    peerRatio: median(alone.slice(1)) / us,
  };
}

interface Sleeping {
  readonly name: BuiltInName;
  readonly us: number;
  readonly simulatedUs: number;
}

async function sleeping(name: BuiltInName, times: SleepOptions, quick: boolean): Promise<Sleeping> {
  const [numRanks, numChunks] = [8, 20];
  await using pipeline = await launchPipeline({
    numRanks,
    schedule: name,
    stageModule,
    stageExport: "createSleeping",
    criterionExport: "criterion",
    stageOptions: times,
  });
  const x = Tensor.empty([numChunks], "f32");
  const step = (): Promise<unknown> => pipeline.step([x], { numChunks, labels: [x] });
  await step();
  const runs: number[] = [];
  for (let i = 0; i < (quick ? 1 : 5); i++) runs.push(await timeUs(step));
  const { F, I, W, FB } = times;
  const schedule = buildSchedule(name, { numRanks, numMicroBatches: numChunks });
  const { makespan } = simulate(schedule, { F, B: I + W, I, W, FB });
  return { name, us: median(runs), simulatedUs: makespan * 1000 };
}

function sleepRow(one: Sleeping, peer: Sleeping | undefined, shape: string): BenchRow {
  const share = ((100 * one.us) / one.simulatedUs).toFixed(1);
  return {
    case: `${one.name}, stages that sleep`,
    shape,
    us: one.us,
    rate: `${share} % of the simulated ${(one.simulatedUs / 1000).toFixed(0)} ms`,
    ...(peer && { peer: peer.name, peerRatio: peer.us / one.us }),
  };
}

export async function run({ quick = false }: Options = {}): Promise<readonly BenchRow[]> {
  const rows = [await operationRow(quick)];
  for (const bytes of [64, 2 ** 20, 2 ** 24]) rows.push(await messageRow(bytes, quick));
  rows.push(await speedUpRow(quick));
  const times = { F: 5, I: 5, W: 5, FB: 12.5 };
  const shape = "8 ranks, 20 micro-batches, F, I, W 5 ms, F‖B 12.5 ms";
  const plain = await sleeping("1f1b", times, quick);
  const dual = await sleeping("dualpipe", times, quick);
  return [...rows, sleepRow(plain, undefined, shape), sleepRow(dual, plain, shape)];
}

if (import.meta.main) {
  const { formatRows } = await import("@open-infra/testing");
  process.stdout.write(`${formatRows(await run({ quick: process.argv.includes("--quick") }))}\n`);
}
