// The sort benchmark from end to end: records are generated (or given), sorted into partitions by
// split points from a sample, and validated. Method and options follow the original's gray_sort
// example; split points instead of the key's top bits let keys be skewed.

import { copyFile, link, mkdir, rm } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import { InputError } from "@open-infra/errors";
import type { DataSet } from "../dataset/dataset.ts";
import { resolveFiles } from "../dataset/resolve.ts";
import { splitEvenly } from "../dataset/split.ts";
import type { SessionOptions } from "../session/options.ts";
import { init, type Session } from "../session/session.ts";
import { compareWithGnuSort, type SortComparison } from "./gnu-sort.ts";
import { recordFiles, recordPart, recordsIn } from "./record-files.ts";
import { type RecordFormat, recordBytes } from "./records.ts";
import { readFacts, type SortEngine } from "./steps.ts";
import { generateTasks, sortTasks, validateTasks } from "./tasks.ts";
import { mergeSummaries, type SortSummary } from "./validate.ts";

/** What is sorted, into how many parts, by whom. */
export interface GraysortOptions {
  /** Bytes to generate; rounded down to whole records. Without it, `input` says what is sorted. */
  readonly sizeBytes?: number;
  /** Files of 100-byte records (globs, folders) instead of generated ones. */
  readonly input?: string | readonly string[];
  /** @default "binary" */
  readonly format?: RecordFormat;
  /** Few hot keys. @default false */
  readonly skewed?: boolean;
  /** Sorted parts. @default enough for two a core and 64 MiB each */
  readonly partitions?: number;
  /** Processes of one core each. @default this machine's cores */
  readonly executors?: number;
  /** What finds a partition's order: a radix sort in TypeScript, or DuckDB. @default "radix" */
  readonly engine?: SortEngine;
  /** Where the sorted parts go, `part-00000` on; without it they stay in the job's folder. */
  readonly output?: string;
  /** @default true */
  readonly validate?: boolean;
  /** Runs GNU sort on the same records, too; for ASCII records. @default false */
  readonly compareWithSort?: boolean;
  /** How the session runs; `numExecutors` and `executorCpus` are this function's. */
  readonly session?: Omit<SessionOptions, "numExecutors" | "executorCpus">;
  /** Given the session before it works, to watch it. */
  readonly onSession?: (session: Session) => void;
}

/** What came of it. */
export interface GraysortReport {
  readonly records: number;
  readonly bytes: number;
  readonly partitions: number;
  /** Checksum of the input; of given files only when validated. */
  readonly inputChecksum: string | undefined;
  /** Of all parts in a row, unless not validated. */
  readonly summary: SortSummary | undefined;
  /** No inversions, and as many records with the same checksum as came in. */
  readonly valid: boolean | undefined;
  /** Of the largest partition over the mean; 1 is even. */
  readonly skew: number;
  readonly seconds: {
    /** Until an executor is up. */
    readonly start: number;
    readonly generate: number;
    readonly sort: number;
    readonly validate: number;
  };
  /** GNU sort on the same records, if asked for. */
  readonly gnuSort: SortComparison | undefined;
  readonly files: readonly string[];
}

/** Records of a generating or dealing task. */
const recordsPerTask = 640_000;
const partitionBytes = 64 * 2 ** 20;

interface Input {
  readonly data: readonly DataSet[];
  readonly records: number;
  readonly checksum: string | undefined;
}

/** Runs the benchmark. @throws InputError, TaskError */
export async function graysort(options: GraysortOptions): Promise<GraysortReport> {
  const executors = options.executors ?? availableParallelism();
  const session = await init({
    ...options.session,
    numExecutors: executors,
    executorCpus: 1,
    executorMemoryBytes:
      options.session?.executorMemoryBytes ?? Math.floor((totalmem() * 0.6) / executors),
  });
  try {
    options.onSession?.(session);
    return await run(options, executors, session);
  } finally {
    await session.shutdown();
  }
}

const pathsOf = (data: readonly DataSet[]): string[] =>
  data.flatMap(({ parts }) => parts.map(({ path }) => path));

async function timed<T>(body: () => Promise<T>): Promise<[T, number]> {
  const startMs = performance.now();
  const value = await body();
  return [value, (performance.now() - startMs) / 1000];
}

