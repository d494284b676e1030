// All builders by name, for the command, the planner and the console.

import { InputError } from "@open-infra/errors";
import { dualPipe, dualPipeV } from "./dualpipe.ts";
import { type InterleavedOptions, interleaved1F1B, oneFOneB } from "./one-f-one-b.ts";
import type { ScheduleOptions } from "./options.ts";
import type { Schedule, ScheduleName } from "./schedule.ts";
import { zb1p, zbv } from "./zero-bubble.ts";

/** Names that `buildSchedule` takes: every schedule but a custom one. */
export type BuiltInName = Exclude<ScheduleName, "custom">;

/** What `buildSchedule` takes: the options of all builders; each uses its own. */
export type BuildOptions = ScheduleOptions & InterleavedOptions;

const builders: Readonly<Record<BuiltInName, (options: BuildOptions) => Schedule>> = {
  "1f1b": oneFOneB,
  "interleaved-1f1b": interleaved1F1B,
  zb1p,
  zbv,
  dualpipe: dualPipe,
  dualpipev: dualPipeV,
};

/** The names, in the order of the papers. */
export const builtInNames: readonly BuiltInName[] = Object.keys(builders) as BuiltInName[];

/** Whether `name` is one of `builtInNames`. */
export function isBuiltInName(name: string): name is BuiltInName {
  return Object.hasOwn(builders, name);
}

/**
 * Builds a schedule by name, without communication; `withCommunication` adds that.
 *
 * @throws InputError for an unknown name, for `chunksPerRank` with a schedule that is not the
 *   interleaved, and where the builder does.
 */
export function buildSchedule(name: BuiltInName, options: BuildOptions): Schedule {
  if (!isBuiltInName(name)) {
    throw new InputError("schedule", String(name), `one of ${builtInNames.join(", ")}`);
  }
  if (options.chunksPerRank !== undefined && name !== "interleaved-1f1b") {
    const allowed = "none: only interleaved-1f1b takes it";
    throw new InputError("chunksPerRank", `${options.chunksPerRank} for ${name}`, allowed);
  }
  return builders[name](options);
}
