// Columns that nobody reads are not written: from the root down, each node is asked for the columns
// whose values matter above it, cuts and queries write those only, and Parquet sources below cuts
// read those only.
//
// Why it gives the same: a query above still sees every column under its name and type, in the
// same order; those that were not written are NULL. DuckDB's plan of the query reads none of them
// (analysis.ts), so no value of the result can depend on them, nor can names resolve otherwise.
// Nodes that hand all columns to a function, to a person, or in a way that is not understood ask
// for all of them. Rows are never left out, so counts and limits hold, and the expression of a cut
// is evaluated on its input's columns, so that a number out of range is still found.

import type { Schema } from "../../dataset/dataset.ts";
import { identifier } from "../../dataset/sql-text.ts";
import {
  inputsOf,
  type PartitionNode,
  type PlanNode,
  type RangeNode,
  withInputs,
} from "../node.ts";
import type { TemplatePiece } from "../template.ts";
import type { ColumnAnalysis } from "./analysis.ts";
import { hasFunctions, textOf } from "./rules.ts";

/** Columns that are asked of a node. */
type Need = ReadonlySet<string> | "all";

/** Marks columns that are not there, so that explain can leave them out. */
const unreadMark = "/*unread*/";

/** A query as a person may read it: without the columns that nobody reads. */
export function withoutUnread(query: string): string {
  const unread = /\/\*unread\*\/ CAST\(NULL AS .*?\) AS "(?:[^"]|"")*"(?=, | FROM )/g;
  return query
    .replaceAll(unread, "")
    .replaceAll(/(?:, )+(?= FROM )|(?<=SELECT )(?:, )+/g, "")
    .replaceAll(/(?:, ){2,}/g, ", ");
}

type CutNode = PartitionNode | RangeNode;

interface NarrowContext {
  readonly columns: ColumnAnalysis;
  readonly schemaOf: (node: PlanNode) => Promise<Schema | undefined>;
  /** Whether this plan alone uses a node; then what its users need is known. */
  readonly isPrivate: (node: PlanNode) => boolean;
}

/** The name under which explain lists it. */
export const narrowName = "columns that nobody reads left out";

/** The plan with unread columns left out; the same node if there are none. */
export async function narrow(root: PlanNode, context: NarrowContext): Promise<PlanNode> {
  const order = usersFirst(root);
  // Without a cut or a result between tasks there is nothing to write less of.
  if (!order.some((node) => node !== root && isStored(node))) return root;
  const needs = new Map<PlanNode, Need>([[root, "all"]]);
  for (const node of order) {
    // What others of the session read too is made whole, so that it is made once.
    if (node !== root && isStored(node) && !context.isPrivate(node)) needs.set(node, "all");
    const asked = await inputNeeds(node, needs.get(node) ?? "all", context);
    for (const [i, input] of inputsOf(node).entries()) {
      needs.set(input, union(needs.get(input), asked[i] ?? "all"));
    }
  }
  const made = new Map<PlanNode, Narrowed>();
  for (const node of order.toReversed()) {
    made.set(node, await rebuild(node, needs.get(node) ?? "all", made, context));
  }
  return (made.get(root) as Narrowed).node;
}

const isStored = ({ kind }: PlanNode): boolean =>
  kind === "partition" || kind === "range" || kind === "sql";

/** Every node after all that use it. */
function usersFirst(root: PlanNode): readonly PlanNode[] {
  const done = new Set<PlanNode>();
  const order: PlanNode[] = [];
  const visit = (node: PlanNode): void => {
    if (done.has(node)) return;
    done.add(node);
    for (const input of inputsOf(node)) visit(input);
    order.push(node);
  };
  visit(root);
  return order.reverse();
}

function union(a: Need | undefined, b: Need): Need {
  if (a === undefined || b === "all") return b;
  return a === "all" ? a : new Set([...a, ...b]);
}

