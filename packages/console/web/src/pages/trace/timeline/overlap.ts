// What the devices did in a window: computed, communicated, both at once, or neither. The sets are
// the analyser's, so a window over the whole trace gives its figures.

import { coveredIn, type Density } from "./intervals.ts";
import { type LineView, SHADES } from "./raster.ts";

/** When devices computed, communicated, did both at once, and were busy at all. */
export interface OverlapSets {
  /** Devices the sets are stacked of. */
  readonly devices: number;
  readonly computation: Density;
  readonly communication: Density;
  readonly both: Density;
  readonly busy: Density;
}

/** Times in µs, summed over the devices. */
export interface OverlapFigures {
  readonly spanUs: number;
  readonly busyUs: number;
  readonly computationUs: number;
  readonly communicationUs: number;
  readonly overlapUs: number;
  /** Communication with no computation beside it. */
  readonly exposedUs: number;
  /** Share of the communication that is hidden; NaN without communication. */
  readonly hiddenShare: number;
}

/** The figures of a window. */
export function overlapIn(sets: OverlapSets, startUs: number, endUs: number): OverlapFigures {
  const communicationUs = coveredIn(sets.communication, startUs, endUs);
  const overlapUs = coveredIn(sets.both, startUs, endUs);
  return {
    spanUs: (endUs - startUs) * sets.devices,
    busyUs: coveredIn(sets.busy, startUs, endUs),
    computationUs: coveredIn(sets.computation, startUs, endUs),
    communicationUs,
    overlapUs,
    exposedUs: communicationUs - overlapUs,
    hiddenShare: communicationUs > 0 ? overlapUs / communicationUs : Number.NaN,
  };
}

/** Colours of the band, `SHADES` steps each from the background. */
export interface BandShades {
  readonly computation: Uint32Array;
  readonly both: Uint32Array;
  readonly exposed: Uint32Array;
}

/**
 * Paints a block of `heightPx` lines whose every column shows the shares of its pixel of time, over
 * all devices, from the bottom up: both, computation alone, exposed communication. `pixels` holds
 * the background.
 */
export function rasterBand(
  sets: OverlapSets,
  view: LineView,
  shades: BandShades,
  target: { readonly pixels: Uint32Array; readonly topPx: number; readonly heightPx: number },
): void {
  const { pixels, topPx, heightPx } = target;
  const { widthPx, usPerPx, startUs } = view;
  const full = SHADES - 1;
  const pixelUs = usPerPx * Math.max(1, sets.devices);
  for (let x = 0; x < widthPx; x++) {
    const fromUs = startUs + x * usPerPx;
    const toUs = fromUs + usPerPx;
    const both = coveredIn(sets.both, fromUs, toUs) / pixelUs;
    const computation = coveredIn(sets.computation, fromUs, toUs) / pixelUs - both;
    const exposed = coveredIn(sets.communication, fromUs, toUs) / pixelUs - both;
    let y = topPx + heightPx;
    // Exposed communication never shrinks to nothing: it is what the band is for.
    const exposedPx = exposed > 1e-9 ? Math.max(1, Math.round(exposed * heightPx)) : 0;
    const bothPx = Math.min(heightPx - exposedPx, Math.round(both * heightPx));
    const onlyPx = Math.min(heightPx - exposedPx - bothPx, Math.round(computation * heightPx));
    for (let k = 0; k < bothPx; k++) pixels[--y * widthPx + x] = shades.both[full] as number;
    for (let k = 0; k < onlyPx; k++) pixels[--y * widthPx + x] = shades.computation[full] as number;
    for (let k = 0; k < exposedPx; k++) pixels[--y * widthPx + x] = shades.exposed[full] as number;
  }
}
