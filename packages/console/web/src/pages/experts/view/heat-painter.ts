// Draws one heat map. What it draws is given; it keeps nothing.

import type { SurfaceFrame } from "../../../ui/canvas-surface.ts";
import { cssOf, type Rgb } from "../../../ui/colors.ts";
import { tokenReader } from "../../../ui/tokens.ts";
import type { Side } from "../compute.ts";
import { columnLeft, type HeatCell, type HeatLayout, heatLayout } from "./heat-layout.ts";
import { type HeatColors, heatColor, placeOf } from "./heat-scale.ts";

export interface HeatTheme extends HeatColors {
  readonly panel: Rgb;
  readonly ink: string;
  readonly quiet: string;
  readonly mono: string;
}

/** Reads the theme that holds for an element. */
export function readHeatTheme(element: Element): HeatTheme {
  const token = tokenReader(element);
  return {
    low: token("work-attention"),
    middle: token("ground"),
    high: token("work-dispatch"),
    top: token("alert"),
    panel: token("panel"),
    ink: cssOf(token("ink")),
    quiet: cssOf(token("ink-3")),
    mono: getComputedStyle(element).getPropertyValue("--mono").trim() || "monospace",
  };
}

export interface HeatPicture {
  readonly side: Side;
  readonly shape: { readonly numGpus: number; readonly numNodes: number };
  readonly end: number;
  readonly layer: number;
  readonly cell: HeatCell | null;
  /** Slots that get new weights, marked by a dot in their cell; undefined to mark none. */
  readonly moved: Uint8Array | undefined;
}

/** Load ÷ mean of a cell; 1 where there is no load. */
export function ratioOf(side: Side, layer: number, gpu: number): number {
  const balance = side.report.layers[layer];
  if (balance === undefined || balance.meanLoad === 0) return 1;
  return (balance.gpuLoads[gpu] as number) / balance.meanLoad;
}

function drawCells(
  { context }: SurfaceFrame,
  layout: HeatLayout,
  picture: HeatPicture,
  theme: HeatTheme,
): void {
  const { side, end } = picture;
  const hair = layout.rowHeight >= 8 && layout.columnWidth >= 8 ? 1 : 0;
  for (let layer = 0; layer < layout.numLayers; layer++) {
    const top = Math.round(layout.top + layer * layout.rowHeight);
    const bottom = Math.round(layout.top + (layer + 1) * layout.rowHeight) - hair;
    let drawnTo = Number.NEGATIVE_INFINITY;
    let most = 0;
    for (let gpu = 0; gpu < layout.numGpus; gpu++) {
      const left = Math.round(columnLeft(layout, gpu));
      const right = Math.round(columnLeft(layout, gpu) + layout.columnWidth) - hair;
      const ratio = ratioOf(side, layer, gpu);
      // Of GPUs that share a pixel the fullest is shown.
      most = left >= drawnTo ? ratio : Math.max(most, ratio);
      context.fillStyle = cssOf(heatColor(placeOf(most, end), theme));
      context.fillRect(left, top, Math.max(1, right - left), bottom - top);
      drawnTo = Math.max(drawnTo, left + 1);
    }
  }
}

/** A dot in every cell of which a slot has moved. */
function drawMoves(
  { context, scale }: SurfaceFrame,
  layout: HeatLayout,
  moved: Uint8Array,
  theme: HeatTheme,
): void {
  const size = Math.max(2, Math.round(2 * scale));
  if (layout.columnWidth < 3 * size || layout.rowHeight < 2 * size) return;
  const perGpu = moved.length / (layout.numLayers * layout.numGpus);
  context.fillStyle = theme.ink;
  for (let at = 0; at < moved.length; at += perGpu) {
    if (moved.indexOf(1, at) < 0) return;
    if (!moved.subarray(at, at + perGpu).includes(1)) continue;
    const cell = at / perGpu;
    const x = columnLeft(layout, cell % layout.numGpus) + layout.columnWidth / 2;
    const y = layout.top + (Math.floor(cell / layout.numGpus) + 0.5) * layout.rowHeight;
    context.fillRect(Math.round(x - size / 2), Math.round(y - size / 2 - 0.5), size, size);
  }
}

function drawLabels(
  frame: SurfaceFrame,
  layout: HeatLayout,
  picture: HeatPicture,
  theme: HeatTheme,
): void {
  const { context, scale } = frame;
  context.font = `${10.5 * scale}px ${theme.mono}`;
  context.fillStyle = theme.quiet;
  context.textBaseline = "middle";
  context.textAlign = "right";
  const every = Math.max(1, Math.ceil((14 * scale) / layout.rowHeight));
  const step = every === 1 ? 1 : Math.ceil(every / 5) * 5;
  for (let layer = 0; layer < layout.numLayers; layer += step) {
    const y = layout.top + (layer + 0.5) * layout.rowHeight;
    context.fillText(String(layer), layout.left - 6 * scale, y);
  }
  context.textAlign = "left";
  const nodes = layout.numGpus / layout.gpusPerNode;
  const nodeWidth = layout.gpusPerNode * layout.columnWidth + layout.nodeGap;
  const skip = Math.max(1, Math.ceil((52 * scale) / nodeWidth));
  for (let node = 0; node < nodes; node += skip) {
    const x = columnLeft(layout, node * layout.gpusPerNode);
    context.fillText(nodes === 1 ? `${picture.shape.numGpus} GPUs` : `node ${node}`, x, 8 * scale);
  }
}

/** Draws a map, the chosen layer framed, the pointed-at cell outlined. */
export function paintHeat(frame: SurfaceFrame, picture: HeatPicture, theme: HeatTheme): void {
  const { context, width, height, scale } = frame;
  const layout = heatLayout(width, scale, picture.shape, picture.side.report.layers.length);
  context.fillStyle = cssOf(theme.panel);
  context.fillRect(0, 0, width, height);
  drawCells(frame, layout, picture, theme);
  if (picture.moved !== undefined) drawMoves(frame, layout, picture.moved, theme);
  drawLabels(frame, layout, picture, theme);
  context.strokeStyle = theme.ink;
  context.fillStyle = theme.ink;
  const top = layout.top + picture.layer * layout.rowHeight;
  // A mark beside the chosen layer, on the right and in the gutter.
  context.fillRect(
    layout.left - 4 * scale,
    Math.round(top),
    2 * scale,
    Math.max(2, layout.rowHeight - 1),
  );
  if (picture.cell === null) return;
  const { layer, gpu } = picture.cell;
  const x = Math.round(columnLeft(layout, gpu));
  const y = Math.round(layout.top + layer * layout.rowHeight);
  context.lineWidth = Math.max(1, Math.round(1.5 * scale));
  const wide = Math.max(layout.columnWidth, 3 * scale);
  context.strokeRect(x - 0.5, y - 0.5, Math.round(wide), Math.round(layout.rowHeight));
}
