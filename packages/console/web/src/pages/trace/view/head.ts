// The fixed head of the timeline: the time axis with marks and the selected range, and under it the
// band that shows what was computed, what was communicated, and what of that was hidden.

import type { SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { formatTick, formatUs, ticksBetween } from "../../../ui/time-axis.ts";
import { type OverlapSets, rasterBand } from "../timeline/overlap.ts";
import type { TimeRange } from "../timeline/viewport.ts";
import { xOf } from "./overlay.ts";
import { lineView, TICK_GAP_PX } from "./painter.ts";
import type { TimelineTheme } from "./theme.ts";

/** CSS pixels of the axis; the band fills the rest. */
export const AXIS_PX = 24;
const BAND_GAP_PX = 3;

export interface HeadInput {
  readonly theme: TimelineTheme;
  readonly overlap: OverlapSets;
  readonly view: TimeRange;
  readonly range: TimeRange | null;
  readonly marks: readonly TimeRange[];
  /** Where the pointer is, or null. */
  readonly cursorUs: number | null;
}

/** Keeps the pixels of the head between frames. */
export class HeadPainter {
  #image: ImageData | undefined;
  #pixels: Uint32Array = new Uint32Array(0);

  paint(frame: SurfaceFrame, input: HeadInput): void {
    const { context, width, height, scale } = frame;
    const { theme, view } = input;
    if (this.#image?.width !== width || this.#image.height !== height) {
      this.#image = new ImageData(width, height);
      this.#pixels = new Uint32Array(this.#image.data.buffer);
    }
    this.#pixels.fill(theme.background);
    const topPx = Math.round((AXIS_PX + BAND_GAP_PX) * scale);
    const heightPx = height - topPx - Math.round(BAND_GAP_PX * scale);
    const target = { pixels: this.#pixels, topPx, heightPx };
    rasterBand(input.overlap, lineView(view, width), theme.band, target);
    context.putImageData(this.#image, 0, 0);
    this.#paintAxis(frame, input);
  }

  #paintAxis(frame: SurfaceFrame, { theme, view, range, marks, cursorUs }: HeadInput): void {
    const { context, width, scale } = frame;
    const axis = AXIS_PX * scale;
    context.font = `${10.5 * scale}px ${theme.mono}`;
    context.textBaseline = "middle";
    context.textAlign = "left";
    const { stepUs, timesUs } = ticksBetween(view.startUs, view.endUs, width, TICK_GAP_PX * scale);
    for (const timeUs of timesUs) {
      const x = Math.round(xOf(frame, view, timeUs));
      context.fillStyle = theme.inkQuiet;
      context.fillRect(x, axis - 5 * scale, scale, 5 * scale);
      context.fillText(formatTick(timeUs, stepUs), x + 4 * scale, axis / 2);
    }
    if (range !== null) this.#paintSpan(frame, view, range, theme.accent, theme);
    for (const mark of marks) this.#paintSpan(frame, view, mark, theme.mark, theme);
    if (cursorUs !== null) {
      context.fillStyle = theme.ink;
      context.fillRect(Math.round(xOf(frame, view, cursorUs)), 0, scale, frame.height);
    }
  }

  /** A span on the axis with its length, where there is room for it. */
  #paintSpan(
    frame: SurfaceFrame,
    view: TimeRange,
    span: TimeRange,
    color: string,
    { panel }: TimelineTheme,
  ): void {
    const { context, scale, width } = frame;
    const left = Math.max(-2, xOf(frame, view, span.startUs));
    const right = Math.min(width + 2, xOf(frame, view, span.endUs));
    if (right < 0 || left > width) return;
    const axis = AXIS_PX * scale;
    context.fillStyle = color;
    context.fillRect(left, axis - 3 * scale, Math.max(scale, right - left), 3 * scale);
    context.fillRect(left, axis / 2, scale, axis / 2);
    context.fillRect(right - scale, axis / 2, scale, axis / 2);
    const text = formatUs(span.endUs - span.startUs);
    const textWidth = context.measureText(text).width;
    if (right - left < textWidth + 16 * scale) return;
    const middle = (left + right) / 2;
    const half = textWidth / 2 + 5 * scale;
    context.fillStyle = panel;
    context.fillRect(middle - half, 2 * scale, 2 * half, axis - 6 * scale);
    context.fillStyle = color;
    context.fillText(text, middle - textWidth / 2, axis / 2 - scale);
  }
}
