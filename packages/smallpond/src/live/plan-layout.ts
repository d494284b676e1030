// Where the boxes of a plan go: a column for each depth, inputs left of their users, in the order
// of what they read so that few lines cross. Pure numbers.

import type { StepLine } from "./log-lines.ts";

/** A box with its place. */
export interface PlacedStep<Step extends StepLine = StepLine> {
  readonly step: Step;
  readonly x: number;
  readonly y: number;
}

/** Boxes, lines between them, and the room they take. */
export interface PlanLayout<Step extends StepLine = StepLine> {
  readonly steps: readonly PlacedStep<Step>[];
  readonly lines: readonly { readonly from: PlacedStep<Step>; readonly to: PlacedStep<Step> }[];
  readonly width: number;
  readonly height: number;
}

/** Of a box, in pixels. */
export const boxWidth = 196;
/** Of a box, in pixels. */
export const boxHeight = 58;
const gapX = 44;
const gapY = 14;
const margin = 2;

/** Lays steps out. A step that reads itself, which no plan has, would be drawn once. */
export function layoutPlan<Step extends StepLine>(steps: readonly Step[]): PlanLayout<Step> {
  const byName = new Map(steps.map((step) => [step.node, step]));
  const depths = new Map<string, number>();
  const depthOf = (name: string): number => {
    const known = depths.get(name);
    if (known !== undefined) return known;
    depths.set(name, 0);
    const inputs = (byName.get(name)?.inputs ?? []).filter((input) => byName.has(input));
    const depth = inputs.reduce((most, input) => Math.max(most, depthOf(input) + 1), 0);
    depths.set(name, depth);
    return depth;
  };
  pullSources(steps, depths, depthOf);
  const columns: Step[][] = [];
  for (const step of steps) {
    const depth = depthOf(step.node);
    (columns[depth] ??= []).push(step);
  }
  const placed = new Map<string, PlacedStep<Step>>();
  columns.forEach((column, depth) => {
    const wish = (step: Step): number => {
      const rows = step.inputs.map((input) => placed.get(input)?.y).filter((y) => y !== undefined);
      // What reads nothing goes below the others.
      return rows.length === 0
        ? Number.MAX_VALUE
        : rows.reduce((sum, y) => sum + y, 0) / rows.length;
    };
    const ordered = column.map((step) => ({ step, at: wish(step) })).sort((a, b) => a.at - b.at);
    ordered.forEach(({ step }, row) => {
      const x = margin + depth * (boxWidth + gapX);
      placed.set(step.node, { step, x, y: margin + row * (boxHeight + gapY) });
    });
  });
  const all = [...placed.values()];
  const lines = all.flatMap((to) =>
    to.step.inputs.flatMap((input) => {
      const from = placed.get(input);
      return from === undefined ? [] : [{ from, to }];
    }),
  );
  const width = all.reduce((most, { x }) => Math.max(most, x + boxWidth), 0) + margin;
  const height = all.reduce((most, { y }) => Math.max(most, y + boxHeight), 0) + margin;
  return { steps: all, lines, width, height };
}

/** What reads nothing goes right beside its first user, so that its line crosses no other box. */
function pullSources(
  steps: readonly StepLine[],
  depths: Map<string, number>,
  depthOf: (name: string) => number,
): void {
  const first = new Map<string, number>();
  for (const { node, inputs } of steps) {
    const depth = depthOf(node);
    for (const input of inputs) first.set(input, Math.min(first.get(input) ?? depth, depth));
  }
  for (const { node, inputs } of steps) {
    const user = first.get(node);
    if (inputs.length === 0 && user !== undefined) depths.set(node, user - 1);
  }
}

/** An SVG path from a box to one that reads it. */
export function planCurve(from: PlacedStep, to: PlacedStep): string {
  const [x1, y1] = [from.x + boxWidth, from.y + boxHeight / 2];
  const [x2, y2] = [to.x, to.y + boxHeight / 2];
  const bend = Math.max(16, (x2 - x1) / 2);
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}
