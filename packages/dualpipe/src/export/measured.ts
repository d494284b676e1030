// What a recorded run says of a schedule: how long each operation took, so that the simulator can
// be fed with measured times, and how the measured step compares with the simulated one. Reads
// spans as the executor and `toChromeTrace` write them; knows no file format but theirs.

import { InfraError } from "@open-infra/errors";
import type { TraceEvent } from "@open-infra/profile";
import {
  type Op,
  OpKind,
  type OpKindName,
  opAt,
  opKindNames,
  type Schedule,
} from "../schedule/schedule.ts";
import {
  type RankTimeline,
  type SimulateOptions,
  type SimulationResult,
  simulate,
} from "../simulate/simulate.ts";
import type { StageTimes } from "../simulate/times.ts";

/** The trace does not hold the run of this schedule. */
export class TraceMismatchError extends InfraError {
  constructor(message: string) {
    super("trace", message);
  }
}

/** One measured step; times in µs from its first start. */
export interface MeasuredStep {
  readonly makespan: number;
  /** Start and end of each operation, NaN for transfers: `[rank]`. */
  readonly timeline: readonly RankTimeline[];
  readonly busy: Float64Array;
  readonly idle: Float64Array;
}

/** What a trace says. */
export interface MeasuredRun {
  readonly numSteps: number;
  /** Medians over steps and micro-batches by stage, µs; for `simulate`. */
  readonly times: StageTimes;
  /** Medians over steps by operation, µs; for `SimulateOptions.durations`. NaN for transfers. */
  readonly durations: readonly Float64Array[];
  readonly steps: readonly MeasuredStep[];
}

/** A trace as a recorder or the file has it. */
export type TraceInput = readonly TraceEvent[] | { readonly traceEvents: readonly TraceEvent[] };

/** Median of numbers; NaN of none. */
function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[middle] as number;
  return ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** Lanes named `rank N`, by process and thread. */
function rankLanes(events: readonly TraceEvent[]): Map<string, number> {
  const lanes = new Map<string, number>();
  for (const { ph, name, pid, tid, args } of events) {
    if (ph !== "M" || name !== "thread_name") continue;
    const match = /^rank (\d+)$/.exec(String(args?.name));
    if (match?.[1] !== undefined) lanes.set(`${pid} ${tid}`, Number(match[1]));
  }
  return lanes;
}

interface Span {
  readonly start: number;
  readonly end: number;
  /** Time at work; for a pair run as two operations, without what lies between them. */
  readonly duration: number;
}

const cellKey = (
  rank: number,
  kind: string,
  direction: unknown,
  stage: unknown,
  mb: unknown,
): string => `${rank} ${kind} ${direction} ${stage} ${mb}`;

/** Spans of computations by operation, each list in the order of time: one entry a step. */
function spansByOperation(events: readonly TraceEvent[]): Map<string, Span[]> {
  const lanes = rankLanes(events);
  const spans = new Map<string, Span[]>();
  for (const { ph, name, pid, tid, ts, dur, args } of events) {
    if (ph !== "X" || args === undefined || !opKindNames.includes(name as OpKindName)) continue;
    const rank = lanes.get(`${pid} ${tid}`);
    if (rank === undefined || OpKind[name as OpKindName] > OpKind.FB) continue;
    const key = cellKey(rank, name, args.direction, args.stage, args.microBatch);
    const list = spans.get(key) ?? [];
    list.push({ start: ts, end: ts + (dur ?? 0), duration: dur ?? 0 });
    spans.set(key, list);
  }
  for (const list of spans.values()) list.sort((a, b) => a.start - b.start);
  return spans;
}

/** Spans of one operation; a pair without overlap was run as an F and then a B. */
function spansOf(spans: ReadonlyMap<string, Span[]>, rank: number, op: Op): readonly Span[] {
  const of = (kind: string, { direction, stage, microBatch }: Omit<Op, "kind" | "phase">) =>
    spans.get(cellKey(rank, kind, direction, stage, microBatch)) ?? [];
  const found = of(op.kind, op);
  if (found.length > 0 || op.pair === undefined) return found;
  const backwards = of("B", op.pair);
  return of("F", op).flatMap((forward, step) => {
    const backward = backwards[step];
    if (backward === undefined) return [];
    const duration = forward.duration + backward.duration;
    return { start: forward.start, end: backward.end, duration };
  });
}

/** Spans of each computation, `[rank][index][step]`; all operations the same number of times. */
function matchSpans(
  schedule: Schedule,
  events: readonly TraceEvent[],
): readonly (readonly (readonly Span[])[])[] {
  const spans = spansByOperation(events);
  let numSteps = -1;
  return schedule.ranks.map((ops, rank) =>
    Array.from({ length: ops.length }, (_, index) => {
      const op = opAt(ops, index);
      if (OpKind[op.kind] > OpKind.FB) return [];
      const found = spansOf(spans, rank, op);
      if (numSteps < 0) numSteps = found.length;
      if (found.length === numSteps && numSteps > 0) return found;
      const place = `direction ${op.direction}, stage ${op.stage}, micro-batch ${op.microBatch}`;
      const expected = numSteps > 0 ? `${numSteps}, as for the operations before it` : "some";
      throw new TraceMismatchError(
        `the trace has ${found.length} spans of ${op.kind} of ${place} on "rank ${rank}"; ` +
          `expected ${expected}`,
      );
    }),
  );
}

