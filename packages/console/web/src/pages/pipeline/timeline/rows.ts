// What of a rank's operations, and of its memory, is seen in a part of time: at most one rectangle
// a pixel column, found without walking through what lies within one. Pure arithmetic; pixels are
// device pixels.

import type { MemoryCurve } from "@open-infra/dualpipe";
import { firstAbove } from "./cells.ts";

/** A part of time over so many pixels. */
export interface Window {
  readonly start: number;
  readonly end: number;
  readonly width: number;
}

/** First index at or after `from` whose start is at least `time`: steps double, then halve. */
function firstFrom(starts: Float64Array, from: number, time: number): number {
  let step = 1;
  let low = from;
  while (low + step < starts.length && (starts[low + step] as number) < time) {
    low += step;
    step *= 2;
  }
  let high = Math.min(starts.length, low + step);
  low = Math.max(from, low);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((starts[middle] as number) >= time) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * Calls `emit` for the operations of a rank in a window, with their edges in pixels. Of those that
 * begin within one pixel column only the first is told; it fills the column.
 */
export function visibleCells(
  times: { readonly start: Float64Array; readonly end: Float64Array },
  { start: from, end: to, width }: Window,
  emit: (index: number, left: number, right: number) => void,
): void {
  const perPixel = (to - from) / width;
  const { start, end } = times;
  let free = Number.NEGATIVE_INFINITY;
  for (let i = firstAbove(end, from); i < start.length; ) {
    const begin = start[i] as number;
    if (begin >= to) return;
    const left = (begin - from) / perPixel;
    const right = ((end[i] as number) - from) / perPixel;
    if (right - left >= 1) {
      emit(i, left, right);
      i++;
      continue;
    }
    const column = Math.max(Math.floor(left), free);
    free = column + 1;
    if (right > left) emit(i, column, free);
    const next = firstFrom(start, i + 1, from + free * perPixel);
    // The last that began in this column may reach far beyond it.
    const last = next - 1;
    i = last > i && ((end[last] as number) - from) / perPixel > free ? last : next;
  }
}

/** A stretch of equal memory: micro-batches held between two pixel columns. */
export type EmitStretch = (held: number, left: number, right: number) => void;

/** The most that is held in every pixel column of a window, equal columns as one stretch. */
export function visibleMemory(
  { time, activations }: Pick<MemoryCurve, "time" | "activations">,
  { start: from, end: to, width }: Window,
  makespan: number,
  emit: EmitStretch,
): void {
  const perPixel = (to - from) / width;
  const first = Math.max(0, Math.floor((0 - from) / perPixel));
  const last = Math.min(width, Math.ceil((makespan - from) / perPixel));
  let at = Math.max(0, firstAbove(time, from + first * perPixel) - 1);
  let begin = first;
  let before = -1;
  for (let column = first; column < last; column++) {
    const until = from + (column + 1) * perPixel;
    let most = activations[at] as number;
    while (at + 1 < time.length && (time[at + 1] as number) < until) {
      at++;
      most = Math.max(most, activations[at] as number);
    }
    if (most === before) continue;
    if (before > 0) emit(before, begin, column);
    before = most;
    begin = column;
  }
  if (before > 0) emit(before, begin, last);
}

/** What a rank holds at a time. */
export function heldAt(curve: Pick<MemoryCurve, "time" | "activations">, time: number): number {
  return curve.activations[Math.max(0, firstAbove(curve.time, time) - 1)] as number;
}

/** When a rank first holds its most. */
export function peakOf({ time, activations }: Pick<MemoryCurve, "time" | "activations">): {
  readonly held: number;
  readonly time: number;
} {
  let best = 0;
  for (let i = 1; i < activations.length; i++) {
    if ((activations[i] as number) > (activations[best] as number)) best = i;
  }
  return { held: activations[best] ?? 0, time: time[best] ?? 0 };
}
