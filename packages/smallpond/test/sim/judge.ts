// Watches a simulated job and says what broke a rule: results accepted once, inputs there,
// resources kept, events in pairs, retries within limits, every failure with a cause.

import { InfraError } from "@open-infra/errors";
import { NoExecutorError, TaskError } from "../../src/errors.ts";
import type { Capacity, GpuShare } from "../../src/executor/protocol.ts";
import type { FaultPolicy } from "../../src/scheduler/policy.ts";
import type { TaskEvent } from "../../src/scheduler/scheduler.ts";
import type { Witness } from "./executor.ts";

interface Held {
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly gpus: readonly GpuShare[];
}

/** What the scheduler has given out on one executor. */
class Ledger {
  readonly capacity: Capacity;
  readonly held = new Map<string, Held>();

  constructor(capacity: Capacity) {
    this.capacity = capacity;
  }

  /** What is wrong, if anything. */
  excess(): string | undefined {
    let cpus = 0;
    let memoryBytes = 0;
    const gpus = new Map<number, number>();
    for (const held of this.held.values()) {
      cpus += held.cpus;
      memoryBytes += held.memoryBytes;
      for (const { device, share } of held.gpus) gpus.set(device, (gpus.get(device) ?? 0) + share);
    }
    const { capacity } = this;
    if (cpus > capacity.cpus + 1e-6) return `${cpus} of ${capacity.cpus} cores`;
    if (memoryBytes > capacity.memoryBytes)
      return `${memoryBytes} of ${capacity.memoryBytes} bytes`;
    for (const [device, share] of gpus) {
      if (device >= capacity.gpus || share > 1 + 1e-6) return `${share} of GPU ${device}`;
    }
    return undefined;
  }
}

/** See the head of this file. */
export class Judge implements Witness {
  readonly violations: string[] = [];
  readonly #policy: FaultPolicy;
  readonly #ledgers = new Map<string, Ledger>();
  /** Attempts begun and not over, by task. */
  readonly #live = new Map<string, Set<number>>();
  readonly #begun = new Set<string>();
  readonly #done = new Set<string>();
  /** Failures that count, since the task was last begun anew. */
  readonly #failures = new Map<string, number>();
  readonly #losses = new Map<string, number>();
  readonly #reasons = new Map<string, Set<string>>();

  constructor(policy: FaultPolicy) {
    this.#policy = policy;
  }

  violation(text: string): void {
    this.violations.push(text);
  }

  added(executor: string, capacity: Capacity): void {
    this.#ledgers.set(executor, new Ledger(capacity));
  }

  sent(executor: string, message: Parameters<Witness["sent"]>[1]): void {
    const ledger = this.#ledgers.get(executor) as Ledger;
    const { task } = message.run;
    const { memoryBytes, cpus = task.resources.cpus, gpus = [] } = message;
    ledger.held.set(`${task.key}/${message.attempt}`, { cpus, memoryBytes, gpus });
    const share = gpus.reduce((sum, gpu) => sum + gpu.share, 0);
    if (Math.abs(share - (task.resources.gpus ?? 0)) > 1e-6) {
      this.violation(`${task.key} has ${share} GPUs and asked for ${task.resources.gpus}`);
    }
    const excess = ledger.excess();
    if (excess !== undefined) this.violation(`${executor} was given ${excess}`);
  }

  answered(executor: string, key: string, attempt: number): void {
    this.#ledgers.get(executor)?.held.delete(`${key}/${attempt}`);
  }

  gone(executor: string): void {
    this.#ledgers.delete(executor);
  }

  failing(key: string, reason: string): void {
    const reasons = this.#reasons.get(key) ?? new Set();
    this.#reasons.set(key, reasons.add(reason));
  }

  /** An attempt the scheduler still counts on. */
  isLive(key: string, attempt: number): boolean {
    return this.#live.get(key)?.has(attempt) ?? false;
  }

