// Plans of the node API as tasks, without running any: limits of producers, what tasks share, plans
// of ten thousand partitions, names of a sink's files.

import { expect, test } from "vitest";
import { type DataSet, PlanError, PlanNodes } from "../src/index.ts";
import { type PlanNode, withInputs } from "../src/plan/node.ts";
import { type PlanContext, planTasks, type TaskGraph } from "../src/plan/planner.ts";
import { NodeFactory } from "../src/session/node-factory.ts";
import { nameFiles } from "../src/task/ops/sink-names.ts";
import { type Task, tasksOf } from "../src/task/task.ts";

const host = {
  noteMade: () => {},
  frameOf: () => {
    throw new Error("nothing runs here");
  },
  execute: () => Promise.reject(new Error("nothing runs here")),
};
const nodes = new PlanNodes(host, new NodeFactory());
const zstd = { compression: "zstd" } as const;

function plan(root: PlanNode, more: Partial<PlanContext> = {}): TaskGraph {
  const [graph] = planTasks([root], {
    parallelism: 64,
    seed: 7,
    engine: "test",
    parquet: zstd,
    shuffleParquet: { compression: "lz4" },
    sinkStaging: (path) => `${path}.aside`,
    ...more,
  });
  return graph as TaskGraph;
}

const files = (count: number): DataSet => ({
  format: "parquet",
  parts: Array.from({ length: count }, (_, i) => ({ path: `/in/${i}.parquet`, bytes: i })),
});

const ofKind = ({ tasks }: TaskGraph, kind: Task["op"]["kind"]): Task[] =>
  tasks.filter(({ op }) => op.kind === kind);

test.each([1000, 10_000])("a plan of %i partitions has a task each and little else", (count) => {
  const even = nodes.evenlyDistributedPartition(nodes.dataSource(files(count)), count);
  const first = nodes.sql(even, "SELECT * FROM {0}");
  const cut = nodes.hashPartition(first, count, { columns: "a" });
  const small = nodes.consolidate(first, []);
  const last = nodes.sql([cut, small], "SELECT * FROM {0}, {1}");
  const graph = plan(last);
  expect(ofKind(graph, "partition")).toHaveLength(64);
  expect(ofKind(graph, "sql")).toHaveLength(2 * count);
  expect(graph.tasks).toHaveLength(2 * count + 65);
  expect(new Set(graph.tasks.map(({ key }) => key)).size).toBe(graph.tasks.length);
  // References grow with partitions, not with partitions times producers.
  const references = graph.tasks.reduce((sum, task) => sum + task.inputs.flat().length, 0);
  expect(references).toBeLessThan(6 * count);
  const place = new Map(graph.tasks.map(({ key }, i) => [key, i]));
  for (const [i, task] of graph.tasks.entries()) {
    for (const key of task.inputs.flat().flatMap(tasksOf)) {
      expect(place.get(key)).toBeLessThan(i);
    }
  }
});

test("a plan deeper than the stack", () => {
  let node: PlanNode = nodes.sql([], "SELECT 1 AS a");
  for (let i = 0; i < 20_000; i++) node = nodes.sql(node, "SELECT a + 1 AS a FROM {0}");
  expect(plan(node).tasks).toHaveLength(20_001);
});

test("tasks that cut one data set: as many as run side by side, 1000, 4,096,000 pieces", () => {
  const producers = (count: number, parallelism: number, cpus?: number): number => {
    const source = nodes.evenlyDistributedPartition(nodes.dataSource(files(5000)), 5000);
    const more = cpus === undefined ? {} : { cpus };
    const cut = nodes.hashPartition(source, count, { columns: "a", ...more });
    return ofKind(plan(cut, { parallelism }), "partition").length;
  };
  expect(producers(8, 6)).toBe(6);
  expect(producers(8, 64, 16)).toBe(4);
  expect(producers(8, 9999)).toBe(1000);
  expect(producers(8192, 9999)).toBe(500);
  expect(producers(4_096_000, 9999)).toBe(1);
  const source = nodes.dataSource(files(5000));
  expect(() => nodes.hashPartition(source, 4_096_001, { columns: "a" })).toThrow(PlanError);
  const loaded = nodes.loadPartitionedDataSet(source, 8, { column: "a" });
  expect(ofKind(plan(loaded, { parallelism: 9999 }), "load")).toHaveLength(10);
});

