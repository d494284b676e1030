// Runs tasks as they come and says how each ended. Where messages come from (a parent process, a
// queue) is the caller's.

import { rmSync } from "node:fs";
import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import { serializeError } from "@open-infra/errors";
import { knownRows } from "../dataset/dataset.ts";
import { JobFolder } from "../task/commit.ts";
import { type BoundTask, runTask } from "../task/run.ts";
import type { Task, TaskMetrics } from "../task/task.ts";
import { EnginePool, engineVersion } from "./engine.ts";
import type { ExecutorStart, FromExecutor, ToExecutor } from "./protocol.ts";

/** One executor of a job. */
export class Executor {
  readonly #start: ExecutorStart;
  readonly #folder: JobFolder;
  readonly #engine: EnginePool;
  readonly #send: (message: FromExecutor) => void;
  readonly #running = new Map<string, DuckDBConnection>();

  constructor(start: ExecutorStart, send: (message: FromExecutor) => void) {
    this.#start = start;
    this.#send = send;
    this.#folder = new JobFolder(start.jobRoot);
    this.#engine = new EnginePool(join(start.jobRoot, "staging", `spill.${start.id}`));
    send({ ready: start.capacity, engine: engineVersion() });
  }

  take(message: ToExecutor): void {
    if ("stop" in message) this.#stop(message.stop);
    else if ("run" in message) void this.#run(message);
  }

  /** Another attempt was first. */
  #stop(key: string): void {
    this.#running.get(key)?.interrupt();
  }

  async #run(message: Extract<ToExecutor, { run: BoundTask }>): Promise<void> {
    const { run: bound, attempt, memoryBytes } = message;
    const { key, resources, seed } = bound.task;
    const staging = this.#folder.staging(key, `${attempt}.${this.#start.id}`);
    const startedMs = Date.now();
    const cpuBefore = process.cpuUsage();
    try {
      const threads = Math.max(1, Math.ceil(message.cpus ?? resources.cpus));
      const limits = { threads, memoryBytes, seed, once: leavesTraces(bound.task) };
      const outputs = await this.#engine.with(limits, (connection) => {
        this.#running.set(key, connection);
        return runTask(bound, connection, staging);
      });
      const cpu = process.cpuUsage(cpuBefore);
      const rows = outputs.map(knownRows);
      const metrics: TaskMetrics = {
        startedMs,
        elapsedMs: Date.now() - startedMs,
        inputRows: sumKnown(bound.inputs.map(knownRows)),
        outputRows: sumKnown(rows),
        outputBytes: outputs.flatMap((data) => data.parts).reduce((n, p) => n + (p.bytes ?? 0), 0),
        cpuMs: (cpu.user + cpu.system) / 1000,
        maxRssBytes: process.resourceUsage().maxRSS * 1024,
        executor: this.#start.id,
      };
      this.#send({ done: this.#folder.commit(key, staging, outputs, metrics), attempt });
    } catch (error) {
      rmSync(staging, { recursive: true, force: true });
      this.#send({ failed: key, attempt, error: serializeError(error) });
    } finally {
      this.#running.delete(key);
    }
  }

  close(): void {
    this.#engine.close();
  }
}

/** Statements before the last one may make tables, settings, anything: no other task may see it. */
function leavesTraces({ op }: Task): boolean {
  return op.kind === "script" || (op.kind === "sql" && op.queries.length > 1);
}

function sumKnown(values: readonly (number | undefined)[]): number | undefined {
  let sum = 0;
  for (const value of values) {
    if (value === undefined) return undefined;
    sum += value;
  }
  return sum;
}
