// The steps of a sort as scripts that tasks call: generate, sample, choose split points, deal out,
// sort, validate. Each reads files of records and writes files of records or a small JSON file.

import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as breathe } from "node:timers/promises";
import type { DataSet, FilePart } from "../dataset/dataset.ts";
import type { ScriptContext } from "../task/ops/script.ts";
import { checksumOf } from "./checksum.ts";
import { Dealer } from "./deal.ts";
import { duckdbOrder } from "./duckdb-order.ts";
import { gatherRecords, recordOrder } from "./order.ts";
import {
  eachBlock,
  readRecords,
  readSome,
  recordFiles,
  recordPart,
  recordsIn,
  writeFully,
} from "./record-files.ts";
import { type RecordFormat, RecordGenerator, recordBytes } from "./records.ts";
import { choosePoints, SplitPoints } from "./splits.ts";
import { SortValidator } from "./validate.ts";

/** What finds the order of a partition. */
export type SortEngine = "radix" | "duckdb";

/** Records that are generated, read or written at once. */
const blockRecords = 40_000;

const partsOf = (data: DataSet | undefined): readonly FilePart[] => data?.parts ?? [];

function writeFacts(folder: string, facts: unknown): DataSet {
  const path = join(folder, "facts.json");
  const text = JSON.stringify(facts);
  writeFileSync(path, text);
  return { format: "files", parts: [{ path, bytes: text.length }] };
}

/** What a step wrote down besides records. */
export function readFacts<T>(data: DataSet): T {
  return JSON.parse(readFileSync(data.parts[0]?.path ?? "", "utf8")) as T;
}

/** Writes one file through a buffer that `fill` fills, block after block. */
async function writeBlocks(
  path: string,
  records: number,
  fill: (target: Uint8Array, first: number) => void,
): Promise<FilePart> {
  const block = Buffer.allocUnsafeSlow(Math.min(blockRecords, records) * recordBytes);
  const fd = openSync(path, "wx");
  try {
    for (let first = 0; first < records; first += blockRecords) {
      const count = Math.min(blockRecords, records - first);
      const piece = block.subarray(0, count * recordBytes);
      fill(piece, first);
      writeFully(fd, piece);
      await breathe();
    }
  } finally {
    closeSync(fd);
  }
  return recordPart(path, records * recordBytes);
}

/** Outputs: records `first` on, and their checksum. */
export async function generate(
  { folder }: ScriptContext,
  options: {
    readonly format: RecordFormat;
    readonly skewed: boolean;
    readonly first: number;
    readonly records: number;
  },
): Promise<readonly DataSet[]> {
  const generator = new RecordGenerator(options);
  let checksum = 0n;
  const part = await writeBlocks(join(folder, "0.records"), options.records, (target) => {
    generator.fill(target);
    checksum += checksumOf(target);
  });
  const facts = { records: options.records, checksum: checksum.toString(16) };
  return [recordFiles([part]), writeFacts(folder, facts)];
}

/** Output: whole records from all over the input, evenly far from each other. */
export function sample(
  { inputs, folder }: ScriptContext,
  { records }: { readonly records: number },
): readonly DataSet[] {
  const parts = partsOf(inputs[0]);
  const counts = parts.map(({ path, bytes }) => recordsIn(path, bytes ?? 0));
  const total = counts.reduce((sum, count) => sum + count, 0);
  const step = Math.max(1, total / records);
  const pieces: Uint8Array[] = [];
  let before = 0;
  let next = step / 2;
  for (const [i, { path }] of parts.entries()) {
    const count = counts[i] as number;
    const numbers: number[] = [];
    for (; Math.floor(next) < before + count; next += step) {
      numbers.push(Math.floor(next) - before);
    }
    before += count;
    pieces.push(readSome(path, numbers));
  }
  const path = join(folder, "sample.records");
  const bytes = Buffer.concat(pieces);
  writeFileSync(path, bytes);
  return [recordFiles([recordPart(path, bytes.length)])];
}

/** Output: partitions − 1 records between which the partitions lie. */
export function points(
  { inputs, folder }: ScriptContext,
  { partitions }: { readonly partitions: number },
): readonly DataSet[] {
  const chosen = choosePoints(readRecords(partsOf(inputs[0])), partitions);
  const path = join(folder, "points.records");
  writeFileSync(path, chosen);
  return [recordFiles([recordPart(path, chosen.length)])];
}

/** Outputs: the records of each partition. Inputs: records, split points. */
export async function deal({ inputs, folder, task }: ScriptContext): Promise<readonly DataSet[]> {
  const splits = new SplitPoints(readRecords(partsOf(inputs[1])));
  const dealer = new Dealer(folder, task.outputs);
  try {
    for (const part of partsOf(inputs[0])) {
      await eachBlock(part, (records) => dealer.add(records, splits));
    }
    return dealer.end().map((part) => recordFiles(part === undefined ? [] : [part]));
  } finally {
    dealer.close();
  }
}

/** Output: one file, sorted by all bytes of a record. */
export async function sort(
  { inputs, folder, connection }: ScriptContext,
  { engine }: { readonly engine: SortEngine },
): Promise<readonly DataSet[]> {
  const records = readRecords(partsOf(inputs[0]));
  await breathe();
  const order = engine === "duckdb" ? await duckdbOrder(records, connection) : recordOrder(records);
  await breathe();
  const count = records.length / recordBytes;
  const part = await writeBlocks(join(folder, "sorted.records"), count, (target, first) => {
    gatherRecords(records, order, first, target);
  });
  return [recordFiles([part])];
}

/** Output: a summary as JSON. */
export async function validate({ inputs, folder }: ScriptContext): Promise<readonly DataSet[]> {
  const validator = new SortValidator();
  for (const part of partsOf(inputs[0])) {
    await eachBlock(part, (records) => validator.add(records));
  }
  return [writeFacts(folder, validator.summary())];
}
