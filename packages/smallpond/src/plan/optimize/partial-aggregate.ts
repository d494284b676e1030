// Rule: groups are aggregated before their rows are dealt out, a partial result for each group of
// each producer, and the query over the cut combines them; DISTINCT likewise. Far fewer rows are
// written where groups are many rows.
//
// Why it gives the same: count is the sum of counts, sum of sums, min of minima, and so on for
// bool_and, bool_or and the bitwise ones, however the rows are split; and only where that is exact:
// sums must be integers or decimals, as floating-point sums depend on the order. Averages, ordered
// or distinct aggregates are left alone. The query groups by plain columns, and the cut's
// expression must bind to them alone, so a group's partial results go where its rows went. Types
// and names of the result are compared with those of the query itself before anything changes.

import type { Schema } from "../../dataset/dataset.ts";
import { identifier } from "../../dataset/sql-text.ts";
import type { PartitionNode, PlanNode } from "../node.ts";
import type { TemplatePiece } from "../template.ts";
import type { ColumnAnalysis } from "./analysis.ts";
import { asTemplate, inputName } from "./push-filter.ts";
import {
  isPlain,
  nest,
  type Rule,
  type RuleContext,
  simpleQuery,
  sqlLike,
  textOf,
} from "./rules.ts";
import { columnNames, isSimpleSelect, type Statement, type Syntax } from "./syntax.ts";

export const partialAggregate: Rule = {
  name: "groups aggregated before they are dealt out",
  async apply(node, context) {
    const query = simpleQuery(node);
    if (query === undefined || node.kind !== "sql") return undefined;
    const cut = node.inputs[0] as PlanNode;
    if (cut.kind !== "partition" || !isPlain(cut) || !context.isPrivate(cut)) return undefined;
    const { columns } = context;
    const whole = textOf([...query, cut.expression]);
    if (!(await columns.deterministic(whole))) return undefined;
    const rows = await rowsOf(cut, context);
    const schema = await context.schemaOf(cut);
    if (rows === undefined || schema === undefined) return undefined;
    const output = await columns.describe(query, [schema]);
    if (output === undefined) return undefined;
    const halves = await splitQuery(query, Object.keys(output), cut, columns);
    if (halves === undefined || !(await fits(halves, cut, rows, output, columns))) {
      return undefined;
    }
    const from = cut.from === undefined ? halves.partial : nest(halves.partial, cut.from);
    return sqlLike(node, [context.markPrivate({ ...cut, from })], halves.final);
  },
};

/** The two queries: below the cut and above it. */
interface Halves {
  readonly partial: readonly TemplatePiece[];
  readonly final: readonly TemplatePiece[];
  /** Columns that both group by. */
  readonly keys: readonly string[];
  /** Columns of `partial` that are sums of the user's values. */
  readonly sums: readonly string[];
}

/** Columns of the rows that a cut deals out. */
async function rowsOf(cut: PartitionNode, context: RuleContext): Promise<Schema | undefined> {
  const input = await context.schemaOf(cut.input);
  if (input === undefined || cut.from === undefined) return input;
  return await context.columns.describe(cut.from, [input]);
}

/** Whether the halves bind, place groups as rows were placed, and are exact. */
async function fits(
  { partial, final, keys, sums }: Halves,
  cut: PartitionNode,
  rows: Schema,
  output: Schema,
  columns: ColumnAnalysis,
): Promise<boolean> {
  const middle = await columns.describe(partial, [rows]);
  if (middle === undefined) return false;
  if (keys.some((name) => manyTexts.test(middle[name] ?? ""))) return false;
  const exact = sums.every((name) => /^(U?HUGEINT|BIGINT|DECIMAL\(.*\))$/.test(middle[name] ?? ""));
  const number = await columns.describe([`SELECT ${cut.expression} FROM `, { input: 0 }], [middle]);
  const result = await columns.describe(final, [middle]);
  const same = JSON.stringify(Object.entries(result ?? {}));
  return exact && number !== undefined && same === JSON.stringify(Object.entries(output));
}

/**
 * Types with equal values that are not the same (0.0 and -0.0, a month and 30 days): a cut tells
 * them apart, a group does not.
 */
const manyTexts = /FLOAT|DOUBLE|INTERVAL|WITH TIME ZONE|UNION|VARIANT/;

/** How partial results of each aggregate are combined. */
const combinedBy: ReadonlyMap<string, string> = new Map([
  ["count", "sum"],
  ["count_star", "sum"],
  ["sum", "sum"],
  ["min", "min"],
  ["max", "max"],
  ["bool_and", "bool_and"],
  ["bool_or", "bool_or"],
  ["bit_and", "bit_and"],
  ["bit_or", "bit_or"],
  ["bit_xor", "bit_xor"],
]);

