// Schedules as JSON documents. An operation is `["F", [direction, stage], microBatch]`, an
// overlapped cell `["FB", [d, s], m, [d, s], m]` with the forward first.

import { InputError } from "@open-infra/errors";
import { isBuiltInName } from "./build.ts";
import {
  OpKind,
  type OpKindName,
  opKindNames,
  type RankOps,
  RankOpsBuilder,
  type Schedule,
  type ScheduleName,
} from "./schedule.ts";

/** (direction, stage) of an operation. */
type Place = readonly [direction: number, stage: number];

/** One operation. */
export type OpJson =
  | readonly [kind: Exclude<OpKindName, "FB">, place: Place, microBatch: number]
  | readonly ["FB", forward: Place, microBatch: number, backward: Place, microBatch: number];

/** A whole schedule. */
export interface ScheduleJson {
  readonly format: "open-infra-schedule";
  readonly version: 1;
  readonly name: ScheduleName;
  readonly numRanks: number;
  readonly numStages: number;
  readonly microBatchesOf: readonly number[];
  /** Rank of each stage, one row a direction. */
  readonly rankOf: readonly (readonly number[])[];
  readonly hasCommunication: boolean;
  /** Operations, one row a rank. */
  readonly ops: readonly (readonly OpJson[])[];
  /** Phases as `[phase, operations in a row]`, one row a rank; absent where there are none. */
  readonly phases?: readonly (readonly (readonly [phase: number, count: number])[])[];
}

function opToJson(ops: RankOps, i: number): OpJson {
  const kind = opKindNames[ops.kind[i] as number] as OpKindName;
  const place: Place = [ops.direction[i] as number, ops.stage[i] as number];
  const microBatch = ops.microBatch[i] as number;
  if (kind !== "FB") return [kind, place, microBatch];
  const pair: Place = [ops.pairDirection[i] as number, ops.pairStage[i] as number];
  return [kind, place, microBatch, pair, ops.pairMicroBatch[i] as number];
}

/** One rank's operations, as they stand in the document. */
export function rankToJson(ops: RankOps): OpJson[] {
  return Array.from({ length: ops.length }, (_, i) => opToJson(ops, i));
}

function runs(phase: Uint8Array): [number, number][] {
  const found: [number, number][] = [];
  for (const value of phase) {
    const last = found.at(-1);
    if (last?.[0] === value) last[1]++;
    else found.push([value, 1]);
  }
  return found;
}

/** Everything but the operations. */
function headToJson(schedule: Schedule): Omit<ScheduleJson, "ops"> {
  const { name, numRanks, numStages, numDirections, microBatchesOf, rankOf } = schedule;
  const hasPhases = schedule.ranks.some(({ phase }) => phase.some((value) => value !== 0));
  return {
    format: "open-infra-schedule",
    version: 1,
    name,
    numRanks,
    numStages,
    microBatchesOf,
    rankOf: Array.from({ length: numDirections }, (_, d) =>
      Array.from(rankOf.subarray(d * numStages, (d + 1) * numStages)),
    ),
    hasCommunication: schedule.hasCommunication,
    ...(hasPhases && { phases: schedule.ranks.map(({ phase }) => runs(phase)) }),
  };
}

/** A schedule as a value for `JSON.stringify`. */
export function scheduleToJson(schedule: Schedule): ScheduleJson {
  return { ...headToJson(schedule), ops: schedule.ranks.map(rankToJson) };
}

/**
 * The same document as text, piece by piece: millions of operations do not fit one string. `extra`
 * are further fields of the document.
 */
export function* scheduleJsonText(
  schedule: Schedule,
  extra: Readonly<Record<string, unknown>> = {},
): Generator<string> {
  yield JSON.stringify({ ...headToJson(schedule), ...extra }).slice(0, -1);
  yield ',"ops":[';
  for (const [rank, ops] of schedule.ranks.entries()) {
    yield `${rank === 0 ? "" : ","}${JSON.stringify(rankToJson(ops))}`;
  }
  yield "]}";
}

/** A value as it may stand in an error: short, whatever it is. */
function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function refuse(where: string, value: unknown, allowed: string): never {
  throw new InputError(where, shown(value), allowed);
}

function list(where: string, value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : refuse(where, value, "an array");
}

function listOf(where: string, value: unknown, length: number): readonly unknown[] {
  const items = list(where, value);
  if (items.length === length) return items;
  throw new InputError(where, `an array of ${items.length}`, `${length} entries`);
}

function whole(where: string, value: unknown, low: number, high: number): number {
  if (Number.isInteger(value) && (value as number) >= low && (value as number) <= high) {
    return value as number;
  }
  return refuse(where, value, `a whole number from ${low} to ${high}`);
}

/** What operations are checked against. */
interface Bounds {
  readonly numStages: number;
  readonly microBatchesOf: readonly number[];
}

interface Cell {
  readonly direction: number;
  readonly stage: number;
  readonly microBatch: number;
}

