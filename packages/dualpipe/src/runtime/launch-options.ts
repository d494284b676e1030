// What `launchPipeline` takes, and how it is checked before any thread starts.

import { isAbsolute } from "node:path";
import { pathToFileURL } from "node:url";
import { InputError } from "@open-infra/errors";
import { type BuiltInName, buildSchedule, isBuiltInName } from "../schedule/build.ts";
import type { Schedule } from "../schedule/schedule.ts";
import { checkTimeout } from "./runner.ts";
import { packValue } from "./values.ts";

/** Builds the schedule for a number of micro-batches; runs on the host. */
export type ScheduleBuilder = (numMicroBatches: number) => Schedule;

/** A pipeline over threads: which stages, in which schedule. */
export interface LaunchOptions {
  readonly numRanks: number;
  /**
   * A built-in schedule, or a function. Where stages lie must not depend on the number of
   * micro-batches; a function is called with `2 · numRanks` to learn it.
   */
  readonly schedule: BuiltInName | ScheduleBuilder;
  /** For `interleaved-1f1b`: stages a rank. */
  readonly chunksPerRank?: number;
  /** Takes counts of micro-batches that the schedule itself does not. @default false */
  readonly allowPartial?: boolean;
  /**
   * URL of the module with the stages, loaded by every rank: `new URL("stage.ts",
   * import.meta.url)`.
   */
  readonly stageModule: URL | string;
  /**
   * Its export that makes a stage: `(options, { rank, direction, stage, numStages }) => Stage`, or
   * a promise of one. It is called once for each copy of a stage. @default "createStage"
   */
  readonly stageExport?: string;
  /** Its export that is the `Criterion`; needed to train. */
  readonly criterionExport?: string;
  /** Plain data and tensors, given to `stageExport`. @default {} */
  readonly stageOptions?: unknown;
  /** Dimension that inputs and labels are cut along. @default 0 */
  readonly batchDim?: number;
  /**
   * Longest that one operation, or the wait for one message, may take, milliseconds.
   * @default 600_000
   */
  readonly timeoutMs?: number;
  /** Longest that loading a rank's stages may take, milliseconds. @default 600_000 */
  readonly loadTimeoutMs?: number;
  /** Whether operations are recorded; see `Pipeline.trace`. @default false */
  readonly trace?: boolean;
  /** Ends the pipeline when aborted. */
  readonly signal?: AbortSignal;
}

/** The same, checked and complete. */
export interface CheckedLaunch {
  readonly numRanks: number;
  readonly build: ScheduleBuilder;
  readonly stageModule: string;
  readonly stageExport: string;
  readonly criterionExport: string | undefined;
  /** Packed. */
  readonly stageOptions: unknown;
  readonly batchDim: number;
  readonly timeoutMs: number;
  readonly loadTimeoutMs: number;
  readonly trace: boolean;
  readonly signal: AbortSignal | undefined;
}

function moduleUrl(stageModule: unknown): string {
  if (stageModule instanceof URL) return stageModule.href;
  const got = typeof stageModule === "string" ? `'${stageModule}'` : typeof stageModule;
  if (typeof stageModule === "string") {
    if (isAbsolute(stageModule)) return pathToFileURL(stageModule).href;
    if (URL.canParse(stageModule)) return stageModule;
  }
  const why = "functions cannot cross threads, so each rank loads the module itself";
  throw new InputError("stageModule", got, `the URL or absolute path of a module: ${why}`);
}

function exportName(parameter: string, name: unknown): string {
  if (typeof name === "string" && name !== "") return name;
  throw new InputError(parameter, typeof name, "the name of an export of stageModule");
}

function builderOf(options: LaunchOptions): ScheduleBuilder {
  const { schedule, numRanks, chunksPerRank, allowPartial } = options;
  if (typeof schedule === "function") return schedule;
  if (!isBuiltInName(schedule)) buildSchedule(schedule, { numRanks, numMicroBatches: numRanks });
  const more = {
    ...(chunksPerRank !== undefined && { chunksPerRank }),
    ...(allowPartial !== undefined && { allowPartial }),
  };
  return (numMicroBatches) => buildSchedule(schedule, { numRanks, numMicroBatches, ...more });
}

/** @throws InputError naming the option. */
export function checkLaunch(options: LaunchOptions): CheckedLaunch {
  const { numRanks, criterionExport, batchDim = 0 } = options;
  if (!Number.isSafeInteger(numRanks) || numRanks < 1) {
    throw new InputError("numRanks", String(numRanks), "a whole number of at least 1");
  }
  if (!Number.isSafeInteger(batchDim) || batchDim < 0) {
    throw new InputError("batchDim", String(batchDim), "a whole number of at least 0");
  }
  return {
    numRanks,
    build: builderOf(options),
    stageModule: moduleUrl(options.stageModule),
    stageExport: exportName("stageExport", options.stageExport ?? "createStage"),
    criterionExport:
      criterionExport === undefined ? undefined : exportName("criterionExport", criterionExport),
    stageOptions: packValue("stageOptions", options.stageOptions ?? {}),
    batchDim,
    timeoutMs: checkTimeout(options.timeoutMs),
    loadTimeoutMs: checkTimeout(options.loadTimeoutMs, "loadTimeoutMs"),
    trace: options.trace ?? false,
    signal: options.signal,
  };
}
