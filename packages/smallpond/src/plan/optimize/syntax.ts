// DuckDB's syntax trees as `json_serialize_sql` gives them, as far as the rules look into them.

/** A node of the tree; fields by kind. */
export interface Syntax {
  readonly [field: string]: unknown;
}

/** One SELECT statement. */
export interface Statement extends Syntax {
  readonly node: Syntax;
}

/** A number with its digits: JSON has more of them than a double. */
type Reviver = (
  this: unknown,
  key: string,
  value: unknown,
  context?: { source: string },
) => unknown;
const rawJson = (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON;

/** The tree without places in the text; numbers that a double cannot hold keep their digits. */
export function parseSyntax(json: string): unknown {
  const revive: Reviver = (key, value, context) => {
    if (key === "query_location") return undefined;
    if (typeof value !== "number" || context === undefined) return value;
    return String(value) === context.source ? value : rawJson(context.source);
  };
  return JSON.parse(json, revive);
}

/** Whether any node of a tree is of a class or type. */
export function contains(value: unknown, kinds: readonly string[]): boolean {
  if (Array.isArray(value)) return value.some((item) => contains(item, kinds));
  if (value === null || typeof value !== "object") return false;
  const node = value as Syntax;
  if (kinds.includes(String(node.class)) || kinds.includes(String(node.type))) return true;
  return Object.values(node).some((inner) => contains(inner, kinds));
}

/** A SELECT of nothing but FROM, WHERE, GROUP BY and its list: no CTE, HAVING, LIMIT, … */
export function isSimpleSelect(node: Syntax, modifiers: readonly string[] = []): boolean {
  const cte = node.cte_map as { map?: readonly unknown[] } | undefined;
  const extra = (node.modifiers as readonly Syntax[] | undefined) ?? [];
  return (
    node.type === "SELECT_NODE" &&
    (cte?.map?.length ?? 0) === 0 &&
    extra.every(({ type }) => modifiers.includes(String(type))) &&
    !node.having &&
    !node.qualify &&
    !node.sample &&
    node.aggregate_handling === "STANDARD_HANDLING"
  );
}

/** Whether a SELECT list is `*` and no more. */
export function isStar(node: Syntax): boolean {
  const list = node.select_list as readonly Syntax[];
  const [star] = list;
  if (list.length !== 1 || star?.class !== "STAR" || star.relation_name) return false;
  return !Object.entries(star).some(([field, value]) => {
    if (field === "class" || field === "type") return false;
    return Array.isArray(value) ? value.length > 0 : Boolean(value);
  });
}

/** Names of a plain column reference. */
export function columnNames(value: unknown): readonly string[] | undefined {
  const node = value as Syntax | undefined;
  return node?.class === "COLUMN_REF" ? (node.column_names as readonly string[]) : undefined;
}
