// The sort benchmark beside GNU sort on the same records with as many threads, and beside DuckDB
// sorting them from Parquet to Parquet in one process, in turns. Generating and validating are not
// in the times; every output is checked.

import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type BenchRow, formatRows, hasProgram, median } from "@open-infra/testing";
import type { GraysortOptions } from "../src/graysort/index.ts";
import { graysort, runGnuSort } from "../src/graysort/index.ts";
import { against, threads, Workplace } from "./rows.ts";

/** Sorts files; gives milliseconds. @throws if the output is wrong */
async function ours(place: Workplace, options: GraysortOptions): Promise<number> {
  const dataRoot = place.fresh();
  const session = { dataRoot, jobId: "job" };
  const report = await graysort({ executors: threads, session, ...options });
  rmSync(dataRoot, { recursive: true, force: true });
  if (!report.valid) throw new Error(`not sorted: ${JSON.stringify(report.summary)}`);
  return report.seconds.sort * 1000;
}

/** Lines in eight files, and their keys and records in Parquet. */
async function makeInput(place: Workplace, sizeBytes: number): Promise<{ files: string[] }> {
  const folder = place.fresh();
  const session = { dataRoot: place.fresh(), jobId: "generate" };
  const made = { sizeBytes, format: "ascii", validate: false, partitions: 8 } as const;
  // Sorted parts would be too easy an input, so the generator's own files are taken.
  const inputs: string[] = [];
  await graysort({
    ...made,
    session,
    onSession: (running) =>
      running.listen(({ type, task, result }) => {
        if (type !== "finished" || task.node !== "graysort-generate") return;
        inputs.push(result?.outputs[0]?.parts[0]?.path ?? "");
      }),
  });
  mkdirSync(folder);
  const files = inputs.map((path, i) => {
    const file = join(folder, `${i}.records`);
    copyFileSync(path, file);
    return file;
  });
  rmSync(session.dataRoot, { recursive: true, force: true });
  const list = files.map((file) => `'${file}'`).join(", ");
  const lines =
    `SELECT line[1:10] AS key, line AS record FROM read_csv([${list}], ` +
    "columns={'line': 'VARCHAR'}, delim='\\x01', quote='', escape='', header=false, " +
    "auto_detect=false, new_line='\\r\\n')";
  await place.duck.run(`COPY (${lines}) TO '${folder}/in.parquet' (FORMAT parquet)`);
  return { files };
}

/** @param options.quick 50 MB, one round. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const sizeBytes = options.quick ? 50_000_000 : 500_000_000;
  const rounds = options.quick ? 1 : 3;
  await using place = await Workplace.open(8000);
  const { files } = await makeInput(place, sizeBytes);
  const parquet = files[0]?.replace("0.records", "in.parquet");
  const sort = `SELECT * FROM read_parquet('${parquet}') ORDER BY key`;
  const times = { radix: [], duckdb: [], skewed: [], gnu: [], raw: [] } as Record<string, number[]>;
  const gnu = hasProgram("sort");
  for (let round = 0; round < rounds; round++) {
    times.radix?.push(await ours(place, { input: files }));
    if (gnu) {
      const output = place.fresh();
      const how = { inputs: files, output, threads, temporary: place.root };
      times.gnu?.push((await runGnuSort(how)) * 1000);
      rmSync(output);
    }
    times.raw?.push(
      await place.timed((path) => place.duck.run(`COPY (${sort}) TO '${path}' (FORMAT parquet)`)),
    );
    times.duckdb?.push(await ours(place, { input: files, engine: "duckdb" }));
    times.skewed?.push(await ours(place, { sizeBytes, format: "ascii", skewed: true }));
  }
  const of = (name: string): number => median(times[name] ?? []);
  const shape = `${sizeBytes / 1e6} MB, ${threads} threads`;
  const row = (name: string, key: string): BenchRow =>
    gnu
      ? against(name, shape, of(key), "GNU sort", of("gnu"))
      : { case: name, shape, us: of(key) * 1000, peer: "GNU sort is not installed" };
  return [
    row("graysort", "radix"),
    against("graysort", shape, of("radix"), "DuckDB, Parquet to Parquet", of("raw")),
    row("graysort, few hot keys", "skewed"),
    row("graysort, --engine duckdb", "duckdb"),
  ];
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { quick: { type: "boolean" } } });
  console.log(formatRows(await run({ quick: values.quick ?? false })));
}
