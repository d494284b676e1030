// What columns a plan will give, before it runs: a query over no rows that DuckDB can describe.

import { fromClause, identifier, literal } from "../dataset/sql-text.ts";
import type { PlanNode } from "./node.ts";
import { fillTemplate } from "./template.ts";

/**
 * A query with the columns of a node and, in effect, no rows worth reading; undefined where only
 * running tells: a function without a schema.
 */
export function shapeQuery(node: PlanNode): string | undefined {
  switch (node.kind) {
    case "source":
      return `SELECT * FROM ${fromClause(node.data)}`;
    case "split":
    case "limit":
      return shapeQuery(node.input);
    case "range":
      return withoutPartition(node.input);
    case "partition": {
      const inner = shapeQuery(node.input);
      if (inner === undefined || node.column === undefined) return withoutPartition(node.input);
      const others = `COLUMNS(c -> c <> ${literal(node.column)})`;
      return `SELECT ${others}, 0::BIGINT AS ${identifier(node.column)} FROM (${inner}\n)`;
    }
    case "sql": {
      // What a function in TypeScript gives, only a connection that has it can say.
      if (node.options.udfs?.length) return undefined;
      const inputs = node.inputs.map(shapeQuery);
      if (inputs.some((input) => input === undefined)) return undefined;
      const clauses = inputs.map((input) => `(${input}\n)`);
      const names = Object.fromEntries(node.dimensions.map(({ name }) => [name, 0]));
      const last = node.queries.at(-1) ?? [];
      return fillTemplate(last, clauses, { ...names, rand_seed: 0, cpu_limit: 1 });
    }
    case "call": {
      if (node.call.mode === "filter") return shapeQuery(node.input);
      const { schema } = node.call;
      if (schema === undefined) return undefined;
      const columns = Object.entries(schema).map(
        ([name, type]) => `CAST(NULL AS ${type}) AS ${identifier(name)}`,
      );
      return `SELECT ${columns.join(", ")} WHERE false`;
    }
  }
}

function withoutPartition(input: PlanNode): string | undefined {
  const inner = shapeQuery(input);
  return inner && `SELECT COLUMNS(c -> c <> '__data_partition__') FROM (${inner}\n)`;
}
