// A task that opens a data set that was partitioned before: each file says to which partition it
// belongs, in its key-value metadata, by a column that has one value in it, or by its path. The
// original looks in the same places, in the same order.

import type { DuckDBConnection } from "@duckdb/node-api";
import { type DataSet, withParts } from "../../dataset/dataset.ts";
import { identifier, literal } from "../../dataset/sql-text.ts";
import { TaskError } from "../../errors.ts";
import type { Task, TaskOp } from "../task.ts";
import { metadataPrefix, withQuery } from "./write.ts";

type LoadOp = Extract<TaskOp, { kind: "load" }>;

/** The files of each partition. @throws TaskError for a file that belongs nowhere or to several */
export async function loadPartitions(
  task: Task,
  op: LoadOp,
  data: DataSet,
  connection: DuckDBConnection,
): Promise<readonly DataSet[]> {
  const { column, count } = op;
  const paths = [...new Set(data.parts.map(({ path }) => path))];
  const places = new Map<string, number>();
  const take = (path: string, value: unknown): void => {
    const text = String(value);
    const number = Number(text);
    if (text === "" || !Number.isInteger(number) || number < 0 || number >= count) {
      const problem = `partition key ${text} is out of range 0-${count - 1}`;
      throw new TaskError(task.node, 1, "sql", `${problem}: ${path}`);
    }
    places.set(path, number);
  };
  const missing = (): string[] => paths.filter((path) => !places.has(path));
  if (!op.hive && data.format === "parquet") {
    const found = await inMetadata(task, column, paths, connection);
    for (const [path, value] of found) take(path, value);
    for (const [path, value] of await inColumn(task, column, missing(), connection)) {
      take(path, value);
    }
  }
  for (const path of missing()) {
    const value = inPath(column, path);
    if (value !== undefined) take(path, value);
  }
  const [lost] = missing();
  if (lost !== undefined) throw new TaskError(task.node, 1, "sql", homeless(op, lost));
  const groups = Array.from({ length: count }, (): DataSet["parts"][number][] => []);
  for (const part of data.parts) groups[places.get(part.path) as number]?.push(part);
  return groups.map((parts) => withParts(data, parts));
}

function homeless({ column, hive }: LoadOp, path: string): string {
  const looked = hive ? "" : `no metadata ${metadataPrefix}${column}, no column ${column}, and `;
  return `${path} has ${looked}no folder ${column}=… to say to which partition it belongs`;
}

type Row = readonly [string, unknown, unknown, unknown];
type Found = readonly (readonly [path: string, value: unknown, ...unknown[]])[];

async function inMetadata(
  task: Task,
  column: string,
  paths: readonly string[],
  connection: DuckDBConnection,
): Promise<Found> {
  if (paths.length === 0) return [];
  const query =
    "SELECT file_name, decode(value) FROM " +
    `parquet_kv_metadata([${paths.map(literal).join(", ")}]) ` +
    `WHERE decode(key) = ${literal(metadataPrefix + column)}`;
  return await rowsOf(task, query, connection);
}

/** By the files' statistics, which need no row, or by their rows. */
async function inColumn(
  task: Task,
  column: string,
  paths: readonly string[],
  connection: DuckDBConnection,
): Promise<Found> {
  if (paths.length === 0) return [];
  const list = `[${paths.map(literal).join(", ")}]`;
  const having =
    `SELECT file_name, min(stats_min_value), max(stats_max_value), ` +
    `count(*) FILTER (stats_min_value IS NULL OR stats_min_value <> stats_max_value ` +
    `OR coalesce(stats_null_count, 1) > 0) ` +
    `FROM parquet_metadata(${list}) WHERE path_in_schema = ${literal(column)} ` +
    "GROUP BY file_name ORDER BY file_name";
  const found: [string, unknown][] = [];
  for (const [path, least, most, doubts] of await rowsOf(task, having, connection)) {
    const sure = Number(doubts) === 0 && least === most;
    found.push([path, sure ? least : await onlyValue(task, column, path, connection)]);
  }
  return found.filter(([, value]) => value !== undefined);
}

/** The one value of a column in a file; undefined for a file without rows. */
async function onlyValue(
  task: Task,
  column: string,
  path: string,
  connection: DuckDBConnection,
): Promise<unknown> {
  const read = `read_parquet(${literal(path)}, hive_partitioning=false)`;
  const query = `SELECT DISTINCT ${identifier(column)} FROM ${read} ORDER BY 1 LIMIT 2`;
  const values = (await rowsOf(task, query, connection)).map(([value]): unknown => value);
  if (values.length < 2) return values[0];
  const several = `${values.map(String).join(", ")} and perhaps more`;
  const problem = `the values of ${column} in a file must be one, not ${several}: ${path}`;
  throw new TaskError(task.node, 1, "sql", problem);
}

function inPath(column: string, path: string): string | undefined {
  const folder = path.split("/").findLast((name) => name.startsWith(`${column}=`));
  return folder?.slice(column.length + 1);
}

async function rowsOf(
  task: Task,
  query: string,
  connection: DuckDBConnection,
): Promise<readonly Row[]> {
  return await withQuery(task, query, async () => {
    const result = await connection.runAndReadAll(query);
    return result.getRowsJS() as unknown as Row[];
  });
}
