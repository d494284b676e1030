// Runs tasks as they come and says how each ended. SQL runs here, on DuckDB's own threads; users'
// code runs in processes of its own (task-pool.ts), so that nothing it does stops this one from
// answering. Where messages come from (a parent process, a queue) is the caller's.

import { rmSync } from "node:fs";
import type { DuckDBConnection } from "@duckdb/node-api";
import { serializeError } from "@open-infra/errors";
import { type DataSet, knownRows } from "../dataset/dataset.ts";
import { TaskError } from "../errors.ts";
import { JobFolder } from "../task/commit.ts";
import { expectSpace } from "../task/disk.ts";
import { type BoundTask, runTask } from "../task/run.ts";
import type { Task, TaskMetrics } from "../task/task.ts";
import { attemptError } from "./attempt-errors.ts";
import { type EngineLimits, EnginePool, engineVersion } from "./engine.ts";
import type { ExecutorStart, FromExecutor, ToExecutor } from "./protocol.ts";
import { type TaskOutcome, TaskPool } from "./task-pool.ts";

type Run = Extract<ToExecutor, { readonly run: BoundTask }>;

/** Part of a task's memory that DuckDB may manage, beside users' code and beside scripts. */
const duckdbPart = { call: 0.5, script: 0.8 };
const watchMs = 100;
const interruptMs = 50;
/** What DuckDB, Node and their allocators take beside what is accounted for. */
const slackBytes = 256 * 2 ** 20;

/** An attempt that runs. */
interface Running {
  readonly key: string;
  /** For people. */
  readonly node: string;
  readonly attempt: number;
  readonly memoryBytes: number;
  /** Of SQL that runs in this process. */
  connection?: DuckDBConnection;
  /** Ends a process. */
  end?: () => void;
  /** Why it is to end. */
  stopped?: TaskError;
}

/** One executor of a job. */
export class Executor {
  readonly #start: ExecutorStart;
  readonly #folder: JobFolder;
  readonly #engine: EnginePool;
  readonly #tasks: TaskPool;
  readonly #send: (message: FromExecutor) => void;
  readonly #running = new Set<Running>();
  readonly #baseBytes = process.memoryUsage.rss();
  readonly #watch: NodeJS.Timeout;

  constructor(start: ExecutorStart, send: (message: FromExecutor) => void) {
    this.#start = start;
    this.#send = send;
    this.#folder = new JobFolder(start.jobRoot, start.storage);
    this.#engine = new EnginePool(this.#folder.spill(start.id));
    this.#tasks = new TaskPool(this.#folder.spill(start.id), start.capacity.cpus);
    this.#watch = setInterval(() => this.#watchMemory(), watchMs);
    this.#watch.unref();
    send({ ready: start.capacity, engine: engineVersion() });
  }

  take(message: ToExecutor): void {
    if ("stop" in message) this.#stop(message.stop, message.attempt);
    else if ("run" in message) void this.#run(message);
  }

