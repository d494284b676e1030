// The steps of an action for people: the plan's nodes in the order in which they run, with the
// tasks they became.

import type { StepLine } from "../live/log-lines.ts";
import { describe, nameOf } from "./explain.ts";
import { inputsOf, type PlanNode } from "./node.ts";
import type { TaskGraph } from "./planner.ts";

/** A query longer than this is cut: the whole one is in the task. */
const textMax = 400;

/** A line a node, inputs before users. */
export function stepsOf(root: PlanNode, graph: TaskGraph): StepLine[] {
  const tasks = new Map<string, number>();
  for (const { node } of graph.tasks) tasks.set(node, (tasks.get(node) ?? 0) + 1);
  const steps: StepLine[] = [];
  const seen = new Set<PlanNode>();
  const visit = (node: PlanNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    const inputs = inputsOf(node);
    inputs.forEach(visit);
    const text = describe(node);
    steps.push({
      node: nameOf(node),
      kind: node.kind,
      text: text.length > textMax ? `${text.slice(0, textMax)}…` : text,
      inputs: inputs.map(nameOf),
      source: node.source,
      tasks: tasks.get(nameOf(node)) ?? 0,
    });
  };
  visit(root);
  return steps;
}
