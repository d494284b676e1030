// Functions that the node API's tests call by name in executors.

import { appendFileSync, existsSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Table } from "apache-arrow";
import {
  type ComputeContext,
  type DataSet,
  fromClause,
  type ScriptContext,
  withParts,
} from "../src/index.ts";

type Rows = readonly Record<string, unknown>[];

/** A file a partition, named by its place, with the paths of its inputs in it. */
export function listing({ inputs, folder, partition }: ScriptContext, word: string): void {
  const place = Object.entries(partition).map(([name, i]) => `${name}-${i}`);
  const paths = inputs.flatMap(({ parts }) => parts.map(({ path }) => basename(path)));
  const text = [word, ...paths].join("\n");
  writeFileSync(join(folder, `${["list", ...place].join(".")}.txt`), text);
}

/** The same name in every partition. */
export function sameName({ folder, partition }: ScriptContext): void {
  writeFileSync(join(folder, "data.txt"), JSON.stringify(partition));
}

export const refusing = (): boolean => false;

/** Every third file to partition 0, the rest to 1; the third partition has none. */
export function byThirds({ inputs }: ScriptContext): DataSet[] {
  const data = inputs[0] as DataSet;
  const thirds = data.parts.filter((_, i) => i % 3 === 0);
  const others = data.parts.filter((_, i) => i % 3 !== 0);
  return [thirds, others, []].map((parts) => withParts(data, parts));
}

/** Rows of a data set, counted by DuckDB as a script may. */
export async function counted({ inputs, connection, folder }: ScriptContext): Promise<void> {
  const query = `SELECT count(*) AS n FROM ${fromClause(inputs[0] as DataSet)}`;
  const [row] = (await connection.runAndReadAll(query)).getRows();
  writeFileSync(join(folder, "count.txt"), String(row?.[0]));
}

/** Sums of a key's rows over a stream, a row a batch, each with where it came from. */
export async function* sums(
  [rows]: readonly AsyncIterable<Rows>[],
  { partition }: ComputeContext,
): AsyncGenerator<Rows> {
  for await (const batch of rows as AsyncIterable<Rows>) {
    const sum = batch.reduce((total, { id }) => total + Number(id), 0);
    yield [{ sum, rows: batch.length, ...partition }];
  }
}

/** Each batch as it is, in two results; its process is killed once, in the middle. */
export async function* deadly(
  [tables]: readonly AsyncIterable<Table>[],
  _: ComputeContext,
  log: string,
): AsyncGenerator<Table> {
  for await (const table of tables as AsyncIterable<Table>) {
    appendFileSync(log, `${table.numRows}\n`);
    yield table.slice(0, 10);
    if (Number(table.get(0)?.id) === 600 && !existsSync(`${log}.died`)) {
      writeFileSync(`${log}.died`, "");
      process.kill(process.pid, "SIGKILL");
    }
    yield table.slice(10);
    await sleep(5);
  }
}
