// When which task ran where, as Chrome traces by executor and by node. Of a job with more tasks
// than a viewer shows, the first and the last ones.

import type { Task, TaskResult } from "../task/task.ts";

/** Spans at each end of a job that are kept. */
const keptMax = 10_000;

interface Span {
  readonly key: string;
  readonly node: string;
  readonly partition: Readonly<Record<string, number>>;
  readonly executor: string;
  readonly startMs: number;
  readonly elapsedMs: number;
  readonly rows: number | undefined;
}

/** Collects finished tasks. */
export class TaskSpans {
  readonly #first: Span[] = [];
  /** A ring. */
  readonly #last: Span[] = [];
  #count = 0;

  add({ key, node, partition }: Task, { metrics }: TaskResult): void {
    const { executor, startedMs, elapsedMs, outputRows } = metrics;
    const span = {
      ...{ key, node, partition, executor },
      ...{ startMs: startedMs, elapsedMs, rows: outputRows },
    };
    if (this.#count < keptMax) this.#first.push(span);
    else this.#last[(this.#count - keptMax) % keptMax] = span;
    this.#count++;
  }

  /** A trace whose processes are executors, or nodes. */
  trace(by: "executor" | "node"): object {
    const spans = [...this.#first, ...this.#last].sort((a, b) => a.startMs - b.startMs);
    const groupOf = (span: Span): string =>
      by === "node" ? span.node : `executor ${span.executor}`;
    const left = this.#count - spans.length;
    const note = `${left} of ${this.#count} tasks are left out, between first and last ones`;
    return { ...(left > 0 && { otherData: { note } }), traceEvents: traceEvents(spans, groupOf) };
  }
}

/** Those of one group on lanes below each other, so that tasks side by side do not overlap. */
function traceEvents(sorted: readonly Span[], groupOf: (span: Span) => string): object[] {
  const groups = new Map<string, { pid: number; ends: number[] }>();
  const originMs = sorted[0]?.startMs ?? 0;
  const spans = sorted.map((span) => {
    const { key, node, partition, startMs, elapsedMs, rows } = span;
    const name = groupOf(span);
    const group = groups.get(name) ?? { pid: groups.size, ends: [] };
    groups.set(name, group);
    const free = group.ends.findIndex((end) => end <= startMs);
    const tid = free < 0 ? group.ends.length : free;
    group.ends[tid] = startMs + elapsedMs;
    return {
      ...{ ph: "X", cat: "task", name: node, pid: group.pid, tid },
      ...{ ts: (startMs - originMs) * 1000, dur: elapsedMs * 1000 },
      args: { key, ...partition, rows },
    };
  });
  const names = [...groups].map(([name, { pid }]) => ({
    ...{ ph: "M", name: "process_name", pid, args: { name } },
  }));
  return [...names, ...spans];
}
