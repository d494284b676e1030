// A plan as text: one line a node, inputs below and indented, with partitions and the line of the
// script that asked for it.

import { basename } from "node:path";
import type { FunctionRef } from "../functions/function-ref.ts";
import { inputsOf, type PlanNode, partitionCount } from "./node.ts";

/** `partition hash(ticker) → 8 partitions  (job.ts:12)`, and so on. */
export function explainPlan(root: PlanNode): string {
  const lines: string[] = [];
  const seen = new Set<PlanNode>();
  const visit = (node: PlanNode, depth: number): void => {
    const again = seen.has(node);
    seen.add(node);
    const count = partitionCount(node.dimensions);
    const partitions = count === 1 ? "1 partition" : `${count} partitions`;
    const where = node.source === "" ? "" : `  (${basename(node.source)})`;
    const repeat = again ? ", as above" : "";
    const head = `${"  ".repeat(depth)}${node.options.name ?? node.kind}#${node.id}`;
    lines.push(`${head} ${describe(node)} → ${partitions}${repeat}${where}`);
    if (!again) for (const input of inputsOf(node)) visit(input, depth + 1);
  };
  visit(root, 0);
  return lines.join("\n");
}

function describe(node: PlanNode): string {
  switch (node.kind) {
    case "source":
      return `${node.data.format}, ${node.data.parts.length} files`;
    case "split":
      return `by ${node.by}`;
    case "partition":
      return `by ${node.label}`;
    case "range":
      return `by ranges of ${node.key}${node.descending ? ", descending" : ""}`;
    case "sql":
      return (node.queries.at(-1) ?? [])
        .map((piece) => {
          if (typeof piece === "string") return piece;
          return "input" in piece ? `{${piece.input}}` : `{${piece.name}}`;
        })
        .join("")
        .replaceAll(/\s+/g, " ");
    case "limit":
      return `${node.count} rows`;
    case "call":
      return `${node.call.mode} with ${describeFunction(node.call.fn)}`;
  }
}

function describeFunction(fn: FunctionRef): string {
  return fn.kind === "text" ? fn.text.replaceAll(/\s+/g, " ") : fn.export;
}
