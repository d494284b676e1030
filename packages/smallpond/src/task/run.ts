// Does one task on a DuckDB connection: fills in its inputs, writes its outputs into a folder that
// nobody reads yet, and says what is in them. Moving the folder into place is the executor's. Each
// kind of work is a file of `ops`.

import { mkdirSync } from "node:fs";
import type { DuckDBConnection } from "@duckdb/node-api";
import { concatData, type DataSet } from "../dataset/dataset.ts";
import { shuffledBy } from "../dataset/split.ts";
import { runFunction } from "./ops/call.ts";
import { runCompute } from "./ops/compute.ts";
import { loadPartitions } from "./ops/load.ts";
import { cut } from "./ops/partition.ts";
import { runQueries } from "./ops/queries.ts";
import { runScript } from "./ops/script.ts";
import { cleanSink, publishSink, stageSink } from "./ops/sink.ts";
import { splitByFiles, splitByRows } from "./ops/split.ts";
import type { Task, TaskOp } from "./task.ts";

/** A task with its inputs found. */
export interface BoundTask {
  readonly task: Task;
  readonly inputs: readonly DataSet[];
}

/** Outputs, with paths inside `folder`, or of the inputs where nothing was written. */
export async function runTask(
  { task, inputs }: BoundTask,
  connection: DuckDBConnection,
  folder: string,
): Promise<readonly DataSet[]> {
  mkdirSync(folder, { recursive: true });
  const { op } = task;
  switch (op.kind) {
    case "sql":
      return [await runQueries(task, op, inputs, connection, folder)];
    case "call":
      return [await runFunction(task, op.call, concatData(inputs), connection, folder)];
    case "script":
      return await runScript(task, op, inputs, connection, folder);
    case "compute":
      return [await runCompute(task, op, inputs, connection, folder)];
    case "load":
      return await loadPartitions(task, op, concatData(inputs), connection);
    case "sink-stage":
      return [await stageSink(task, op, concatData(inputs), connection, folder)];
    case "sink-publish":
      return [await publishSink(op, inputs)];
    case "sink-clean":
      return [await cleanSink(op, concatData(inputs))];
    case "partition":
      return await cut(task, op, inputs, connection, folder);
    case "split-files":
      return splitByFiles(mixed(task, op, inputs), op.count);
    case "split-rows":
      return await splitByRows(mixed(task, op, inputs), op.count, connection);
  }
}

function mixed(
  { seed }: Task,
  { shuffled }: Extract<TaskOp, { kind: "split-files" | "split-rows" }>,
  inputs: readonly DataSet[],
): DataSet {
  const data = concatData(inputs);
  return shuffled ? { ...data, parts: shuffledBy(data.parts, seed) } : data;
}