function readCell(where: string, place: unknown, microBatch: unknown, bounds: Bounds): Cell {
  const [direction, stage] = listOf(`${where}[1]`, place, 2);
  const d = whole(`${where}[1][0]`, direction, 0, bounds.microBatchesOf.length - 1);
  const s = whole(`${where}[1][1]`, stage, 0, bounds.numStages - 1);
  const most = (bounds.microBatchesOf[d] as number) - 1;
  return { direction: d, stage: s, microBatch: whole(`${where}[2]`, microBatch, 0, most) };
}

function readOp(
  where: string,
  value: unknown,
  phase: number,
  to: RankOpsBuilder,
  bounds: Bounds,
): void {
  const op = list(where, value);
  const name = op[0];
  if (typeof name !== "string" || !Object.hasOwn(OpKind, name)) {
    refuse(`${where}[0]`, name, `one of ${opKindNames.join(", ")}`);
  }
  const kind = OpKind[name as OpKindName];
  listOf(where, op, kind === OpKind.FB ? 5 : 3);
  const cell = readCell(where, op[1], op[2], bounds);
  if (kind !== OpKind.FB) {
    to.push(kind, cell.direction, cell.stage, cell.microBatch, phase);
    return;
  }
  to.pushPair(cell, readCell(`${where}.slice(2)`, op[3], op[4], bounds), phase);
}

/** Phases of a rank's operations, spelled out. */
function readPhases(where: string, value: unknown, length: number): Uint8Array {
  const phases = new Uint8Array(length);
  if (value === undefined) return phases;
  let at = 0;
  list(where, value).forEach((entry, i) => {
    const [phase, count] = listOf(`${where}[${i}]`, entry, 2);
    const end = at + whole(`${where}[${i}][1]`, count, 1, length - at);
    phases.fill(whole(`${where}[${i}][0]`, phase, 0, 255), at, end);
    at = end;
  });
  if (at !== length) throw new InputError(where, `${at} operations`, `all ${length} of the rank`);
  return phases;
}

const stagesMax = 65_536;
const microBatchesMax = 2 ** 28;

function readRankOf(value: unknown, directions: number, stages: number, ranks: number): Int32Array {
  const rankOf = new Int32Array(directions * stages);
  listOf("rankOf", value, directions).forEach((row, d) => {
    listOf(`rankOf[${d}]`, row, stages).forEach((rank, s) => {
      rankOf[d * stages + s] = whole(`rankOf[${d}][${s}]`, rank, 0, ranks - 1);
    });
  });
  return rankOf;
}

/**
 * Reads what `scheduleToJson` wrote, or what anyone else did: every field is checked, so that the
 * columns hold what they say. Whether it can run is for `validateSchedule`.
 *
 * @throws InputError that names the field.
 */
export function scheduleFromJson(value: unknown): Schedule {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    refuse("schedule", value, "an object");
  }
  const json = value as Readonly<Record<string, unknown>>;
  const { format, version, name, hasCommunication } = json;
  if (format !== "open-infra-schedule") refuse("format", format, '"open-infra-schedule"');
  if (version !== 1) refuse("version", version, "1");
  if (typeof name !== "string" || (name !== "custom" && !isBuiltInName(name))) {
    refuse("name", name, 'a built-in schedule, or "custom"');
  }
  if (typeof hasCommunication !== "boolean") {
    refuse("hasCommunication", hasCommunication, "true or false");
  }
  const numRanks = whole("numRanks", json.numRanks, 1, stagesMax);
  const numStages = whole("numStages", json.numStages, 1, stagesMax);
  const counts = list("microBatchesOf", json.microBatchesOf);
  whole("microBatchesOf.length", counts.length, 1, 2);
  const microBatchesOf = counts.map((count, d) =>
    whole(`microBatchesOf[${d}]`, count, 0, microBatchesMax / numStages),
  );
  const bounds = { numStages, microBatchesOf };
  const rankOf = readRankOf(json.rankOf, counts.length, numStages, numRanks);
  const phases = json.phases === undefined ? [] : listOf("phases", json.phases, numRanks);
  const ranks = listOf("ops", json.ops, numRanks).map((row, rank) => {
    const ops = list(`ops[${rank}]`, row);
    const phase = readPhases(`phases[${rank}]`, phases[rank], ops.length);
    const builder = new RankOpsBuilder(ops.length);
    ops.forEach((op, i) => {
      readOp(`ops[${rank}][${i}]`, op, phase[i] as number, builder, bounds);
    });
    return builder.finish();
  });
  return {
    name: name as ScheduleName,
    numRanks,
    numStages,
    numDirections: microBatchesOf.length,
    numMicroBatches: microBatchesOf.reduce((sum, count) => sum + count, 0),
    microBatchesOf,
    rankOf,
    ranks,
    hasCommunication: hasCommunication as boolean,
  };
}
