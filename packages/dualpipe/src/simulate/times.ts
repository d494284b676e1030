// How long operations take, as a user gives it (per stage, one number for all, a rule for
// overlapped pairs) and as the simulator reads it: one duration per row, a row being one stage of
// one direction. It knows nothing of transfers; they are in links.ts.

import { InputError } from "@open-infra/errors";
import type { Schedule } from "../schedule/schedule.ts";

/** One value for all stages, or one per stage of the model. */
export type StageValue = number | ArrayLike<number>;

/**
 * How long an overlapped forward–backward pair takes: a value (for all, or by the stage of its
 * forward half), a share of the sum of its two halves (1 hides nothing, 0.5 hides the shorter of
 * two equal halves whole), or a rule.
 */
export type PairTime =
  | StageValue
  | { readonly shareOfSum: number }
  | ((forwardStage: number, backwardStage: number) => number);

/** Durations of operations, in any one unit; results are in the same unit. */
export interface StageTimes {
  /** Forward. */
  readonly F: StageValue;
  /** Full backward. */
  readonly B: StageValue;
  /** Backward for the input. @default B − W */
  readonly I?: StageValue;
  /** Deferred gradients of the weights. @default B − I, or half of B where neither is given */
  readonly W?: StageValue;
  /** An overlapped pair. @default F + B of its halves: nothing is hidden */
  readonly FB?: PairTime;
  /** What each rank's durations are multiplied by; a slow rank has more than 1. @default 1 each */
  readonly rankSlowdown?: ArrayLike<number>;
}

/** Durations of single operations: `[rank][index]`; NaN where there is none. */
export type OpDurations = readonly ArrayLike<number>[];

/** The duration of one operation: its own where there is one, else `fallback`. */
export function durationOf(
  durations: OpDurations | undefined,
  rank: number,
  index: number,
  fallback: number,
): number {
  const own = durations?.[rank]?.[index];
  if (own === undefined || Number.isNaN(own)) return fallback;
  return checkDuration(`durations[${rank}][${index}]`, own);
}

/** Durations by row; a row is `direction * numStages + stage`. */
export interface RowTimes {
  readonly F: Float64Array;
  readonly B: Float64Array;
  readonly I: Float64Array;
  readonly W: Float64Array;
  /** Duration of a pair whose halves are of these rows. */
  pair(forwardRow: number, backwardRow: number): number;
}

/** @throws InputError unless `value` is a finite number from 0. */
export function checkDuration(parameter: string, value: number): number {
  if (typeof value !== "number" || !(value >= 0 && value < Number.POSITIVE_INFINITY)) {
    throw new InputError(parameter, String(value), "a finite number from 0");
  }
  return value;
}

/** One number per stage, checked. */
export function stageValues(parameter: string, value: StageValue, numStages: number): Float64Array {
  if (typeof value === "number") {
    return new Float64Array(numStages).fill(checkDuration(parameter, value));
  }
  if (value === null || typeof value !== "object" || typeof value.length !== "number") {
    throw new InputError(parameter, String(value), "a number, or one number per stage");
  }
  if (value.length !== numStages) {
    throw new InputError(`${parameter}.length`, String(value.length), `${numStages} stages`);
  }
  return Float64Array.from({ length: numStages }, (_, stage) =>
    checkDuration(`${parameter}[${stage}]`, value[stage] as number),
  );
}

/** The two parts of the backward; given, or what the other leaves of the whole. */
function splitBackward(times: StageTimes, B: Float64Array): { I: Float64Array; W: Float64Array } {
  const numStages = B.length;
  const rest = (name: "I" | "W", part: Float64Array): Float64Array =>
    B.map((whole, stage) => {
      const left = whole - (part[stage] as number);
      if (left >= 0) return left;
      const got = String(part[stage]);
      throw new InputError(`times.${name}[${stage}]`, got, `at most times.B[${stage}], ${whole}`);
    });
  if (times.W !== undefined) {
    const W = stageValues("times.W", times.W, numStages);
    const I = times.I === undefined ? rest("W", W) : stageValues("times.I", times.I, numStages);
    return { I, W };
  }
  if (times.I === undefined) return { I: B.map((whole) => whole / 2), W: B.map((b) => b / 2) };
  const I = stageValues("times.I", times.I, numStages);
  return { I, W: rest("I", I) };
}

type PairRule = (forwardStage: number, backwardStage: number) => number;

function pairRule(FB: PairTime | undefined, F: Float64Array, B: Float64Array): PairRule {
  const sum: PairRule = (f, b) => (F[f] as number) + (B[b] as number);
  if (FB === undefined) return sum;
  if (typeof FB === "function") {
    return (f, b) => checkDuration(`times.FB(${f}, ${b})`, FB(f, b));
  }
  if (typeof FB === "object" && FB !== null && "shareOfSum" in FB) {
    const share = checkDuration("times.FB.shareOfSum", FB.shareOfSum);
    return (f, b) => share * sum(f, b);
  }
  const values = stageValues("times.FB", FB, F.length);
  return (f) => values[f] as number;
}

/** Factor of each rank, checked; all 1 where none are given. */
function slowdowns({ rankSlowdown }: StageTimes, numRanks: number): Float64Array {
  if (rankSlowdown === undefined) return new Float64Array(numRanks).fill(1);
  if (rankSlowdown.length !== numRanks) {
    throw new InputError(
      "times.rankSlowdown.length",
      `${rankSlowdown.length}`,
      `${numRanks} ranks`,
    );
  }
  return Float64Array.from({ length: numRanks }, (_, rank) =>
    checkDuration(`times.rankSlowdown[${rank}]`, rankSlowdown[rank] as number),
  );
}

/**
 * Durations of a schedule's operations by row.
 *
 * @throws InputError that names the stage whose duration is missing, negative or not finite.
 */
export function resolveTimes(schedule: Schedule, times: StageTimes): RowTimes {
  const { numStages, numDirections, rankOf } = schedule;
  const F = stageValues("times.F", times.F, numStages);
  const B = stageValues("times.B", times.B, numStages);
  const { I, W } = splitBackward(times, B);
  const pair = pairRule(times.FB, F, B);
  const slow = slowdowns(times, schedule.numRanks);
  const factor = (row: number): number => slow[rankOf[row] as number] as number;
  const byRow = (values: Float64Array): Float64Array =>
    Float64Array.from(
      { length: numStages * numDirections },
      (_, row) => (values[row % numStages] as number) * factor(row),
    );
  return {
    F: byRow(F),
    B: byRow(B),
    I: byRow(I),
    W: byRow(W),
    pair: (f, b) => pair(f % numStages, b % numStages) * factor(f),
  };
}
