// Executors that do as a test says, for rules of the scheduler one at a time, and a fleet that does
// nothing at once, for what the scheduler itself costs.

import { serializeError } from "@open-infra/errors";
import { TaskError } from "../../src/errors.ts";
import type { ExecutorHandle } from "../../src/executor/local.ts";
import type { Capacity, FromExecutor, ToExecutor } from "../../src/executor/protocol.ts";
import type { TaskGraph } from "../../src/plan/planner.ts";
import type { InputRef, Resources, Task, TaskResult } from "../../src/task/task.ts";

type Run = Extract<ToExecutor, { readonly run: unknown }>;

/** An executor by hand. */
export class FakeExecutor implements ExecutorHandle {
  readonly id: string;
  readonly capacity: Capacity;
  readonly pid = 0;
  readonly runs: Run[] = [];
  readonly stops: string[] = [];
  killed = false;
  closed = false;
  stderr = "";
  #take: (message: FromExecutor) => void = () => {};
  #exit: (reason: string) => void = () => {};

  constructor(id: string, capacity: Partial<Capacity> = {}) {
    this.id = id;
    this.capacity = { cpus: 1, memoryBytes: 2 ** 30, gpus: 0, ...capacity };
  }

  send(message: ToExecutor): void {
    if ("run" in message) this.runs.push(message);
    else if ("stop" in message) this.stops.push(`${message.stop}/${message.attempt}`);
  }

  onMessage(take: (message: FromExecutor) => void): void {
    this.#take = take;
  }

  onExit(take: (reason: string) => void): void {
    this.#exit = take;
  }

  stderrTail(): string {
    return this.stderr;
  }

  kill(): void {
    this.killed = true;
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  say(message: FromExecutor): void {
    this.#take(message);
  }

  ready(): this {
    this.say({ ready: this.capacity, engine: "fake" });
    return this;
  }

  exit(reason = "SIGKILL"): void {
    this.#exit(reason);
  }

  /** Ends a run well: the first that is not over. */
  finish(run: Run | undefined = this.runs[0]): void {
    if (run === undefined) throw new Error(`${this.id} runs nothing`);
    this.runs.splice(this.runs.indexOf(run), 1);
    this.say({ done: resultOf(run.run.task, this.id), attempt: run.attempt });
  }

  fail(reason: string, run: Run | undefined = this.runs[0]): void {
    if (run === undefined) throw new Error(`${this.id} runs nothing`);
    this.runs.splice(this.runs.indexOf(run), 1);
    const { task } = run.run;
    const error = serializeError(new TaskError(task.node, 1, reason, `it failed: ${reason}`));
    this.say({ failed: task.key, attempt: run.attempt, error });
  }
}

/** What a task gives that writes one file. */
export function resultOf({ key }: Task, executor: string): TaskResult {
  const part = { path: `/job/output/${key}/part-0`, numRows: 1, bytes: 1 };
  return {
    key,
    outputs: [{ format: "parquet", parts: [part] }],
    metrics: {
      startedMs: 0,
      elapsedMs: 1,
      inputRows: 1,
      outputRows: 1,
      outputBytes: 1,
      cpuMs: 1,
      maxRssBytes: 1,
      executor,
    },
  };
}

export function taskOf(
  key: string,
  resources: Partial<Resources> = {},
  more: {
    readonly node?: string;
    readonly inputs?: readonly string[];
    readonly kind?: string;
  } = {},
): Task {
  const { node = "node", inputs = [], kind = "sql" } = more;
  const refs: InputRef[] = inputs.map((task) => ({ task, output: 0 }));
  return {
    key,
    node,
    partition: {},
    op: { kind, queries: [] } as unknown as Task["op"],
    inputs: [refs],
    outputs: 1,
    resources: { cpus: 1, ...resources },
    parquet: { compression: "zstd" },
    seed: 0,
  };
}

/** A plan whose roots are tasks that nobody reads. */
export function graphOf(...tasks: readonly Task[]): TaskGraph {
  const read = new Set(
    tasks.flatMap(({ inputs }) =>
      inputs.flat().flatMap((ref) => ("task" in ref ? [ref.task] : [])),
    ),
  );
  const roots = tasks.filter(({ key }) => !read.has(key));
  return { tasks, roots: roots.map(({ key }) => [{ task: key, output: 0 }]) };
}
