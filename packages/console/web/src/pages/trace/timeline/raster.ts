// Draws one row of slices into one line of pixels. However many slices a row has, a pixel is
// decided once: where several share one, its colour is that of the longest and its strength the
// share of the pixel they cover, both found without walking them. So a frame costs rows × pixels,
// not events. It writes numbers into an array; what they are painted on is not its business.

import { firstAbove, firstAtLeast, longestSlot, type SliceRows } from "./rows.ts";

/** Steps from the background to the full colour. */
export const SHADES = 32;

/** The weakest shade of a pixel that is not empty, so that a lone short kernel can be seen. */
const FAINTEST = 15;

/** Device pixels from which a slice ends in a gap, so that equal neighbours stay apart. */
const GAP_FROM_PX = 5;
/** Shade of that gap. */
const GAP_SHADE = 8;
/** Slices from this width on are one rectangle each; narrower ones share pixels. */
const OWN_RECT_PX = 2;

/** The visible part of time on a line of device pixels. */
export interface LineView {
  readonly startUs: number;
  readonly usPerPx: number;
  readonly widthPx: number;
}

/** Slices wide enough to carry their name; filled by `rasterRow`, reused by the caller. */
export class LabelList {
  readonly slots: number[] = [];
  readonly left: number[] = [];
  readonly right: number[] = [];

  clear(): void {
    this.slots.length = 0;
    this.left.length = 0;
    this.right.length = 0;
  }
}

export interface RowRaster {
  readonly rows: SliceRows;
  readonly view: LineView;
  /** Colour index of a slot. */
  readonly colorOf: Uint8Array;
  /** Colour `c` on a share of a pixel: `shades[c * SHADES + round(share * (SHADES − 1))]`. */
  readonly shades: Uint32Array;
  /** One line of pixels; holds the background and is painted over. */
  readonly line: Uint32Array;
  /** Takes the slices at least `labelFromPx` wide. */
  readonly labels?: LabelList;
  readonly labelFromPx?: number;
}

/** Paints a row and returns how many rectangles it took: at most 1.5 a pixel. */
export function rasterRow(raster: RowRaster, row: number): number {
  const { rows, view } = raster;
  const { start, end } = rows;
  const { startUs, usPerPx, widthPx } = view;
  const first = rows.rowOffset[row] as number;
  const last = rows.rowOffset[row + 1] as number;
  let slot = firstAbove(end, startUs, first, last);
  let rectangles = 0;
  while (slot < last) {
    const left = ((start[slot] as number) - startUs) / usPerPx;
    if (left >= widthPx) break;
    const right = ((end[slot] as number) - startUs) / usPerPx;
    if (right - left >= OWN_RECT_PX) {
      paintWide(raster, slot, left, right);
      slot++;
    } else {
      const pixel = Math.max(0, Math.floor(left));
      const before = slot > first ? (end[slot - 1] as number) : -Infinity;
      slot = paintShared(raster, { slot, last, pixel, before });
    }
    rectangles++;
  }
  return rectangles;
}

function paintWide(raster: RowRaster, slot: number, left: number, right: number): void {
  const { line, shades, colorOf, view, labels, labelFromPx } = raster;
  const from = Math.max(0, Math.round(left));
  const to = Math.min(view.widthPx, Math.max(from + 1, Math.round(right)));
  const full = (colorOf[slot] as number) * SHADES + SHADES - 1;
  line.fill(shades[full] as number, from, to);
  if (right - left >= GAP_FROM_PX && right <= view.widthPx) {
    line[to - 1] = shades[full - SHADES + GAP_SHADE] as number;
  }
  if (labels !== undefined && to - from >= (labelFromPx ?? Infinity)) {
    labels.slots.push(slot);
    labels.left.push(from);
    labels.right.push(to);
  }
}

interface SharedPixel {
  readonly slot: number;
  /** End of the row's slots. */
  readonly last: number;
  readonly pixel: number;
  /** When the slot before ended, which may be inside this pixel. */
  readonly before: number;
}