async function inputNeeds(
  node: PlanNode,
  need: Need,
  context: NarrowContext,
): Promise<readonly Need[]> {
  const all = inputsOf(node).map((): Need => "all");
  const { columns, schemaOf } = context;
  if (hasFunctions(node)) return all;
  switch (node.kind) {
    case "split":
    case "limit":
      return [need];
    case "partition":
    case "range": {
      const input = await schemaOf(node.input);
      if (input === undefined) return all;
      const text = node.kind === "partition" ? node.expression : `(${node.key})`;
      const rows: readonly TemplatePiece[] = node.from
        ? ["(", ...node.from, "\n)"]
        : [{ input: 0 }];
      const others = need === "all" ? "*" : columnList(writtenOf(need, node));
      const list = others === "" ? text : `${others}, ${text}`;
      const use = await columns.use([`SELECT ${list} FROM `, ...rows], [input]);
      // The key of a range is also sampled, from the input as it is.
      const key =
        node.kind === "range"
          ? await columns.use([`SELECT ${text} FROM `, { input: 0 }], [input])
          : use;
      if (use === undefined || key === undefined) return all;
      return [new Set([...(use.needs[0] ?? []), ...(key.needs[0] ?? [])])];
    }
    case "sql": {
      if (node.queries.length !== 1) return all;
      const inputs = await Promise.all(node.inputs.map(schemaOf));
      if (inputs.some((schema) => schema === undefined)) return all;
      const query = node.queries[0] as readonly TemplatePiece[];
      const written = await narrowable(node, need, context);
      const use = await columns.use(query, inputs as readonly Schema[], written);
      if (use === undefined) return all;
      // Of a source, DuckDB reads no more than the query needs by itself.
      return node.inputs.map((input, i) => (isRead(input) ? "all" : (use.needs[i] ?? "all")));
    }
    default:
      return all;
  }
}

/** Whether a node's data is files that were there before. */
function isRead(node: PlanNode): boolean {
  if (node.kind === "split" || node.kind === "limit") return isRead(node.input);
  return node.kind === "source";
}

/** Columns a query can be asked for instead of all; undefined for all. */
async function narrowable(
  node: PlanNode,
  need: Need,
  { columns, schemaOf }: NarrowContext,
): Promise<readonly string[] | undefined> {
  if (need === "all" || node.kind !== "sql" || node.queries.length !== 1) return undefined;
  const schema = await schemaOf(node);
  if (schema === undefined) return undefined;
  const query = node.queries[0] as readonly TemplatePiece[];
  // Fewer calls of random() would give the others other numbers.
  if (!(await columns.deterministic(textOf(query)))) return undefined;
  const names = Object.keys(schema).filter((name) => need.has(name));
  if (names.length === Object.keys(schema).length) return undefined;
  return names.length > 0 ? names : [cheapest(schema)];
}

/** A column to write where none is read, as rows must be counted. */
function cheapest(schema: Schema): string {
  const entries = Object.entries(schema);
  const small = entries.find(([, type]) => /^(BOOLEAN|U?(TINY|SMALL|BIG)?INT\w*)$/.test(type));
  return (small ?? entries[0] ?? [""])[0];
}

const columnList = (names: readonly string[]): string => names.map(identifier).join(", ");

const partitionColumn = (node: PlanNode): string =>
  (node.kind === "partition" ? node.column : undefined) ?? "__data_partition__";

const writtenOf = (need: ReadonlySet<string>, node: PlanNode): readonly string[] =>
  [...need].filter((name) => name !== partitionColumn(node));

interface Narrowed {
  readonly node: PlanNode;
  /** Columns that its partitions have; undefined if that is all. */
  readonly columns: readonly string[] | undefined;
}

