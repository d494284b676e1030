// The one rewriting of plans: a query over the result of another query becomes one query, so that
// chains of filter and map cost one task a partition and write nothing in between. Only queries are
// fused, never limits or cuts, because those look across rows or partitions.

import { inputsOf, type PlanNode, type SqlNode } from "./node.ts";
import type { TemplatePiece } from "./template.ts";

/** The same plan with queries fused where it changes no result and computes nothing twice. */
export function fuse(root: PlanNode): PlanNode {
  const users = countUsers(root);
  const done = new Map<PlanNode, PlanNode>();
  const rewrite = (node: PlanNode): PlanNode => {
    const known = done.get(node);
    if (known !== undefined) return known;
    const result = rewriteOne(node, rewrite, users);
    done.set(node, result);
    return result;
  };
  return rewrite(root);
}

function rewriteOne(
  node: PlanNode,
  rewrite: (node: PlanNode) => PlanNode,
  users: ReadonlyMap<PlanNode, number>,
): PlanNode {
  if (node.kind === "source") return node;
  if (node.kind !== "sql") return { ...node, input: rewrite(node.input) };
  const [only] = node.inputs;
  const inner = node.inputs.length === 1 && only !== undefined ? rewrite(only) : undefined;
  if (inner?.kind === "sql" && users.get(only as PlanNode) === 1 && fusible(node, inner)) {
    return { ...node, inputs: inner.inputs, queries: [nest(node, inner)] };
  }
  return { ...node, inputs: node.inputs.map(rewrite) };
}

/** What a user asked of either must hold for the whole, so different wishes are kept apart. */
function fusible(outer: SqlNode, inner: SqlNode): boolean {
  const plain = ({ options }: SqlNode): boolean => Object.keys(options).length === 0;
  const single = outer.queries.length === 1 && inner.queries.length === 1;
  const volatile = inner.queries.flat().some((piece) => {
    return typeof piece === "string" && /\b(random|uuid|nextval)\s*\(/i.test(piece);
  });
  return single && plain(outer) && plain(inner) && !(volatile && countInput(outer) > 1);
}

const countInput = (node: SqlNode): number =>
  node.queries.flat().filter((piece) => typeof piece === "object" && "input" in piece).length;

function nest(outer: SqlNode, inner: SqlNode): readonly TemplatePiece[] {
  const query = inner.queries[0] as readonly TemplatePiece[];
  return (outer.queries[0] as readonly TemplatePiece[]).flatMap((piece) =>
    typeof piece === "object" && "input" in piece ? ["(", ...query, ")"] : [piece],
  );
}

function countUsers(root: PlanNode): ReadonlyMap<PlanNode, number> {
  const users = new Map<PlanNode, number>();
  const visit = (node: PlanNode): void => {
    for (const input of inputsOf(node)) {
      const before = users.get(input) ?? 0;
      users.set(input, before + 1);
      if (before === 0) visit(input);
    }
  };
  visit(root);
  return users;
}
