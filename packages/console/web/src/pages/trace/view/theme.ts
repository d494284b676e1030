// The tokens as the timeline needs them: tables of pixels for every kind of work and every share of
// a pixel, and inks for names. Made anew when the colour scheme changes.

import { cssOf, inkOn, mix, pixelOf, type Rgb } from "../../../ui/colors.ts";
import { tokenReader } from "../../../ui/tokens.ts";
import { workKinds } from "../timeline/palette.ts";
import { SHADES } from "../timeline/raster.ts";

export interface TimelineTheme {
  readonly background: number;
  readonly grid: number;
  /** Head of a process. */
  readonly head: number;
  readonly line: number;
  /** `workKinds × SHADES` pixels, from the background to the kind's colour. */
  readonly shades: Uint32Array;
  /** The same, stepped back, for what a search or the legend leaves out. */
  readonly faded: Uint32Array;
  /** Names on slices, a CSS colour a kind. */
  readonly inks: readonly string[];
  readonly fadedInk: string;
  readonly ink: string;
  readonly inkQuiet: string;
  readonly accent: string;
  readonly select: string;
  readonly mark: string;
  readonly panel: string;
  readonly band: {
    readonly computation: Uint32Array;
    readonly both: Uint32Array;
    readonly exposed: Uint32Array;
  };
  readonly counter: Uint32Array;
  readonly mono: string;
}

/** How far what is left out steps back. */
const FADED = 0.28;

/** Reads the theme that holds for an element. */
export function readTheme(element: Element): TimelineTheme {
  const token = tokenReader(element);
  const background = token("panel");
  const ink = token("ink");
  const colors = workKinds.map((kind) => token(kind.token));
  return {
    background: pixelOf(background),
    grid: pixelOf(mix(token("line"), background, 0.7)),
    head: pixelOf(token("sunken")),
    line: pixelOf(token("line")),
    shades: shadeTable(colors, background, 1),
    faded: shadeTable(colors, background, FADED),
    inks: colors.map((color) => cssOf(inkOn(color, [10, 18, 17], [244, 249, 247]))),
    fadedInk: cssOf(mix(token("ink-3"), background, 0.75)),
    ink: cssOf(ink),
    inkQuiet: cssOf(token("ink-3")),
    accent: cssOf(token("accent")),
    select: cssOf(ink),
    mark: cssOf(token("second")),
    panel: cssOf(background),
    band: {
      both: shadeTable([token("accent")], background, 1),
      computation: shadeTable([token("work-compute")], background, 1),
      exposed: shadeTable([token("alert")], background, 1),
    },
    counter: shadeTable([token("work-attention")], background, 1),
    mono: getComputedStyle(element).getPropertyValue("--mono").trim() || "monospace",
  };
}

function shadeTable(colors: readonly Rgb[], background: Rgb, strength: number): Uint32Array {
  const table = new Uint32Array(colors.length * SHADES);
  for (const [index, color] of colors.entries()) {
    for (let shade = 0; shade < SHADES; shade++) {
      const share = (shade / (SHADES - 1)) * strength;
      table[index * SHADES + shade] = pixelOf(mix(color, background, share));
    }
  }
  return table;
}

/** The faded table with one kind left at its strength. */
export function emphasize(theme: TimelineTheme, kind: number): Uint32Array {
  const table = theme.faded.slice();
  const from = kind * SHADES;
  table.set(theme.shades.subarray(from, from + SHADES), from);
  return table;
}