async function rebuild(
  node: PlanNode,
  need: Need,
  made: ReadonlyMap<PlanNode, Narrowed>,
  context: NarrowContext,
): Promise<Narrowed> {
  const before = inputsOf(node);
  const narrowed = before.map((input) => made.get(input) as Narrowed);
  const same = withInputs(
    node,
    narrowed.map((input) => input.node),
  );
  switch (same.kind) {
    case "split":
    case "limit":
      return { node: same, columns: narrowed[0]?.columns };
    case "source": {
      const schema = need === "all" ? undefined : await context.schemaOf(node);
      if (need === "all" || same.data.format !== "parquet" || schema === undefined) break;
      const names = Object.keys(schema).filter((name) => need.has(name));
      if (names.length === Object.keys(schema).length) break;
      const columns = names.length > 0 ? names : [cheapest(schema)];
      return { node: { ...same, data: { ...same.data, columns } }, columns };
    }
    case "partition":
    case "range":
      return await rebuildCut(node as CutNode, same, need, narrowed[0] as Narrowed, context);
    case "sql": {
      if (same.queries.length !== 1) break;
      const query = await hollow(same.queries[0] ?? [], before, narrowed, context);
      const columns = await narrowable(node, need, context);
      if (columns === undefined) return { node: withQuery(same, query), columns: undefined };
      const chosen = [`SELECT ${columnList(columns)} FROM (`, ...query, "\n)"];
      return { node: withQuery(same, chosen), columns };
    }
  }
  return { node: same, columns: undefined };
}

async function rebuildCut(
  node: CutNode,
  same: CutNode,
  need: Need,
  input: Narrowed,
  context: NarrowContext,
): Promise<Narrowed> {
  const rows = same.from ?? ["SELECT * FROM ", { input: 0 }];
  const seen = await hollow(rows, inputsOf(node), [input], context);
  const from = seen === rows ? same.from : seen;
  const cut = from === same.from || from === undefined ? same : { ...same, from };
  const schema = need === "all" ? undefined : await context.schemaOf(node);
  if (need === "all" || schema === undefined) return { node: cut, columns: undefined };
  const own = partitionColumn(node);
  const names = Object.keys(schema).filter((name) => name !== own);
  const wanted = names.filter((name) => need.has(name));
  if (wanted.length === names.length) return { node: cut, columns: undefined };
  const columns = wanted.length > 0 ? wanted : [cheapest(withoutColumn(schema, own))];
  const kept = own in schema ? [...columns, own] : columns;
  // Where all that is named is there, the input can be read as it is.
  const bare = same.from === undefined && (await binds(node, columns, input, context));
  return { node: bare ? { ...same, columns } : { ...cut, columns }, columns: kept };
}

/** Whether a cut's expression and columns are found among those of a narrowed input. */
async function binds(
  node: CutNode,
  columns: readonly string[],
  input: Narrowed,
  context: NarrowContext,
): Promise<boolean> {
  const schema = await context.schemaOf(node.input);
  if (schema === undefined || node.kind === "range") return false;
  const there = Object.entries(schema).filter(([name]) => input.columns?.includes(name) ?? true);
  const query = [`SELECT ${columnList(columns)}, ${node.expression} FROM `, { input: 0 }];
  const found = await context.columns.describe(query, [Object.fromEntries(there)]);
  return found !== undefined;
}

const withoutColumn = (schema: Schema, name: string): Schema =>
  Object.fromEntries(Object.entries(schema).filter(([key]) => key !== name));

function withQuery(
  node: Extract<PlanNode, { kind: "sql" }>,
  query: readonly TemplatePiece[],
): PlanNode {
  return query === node.queries[0] ? node : { ...node, queries: [query] };
}

/** A query that still sees all columns of its inputs, those that are not there as NULL. */
async function hollow(
  query: readonly TemplatePiece[],
  inputs: readonly PlanNode[],
  narrowed: readonly Narrowed[],
  { schemaOf }: NarrowContext,
): Promise<readonly TemplatePiece[]> {
  if (narrowed.every(({ columns }) => columns === undefined)) return query;
  const pieces: TemplatePiece[] = [];
  for (const piece of query) {
    const input = typeof piece === "object" && "input" in piece ? piece.input : undefined;
    const columns = input === undefined ? undefined : narrowed[input]?.columns;
    if (input === undefined || columns === undefined) {
      pieces.push(piece);
      continue;
    }
    const schema = (await schemaOf(inputs[input] as PlanNode)) as Schema;
    const list = Object.entries(schema).map(([name, type]) =>
      columns.includes(name)
        ? identifier(name)
        : `${unreadMark} CAST(NULL AS ${type}) AS ${identifier(name)}`,
    );
    pieces.push(`(SELECT ${list.join(", ")} FROM `, piece, ")");
  }
  return pieces;
}
