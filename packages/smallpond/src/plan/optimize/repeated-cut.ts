// Rule: a cut by the same expression into as many partitions as its input was cut by already is
// left out, also when rows were left out or put in order in between.
//
// Why it gives the same: every row of partition i has the value i of the expression, which is
// deterministic and does not use the column that the cut sets; queries that only choose rows
// change no value. So the second cut would put each row where it is, under the same number, after
// the same check of its range.

import type { PartitionNode, PlanNode } from "../node.ts";
import type { TemplatePiece } from "../template.ts";
import { isPlain, onlyChooses, type Rule, type RuleContext, simpleQuery } from "./rules.ts";

export const repeatedCut: Rule = {
  name: "cut that is there already",
  async apply(node, context) {
    if (node.kind !== "partition" || !isPlain(node) || node.column === undefined) return undefined;
    if (node.from !== undefined || node.expression.includes(node.column)) return undefined;
    const below = await cutBelow(node.input, context);
    if (below === undefined || !sameCut(node, below)) return undefined;
    return (await context.columns.deterministic(node.expression)) ? node.input : undefined;
  },
};

const sameCut = (a: PartitionNode, b: PartitionNode): boolean =>
  a.expression === b.expression &&
  a.count === b.count &&
  a.column === b.column &&
  // Nested in other dimensions, the partitions are not the same ones.
  JSON.stringify(a.dimensions) === JSON.stringify(b.dimensions);

/** The cut that a node's rows come from, through queries that only choose. */
async function cutBelow(node: PlanNode, context: RuleContext): Promise<PartitionNode | undefined> {
  if (node.kind === "partition") return node;
  const query = simpleQuery(node) as readonly TemplatePiece[] | undefined;
  if (query === undefined || node.kind !== "sql") return undefined;
  const input = node.inputs[0] as PlanNode;
  const schema = await context.schemaOf(input);
  if (schema === undefined || !(await onlyChooses(query, schema, context.columns))) {
    return undefined;
  }
  return await cutBelow(input, context);
}
