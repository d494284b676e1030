// Processes for tasks that run users' code, kept for the next task with the same limits. A task
// that takes more memory than it may, or is told to end, loses its process and nothing else.

import { type ChildProcess, fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { deserializeError, type SerializedError } from "@open-infra/errors";
import type { DataSet } from "../dataset/dataset.ts";
import { PlanError, TaskError } from "../errors.ts";
import { ownFlags, ownModule } from "../own-module.ts";
import type { BoundTask } from "../task/run.ts";
import type { EngineLimits } from "./engine.ts";
import type { GpuShare } from "./protocol.ts";

/** How a task process is started. */
export interface TaskProcessStart {
  readonly spill: string;
  readonly parentPid: number;
}

/** One task for a process. */
export interface TaskJob {
  readonly bound: BoundTask;
  readonly staging: string;
  readonly limits: EngineLimits;
}

/** What a task came to. */
export interface TaskOutcome {
  readonly outputs: readonly DataSet[];
  readonly cpuMs: number;
  readonly maxRssBytes: number;
}

export type FromTaskProcess =
  | { readonly ready: true }
  | TaskOutcome
  | { readonly error: SerializedError };

/** A task in a process, and the way to end it. */
export interface TaskHandle {
  readonly outcome: Promise<TaskOutcome>;
  stop(): void;
}

const mib = 2 ** 20;
const watchMs = 25;
/** An idle process is let go of after this. */
const idleMs = 30_000;
/** No heap is smaller: Node and DuckDB's bindings need some. */
const leastHeapMib = 48;
/** A process that holds more than before by this part of its limit does not get another task. */
const keptPart = 0.25;

/** Bytes of memory a process has; undefined where the kernel does not say. */
export function residentBytes(pid: number): number | undefined {
  try {
    const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

class TaskProcess {
  readonly name: string;
  readonly memoryBytes: number;
  readonly ready: Promise<void>;
  readonly #child: ChildProcess;
  #baseBytes = 0;
  /** The last of what it wrote to its error stream. */
  #tail = "";
  #end: ((result: FromTaskProcess | Error) => void) | undefined;
  #ended: Error | undefined;
  #idle: NodeJS.Timeout | undefined;
  onGone: () => void = () => {};

  constructor(name: string, memoryBytes: number, spill: string, devices: string | undefined) {
    this.name = name;
    this.memoryBytes = memoryBytes;
    const file = ownModule("./task-process", import.meta.url);
    const heapMib = Math.max(leastHeapMib, Math.floor((memoryBytes * 0.75) / mib));
    const start: TaskProcessStart = { spill, parentPid: process.pid };
    this.#child = fork(file, [JSON.stringify(start)], {
      execArgv: [...ownFlags, `--max-old-space-size=${heapMib}`],
      serialization: "json",
      stdio: ["ignore", "inherit", "pipe", "ipc"],
      ...(devices !== undefined && { env: { ...process.env, CUDA_VISIBLE_DEVICES: devices } }),
    });
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.ready.catch(() => {});
    this.#child.on("message", (message: FromTaskProcess) => {
      if ("ready" in message) {
        this.#baseBytes = residentBytes(this.#child.pid ?? 0) ?? 0;
        ready.resolve();
      } else this.#end?.(message);
    });
    this.#child.stderr?.on("data", (chunk: Buffer) => this.#hear(chunk));
    const gone = (how: string): void => {
      this.#ended ??= new Error(how);
      ready.reject(this.#ended);
      this.#end?.(this.#ended);
      this.onGone();
    };
    this.#child.once("close", (code, signal) => gone(signal ?? `exit code ${code}`));
    this.#child.once("error", (error) => gone(error.message));
  }

  /** Passes on what the code writes; V8's report of a full heap is ours to put in words. */
  #hear(chunk: Buffer): void {
    this.#tail = (this.#tail + chunk.toString()).slice(-4000);
    if (!/Last few GCs|heap out of memory/.test(this.#tail)) process.stderr.write(chunk);
  }

  async run(job: TaskJob): Promise<TaskOutcome> {
    clearTimeout(this.#idle);
    await this.ready;
    const { promise, resolve } = Promise.withResolvers<FromTaskProcess | Error>();
    this.#end = resolve;
    const { task } = job.bound;
    const limitBytes = this.#baseBytes + this.memoryBytes;
    const watch = setInterval(() => {
      const bytes = residentBytes(this.#child.pid ?? 0) ?? 0;
      if (bytes > limitBytes) this.kill(this.#outOfMemory(task.node, bytes - this.#baseBytes));
    }, watchMs);
    try {
      this.#child.send(job, (error) => error && resolve(error));
      const result = this.#ended ?? (await promise);
      if (result instanceof Error) throw this.#explain(task.node, result);
      if ("error" in result) throw deserializeError(result.error, [TaskError, PlanError]);
      return result as TaskOutcome;
    } finally {
      clearInterval(watch);
      this.#end = undefined;
    }
  }

  #outOfMemory(node: string, bytes: number): TaskError {
    const text = `took ${Math.ceil(bytes / mib)} MiB of memory; its limit is `;
    return new TaskError(node, 1, "memory", `${text}${Math.floor(this.memoryBytes / mib)} MiB`);
  }

  #explain(node: string, how: Error): Error {
    if (how instanceof TaskError) return how;
    if (/heap out of memory|Allocation failed/.test(this.#tail)) {
      const limit = `its limit is ${Math.floor(this.memoryBytes / mib)} MiB`;
      return new TaskError(node, 1, "memory", `JavaScript's heap is out of memory; ${limit}`);
    }
    const said = this.#tail.trim().split("\n").slice(-5).join("\n");
    const words = said === "" ? "" : `; it said:\n${said}`;
    const message = `the process that ran it ended (${how.message})${words}`;
    return new TaskError(node, 1, "crash", message, { cause: how });
  }

  /** Whether it may run another task: it gave back what the last one took. */
  get reusable(): boolean {
    if (this.#ended !== undefined) return false;
    const bytes = residentBytes(this.#child.pid ?? 0) ?? 0;
    return bytes - this.#baseBytes < Math.max(64 * mib, this.memoryBytes * keptPart);
  }

  /** It waits for a task, but not for ever, and keeps nobody alive. */
  rest(): void {
    this.#idle = setTimeout(() => this.kill(new Error("not needed")), idleMs);
    this.#idle.unref();
  }

  kill(reason: Error): void {
    clearTimeout(this.#idle);
    this.#ended ??= reason;
    this.#child.kill("SIGKILL");
  }
}

/** Processes of one executor. */
export class TaskPool {
  readonly #spill: string;
  readonly #idle: TaskProcess[] = [];
  readonly #all = new Set<TaskProcess>();
  readonly #keep: number;
  #serial = 0;

  /** @param keep Idle processes at most. */
  constructor(spill: string, keep: number) {
    this.#spill = spill;
    this.#keep = Math.max(1, Math.floor(keep));
  }

  start(job: TaskJob, memoryBytes: number, gpus: readonly GpuShare[] = []): TaskHandle {
    const process = this.#take(memoryBytes, gpus);
    const outcome = process.run(job).finally(() => {
      if (!process.reusable || gpus.length > 0 || this.#idle.length >= this.#keep) {
        process.kill(new Error("not needed"));
      } else {
        process.rest();
        this.#idle.push(process);
      }
    });
    const stopped = new TaskError(job.bound.task.node, 1, "stopped", "it was told to end");
    return { outcome, stop: () => process.kill(stopped) };
  }

  #take(memoryBytes: number, gpus: readonly GpuShare[]): TaskProcess {
    // A process that has seen a GPU would not look for others: such tasks get a fresh one.
    const devices = gpus.length === 0 ? undefined : gpus.map(({ device }) => device).join();
    const name = `${memoryBytes}`;
    const at = devices === undefined ? this.#idle.findLastIndex((idle) => idle.name === name) : -1;
    const known = at < 0 ? undefined : this.#idle.splice(at, 1)[0];
    if (known !== undefined) return known;
    // One of other limits makes room.
    if (this.#all.size > this.#keep) this.#idle.shift()?.kill(new Error("not needed"));
    const spill = join(this.#spill, `process-${this.#serial++}`);
    const process = new TaskProcess(name, memoryBytes, spill, devices);
    process.onGone = () => {
      this.#all.delete(process);
      const place = this.#idle.indexOf(process);
      if (place >= 0) this.#idle.splice(place, 1);
    };
    this.#all.add(process);
    return process;
  }

  close(): void {
    for (const process of this.#all) process.kill(new Error("closed"));
  }
}
