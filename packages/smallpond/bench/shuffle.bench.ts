// Shuffle and aggregate, a pure hash partition, and work of one partition, beside DuckDB doing the
// same in one process with as many threads and the same compression, in turns (A B A B).

import { parseArgs } from "node:util";
import type { BenchRow } from "@open-infra/testing";
import { formatRows } from "@open-infra/testing";
import type { Session } from "../src/index.ts";
import { against, type Contender, inTurn, loadPolars, threads, Workplace } from "./rows.ts";

const two = "sum(v) AS total, count(*) AS n";
const all = `${two}, max(id) AS last, max(s) AS text`;
const groupBy = (list: string, from: string): string => `SELECT k, ${list} FROM ${from} GROUP BY k`;
/** How results and shuffled rows are written by default. */
const results = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3";
const shuffled = "FORMAT parquet, COMPRESSION lz4, PARQUET_VERSION V2, DICTIONARY_SIZE_LIMIT 1";

/** Repartitions and aggregates. */
function shuffle(columns?: readonly string[], list = two, whole = false) {
  return async (session: Session, input: string): Promise<void> => {
    const source = await session.readParquet(input, columns === undefined ? {} : { columns });
    const frame = source.repartition(8, { hashBy: "k" });
    // Asked for by itself, it has all its columns, whatever the aggregate needs of them.
    if (whole) await frame.compute();
    await session.partialSql(groupBy(list, "{0}"), frame).compute();
  };
}

type Job = (session: Session, input: string) => Promise<unknown>;

const jobs = {
  "ours all": shuffle(undefined, two, true),
  "ours as written": shuffle(),
  "ours projected": shuffle(["k", "v"]),
  "ours four": shuffle(undefined, all, true),
  "ours partition": async (session, input) =>
    (await session.readParquet(input)).repartition(8, { hashBy: "k" }).compute(),
  "ours single": async (session, input) =>
    session.partialSql(groupBy(two, "{0}"), await session.readParquet(input)).compute(),
} satisfies Record<string, Job>;

function contenders(place: Workplace) {
  const { duck, source, input } = place;
  const copy =
    (query: string, options: string): Contender =>
    () =>
      place.timed((path) => duck.run(`COPY (${query}) TO '${path}' (${options})`));
  const cut = `SELECT *, (hash(concat_ws('##', k)) % 8)::BIGINT AS p FROM ${source}`;
  const into = "PARTITION_BY (p), WRITE_PARTITION_COLUMNS true";
  const ours = Object.fromEntries(
    Object.entries(jobs).map(([name, job]) => [
      name,
      () => place.job((session) => job(session, input)),
    ]),
  ) as Record<keyof typeof jobs, Contender>;
  return {
    raw: copy(groupBy(two, source), results),
    ...ours,
    "raw four": copy(groupBy(all, source), results),
    "raw partition": copy(cut, `${shuffled}, ${into}`),
    "raw partition, defaults": copy(cut, `FORMAT parquet, ${into}`),
  };
}

/** @param options.quick A million rows, one round. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const rows = options.quick ? 1_600_000 : 16_000_000;
  await using place = await Workplace.open(rows);
  const polars = await loadPolars();
  const aggregate: Contender = () =>
    place.timed(async (path) => {
      if (typeof polars === "string") return;
      const [v, k] = [polars.col("v"), polars.col("k")];
      const lazy = polars.scanParquet(place.input).groupBy("k");
      const frame = await lazy.agg(v.sum().alias("total"), k.count().alias("n")).collect();
      frame.writeParquet(path, { compression: "zstd" });
    });
  const ms = await inTurn({ ...contenders(place), polars: aggregate }, options.quick ? 1 : 5);
  const shape = `${rows / 1e6} M rows, ${threads} threads`;
  const noShuffle = "DuckDB, no shuffle";
  const polarsRow: BenchRow =
    typeof polars === "string"
      ? { case: "nodejs-polars, no shuffle", shape, us: Number.NaN, peer: polars }
      : against("single partition", shape, ms["ours single"], "nodejs-polars", ms.polars);
  return [
    against("shuffle + aggregate, all columns", shape, ms["ours all"], noShuffle, ms.raw),
    against("shuffle + aggregate, as written", shape, ms["ours as written"], noShuffle, ms.raw),
    against("shuffle + aggregate, 2 columns", shape, ms["ours projected"], noShuffle, ms.raw),
    against("shuffle + aggregate of 4 columns", shape, ms["ours four"], noShuffle, ms["raw four"]),
    against("hash partition", shape, ms["ours partition"], "PARTITION_BY", ms["raw partition"]),
    against(
      "hash partition",
      shape,
      ms["ours partition"],
      "PARTITION_BY as DuckDB writes by default",
      ms["raw partition, defaults"],
    ),
    against("single partition", shape, ms["ours single"], "DuckDB", ms.raw),
    polarsRow,
  ];
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { quick: { type: "boolean" } } });
  console.log(formatRows(await run({ quick: values.quick ?? false })));
}
