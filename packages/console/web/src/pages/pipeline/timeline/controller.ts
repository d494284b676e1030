// The frame loop of the two canvases: what part of time they show, how it moves under keys, wheel
// and drag, and which cell is pointed at. Times of the view are millionths of the makespan, so
// that the arithmetic of the trace page's views serves any unit.

import { type MemoryCurve, memoryCurve } from "@open-infra/dualpipe";
import { CanvasSurface, type SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { type Direction, Motion, type Step, stillStep } from "../../trace/timeline/motion.ts";
import {
  clampView,
  fitView,
  panView,
  revealView,
  type TimeRange,
  wholeView,
  zoomView,
} from "../../trace/timeline/viewport.ts";
import type { PipelineResult } from "../compute.ts";
import type { PipelineSession } from "../session.ts";
import { type CellRef, cellAtTime, cellNear, transfersOf } from "./cells.ts";
import {
  AXIS_PX,
  clampTop,
  GUTTER_PX,
  MEMORY_TOP_PX,
  type PipelineLayout,
  pipelineLayout,
} from "./layout.ts";
import { paintMemory } from "./memory-painter.ts";
import { type PipelinePicture, paintTimeline } from "./painter.ts";
import { type PipelineTheme, readPipelineTheme } from "./theme.ts";

/** The whole of time in the view's own unit. */
const WHOLE = 1_000_000;

export interface PipelineCanvases {
  readonly cells: HTMLCanvasElement;
  readonly memory: HTMLCanvasElement;
}

/** One pair of canvases with what they show. */
export class PipelineController implements Disposable {
  readonly #session: PipelineSession;
  readonly #canvases: PipelineCanvases;
  readonly #cells: CanvasSurface;
  readonly #memory: CanvasSurface;
  readonly #motion: Motion = new Motion();
  readonly #curves: Map<number, MemoryCurve> = new Map();
  readonly #still: MediaQueryList = matchMedia("(prefers-reduced-motion: reduce)");
  #theme: PipelineTheme;
  #result: PipelineResult;
  #layout: PipelineLayout;
  #view: TimeRange = wholeView(WHOLE);
  #top = 0;
  #pointerX: number | undefined;
  #lastMs = 0;
  #frames = 0;

  constructor(session: PipelineSession, canvases: PipelineCanvases, result: PipelineResult) {
    this.#session = session;
    this.#canvases = canvases;
    this.#result = result;
    this.#layout = pipelineLayout(result.schedule.numRanks);
    this.#theme = readPipelineTheme(canvases.cells);
    const onScheme = (): void => {
      this.#theme = readPipelineTheme(canvases.cells);
    };
    this.#cells = new CanvasSurface(canvases.cells, {
      draw: (frame) => this.#draw(frame),
      onScheme,
    });
    this.#memory = new CanvasSurface(canvases.memory, {
      draw: (frame) => paintMemory(frame, this.#picture(), this.#theme, (rank) => this.curve(rank)),
      onScheme,
    });
  }

  [Symbol.dispose](): void {
    this.#cells[Symbol.dispose]();
    this.#memory[Symbol.dispose]();
  }

  /** Shows another result; the part of time stays where both have it. */
  show(result: PipelineResult): void {
    if (result === this.#result) return;
    this.#result = result;
    this.#curves.clear();
    this.#layout = pipelineLayout(result.schedule.numRanks);
    this.#top = clampTop(this.#top, this.#layout);
    this.#session.cell.value = null;
    this.invalidate();
  }

  invalidate(): void {
    this.#cells.invalidate();
    this.#memory.invalidate();
  }

  /** What a rank holds over time. */
  curve(rank: number): MemoryCurve {
    let curve = this.#curves.get(rank);
    if (curve === undefined) {
      curve = memoryCurve(this.#result.schedule, this.#result.timeline, rank);
      this.#curves.set(rank, curve);
    }
    return curve;
  }

  press(direction: Direction): void {
    if (this.#still.matches) {
      this.#apply(stillStep(direction));
      return;
    }
    if (!this.#motion.moving) this.#lastMs = 0;
    this.#motion.press(direction);
    this.invalidate();
  }

  release(direction: Direction): void {
    this.#motion.release(direction);
  }

  halt(): void {
    this.#motion.stop();
  }

  whole(): void {
    this.#setView(wholeView(WHOLE));
  }

  /** Zooms at a place of the canvas, in CSS pixels. */
  zoomAt(x: number, factor: number): void {
    this.#setView(zoomView(this.#view, factor, this.#viewAt(x), WHOLE));
  }

  /** Moves by CSS pixels; @returns whether rows were moved. */
  panBy(dx: number, dy: number): boolean {
    if (dx !== 0) this.#setView(panView(this.#view, dx / this.#widthPx, WHOLE));
    const top = clampTop(this.#top + dy / this.#layout.cellRow, this.#layout);
    if (top === this.#top) return false;
    this.#top = top;
    this.invalidate();
    return true;
  }

  /** The rank and time at a place of one of the canvases. */
  placeAt(
    canvas: "cells" | "memory",
    x: number,
    y: number,
  ): { rank: number; time: number } | undefined {
    const { cellRow, memoryRow, numRanks } = this.#layout;
    const row = canvas === "cells" ? (y - AXIS_PX) / cellRow : (y - MEMORY_TOP_PX) / memoryRow;
    const rank = Math.floor(row + this.#top);
    if (row < 0 || rank < 0 || rank >= numRanks || x < GUTTER_PX) return undefined;
    return { rank, time: (this.#viewAt(x) * this.#result.makespan) / WHOLE };
  }

  /** Points at a place; what is there is told and outlined. */
  point(canvas: "cells" | "memory", x: number, y: number): void {
    this.#pointerX = x;
    const place = this.placeAt(canvas, x, y);
    const index = place === undefined ? -1 : cellAtTime(this.#result, place.rank, place.time);
    this.choose(index < 0 || place === undefined ? null : { rank: place.rank, index });
  }

  leave(): void {
    this.#pointerX = undefined;
    this.choose(null);
  }

  choose(cell: CellRef | null): void {
    const { cell: chosen } = this.#session;
    const now = chosen.peek();
    if (now?.rank === cell?.rank && now?.index === cell?.index) return;
    chosen.value = cell;
    this.invalidate();
  }

  /** Moves the choice by operations of a rank, or by ranks. */
  step(operations: number, ranks: number): void {
    const now = this.#session.cell.peek();
    const { timeline, schedule } = this.#result;
    if (now === null) {
      const rank = Math.ceil(this.#top);
      const middle = ((this.#view.startUs + this.#view.endUs) / 2 / WHOLE) * this.#result.makespan;
      this.#reveal({ rank, index: cellNear(this.#result, rank, middle) });
      return;
    }
    const rank = Math.min(schedule.numRanks - 1, Math.max(0, now.rank + ranks));
    const start = timeline[now.rank]?.start[now.index] as number;
    const index = ranks === 0 ? now.index + operations : cellNear(this.#result, rank, start);
    const last = (timeline[rank]?.start.length ?? 0) - 1;
    this.#reveal({ rank, index: Math.min(last, Math.max(0, index)) });
  }

  /** Shows the chosen cell large, or everything. */
  fit(): void {
    const range = this.#rangeOf(this.#session.cell.peek());
    if (range === undefined) this.whole();
    else this.#setView(fitView(this.#around(range), WHOLE));
  }

  #around({ startUs, endUs }: TimeRange): TimeRange {
    const room = (endUs - startUs) * 6;
    return { startUs: startUs - room, endUs: endUs + room };
  }

  #rangeOf(cell: CellRef | null): TimeRange | undefined {
    const times = cell === null ? undefined : this.#result.timeline[cell.rank];
    if (cell === null || times === undefined) return undefined;
    const unit = WHOLE / this.#result.makespan;
    return {
      startUs: (times.start[cell.index] as number) * unit,
      endUs: (times.end[cell.index] as number) * unit,
    };
  }

  #reveal(cell: CellRef): void {
    if (cell.index < 0) return;
    this.choose(cell);
    const range = this.#rangeOf(cell);
    if (range !== undefined && !this.#inSight(range))
      this.#setView(revealView(this.#view, range, WHOLE));
    const { rows } = this.#layout;
    if (cell.rank < this.#top) this.#top = cell.rank;
    else if (cell.rank + 1 > this.#top + rows) this.#top = cell.rank + 1 - rows;
    this.invalidate();
  }

  #inSight({ startUs, endUs }: TimeRange): boolean {
    return startUs >= this.#view.startUs && endUs <= this.#view.endUs;
  }

  get #widthPx(): number {
    return Math.max(1, this.#canvases.cells.clientWidth - GUTTER_PX);
  }

  #viewAt(x: number): number {
    const { startUs, endUs } = this.#view;
    return startUs + ((x - GUTTER_PX) / this.#widthPx) * (endUs - startUs);
  }

  #setView(view: TimeRange): void {
    this.#view = clampView(view, WHOLE);
    this.invalidate();
  }

  #apply({ zoom, pan, scroll }: Step): void {
    const middle = (this.#view.startUs + this.#view.endUs) / 2;
    const anchor = this.#pointerX === undefined ? middle : this.#viewAt(this.#pointerX);
    let view = this.#view;
    // A step's zoom is the factor on what is seen.
    if (zoom !== 1) view = zoomView(view, zoom, anchor, WHOLE);
    if (pan !== 0) view = panView(view, pan, WHOLE);
    if (scroll !== 0) this.#top = clampTop(this.#top + scroll / this.#layout.cellRow, this.#layout);
    this.#setView(view);
  }

  #picture(): PipelinePicture {
    const unit = this.#result.makespan / WHOLE;
    const cell = this.#session.cell.peek();
    return {
      result: this.#result,
      layout: this.#layout,
      top: this.#top,
      start: this.#view.startUs * unit,
      end: this.#view.endUs * unit,
      cell,
      transfers: cell === null ? [] : transfersOf(this.#result.schedule, cell),
      critical: this.#session.showCritical.peek(),
    };
  }

  #draw(frame: SurfaceFrame): void {
    if (this.#motion.moving) {
      const elapsed = this.#lastMs === 0 ? 16 : frame.timeMs - this.#lastMs;
      this.#lastMs = frame.timeMs;
      this.#apply(this.#motion.advance(elapsed));
    }
    const picture = this.#picture();
    const { rectangles, labels } = paintTimeline(frame, picture, this.#theme);
    this.#frames++;
    // Told on the element, so that tests see what a frame drew.
    Object.assign(this.#canvases.cells.dataset, {
      rectangles: String(rectangles),
      labels: String(labels),
      frames: String(this.#frames),
      rows: String(this.#layout.rows),
      start: String(picture.start),
      end: String(picture.end),
    });
  }
}
