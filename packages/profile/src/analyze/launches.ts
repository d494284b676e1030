// Which call of the host launched each event of the device: by `correlation`. A call may launch
// many (CUDA graphs); an event has one launch. It does not look at flow arrows, which say the same.

import type { EventTable } from "./event-table.ts";
import { stringTest } from "./string-test.ts";
import type { Work } from "./work.ts";

/** Launches of a `Work`'s events, and the calls that could have launched something. */
export interface Launches {
  /** For each event of the work, the table's row of its launch; −1 where there is none. */
  readonly launchRow: Int32Array;
  /** Calls of the host that carry a correlation, rows by correlation: all, launches or not. */
  readonly calls: number;
  /** Calls whose name says that they launch something, but nothing of the work was launched. */
  readonly launchesWithoutEvent: number;
}

const PHASE_X = 88;
const runtimeCategory = /(?:^|_)(?:runtime|driver)$/i;
const launchName = /launch|memcpy|memset|prefetch/i;
/** A batch of launches in one call is not itself a launch when its events are not traced. */
const notALaunch = /launchhostfunc|getlast|graphinstantiate/i;

/**
 * Finds each event's launch. Where several calls carry one correlation (files merged from several
 * ranks), the latest that did not start after the event wins; else the earliest.
 */
export function findLaunches(work: Work): Launches {
  const { table } = work;
  const head = correlationIndex(table);
  const next = new Int32Array(table.length).fill(-1);
  const isCall = stringTest(table, (category) => runtimeCategory.test(category));
  const onDevice = new Uint8Array(table.length);
  for (let i = 0; i < work.length; i++) onDevice[work.row[i]!] = 1;
  let calls = 0;
  // Backwards, so that a list runs in the file's order.
  for (let row = table.length - 1; row >= 0; row--) {
    const correlation = table.correlation[row]!;
    if (correlation < 0 || table.phase[row] !== PHASE_X || onDevice[row] === 1) continue;
    if (!isCall(table.category[row]!)) continue;
    const before = head.get(correlation);
    if (before >= 0) next[row] = before;
    head.set(correlation, row);
    calls++;
  }
  const launchRow = new Int32Array(work.length).fill(-1);
  const used = new Uint8Array(table.length);
  for (let i = 0; i < work.length; i++) {
    const correlation = table.correlation[work.row[i]!]!;
    if (correlation < 0) continue;
    const found = bestCall(table, head.get(correlation), next, table.startUs[work.row[i]!]!);
    launchRow[i] = found;
    if (found >= 0) used[found] = 1;
  }
  return { launchRow, calls, launchesWithoutEvent: countUnused(table, head, next, used) };
}

/** Rows by correlation; −1 where there is none. */
interface CorrelationIndex {
  get(correlation: number): number;
  set(correlation: number, row: number): void;
  each(visit: (row: number) => void): void;
}

/** Profilers count correlations up: an array usually serves, else a map. */
function correlationIndex(table: EventTable): CorrelationIndex {
  let max = -1;
  let whole = true;
  for (let i = 0; i < table.length; i++) {
    const value = table.correlation[i]!;
    if (value > max) max = value;
    if (value !== Math.floor(value)) whole = false;
  }
  if (whole && max < 4 * table.length + 1024) {
    const rows = new Int32Array(max + 1).fill(-1);
    return {
      get: (correlation) => rows[correlation]!,
      set: (correlation, row) => {
        rows[correlation] = row;
      },
      each: (visit) => {
        for (const row of rows) if (row >= 0) visit(row);
      },
    };
  }
  const rows = new Map<number, number>();
  return {
    get: (correlation) => rows.get(correlation) ?? -1,
    set: (correlation, row) => {
      rows.set(correlation, row);
    },
    each: (visit) => {
      for (const row of rows.values()) visit(row);
    },
  };
}

function bestCall(table: EventTable, first: number, next: Int32Array, startUs: number): number {
  if (first < 0 || next[first]! < 0) return first;
  let best = first;
  for (let row = first; row >= 0; row = next[row]!) {
    const at = table.startUs[row]!;
    const bestAt = table.startUs[best]!;
    const better =
      at <= startUs ? bestAt > startUs || at > bestAt : bestAt > startUs && at < bestAt;
    if (better) best = row;
  }
  return best;
}

function countUnused(
  table: EventTable,
  head: CorrelationIndex,
  next: Int32Array,
  used: Uint8Array,
): number {
  const isLaunch = stringTest(table, (name) => launchName.test(name) && !notALaunch.test(name));
  let unused = 0;
  head.each((first) => {
    for (let row = first; row >= 0; row = next[row]!) {
      if (used[row] === 0 && isLaunch(table.name[row]!)) unused++;
    }
  });
  return unused;
}
