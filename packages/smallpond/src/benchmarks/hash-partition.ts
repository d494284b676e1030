// How fast rows are dealt out by the hash of columns, and whether they end where they should: each
// key in one partition, every row in one. After the original's hash_partition_benchmark.

import { InputError } from "@open-infra/errors";
import { identifier } from "../dataset/sql-text.ts";
import type { DataFrame } from "../session/dataframe.ts";
import {
  type BenchmarkOptions,
  benchmark,
  measured,
  partitionRows,
  type RowSum,
  rowSum,
  sameRows,
  type Timing,
} from "./measure.ts";
import { benchmarkRows, type RowsOptions } from "./urls.ts";

/** What is dealt out, by which columns, into how many partitions. */
export interface HashPartitionOptions extends BenchmarkOptions, RowsOptions {
  /** @default the host, of generated urls */
  readonly columns?: readonly string[];
  /** @default 4 a core */
  readonly partitions?: number;
}

/** One partition. */
export interface PartitionCount {
  readonly rows: number;
  readonly keys: number;
}

/** What is in a frame's partitions. */
export interface PartitionCheck {
  readonly partitions: readonly PartitionCount[];
  /** Different keys over all of them. */
  readonly keys: number;
  /** Keys that are in more than one. */
  readonly sharedKeys: number;
}

/** What came of it; the rate is of the input's bytes on disk. */
export interface HashPartitionReport extends RowSum, PartitionCheck, Timing {
  readonly columns: readonly string[];
  readonly bytes: number;
  /** Rows of the largest partition over the mean; 1 is even. */
  readonly skew: number;
  /** No shared keys, and the rows and checksum that came in. */
  readonly valid: boolean;
}

/** Rows and keys of each partition, and keys in several. The frame should be computed. */
export async function checkPartitions(
  frame: DataFrame,
  columns: readonly string[],
): Promise<PartitionCheck> {
  const list = columns.map(identifier).join(", ");
  // Rows are counted beside keys, and not by what the writer said of its files.
  const counted = frame.select(`SELECT ${list}, count(*) AS n FROM {0} GROUP BY ${list}`, {
    name: "keys",
  });
  const keys = partitionRows(await counted.compute());
  const totals = counted.select("SELECT CAST(coalesce(sum(n), 0) AS BIGINT) AS n FROM {0}", {
    name: "rows",
  });
  const rows: number[] = [];
  // A partition each, in their order.
  for (const { n } of await totals.takeAll()) rows.push(Number(n));
  const places = `SELECT count(*) AS places FROM {0} GROUP BY ${list}`;
  const [all] = await counted
    .repartition(1)
    .select(
      `SELECT count(*) AS keys, count(*) FILTER (places > 1) AS shared FROM (${places}) AS p`,
      { name: "shared-keys" },
    )
    .takeAll();
  return {
    partitions: keys.map((count, i) => ({ rows: rows[i] ?? 0, keys: count })),
    keys: Number(all?.keys ?? 0),
    sharedKeys: Number(all?.shared ?? 0),
  };
}

/** Runs the benchmark. @throws InputError, TaskError */
export async function hashPartition(
  options: HashPartitionOptions = {},
): Promise<HashPartitionReport> {
  const { input, columns = input === undefined ? ["host"] : [] } = options;
  if (columns.length === 0) throw new InputError("columns", "none", "columns of the input");
  return await benchmark(options, async (session, executors) => {
    const count = options.partitions ?? 4 * executors;
    const { frame, bytes } = await benchmarkRows(session, options, 2 * executors);
    const before = await rowSum(frame);
    const cut = frame.repartition(count, { hashBy: columns });
    const [, timing] = await measured(bytes, () => cut.recompute());
    const after = await rowSum(cut);
    const check = await checkPartitions(cut, columns);
    const largest = Math.max(...check.partitions.map(({ rows }) => rows));
    const dealt = check.partitions.reduce((sum, { rows }) => sum + rows, 0);
    return {
      ...before,
      ...check,
      ...timing,
      columns,
      bytes,
      skew: before.rows === 0 ? 1 : (largest * count) / before.rows,
      valid: check.sharedKeys === 0 && dealt === before.rows && sameRows(before, after),
    };
  });
}
