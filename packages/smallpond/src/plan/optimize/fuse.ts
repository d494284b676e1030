// Rule: a query over the result of another query becomes one query, so that chains of filter and
// map cost one task a partition and write nothing in between.
//
// Why it gives the same: a partition of the inner node is the inner query's result over the same
// partition of its input, and a subquery in FROM is that result, in its order. It is named once,
// so a volatile function in it is evaluated once a row. Both nodes have plain options, so nobody
// asked for something of one that would now hold for both. A limit is no query node: its rows come
// from all partitions. Placeholders of names mean the same in both, as their dimensions are equal.
// {query_index} and {batch_index} are 0 in either, and {rand_seed} is a number of the node, which
// may be another after any edit of the plan.

import type { PlanNode } from "../node.ts";
import type { TemplatePiece } from "../template.ts";
import { isPlain, nest, type Rule, sqlLike } from "./rules.ts";

export const fuseQueries: Rule = {
  name: "one query of two",
  async apply(node, context) {
    if (node.kind !== "sql" || node.inputs.length !== 1) return undefined;
    const inner = node.inputs[0] as PlanNode;
    if (inner.kind !== "sql" || !context.isPrivate(inner)) return undefined;
    if (node.queries.length !== 1 || inner.queries.length !== 1) return undefined;
    if (!isPlain(node) || !isPlain(inner)) return undefined;
    const outerQuery = node.queries[0] as readonly TemplatePiece[];
    const innerQuery = inner.queries[0] as readonly TemplatePiece[];
    const readings = outerQuery.filter((piece) => typeof piece === "object" && "input" in piece);
    // Named twice it would run twice; not at all, its errors would be lost.
    if (readings.length !== 1) return undefined;
    return sqlLike(node, inner.inputs, nest(outerQuery, innerQuery));
  },
};
