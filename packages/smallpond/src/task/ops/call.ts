// A task that calls a user's function over rows.

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataSet } from "../../dataset/dataset.ts";
import { fromClause, identifier, literal } from "../../dataset/sql-text.ts";
import { callOverRows, type FunctionCall } from "../../functions/run-function.ts";
import type { Task } from "../task.ts";
import { execute, partOf, taskCopyOptions, withFunction } from "./write.ts";

/** A function's results, through a table that may spill. */
export async function runFunction(
  task: Task,
  call: FunctionCall,
  data: DataSet,
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet> {
  const table = `results_${task.key}`;
  await withFunction(task, () =>
    callOverRows(call, `SELECT * FROM ${fromClause(data)}`, table, connection),
  );
  const path = join(folder, "part-0.parquet");
  const copy = `COPY ${identifier(table)} TO ${literal(path)} (${taskCopyOptions(task)})`;
  const rows = await execute(task, copy, connection);
  await execute(task, `DROP TABLE ${identifier(table)}`, connection);
  // Types come from values, so partitions may differ in width; reading by name joins them.
  return { format: "parquet", parts: [partOf(path, rows)], unionByName: true };
}
