// Mock urls in order: dealt out by host and sorted within each partition, and sorted as a whole.
// Both are looked through from the first row to the last. After the original's urls_sort_benchmark.

import { fromClause } from "../dataset/sql-text.ts";
import { fromModule } from "../functions/function-ref.ts";
import type { DataFrame } from "../session/dataframe.ts";
import type { Session } from "../session/session.ts";
import { checkPartitions } from "./hash-partition.ts";
import {
  type BenchmarkOptions,
  benchmark,
  fileBytes,
  measured,
  type RowSum,
  rowSum,
  sameRows,
  type Timing,
} from "./measure.ts";
import { stepsUrl } from "./steps-url.ts";
import { mockUrls } from "./urls.ts";

/** What is sorted, in how many partitions. */
export interface UrlsSortOptions extends BenchmarkOptions {
  /** Urls to generate. @default 1,000,000 */
  readonly rows?: number;
  /** Of the generator. @default 0 */
  readonly seed?: number;
  /** @default 2 a core */
  readonly partitions?: number;
}

/** What is in order. */
export type UrlOrder = "by-host" | "global";

/** One way of sorting. */
export interface UrlOrderReport extends Timing, RowSum {
  readonly order: UrlOrder;
  /** Rows that are before the one before them; across partitions, too, if the order is global. */
  readonly inversions: number;
  /** Hosts in several partitions; only where they are dealt out by host. */
  readonly sharedHosts: number | undefined;
  /** No inversions or shared hosts, and the rows and checksum that came in. */
  readonly valid: boolean;
}

/** What came of it; rates are of the bytes of the generated files. */
export interface UrlsSortReport extends RowSum {
  readonly bytes: number;
  readonly partitions: number;
  readonly orders: readonly UrlOrderReport[];
  readonly valid: boolean;
}

/** Counts rows that are out of order, within each partition or over all of them. */
export async function urlInversions(
  session: Session,
  frame: DataFrame,
  across: boolean,
): Promise<number> {
  const stats = frame.mapBatches(fromModule(stepsUrl, "urlOrder"), {
    streaming: true,
    schema: { inversions: "BIGINT", first: "VARCHAR", last: "VARCHAR" },
    name: "order",
  });
  let inversions = 0;
  let last: string | undefined;
  for (const data of await stats.compute()) {
    for (const row of await session.query(`SELECT * FROM ${fromClause(data)}`)) {
      const first = String(row.first);
      inversions += Number(row.inversions);
      if (across && last !== undefined && first < last) inversions++;
      last = String(row.last);
    }
  }
  return inversions;
}

/** Runs the benchmark. @throws InputError, TaskError */
export async function urlsSort(options: UrlsSortOptions = {}): Promise<UrlsSortReport> {
  const { rows = 1_000_000, seed = 0 } = options;
  return await benchmark(options, async (session, executors) => {
    const partitions = options.partitions ?? 2 * executors;
    const urls = await mockUrls(session, { rows, seed, partitions });
    const bytes = fileBytes(await urls.compute());
    const input = await rowSum(urls);
    const frames: readonly (readonly [UrlOrder, DataFrame])[] = [
      ["by-host", urls.repartition(partitions, { hashBy: "host" }).partialSort("url")],
      ["global", urls.sort("url", { partitions })],
    ];
    const orders: UrlOrderReport[] = [];
    for (const [order, frame] of frames) {
      const [, timing] = await measured(bytes, () => frame.recompute());
      const sum = await rowSum(frame);
      const inversions = await urlInversions(session, frame, order === "global");
      const sharedHosts =
        order === "by-host" ? (await checkPartitions(frame, ["host"])).sharedKeys : undefined;
      const valid = inversions === 0 && (sharedHosts ?? 0) === 0 && sameRows(sum, input);
      orders.push({ order, ...timing, ...sum, inversions, sharedHosts, valid });
    }
    return { ...input, bytes, partitions, orders, valid: orders.every(({ valid }) => valid) };
  });
}
