// How failures and slowness are met: the scheduler's options, what they are by default, and the
// rules that are arithmetic alone.

import { InputError } from "@open-infra/errors";
import type { Task } from "../task/task.ts";

/** Whether copies of stragglers are raced: `aggressive` is sooner, and though others wait. */
export type Speculation = boolean | "aggressive";

/** What a user may say about failures, slowness and space. */
export interface FaultOptions {
  /**
   * Failures of one task before its action fails; 1 ends at the first one, whatever it is.
   * Losses of executors and growing memory limits do not count. @default 3
   */
  readonly maxFailures?: number;
  /** Executors that may be lost under one task before it is taken for the cause. @default 4 */
  readonly maxLosses?: number;
  /**
   * `machine`: an error of a query or a function ends the action at once, as it would come again.
   * `all`: it is tried again too. @default "machine"
   */
  readonly retryErrors?: "machine" | "all";
  /** Tasks that failed go before fresh ones rather than in turn with them. @default false */
  readonly prioritizeRetry?: boolean;
  /** A process that ends under a task counts as out of memory: the next attempt gets twice. */
  readonly crashIsMemory?: boolean;
  /** An executor whose machine failed a task is drained and replaced. @default false */
  readonly stopExecutorOnFailure?: boolean;
  /** An executor silent for so long is taken for lost. @default 10 s */
  readonly heartbeatTimeoutMs?: number;
  /** How long one executor may take to come up. @default 60 s */
  readonly executorStartMs?: number;
  /** How long an action waits for any executor to be up before it fails. @default 9 s */
  readonly noExecutorMs?: number;
  /** How long an attempt may take to end when told; then its executor is killed. @default 10 s */
  readonly stopGraceMs?: number;
  /** Races copies of tasks that take much longer than their kind. @default true */
  readonly speculation?: Speculation;
  /** No task is a straggler before it is so much later than its kind's median. @default 1 s */
  readonly stragglerMs?: number;
  /** Finished tasks of a node before stragglers are told; a quarter if aggressive. @default 5 */
  readonly speculationSamples?: number;
  /** The last tasks get up to so many times their cores and memory, if idle. @default 2 */
  readonly boost?: number;
  /**
   * Outputs that nothing will read again in the running actions: kept, removed at once, or removed
   * when the disk is short. What was removed is computed again if it is asked for again.
   * @default "while-space"
   */
  readonly keepIntermediates?: boolean | "while-space";
  /** Bytes of outputs that the job may hold. @default no limit */
  readonly maxDiskBytes?: number;
}

/** All of {@link FaultOptions}. */
export type FaultPolicy = Required<FaultOptions>;

const defaults: FaultPolicy = {
  maxFailures: 3,
  maxLosses: 4,
  retryErrors: "machine",
  prioritizeRetry: false,
  crashIsMemory: false,
  stopExecutorOnFailure: false,
  heartbeatTimeoutMs: 10_000,
  executorStartMs: 60_000,
  noExecutorMs: 9_000,
  stopGraceMs: 10_000,
  speculation: true,
  stragglerMs: 1_000,
  speculationSamples: 5,
  boost: 2,
  keepIntermediates: "while-space",
  maxDiskBytes: Number.POSITIVE_INFINITY,
};

const least: Partial<Record<keyof FaultPolicy, number>> = {
  maxFailures: 1,
  maxLosses: 0,
  heartbeatTimeoutMs: 1,
  executorStartMs: 1,
  noExecutorMs: 1,
  stopGraceMs: 0,
  stragglerMs: 0,
  speculationSamples: 1,
  boost: 1,
  maxDiskBytes: 0,
};

/** Options with the defaults filled in. @throws InputError for a number out of range */
export function faultPolicy(options: FaultOptions): FaultPolicy {
  const given = Object.entries(options).filter(
    ([name, value]) => value !== undefined && name in defaults,
  );
  for (const [name, value] of given) {
    const low = least[name as keyof FaultPolicy];
    if (low === undefined) continue;
    if (typeof value !== "number" || Number.isNaN(value) || value < low) {
      throw new InputError(name, String(value), `a number of at least ${low}`);
    }
  }
  return { ...defaults, ...Object.fromEntries(given) };
}

/** Whether more cores and memory would help a task: DuckDB's work, unless its node refuses. */
export function mayBoost({ op, resources }: Task): boolean {
  return resources.boost !== false && (op.kind === "sql" || op.kind === "partition");
}
