// Checks a schedule of any origin: is all work there once and on its rank, does nothing wait for
// itself, does it fit the memory? Linear in the operations, with flat arrays only.

import { type HeldUntil, type PeakActivations, peakActivations } from "../activations.ts";
import type { Schedule } from "../schedule.ts";
import { ScheduleError } from "../schedule-error.ts";
import { checkShape, checkStructure } from "./structure.ts";
import { type Violation, Violations } from "./violations.ts";
import { checkDeadlock, type Reading } from "./walk.ts";

/** What `validateSchedule` takes. */
export interface ValidateOptions {
  /**
   * The most micro-batches a rank may hold at once, each counted once a stage: one number for all
   * ranks or one a rank. Default: any.
   */
  readonly memoryLimit?: number | readonly number[];
  /** What ends a micro-batch's life for `memoryLimit`; default `backward`. */
  readonly heldUntil?: HeldUntil;
  /** Expects forwards only, as in inference. Default false. */
  readonly forwardOnly?: boolean;
  /** Violations to list; others are only counted. Default 100. */
  readonly violationsMax?: number;
}

/** What `validateSchedule` found. */
export interface ValidationReport {
  /** Whether nothing is wrong. */
  readonly ok: boolean;
  readonly violations: readonly Violation[];
  /** Violations beyond those listed. */
  readonly omitted: number;
  /**
   * The readings in which it was run. Both if it has communication, dataflow alone if not, and none
   * if its structure is too broken to run.
   */
  readonly readings: readonly Reading[];
  readonly peakActivations: PeakActivations;
}

function checkMemory(
  peaks: PeakActivations,
  options: ValidateOptions,
  found: Violations,
  numRanks: number,
): void {
  const { memoryLimit, heldUntil = "backward" } = options;
  if (memoryLimit === undefined) return;
  const held = heldUntil === "backward" ? peaks.untilBackward : peaks.untilWeight;
  for (let rank = 0; rank < numRanks; rank++) {
    const limit = typeof memoryLimit === "number" ? memoryLimit : memoryLimit[rank];
    const peak = held[rank] as number;
    if (limit === undefined) {
      found.of(
        "memory",
        rank,
        `memoryLimit has ${(memoryLimit as []).length} entries, none for it`,
      );
    } else if (!(peak <= limit)) {
      const what = `holds ${peak} micro-batches until their ${heldUntil} at once`;
      found.of("memory", rank, `${what}; the limit is ${limit}`);
    }
  }
}

/**
 * Everything that is wrong with a schedule. Structure comes first; only if it is sound are the
 * ranks run, in dataflow and, where the schedule has communication, in rendezvous order.
 */
export function validateSchedule(
  schedule: Schedule,
  options: ValidateOptions = {},
): ValidationReport {
  const found = new Violations(schedule, options.violationsMax ?? 100);
  let readings: readonly Reading[] = [];
  const peaks = peakActivations(schedule);
  if (checkShape(schedule, found)) {
    checkStructure(schedule, found, { forwardOnly: options.forwardOnly ?? false });
    // A W out of turn stops nobody; anything else leaves ranks that wait for what never comes.
    if (found.list.every(({ code }) => code === "fifo") && found.omitted === 0) {
      readings = checkDeadlock(schedule, found);
    }
    checkMemory(peaks, options, found, schedule.numRanks);
  }
  const { list, omitted } = found;
  const ok = list.length === 0 && omitted === 0;
  return { ok, violations: list, omitted, readings, peakActivations: peaks };
}

/**
 * Returns if a schedule is valid.
 *
 * @throws ScheduleError with the first violation and their number.
 */
export function assertValidSchedule(schedule: Schedule, options: ValidateOptions = {}): void {
  const { violations, omitted } = validateSchedule(schedule, options);
  const [first] = violations;
  if (first === undefined) return;
  const others = violations.length - 1 + omitted;
  const rest = others === 0 ? "" : ` (and ${others} more violations)`;
  throw new ScheduleError(`${first.message}${rest}`, first.rank, first.position);
}
