// Spans within spans on a lane: which are innermost, and which encloses a given time. Chrome traces
// nest by time alone. It knows no categories but those of annotations.

import type { EventTable } from "./event-table.ts";
import { sortIndices } from "./order.ts";
import { stringTest } from "./string-test.ts";

const PHASE_X = 88;
const annotationCategory = /^(?:gpu_)?user_annotation$/i;

/** True of the categories under which profilers write a user's own annotations of host code. */
export function isAnnotation(category: string): boolean {
  return /^user_annotation$/i.test(category);
}

/** Rows of complete spans by start, outer before inner. */
export function spansByStart(table: EventTable, keep: (row: number) => boolean): Uint32Array {
  const found = new Uint32Array(table.length);
  let count = 0;
  for (let i = 0; i < table.length; i++) {
    if (table.phase[i] === PHASE_X && keep(i)) found[count++] = i;
  }
  const startUs = new Float64Array(count);
  const outerFirst = new Float64Array(count);
  const order = new Uint32Array(count);
  for (let k = 0; k < count; k++) {
    startUs[k] = table.startUs[found[k]!]!;
    // Of spans with one start, the longer is the outer one.
    outerFirst[k] = -table.durationUs[found[k]!]!;
    order[k] = k;
  }
  sortIndices(order, startUs, outerFirst);
  return order.map((k) => found[k]!);
}

/**
 * The spans that hold no other span of their lane: where no device was traced, they are the work,
 * and the others say what it belonged to. Annotations are never work. A span of no length inside
 * another makes that one no container.
 */
export function innermostSpans(table: EventTable): Uint32Array {
  return splitByNesting(table).innermost;
}

/** The spans that hold others. */
export function enclosingSpans(table: EventTable): Uint32Array {
  return splitByNesting(table).enclosing;
}

function splitByNesting(table: EventTable): { innermost: Uint32Array; enclosing: Uint32Array } {
  const annotation = stringTest(table, (category) => annotationCategory.test(category));
  const order = spansByStart(table, (row) => !annotation(table.category[row]!));
  const last = new Int32Array(table.lanes.length).fill(-1);
  const encloses = new Uint8Array(table.length);
  for (let i = 0; i < order.length; i++) {
    const row = order[i]!;
    const lane = table.lane[row]!;
    const before = last[lane]!;
    if (table.durationUs[row]! === 0 && before >= 0) continue;
    if (before >= 0) {
      const end = table.startUs[before]! + table.durationUs[before]!;
      // A hair of tolerance: a child may outlive its parent by the rounding of two clocks' sums.
      const rowEnd = table.startUs[row]! + table.durationUs[row]!;
      if (table.startUs[row]! < end && rowEnd <= end + 1e-3) encloses[before] = 1;
    }
    last[lane] = row;
  }
  return {
    innermost: order.filter((row) => encloses[row] === 0),
    enclosing: order.filter((row) => encloses[row] === 1),
  };
}
