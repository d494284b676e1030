// Several traces as one: ranks of a job, processes of a host. What is only unique within a process
// (pids, correlations, ids of arrows) stays unique in the whole.

import { InputError } from "@open-infra/errors";
import type { EventTable, TraceLane, TraceNotes } from "./event-table.ts";

/** How traces become one. */
export interface MergeTracesOptions {
  /** Put before each trace's process names: "rank 0", … */
  readonly names?: readonly string[] | undefined;
  /**
   * "clock" keeps the times, for traces of one host or of hosts in step; "start" lets all begin
   * together, for clocks that are not. @default "clock"
   */
  readonly align?: "clock" | "start" | undefined;
}

type Pid = string | number;
const NO_STRING = 0xffffffff;

/** Strings of all tables, each once. */
class Strings {
  readonly list: string[] = [];
  readonly #indices = new Map<string, number>();

  intern(text: string): number {
    let index = this.#indices.get(text);
    if (index === undefined) {
      index = this.list.length;
      this.#indices.set(text, index);
      this.list.push(text);
    }
    return index;
  }
}

/** A new name for each pid of `table` that `taken` has already; marks them all as taken. */
function placePids(table: EventTable, taken: Set<Pid>): Map<Pid, Pid> {
  const own = new Set(table.lanes.map(({ pid }) => pid));
  const places = new Map<Pid, Pid>();
  for (const pid of own) {
    let place = pid;
    for (let n = 1; taken.has(place) || (place !== pid && own.has(place)); n++) {
      place = typeof pid === "number" ? pid + n * 1_000_000 : `${pid} (${n + 1})`;
    }
    places.set(pid, place);
  }
  for (const place of places.values()) taken.add(place);
  return places;
}

/** Largest correlation of a table, at least −1. */
function largestCorrelation(table: EventTable): number {
  let largest = -1;
  for (const value of table.correlation) if (value > largest) largest = value;
  return largest;
}

function mergeNotes(tables: readonly EventTable[]): TraceNotes {
  const skippedPhases: Record<string, number> = {};
  const notes = tables.map((table) => table.notes);
  for (const { skippedPhases: counts } of notes) {
    for (const [phase, count] of Object.entries(counts)) {
      skippedPhases[phase] = (skippedPhases[phase] ?? 0) + count;
    }
  }
  const sum = (key: "unmatchedEnds" | "unclosedBegins" | "negativeDurations"): number =>
    notes.reduce((total, note) => total + note[key], 0);
  const stopped = notes.find((note) => note.stopped !== undefined)?.stopped;
  return {
    skippedPhases,
    unmatchedEnds: sum("unmatchedEnds"),
    unclosedBegins: sum("unclosedBegins"),
    negativeDurations: sum("negativeDurations"),
    missingDurations: notes.reduce((total, note) => total + note.missingDurations, 0),
    malformedEvents: notes.reduce((total, note) => total + note.malformedEvents, 0),
    unterminatedArray: notes.some((note) => note.unterminatedArray),
    ...(stopped !== undefined && { stopped }),
  };
}

/** Where each table's parts go in the whole. */
interface Placement {
  readonly table: EventTable;
  readonly firstRow: number;
  readonly firstLane: number;
  readonly shiftUs: number;
  /** Added to correlations, and put before ids of arrows. */
  readonly correlationShift: number;
  readonly idPrefix: string;
}

/** One column of all `parts`, in their order. */
function concatenate<P, T extends Uint8Array | Uint32Array | Int32Array | Float64Array>(
  parts: readonly P[],
  type: new (length: number) => T,
  columnOf: (part: P) => T,
): T {
  const columns = parts.map(columnOf);
  const whole = new type(columns.reduce((total, column) => total + column.length, 0));
  let at = 0;
  for (const column of columns) {
    whole.set(column, at);
    at += column.length;
  }
  return whole;
}

/** The index columns of one table, in the whole's strings and lanes. */
function reindex(
  place: Placement,
  strings: Strings,
): Record<"lane" | "name" | "category" | "flowId", Uint32Array> {
  const { table, firstLane, idPrefix } = place;
  const indices = table.strings.map((text) => strings.intern(text));
  const move = (column: Uint32Array): Uint32Array =>
    column.map((index) => indices[index] as number);
  const flowIds = new Map<number, number>();
  const flowId = table.flowId.map((index) => {
    if (index === NO_STRING) return index;
    let moved = flowIds.get(index);
    if (moved === undefined) {
      moved = strings.intern(`${idPrefix}${table.strings[index]}`);
      flowIds.set(index, moved);
    }
    return moved;
  });
  return {
    lane: table.lane.map((lane) => lane + firstLane),
    name: move(table.name),
    category: move(table.category),
    flowId,
  };
}

