// Rule: a limit over a query takes its first rows of each partition in the query's own task.
//
// Why it gives the same: the first n rows over all partitions are among the first n of each. A
// LIMIT around the query stops it after as many of its rows as would be read of its result, in the
// same order; what the limit then joins has no more than n rows a partition.

import { isPlain, nest, type Rule, sqlLike } from "./rules.ts";

export const limitInQuery: Rule = {
  name: "first rows of each partition in its query",
  async apply(node, context) {
    if (node.kind !== "limit" || node.limited || !isPlain(node)) return undefined;
    const inner = node.input;
    if (inner.kind !== "sql" || inner.queries.length !== 1) return undefined;
    if (!isPlain(inner) || !context.isPrivate(inner)) return undefined;
    const outer = ["SELECT * FROM ", { input: 0 }, ` LIMIT ${node.count}`];
    const query = nest(outer, inner.queries[0] ?? []);
    const input = context.markPrivate(sqlLike(inner, inner.inputs, query));
    return { ...node, input, limited: true };
  },
};
