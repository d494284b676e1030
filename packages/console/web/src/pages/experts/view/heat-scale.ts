// The scale of the heat map: load ÷ mean as a colour, diverging around 1. Steps are ratios, so that
// half the mean is as far from it as twice the mean; both maps share one scale.

import { mix, type Rgb } from "../../../ui/colors.ts";

/** Colours of a scale: below the mean, at it, above it, far above it. */
export interface HeatColors {
  readonly low: Rgb;
  readonly middle: Rgb;
  readonly high: Rgb;
  readonly top: Rgb;
}

/** Ratios that a scale may end at, so that it does not change with every digit. */
const ends = [1.05, 1.1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 12, 16, 32, 64];

/**
 * The end of the scale: the next round ratio above what the fullest GPUs of the layers have in the
 * mean. A single layer beyond it is as red as can be; its readout tells the number.
 */
export function scaleEnd(ratio: number): number {
  return ends.find((end) => end >= ratio * 0.999) ?? 2 ** Math.ceil(Math.log2(ratio));
}

/** Place of a ratio on the scale: −1 at 1 ÷ end or below, 0 at the mean, 1 at the end. */
export function placeOf(ratio: number, end: number): number {
  if (!(ratio > 0)) return -1;
  return Math.min(1, Math.max(-1, Math.log(ratio) / Math.log(end)));
}

/** The colour of a place. */
export function heatColor(place: number, { low, middle, high, top }: HeatColors): Rgb {
  if (place <= 0) return mix(low, middle, -place);
  return place < 0.5 ? mix(high, middle, place * 2) : mix(top, high, place * 2 - 1);
}

/** Ratios that the legend names. */
export function legendRatios(end: number): readonly number[] {
  return [1 / end, 1 / Math.sqrt(end), 1, Math.sqrt(end), end];
}
