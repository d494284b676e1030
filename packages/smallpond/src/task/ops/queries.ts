// A task that is SQL: its queries run on one connection, the last one's rows are the output.

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataSet } from "../../dataset/dataset.ts";
import { fromClause, literal } from "../../dataset/sql-text.ts";
import { registerUdfs } from "../../functions/udf.ts";
import { fillTemplate, parseTemplate } from "../../plan/template.ts";
import type { Task, TaskOp } from "../task.ts";
import { copyOptions, execute, partOf, withFunction } from "./write.ts";

/** A result written by one COPY. */
export async function runQueries(
  task: Task,
  { queries, functions = [] }: Extract<TaskOp, { kind: "sql" }>,
  inputs: readonly DataSet[],
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet> {
  const clauses = inputs.map(fromClause);
  const names = { rand_seed: task.seed, cpu_limit: task.resources.cpus, batch_index: 0 };
  const filled = queries.map((query, query_index) =>
    fillTemplate(parseTemplate(query), clauses, { ...names, query_index }),
  );
  const last = filled.pop() as string;
  await withFunction(task, () => registerUdfs(functions, connection));
  for (const query of filled) await execute(task, query, connection);
  const path = join(folder, "part-0.parquet");
  const copy = `COPY (${last}\n) TO ${literal(path)} (${copyOptions(task.parquet)})`;
  const rows = await execute(task, copy, connection, last);
  return { format: "parquet", parts: [partOf(path, rows)] };
}
