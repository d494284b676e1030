// The data that the benchmarks run on: mock urls from a seed, or Parquet files of the user's. The
// hosts have few enough names that each comes up about a hundred times.

import type { DataSet } from "../dataset/dataset.ts";
import type { DataFrame } from "../session/dataframe.ts";
import type { Session } from "../session/session.ts";
import { fileBytes, whole } from "./measure.ts";

/** Which rows a benchmark moves. */
export interface RowsOptions {
  /** Mock urls to generate. @default 1,000,000 */
  readonly rows?: number;
  /** Of what is generated. @default 0 */
  readonly seed?: number;
  /** Parquet files (globs, folders) instead of generated urls. */
  readonly input?: string | readonly string[];
}

const rowsPerHost = 100;

/**
 * Columns `host`, `com.<int>.<int>`, and `url`, `<host>/<path>.html`. The same rows for any number
 * of partitions.
 *
 * @throws InputError
 */
export async function mockUrls(
  session: Session,
  options: { readonly rows: number; readonly seed: number; readonly partitions: number },
): Promise<DataFrame> {
  const { rows, seed, partitions } = options;
  whole("rows", rows, 1);
  whole("seed", seed, 0);
  whole("partitions", partitions, 1);
  const each = Math.ceil(rows / partitions);
  const hosts = Math.ceil(rows / rowsPerHost);
  const firsts = Float64Array.from({ length: partitions }, (_, i) => Math.min(i * each, rows));
  const ranges = await session.fromColumns({ first_row: firsts });
  const numbers =
    `SELECT CAST(first_row AS BIGINT) + r.n AS i FROM {0}, range(${each}) AS r(n) ` +
    `WHERE first_row + r.n < ${rows}`;
  const drawn = `SELECT i, hash(i, ${seed}, 1) % ${hosts} AS h FROM (${numbers})`;
  const named =
    `SELECT i, 'com.' || hash(h, ${seed}, 2) % 1000 || '.' || hash(h, ${seed}, 3) % 1000 AS host ` +
    `FROM (${drawn})`;
  const query =
    `SELECT host, host || '/' || lower(to_hex(hash(i, ${seed}, 4))) || '.html' AS url ` +
    `FROM (${named})`;
  return ranges.repartition(partitions, { byRows: true }).select(query, { name: "mock-urls" });
}

/** The rows to move, computed: generated, or the user's files cut by rows. */
export async function benchmarkRows(
  session: Session,
  { rows = 1_000_000, seed = 0, input }: RowsOptions,
  partitions: number,
): Promise<{ readonly frame: DataFrame; readonly bytes: number }> {
  whole("partitions", partitions, 1);
  if (input === undefined) {
    const frame = await mockUrls(session, { rows, seed, partitions });
    return { frame, bytes: fileBytes(await frame.compute()) };
  }
  const files = await session.readParquet(input);
  const bytes = fileBytes(sourceOf(await files.compute()));
  return { frame: files.repartition(partitions, { byRows: true }), bytes };
}

/** Each file once, though it may be there by ranges of rows. */
function sourceOf(data: readonly DataSet[]): readonly DataSet[] {
  const parts = new Map(data.flatMap((set) => set.parts).map((part) => [part.path, part]));
  return [{ format: "files", parts: [...parts.values()] }];
}