test("what a node's options say, its tasks say", () => {
  const options = { cpus: 3, memoryBytes: 5e8, gpus: 0.5, timeoutMs: 900, name: "mine" };
  const parquet = { compression: "snappy", rowGroupRows: 100 } as const;
  const source = nodes.dataSource(files(4));
  const all: PlanNode[] = [
    nodes.hashPartition(source, 2, { columns: "a", ...options, parquet }),
    nodes.shuffle(source, 2, { by: "a", ...options, parquet }),
    nodes.rangePartition(source, 3, { key: "a", ...options, parquet }),
    nodes.evenlyDistributedPartition(source, 3, { by: "rows", ...options, parquet }),
    nodes.loadPartitionedDataSet(source, 3, { column: "a", ...options, parquet }),
    nodes.userDefinedPartition(source, 3, () => [], { ...options, parquet }),
    nodes.sql(source, "SELECT 1", { ...options, parquet }),
    nodes.compute(source, () => [], { ...options, parquet }),
    nodes.batch(source, () => [], { ...options, parquet }),
    nodes.stream(source, () => [], { ...options, parquet }),
    nodes.script(source, () => true, { ...options, parquet }),
    nodes.limit(source, 3, { ...options, parquet }),
    nodes.dataSink(source, "/out/x", { ...options, parquet }),
  ];
  for (const node of all) {
    for (const task of plan(node).tasks) {
      const { name: _, ...resources } = options;
      expect(task.node, node.kind).toBe("mine");
      expect(task.resources, node.kind).toMatchObject(resources);
      expect(task.parquet, node.kind).toMatchObject(parquet);
    }
  }
});

test("what is put where users look runs once at a time, and anew every time", () => {
  const sink = nodes.dataSink(nodes.dataSource(files(3)), "/out/x");
  const once = plan(sink);
  expect(once.tasks.map(({ op }) => op.kind)).toEqual(["sink-stage", "sink-publish", "sink-clean"]);
  for (const { resources } of once.tasks) expect(resources.speculate).toBe(false);
  const again = plan(sink, { sinkStaging: (path) => `${path}.other` });
  expect(again.tasks.map(({ key }) => key)).not.toContain(once.tasks[0]?.key);
});

test("a cut under a sink or a root is written as a result, another one as a shuffle", () => {
  const source = nodes.dataSource(files(3));
  const cut = nodes.hashPartition(source, 2, { columns: "a" });
  const compression = (root: PlanNode): unknown =>
    ofKind(plan(root), "partition")[0]?.parquet.compression;
  expect(compression(nodes.sql(cut, "SELECT 1"))).toBe("lz4");
  expect(compression(nodes.dataSink(nodes.consolidate(cut, []), "/out/x"))).toBe("zstd");
  expect(compression(nodes.root({ cut }))).toBe("zstd");
});

test("equal work has equal keys, another place, order of columns or number another", () => {
  const keysOf = (count: number, query: string): string[] => {
    const source = nodes.dataSource(files(3));
    const cut = nodes.hashPartition(source, count, { columns: "a", dimension: "d" });
    return plan(nodes.sql(cut, query)).tasks.map(({ key }) => key);
  };
  expect(keysOf(2, "SELECT 1")).toEqual(keysOf(2, "SELECT 1"));
  expect(new Set([...keysOf(2, "SELECT 1"), ...keysOf(3, "SELECT 1")]).size).toBe(5 + 6);
  expect(new Set([...keysOf(2, "SELECT 1"), ...keysOf(2, "SELECT 2")]).size).toBe(3 + 2 + 2);
});

test("inputs are changed in one place for every kind of node", () => {
  const [a, b] = [nodes.dataSource(files(1)), nodes.dataSource(files(2))];
  const limit = nodes.limit(a, 1);
  expect(withInputs(limit, [a])).toBe(limit);
  expect(withInputs(limit, [b])).toEqual({ ...limit, input: b });
  const union = nodes.union([a, b]);
  expect(withInputs(union, [b, a]).inputs).toEqual([b, a]);
  expect(withInputs(a, [])).toBe(a);
});

test("names of a sink's files", () => {
  const place = { path: "/out", staging: "/out/.s", kind: "link" } as const;
  const op = { kind: "sink-publish", place } as const;
  const data = (...names: string[]): DataSet => ({
    format: "files",
    parts: names.map((name, i) => ({ path: `/s/0-${i}-${name}`, numRows: i })),
  });
  const named = (sets: DataSet[], taken: string[] = [], more: object = {}): string[] =>
    nameFiles({ ...op, ...more }, sets, taken).map(({ name }) => name);
  expect(named([data("a.txt"), data("b.txt", "c-0-d")])).toEqual(["a.txt", "b.txt", "c-0-d"]);
  expect(named([data("a.txt"), data("a.txt")])).toEqual(["a-00000-0.txt", "a-00001-0.txt"]);
  expect(named([data("a.txt")], ["a.txt"])).toEqual(["a-00000-0.txt"]);
  expect(named([data("a.txt")], ["a.txt", "a-00000-0.txt"])).toEqual(["a-00000-0-1.txt"]);
  expect(named([data("part-0.parquet"), data("data_0.parquet")])).toEqual([
    "part-00000-0.parquet",
    "part-00001-0.parquet",
  ]);
  expect(named([data("x.csv", "y.csv")], [], { outputName: "o" })).toEqual([
    "o-00000-0.csv",
    "o-00000-1.csv",
  ]);
  expect(named([data("x.csv", "y.csv")], [], { removeEmpty: true })).toEqual(["y.csv"]);
});