async function run(
  options: GraysortOptions,
  executors: number,
  session: Session,
): Promise<GraysortReport> {
  const { engine = "radix", output, validate = true } = options;
  if (options.compareWithSort && options.format !== "ascii") {
    throw new InputError("compareWithSort", "binary records", "ASCII records, which are lines");
  }
  const [, start] = await timed(() => session.partialSql("SELECT 1 AS up").compute());
  const [input, generate] = await timed(() => prepare(options, executors, session));
  const bytes = input.records * recordBytes;
  const partitions =
    options.partitions ?? Math.max(2 * executors, Math.ceil(bytes / partitionBytes));
  if (!Number.isInteger(partitions) || partitions < 1) {
    throw new InputError("partitions", `${partitions}`, "an integer of at least 1");
  }
  const [sorted, sort] = await timed(() =>
    session.runTasks(sortTasks({ data: input.data, partitions, engine })),
  );
  const [summary, validateSeconds] = await timed(async () =>
    validate ? await summarize(session, sorted) : undefined,
  );
  const before = summary && (input.checksum ?? (await summarizeInput(session, input)).checksum);
  const valid =
    summary &&
    summary.inversions === 0 &&
    summary.records === input.records &&
    summary.checksum === before;
  const paths = pathsOf(sorted);
  const gnuSort = options.compareWithSort
    ? await compareWithGnuSort({
        inputs: pathsOf(input.data),
        parts: paths,
        threads: executors,
        folder: join(session.folder.root, "items"),
      })
    : undefined;
  const largest = sorted.reduce((most, { parts }) => Math.max(most, parts[0]?.numRows ?? 0), 0);
  return {
    records: input.records,
    bytes,
    partitions,
    inputChecksum: before,
    summary,
    valid,
    skew: input.records === 0 ? 1 : (largest * partitions) / input.records,
    seconds: { start, generate, sort, validate: validateSeconds },
    gnuSort,
    files: output === undefined ? paths : await publish(paths, output),
  };
}

/** The records to sort, in data sets that are dealt out side by side. */
async function prepare(
  { sizeBytes, input, format = "binary", skewed = false }: GraysortOptions,
  executors: number,
  session: Session,
): Promise<Input> {
  if ((sizeBytes === undefined) === (input === undefined)) {
    const got = sizeBytes === undefined ? "neither" : "both";
    throw new InputError("graysort", got, "sizeBytes or input");
  }
  if (input !== undefined) {
    const found = await resolveFiles(input, "graysort: input");
    const parts = found.map(({ path, bytes = 0 }) => ({
      ...recordPart(path, bytes),
      numRows: recordsIn(path, bytes),
    }));
    const records = parts.reduce((sum, part) => sum + part.numRows, 0);
    const groups = splitEvenly(parts, Math.min(parts.length, 4 * executors));
    return { data: groups.map(recordFiles), records, checksum: undefined };
  }
  const records = Math.floor((sizeBytes as number) / recordBytes);
  if (!Number.isSafeInteger(records) || records < 1) {
    throw new InputError("sizeBytes", `${sizeBytes}`, `at least ${recordBytes}`);
  }
  const perTask = Math.min(recordsPerTask, Math.ceil(records / executors));
  const made = await session.runTasks(generateTasks({ format, skewed, records, perTask }));
  const facts = made.filter((_, i) => i % 2 === 1).map(readFacts<{ checksum: string }>);
  const checksum = facts.reduce((sum, fact) => sum + BigInt(`0x${fact.checksum}`), 0n);
  return { data: made.filter((_, i) => i % 2 === 0), records, checksum: checksum.toString(16) };
}

async function summarize(session: Session, data: readonly DataSet[]): Promise<SortSummary> {
  const results = await session.runTasks(validateTasks(data));
  return mergeSummaries(results.map(readFacts<SortSummary>));
}

/** Only its checksum and number of records mean anything. */
const summarizeInput = (session: Session, input: Input): Promise<SortSummary> =>
  summarize(session, input.data);

/** Puts the parts into a folder of the user's, by hard link where the file system allows. */
async function publish(paths: readonly string[], folder: string): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  const files: string[] = [];
  for (const [i, path] of paths.entries()) {
    const file = join(folder, `part-${String(i).padStart(5, "0")}`);
    await rm(file, { force: true });
    await link(path, file).catch(() => copyFile(path, file));
    files.push(file);
  }
  return files;
}
