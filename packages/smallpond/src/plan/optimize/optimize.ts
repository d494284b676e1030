// Applies the rules to a plan, each as a pass from its sources to its root, and leaves unread
// columns out at the end. Every rule is a file with the reason why it changes no result; what is
// asked of them here is only who uses what.

import type { Schema } from "../../dataset/dataset.ts";
import { inputsOf, type PlanNode, withInputs } from "../node.ts";
import type { ColumnAnalysis } from "./analysis.ts";
import { workInCut } from "./cut-work.ts";
import { fuseQueries } from "./fuse.ts";
import { limitInQuery } from "./limit.ts";
import { narrow, narrowName } from "./narrow.ts";
import { partialAggregate } from "./partial-aggregate.ts";
import { pushFilter } from "./push-filter.ts";
import { repeatedCut } from "./repeated-cut.ts";
import { findSchema, type Rule, type RuleContext } from "./rules.ts";

/** A plan and how it came to be. */
export interface OptimizedPlan {
  readonly root: PlanNode;
  /** Names of the rules that changed something, in order, with how often. */
  readonly applied: ReadonlyMap<string, number>;
}

/** What optimizing depends on besides the plan. */
export interface OptimizeContext {
  readonly columns: ColumnAnalysis;
  /**
   * Whether a node is wanted as it is: other nodes of the session use it too, or its data is there
   * already. It is neither changed for one user nor made part of one.
   */
  readonly isKept?: (node: PlanNode) => boolean;
}

const passes: readonly (readonly Rule[])[] = [
  [repeatedCut, fuseQueries],
  [workInCut],
  [partialAggregate],
  [pushFilter],
  [limitInQuery],
];

/** A plan with the same rows in every partition of its root, for less work. */
export async function optimize(root: PlanNode, context: OptimizeContext): Promise<OptimizedPlan> {
  const applied = new Map<string, number>();
  const isOriginal = collect(root);
  const kept = new Set([...isOriginal].filter((node) => context.isKept?.(node) ?? false));
  const schemas = new Map<PlanNode, Promise<Schema | undefined>>();
  const schemaOf = (node: PlanNode): Promise<Schema | undefined> => {
    let schema = schemas.get(node);
    if (schema === undefined) {
      schema = findSchema(node, { columns: context.columns, schemaOf });
      schemas.set(node, schema);
    }
    return schema;
  };
  let current = root;
  for (const rules of passes) {
    current = await pass(current, rules, { columns: context.columns, schemaOf, kept, applied });
  }
  const isPrivate = (node: PlanNode): boolean => !kept.has(node);
  const narrowed = await narrow(current, { columns: context.columns, schemaOf, isPrivate });
  if (narrowed !== current) applied.set(narrowName, 1);
  return { root: narrowed, applied };
}

function collect(root: PlanNode): ReadonlySet<PlanNode> {
  const nodes = new Set<PlanNode>();
  const visit = (node: PlanNode): void => {
    if (nodes.has(node)) return;
    nodes.add(node);
    inputsOf(node).forEach(visit);
  };
  visit(root);
  return nodes;
}

interface PassContext extends Pick<RuleContext, "columns" | "schemaOf"> {
  /** Grows by what kept nodes become. */
  readonly kept: Set<PlanNode>;
  readonly applied: Map<string, number>;
}

async function pass(
  root: PlanNode,
  rules: readonly Rule[],
  { columns, schemaOf, kept, applied }: PassContext,
): Promise<PlanNode> {
  const users = countUsers(root);
  const done = new Map<PlanNode, Promise<PlanNode>>();
  const mine = new Set<PlanNode>();
  const markPrivate = <N extends PlanNode>(node: N): N => {
    mine.add(node);
    return node;
  };
  const isPrivate = (node: PlanNode): boolean => mine.has(node);
  const context: RuleContext = { columns, schemaOf, isPrivate, markPrivate };
  const rewriteOne = async (node: PlanNode): Promise<PlanNode> => {
    const inputs = await Promise.all(inputsOf(node).map(rewrite));
    let result = withInputs(node, inputs);
    for (const rule of rules) {
      const better = await rule.apply(result, context);
      if (better === undefined) continue;
      applied.set(rule.name, (applied.get(rule.name) ?? 0) + 1);
      result = better;
    }
    if (kept.has(node)) kept.add(result);
    // An input may stand in its user's place, and has that one's users then.
    if (!kept.has(result) && users.get(node) === 1) mine.add(result);
    else mine.delete(result);
    return result;
  };
  const rewrite = (node: PlanNode): Promise<PlanNode> => {
    let result = done.get(node);
    if (result === undefined) {
      result = rewriteOne(node);
      done.set(node, result);
    }
    return result;
  };
  return await rewrite(root);
}

/** How many inputs of the plan's nodes each node is. */
function countUsers(root: PlanNode): ReadonlyMap<PlanNode, number> {
  const users = new Map<PlanNode, number>();
  for (const node of collect(root)) {
    for (const input of inputsOf(node)) users.set(input, (users.get(input) ?? 0) + 1);
  }
  return users;
}
