// Moves the view of a timeline and draws it: keys, wheel, pointer, glides. Keeps three canvases in
// step: the overview, the head with axis and band, and the lanes. What was selected and found is in
// TimelineState; how things are painted is in the painters.

import { effect } from "@preact/signals";
import { CanvasSurface, type SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { bandAt, placeOfRow, rowAt } from "../timeline/lanes.ts";
import { Motion, type Step, stillStep } from "../timeline/motion.ts";
import { laneOfRow, NONE, rowOfSlot, slotAt } from "../timeline/rows.ts";
import { firstHitFrom, nextHit } from "../timeline/search.ts";
import {
  betweenViews,
  clampView,
  fitView,
  panView,
  revealView,
  type TimeRange,
  wholeView,
  zoomView,
} from "../timeline/viewport.ts";
import { HeadPainter } from "./head.ts";
import type { Command, KeyAction } from "./keys.ts";
import { paintOverlay } from "./overlay.ts";
import { OverviewPainter } from "./overview.ts";
import { LanePainter } from "./painter.ts";
import type { TimelineState } from "./state.ts";
import { readTheme, type TimelineTheme } from "./theme.ts";

export interface TimelineElements {
  readonly overview: HTMLCanvasElement;
  readonly head: HTMLCanvasElement;
  readonly lanes: HTMLCanvasElement;
  /** Scrolls the lanes up and down. */
  readonly scroll: HTMLElement;
}

/** What the controller asks of the page around it. */
export interface TimelineHost {
  readonly focusSearch: () => void;
  readonly showHelp: () => void;
}

const GLIDE_MS = 220;
/** Names a frame may write while the view moves, and when it stands. */
const MOVING_LABELS = 260;
const STILL_LABELS = 4000;
/** The still picture follows the last movement after this. */
const SETTLE_MS = 90;
/** CSS pixels around the pointer in which a thin slice counts as pointed at. */
const SLACK_PX = 3;

interface Glide {
  readonly from: TimeRange;
  readonly to: TimeRange;
  startMs: number | undefined;
}

/** The view of one trace on one set of canvases. */
export class TimelineController implements Disposable {
  readonly state: TimelineState;
  readonly #elements: TimelineElements;
  readonly #host: TimelineHost;
  readonly #surfaces: readonly CanvasSurface[];
  readonly #lanePainter = new LanePainter();
  readonly #headPainter = new HeadPainter();
  readonly #overviewPainter = new OverviewPainter();
  readonly #motion = new Motion();
  readonly #still: MediaQueryList = matchMedia("(prefers-reduced-motion: reduce)");
  readonly #stopEffect: () => void;
  #theme: TimelineTheme;
  #view: TimeRange;
  #glide: Glide | undefined;
  /** Where the pointer is, in CSS pixels; without a `y` it is over the axis. */
  #pointer: { readonly x: number; readonly y?: number } | null = null;
  #hovered = NONE;
  #lastFrameMs: number | undefined;
  #movedMs = 0;
  #settle: ReturnType<typeof setTimeout> | undefined;

  constructor(state: TimelineState, elements: TimelineElements, host: TimelineHost) {
    this.state = state;
    this.#elements = elements;
    this.#host = host;
    this.#theme = readTheme(elements.lanes);
    this.#view = wholeView(state.data.spanUs);
    const surface = (canvas: HTMLCanvasElement, draw: (frame: SurfaceFrame) => void) =>
      new CanvasSurface(canvas, { draw, onScheme: () => this.#readTheme() });
    // The lanes come first: they move the view of a frame, the others show it.
    this.#surfaces = [
      surface(elements.lanes, (frame) => this.#drawLanes(frame)),
      surface(elements.head, (frame) => this.#drawHead(frame)),
      surface(elements.overview, (frame) => this.#drawOverview(frame)),
    ];
    this.#stopEffect = effect(() => {
      // Everything a drawing shows; reading it here is what ties it to a new drawing.
      const { selected, range, marks, emphasis, allArrows, layout, hits } = state;
      void [selected, range, marks, emphasis, allArrows, layout, hits].map(({ value }) => value);
      this.invalidate();
    });
  }

  /** Scrolls to where work begins, if lanes of hosts would hide all of it. */
  scrollToWork(): void {
    const { data, layout } = this.state;
    const { bands } = layout.peek();
    const first = data.workEvents[0];
    if (first === undefined || data.workSource === "lanes") return;
    const lanes = new Set(data.workEvents.subarray(0, 1000).map((event) => data.lane[event] ?? 0));
    const index = bands.findIndex(({ kind, lane }) => kind === "lane" && lanes.has(lane));
    const band = bands[index];
    const { scroll } = this.#elements;
    if (band === undefined || band.y + band.height <= scroll.clientHeight) return;
    const head = bands.slice(0, index).findLast(({ kind }) => kind === "process");
    scroll.scrollTop = head?.y ?? band.y;
  }

  /** The visible part of time. */
  get view(): TimeRange {
    return this.#view;
  }

  invalidate(): void {
    for (const surface of this.#surfaces) surface.invalidate();
  }

  [Symbol.dispose](): void {
    this.#stopEffect();
    clearTimeout(this.#settle);
    for (const surface of this.#surfaces) surface[Symbol.dispose]();
  }

  /** Shows a view, gliding there unless motion is unwelcome. */
  show(target: TimeRange): void {
    const to = clampView(target, this.state.data.spanUs);
    if (this.#still.matches) this.#jump(to);
    else {
      this.#glide = { from: this.#view, to, startMs: undefined };
      this.invalidate();
    }
  }

  /** Does what a key asks for; `release` says when it is let go. */
  press(action: KeyAction): void {
    if (action.kind === "command") this.run(action.command);
    else if (this.#still.matches) this.#apply(stillStep(action.direction));
    else {
      this.#glide = undefined;
      this.#motion.press(action.direction);
      this.invalidate();
    }
  }

  release(direction: Parameters<Motion["release"]>[0]): void {
    this.#motion.release(direction);
  }

  /** Lets go of all keys. */
  halt(): void {
    this.#motion.stop();
  }

  run(command: Command): void {
    const { focus } = this.state;
    const commands: Readonly<Record<Command, () => void>> = {
      fit: () => this.show(focus === null ? this.#whole : this.#fitted(focus)),
      all: () => this.show(this.#whole),
      mark: () => this.#toggleMark(),
      search: () => this.#host.focusSearch(),
      nextHit: () => this.goToHit(1),
      previousHit: () => this.goToHit(-1),
      nextSlice: () => this.#selectBeside(1),
      previousSlice: () => this.#selectBeside(-1),
      help: () => this.#host.showHelp(),
      clear: () => this.state.clear(),
    };
    commands[command]();
  }

  /** Selects the next hit of the search and brings it into view. */
  goToHit(step: 1 | -1): void {
    const { state } = this;
    const hits = state.hits.value;
    const current = state.hitIndex.value;
    // The first step starts from what is in view, not from the beginning of the trace.
    const next =
      current < 0 && step === 1
        ? hits.byTime.length === 0
          ? -1
          : firstHitFrom(hits, state.data.rows, this.#view.startUs)
        : nextHit(hits, current, step);
    if (next < 0) return;
    state.hitIndex.value = next;
    this.select(hits.byTime[next] as number);
  }

  /** Selects a slice, unfolds what hides it, and brings it into view. */
  select(slot: number): void {
    const { state } = this;
    state.range.value = null;
    state.selected.value = slot;
    if (slot === NONE) return;
    const { rows, lanes } = state.data;
    const row = rowOfSlot(rows, slot);
    const lane = laneOfRow(rows, row);
    const folded = state.folded.peek();
    const info = lanes[lane];
    for (const key of [`p:${info?.pid}`, `l:${info?.pid}/${info?.tid}`]) {
      if (folded.has(key)) state.toggleFold(key);
    }
    this.#scrollToRow(lane, row);
    const range = { startUs: rows.start[slot] as number, endUs: rows.end[slot] as number };
    const wanted = revealView(this.#glide?.to ?? this.#view, range, state.data.spanUs);
    if (wanted !== this.#view) this.show(wanted);
  }

  /** Scale the time by `factor` around a horizontal place of the lanes, in CSS pixels. */
  zoomAt(factor: number, x: number): void {
    this.#jump(zoomView(this.#view, factor, this.timeAt(x), this.state.data.spanUs));
  }

  /** Moves by CSS pixels. */
  panBy(x: number): void {
    const width = Math.max(1, this.#elements.lanes.clientWidth);
    this.#jump(panView(this.#view, x / width, this.state.data.spanUs));
  }

  /** Puts the middle of the view at a share of the whole trace. */
  centerAt(share: number): void {
    const whole = this.#whole;
    const middle = whole.startUs + share * (whole.endUs - whole.startUs);
    const half = (this.#view.endUs - this.#view.startUs) / 2;
    const view = { startUs: middle - half, endUs: middle + half };
    this.#jump(clampView(view, this.state.data.spanUs));
  }

  /** Time at a horizontal place of the lanes, in CSS pixels. */
  timeAt(x: number): number {
    const width = Math.max(1, this.#elements.lanes.clientWidth);
    const { startUs, endUs } = this.#view;
    return startUs + (x / width) * (endUs - startUs);
  }

  /** The slice at a place of the lanes, in CSS pixels; `NONE` between slices. */
  slotUnder(x: number, y: number): number {
    const layout = this.state.layout.peek();
    const at = y + this.#elements.scroll.scrollTop;
    const band = layout.bands[bandAt(layout, at)];
    if (band === undefined) return NONE;
    const row = rowAt(band, at);
    if (row < 0) return NONE;
    const slackUs = this.timeAt(SLACK_PX) - this.timeAt(0);
    return slotAt(this.state.data.rows, row, this.timeAt(x), slackUs);
  }

  /** The pointer has moved over the lanes or, without a `y`, over the axis; null when it left. */
  hover(pointer: { readonly x: number; readonly y?: number } | null): void {
    this.#pointer = pointer;
    this.#lookUnderPointer();
    this.invalidate();
  }

  /** What the pointer is over changes with the view too. */
  #lookUnderPointer(): void {
    const { x = 0, y } = this.#pointer ?? {};
    this.#hovered = y === undefined ? NONE : this.slotUnder(x, y);
    const told = this.state.hover.peek();
    if (this.#hovered === NONE || y === undefined) this.state.hover.value = null;
    else if (told?.slot !== this.#hovered || told.x !== x || told.y !== y) {
      this.state.hover.value = { slot: this.#hovered, x, y };
    }
  }

  get #cursorUs(): number | null {
    return this.#pointer === null ? null : this.timeAt(this.#pointer.x);
  }

  get #whole(): TimeRange {
    return wholeView(this.state.data.spanUs);
  }

  #fitted(range: TimeRange): TimeRange {
    return fitView(range, this.state.data.spanUs);
  }

  #jump(view: TimeRange): void {
    this.#glide = undefined;
    this.#view = view;
    this.#movedMs = performance.now();
    this.invalidate();
  }

  #readTheme(): void {
    this.#theme = readTheme(this.#elements.lanes);
  }

  #toggleMark(): void {
    const { marks } = this.state;
    const focus = this.state.focus ?? this.#cursorMark();
    if (focus === null) return;
    const same = marks.value.filter(
      ({ startUs, endUs }) => startUs !== focus.startUs || endUs !== focus.endUs,
    );
    marks.value = same.length < marks.value.length ? same : [...marks.value, focus];
  }

  #cursorMark(): TimeRange | null {
    const timeUs = this.#cursorUs;
    return timeUs === null ? null : { startUs: timeUs, endUs: timeUs };
  }

  /** The neighbour in the row; without a selection the first slice in view. */
  #selectBeside(step: 1 | -1): void {
    const { rows } = this.state.data;
    const slot = this.state.selected.peek();
    if (slot === NONE) {
      const first = this.#firstInView();
      if (first !== NONE) this.select(first);
      return;
    }
    const next = slot + step;
    const row = rowOfSlot(rows, slot);
    const inRow =
      next >= (rows.rowOffset[row] as number) && next < (rows.rowOffset[row + 1] as number);
    if (inRow) this.select(next);
  }

  #firstInView(): number {
    const { rows } = this.state.data;
    const { bands } = this.state.layout.peek();
    const top = this.#elements.scroll.scrollTop;
    const spanUs = this.#view.endUs - this.#view.startUs;
    for (const band of bands) {
      if (band.kind !== "lane" || band.y + band.height <= top) continue;
      const middleUs = this.#view.startUs + spanUs / 2;
      const slot = slotAt(rows, band.firstRow, middleUs, spanUs / 2);
      if (slot !== NONE) return slot;
    }
    return NONE;
  }

  #scrollToRow(lane: number, row: number): void {
    const place = placeOfRow(this.state.layout.value, lane, row);
    if (place === undefined) return;
    const { scroll } = this.#elements;
    const inView =
      place.top >= scroll.scrollTop + 8 &&
      place.top + place.height <= scroll.scrollTop + scroll.clientHeight - 8;
    if (!inView) scroll.scrollTop = place.top - scroll.clientHeight / 2;
  }

  #apply({ zoom, pan, scroll }: Step): void {
    const { spanUs } = this.state.data;
    const width = this.#view.endUs - this.#view.startUs;
    const anchorUs = this.#cursorUs ?? this.#view.startUs + width / 2;
    let view = this.#view;
    if (zoom !== 1) view = zoomView(view, zoom, anchorUs, spanUs);
    if (pan !== 0) view = panView(view, pan, spanUs);
    if (scroll !== 0) this.#elements.scroll.scrollTop += scroll;
    this.#jump(view);
  }

  /** Moves the view for this frame; true while it goes on. */
  #advance(timeMs: number): boolean {
    const elapsedMs = this.#lastFrameMs === undefined ? 1000 / 60 : timeMs - this.#lastFrameMs;
    const glide = this.#glide;
    if (glide !== undefined) {
      glide.startMs ??= timeMs;
      const progress = (timeMs - glide.startMs) / GLIDE_MS;
      this.#view = betweenViews(glide.from, glide.to, progress);
      this.#movedMs = performance.now();
      if (progress >= 1) this.#glide = undefined;
    } else if (this.#motion.moving) this.#apply(this.#motion.advance(elapsedMs));
    const going = this.#glide !== undefined || this.#motion.moving;
    this.#lastFrameMs = going ? timeMs : undefined;
    return going;
  }

  #drawLanes(frame: SurfaceFrame): void {
    const startMs = performance.now();
    const going = this.#advance(frame.timeMs);
    this.#lookUnderPointer();
    const { state } = this;
    const moving = going || performance.now() - this.#movedMs < SETTLE_MS;
    const scrollTop = this.#elements.scroll.scrollTop;
    const scene = {
      data: state.data,
      theme: this.#theme,
      layout: state.layout.peek(),
      view: this.#view,
      scrollTop,
    };
    const counts = this.#lanePainter.paint(frame, {
      ...scene,
      hits: state.searching ? state.hits.peek() : null,
      emphasis: state.emphasis.peek(),
      labelBudget: moving ? MOVING_LABELS : STILL_LABELS,
    });
    const arrows = paintOverlay(frame, {
      ...scene,
      selected: state.selected.peek(),
      hovered: this.#hovered,
      range: state.range.peek(),
      marks: state.marks.peek(),
      allArrows: state.allArrows.peek(),
    });
    const drawMs = Math.round((performance.now() - startMs) * 10) / 10;
    this.#report({ ...counts, arrows: arrows.drawn, drawMs });
    const { inView, drawn } = arrows;
    const told = state.arrows.peek();
    if (told.inView !== inView || told.drawn !== drawn) state.arrows.value = { inView, drawn };
    if (going) this.invalidate();
    else if (moving) this.#settleSoon();
  }

  #settleSoon(): void {
    clearTimeout(this.#settle);
    this.#settle = setTimeout(() => this.invalidate(), SETTLE_MS + 10);
  }

  /** What a frame took, for tests and for whoever looks: attributes of the canvas. */
  #report(counts: Readonly<Record<string, number>>): void {
    const { dataset } = this.#elements.lanes;
    for (const [name, count] of Object.entries(counts)) dataset[name] = String(count);
    dataset.frames = String(Number(dataset.frames ?? 0) + 1);
    dataset.startUs = String(this.#view.startUs);
    dataset.endUs = String(this.#view.endUs);
  }

  #drawHead(frame: SurfaceFrame): void {
    const { overlap } = this.state.data;
    this.#headPainter.paint(frame, {
      theme: this.#theme,
      overlap,
      view: this.#view,
      range: this.state.range.peek(),
      marks: this.state.marks.peek(),
      cursorUs: this.#cursorUs,
    });
  }

  #drawOverview(frame: SurfaceFrame): void {
    this.#overviewPainter.paint(frame, {
      theme: this.#theme,
      overlap: this.state.data.overlap,
      whole: this.#whole,
      view: this.#view,
      range: this.state.range.peek(),
    });
  }
}