async function splitQuery(
  query: readonly TemplatePiece[],
  names: readonly string[],
  cut: PartitionNode,
  columns: ColumnAnalysis,
): Promise<Halves | undefined> {
  const text = query.map((piece) => (typeof piece === "string" ? piece : inputName)).join("");
  if (!/\b(group\s+by|distinct)\b/i.test(text)) return undefined;
  const select = (await columns.parse(text))?.node;
  if (select === undefined || !isSimpleSelect(select, ["DISTINCT_MODIFIER"])) return undefined;
  const table = select.from_table as Syntax;
  if (table.type !== "BASE_TABLE" || table.table_name !== inputName || table.sample) return;
  // Rows that a condition leaves out must still be looked at by a cut that checks its numbers.
  if (select.where_clause && !cut.inRange) return undefined;
  const list = select.select_list as readonly Syntax[];
  if (list.length !== names.length) return undefined;
  const keys = groupColumns(select);
  if (keys === undefined) return undefined;
  const partials: { readonly name: string; readonly call: Syntax; readonly sum: boolean }[] = [];
  const finals: Syntax[] = [];
  for (const [i, item] of list.entries()) {
    const name = columnNames(item);
    if (name !== undefined) {
      if (name.length !== 1 || !keys.includes(name[0] as string)) return undefined;
      finals.push({ ...item, alias: names[i] });
      continue;
    }
    // A cast of the whole result stays around what combines the parts.
    const cast = item.class === "CAST" ? item : undefined;
    const aggregate = (cast?.child ?? item) as Syntax;
    const partial = `smallpond_partial_${i}`;
    const combined = await combine(aggregate, partial, columns);
    if (combined === undefined) return undefined;
    const sum = aggregate.function_name === "sum";
    partials.push({ name: partial, call: { ...aggregate, alias: partial }, sum });
    finals.push({
      ...(cast === undefined ? combined : { ...cast, child: combined }),
      alias: names[i],
    });
  }
  const distinct = (select.modifiers as readonly unknown[]).length > 0;
  if (distinct && partials.length > 0) return undefined;
  const keyNodes = keys.map((name) => columnNode(name));
  const below = { ...select, select_list: [...keyNodes, ...partials.map(({ call }) => call)] };
  const above = { ...select, select_list: finals, where_clause: null };
  const partial = await asQuery(below, columns);
  const final = await asQuery(above, columns);
  if (partial === undefined || final === undefined) return undefined;
  const sums = partials.filter(({ sum }) => sum).map(({ name }) => name);
  return { partial, final, keys, sums };
}

/** What combines an aggregate's partial results; undefined if they cannot be. */
async function combine(
  aggregate: Syntax,
  partial: string,
  columns: ColumnAnalysis,
): Promise<Syntax | undefined> {
  if (!isDecomposable(aggregate)) return undefined;
  const name = String(aggregate.function_name);
  const combining = combinedBy.get(name);
  if (combining === undefined) return undefined;
  const call = `${combining}(${identifier(partial)})`;
  const sql = name.startsWith("count") ? `CAST(${call} AS BIGINT)` : call;
  const parsed = await columns.parse(`SELECT ${sql}`);
  return (parsed?.node.select_list as readonly Syntax[] | undefined)?.[0];
}

/** The columns that a query groups by or, for DISTINCT, gives. */
function groupColumns(select: Syntax): readonly string[] | undefined {
  const groups = select.group_expressions as readonly Syntax[];
  const modifiers = select.modifiers as readonly Syntax[];
  const plainSets = JSON.stringify(select.group_sets);
  const keys = groups.length > 0 ? groups : (select.select_list as readonly Syntax[]);
  if (groups.length > 0) {
    // GROUPING SETS give a row more than once.
    if (plainSets !== JSON.stringify([groups.map((_, i) => i)])) return undefined;
    if (modifiers.length > 0) return undefined;
  } else {
    const [modifier] = modifiers;
    const on = (modifier?.distinct_on_targets as readonly unknown[] | undefined) ?? [];
    if (modifier?.type !== "DISTINCT_MODIFIER" || on.length > 0) return undefined;
    if (keys.some(({ alias }) => alias !== "")) return undefined;
  }
  const names = keys.map((key) => columnNames(key));
  if (names.some((name) => name?.length !== 1)) return undefined;
  const flat = names.map((name) => (name as readonly string[])[0] as string);
  return new Set(flat).size === flat.length ? flat : undefined;
}

function isDecomposable(item: Syntax): boolean {
  if (item.class !== "FUNCTION" || item.distinct || item.schema) return false;
  const orders = (item.order_bys as { orders?: readonly unknown[] } | null)?.orders ?? [];
  const args = (item.children as readonly unknown[]).length;
  return orders.length === 0 && args === (item.function_name === "count_star" ? 0 : 1);
}

const columnNode = (name: string): Syntax => ({
  class: "COLUMN_REF",
  type: "COLUMN_REF",
  alias: "",
  column_names: [name],
});

async function asQuery(
  node: Syntax,
  columns: ColumnAnalysis,
): Promise<readonly TemplatePiece[] | undefined> {
  const statement: Statement = { node, named_param_map: [] };
  const text = await columns.print(statement);
  return text === undefined ? undefined : asTemplate(text);
}
