// Draws what each rank holds over time, a row a rank under the timeline and on its time axis: the
// most in every pixel column, the peak marked, the limit as a line.

import type { MemoryCurve } from "@open-infra/dualpipe";
import type { SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { GUTTER_PX, MEMORY_TOP_PX } from "./layout.ts";
import { drawRankNames, type PipelinePicture, ranksIn, windowOf } from "./painter.ts";
import { peakOf, visibleMemory, type Window } from "./rows.ts";
import type { PipelineTheme } from "./theme.ts";

/** Gives the curve of a rank; made when it is first seen. */
export type CurveOf = (rank: number) => MemoryCurve;

interface Drawing {
  readonly frame: SurfaceFrame;
  readonly picture: PipelinePicture;
  readonly theme: PipelineTheme;
  readonly window: Window;
  readonly left: number;
  /** Device pixels of one micro-batch. */
  readonly each: number;
}

function drawCurve(drawing: Drawing, curve: MemoryCurve, floor: number): void {
  const { frame, picture, theme, window, left, each } = drawing;
  const { context, scale } = frame;
  const { limit, makespan } = picture.result;
  visibleMemory(curve, window, makespan, (held, from, to) => {
    const within = Math.min(held, limit ?? held) * each;
    context.fillStyle = theme.memory;
    context.fillRect(left + from, floor - within, to - from, within);
    if (limit === undefined || held <= limit) return;
    context.fillStyle = theme.over;
    context.fillRect(left + from, floor - held * each, to - from, held * each - within);
  });
  if (limit === undefined) return;
  context.strokeStyle = theme.over;
  context.lineWidth = Math.max(1, scale);
  context.setLineDash([4 * scale, 3 * scale]);
  context.beginPath();
  context.moveTo(left, Math.round(floor - limit * each) + 0.5);
  context.lineTo(left + window.width, Math.round(floor - limit * each) + 0.5);
  context.stroke();
  context.setLineDash([]);
}

function drawPeak(drawing: Drawing, curve: MemoryCurve, floor: number): void {
  const { frame, picture, theme, window, left, each } = drawing;
  const { context, scale } = frame;
  const peak = peakOf(curve);
  const x = left + ((peak.time - window.start) / (window.end - window.start)) * window.width;
  if (x < left || x > left + window.width) return;
  const y = floor - peak.held * each;
  context.fillStyle = theme.peak;
  context.fillRect(Math.round(x), Math.round(y) - scale, 2 * scale, peak.held * each + scale);
  if (picture.layout.memoryRow < 14) return;
  context.font = `600 ${10.5 * scale}px ${theme.mono}`;
  context.textAlign = "right";
  context.textBaseline = "top";
  context.fillText(String(peak.held), x - 3 * scale, Math.round(y));
}

/** Draws the rows of memory. */
export function paintMemory(
  frame: SurfaceFrame,
  picture: PipelinePicture,
  theme: PipelineTheme,
  curveOf: CurveOf,
): void {
  const { context, width, height, scale } = frame;
  const { result, layout } = picture;
  const left = GUTTER_PX * scale;
  const most = Math.max(1, result.limit ?? 0, ...result.peakActivations);
  const row = layout.memoryRow;
  const room = (row - (row > 9 ? 4 : 1)) * scale;
  const window = windowOf(frame, picture);
  const drawing = { frame, picture, theme, window, left, each: room / most };
  context.fillStyle = theme.panel;
  context.fillRect(0, 0, width, height);
  context.save();
  context.beginPath();
  context.rect(left, 0, width - left, height);
  context.clip();
  for (const rank of ranksIn(picture)) {
    const floor = Math.round((MEMORY_TOP_PX + (rank - picture.top + 1) * row) * scale) - scale;
    context.fillStyle = theme.line;
    context.fillRect(left, floor, width - left, Math.max(1, scale / 2));
    const curve = curveOf(rank);
    drawCurve(drawing, curve, floor);
    drawPeak(drawing, curve, floor);
  }
  context.restore();
  drawRankNames(frame, picture, theme, { rowHeight: row, top: MEMORY_TOP_PX });
}
