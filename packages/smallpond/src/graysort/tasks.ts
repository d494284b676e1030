// The tasks of a sort: what each step reads and what it is keyed by. They go through the session's
// scheduler like any others, so that what was done is not done again and what fails is retried.

import type { DataSet } from "../dataset/dataset.ts";
import { engineVersion } from "../executor/engine.ts";
import { fromModule } from "../functions/function-ref.ts";
import { ownModule } from "../own-module.ts";
import type { TaskGraph } from "../plan/planner.ts";
import { taskKey } from "../task/key.ts";
import type { InputRef, Task, TaskOp } from "../task/task.ts";
import type { RecordFormat } from "./records.ts";
import type { SortEngine } from "./steps.ts";

/** Records of each producer that split points are chosen from, times partitions. */
const samplesPerPartition = 512;
const smallestSample = 1024;
const parquet = { compression: "uncompressed" } as const;

const stepsUrl = ownModule("./steps", import.meta.url);

interface StepOptions {
  readonly step: string;
  readonly args: unknown;
  readonly inputs: readonly (readonly InputRef[])[];
  readonly outputs?: number;
  readonly partition: number;
  readonly memoryBytes?: number;
}

function stepTask({ step, args, inputs, outputs = 1, partition, memoryBytes }: StepOptions): Task {
  const op: TaskOp = { kind: "script", fn: fromModule(stepsUrl, step, [args]).ref };
  return {
    key: taskKey({ op, inputs, parquet: { outputs }, seed: 0, engine: engineVersion() }),
    node: `graysort-${step}`,
    partition: { partition },
    op,
    inputs,
    outputs,
    resources: { cpus: 1, ...(memoryBytes !== undefined && { memoryBytes }) },
    parquet,
    seed: 0,
  };
}

/** Tasks that generate ranges of records; of each range the records, then its facts. */
export function generateTasks(options: {
  readonly format: RecordFormat;
  readonly skewed: boolean;
  readonly records: number;
  readonly perTask: number;
}): TaskGraph {
  const { format, skewed, records, perTask } = options;
  const tasks: Task[] = [];
  for (let first = 0; first < records; first += perTask) {
    const args = { format, skewed, first, records: Math.min(perTask, records - first) };
    const partition = tasks.length;
    tasks.push(stepTask({ step: "generate", args, inputs: [], outputs: 2, partition }));
  }
  return { tasks, roots: both(tasks) };
}

const both = (tasks: readonly Task[]): InputRef[][] =>
  tasks.flatMap(({ key }) => [0, 1].map((output) => [{ task: key, output }]));

/** Tasks that sort data sets of records into partitions; the roots are the sorted files. */
export function sortTasks(options: {
  readonly data: readonly DataSet[];
  readonly partitions: number;
  readonly engine: SortEngine;
  /** Of a task that sorts a partition. */
  readonly memoryBytes?: number;
}): TaskGraph {
  const { data, partitions, engine, memoryBytes } = options;
  const sources = data.map((set): InputRef[] => [{ data: set }]);
  const each = Math.ceil(
    Math.max(smallestSample, samplesPerPartition * partitions) / sources.length,
  );
  const samples = sources.map((input, partition) =>
    stepTask({ step: "sample", args: { records: each }, inputs: [input], partition }),
  );
  const sampled = samples.map(({ key }): InputRef => ({ task: key, output: 0 }));
  const points = stepTask({
    step: "points",
    args: { partitions },
    inputs: [sampled],
    partition: 0,
  });
  const splits: InputRef[] = [{ task: points.key, output: 0 }];
  const deals = sources.map((input, partition) =>
    stepTask({ step: "deal", args: {}, inputs: [input, splits], outputs: partitions, partition }),
  );
  const sorts = Array.from({ length: partitions }, (_, partition) => {
    const pieces = deals.map(({ key }): InputRef => ({ task: key, output: partition }));
    const memory = memoryBytes === undefined ? {} : { memoryBytes };
    return stepTask({ step: "sort", args: { engine }, inputs: [pieces], partition, ...memory });
  });
  return {
    tasks: [...samples, points, ...deals, ...sorts],
    roots: sorts.map(({ key }) => [{ task: key, output: 0 }]),
  };
}

/** A task for each data set of records that looks at its order; the roots are summaries. */
export function validateTasks(data: readonly DataSet[]): TaskGraph {
  const tasks = data.map((set, partition) =>
    stepTask({ step: "validate", args: {}, inputs: [[{ data: set }]], partition }),
  );
  return { tasks, roots: tasks.map(({ key }) => [{ task: key, output: 0 }]) };
}
