// A run as lines of text, for terminals: one line a rank, a letter and the micro-batch for each
// computation, small letters for the second direction, dots where the rank is idle.

import type { Schedule } from "../schedule/schedule.ts";
import type { SimulationResult } from "../simulate/simulate.ts";
import { type Cell, cellsOfRank, timelineOf } from "./cells.ts";

/** What fits `size` characters: kind and micro-batch, or what of them there is room for. */
function label({ kind, direction, microBatch, pair }: Cell, size: number): string {
  const letter = (name: string, of: number): string => (of === 0 ? name : name.toLowerCase());
  const candidates =
    pair === undefined
      ? [`${letter(kind, direction)}${microBatch}`, letter(kind, direction)]
      : [
          `${letter("F", direction)}${microBatch}${letter("B", pair.direction)}${pair.microBatch}`,
          `${microBatch}&${pair.microBatch}`,
          "X",
        ];
  const text = candidates.find(({ length }) => length <= size) ?? (candidates.at(-1) as string);
  return text.slice(0, size).padEnd(size, pair === undefined ? "-" : "=");
}

/**
 * Lines of at most `columns` characters; empty if a rank has more computations than can be told
 * apart in that room.
 *
 * @throws InputError if the run kept no timeline.
 */
export function toTextTimeline(
  schedule: Schedule,
  result: SimulationResult,
  columns = 120,
): readonly string[] {
  const timeline = timelineOf(result);
  const names = schedule.ranks.map((_, rank) => `rank ${rank} `);
  const margin = Math.max(...names.map(({ length }) => length));
  const room = columns - margin - 2;
  const scale = room / result.makespan;
  const most = Math.max(...schedule.ranks.map(({ length }) => length));
  if (!(most > 0 && room >= most * 2)) return [];
  const lines = names.map((name, rank) => {
    let line = "";
    for (const cell of cellsOfRank(schedule, timeline, rank)) {
      const from = Math.round(cell.start * scale);
      const to = Math.round(cell.end * scale);
      line = line.padEnd(from, ".");
      if (to > line.length) line += label(cell, to - line.length);
    }
    return `${name.padEnd(margin)}|${line.padEnd(room, ".")}|`;
  });
  const end = `${Number(result.makespan.toPrecision(6))}`;
  lines.push(`${" ".repeat(margin + 1)}0${end.padStart(room - 1)}`);
  return lines;
}
