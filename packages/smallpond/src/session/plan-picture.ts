// The steps of a job as pictures for its log: Graphviz text, and an SVG that needs no Graphviz.

import { basename } from "node:path";
import type { StepLine } from "../live/log-lines.ts";
import { boxHeight, boxWidth, layoutPlan, planCurve } from "../live/plan-layout.ts";

/** Characters of a text that fit a box. */
const textMax = 26;

const facts = ({ tasks, source }: StepLine): string =>
  [`${tasks} ${tasks === 1 ? "task" : "tasks"}`, basename(source)].filter(Boolean).join(", ");

const cut = (text: string): string => {
  const line = text.replace(/\s+/g, " ");
  return line.length > textMax ? `${line.slice(0, textMax - 1)}…` : line;
};

/** For `dot -Tsvg`. */
export function stepsDot(steps: readonly StepLine[]): string {
  const quoted = (text: string): string => `"${text.replaceAll(/["\\]/g, "\\$&")}"`;
  const known = new Set(steps.map(({ node }) => node));
  const boxes = steps.map((step) => {
    const lines = [step.node, cut(step.text), facts(step)].filter((line) => line !== "");
    return `  ${quoted(step.node)} [label=${lines.map(quoted).join(' + "\\n" + ')}];`;
  });
  const arrows = steps.flatMap(({ node, inputs }) =>
    inputs.filter((input) => known.has(input)).map((i) => `  ${quoted(i)} -> ${quoted(node)};`),
  );
  return ["digraph job {", "  rankdir=LR;", "  node [shape=box];", ...boxes, ...arrows, "}\n"].join(
    "\n",
  );
}

const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
const escaped = (text: string): string => text.replace(/[&<>]/g, (c) => entities[c] ?? c);

/** The same picture as the console's page draws. */
export function stepsSvg(steps: readonly StepLine[]): string {
  const { steps: placed, lines, width, height } = layoutPlan(steps);
  const paths = lines.map(({ from, to }) => `<path d="${planCurve(from, to)}"/>`);
  const boxes = placed.map(({ step, x, y }) => {
    const texts = [step.node, cut(step.text), facts(step)].map(
      (text, i) => `<text x="10" y="${18 + 16 * i}">${escaped(text)}</text>`,
    );
    const tip = `<title>${escaped(`${step.node}\n${step.text}\n${step.source}`)}</title>`;
    const frame = `<rect width="${boxWidth}" height="${boxHeight}" rx="4"/>`;
    return `<g transform="translate(${x} ${y})">${tip}${frame}${texts.join("")}</g>`;
  });
  const style =
    "rect{fill:#fff;stroke:#999}path{fill:none;stroke:#999}text{font:11px monospace;fill:#222}";
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">`,
    `<style>${style}</style>`,
    ...[...paths, ...boxes, "</svg>\n"],
  ].join("\n");
}
