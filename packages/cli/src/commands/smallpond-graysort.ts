// `open-infra smallpond graysort`: the sort benchmark from records to validated parts.

import { type GraysortOptions, type GraysortReport, graysort } from "@open-infra/smallpond";
import { type CliContext, note, printJson, printLine } from "../context.ts";
import { flagMap, inTermsOf } from "../flag-names.ts";
import { formatBytes } from "../progress.ts";
import { formatNumber, formatTable } from "../table.ts";

interface Flags {
  readonly size?: number;
  readonly input?: string;
  readonly format: "binary" | "ascii";
  readonly skewed: boolean;
  readonly partitions?: number;
  readonly executors?: number;
  readonly engine: "radix" | "duckdb";
  readonly output?: string;
  readonly validate: boolean;
  readonly compare: boolean;
  readonly dataRoot?: string;
  readonly json: boolean;
}

const terms = {
  flags: flagMap(["input", "format", "partitions", "executors", "engine", "output"], {
    sizeBytes: "--size",
    compareWithSort: "--compare",
  }),
};

export default async function sortBench(this: CliContext, flags: Flags): Promise<void> {
  const { size, input, partitions, executors, output, dataRoot } = flags;
  const report = await sorted({
    ...(size !== undefined && { sizeBytes: size }),
    ...(input !== undefined && { input }),
    ...(partitions !== undefined && { partitions }),
    ...(executors !== undefined && { executors }),
    ...(output !== undefined && { output }),
    ...(dataRoot !== undefined && { session: { dataRoot } }),
    format: flags.format,
    skewed: flags.skewed,
    engine: flags.engine,
    validate: flags.validate,
    compareWithSort: flags.compare,
    onSession: (session) => {
      if (!flags.json) note(this, `smallpond: job ${session.jobId} in ${session.folder.root}`);
    },
  });
  if (flags.json) printJson(this, report);
  else {
    const rate = (seconds: number): string => `${formatBytes(report.bytes / seconds)}/s`;
    const { generate, sort, validate } = report.seconds;
    const rows = [
      ...(size === undefined ? [] : [["generate", generate.toFixed(2), rate(generate)]]),
      ["sort", sort.toFixed(2), rate(sort)],
      ...(flags.validate ? [["validate", validate.toFixed(2), rate(validate)]] : []),
    ];
    printLine(this, `${formatNumber(report.records)} records, ${formatBytes(report.bytes)}`);
    for (const line of formatTable(["", ">seconds", ">rate"], rows)) printLine(this, line);
    printLine(this, `${report.partitions} parts, the largest ${report.skew.toFixed(2)}× the mean`);
    for (const line of verdict(report)) printLine(this, line);
  }
  if (report.valid === false) this.process.exitCode = 1;
}

/** Its complaints in the words of the flags. */
async function sorted(options: GraysortOptions): Promise<GraysortReport> {
  try {
    return await graysort(options);
  } catch (error) {
    return inTermsOf(terms, () => {
      throw error;
    });
  }
}

function verdict({ summary, inputChecksum, valid, gnuSort, seconds }: GraysortReport): string[] {
  const lines: string[] = [];
  if (summary !== undefined) {
    const { inversions, duplicateKeys, checksum } = summary;
    lines.push(
      `${valid ? "valid" : "NOT VALID"}: ${formatNumber(inversions)} records out of order, ` +
        `${formatNumber(duplicateKeys)} duplicate keys, ` +
        `checksum ${checksum} (input ${inputChecksum})`,
    );
  }
  if (gnuSort !== undefined) {
    const ratio = (gnuSort.seconds / seconds.sort).toFixed(2);
    const same = gnuSort.equal ? "the same bytes" : "OTHER BYTES";
    lines.push(`GNU sort: ${gnuSort.seconds.toFixed(2)} s, ${ratio}× ours, ${same}`);
  }
  return lines;
}
