// The lower part of the picture: activations in flight on each rank, a filled step curve a row, all
// rows to one scale, with each rank's peak beside it.

import type { Schedule } from "../schedule/schedule.ts";
import { type MemoryCurve, memoryCurve } from "../simulate/memory.ts";
import type { SimulationResult } from "../simulate/simulate.ts";
import { element, fixed, ink } from "./svg-parts.ts";

interface Place {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  /** Pixels of a unit of time. */
  readonly scale: number;
}

/** The outline of one curve; where steps are narrower than a pixel, each pixel shows its most. */
function outline({ time, activations }: MemoryCurve, place: Place, y: number, unit: number) {
  const x = (i: number): number => place.left + (time[i] as number) * place.scale;
  const isDense = time.length > place.width;
  let path = `M${fixed(place.left)} ${fixed(y)}`;
  let level = 0;
  for (let i = 0; i < time.length; i++) {
    let most = activations[i] as number;
    const begin = x(i);
    if (isDense) {
      while (i + 1 < time.length && Math.floor(x(i + 1)) === Math.floor(begin)) {
        most = Math.max(most, activations[++i] as number);
      }
    }
    if (most === level) continue;
    path += `H${fixed(begin)}V${fixed(y - most * unit)}`;
    level = most;
  }
  return `${path}H${fixed(place.left + place.width)}V${fixed(y)}Z`;
}

/** Draws the rows; `bottom` is where they end. */
export function memoryRows(
  schedule: Schedule,
  result: SimulationResult,
  { from, to }: { readonly from: number; readonly to: number },
  place: Place,
): { readonly body: string; readonly bottom: number } {
  const count = to - from;
  const rowHeight = Math.max(4, Math.min(22, Math.floor(512 / count)));
  const peaks = result.peak.activations.slice(from, to);
  const most = Math.max(1, ...peaks);
  const labelEvery = Math.ceil(11 / rowHeight);
  const heading = { x: place.left, y: fixed(place.top + 14), "text-anchor": "start" };
  let body = element(
    "text",
    { ...heading, "font-size": 12 },
    `activations in flight, at most ${most}`,
  );
  const top = place.top + 24;
  for (let rank = from; rank < to; rank++) {
    const y = top + (rank - from + 1) * rowHeight - 2;
    const curve = memoryCurve(schedule, result.timeline, rank);
    const d = outline(curve, place, y, (rowHeight - 3) / most);
    body += element("path", { d, fill: ink.line, "fill-opacity": 0.45, stroke: ink.line });
    if ((rank - from) % labelEvery !== 0) continue;
    const at = { x: place.left - 8, y: fixed(y - 2), "text-anchor": "end", "font-size": 10 };
    body += element("text", at, `${rank}: ${peaks[rank - from]}`);
  }
  return { body, bottom: top + count * rowHeight + 8 };
}
