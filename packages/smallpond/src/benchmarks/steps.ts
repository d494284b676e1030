// What the benchmarks do in executors: look through urls in order, write files of counters, read
// them back. Each is a function of rows, called by name.

import { randomUUID } from "node:crypto";
import { renameSync, rmSync } from "node:fs";
import { counterFile, readCounters, writeCounters } from "./counters.ts";

type Rows = readonly Readonly<Record<string, unknown>>[];

/** Inversions, first and last url of a partition; nothing of one without rows. */
export async function* urlOrder(batches: AsyncIterable<Rows>): AsyncGenerator<Rows> {
  let first: string | undefined;
  let last: string | undefined;
  let inversions = 0;
  for await (const batch of batches) {
    for (const row of batch) {
      const url = String(row.url);
      first ??= url;
      if (last !== undefined && url < last) inversions++;
      last = url;
    }
  }
  if (first !== undefined) yield [{ inversions, first, last }];
}

/** What a task of the file benchmark is told. */
export interface CounterArguments {
  readonly folder: string;
  readonly fileBytes: number;
  readonly blockBytes: number;
  /** Tells one step of one run from all others, so that none is taken as done. */
  readonly step: string;
  readonly order: "sequential" | "random";
  readonly seed: number;
}

/** Writes the file of each row. One that is being written has another name until it is whole. */
export function writeFiles(rows: Rows, options: CounterArguments): Rows {
  return rows.map((row) => {
    const file = Number(row.file);
    const path = counterFile(options.folder, file);
    const unfinished = `${path}.${randomUUID()}`;
    try {
      writeCounters(unfinished, { ...options, file });
      renameSync(unfinished, path);
    } finally {
      rmSync(unfinished, { force: true });
    }
    return { file, bytes: options.fileBytes };
  });
}

/** Reads the file of each row, and says what is wrong in it. */
export function readFiles(rows: Rows, options: CounterArguments): Rows {
  return rows.map((row) => {
    const file = Number(row.file);
    const found = readCounters(counterFile(options.folder, file), { ...options, file });
    const { bytes, wrongWords, first } = found;
    return {
      file,
      bytes,
      wrong: wrongWords,
      byte: first?.byte ?? null,
      expected: first?.expected ?? null,
      got: first?.got ?? null,
    };
  });
}
