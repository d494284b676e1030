// Planning alone: large plans of the node API as tasks with their keys, nothing of them run.

import { parseArgs } from "node:util";
import { type BenchRow, formatRows, median } from "@open-infra/testing";
import { PlanNodes } from "../src/nodes/plan-nodes.ts";
import type { PlanNode } from "../src/plan/node.ts";
import { planTasks } from "../src/plan/planner.ts";
import { NodeFactory } from "../src/session/node-factory.ts";

const nothing = (): never => {
  throw new Error("nothing runs here");
};
const host = { noteMade: () => {}, frameOf: nothing, execute: nothing };
const context = {
  parallelism: 64,
  seed: 0,
  engine: "bench",
  parquet: { compression: "zstd" },
  shuffleParquet: { compression: "lz4" },
} as const;

type Make = (nodes: PlanNodes, count: number) => PlanNode;

function files(nodes: PlanNodes, count: number): PlanNode {
  const parts = Array.from({ length: count }, (_, i) => ({
    path: `/data/set/part-${i}.parquet`,
    bytes: 2 ** 20,
  }));
  const source = nodes.dataSource({ format: "parquet", parts });
  return nodes.evenlyDistributedPartition(source, count);
}

const cases: Readonly<Record<string, Make>> = {
  "a query over each": (nodes, count) => nodes.sql(files(nodes, count), "SELECT * FROM {0}"),
  "cut by hash, a query over each": (nodes, count) => {
    const cut = nodes.hashPartition(files(nodes, count), count, { columns: "a" });
    return nodes.sql(cut, "SELECT {__data_partition__} FROM {0}");
  },
  "query, cut by hash, join with all of the first": (nodes, count) => {
    const first = nodes.sql(files(nodes, count), "SELECT * FROM {0}");
    const cut = nodes.hashPartition(first, count, { columns: "a" });
    return nodes.sql([cut, nodes.consolidate(first, [])], "SELECT * FROM {0}, {1}");
  },
};

/** @param options.quick A tenth of the partitions, one round. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const rounds = options.quick ? 1 : 5;
  const count = options.quick ? 1000 : 10_000;
  return Object.entries(cases).map(([name, make]) => {
    const times: number[] = [];
    let tasks = 0;
    for (let round = 0; round < rounds; round++) {
      const root = make(new PlanNodes(host, new NodeFactory()), count);
      const startMs = performance.now();
      const [graph] = planTasks([root], context);
      times.push(performance.now() - startMs);
      tasks = graph?.tasks.length ?? 0;
    }
    const us = median(times) * 1000;
    return {
      case: name,
      shape: `${count} partitions, ${tasks} tasks`,
      us,
      rate: `${(us / tasks).toFixed(1)} µs a task`,
      peer: "no other planner here",
    };
  });
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { quick: { type: "boolean", default: false } } });
  process.stdout.write(`${formatRows(await run({ quick: values.quick }))}\n`);
}