  /** Another attempt was first, or nobody wants it. */
  #stop(key: string, attempt: number | undefined): void {
    for (const running of this.#running) {
      if (running.key !== key || (attempt !== undefined && running.attempt !== attempt)) continue;
      this.#end(running, new TaskError(running.node, 1, "stopped", "it was told to end"));
    }
  }

  #end(running: Running, why: TaskError): void {
    if (running.stopped !== undefined) return;
    running.stopped = why;
    running.end?.();
    // Between two statements there is nothing to interrupt: once is not enough.
    const again = (): void => {
      if (!this.#running.has(running)) return;
      running.connection?.interrupt();
      setTimeout(again, interruptMs).unref();
    };
    again();
  }

  async #run(message: Run): Promise<void> {
    const { run: bound, attempt, memoryBytes } = message;
    const { task } = bound;
    const staging = this.#folder.attempt(task.key, attempt, this.#start.id);
    const running: Running = { key: task.key, node: task.node, attempt, memoryBytes };
    this.#running.add(running);
    const startedMs = Date.now();
    try {
      expectSpace(this.#folder.root, this.#start.storage?.minFreeDiskBytes ?? 0);
      const outcome = isUserCode(task)
        ? await this.#runApart(message, staging, running)
        : await this.#runHere(message, staging, running);
      // From here on it is only a rename; whoever wanted it stopped finds it done.
      if (running.stopped !== undefined) throw running.stopped;
      const metrics = metricsOf(bound, outcome, startedMs, this.#start.id);
      const done = this.#folder.commit(task.key, staging, outcome.outputs, metrics);
      this.#running.delete(running);
      this.#send({ done, attempt });
    } catch (error) {
      this.#running.delete(running);
      rmSync(staging, { recursive: true, force: true });
      const limits = { memoryBytes, folder: this.#folder.root };
      const failure = attemptError(running.stopped ?? error, task, limits);
      this.#send({ failed: task.key, attempt, error: serializeError(failure) });
    }
  }

  async #runHere(message: Run, staging: string, running: Running): Promise<TaskOutcome> {
    const { run: bound, memoryBytes } = message;
    const before = process.cpuUsage();
    const limits = limitsOf(message, memoryBytes);
    const outputs = await this.#engine.with(
      limits,
      async (connection): Promise<readonly DataSet[]> => {
        if (running.stopped !== undefined) throw running.stopped;
        running.connection = connection;
        try {
          return await runTask(bound, connection, staging);
        } finally {
          delete running.connection;
        }
      },
    );
    const { user, system } = process.cpuUsage(before);
    const maxRssBytes = process.resourceUsage().maxRSS * 1024;
    return { outputs, cpuMs: (user + system) / 1000, maxRssBytes };
  }

  async #runApart(message: Run, staging: string, running: Running): Promise<TaskOutcome> {
    const { run: bound, memoryBytes } = message;
    const { kind } = bound.task.op;
    const part = kind === "call" || kind === "compute" ? duckdbPart.call : duckdbPart.script;
    const limits = limitsOf(message, Math.floor(memoryBytes * part));
    const handle = this.#tasks.start({ bound, staging, limits }, memoryBytes, message.gpus);
    running.end = () => handle.stop();
    return await handle.outcome;
  }

  /** DuckDB does not account for all it takes: if that is too much, the largest task ends. */
  #watchMemory(): void {
    if (this.#running.size === 0) return;
    const { memoryBytes } = this.#start.capacity;
    const bytes = process.memoryUsage.rss() - this.#baseBytes;
    if (bytes < memoryBytes * 1.1 + slackBytes) return;
    // What earlier tasks left is given back before a task is ended for it.
    if (this.#engine.trim() > 0) return;
    let largest: Running | undefined;
    for (const running of this.#running) {
      if (running.connection === undefined || running.stopped !== undefined) continue;
      if (running.memoryBytes > (largest?.memoryBytes ?? -1)) largest = running;
    }
    if (largest === undefined) return;
    const message =
      `the executor takes ${bytes} bytes of memory of the ${memoryBytes} it may have; ` +
      `its limit is ${largest.memoryBytes} bytes`;
    this.#end(largest, new TaskError(largest.node, 1, "memory", message));
  }

  close(): void {
    clearInterval(this.#watch);
    this.#tasks.close();
    this.#engine.close();
  }
}

/** Whether a task runs what a user wrote in TypeScript, rather than SQL and DuckDB alone. */
function isUserCode({ op }: Task): boolean {
  if (op.kind === "sql") return op.functions !== undefined;
  return op.kind === "call" || op.kind === "compute" || op.kind === "script";
}

function limitsOf({ run, cpus }: Run, memoryBytes: number): EngineLimits {
  const { resources, seed } = run.task;
  const threads = Math.max(1, Math.ceil(cpus ?? resources.cpus));
  return { threads, memoryBytes, seed, once: leavesTraces(run.task) };
}

/** Statements before the last one may make tables, settings, anything: no other task may see it. */
function leavesTraces({ op }: Task): boolean {
  if (op.kind === "sql") return op.queries.length > 1 || op.functions !== undefined;
  if (op.kind === "compute") return true;
  return op.kind === "script";
}

function metricsOf(
  bound: BoundTask,
  { outputs, cpuMs, maxRssBytes }: TaskOutcome,
  startedMs: number,
  executor: string,
): TaskMetrics {
  return {
    startedMs,
    elapsedMs: Date.now() - startedMs,
    inputRows: sumKnown(bound.inputs.map(knownRows)),
    outputRows: sumKnown(outputs.map(knownRows)),
    outputBytes: outputs.flatMap((data) => data.parts).reduce((n, p) => n + (p.bytes ?? 0), 0),
    cpuMs,
    maxRssBytes,
    executor,
  };
}

function sumKnown(values: readonly (number | undefined)[]): number | undefined {
  let sum = 0;
  for (const value of values) {
    if (value === undefined) return undefined;
    sum += value;
  }
  return sum;
}
