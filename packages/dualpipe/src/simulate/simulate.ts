// `simulate`: a schedule and the times of its operations in, makespan and everything that explains
// it out. This file puts the parts together; dataflow.ts and rendezvous.ts do the work.

import { InputError } from "@open-infra/errors";
import { OpKind, type Schedule } from "../schedule/schedule.ts";
import { type CriticalPath, criticalPath } from "./critical-path.ts";
import { runDataflow } from "./dataflow.ts";
import { findDeadlock } from "./deadlock.ts";
import { type Communication, resolveLinks } from "./links.ts";
import { type LowerBound, lowerBound } from "./lower-bound.ts";
import { type PeakMemory, peakMemory, type StageMemory } from "./memory.ts";
import { runRendezvous } from "./rendezvous.ts";
import { RunState } from "./run-state.ts";
import { type OpDurations, resolveTimes, type StageTimes } from "./times.ts";

/** How to simulate, and what to keep. */
export interface SimulateOptions {
  /**
   * `dataflow`: an operation starts when its rank is free and its inputs have arrived.
   * `rendezvous`: moreover every send and receive posted before it must have met its peer; needs a
   * schedule with communication. @default "dataflow"
   */
  readonly mode?: "dataflow" | "rendezvous";
  readonly communication?: Communication;
  /** Bytes of activations and parameters, for peaks in bytes. */
  readonly memory?: StageMemory;
  /** Keep start and end of every operation: 16 bytes each. @default true */
  readonly timeline?: boolean;
  /** Find the critical path: 24 bytes an operation while it runs. @default true */
  readonly criticalPath?: boolean;
  /**
   * Measured durations, one per operation of each rank, instead of those of `times`; an entry that
   * is NaN falls back to `times`. See `measuredTimes`.
   */
  readonly durations?: OpDurations;
}

/** When one rank's operations ran; transfers too (zero-width in dataflow mode). */
export interface RankTimeline {
  readonly start: Float64Array;
  readonly end: Float64Array;
}

/**
 * Where a rank stood idle. `warmUp`, `steady` and `coolDown` add up to `total`, and so do `byPhase`
 * and `afterEnd`.
 */
export interface RankIdle {
  readonly total: number;
  /** Before its first backward. */
  readonly warmUp: number;
  /** Between its first backward and its last forward. */
  readonly steady: number;
  /** After its last forward, up to the makespan. */
  readonly coolDown: number;
  /** `[p]`: waiting for an operation of the builder's phase `p`; 0 where it gave none. */
  readonly byPhase: readonly number[];
  /** After its last operation, up to the makespan; the rest of `byPhase`. */
  readonly afterEnd: number;
}

/** What a simulated step was like; times in the unit of the given times, arrays by rank. */
export interface SimulationResult {
  readonly makespan: number;
  readonly busy: Float64Array;
  /** `makespan − busy`. */
  readonly idle: Float64Array;
  readonly idleOf: readonly RankIdle[];
  /** Idle share of all ranks' time. */
  readonly bubbleShare: number;
  readonly peak: PeakMemory;
  /** No order of these operations is faster; `gap` is what lies between. */
  readonly lowerBound: LowerBound & { readonly gap: number };
  /** Computations simulated (transfers are not counted). */
  readonly numOperations: number;
  readonly timeline?: readonly RankTimeline[];
  readonly criticalPath?: CriticalPath;
}

function idleOf({ idle, busy }: RunState, makespan: number): RankIdle[] {
  const { numPhases } = idle;
  return Array.from(busy, (_, rank) => ({
    total: makespan - (busy[rank] as number),
    warmUp: idle.warmUp[rank] as number,
    steady: idle.steady[rank] as number,
    coolDown: idle.coolDown[rank] as number,
    byPhase: [...idle.byPhase.subarray(rank * numPhases, (rank + 1) * numPhases)],
    afterEnd: idle.afterEnd[rank] as number,
  }));
}

function countComputations(schedule: Schedule): number {
  if (!schedule.hasCommunication) {
    return schedule.ranks.reduce((sum, { length }) => sum + length, 0);
  }
  let count = 0;
  for (const { kind } of schedule.ranks) {
    for (let i = 0; i < kind.length; i++) if ((kind[i] as number) <= OpKind.FB) count++;
  }
  return count;
}

function checkMode(schedule: Schedule, { mode, communication }: SimulateOptions): void {
  if (mode === undefined || mode === "dataflow") return;
  if (mode !== "rendezvous") {
    throw new InputError("mode", String(mode), '"dataflow" or "rendezvous"');
  }
  if (!schedule.hasCommunication) {
    const allowed = "a schedule with sends and receives (withCommunication) for rendezvous";
    throw new InputError("schedule.hasCommunication", "false", allowed);
  }
  if (communication?.exclusiveLinks) {
    const allowed = "false in rendezvous mode: there the order of posting is what queues";
    throw new InputError("communication.exclusiveLinks", "true", allowed);
  }
}

/**
 * Simulates one step of a schedule. Time and memory are linear in its operations.
 *
 * @throws InputError for times, links or operations that cannot be.
 * @throws DeadlockError if ranks wait for each other for ever, or for what no rank does.
 */
export function simulate(
  schedule: Schedule,
  times: StageTimes,
  options: SimulateOptions = {},
): SimulationResult {
  checkMode(schedule, options);
  const rowTimes = resolveTimes(schedule, times);
  const links = resolveLinks(schedule, options.communication);
  const causes = options.criticalPath ?? true;
  const timeline = options.timeline ?? true;
  const keep = { timeline: timeline || causes, causes };
  const state = new RunState(schedule, rowTimes, links, keep, options.durations);
  const isRendezvous = options.mode === "rendezvous";
  if (isRendezvous) runRendezvous(state);
  else runDataflow(state);
  const deadlock = findDeadlock(state, isRendezvous);
  if (deadlock !== undefined) throw deadlock;

  const makespan = state.close();
  const { busy } = state;
  const idle = busy.map((time) => makespan - time);
  const area = makespan * schedule.numRanks;
  const bound = lowerBound(schedule, rowTimes, links, options.durations);
  return {
    makespan,
    busy,
    idle,
    idleOf: idleOf(state, makespan),
    bubbleShare: area === 0 ? 0 : idle.reduce((sum, time) => sum + time, 0) / area,
    peak: peakMemory(schedule, options.memory),
    lowerBound: { ...bound, gap: makespan - bound.makespan },
    numOperations: countComputations(schedule),
    ...(timeline && { timeline: state.records.map(({ start, end }) => ({ start, end })) }),
    ...(causes && { criticalPath: criticalPath(schedule, state.records) }),
  };
}
