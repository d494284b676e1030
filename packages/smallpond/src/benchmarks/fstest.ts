// Whether a file system gives back what was written, and how fast: tasks write files of counters,
// read them in order and at random, and compare every word. After the original's fstest.

import { randomUUID } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { InputError } from "@open-infra/errors";
import { fromModule } from "../functions/function-ref.ts";
import type { Row } from "../session/frame-options.ts";
import type { Session } from "../session/session.ts";
import { counterFile } from "./counters.ts";
import { type BenchmarkOptions, benchmark, measured, type Timing, whole } from "./measure.ts";
import type { CounterArguments } from "./steps.ts";
import { stepsUrl } from "./steps-url.ts";

/** What is written where, and how it is read. */
export interface FstestOptions extends BenchmarkOptions {
  /** Of the files, `counters-00000.u32` on. @default one in the job's folder */
  readonly folder?: string;
  /** Files, a task each. @default 2 a core */
  readonly files?: number;
  /** Of each file; a multiple of 4. @default 64 MiB */
  readonly fileBytes?: number;
  /** Of one read or write; a multiple of 4. @default 1 MiB */
  readonly blockBytes?: number;
  /** Without, the files of an earlier run with the same sizes are read. @default true */
  readonly write?: boolean;
  /** The files stay. @default false; files that this run did not write always stay */
  readonly keep?: boolean;
  /** Of the random order. @default 0 */
  readonly seed?: number;
}

/** What was done with the files. */
export type FilePass = "write" | "read-sequential" | "read-random";

/** The first word that is wrong. */
export interface WrongPlace {
  /** Path. */
  readonly file: string;
  /** Offset in the file, of the first byte that differs. */
  readonly byte: number;
  readonly expected: number;
  /** Undefined if the file is too short, or goes on where it should end. */
  readonly got: number | undefined;
}

/** One pass over all files. */
export interface FilePassReport extends Timing {
  readonly pass: FilePass;
  readonly wrongWords: number;
  readonly firstWrong: WrongPlace | undefined;
}

/** What came of it. What was just written is likely read from memory, not from the disk. */
export interface FstestReport {
  readonly folder: string;
  readonly files: number;
  readonly bytes: number;
  readonly blockBytes: number;
  readonly passes: readonly FilePassReport[];
  readonly valid: boolean;
}

/** The functions of each pass, and how they go through a file. */
const passes: Readonly<
  Record<FilePass, { readonly name: string; readonly order: CounterArguments["order"] }>
> = {
  write: { name: "writeFiles", order: "sequential" },
  "read-sequential": { name: "readFiles", order: "sequential" },
  "read-random": { name: "readFiles", order: "random" },
};

const schema = {
  file: "DOUBLE",
  bytes: "DOUBLE",
  wrong: "DOUBLE",
  byte: "DOUBLE",
  expected: "DOUBLE",
  got: "DOUBLE",
};

/** Runs the benchmark. @throws InputError, TaskError if a file is not there or cannot be written */
export async function fstest(options: FstestOptions = {}): Promise<FstestReport> {
  const { fileBytes = 64 * 2 ** 20, blockBytes = 2 ** 20, write = true, seed = 0 } = options;
  words("fileBytes", fileBytes);
  words("blockBytes", blockBytes);
  whole("seed", seed, 0);
  if (!write && options.folder === undefined) {
    throw new InputError("write", "false without a folder", "a folder of files to read");
  }
  return await benchmark(options, async (session, executors) => {
    const { files = 2 * executors } = options;
    whole("files", files, 1);
    const folder = resolve(options.folder ?? join(session.folder.root, "items", "fstest"));
    if (write) await mkdir(folder, { recursive: true });
    const args = { folder, fileBytes, blockBytes, seed };
    const reports: FilePassReport[] = [];
    try {
      if (write) reports.push(await runPass(session, "write", files, args));
      reports.push(await runPass(session, "read-sequential", files, args));
      reports.push(await runPass(session, "read-random", files, args));
    } finally {
      if (write && !options.keep) await removeFiles(folder, files);
    }
    const bytes = files * fileBytes;
    const valid = reports.every(({ wrongWords }) => wrongWords === 0);
    return { folder, files, bytes, blockBytes, passes: reports, valid };
  });
}

async function runPass(
  session: Session,
  pass: FilePass,
  files: number,
  sizes: Omit<CounterArguments, "step" | "order">,
): Promise<FilePassReport> {
  const { name, order } = passes[pass];
  const args: CounterArguments = { ...sizes, order, step: randomUUID() };
  const numbers = await session.fromColumns({
    file: Int32Array.from({ length: files }, (_, i) => i),
  });
  const frame = numbers
    .repartition(files, { byRows: true })
    .mapBatches(fromModule(stepsUrl, name, [args]), { schema, name: `fstest-${pass}` });
  const [, timing] = await measured(files * sizes.fileBytes, () => frame.compute());
  const rows = await frame.takeAll();
  const seen = new Set(rows.map(({ file }) => Number(file)));
  if (seen.size !== files) throw new Error(`${pass}: ${seen.size} of ${files} files reported`);
  const wrongWords = rows.reduce((sum, { wrong }) => sum + Number(wrong ?? 0), 0);
  return { pass, ...timing, wrongWords, firstWrong: firstWrong(rows, sizes.folder) };
}

/** Of the first file that has one. */
function firstWrong(rows: readonly Row[], folder: string): WrongPlace | undefined {
  const [row] = rows
    .filter(({ byte }) => byte !== null && byte !== undefined)
    .sort((a, b) => Number(a.file) - Number(b.file));
  if (row === undefined) return undefined;
  return {
    file: counterFile(folder, Number(row.file)),
    byte: Number(row.byte),
    expected: Number(row.expected),
    got: row.got === null ? undefined : Number(row.got),
  };
}

async function removeFiles(folder: string, files: number): Promise<void> {
  for (let i = 0; i < files; i++) await rm(counterFile(folder, i), { force: true });
}

function words(parameter: string, bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes < 4 || bytes % 4 !== 0) {
    throw new InputError(parameter, `${bytes}`, "a multiple of 4, from 4 on");
  }
}
