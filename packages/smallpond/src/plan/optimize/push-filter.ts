// Rule: a query's condition also holds below the cut that it reads, so that fewer rows are
// written. The query keeps its condition, so nothing else about it changes.
//
// Why it gives the same: the condition is a function of the row alone (deterministic, without
// subqueries), over columns that the cut hands on unchanged, not the partition's number. So it says
// the same of a row before the cut as after; rows for which it does not hold would reach no
// further than the query's WHERE. Rows that stay go where they went, as a hash or a split point
// does not depend on the rows beside. That is why only cuts are passed that cannot fail: one by a
// number that a user gives must see all rows to find one out of range; cuts by count of rows or
// files are never passed; and ranges keep their sample of all rows.

import type { Schema } from "../../dataset/dataset.ts";
import { type PartitionNode, type PlanNode, type RangeNode, withInputs } from "../node.ts";
import type { TemplatePiece } from "../template.ts";
import type { ColumnAnalysis } from "./analysis.ts";
import { nest, type Rule, type RuleContext, simpleQuery, textOf } from "./rules.ts";
import {
  columnNames,
  contains,
  isSimpleSelect,
  isStar,
  type Statement,
  type Syntax,
} from "./syntax.ts";

export const pushFilter: Rule = {
  name: "rows left out before they are dealt out",
  async apply(node, context) {
    const query = simpleQuery(node);
    if (query === undefined || node.kind !== "sql") return undefined;
    const cut = node.inputs[0] as PlanNode;
    if (cut.kind !== "partition" && cut.kind !== "range") return undefined;
    if (!context.isPrivate(cut) || !(await passable(cut, context))) return undefined;
    const schema = await context.schemaOf(cut);
    if (schema === undefined) return undefined;
    const where = await conditionOf(query, context.columns);
    if (where === undefined) return undefined;
    if (!(await allowed(where, schema, partitionColumn(cut), context.columns))) return undefined;
    const from = cut.from === undefined ? where : nest(where, cut.from);
    return withInputs(node, [context.markPrivate({ ...cut, from })]);
  },
};

const partitionColumn = (cut: PartitionNode | RangeNode): string =>
  (cut.kind === "partition" ? cut.column : undefined) ?? "__data_partition__";

async function passable(cut: PartitionNode | RangeNode, context: RuleContext): Promise<boolean> {
  if (cut.kind === "range") return await context.columns.deterministic(cut.key);
  return cut.inRange === true && (await context.columns.deterministic(cut.expression));
}

/** Deterministic, and of columns that the cut hands on. */
async function allowed(
  where: readonly TemplatePiece[],
  schema: Schema,
  column: string,
  columns: ColumnAnalysis,
): Promise<boolean> {
  if (!(await columns.deterministic(textOf(where)))) return false;
  const use = await columns.use(where, [schema], []);
  return use !== undefined && use.needs[0]?.has(column) === false;
}

/** A name no query has; where the input goes in a text that DuckDB prints. */
export const inputName = "smallpond_input_of_query";

/** A printed query as a template over one input. */
export function asTemplate(text: string): readonly TemplatePiece[] | undefined {
  const [before, after, ...more] = text.split(inputName);
  if (before === undefined || after === undefined || more.length > 0) return undefined;
  // A brace with a number or a name would be taken for a placeholder by the task.
  return /\{\w+\}/.test(text) ? undefined : [before, { input: 0 }, after];
}

/** `SELECT * FROM {0} WHERE …` with all conditions that a query sets on rows of its input. */
async function conditionOf(
  query: readonly TemplatePiece[],
  columns: ColumnAnalysis,
): Promise<readonly TemplatePiece[] | undefined> {
  const text = query.map((piece) => (typeof piece === "string" ? piece : inputName)).join("");
  if (!/\bwhere\b/i.test(text)) return undefined;
  const statement = await columns.parse(text);
  const star = await columns.parse(`SELECT * FROM ${inputName}`);
  if (statement === undefined || star === undefined) return undefined;
  const found = descend(statement.node);
  if (found === undefined || found.conditions.length === 0) return undefined;
  const condition =
    found.conditions.length === 1
      ? found.conditions[0]
      : {
          class: "CONJUNCTION",
          type: "CONJUNCTION_AND",
          alias: "",
          children: found.conditions,
        };
  const node = { ...star.node, from_table: found.table, where_clause: condition };
  const printed = await columns.print({ ...star, node } as Statement);
  return printed === undefined ? undefined : asTemplate(printed);
}

/** Conditions from the outermost SELECT down to the input, while what is between is `SELECT *`. */
function descend(
  outermost: Syntax,
): { readonly table: Syntax; readonly conditions: readonly Syntax[] } | undefined {
  const conditions: Syntax[] = [];
  let node = outermost;
  for (;;) {
    const outer = node === outermost;
    // A limit or a sample looks at rows that the condition leaves out; order does not.
    const modifiers = outer
      ? ["ORDER_MODIFIER", "LIMIT_MODIFIER", "DISTINCT_MODIFIER"]
      : ["ORDER_MODIFIER"];
    if (!isSelect(node, outer, modifiers)) return undefined;
    const where = node.where_clause as Syntax | null;
    const table = node.from_table as Syntax;
    const base = table.type === "BASE_TABLE";
    if (where !== null && !contains(where, ["SUBQUERY", "LAMBDA", "WINDOW", "STAR"])) {
      // Names of a subquery mean nothing below it.
      if (base || !hasQualified(where)) conditions.push(where);
    }
    if (hasExtras(table)) return undefined;
    if (base) return table.table_name === inputName ? { table, conditions } : undefined;
    if (table.type !== "SUBQUERY") return undefined;
    node = (table.subquery as { node: Syntax }).node;
  }
}

function isSelect(node: Syntax, outermost: boolean, modifiers: readonly string[]): boolean {
  if (outermost) {
    // Whatever comes after WHERE sees only rows for which it holds.
    const plain = { ...node, having: null, qualify: null };
    return isSimpleSelect(plain, modifiers) || isSimpleSelect(forced(plain), modifiers);
  }
  return isSimpleSelect(node, modifiers) && isStar(node) && isEmpty(node.group_expressions);
}

const forced = (node: Syntax): Syntax => ({ ...node, aggregate_handling: "STANDARD_HANDLING" });
const isEmpty = (list: unknown): boolean => ((list as readonly unknown[]) ?? []).length === 0;

/** New names for columns, or a sample. */
const hasExtras = (table: Syntax): boolean =>
  !isEmpty(table.column_name_alias) || Boolean(table.sample) || Boolean(table.at_clause);

/** Whether any column is named with its table. */
function hasQualified(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(hasQualified);
  if (value === null || typeof value !== "object") return false;
  const names = columnNames(value);
  if (names !== undefined) return names.length > 1;
  return Object.values(value).some(hasQualified);
}
