// The whole trace in a strip, with the visible part in a frame. Drawn from the same sets as the
// band; dragging in it is the controller's business.

import type { SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { type OverlapSets, rasterBand } from "../timeline/overlap.ts";
import type { TimeRange } from "../timeline/viewport.ts";
import { xOf } from "./overlay.ts";
import { lineView } from "./painter.ts";
import type { TimelineTheme } from "./theme.ts";

export interface OverviewInput {
  readonly theme: TimelineTheme;
  readonly overlap: OverlapSets;
  /** All there is. */
  readonly whole: TimeRange;
  readonly view: TimeRange;
  readonly range: TimeRange | null;
}

/** Keeps the picture of the whole trace until its size or its colours change. */
export class OverviewPainter {
  #image: ImageData | undefined;
  #theme: TimelineTheme | undefined;

  paint(frame: SurfaceFrame, input: OverviewInput): void {
    const { context, width, height, scale } = frame;
    const { theme, whole, view, range } = input;
    if (this.#image?.width !== width || this.#image.height !== height || this.#theme !== theme) {
      this.#image = new ImageData(width, height);
      this.#theme = theme;
      const pixels = new Uint32Array(this.#image.data.buffer);
      pixels.fill(theme.background);
      const target = { pixels, topPx: 0, heightPx: height };
      rasterBand(input.overlap, lineView(whole, width), theme.band, target);
    }
    context.putImageData(this.#image, 0, 0);
    const left = xOf(frame, whole, view.startUs);
    const right = Math.max(xOf(frame, whole, view.endUs), left + 2 * scale);
    context.fillStyle = theme.panel;
    context.globalAlpha = 0.68;
    context.fillRect(0, 0, left, height);
    context.fillRect(right, 0, width - right, height);
    context.globalAlpha = 1;
    context.fillStyle = theme.ink;
    const edge = Math.max(1, Math.round(scale));
    context.fillRect(left, 0, edge, height);
    context.fillRect(right - edge, 0, edge, height);
    context.fillRect(left, 0, right - left, edge);
    context.fillRect(left, height - edge, right - left, edge);
    if (range === null) return;
    context.fillStyle = theme.accent;
    const from = xOf(frame, whole, range.startUs);
    context.fillRect(from, height - 3 * scale, xOf(frame, whole, range.endUs) - from, 3 * scale);
  }
}
