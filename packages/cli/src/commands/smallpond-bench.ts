// `open-infra smallpond bench …`: runs a benchmark program and prints its steps, rates and verdict.

import {
  type BenchmarkOptions,
  fileIo,
  fstest,
  hashPartition,
  urlsSort,
  type WrongPlace,
} from "@open-infra/smallpond";
import { type CliContext, note, printJson, printLine } from "../context.ts";
import { flagMap, inTermsOf } from "../flag-names.ts";
import { formatBytes } from "../progress.ts";
import { formatNumber, formatTable } from "../table.ts";

interface CommonFlags {
  readonly executors?: number;
  readonly dataRoot?: string;
  readonly json: boolean;
}

interface UrlFlags extends CommonFlags {
  readonly rows?: number;
  readonly seed?: number;
  readonly partitions?: number;
}

interface RowFlags extends UrlFlags {
  readonly input?: string;
}

interface PartitionFlags extends RowFlags {
  readonly columns?: readonly string[];
}

interface FileFlags extends CommonFlags {
  readonly folder?: string;
  readonly files?: number;
  readonly fileSize?: number;
  readonly blockSize?: number;
  readonly write: boolean;
  readonly keep: boolean;
  readonly seed?: number;
}

interface Report {
  readonly valid: boolean;
}

const own = ["rows", "seed", "partitions", "input", "columns", "executors", "write", "files"];
const terms = { flags: flagMap(own, { fileBytes: "--file-size", blockBytes: "--block-size" }) };
const timeHeads = [">seconds", ">MiB/s"];

const times = (step: { readonly seconds: number; readonly mibPerSecond: number }): string[] => [
  step.seconds.toFixed(2),
  step.mibPerSecond.toFixed(1),
];

/** Runs one; its complaints are in the words of the flags, and a wrong result has status 1. */
async function report<R extends Report>(
  context: CliContext,
  { json, dataRoot, executors }: CommonFlags,
  run: (options: BenchmarkOptions) => Promise<R>,
  print: (result: R) => void,
): Promise<void> {
  let result: R;
  try {
    result = await run({
      ...(executors !== undefined && { executors }),
      ...(dataRoot !== undefined && { session: { dataRoot } }),
      onSession: (session) => {
        if (!json) note(context, `smallpond: job ${session.jobId} in ${session.folder.root}`);
      },
    });
  } catch (error) {
    return inTermsOf(terms, () => {
      throw error;
    });
  }
  if (json) printJson(context, result);
  else {
    print(result);
    printLine(context, result.valid ? "valid" : "NOT VALID");
  }
  if (!result.valid) context.process.exitCode = 1;
}

function table(
  context: CliContext,
  heads: readonly string[],
  rows: readonly (readonly string[])[],
): void {
  for (const line of formatTable(
    [...heads],
    rows.map((row) => [...row]),
  ))
    printLine(context, line);
}

const sizeLine = (data: { readonly rows: number; readonly bytes: number }): string =>
  `${formatNumber(data.rows)} rows, ${formatBytes(data.bytes)} on disk`;

/** `file-io`. */
export async function fileIoBench(this: CliContext, flags: RowFlags): Promise<void> {
  const { executors, dataRoot, json, ...options } = flags;
  const run = (base: BenchmarkOptions) => fileIo({ ...base, ...options });
  await report(this, flags, run, (result) => {
    printLine(this, sizeLine(result));
    const rows = result.copies.map((copy) => [
      copy.way,
      ...times(copy),
      formatNumber(copy.rows),
      copy.equal ? "equal" : "OTHER ROWS",
    ]);
    table(this, ["copy", ...timeHeads, ">rows", ""], rows);
  });
}

/** `hash-partition`. */
export async function hashPartitionBench(this: CliContext, flags: PartitionFlags): Promise<void> {
  const { executors, dataRoot, json, ...options } = flags;
  const run = (base: BenchmarkOptions) => hashPartition({ ...base, ...options });
  await report(this, flags, run, (result) => {
    printLine(this, sizeLine(result));
    const rows = result.partitions.map((partition, i) => [
      `${i}`,
      formatNumber(partition.rows),
      formatNumber(partition.keys),
    ]);
    table(this, [">partition", ">rows", ">keys"], rows);
    const [seconds, rate] = times(result);
    printLine(this, `by ${result.columns.join(", ")} in ${seconds} s, ${rate} MiB/s`);
    printLine(
      this,
      `${formatNumber(result.keys)} keys, ${formatNumber(result.sharedKeys)} in several ` +
        `partitions; the largest partition ${result.skew.toFixed(2)}× the mean`,
    );
  });
}

/** `urls-sort`. */
export async function urlsSortBench(this: CliContext, flags: UrlFlags): Promise<void> {
  const { executors, dataRoot, json, ...options } = flags;
  const run = (base: BenchmarkOptions) => urlsSort({ ...base, ...options });
  await report(this, flags, run, (result) => {
    printLine(this, sizeLine(result));
    const rows = result.orders.map((order) => [
      order.order,
      ...times(order),
      formatNumber(order.inversions),
      order.sharedHosts === undefined ? "" : formatNumber(order.sharedHosts),
      order.valid ? "valid" : "NOT VALID",
    ]);
    table(this, ["sort", ...timeHeads, ">out of order", ">shared hosts", ""], rows);
  });
}

/** `fstest`. */
export async function fstestBench(this: CliContext, flags: FileFlags): Promise<void> {
  const { executors, dataRoot, json, fileSize, blockSize, ...options } = flags;
  const sizes = {
    ...(fileSize !== undefined && { fileBytes: fileSize }),
    ...(blockSize !== undefined && { blockBytes: blockSize }),
  };
  const run = (base: BenchmarkOptions) => fstest({ ...base, ...options, ...sizes });
  await report(this, flags, run, (result) => {
    const { files, folder, bytes, blockBytes, passes } = result;
    printLine(this, `${formatNumber(files)} files, ${formatBytes(bytes)}, in ${folder}`);
    const rows = passes.map((pass) => [pass.pass, ...times(pass), formatNumber(pass.wrongWords)]);
    table(this, [`blocks of ${formatBytes(blockBytes)}`, ...timeHeads, ">wrong words"], rows);
    const wrong = passes.find(({ firstWrong }) => firstWrong !== undefined)?.firstWrong;
    if (wrong !== undefined) printLine(this, wrongLine(wrong));
  });
}

function wrongLine({ file, byte, expected, got }: WrongPlace): string {
  const came = got === undefined ? "the file's end is not where it should be" : `got ${got}`;
  return `first wrong: ${file}, byte ${byte}: expected ${expected}, ${came}`;
}
