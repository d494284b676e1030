// Does one task on a DuckDB connection: fills in its inputs, writes its outputs into a folder that
// nobody reads yet, and says what is in them. Moving the folder into place is the executor's. Each
// kind of work is a file of `ops`.

import { mkdirSync } from "node:fs";
import type { DuckDBConnection } from "@duckdb/node-api";
import { concatData, type DataSet } from "../dataset/dataset.ts";
import { runFunction } from "./ops/call.ts";
import { cut } from "./ops/partition.ts";
import { runQueries } from "./ops/queries.ts";
import { runScript } from "./ops/script.ts";
import { splitByFiles, splitByRows } from "./ops/split.ts";
import type { Task } from "./task.ts";

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
      return await runScript(task, op.fn, inputs, connection, folder);
    case "partition":
      return await cut(task, op, inputs, connection, folder);
    case "split-files":
      return splitByFiles(concatData(inputs), op.count);
    case "split-rows":
      return await splitByRows(concatData(inputs), op.count, connection);
  }
}
