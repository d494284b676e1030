// A task that is SQL: its queries run on one connection, the last one's rows are the output. An
// input larger than what a query can hold is worked off in batches.

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataSet, FilePart } from "../../dataset/dataset.ts";
import { fromClause, literal } from "../../dataset/sql-text.ts";
import { storable } from "../../dataset/wide-integers.ts";
import { registerUdfs } from "../../functions/udf.ts";
import { fillTemplate, parseTemplate } from "../../plan/template.ts";
import type { Task, TaskOp } from "../task.ts";
import { sizedBatches } from "./batches.ts";
import {
  allEmpty,
  execute,
  partOf,
  taskCopyOptions,
  withFunction,
  withQuery,
  writeNone,
} from "./write.ts";

type SqlOp = Extract<TaskOp, { kind: "sql" }>;

/** A result written by one COPY a batch. */
export async function runQueries(
  task: Task,
  op: SqlOp,
  inputs: readonly DataSet[],
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet> {
  await withFunction(task, () => registerUdfs(op.functions ?? [], connection));
  const [first, ...others] = inputs;
  const batches =
    op.batchBytes === undefined || first === undefined
      ? [first]
      : await sizedBatches(first, op.batchBytes, connection);
  const names = { ...(await namesOf(task, op, connection)) };
  const parts: FilePart[] = [];
  for (const [batch_index, batch] of batches.entries()) {
    const given = batch === undefined ? inputs : [batch, ...others];
    const output_filename = `part-${batch_index}`;
    const queries = fillIn(op, given, { ...names, batch_index, output_filename });
    const path = join(folder, output_filename);
    parts.push(...(await runOnce(task, op, queries, given, connection, path)));
  }
  return { format: "parquet", parts };
}

type Names = Readonly<Record<string, string | number>>;

async function namesOf(task: Task, op: SqlOp, connection: DuckDBConnection): Promise<Names> {
  const names = { rand_seed: task.seed, cpu_limit: task.resources.cpus };
  if (!op.queries.some((query) => query.includes("{memory_limit}"))) return names;
  const query = "SELECT current_setting('memory_limit')";
  const text = String((await connection.runAndReadAll(query)).getRows()[0]?.[0]);
  return { ...names, memory_limit: bytesOf(text) };
}

/** `1.5 GiB`, as DuckDB says it. */
function bytesOf(text: string): number {
  const [value, unit = ""] = text.split(" ");
  const power = ["bytes", "KiB", "MiB", "GiB", "TiB"].indexOf(unit);
  return Math.floor(Number(value) * 1024 ** Math.max(0, power));
}

function fillIn(op: SqlOp, inputs: readonly DataSet[], names: Names): string[] {
  const clauses = inputs.map(fromClause);
  return op.queries.map((query, query_index) =>
    fillTemplate(parseTemplate(query), clauses, { ...names, query_index }),
  );
}

/** @param path Of the output, without its ending. */
async function runOnce(
  task: Task,
  op: SqlOp,
  queries: readonly string[],
  inputs: readonly DataSet[],
  connection: DuckDBConnection,
  path: string,
): Promise<readonly FilePart[]> {
  const last = queries.at(-1) as string;
  for (const query of queries.slice(0, -1)) await execute(task, query, connection);
  if (op.skipEmpty && allEmpty(inputs)) {
    return [await writeNone(task, last, `${path}.parquet`, connection)];
  }
  if (op.perThread) return await writePerThread(task, last, connection, path);
  const stored = await storable(last, connection);
  const copy = `COPY (${stored}\n) TO ${literal(`${path}.parquet`)} (${taskCopyOptions(task)})`;
  const rows = await execute(task, copy, connection, last);
  return [partOf(`${path}.parquet`, rows)];
}

/** A file a thread, all in one folder. */
async function writePerThread(
  task: Task,
  query: string,
  connection: DuckDBConnection,
  path: string,
): Promise<readonly FilePart[]> {
  const options = `${taskCopyOptions(task)}, PER_THREAD_OUTPUT true, RETURN_STATS`;
  const copy = `COPY (${await storable(query, connection)}\n) TO ${literal(path)} (${options})`;
  const rows = await withQuery(task, query, async () => {
    return (await connection.runAndReadAll(copy)).getRows() as [string, bigint, bigint][];
  });
  const parts = rows.map(([file, numRows, bytes]) => {
    return { path: file, numRows: Number(numRows), bytes: Number(bytes) };
  });
  return parts.length > 0 ? parts : [await writeNone(task, query, `${path}.parquet`, connection)];
}
