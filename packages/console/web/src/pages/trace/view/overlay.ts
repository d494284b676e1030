// What lies over the slices: the selected time, marks, outlines of the selected and the pointed-at
// slice, and arrows to those that belong to it. Few shapes, drawn with the canvas's own means.

import type { SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { linksIn, partnersOf } from "../timeline/flows.ts";
import { type LaneLayout, placeOfRow } from "../timeline/lanes.ts";
import { laneOfRow, NONE, rowOfSlot } from "../timeline/rows.ts";
import type { TraceData } from "../timeline/trace-data.ts";
import type { TimeRange } from "../timeline/viewport.ts";
import type { TimelineTheme } from "./theme.ts";

/** More arrows than this in a view are a tangle; their number is told instead. */
export const MOST_ARROWS = 300;

export interface OverlayInput {
  readonly data: TraceData;
  readonly theme: TimelineTheme;
  readonly layout: LaneLayout;
  readonly view: TimeRange;
  readonly scrollTop: number;
  readonly selected: number;
  readonly hovered: number;
  readonly range: TimeRange | null;
  readonly marks: readonly TimeRange[];
  readonly allArrows: boolean;
}

/** Arrows drawn, and those there would be. */
export interface OverlayCounts {
  readonly drawn: number;
  readonly inView: number;
}

interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** Draws everything over the lanes. */
export function paintOverlay(frame: SurfaceFrame, input: OverlayInput): OverlayCounts {
  const { context } = frame;
  context.save();
  paintRange(frame, input);
  for (const mark of input.marks) paintMark(frame, input, mark);
  const counts = paintArrows(frame, input);
  if (input.hovered !== input.selected) outline(frame, input, input.hovered, 1);
  outline(frame, input, input.selected, 2);
  context.restore();
  return counts;
}

/** Device pixel of a time. */
export function xOf(frame: SurfaceFrame, view: TimeRange, timeUs: number): number {
  return ((timeUs - view.startUs) / (view.endUs - view.startUs)) * frame.width;
}

function paintRange(frame: SurfaceFrame, { range, view, theme }: OverlayInput): void {
  if (range === null) return;
  const { context, height, scale } = frame;
  const left = xOf(frame, view, range.startUs);
  const right = xOf(frame, view, range.endUs);
  context.fillStyle = theme.accent;
  context.globalAlpha = 0.13;
  context.fillRect(left, 0, Math.max(1, right - left), height);
  context.globalAlpha = 1;
  context.fillRect(Math.round(left), 0, scale, height);
  context.fillRect(Math.round(right), 0, scale, height);
}

function paintMark(frame: SurfaceFrame, { view, theme }: OverlayInput, mark: TimeRange): void {
  const { context, height, scale } = frame;
  context.fillStyle = theme.mark;
  for (const timeUs of new Set([mark.startUs, mark.endUs])) {
    context.fillRect(Math.round(xOf(frame, view, timeUs)), 0, scale, height);
  }
}

function boxOf(frame: SurfaceFrame, input: OverlayInput, slot: number): Box | undefined {
  const { data, layout, view, scrollTop } = input;
  const row = rowOfSlot(data.rows, slot);
  const place = placeOfRow(layout, laneOfRow(data.rows, row), row);
  if (place === undefined) return undefined;
  const left = xOf(frame, view, data.rows.start[slot] as number);
  const right = xOf(frame, view, data.rows.end[slot] as number);
  const top = (place.top - scrollTop) * frame.scale;
  return { left, right: Math.max(right, left + 1), top, bottom: top + place.height * frame.scale };
}

function outline(frame: SurfaceFrame, input: OverlayInput, slot: number, width: number): void {
  if (slot === NONE) return;
  const box = boxOf(frame, input, slot);
  if (box === undefined) return;
  const { context, scale } = frame;
  // Far edges of a long slice would be drawn for nothing.
  const left = Math.max(Math.round(box.left), -8);
  const right = Math.min(Math.round(box.right), frame.width + 8);
  if (right < 0 || left > frame.width) return;
  const line = width * scale;
  context.lineWidth = line;
  context.strokeStyle = input.theme.select;
  const inset = line / 2;
  context.strokeRect(
    left - inset + (width > 1 ? 0 : 1),
    Math.round(box.top) - (width > 1 ? inset : -0.5),
    Math.max(right - left + (width > 1 ? line : -1), line),
    box.bottom - box.top + (width > 1 ? line : -1),
  );
}

function paintArrows(frame: SurfaceFrame, input: OverlayInput): OverlayCounts {
  const { data, view, selected, theme } = input;
  const { from, to } = data.links;
  const pairs: [number, number][] = [];
  let inView = 0;
  if (input.allArrows) {
    const found = linksIn(data.links, data.rows, view, MOST_ARROWS);
    inView = found.count;
    for (const link of found.links) pairs.push([from[link] as number, to[link] as number]);
  }
  frame.context.strokeStyle = frame.context.fillStyle = theme.inkQuiet;
  frame.context.lineWidth = frame.scale;
  let drawn = 0;
  for (const [a, b] of pairs) drawn += paintArrow(frame, input, a, b);
  if (selected !== NONE) {
    const { into, outOf } = partnersOf(data.links, selected);
    frame.context.strokeStyle = frame.context.fillStyle = theme.ink;
    frame.context.lineWidth = 1.5 * frame.scale;
    for (const slot of outOf.slice(0, MOST_ARROWS))
      drawn += paintArrow(frame, input, slot, selected);
    for (const slot of into.slice(0, MOST_ARROWS))
      drawn += paintArrow(frame, input, selected, slot);
  }
  return { drawn, inView };
}

/** From the end of one slice to the start of the other; 1 if any of it can be seen. */
function paintArrow(frame: SurfaceFrame, input: OverlayInput, a: number, b: number): number {
  const source = boxOf(frame, input, a);
  const target = boxOf(frame, input, b);
  if (source === undefined || target === undefined) return 0;
  const { context, width, scale } = frame;
  const x1 = Math.min(source.right, Math.max(source.left, target.left));
  const y1 = (source.top + source.bottom) / 2;
  const x2 = target.left;
  const y2 = (target.top + target.bottom) / 2;
  if (Math.max(x1, x2) < 0 || Math.min(x1, x2) > width) return 0;
  const bend = Math.max(18 * scale, Math.min(Math.abs(x2 - x1) / 2, 160 * scale));
  context.beginPath();
  context.moveTo(x1, y1);
  context.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2 - 3 * scale, y2);
  context.stroke();
  context.beginPath();
  context.moveTo(x2, y2);
  context.lineTo(x2 - 7 * scale, y2 - 3.5 * scale);
  context.lineTo(x2 - 7 * scale, y2 + 3.5 * scale);
  context.fill();
  return 1;
}