/** Paints the pixel that `slot` begins in and returns the first slot that begins after it. */
function paintShared(raster: RowRaster, { slot, last, pixel, before }: SharedPixel): number {
  const { rows, view, line, shades, colorOf } = raster;
  const { start, end, busyBefore } = rows;
  const pixelUs = view.startUs + pixel * view.usPerPx;
  const pixelEndUs = pixelUs + view.usPerPx;
  let next = gallop(start, pixelEndUs, slot, last);
  // A wide slice that begins in this pixel gets its own rectangle.
  const lastUs = (end[next - 1] as number) - (start[next - 1] as number);
  if (next - 1 > slot && lastUs >= OWN_RECT_PX * view.usPerPx) next--;
  const tail = next - 1;
  const covered =
    Math.max(0, before - pixelUs) +
    (busyBefore[tail] as number) -
    (busyBefore[slot] as number) -
    Math.max(0, pixelUs - (start[slot] as number)) +
    Math.min(pixelEndUs, end[tail] as number) -
    (start[tail] as number);
  const longest = longestSlot(rows, slot, next);
  const color = (colorOf[longest] as number) * SHADES;
  line[pixel] = shades[color + shadeOf(covered / view.usPerPx)] as number;
  // The rest of a slice that reaches into the next pixel; painted over if more begins there.
  const restUs = (end[tail] as number) - pixelEndUs;
  if (restUs > 0 && pixel + 1 < view.widthPx) {
    const tailColor = (colorOf[tail] as number) * SHADES;
    line[pixel + 1] = shades[tailColor + shadeOf(restUs / view.usPerPx)] as number;
  }
  return next;
}

function shadeOf(share: number): number {
  return Math.max(FAINTEST, Math.min(SHADES - 1, Math.round(share * (SHADES - 1))));
}

/** The first slot from `from` on that starts at `boundUs` or later; near ones are found at once. */
function gallop(start: Float64Array, boundUs: number, from: number, last: number): number {
  let step = 1;
  let low = from + 1;
  while (low + step < last && (start[low + step] as number) < boundUs) {
    low += step;
    step *= 2;
  }
  return firstAtLeast(start, boundUs, low, Math.min(last, low + step + 1));
}

/**
 * Paints found slices over a row, each at least a pixel wide, so that none is lost among others.
 * `matches` are slots in order; those of the row are `low` up to `high`. Returns the rectangles.
 */
export function rasterMatches(
  raster: RowRaster,
  matches: Uint32Array,
  low: number,
  high: number,
): number {
  const { rows, view, line, shades, colorOf } = raster;
  const { startUs, usPerPx, widthPx } = view;
  let index = firstMatch(matches, rows.end, startUs, low, high);
  let rectangles = 0;
  while (index < high) {
    const slot = matches[index] as number;
    const left = ((rows.start[slot] as number) - startUs) / usPerPx;
    if (left >= widthPx) break;
    const from = Math.max(0, Math.floor(left));
    const to = Math.max(from + 1, Math.round(((rows.end[slot] as number) - startUs) / usPerPx));
    const shade = (colorOf[slot] as number) * SHADES + SHADES - 1;
    line.fill(shades[shade] as number, from, Math.min(to, widthPx));
    rectangles++;
    const paintedUs = startUs + to * usPerPx;
    const next = firstMatch(matches, rows.start, paintedUs, index + 1, high);
    // A neighbour that begins in the last painted pixel and leaves it must not be lost.
    const last = matches[next - 1] as number;
    index = next > index + 1 && (rows.end[last] as number) > paintedUs ? next - 1 : next;
  }
  return rectangles;
}

/** The first of the matches in `[low, high)` whose value is `boundUs` or above. */
function firstMatch(
  matches: Uint32Array,
  values: Float64Array,
  boundUs: number,
  low: number,
  high: number,
): number {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[matches[middle] as number] as number) >= boundUs) high = middle;
    else low = middle + 1;
  }
  return low;
}
