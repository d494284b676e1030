// From the flags that dualpipe's commands share to a schedule: built by name or read from a file.

import { readFileSync } from "node:fs";
import {
  type BuiltInName,
  buildSchedule,
  type Schedule,
  scheduleFromJson,
} from "@open-infra/dualpipe";
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

function readSchedule(file: string): Schedule {
  const name = file === "-" ? "standard input" : file;
  let document: unknown;
  try {
    document = JSON.parse(readFileSync(file === "-" ? 0 : file, "utf8"));
  } catch (error) {
    throw new UsageError(`cannot read ${name} as JSON: ${(error as Error).message}`);
  }
  return scheduleFromJson(document);
}

/**
 * The schedule that the flags ask for.
 *
 * @throws UsageError for flags that contradict each other or a file that is no JSON.
 * @throws InputError for counts that the schedule does not take, or a document that is no schedule.
 */
export function scheduleOf(flags: ScheduleFlags): Schedule {
  const { schedule = "dualpipe", numRanks, numMicroBatches, chunksPerRank, allowPartial } = flags;
  if (flags.file !== undefined) {
    const built = [flags.schedule, numRanks, numMicroBatches, chunksPerRank];
    if (built.some((value) => value !== undefined)) {
      throw new UsageError("--file brings a whole schedule: give it without flags that build one");
    }
    return readSchedule(flags.file);
  }
  if (numRanks === undefined || numMicroBatches === undefined) {
    throw new UsageError("give --num-ranks N and --num-micro-batches N, or --file FILE");
  }
  return buildSchedule(schedule, {
    numRanks,
    numMicroBatches,
    allowPartial,
    ...(chunksPerRank !== undefined && { chunksPerRank }),
  });
}
