// The tokens as the pipeline's canvases need them. A backward whole is the darker of its kind, the
// other direction the paler of two.

import { OpKind } from "@open-infra/dualpipe";
import { cssOf, inkOn, mix, type Rgb } from "../../../ui/colors.ts";
import { tokenReader } from "../../../ui/tokens.ts";

export interface Paint {
  readonly fill: string;
  readonly ink: string;
}

export interface PipelineTheme {
  /** [kind][direction] for F, B, I, W; pairs are drawn as two halves, or as `pair` when narrow. */
  readonly cells: readonly (readonly [Paint, Paint])[];
  readonly pair: Paint;
  readonly panel: string;
  readonly track: string;
  readonly line: string;
  readonly ink: string;
  readonly quiet: string;
  readonly critical: string;
  readonly transfer: Readonly<Record<"forward" | "backward", string>>;
  readonly memory: string;
  readonly over: string;
  readonly peak: string;
  readonly mono: string;
}

const darkInk: Rgb = [10, 18, 17];
const lightInk: Rgb = [244, 249, 247];

/** Share of a colour that the second direction keeps. */
const PALER = 0.58;

/** Reads the theme that holds for an element. */
export function readPipelineTheme(element: Element): PipelineTheme {
  const token = tokenReader(element);
  const panel = token("panel");
  const paint = (color: Rgb): Paint => ({
    fill: cssOf(color),
    ink: cssOf(inkOn(color, darkInk, lightInk)),
  });
  const both = (color: Rgb): readonly [Paint, Paint] => [
    paint(color),
    paint(mix(color, panel, PALER)),
  ];
  const backward = token("work-backward");
  const cells: (readonly [Paint, Paint])[] = [];
  cells[OpKind.F] = both(token("work-forward"));
  cells[OpKind.B] = both(backward);
  cells[OpKind.I] = both(mix(backward, token("work-plain-2"), 0.5));
  cells[OpKind.W] = both(token("work-weight"));
  return {
    cells,
    pair: paint(token("work-overlapped")),
    panel: cssOf(panel),
    track: cssOf(token("sunken")),
    line: cssOf(token("line")),
    ink: cssOf(token("ink")),
    quiet: cssOf(token("ink-3")),
    critical: cssOf(token("alert")),
    transfer: { forward: cssOf(token("ink")), backward: cssOf(token("second")) },
    memory: cssOf(mix(token("work-memory"), panel, 0.7)),
    over: cssOf(token("alert")),
    peak: cssOf(token("ink")),
    mono: getComputedStyle(element).getPropertyValue("--mono").trim() || "monospace",
  };
}
