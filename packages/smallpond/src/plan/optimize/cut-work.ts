// Rule: a query that treats each row by itself and feeds a cut is done by the cut's own tasks, so
// that its result is not written and read once more.
//
// Why it gives the same: the cut deals out the rows of all its input's partitions, whatever files
// or tasks they come in; of a query that is row-wise, the rows over some partitions together are
// the rows over each. Row-wise is what DuckDB plans as nothing but projections, filters and unnest,
// without functions that give another value every time. Queries with placeholders of names, which
// differ between partitions, and nodes with options stay by themselves.

import type { PlanNode } from "../node.ts";
import { isPlain, isRowWise, type Rule, simpleQuery } from "./rules.ts";

export const workInCut: Rule = {
  name: "rows made while they are dealt out",
  async apply(node, context) {
    if (node.kind !== "partition" || !isPlain(node) || node.from !== undefined) return undefined;
    const inner = node.input;
    const query = simpleQuery(inner);
    if (query === undefined || !isPlain(inner) || !context.isPrivate(inner)) return undefined;
    const input = (inner as Extract<PlanNode, { kind: "sql" }>).inputs[0] as PlanNode;
    const schema = await context.schemaOf(input);
    if (schema === undefined || !(await isRowWise(query, schema, context.columns))) {
      return undefined;
    }
    return { ...node, input, from: query };
  },
};
