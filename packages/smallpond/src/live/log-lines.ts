// What a job writes down of itself, one JSON object a line of `log/events.jsonl`: enough for a
// person to watch it from another process, and to look at it when it is over. Only ever appended
// to, so that a reader may follow it; a killed job's log lacks its last tenth of a second at
// most.

/** A step of a plan, for people. */
export interface StepLine {
  /** As tasks name it: `partition#3`. */
  readonly node: string;
  readonly kind: string;
  /** What it does: a query, a function's name. */
  readonly text: string;
  /** Steps it reads. */
  readonly inputs: readonly string[];
  /** `file:line` of the user's call. */
  readonly source: string;
  /** Tasks of it in this action. */
  readonly tasks: number;
}

/** A line. */
export type LogLine = { readonly atMs: number } & (
  | {
      readonly type: "job";
      readonly state: "running" | "ended";
      readonly jobId: string;
      readonly pid: number;
      readonly host: string;
    }
  /** An action begins: the steps it needs. */
  | { readonly type: "action"; readonly steps: readonly StepLine[] }
  | {
      readonly type: "task";
      /** As in TaskEvent. */
      readonly event: string;
      readonly key: string;
      readonly node: string;
      readonly attempt: number;
      readonly executor?: string;
      readonly elapsedMs?: number;
      readonly rows?: number;
      readonly bytes?: number;
      readonly maxRssBytes?: number;
      readonly cpuMs?: number;
      readonly error?: string;
    }
  | {
      readonly type: "executor";
      /** As in ExecutorEvent. */
      readonly event: string;
      readonly executor: string;
      readonly reason?: string;
      /** What it takes on, where that is news. */
      readonly cpus?: number;
      readonly memoryBytes?: number;
    }
);
