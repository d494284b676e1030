// A plan as nodes and edges, for pictures of it: as data, and as Graphviz text.

import { basename } from "node:path";
import { inputsOf, type PlanNode, partitionCount } from "./node.ts";

/** Nodes of a plan and who reads whom. */
export interface PlanGraph {
  readonly nodes: readonly {
    readonly id: number;
    readonly kind: string;
    readonly name: string;
    readonly partitions: number;
    /** `file:line` of the call that made it. */
    readonly source: string;
  }[];
  /** From a node to one that reads it. */
  readonly edges: readonly (readonly [from: number, to: number])[];
  /** For `dot -Tsvg`. */
  readonly dot: string;
}

/** All nodes that some nodes need. */
export function planGraph(roots: readonly PlanNode[]): PlanGraph {
  const seen = new Map<number, PlanNode>();
  const edges: (readonly [number, number])[] = [];
  const visit = (node: PlanNode): void => {
    if (seen.has(node.id)) return;
    seen.set(node.id, node);
    for (const input of inputsOf(node)) {
      visit(input);
      edges.push([input.id, node.id]);
    }
  };
  roots.forEach(visit);
  const nodes = [...seen.values()].map((node) => ({
    id: node.id,
    kind: node.kind,
    name: node.options.name ?? `${node.kind}#${node.id}`,
    partitions: partitionCount(node.dimensions),
    source: node.source,
  }));
  const quoted = (text: string): string => `"${text.replaceAll('"', '\\"')}"`;
  const boxes = nodes.map(({ id, name, partitions, source }) => {
    const label = `${name}\\n${partitions} partitions\\n${basename(source)}`;
    return `  n${id} [shape=box, label=${quoted(label)}];`;
  });
  const arrows = edges.map(([from, to]) => `  n${from} -> n${to};`);
  return { nodes, edges, dot: ["digraph plan {", ...boxes, ...arrows, "}"].join("\n") };
}
