// Paints the lanes: pixels of slices and counters first, into one buffer that goes to the canvas at
// once, then the names that fit. What it costs depends on the rows and pixels in sight, not on the
// number of events; `PaintCounts` says how much it was.

import type { SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { ticksBetween } from "../../../ui/time-axis.ts";
import { counterLine } from "../timeline/counters.ts";
import { type Band, bandAt, LANE_TOP_PX, type LaneLayout } from "../timeline/lanes.ts";
import { LabelList, type LineView, rasterMatches, rasterRow, SHADES } from "../timeline/raster.ts";
import type { SearchHits } from "../timeline/search.ts";
import { slotName, type TraceData } from "../timeline/trace-data.ts";
import type { TimeRange } from "../timeline/viewport.ts";
import { briefName } from "./brief-name.ts";
import { emphasize, type TimelineTheme } from "./theme.ts";

/** CSS pixels between ticks of the axis at least. */
export const TICK_GAP_PX = 110;
/** CSS pixels from which a slice may carry its name. */
const LABEL_FROM_PX = 26;
const FONT_PX = 10.5;

/** What one frame took. */
export interface PaintCounts {
  readonly rectangles: number;
  readonly rows: number;
  readonly labels: number;
}

export interface PaintInput {
  readonly data: TraceData;
  readonly theme: TimelineTheme;
  readonly layout: LaneLayout;
  readonly view: TimeRange;
  /** CSS pixels scrolled down. */
  readonly scrollTop: number;
  /** Slices found, or null where nothing is searched. */
  readonly hits: SearchHits | null;
  readonly emphasis: number | null;
  /** Names drawn at most, fewer while the view moves. */
  readonly labelBudget: number;
}

/** Keeps the buffers of one canvas between frames. */
export class LanePainter {
  #image: ImageData | undefined;
  #pixels: Uint32Array = new Uint32Array(0);
  #blank: Uint32Array = new Uint32Array(0);
  #line: Uint32Array = new Uint32Array(0);
  #values: Float64Array = new Float64Array(0);
  readonly #labels = new LabelList();
  readonly #names: Map<number, string> = new Map();
  #charWidth = 0;

  paint(frame: SurfaceFrame, input: PaintInput): PaintCounts {
    this.#resize(frame);
    const view = lineView(input.view, frame.width);
    this.#paintGround(view, input.theme, frame.scale);
    const shades = shadesOf(input);
    const names: Name[] = [];
    let rectangles = 0;
    let rows = 0;
    for (const band of visibleBands(input.layout, input.scrollTop, frame)) {
      const counts = this.#paintBand(band, { frame, input, view, shades, names });
      rectangles += counts.rectangles;
      rows += counts.rows;
    }
    frame.context.putImageData(this.#image as ImageData, 0, 0);
    const labels = this.#writeNames(frame, input, names);
    return { rectangles, rows, labels };
  }

  #resize({ width, height }: SurfaceFrame): void {
    if (this.#image?.width === width && this.#image.height === height) return;
    this.#image = new ImageData(width, height);
    this.#pixels = new Uint32Array(this.#image.data.buffer);
    this.#blank = new Uint32Array(width);
    this.#line = new Uint32Array(width);
    this.#values = new Float64Array(width);
  }

  /** The background with a hairline at every tick. */
  #paintGround(view: LineView, theme: TimelineTheme, scale: number): void {
    this.#blank.fill(theme.background);
    const endUs = view.startUs + view.widthPx * view.usPerPx;
    const { timesUs } = ticksBetween(view.startUs, endUs, view.widthPx, TICK_GAP_PX * scale);
    for (const timeUs of timesUs) {
      const x = Math.round((timeUs - view.startUs) / view.usPerPx);
      if (x >= 0 && x < view.widthPx) this.#blank[x] = theme.grid;
    }
    const width = this.#blank.length;
    for (let at = 0; at < this.#pixels.length; at += width) this.#pixels.set(this.#blank, at);
  }

  #paintBand(band: Band, scene: Scene): { rectangles: number; rows: number } {
    const { frame, input } = scene;
    const top = (band.y - input.scrollTop) * frame.scale;
    if (band.kind === "process") {
      const bottom = top + band.height * frame.scale;
      this.#fillLines(top, bottom, input.theme.head);
      this.#fillLines(bottom - 1, bottom, input.theme.line);
      return { rectangles: 2, rows: 0 };
    }
    if (band.kind === "counter") {
      this.#paintCounter(band, scene, top);
      return { rectangles: frame.width, rows: 1 };
    }
    return this.#paintRows(band, scene);
  }

  #paintRows(band: Band, scene: Scene): { rectangles: number; rows: number } {
    const { frame, input, view, shades, names } = scene;
    const { rows, kindOfSlot } = input.data;
    const rowPx = band.rowHeight * frame.scale;
    const top = (band.y + LANE_TOP_PX - input.scrollTop) * frame.scale;
    const labelFromPx = band.folded ? Infinity : LABEL_FROM_PX * frame.scale;
    const labels = this.#labels;
    const line = this.#line;
    const raster = { rows, view, colorOf: kindOfSlot, shades, line, labels, labelFromPx };
    const bright = { ...raster, shades: input.theme.shades };
    let rectangles = 0;
    let painted = 0;
    for (let index = 0; index < band.rowCount; index++) {
      const y = top + index * rowPx;
      if (y + rowPx <= 0 || y >= frame.height) continue;
      const row = band.firstRow + index;
      line.set(this.#blank);
      labels.clear();
      let drawn = rasterRow(raster, row);
      if (input.hits !== null) drawn += paintHits(bright, input.hits, row);
      painted++;
      rectangles += drawn;
      if (drawn === 0) continue;
      const from = Math.max(0, Math.round(y));
      const to = Math.min(frame.height, Math.round(y + rowPx - frame.scale));
      for (let at = from; at < to; at++) this.#pixels.set(line, at * frame.width);
      const middle = (y + y + rowPx - frame.scale) / 2;
      for (let k = 0; k < labels.slots.length; k++) {
        const [slot, left, right] = [labels.slots[k]!, labels.left[k]!, labels.right[k]!];
        names.push({ slot, left, right, middle });
      }
    }
    return { rectangles, rows: painted };
  }

  #paintCounter(band: Band, { frame, input, view }: Scene, top: number): void {
    const track = input.data.counters[band.counter];
    if (track === undefined) return;
    counterLine(track, view, this.#values);
    const { counter } = input.theme;
    const bottom = Math.round(top + (band.height - 5) * frame.scale);
    const room = (band.height - 8) * frame.scale;
    const low = Math.min(0, track.min);
    const span = Math.max(track.max - low, 1e-12);
    const soft = counter[Math.round(SHADES * 0.45)] as number;
    const edge = counter[SHADES - 1] as number;
    for (let x = 0; x < frame.width; x++) {
      const value = this.#values[x] as number;
      if (Number.isNaN(value)) continue;
      const height = Math.max(1, Math.round(((value - low) / span) * room));
      const first = Math.max(0, bottom - height);
      for (let y = first; y < Math.min(bottom, frame.height); y++) {
        this.#pixels[y * frame.width + x] = y === bottom - height ? edge : soft;
      }
    }
  }

  #fillLines(top: number, bottom: number, pixel: number): void {
    const width = this.#blank.length;
    const from = Math.max(0, Math.round(top)) * width;
    const to = Math.max(0, Math.round(bottom)) * width;
    this.#pixels.fill(pixel, from, Math.min(to, this.#pixels.length));
  }

  #writeNames(frame: SurfaceFrame, input: PaintInput, names: readonly Name[]): number {
    const { context, scale } = frame;
    const { theme, data } = input;
    context.font = `${FONT_PX * scale}px ${theme.mono}`;
    context.textBaseline = "middle";
    context.textAlign = "left";
    this.#charWidth = context.measureText("0").width;
    const faded = input.hits !== null || input.emphasis !== null;
    const found = faded && input.hits !== null ? new Set(slotsIn(input.hits, names)) : undefined;
    let written = 0;
    let ink = "";
    for (const { slot, left, right, middle } of names) {
      if (written === input.labelBudget) break;
      const fits = Math.floor((right - left - 7 * scale) / this.#charWidth);
      if (fits < 3) continue;
      const kind = data.kindOfSlot[slot] as number;
      const bright = !faded || found?.has(slot) || kind === input.emphasis;
      const wanted = bright ? (theme.inks[kind] as string) : theme.fadedInk;
      if (wanted !== ink) context.fillStyle = ink = wanted;
      context.fillText(clipText(this.#nameOf(data, slot), fits), left + 4 * scale, middle + 0.5);
      written++;
    }
    return written;
  }

  #nameOf(data: TraceData, slot: number): string {
    const id = data.name[data.rows.event[slot] as number] as number;
    let short = this.#names.get(id);
    if (short === undefined) {
      short = briefName(slotName(data, slot));
      this.#names.set(id, short);
    }
    return short;
  }
}

/** A name to write, in device pixels. */
interface Name {
  readonly slot: number;
  readonly left: number;
  readonly right: number;
  readonly middle: number;
}

interface Scene {
  readonly frame: SurfaceFrame;
  readonly input: PaintInput;
  readonly view: LineView;
  readonly shades: Uint32Array;
  readonly names: Name[];
}

/** A view as a line of so many pixels. */
export function lineView({ startUs, endUs }: TimeRange, widthPx: number): LineView {
  return { startUs, usPerPx: (endUs - startUs) / Math.max(1, widthPx), widthPx };
}

function shadesOf({ theme, hits, emphasis }: PaintInput): Uint32Array {
  if (hits !== null) return theme.faded;
  return emphasis === null ? theme.shades : emphasize(theme, emphasis);
}

function* visibleBands(
  layout: LaneLayout,
  scrollTop: number,
  { height, scale }: SurfaceFrame,
): Generator<Band> {
  const first = Math.max(0, bandAt(layout, Math.max(0, scrollTop)));
  for (let index = first; index < layout.bands.length; index++) {
    const band = layout.bands[index] as Band;
    if (band.y >= scrollTop + height / scale) return;
    yield band;
  }
}

function paintHits(
  raster: Parameters<typeof rasterMatches>[0],
  { slots }: SearchHits,
  row: number,
): number {
  const { rowOffset } = raster.rows;
  const low = firstSlotFrom(slots, rowOffset[row] as number);
  const high = firstSlotFrom(slots, rowOffset[row + 1] as number);
  return low === high ? 0 : rasterMatches(raster, slots, low, high);
}

function firstSlotFrom(slots: Uint32Array, slot: number): number {
  let low = 0;
  let high = slots.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((slots[middle] as number) >= slot) high = middle;
    else low = middle + 1;
  }
  return low;
}

function* slotsIn({ slots }: SearchHits, names: readonly Name[]): Generator<number> {
  for (const { slot } of names) if (slots[firstSlotFrom(slots, slot)] === slot) yield slot;
}

/** The whole name, or what follows its namespaces, or as much of that as fits. */
function clipText(text: string, fits: number): string {
  if (text.length <= fits) return text;
  const last = text.slice(text.lastIndexOf("::") + 2);
  const short = text.includes("::") ? last : text;
  return short.length <= fits ? short : `${short.slice(0, fits - 1)}…`;
}
