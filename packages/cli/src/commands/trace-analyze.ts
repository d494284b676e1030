// `open-infra trace analyze`: where a trace's time goes.

import { analyzeTrace } from "@open-infra/profile/analyze";
import { type CliContext, printJson, printLine } from "../context.ts";
import { UsageError } from "../parse.ts";
import { classifierOf, nameOf, openTrace } from "../trace-file.ts";
import { analysisReport } from "../trace-report.ts";

interface Flags {
  readonly rules?: string;
  readonly top?: number;
  readonly device?: readonly string[];
  readonly fromUs?: number;
  readonly toUs?: number;
  readonly kernelWaitUs: number;
  readonly tolerant: boolean;
  readonly json: boolean;
}

/** Kernel names that fit on a screen beside the rest. */
const TOP_OF_REPORT = 8;

export default async function traceAnalyze(
  this: CliContext,
  flags: Flags,
  file: string,
): Promise<void> {
  const { fromUs, toUs } = flags;
  if (fromUs !== undefined && toUs !== undefined && fromUs >= toUs) {
    throw new UsageError(`--from-us ${fromUs} is not before --to-us ${toUs}`);
  }
  const classifier = await classifierOf(this, flags.rules);
  const table = await openTrace(this, file, { tolerant: flags.tolerant });
  const top = flags.top ?? (flags.json ? undefined : TOP_OF_REPORT);
  const analysis = analyzeTrace(table, {
    classifier,
    kernelWaitThresholdUs: flags.kernelWaitUs,
    selection: {
      ...(fromUs !== undefined && { startUs: fromUs }),
      ...(toUs !== undefined && { endUs: toUs }),
      ...(flags.device && { devices: flags.device }),
    },
    ...(top !== undefined && { topK: top }),
  });
  if (flags.device && analysis.devices.length === 0) {
    const pids = [...new Set(table.lanes.map(({ pid }) => pid))].join(", ");
    throw new UsageError(`nothing ran on --device ${flags.device.join(", ")}; pids are ${pids}`);
  }
  if (flags.json) printJson(this, analysis);
  else for (const line of analysisReport(nameOf(file), analysis)) printLine(this, line);
}
