// How fast rows go through a task: a Parquet data set is copied by a query, by a function of a row
// and by a function of a stream of Arrow tables. After the original's file_io_benchmark.

import type { DataFrame } from "../session/dataframe.ts";
import {
  type BenchmarkOptions,
  benchmark,
  measured,
  type RowSum,
  rowSum,
  sameRows,
  type Timing,
} from "./measure.ts";
import { benchmarkRows, type RowsOptions } from "./urls.ts";

/** What is copied, in how many tasks. */
export interface FileIoOptions extends BenchmarkOptions, RowsOptions {
  /** Tasks of each copy. @default two a core */
  readonly partitions?: number;
}

/** How rows go through a task. */
export type CopyWay = "sql" | "rows" | "arrow-stream";

/** One copy. */
export interface CopyReport extends Timing, RowSum {
  readonly way: CopyWay;
  /** Columns, types, rows and checksum are the input's. */
  readonly equal: boolean;
}

/** What came of it; rates are of the input's bytes on disk. */
export interface FileIoReport extends RowSum {
  readonly bytes: number;
  readonly partitions: number;
  readonly copies: readonly CopyReport[];
  readonly valid: boolean;
}

/** Runs the benchmark. @throws InputError, TaskError */
export async function fileIo(options: FileIoOptions = {}): Promise<FileIoReport> {
  return await benchmark(options, async (session, executors) => {
    const partitions = options.partitions ?? 2 * executors;
    const { frame, bytes } = await benchmarkRows(session, options, partitions);
    const input = await rowSum(frame);
    const schema = await frame.schema();
    const ways: readonly (readonly [CopyWay, DataFrame])[] = [
      ["sql", frame.select("SELECT * FROM {0}", { name: "copy-sql" })],
      ["rows", frame.map((row) => row, { schema, name: "copy-rows" })],
      [
        "arrow-stream",
        frame.mapBatches((batches) => batches, {
          format: "arrow",
          streaming: true,
          schema,
          name: "copy-arrow",
        }),
      ],
    ];
    const copies: CopyReport[] = [];
    for (const [way, copy] of ways) {
      const [, timing] = await measured(bytes, () => copy.recompute());
      const sum = await rowSum(copy);
      const sameSchema = JSON.stringify(await copy.schema()) === JSON.stringify(schema);
      copies.push({ way, ...timing, ...sum, equal: sameSchema && sameRows(sum, input) });
    }
    return { ...input, bytes, partitions, copies, valid: copies.every(({ equal }) => equal) };
  });
}
