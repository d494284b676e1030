// Random plans for the simulation: layers of nodes, tasks of a node alike, edges to the layer
// before, and here and there a task that consists of its inputs' files, as a cut by rows does.

import type { Random } from "@open-infra/testing";
import type { TaskGraph } from "../../src/plan/planner.ts";
import type { InputRef, Resources, Task } from "../../src/task/task.ts";

/** What the world knows of a task and the scheduler does not. */
export interface Truth {
  readonly durationMs: number;
  /** Less than this, and it is out of memory. */
  readonly needBytes: number;
  /** Its output consists of its inputs' files. */
  readonly passes: boolean;
}

export const mib = 2 ** 20;

export interface World {
  readonly graphs: readonly TaskGraph[];
  readonly truths: ReadonlyMap<string, Truth>;
}

function resourcesOf(random: Random, gpus: boolean): Resources {
  const cpus = random.pick([0.5, 1, 1, 1, 2]);
  return {
    cpus,
    ...(random.next() < 0.4 && { memoryBytes: random.pick([64, 256, 512]) * mib }),
    ...(gpus && random.next() < 0.3 && { gpus: random.pick([0.25, 0.5, 1]) }),
    ...(random.next() < 0.2 && { timeoutMs: random.int(1500, 6000) }),
  };
}

/** Plans that share their lower layers. */
export function randomPlans(random: Random, options: { readonly gpus: boolean }): World {
  const layers: Task[][] = [];
  const truths = new Map<string, Truth>();
  const depth = random.int(1, 5);
  for (let layer = 0; layer < depth; layer++) {
    const before = layers[layer - 1] ?? [];
    const resources = resourcesOf(random, options.gpus);
    const usualMs = random.int(5, 400);
    const kind = random.pick(["sql", "sql", "call"] as const);
    const sink = layer === depth - 1 && random.next() < 0.2;
    const tasks = Array.from({ length: random.int(1, 25) }, (_, i): Task => {
      const key = `t${layer}-${i}`;
      const inputs: InputRef[] = before
        .filter(() => random.next() < 0.3)
        .map((task) => ({ task: task.key, output: 0 }));
      truths.set(key, {
        durationMs: usualMs * (0.5 + random.next()),
        needBytes: (random.next() < 0.05 ? random.pick([100, 300, 1500]) : 1) * mib,
        passes: inputs.length > 0 && random.next() < 0.1,
      });
      const op = { kind, ...(kind === "sql" ? { queries: [] } : {}) } as unknown as Task["op"];
      return {
        key,
        node: `node-${layer}`,
        partition: {},
        op,
        inputs: [inputs],
        outputs: 1,
        resources: sink ? { ...resources, speculate: false } : resources,
        parquet: { compression: "zstd" },
        seed: 0,
      };
    });
    layers.push(tasks);
  }
  const all = layers.flat();
  const count = random.int(1, 4);
  const graphs = Array.from({ length: count }, () => {
    const layer = random.next() < 0.7 ? layers.length - 1 : random.int(0, layers.length);
    const roots = (layers[layer] as Task[]).filter(() => random.next() < 0.8);
    return graphOf(all, roots);
  });
  return { graphs, truths };
}

/** What some roots need, inputs first. */
function graphOf(all: readonly Task[], roots: readonly Task[]): TaskGraph {
  const needed = new Set(roots.map(({ key }) => key));
  const tasks = all
    .toReversed()
    .filter((task) => {
      if (!needed.has(task.key)) return false;
      for (const ref of task.inputs.flat()) if ("task" in ref) needed.add(ref.task);
      return true;
    })
    .toReversed();
  return { tasks, roots: roots.map(({ key }) => [{ task: key, output: 0 }]) };
}