function shiftedStart({ table, shiftUs }: Placement): Float64Array {
  return table.startUs.map((us) => us + shiftUs);
}

function shiftedCorrelation({ table, correlationShift }: Placement): Float64Array {
  return table.correlation.map((value) => (value === -1 ? -1 : value + correlationShift));
}

/** Args of a row, with the correlation it has in the whole. */
function argsText({ table, correlationShift }: Placement, row: number): string | undefined {
  const text = table.argsText(row);
  const correlation = table.correlation[row] as number;
  if (text === undefined || correlationShift === 0 || correlation === -1) return text;
  return text.replace(/("correlation"\s*:\s*"?)\d+/, `$1${correlation + correlationShift}`);
}

function mergeArgColumns(
  places: readonly Placement[],
  length: number,
): Record<string, Float64Array> {
  const columns: Record<string, Float64Array> = {};
  for (const { table, firstRow } of places) {
    for (const [name, column] of Object.entries(table.argColumns)) {
      columns[name] ??= new Float64Array(length).fill(Number.NaN);
      columns[name].set(column, firstRow);
    }
  }
  return columns;
}

function placeTables(tables: readonly EventTable[], align: "clock" | "start"): Placement[] {
  const originUs = Math.min(...tables.map((table) => table.originUs));
  let firstRow = 0;
  let firstLane = 0;
  let correlationShift = 0;
  return tables.map((table, i) => {
    const place = {
      table,
      firstRow,
      firstLane,
      shiftUs: align === "clock" ? table.originUs - originUs : 0,
      correlationShift,
      idPrefix: i === 0 ? "" : `${i}:`,
    };
    firstRow += table.length;
    firstLane += table.lanes.length;
    correlationShift += largestCorrelation(table) + 1;
    return place;
  });
}

function mergeLanes(tables: readonly EventTable[], names: readonly string[]): TraceLane[] {
  const taken = new Set<Pid>();
  return tables.flatMap((table, i) => {
    const pids = placePids(table, taken);
    const name = names[i];
    return table.lanes.map((lane) => ({
      ...lane,
      pid: pids.get(lane.pid) as Pid,
      processName: name === undefined ? lane.processName : `${name} ${lane.processName}`.trim(),
      // Trace by trace; within, as before. Kineto's own indices stay below 2^32.
      processSortIndex: lane.processSortIndex + i * 2 ** 33,
    }));
  });
}

/**
 * One table of several. Rows come trace by trace; a pid that an earlier trace has gets another
 * number, correlations and ids of arrows are told apart. The top level is the first trace's, and
 * `mergedMetadata` holds everyone's.
 * @throws InputError if there is no table, or not a name for each
 */
export function mergeTraces(
  tables: readonly EventTable[],
  options: MergeTracesOptions = {},
): EventTable {
  const { names, align = "clock" } = options;
  const [first] = tables;
  if (first === undefined) throw new InputError("tables", "an empty list", "at least one table");
  if (names !== undefined && names.length !== tables.length) {
    throw new InputError(
      "names",
      `${names.length} names`,
      `one for each of ${tables.length} traces`,
    );
  }
  const places = placeTables(tables, align);
  const strings = new Strings();
  const indices = places.map((place) => reindex(place, strings));
  const length = tables.reduce((total, table) => total + table.length, 0);
  return {
    length,
    originUs: Math.min(...tables.map((table) => table.originUs)),
    phase: concatenate(tables, Uint8Array, (table) => table.phase),
    lane: concatenate(indices, Uint32Array, ({ lane }) => lane),
    name: concatenate(indices, Uint32Array, ({ name }) => name),
    category: concatenate(indices, Uint32Array, ({ category }) => category),
    startUs: concatenate(places, Float64Array, shiftedStart),
    durationUs: concatenate(tables, Float64Array, (table) => table.durationUs),
    flowId: concatenate(indices, Uint32Array, ({ flowId }) => flowId),
    correlation: concatenate(places, Float64Array, shiftedCorrelation),
    stream: concatenate(tables, Int32Array, (table) => table.stream),
    gridBlocks: concatenate(tables, Uint32Array, (table) => table.gridBlocks),
    argColumns: mergeArgColumns(places, length),
    strings: strings.list,
    lanes: mergeLanes(tables, names ?? []),
    metadata: { ...first.metadata, mergedMetadata: tables.map((table) => table.metadata) },
    notes: mergeNotes(tables),
    argsText: (i) => {
      const place = places.findLast(({ firstRow }) => firstRow <= i);
      return place && argsText(place, i - place.firstRow);
    },
  };
}
