// What columns a plan will give, before it runs: a query over no rows that DuckDB can describe.

import type { Schema } from "../dataset/dataset.ts";
import { fromClause, identifier, literal } from "../dataset/sql-text.ts";
import type { PlanNode, ProjectionNode } from "./node.ts";
import { fillTemplate } from "./template.ts";

/**
 * A query with the columns of a node and, in effect, no rows worth reading; undefined where only
 * running tells: a function without a schema.
 */
export function shapeQuery(node: PlanNode): string | undefined {
  switch (node.kind) {
    case "source":
      return `SELECT * FROM ${fromClause(node.data)}`;
    case "sources":
      return node.data[0] && `SELECT * FROM ${fromClause(node.data[0])}`;
    case "split":
    case "limit":
    case "repeat":
    case "load":
    case "consolidate":
    case "sink":
      return shapeQuery(node.input);
    case "projection":
      return shapeOfView(node);
    case "union": {
      const inputs = node.inputs.map(shapeQuery);
      if (inputs.some((input) => input === undefined)) return undefined;
      return inputs.map((input) => `(${input}\n)`).join(" UNION ALL BY NAME ");
    }
    case "user-partition":
    case "script":
    case "root":
      return undefined;
    case "compute":
      return shapeOfSchema(node.call.schema);
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
      return shapeOfSchema(node.call.schema);
    }
  }
}

function shapeOfSchema(schema: Schema | undefined): string | undefined {
  if (schema === undefined) return undefined;
  const columns = Object.entries(schema).map(
    ([name, type]) => `CAST(NULL AS ${type}) AS ${identifier(name)}`,
  );
  return `SELECT ${columns.join(", ")} WHERE false`;
}

function shapeOfView({ input, view }: ProjectionNode): string | undefined {
  const { columns, generated = [] } = view;
  const inner = shapeQuery(input);
  if (inner === undefined) return undefined;
  const made = generated.map((name) => {
    return `CAST(NULL AS ${name === "filename" ? "VARCHAR" : "BIGINT"}) AS ${identifier(name)}`;
  });
  const all = `SELECT ${["*", ...made].join(", ")} FROM (${inner}\n)`;
  if (columns === undefined) return all;
  const chosen = [...columns, ...generated.filter((name) => !columns.includes(name))];
  return `SELECT ${chosen.join(", ")}\nFROM (${all})`;
}

function withoutPartition(input: PlanNode): string | undefined {
  const inner = shapeQuery(input);
  return inner && `SELECT COLUMNS(c -> c <> '__data_partition__') FROM (${inner}\n)`;
}
