// From the flags that dualpipe's commands share to a schedule: built by name or read from a file.

import {
  type BuiltInName,
  buildSchedule,
  type Schedule,
  scheduleFromJson,
} from "@open-infra/dualpipe";
import type { CliContext } from "./context.ts";
import { flagMap, inTermsOf } from "./flag-names.ts";
import { parseJson, readText } from "./json-input.ts";
import { UsageError } from "./parse.ts";

/** Values of `scheduleFlags` in routes/dualpipe.ts. */
export interface ScheduleFlags {
  readonly schedule?: BuiltInName;
  readonly numRanks?: number;
  readonly numMicroBatches?: number;
  readonly chunksPerRank?: number;
  readonly allowPartial: boolean;
  readonly file?: string;
}

/** The library's options and the flags that set them. */
export const dualpipeFlags: ReadonlyMap<string, string> = flagMap(
  [
    ...["numRanks", "numMicroBatches", "chunksPerRank", "allowPartial", "memoryLimit"],
    ...["activationLimit", "overlapShare", "overhead"],
  ],
  {
    memoryLimitBytes: "--memory-limit",
    pipelineDepths: "--pipeline-depth",
    "batch.tokens": "--batch-tokens",
    "batch.microBatchTokens": "--micro-batch-tokens",
    "batch.costTokens": "--cost-tokens",
    "times.F": "--time-f",
    "times.B": "--time-b",
    "times.I": "--time-i",
    "times.W": "--time-w",
    "times.FB": "--fb",
    "share.F": "--time-f",
    "share.B": "--time-b",
    "share.W": "--time-w",
    "share.parameterBytes": "--parameter-bytes",
    "share.activationBytes": "--activation-bytes",
    "share.weightGradBytes": "--weight-grad-bytes",
    "communication.latency": "--latency",
    "communication.bandwidth": "--bandwidth",
    "communication.bytes": "--bytes",
    "communication.exclusiveLinks": "--exclusive-links",
  },
);

async function readSchedule(context: CliContext, file: string): Promise<Schedule> {
  const input = await readText(context, file, "expected what dualpipe schedule --json prints");
  const document = parseJson(input);
  const files = { "": input.name };
  return inTermsOf({ flags: dualpipeFlags, files }, () => scheduleFromJson(document));
}

/**
 * The schedule that the flags ask for.
 *
 * @throws UsageError for flags that contradict each other, counts that the schedule does not take,
 *   or a file that holds no schedule.
 */
export async function scheduleOf(context: CliContext, flags: ScheduleFlags): Promise<Schedule> {
  const { schedule = "dualpipe", numRanks, numMicroBatches, chunksPerRank, allowPartial } = flags;
  if (flags.file !== undefined) {
    const built = [flags.schedule, numRanks, numMicroBatches, chunksPerRank];
    if (built.some((value) => value !== undefined)) {
      throw new UsageError("--file brings a whole schedule: give it without flags that build one");
    }
    return readSchedule(context, flags.file);
  }
  if (numRanks === undefined || numMicroBatches === undefined) {
    throw new UsageError("give --num-ranks N and --num-micro-batches N, or --file FILE");
  }
  return inTermsOf({ flags: dualpipeFlags }, () =>
    buildSchedule(schedule, {
      numRanks,
      numMicroBatches,
      allowPartial,
      ...(chunksPerRank !== undefined && { chunksPerRank }),
    }),
  );
}
