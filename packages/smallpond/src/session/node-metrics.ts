// What the tasks of each node took, in memory that grows with nodes, not with tasks; and as the
// rows of `log/metrics.csv`.

import { type Quantiles, Sample } from "../live/sample.ts";
import type { TaskMetrics } from "../task/task.ts";

/** Figures of one node's tasks. */
export interface NodeFigures {
  readonly node: string;
  readonly tasks: number;
  readonly reused: number;
  readonly retries: number;
  readonly elapsedMs: Quantiles;
  readonly cpuMs: Quantiles;
  /** Of the process that ran it. */
  readonly maxRssBytes: Quantiles;
  /** Of tasks that know them. */
  readonly inputRows: Quantiles;
  readonly outputRows: Quantiles;
  readonly outputBytes: Quantiles;
}

const measures = [
  ...["elapsedMs", "cpuMs", "maxRssBytes", "inputRows", "outputRows", "outputBytes"],
] as readonly (
  | "elapsedMs"
  | "cpuMs"
  | "maxRssBytes"
  | "inputRows"
  | "outputRows"
  | "outputBytes"
)[];

/** Columns of a measure, as the original has them. */
const columns = ["count", "sum", "min", "max", "avg", "p50", "p75", "p95", "p99"] as const;

class Node {
  reused = 0;
  retries = 0;
  readonly samples: Readonly<Record<(typeof measures)[number], Sample>> = {
    ...{ elapsedMs: new Sample(), cpuMs: new Sample(), maxRssBytes: new Sample() },
    ...{ inputRows: new Sample(), outputRows: new Sample(), outputBytes: new Sample() },
  };
}

/** Collects them. */
export class NodeMetrics {
  readonly #nodes = new Map<string, Node>();

  finished(node: string, metrics: TaskMetrics): void {
    const { samples } = this.#node(node);
    for (const measure of measures) {
      const value = metrics[measure];
      if (value !== undefined) samples[measure].add(value);
    }
  }

  reused(node: string): void {
    this.#node(node).reused++;
  }

  retried(node: string): void {
    this.#node(node).retries++;
  }

  /** In the order in which nodes were first heard of. */
  figures(): NodeFigures[] {
    return [...this.#nodes].map(([node, { reused, retries, samples }]) => ({
      ...{ node, tasks: samples.elapsedMs.count, reused, retries },
      elapsedMs: samples.elapsedMs.quantiles(),
      cpuMs: samples.cpuMs.quantiles(),
      maxRssBytes: samples.maxRssBytes.quantiles(),
      inputRows: samples.inputRows.quantiles(),
      outputRows: samples.outputRows.quantiles(),
      outputBytes: samples.outputBytes.quantiles(),
    }));
  }

  #node(name: string): Node {
    const known = this.#nodes.get(name) ?? new Node();
    this.#nodes.set(name, known);
    return known;
  }
}

const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
const quoted = (text: string): string =>
  /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

/** A line a node: its counts, then each measure's figures: `elapsed_ms_p95`, `output_rows_sum`. */
export function metricsCsv(figures: readonly NodeFigures[]): string {
  const names = columns.map((column) => (column === "count" ? "cnt" : column));
  const head = [
    ...["node", "tasks", "reused", "retries"],
    ...measures.flatMap((measure) => names.map((name) => `${snake(measure)}_${name}`)),
  ];
  const lines = figures.map((one) => [
    ...[quoted(one.node), one.tasks, one.reused, one.retries],
    ...measures.flatMap((measure) => columns.map((column) => Math.round(one[measure][column]))),
  ]);
  return `${[head, ...lines].map((line) => line.join(",")).join("\n")}\n`;
}
