// Split points as SQL, checked to rise: a range of nothing would hide a slip.

import { literal } from "../dataset/sql-text.ts";
import type { NodeCall, RangePoint } from "./options.ts";

/** Literals of points that rise and are of one type. @throws PlanError */
export function pointLiterals(points: readonly RangePoint[], call: NodeCall): readonly string[] {
  for (const [i, point] of points.entries()) {
    if (i === 0) continue;
    const before = points[i - 1] as RangePoint;
    if (kindOf(before) !== kindOf(point)) {
      throw call.error(`split points must be of one type, not ${before} and ${point}`);
    }
    if (!(compare(before, point) < 0)) {
      throw call.error(`split points must rise, but ${shown(before)} comes before ${shown(point)}`);
    }
  }
  return points.map((point) => literalOf(point, call));
}

const kindOf = (point: RangePoint): string => {
  if (typeof point === "bigint") return "number";
  return typeof point === "object" ? "date" : typeof point;
};

const shown = (point: RangePoint): string =>
  point instanceof Date ? point.toISOString() : String(point);

/** As DuckDB compares them: text by its bytes. */
function compare(a: RangePoint, b: RangePoint): number {
  if (typeof a === "string" && typeof b === "string") {
    return Buffer.compare(Buffer.from(a), Buffer.from(b));
  }
  return a < b ? -1 : a > b ? 1 : a === b ? 0 : Number(a) - Number(b);
}

function literalOf(point: RangePoint, call: NodeCall): string {
  if (typeof point === "string") return literal(point);
  if (point instanceof Date && !Number.isNaN(point.getTime())) {
    return `TIMESTAMP ${literal(point.toISOString().replace("T", " ").replace("Z", ""))}`;
  }
  const wrong = point instanceof Date || (typeof point === "number" && !Number.isFinite(point));
  if (wrong)
    throw call.error(`a split point must be a number, text, truth value or date: ${point}`);
  return String(point);
}
