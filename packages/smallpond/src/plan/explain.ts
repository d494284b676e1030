// A plan as text: one line a node, inputs below and indented, with partitions and the line of the
// script that asked for it.

import { basename } from "node:path";
import type { FileView } from "../dataset/view.ts";
import type { FunctionRef } from "../functions/function-ref.ts";
import { type CutWork, inputsOf, type PlanNode, partitionCount } from "./node.ts";
import { withoutUnread } from "./optimize/narrow.ts";
import type { OptimizedPlan } from "./optimize/optimize.ts";
import { type TemplatePiece, templateText } from "./template.ts";

/** What a node's tasks took. */
export interface StepFigures {
  readonly node: string;
  readonly tasks: number;
  readonly outputRows: { readonly sum: number };
  readonly elapsedMs: { readonly p50: number; readonly p99: number };
}

/** A plan as written and as it runs, with the rules in between. */
export function explainBoth(
  written: PlanNode,
  optimized: OptimizedPlan,
  figures: readonly StepFigures[] = [],
): string {
  const rules = [...optimized.applied].map(([name, times]) =>
    times === 1 ? name : `${name} (${times} times)`,
  );
  const how = rules.length === 0 ? "the same" : rules.join("; ");
  return [
    "as written:",
    explainPlan(written),
    "",
    `as it runs: ${how}`,
    explainPlan(optimized.root, figures),
  ].join("\n");
}

/** `partition hash(ticker) → 8 partitions  (job.ts:12)`, and so on. */
export function explainPlan(root: PlanNode, figures: readonly StepFigures[] = []): string {
  const lines: string[] = [];
  const seen = new Set<PlanNode>();
  const visit = (node: PlanNode, depth: number): void => {
    const again = seen.has(node);
    seen.add(node);
    const count = partitionCount(node.dimensions);
    const partitions = count === 1 ? "1 partition" : `${count} partitions`;
    const where = node.source === "" ? "" : `  (${basename(node.source)})`;
    const repeat = again ? ", as above" : "";
    const name = nameOf(node);
    const took = figures.find((step) => step.node === name);
    const head = `${"  ".repeat(depth)}${name}`;
    lines.push(`${head} ${describe(node)} → ${partitions}${repeat}${where}${tookText(took)}`);
    if (!again) for (const input of inputsOf(node)) visit(input, depth + 1);
  };
  visit(root, 0);
  return lines.join("\n");
}

/** A node's name, as its tasks have it. */
export function nameOf(node: PlanNode): string {
  return node.options.name ?? `${node.kind}#${node.id}`;
}

function tookText(took: StepFigures | undefined): string {
  if (took === undefined || took.tasks === 0) return "";
  const { tasks, outputRows, elapsedMs } = took;
  const ms = (value: number): string => value.toFixed(value < 10 ? 1 : 0);
  return (
    `  [${tasks} ${tasks === 1 ? "task" : "tasks"}, ${outputRows.sum} rows, ` +
    `p50 ${ms(elapsedMs.p50)} ms, p99 ${ms(elapsedMs.p99)} ms]`
  );
}

/** What a node does, on one line. */
export function describe(node: PlanNode): string {
  switch (node.kind) {
    case "source": {
      const columns = node.data.format === "parquet" ? node.data.columns : undefined;
      const only = columns === undefined ? "" : `, columns ${columns.join(", ")}`;
      return `${node.data.format}, ${node.data.parts.length} files${only}`;
    }
    case "split":
      return `by ${node.by}${node.shuffled ? ", shuffled" : ""}`;
    case "partition":
      return `by ${node.label}${describeWork(node)}`;
    case "range": {
      const order = node.descending ? ", descending" : "";
      return `by ranges of ${node.key}${order}${describeWork(node)}`;
    }
    case "sql":
      return describeQuery(node.queries.at(-1) ?? []);
    case "sources":
      return `${node.data.length} data sets`;
    case "repeat":
      return `${node.count} times`;
    case "load":
      return `by ${node.column}${node.hive ? " of the path" : ""} of each file`;
    case "user-partition":
      return `with ${describeFunction(node.fn)}`;
    case "limit":
      return `${node.count} rows`;
    case "compute":
      return `${node.call.mode} with ${describeFunction(node.call.fn)}`;
    case "script":
      return `with ${describeFunction(node.fn)}`;
    case "projection":
      return describeView(node.view);
    case "union":
      return `of ${node.inputs.length}`;
    case "consolidate":
      return `to ${node.dimensions.map(({ name }) => name).join(" × ") || "one partition"}`;
    case "sink":
      return `${node.sink} to ${node.path}`;
    case "root":
      return node.names.join(", ");
    case "call":
      return `${node.call.mode} with ${describeFunction(node.call.fn)}`;
  }
}

function describeView({ columns = ["*"], generated = [], unionByName }: FileView): string {
  return [...columns, ...generated].join(", ") + (unionByName ? ", by name" : "");
}

function describeWork({ from, columns }: CutWork): string {
  const rows = from === undefined ? "" : ` of ${describeQuery(from)}`;
  return columns === undefined ? rows : `${rows}, columns ${columns.join(", ")}`;
}

function describeQuery(query: readonly TemplatePiece[]): string {
  return withoutUnread(templateText(query).replaceAll(/\s+/g, " "));
}

function describeFunction(fn: FunctionRef): string {
  return fn.kind === "text" ? fn.text.replaceAll(/\s+/g, " ") : fn.export;
}
