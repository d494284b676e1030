// Draws the timeline: ranks as rows, cells by kind and direction, numbers where they fit, the
// critical path as outlines, and the transfers of one cell. It counts what it draws and keeps
// nothing.

import { OpKind, type RankOps } from "@open-infra/dualpipe";
import type { SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { ticksBetween } from "../../../ui/time-axis.ts";
import type { PipelineResult } from "../compute.ts";
import { type CellRef, formatTime, type Transfer } from "./cells.ts";
import { AXIS_PX, GUTTER_PX, type PipelineLayout } from "./layout.ts";
import { visibleCells, type Window } from "./rows.ts";
import type { Paint, PipelineTheme } from "./theme.ts";

/** What a picture shows. */
export interface PipelinePicture {
  readonly result: PipelineResult;
  readonly layout: PipelineLayout;
  /** First rank shown; may lie between two. */
  readonly top: number;
  /** Part of time that the rows show. */
  readonly start: number;
  readonly end: number;
  readonly cell: CellRef | null;
  readonly transfers: readonly Transfer[];
  readonly critical: boolean;
}

/** What was drawn, for those who check it. */
export interface DrawCount {
  rectangles: number;
  labels: number;
}

/** Frame, picture and theme with what follows from them. */
interface Drawing {
  readonly frame: SurfaceFrame;
  readonly picture: PipelinePicture;
  readonly theme: PipelineTheme;
  readonly window: Window;
  readonly left: number;
  readonly count: DrawCount;
}

export function windowOf({ width, scale }: SurfaceFrame, { start, end }: PipelinePicture): Window {
  return { start, end, width: Math.max(1, width - GUTTER_PX * scale) };
}

/** Ranks that are at least partly in sight. */
export function* ranksIn({ layout, top }: PipelinePicture): Generator<number> {
  const last = Math.min(layout.numRanks, Math.ceil(top + layout.rows));
  for (let rank = Math.floor(top); rank < last; rank++) yield rank;
}

export function rowTop({ frame, picture }: Drawing, rank: number): number {
  const { scale } = frame;
  return Math.round((AXIS_PX + (rank - picture.top) * picture.layout.cellRow) * scale);
}

function label(
  drawing: Drawing,
  text: string,
  paint: Paint,
  box: readonly [number, number, number, number],
): void {
  const { frame, theme, count } = drawing;
  const [x, y, width, height] = box;
  const size = Math.min(11 * frame.scale, height - 2 * frame.scale);
  if (size < 7 * frame.scale || text.length * size * 0.62 + 2 * frame.scale > width) return;
  const { context } = frame;
  context.font = `${size}px ${theme.mono}`;
  context.fillStyle = paint.ink;
  context.fillText(text, x + width / 2, y + height / 2 + frame.scale / 2);
  count.labels++;
}

/** Narrower cells are drawn without a number, pairs without halves. */
const NARROW_PX = 4;

function paintOf(theme: PipelineTheme, kind: number, direction: number): Paint {
  return theme.cells[kind]?.[direction === 0 ? 0 : 1] ?? theme.pair;
}

/** One operation with room: a rectangle, or two halves one above the other. */
function drawCell(
  drawing: Drawing,
  ops: RankOps,
  index: number,
  box: readonly [number, number, number, number],
): void {
  const { frame, theme, count } = drawing;
  const { context } = frame;
  const [x, y, width, height] = box;
  const kind = ops.kind[index] as number;
  const rect = (paint: Paint, top: number, tall: number, microBatch: number): void => {
    context.fillStyle = paint.fill;
    context.fillRect(x, top, width, tall);
    count.rectangles++;
    label(drawing, String(microBatch), paint, [x, top, width, tall]);
  };
  const direction = ops.direction[index] as number;
  const microBatch = ops.microBatch[index] as number;
  if (kind !== OpKind.FB) {
    rect(paintOf(theme, kind, direction), y, height, microBatch);
    return;
  }
  const half = Math.round(height / 2);
  rect(paintOf(theme, OpKind.F, direction), y, half, microBatch);
  const back = paintOf(theme, OpKind.B, ops.pairDirection[index] as number);
  rect(back, y + half, height - half, ops.pairMicroBatch[index] as number);
}

/** Narrow cells of a row: neighbours of one colour become one rectangle. */
class NarrowRun {
  readonly #drawing: Drawing;
  readonly #y: number;
  readonly #height: number;
  #fill = "";
  #from = 0;
  #to = 0;

  constructor(drawing: Drawing, y: number, height: number) {
    this.#drawing = drawing;
    this.#y = y;
    this.#height = height;
  }

  add(fill: string, x: number, width: number): void {
    if (fill !== this.#fill || x > this.#to) {
      this.flush();
      this.#fill = fill;
      this.#from = x;
    }
    this.#to = x + width;
  }

  flush(): void {
    if (this.#fill === "") return;
    const { frame, count } = this.#drawing;
    frame.context.fillStyle = this.#fill;
    frame.context.fillRect(this.#from, this.#y, this.#to - this.#from, this.#height);
    count.rectangles++;
    this.#fill = "";
  }
}

function drawRow(drawing: Drawing, rank: number): void {
  const { frame, picture, theme, window, left } = drawing;
  const { context, scale } = frame;
  const { result, layout } = picture;
  const ops = result.schedule.ranks[rank] as RankOps;
  const times = result.timeline[rank];
  const critical = picture.critical ? result.critical[rank] : undefined;
  const y = rowTop(drawing, rank);
  const height = Math.round(layout.cellRow * scale) - (layout.cellRow > 9 ? 3 : 1) * scale;
  const x0 = Math.max(0, (0 - window.start) * (window.width / (window.end - window.start)));
  const x1 = (result.makespan - window.start) * (window.width / (window.end - window.start));
  context.fillStyle = theme.track;
  context.fillRect(left + x0, y, Math.min(window.width, x1) - x0, height);
  if (times === undefined) return;
  const outlines: [number, number][] = [];
  const narrow = new NarrowRun(drawing, y, height);
  visibleCells(times, window, (index, from, to) => {
    const x = Math.max(0, Math.round(from));
    const end = Math.min(window.width, Math.round(to));
    // A hair between neighbours, where there is room for one.
    const width = Math.max(1, end - x - (to - from > 5 * scale ? 1 : 0));
    if (to - from < NARROW_PX * scale) {
      const { fill } = paintOf(theme, ops.kind[index] as number, ops.direction[index] as number);
      narrow.add(fill, left + x, width);
    } else {
      narrow.flush();
      drawCell(drawing, ops, index, [left + x, y, width, height]);
    }
    if (critical?.[index] === 1) outlines.push([left + x, width]);
  });
  narrow.flush();
  drawOutlines(drawing, outlines, y, height);
}

function drawOutlines(
  drawing: Drawing,
  outlines: readonly (readonly [number, number])[],
  y: number,
  height: number,
): void {
  const { frame, theme } = drawing;
  const { context, scale } = frame;
  const thick = Math.max(1, Math.round(1.5 * scale));
  context.strokeStyle = theme.critical;
  context.fillStyle = theme.critical;
  context.lineWidth = thick;
  for (const [x, width] of outlines) {
    if (width < 3 * thick) context.fillRect(x, y, width, 2 * thick);
    else context.strokeRect(x + thick / 2, y + thick / 2, width - thick, height - thick);
  }
}

function drawAxis(drawing: Drawing): void {
  const { frame, window, theme, left, picture } = drawing;
  const { context, scale } = frame;
  const { timesUs } = ticksBetween(window.start, window.end, window.width, 70 * scale);
  const bottom = rowTop(drawing, picture.top + picture.layout.rows);
  context.font = `${10.5 * scale}px ${theme.mono}`;
  context.textAlign = "center";
  for (const time of timesUs) {
    if (time < 0) continue;
    const x = Math.round(
      left + ((time - window.start) / (window.end - window.start)) * window.width,
    );
    context.fillStyle = theme.line;
    context.fillRect(x, AXIS_PX * 0.75 * scale, 1, bottom - AXIS_PX * 0.75 * scale);
    const text = formatTime(time);
    // A label that would be cut says something else.
    if (x + context.measureText(text).width / 2 > left + window.width) continue;
    context.fillStyle = theme.quiet;
    context.fillText(text, x, 8 * scale);
  }
}

/** Names of the ranks, as many as have room. */
export function drawRankNames(
  { context, scale }: SurfaceFrame,
  picture: PipelinePicture,
  theme: PipelineTheme,
  place: { readonly rowHeight: number; readonly top: number },
): void {
  const every = Math.max(1, Math.ceil(12 / place.rowHeight));
  context.font = `${10.5 * scale}px ${theme.mono}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillStyle = theme.quiet;
  for (const rank of ranksIn(picture)) {
    if (rank % every !== 0) continue;
    const y = (place.top + (rank - picture.top + 0.5) * place.rowHeight - 1) * scale;
    context.fillText(`rank ${rank}`, (GUTTER_PX - 6) * scale, y);
  }
}

function drawTransfers(drawing: Drawing): void {
  const { frame, picture, theme, window, left } = drawing;
  const { context, scale } = frame;
  const { result, layout } = picture;
  const x = (time: number): number =>
    left + ((time - window.start) / (window.end - window.start)) * window.width;
  const y = (rank: number): number => rowTop(drawing, rank) + (layout.cellRow * scale) / 2;
  context.lineWidth = Math.max(1, 1.25 * scale);
  for (const { from, to, flow } of picture.transfers) {
    const sent = result.timeline[from.rank]?.end[from.index] as number;
    const used = result.timeline[to.rank]?.start[to.index] as number;
    context.strokeStyle = theme.transfer[flow];
    context.fillStyle = theme.transfer[flow];
    context.beginPath();
    context.moveTo(x(sent), y(from.rank));
    context.lineTo(x(used), y(to.rank));
    context.stroke();
    context.beginPath();
    context.arc(x(used), y(to.rank), 2.5 * scale, 0, 2 * Math.PI);
    context.fill();
  }
}

function drawChosen(drawing: Drawing): void {
  const { frame, picture, theme, window, left } = drawing;
  const { cell, result, layout } = picture;
  if (cell === null) return;
  const times = result.timeline[cell.rank];
  const perUnit = window.width / (window.end - window.start);
  const from = ((times?.start[cell.index] as number) - window.start) * perUnit;
  const to = ((times?.end[cell.index] as number) - window.start) * perUnit;
  const { context, scale } = frame;
  const thick = Math.max(1, Math.round(2 * scale));
  context.strokeStyle = theme.ink;
  context.lineWidth = thick;
  const height = Math.round(layout.cellRow * scale) - (layout.cellRow > 9 ? 3 : 1) * scale;
  const x = left + Math.round(from);
  context.strokeRect(
    x - 0.5,
    rowTop(drawing, cell.rank) - 0.5,
    Math.max(thick, to - from),
    height + 1,
  );
}

/** Draws a picture of the timeline. */
export function paintTimeline(
  frame: SurfaceFrame,
  picture: PipelinePicture,
  theme: PipelineTheme,
): DrawCount {
  const { context, width, height, scale } = frame;
  const left = GUTTER_PX * scale;
  const count = { rectangles: 0, labels: 0 };
  const drawing: Drawing = { frame, picture, theme, window: windowOf(frame, picture), left, count };
  context.fillStyle = theme.panel;
  context.fillRect(0, 0, width, height);
  context.textBaseline = "middle";
  context.save();
  context.beginPath();
  context.rect(left, 0, width - left, height);
  context.clip();
  drawAxis(drawing);
  context.beginPath();
  context.rect(left, AXIS_PX * scale, width - left, height);
  context.clip();
  context.textAlign = "center";
  for (const rank of ranksIn(picture)) drawRow(drawing, rank);
  drawTransfers(drawing);
  drawChosen(drawing);
  context.restore();
  drawRankNames(frame, picture, theme, { rowHeight: picture.layout.cellRow, top: AXIS_PX });
  return count;
}
