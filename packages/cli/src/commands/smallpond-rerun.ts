// `open-infra smallpond rerun`: one task of a job alone, with what DuckDB did in it.

import { findJob, rerunTask } from "@open-infra/smallpond";
import { type CliContext, printJson, printLine } from "../context.ts";
import { dataRootOf } from "../smallpond-jobs.ts";
import { formatNumber } from "../table.ts";

interface Flags {
  readonly job: string;
  readonly dataRoot?: string;
  readonly output?: string;
  readonly memory?: number;
  readonly json: boolean;
}

export default async function rerun(this: CliContext, flags: Flags, task: string): Promise<void> {
  const jobRoot = await findJob(flags.job, dataRootOf(flags, this));
  const report = await rerunTask({
    ...{ jobRoot, task },
    ...(flags.output !== undefined && { output: flags.output }),
    ...(flags.memory !== undefined && { memoryBytes: flags.memory }),
  });
  if (flags.json) {
    printJson(this, report);
    return;
  }
  const { op, node, key, partition, inputs } = report.task;
  const where = Object.entries(partition).map(([name, index]) => ` ${name}=${index}`);
  printLine(this, `${node}${where.join("")}  ${key}`);
  const rows = (n: number | undefined): string => (n === undefined ? "?" : formatNumber(n));
  printLine(this, `inputs   ${inputs.length}, ${rows(report.inputRows)} rows`);
  printLine(this, `outputs  ${report.outputs.length}, ${rows(report.outputRows)} rows`);
  printLine(this, `took     ${report.elapsedMs.toFixed(1)} ms`);
  printLine(this, `files    ${report.output}`);
  printLine(this);
  if (op.kind === "sql") for (const query of op.queries) printLine(this, query);
  else printLine(this, JSON.stringify(op));
  if (report.profile !== undefined) printLine(this, `\n${report.profile.trimEnd()}`);
}
