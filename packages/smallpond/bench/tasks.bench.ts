// What a session and a task cost besides their work: the time to a first result, that of a trivial
// task among a thousand, and rows a second through functions.

import { rmSync } from "node:fs";
import { parseArgs } from "node:util";
import { type BenchRow, formatRows, median } from "@open-infra/testing";
import { init, type Session } from "../src/index.ts";
import { threads, Workplace } from "./rows.ts";

const why = "the original: 24 ms a task, 4.3-8 s to start";

async function timedMs(body: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await body();
  return performance.now() - startMs;
}

/** From nothing to the rows of a first query. */
async function startMs(place: Workplace): Promise<number> {
  const dataRoot = place.fresh();
  let session: Session | undefined;
  const tookMs = await timedMs(async () => {
    session = await init({ dataRoot, jobId: "job", executorCpus: threads });
    await session.partialSql("SELECT 1 AS one").takeAll();
  });
  await session?.shutdown();
  rmSync(dataRoot, { recursive: true, force: true });
  return tookMs;
}

/** A trivial query on each of many partitions, from call to the last result. */
async function taskMs(session: Session, tasks: number, round: number): Promise<number> {
  const items = await session.fromItems(Array.from({ length: tasks }, (_, i) => i));
  const parts = items.repartition(tasks, { byRows: true });
  await parts.compute();
  return (await timedMs(() => parts.map(`item + ${round} AS item`).compute())) / tasks;
}

/** A function over rows of a number and a text, and the same as SQL. */
async function functionMs(session: Session, rows: number, round: number): Promise<number> {
  const seed = await session.fromItems([{ one: 1 }]);
  const source = seed.select(
    `SELECT range + ${round} AS id, 'name ' || range AS name FROM {0}, range(${rows})`,
  );
  await source.compute();
  const mapped = source.map((row: { id: number; name: string }) => ({
    id: row.id + 1,
    name: row.name.toUpperCase(),
  }));
  return await timedMs(() => mapped.compute());
}

/** @param options.quick A tenth of the tasks and rows, one round. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const rounds = options.quick ? 1 : 5;
  const tasks = options.quick ? 100 : 1000;
  const rows = options.quick ? 50_000 : 500_000;
  await using place = await Workplace.open(8000);
  const times = { start: [] as number[], task: [] as number[], fn: [] as number[] };
  for (let round = 0; round < rounds; round++) times.start.push(await startMs(place));
  await place.job(async (session) => {
    for (let round = 0; round <= rounds; round++) {
      const [task, fn] = [
        await taskMs(session, tasks, round),
        await functionMs(session, rows, round),
      ];
      // The first time, executors compile.
      if (round > 0) {
        times.task.push(task);
        times.fn.push(fn);
      }
    }
  });
  const rate = rows / median(times.fn) / 1000;
  return [
    {
      case: "session start",
      shape: "to a first result",
      us: median(times.start) * 1000,
      peer: why,
    },
    { case: "trivial task", shape: `of ${tasks}, end to end`, us: median(times.task) * 1000 },
    {
      case: "map with a function",
      shape: `${rows / 1000} k rows of 2 columns`,
      us: median(times.fn) * 1000,
      rate: `${rate.toFixed(2)} M rows/s`,
    },
  ];
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { quick: { type: "boolean" } } });
  console.log(formatRows(await run({ quick: values.quick ?? false })));
}
