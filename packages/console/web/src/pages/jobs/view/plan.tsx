// The plan as boxes: each step with how far it is, fed by the steps it reads.

import {
  boxHeight,
  boxWidth,
  layoutPlan,
  type PlacedStep,
  planCurve,
  type StepView,
} from "@open-infra/smallpond/live";
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { formatCount } from "../../../ui/format.ts";
import type { Shown } from "../session.ts";

/** Characters of a step's text in its box; the whole of it is in the tip. */
const textMax = 25;

/** Steps of all actions so far. */
export function PlanGraph({ shown }: { readonly shown: Shown }): VNode {
  const [chosen, choose] = useState("");
  const { steps, lines, width, height } = layoutPlan([...shown.view.steps.values()]);
  const told = shown.view.steps.get(chosen);
  return (
    <section class="bench-card" aria-label="Plan">
      <header>
        <h2>Plan</h2>
        <p>Left to right; a bar is the part of a step's tasks that is done.</p>
      </header>
      <div class="plan-scroll">
        <svg width={width} height={height} role="presentation">
          <g role="tree" aria-label="Steps of the plan">
            {lines.map(({ from, to }) => (
              <path
                key={`${from.step.node} ${to.step.node}`}
                class="plan-line"
                d={planCurve(from, to)}
              />
            ))}
            {steps.map((placed) => (
              <Box key={placed.step.node} placed={placed} choose={choose} />
            ))}
          </g>
        </svg>
      </div>
      <p class="bench-readout jobs-readout">{told === undefined ? " " : sentenceOf(told)}</p>
    </section>
  );
}

/** What a step is at. */
export function stateOf(step: StepView): string {
  if (step.failed > 0) return "failed";
  if (step.running > 0) return "running";
  // Steps without tasks of their own are done by being there.
  return step.done >= step.tasks ? "done" : "waiting";
}

/** A step in words, with its whole query. */
function sentenceOf({ node, text, source }: StepView): string {
  const place = source.slice(source.lastIndexOf("/") + 1);
  return [node, place === "" ? "" : ` at ${place}`, text === "" ? "" : `: ${text}`].join("");
}

interface BoxProps {
  readonly placed: PlacedStep<StepView>;
  readonly choose: (node: string) => void;
}

function Box({ placed: { step, x, y }, choose }: BoxProps): VNode {
  const { node, tasks, done, rows, text, source } = step;
  const all = Math.max(tasks, done);
  const share = all === 0 ? 1 : done / all;
  const short = text.length > textMax ? `${text.slice(0, textMax - 1)}…` : text;
  const count = all === 0 ? "" : `${formatCount(done)}/${formatCount(all)}`;
  const facts = rows > 0 ? `${count}  ${formatCount(rows)} rows` : count;
  return (
    <g
      class="plan-box"
      role="treeitem"
      tabIndex={0}
      aria-label={`${node}, ${stateOf(step)}, ${facts === "" ? "no tasks" : facts}`}
      data-state={stateOf(step)}
      transform={`translate(${x} ${y})`}
      onFocus={() => choose(node)}
      onPointerEnter={() => choose(node)}
    >
      <title>{[node, text, source].filter((line) => line !== "").join("\n")}</title>
      <rect class="plan-frame" width={boxWidth} height={boxHeight} rx="4" />
      <text class="plan-name" x="10" y="18">
        {node}
      </text>
      <text class="plan-text" x="10" y="34">
        {short}
      </text>
      <text class="plan-facts" x="10" y="49">
        {facts}
      </text>
      <rect class="plan-bar" y={boxHeight - 3} width={boxWidth * share} height="3" />
    </g>
  );
}