  /** Nobody wants these tasks any more: their next attempts are counted anew. */
  settle(unwanted: (key: string) => boolean): void {
    for (const key of [...this.#failures.keys()]) if (unwanted(key)) this.#failures.delete(key);
    for (const key of [...this.#losses.keys()]) if (unwanted(key)) this.#losses.delete(key);
  }

  /** A result was let go of: the task may be done again. */
  forgotten(key: string): void {
    this.#done.delete(key);
  }

  hear(event: TaskEvent): void {
    const { type, attempt } = event;
    const { key } = event.task;
    const live = this.#live.get(key) ?? new Set();
    this.#live.set(key, live);
    if (type === "started" || type === "speculated") this.#begin(event, live);
    else if (type === "released") {
      if (!this.#done.delete(key)) this.violation(`${key} was released and not done`);
      this.settle((other) => other === key);
    } else if (type === "reused") this.#accept(key, "reused");
    else if (type !== "skipped") {
      if (!live.delete(attempt)) this.violation(`${key} attempt ${attempt} ${type}, not running`);
      if (type === "finished") this.#accept(key, "finished");
      if (type === "retried" || type === "failed") this.#fail(event);
    }
  }

  #begin({ type, task, attempt }: TaskEvent, live: Set<number>): void {
    const { key } = task;
    const name = `${key}/${attempt}`;
    if (this.#begun.has(name)) this.violation(`${name} began twice`);
    this.#begun.add(name);
    live.add(attempt);
    if (this.#done.has(key)) this.violation(`${name} began though the task is done`);
    if (live.size > (type === "speculated" ? 2 : 1)) {
      this.violation(`${key} has ${live.size} attempts at once`);
    }
    if (live.size > 1 && task.resources.speculate === false) {
      this.violation(`${key} must not be raced`);
    }
  }

  #accept(key: string, how: string): void {
    if (this.#done.has(key)) this.violation(`${key} was ${how} though it was done`);
    this.#done.add(key);
    this.settle((other) => other === key);
  }

  #fail({ task: { key }, error }: TaskEvent): void {
    const reason = error instanceof TaskError ? error.reason : String(error);
    if (reason === "executor-lost") {
      const losses = (this.#losses.get(key) ?? 0) + 1;
      this.#losses.set(key, losses);
      // One more ends the task, and one more still where a copy outlived it. A crash that counts as
      // out of memory counts as nothing else.
      if (!this.#policy.crashIsMemory && losses > this.#policy.maxLosses + 2)
        this.violation(`${key} lost ${losses} executors`);
    } else if (reason !== "memory" && !(reason === "crash" && this.#policy.crashIsMemory)) {
      const failures = (this.#failures.get(key) ?? 0) + 1;
      this.#failures.set(key, failures);
      // A copy may fail beside the attempt that fails last.
      if (failures > this.#policy.maxFailures + 1)
        this.violation(`${key} failed ${failures} times`);
    }
  }

  /** Whether an action's error has a cause in the world. */
  explain(error: unknown, calm: boolean): void {
    if (error instanceof Error && error.message === "aborted by the test") return;
    if (calm) this.violation(`nothing went wrong, and yet: ${error}`);
    else if (!(error instanceof InfraError)) this.violation(`not a typed error: ${error}`);
    else if (error instanceof TaskError) this.#explainTask(error);
    else if (error.code === "disk" && this.#policy.maxDiskBytes < Number.POSITIVE_INFINITY) return;
    else if (error.code !== "infeasible" && !(error instanceof NoExecutorError)) {
      this.violation(`an error of no cause: ${error}`);
    }
  }

  #explainTask(error: TaskError): void {
    const { reason } = error;
    if (reason === "executor-lost" || reason === "timeout") return;
    const seen = [...this.#reasons.values()].some((reasons) => reasons.has(reason));
    if (!seen) this.violation(`nothing failed for the reason ${reason}: ${error.message}`);
  }

  /** After everything: no attempt without an end. */
  finish(): void {
    for (const [key, live] of this.#live) {
      if (live.size > 0) this.violation(`${key}: attempts ${[...live]} never ended`);
    }
  }
}
