// What rules share: a rule looks at one node whose inputs are rewritten already and gives another
// node with the same rows in every partition, or nothing. Plans are never changed, only made anew.

import type { Schema } from "../../dataset/dataset.ts";
import type { NodeOptions, PartitionNode, PlanNode, RangeNode, SqlNode } from "../node.ts";
import { shapeQuery } from "../shape.ts";
import type { TemplatePiece } from "../template.ts";
import type { ColumnAnalysis } from "./analysis.ts";

/** What a rule may ask. */
export interface RuleContext {
  readonly columns: ColumnAnalysis;
  /**
   * Whether nothing else wants a node's data: no other node of the plan or the session, and it is
   * not there already. Only such a node may be changed or taken into its user.
   */
  readonly isPrivate: (node: PlanNode) => boolean;
  /** Says that a node made by a rule has one user. */
  readonly markPrivate: <N extends PlanNode>(node: N) => N;
  /** Columns of a node's partitions; undefined where only running tells. */
  readonly schemaOf: (node: PlanNode) => Promise<Schema | undefined>;
}

/** One rewriting. */
export interface Rule {
  readonly name: string;
  readonly apply: (node: PlanNode, context: RuleContext) => Promise<PlanNode | undefined>;
}

/** Whether a user asked nothing of a node, so that its work may become part of another's. */
export function isPlain({ options }: { readonly options: NodeOptions }): boolean {
  return Object.values(options).every((value) => value === undefined);
}

/** Whether a node's SQL may call functions that hide DuckDB's own, which only its tasks know. */
export function hasFunctions({ options }: { readonly options: NodeOptions }): boolean {
  return (options.udfs?.length ?? 0) > 0;
}

/** The query of a node with one query, one input that it reads once, and no other placeholder. */
export function simpleQuery(node: PlanNode): readonly TemplatePiece[] | undefined {
  if (node.kind !== "sql" || node.inputs.length !== 1 || node.queries.length !== 1) return;
  if (hasFunctions(node)) return;
  const query = node.queries[0] as readonly TemplatePiece[];
  const holes = query.filter((piece) => typeof piece !== "string");
  const [only] = holes;
  return holes.length === 1 && only !== undefined && "input" in only ? query : undefined;
}

/** The text of a query without its placeholders. */
export function textOf(query: readonly TemplatePiece[]): string {
  return query.filter((piece) => typeof piece === "string").join(" ");
}

/** `outer` over the result of `inner`, which may end in a comment, instead of its input. */
export function nest(
  outer: readonly TemplatePiece[],
  inner: readonly TemplatePiece[],
): readonly TemplatePiece[] {
  return outer.flatMap((piece) =>
    typeof piece === "object" && "input" in piece ? ["(", ...inner, "\n)"] : [piece],
  );
}

/** A query node like another one over other inputs. */
export function sqlLike(
  node: SqlNode,
  inputs: readonly PlanNode[],
  query: readonly TemplatePiece[],
): SqlNode {
  return { ...node, inputs, queries: [query] };
}

/** The operators of queries that treat each row by itself, whatever rows are beside it. */
const rowOperators: ReadonlySet<string> = new Set(["PROJECTION", "FILTER", "SEQ_SCAN", "UNNEST"]);
/** Those of queries that only leave rows out or put them in order. */
const choosingOperators: ReadonlySet<string> = new Set(["FILTER", "SEQ_SCAN", "ORDER_BY"]);

const within = (some: ReadonlySet<string>, all: ReadonlySet<string>): boolean =>
  [...some].every((item) => all.has(item));

/** Whether a query over rows A and B gives what it gives over A and what it gives over B. */
export async function isRowWise(
  query: readonly TemplatePiece[],
  input: Schema,
  columns: ColumnAnalysis,
): Promise<boolean> {
  if (!(await columns.deterministic(textOf(query)))) return false;
  const use = await columns.use(query, [input]);
  return use !== undefined && within(use.operators, rowOperators);
}

/** Whether a query's rows are rows of its input, unchanged. */
export async function onlyChooses(
  query: readonly TemplatePiece[],
  input: Schema,
  columns: ColumnAnalysis,
): Promise<boolean> {
  const use = await columns.use(query, [input]);
  if (use === undefined || !within(use.operators, choosingOperators)) return false;
  const output = await columns.describe(query, [input]);
  return JSON.stringify(Object.entries(output ?? {})) === JSON.stringify(Object.entries(input));
}

/** Files whose footers planning may open to learn the columns of a union by name. */
const mostFooters = 64;

/** Columns of a node, from those of its inputs. */
export async function findSchema(
  node: PlanNode,
  context: Pick<RuleContext, "columns" | "schemaOf">,
): Promise<Schema | undefined> {
  const { columns, schemaOf } = context;
  switch (node.kind) {
    case "source": {
      const { data } = node;
      if (data.format === "csv" || data.format === "json") return data.schema;
      const byName = data.format === "parquet" && data.unionByName;
      if (byName && data.parts.length > mostFooters) return undefined;
      // As for DuckDB, the first file says what columns there are.
      const parts = byName ? data.parts : data.parts.slice(0, 1);
      const text = shapeQuery({ ...node, data: { ...data, parts } });
      return text === undefined ? undefined : await columns.describeText(text);
    }
    case "split":
    case "limit":
    case "repeat":
    case "load":
    case "consolidate":
      return await schemaOf(node.input);
    case "sql": {
      if (node.queries.length !== 1 || hasFunctions(node)) return undefined;
      const inputs = await Promise.all(node.inputs.map(schemaOf));
      if (inputs.some((schema) => schema === undefined)) return undefined;
      return await columns.describe(
        node.queries[0] as readonly TemplatePiece[],
        inputs as readonly Schema[],
      );
    }
    case "partition":
      return await cutSchema(node, node.column, context);
    case "range":
      return await cutSchema(node, undefined, context);
    case "call":
      return node.call.mode === "filter" ? await schemaOf(node.input) : node.call.schema;
    case "compute":
      return node.call.schema;
    default:
      return undefined;
  }
}

/** What a cut writes: its rows' columns, with the partition's number last if it is kept. */
async function cutSchema(
  node: PartitionNode | RangeNode,
  column: string | undefined,
  { columns, schemaOf }: Pick<RuleContext, "columns" | "schemaOf">,
): Promise<Schema | undefined> {
  const input = hasFunctions(node) ? undefined : await schemaOf(node.input);
  const rows =
    node.from === undefined || input === undefined
      ? input
      : await columns.describe(node.from, [input]);
  if (rows === undefined) return undefined;
  const { [column ?? "__data_partition__"]: _, ...others } = rows;
  return column === undefined ? others : { ...others, [column]: "BIGINT" };
}
