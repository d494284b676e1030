// What a rank holds: micro-batches in flight and bytes. Both follow from the order of its
// operations alone, so peaks need no simulation; the curve over time takes the start and end of
// each operation.
//
// An activation is held from the start of its forward until the end of its backward; where the
// backward is split, what the weights' gradients need is held on until the end of the W.

import { InputError } from "@open-infra/errors";
import { peakActivations } from "../schedule/activations.ts";
import { OpKind, type RankOps, type Schedule } from "../schedule/schedule.ts";
import { type StageValue, stageValues } from "./times.ts";

/** Bytes of one micro-batch on a stage, and of the stage itself. */
export interface StageMemory {
  /** What a forward leaves for its backward, per micro-batch. */
  readonly activationBytes: StageValue;
  /**
   * What of it, together with the gradients at the layers' outputs, stays between an I and its W.
   *
   * @default activationBytes: nothing is freed before the W, a bound from above
   */
  readonly weightGradBytes?: StageValue;
  /** Weights, their gradients and the optimizer's state, of one copy of the stage. @default 0 */
  readonly parameterBytes?: StageValue;
}

/** Most that each rank ever holds. */
export interface PeakMemory {
  /** Micro-batches (per stage and direction) between the start of F and the end of B or I. */
  readonly activations: readonly number[];
  /** The same, but to the end of the W where the backward is split. */
  readonly activationsUntilW: readonly number[];
  /** With `StageMemory`: activations and parameters in bytes. */
  readonly bytes?: Float64Array;
  /** With `StageMemory`: parameters of all stages a rank holds. */
  readonly parameterBytes?: Float64Array;
}

/** What a rank holds over time; `[i]` holds from `time[i]` to `time[i + 1]`. */
export interface MemoryCurve {
  readonly time: Float64Array;
  readonly activations: Int32Array;
  /** With `StageMemory`. */
  readonly bytes?: Float64Array;
}

interface ResolvedMemory {
  readonly activation: Float64Array;
  readonly weightGrad: Float64Array;
  readonly parameters: Float64Array;
}

function resolveMemory(memory: StageMemory, numStages: number): ResolvedMemory {
  const activation = stageValues("memory.activationBytes", memory.activationBytes, numStages);
  const kept = memory.weightGradBytes;
  const weightGrad =
    kept === undefined ? activation : stageValues("memory.weightGradBytes", kept, numStages);
  const stage = weightGrad.findIndex((bytes, i) => bytes > (activation[i] as number));
  if (stage >= 0) {
    const allowed = `at most memory.activationBytes[${stage}], ${activation[stage]}`;
    throw new InputError(`memory.weightGradBytes[${stage}]`, String(weightGrad[stage]), allowed);
  }
  return {
    activation,
    weightGrad,
    parameters: stageValues("memory.parameterBytes", memory.parameterBytes ?? 0, numStages),
  };
}

/** Parameter bytes of the stages each rank holds; DualPipe's two directions are two copies. */
function parametersByRank(schedule: Schedule, parameters: Float64Array): Float64Array {
  const bytes = new Float64Array(schedule.numRanks);
  schedule.rankOf.forEach((rank, row) => {
    bytes[rank] = (bytes[rank] as number) + (parameters[row % schedule.numStages] as number);
  });
  return bytes;
}

/** The most bytes of activations a rank holds. */
function peakBytes(ops: RankOps, { activation, weightGrad }: ResolvedMemory): number {
  let peak = 0;
  let bytes = 0;
  for (let i = 0; i < ops.length; i++) {
    const kind = ops.kind[i] as number;
    if (kind > OpKind.FB) continue;
    const stage = ops.stage[i] as number;
    if (kind === OpKind.F || kind === OpKind.FB) {
      bytes += activation[stage] as number;
      if (bytes > peak) peak = bytes;
      if (kind === OpKind.F) continue;
    }
    if (kind === OpKind.W) {
      bytes -= weightGrad[stage] as number;
      continue;
    }
    bytes -= activation[kind === OpKind.FB ? (ops.pairStage[i] as number) : stage] as number;
    if (kind !== OpKind.I) continue;
    bytes += weightGrad[stage] as number;
    // What is kept for the W may be more than the activations freed.
    if (bytes > peak) peak = bytes;
  }
  return peak;
}

/** Peaks of all ranks, from the order of operations alone. */
export function peakMemory(schedule: Schedule, memory?: StageMemory): PeakMemory {
  const { untilBackward: activations, untilWeight: activationsUntilW } = peakActivations(schedule);
  if (memory === undefined) return { activations, activationsUntilW };
  const resolved = resolveMemory(memory, schedule.numStages);
  const parameterBytes = parametersByRank(schedule, resolved.parameters);
  const bytes = Float64Array.from(
    schedule.ranks,
    (ops, rank) => peakBytes(ops, resolved) + (parameterBytes[rank] as number),
  );
  return { activations, activationsUntilW, bytes, parameterBytes };
}

/** When what was taken or freed, in the order of operations. */
interface Change {
  readonly time: number;
  readonly count: number;
  readonly bytes: number;
}

function changesOf(
  ops: RankOps,
  { start, end }: { readonly start: Float64Array; readonly end: Float64Array },
  memory: ResolvedMemory | undefined,
): Change[] {
  const changes: Change[] = [];
  const size = (of: "activation" | "weightGrad", stage: number): number =>
    memory === undefined ? 0 : (memory[of][stage] as number);
  for (let i = 0; i < ops.length; i++) {
    const kind = ops.kind[i] as number;
    if (kind > OpKind.FB) continue;
    const stage = ops.stage[i] as number;
    const [begin, finish] = [start[i] as number, end[i] as number];
    if (kind === OpKind.F || kind === OpKind.FB) {
      changes.push({ time: begin, count: 1, bytes: size("activation", stage) });
    }
    if (kind === OpKind.F) continue;
    const backward = kind === OpKind.FB ? (ops.pairStage[i] as number) : stage;
    if (kind === OpKind.W) {
      changes.push({ time: finish, count: 0, bytes: -size("weightGrad", stage) });
    } else {
      const kept = kind === OpKind.I ? size("weightGrad", stage) : 0;
      changes.push({ time: finish, count: -1, bytes: kept - size("activation", backward) });
    }
  }
  return changes;
}

/**
 * What one rank holds over time; needs the timeline of a simulation.
 *
 * @throws InputError if the timeline was not kept.
 */
export function memoryCurve(
  schedule: Schedule,
  timeline: readonly { readonly start: Float64Array; readonly end: Float64Array }[] | undefined,
  rank: number,
  memory?: StageMemory,
): MemoryCurve {
  const ops = schedule.ranks[rank];
  const times = timeline?.[rank];
  if (ops === undefined) {
    throw new InputError("rank", String(rank), `a rank from 0 to ${schedule.numRanks - 1}`);
  }
  if (times === undefined) {
    throw new InputError("timeline", "undefined", "kept: simulate with timeline: true");
  }
  const resolved = memory && resolveMemory(memory, schedule.numStages);
  const changes = changesOf(ops, times, resolved);
  const time = new Float64Array(changes.length + 1);
  const activations = new Int32Array(changes.length + 1);
  const bytes = new Float64Array(changes.length + 1);
  const parameters = resolved && parametersByRank(schedule, resolved.parameters);
  bytes[0] = parameters?.[rank] ?? 0;
  changes.forEach((change, i) => {
    time[i + 1] = change.time;
    activations[i + 1] = (activations[i] as number) + change.count;
    bytes[i + 1] = (bytes[i] as number) + change.bytes;
  });
  return { time, activations, ...(resolved && { bytes }) };
}