function stepOf(
  schedule: Schedule,
  spans: readonly (readonly (readonly Span[])[])[],
  step: number,
): MeasuredStep {
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  const busy = new Float64Array(schedule.numRanks);
  spans.forEach((ops, rank) => {
    for (const of of ops) {
      const span = of[step];
      if (span === undefined) continue;
      first = Math.min(first, span.start);
      last = Math.max(last, span.end);
      busy[rank] = (busy[rank] as number) + span.duration;
    }
  });
  const timeline = spans.map((ops) => ({
    start: Float64Array.from(ops, (of) => (of[step]?.start ?? Number.NaN) - first),
    end: Float64Array.from(ops, (of) => (of[step]?.end ?? Number.NaN) - first),
  }));
  const makespan = last - first;
  return { makespan, timeline, busy, idle: busy.map((time) => makespan - time) };
}

type Samples = Record<"F" | "B" | "I" | "W" | "FB", number[][]>;

function samplesByStage(schedule: Schedule, durations: readonly Float64Array[]): Samples {
  const empty = (): number[][] => Array.from({ length: schedule.numStages }, () => []);
  const samples: Samples = { F: empty(), B: empty(), I: empty(), W: empty(), FB: empty() };
  schedule.ranks.forEach((ops, rank) => {
    for (let i = 0; i < ops.length; i++) {
      const kind = ops.kind[i] as number;
      if (kind > OpKind.FB) continue;
      const of = samples[opKindNames[kind] as keyof Samples][ops.stage[i] as number] as number[];
      of.push(durations[rank]?.[i] as number);
    }
  });
  return samples;
}

/** Medians by stage; a kind a stage never ran follows from the others, as `StageTimes` has it. */
function stageTimes(schedule: Schedule, durations: readonly Float64Array[]): StageTimes {
  const samples = samplesByStage(schedule, durations);
  const of = (kind: keyof Samples): number[] => samples[kind].map(median);
  const [F, B, I, W, FB] = [of("F"), of("B"), of("I"), of("W"), of("FB")];
  const known = (...values: readonly number[]): number =>
    values.find((value) => !Number.isNaN(value)) ?? 0;
  // A stage that only ran in pairs: half the pair for each half is the best that is known.
  const forward = F.map((value, stage) => known(value, (FB[stage] as number) / 2));
  const backward = B.map((value, stage) =>
    known(value, (I[stage] as number) + (W[stage] as number), (FB[stage] as number) / 2),
  );
  const weight = W.map((value, stage) =>
    known(value, Math.max(0, (backward[stage] as number) - (I[stage] as number))),
  );
  const input = I.map((value, stage) =>
    known(value, Math.max(0, (backward[stage] as number) - (weight[stage] as number))),
  );
  const pair = FB.map((value, stage) =>
    known(value, (forward[stage] as number) + (backward[stage] as number)),
  );
  return { F: forward, B: backward, I: input, W: weight, FB: pair };
}

/**
 * Measured times of a recorded run of `schedule`: spans named `F`, `B`, `I`, `W`, `FB` with the
 * arguments `direction`, `stage` and `microBatch` on lanes named `rank N`. An overlapped pair may
 * be recorded as an F and a B, which is how stages without an overlapped version run it. A trace of
 * several steps has each operation several times.
 *
 * @throws TraceMismatchError if an operation is missing, or recorded more often than another.
 */
export function measuredRun(schedule: Schedule, trace: TraceInput): MeasuredRun {
  const events = "traceEvents" in trace ? trace.traceEvents : trace;
  const spans = matchSpans(schedule, events);
  const durations = spans.map((ops) =>
    Float64Array.from(ops, (of) => median(of.map(({ duration }) => duration))),
  );
  const numSteps = Math.max(0, ...spans.flatMap((ops) => ops.map((of) => of.length)));
  const steps = Array.from({ length: numSteps }, (_, step) => stepOf(schedule, spans, step));
  return { numSteps, times: stageTimes(schedule, durations), durations, steps };
}

/** A measured run beside its simulation with the same durations. */
export interface Comparison {
  readonly measured: MeasuredRun;
  /** Median makespan of the measured steps, µs. */
  readonly measuredMakespan: number;
  /** Simulated with the measured duration of each operation. */
  readonly simulated: SimulationResult;
  /**
   * Measured over simulated makespan. What is above 1 is neither computation nor dependency:
   * transfers not simulated, waiting for messages, the host between operations. It may be a little
   * below 1 where pairs were run as an F and a B, which hand on the forward's result earlier.
   */
  readonly ratio: number;
}

/**
 * Compares a recorded run with the simulation of the same operations at their measured durations.
 */
export function compareWithTrace(
  schedule: Schedule,
  trace: TraceInput,
  options: Omit<SimulateOptions, "durations"> = {},
): Comparison {
  const measured = measuredRun(schedule, trace);
  const simulated = simulate(schedule, measured.times, {
    ...options,
    durations: measured.durations,
  });
  const measuredMakespan = median(measured.steps.map(({ makespan }) => makespan));
  return { measured, measuredMakespan, simulated, ratio: measuredMakespan / simulated.makespan };
}

/** Measured times of stages alone; see `measuredRun`. */
export function timesFromTrace(schedule: Schedule, trace: TraceInput): StageTimes {
  return measuredRun(schedule, trace).times;
}
