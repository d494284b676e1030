// Jobs for the tests of their page: logs as a session writes them, whole or growing, and the server
// that a person starts to look at them.

import { spawn } from "node:child_process";
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { LogLine, StepLine } from "@open-infra/smallpond/live";

/** A job under a data root that a test writes line by line. */
export class JobLog {
  readonly root: string;
  readonly #jobId: string;
  readonly #file: string;

  constructor(dataRoot: string, jobId: string) {
    this.#jobId = jobId;
    this.root = join(dataRoot, jobId);
    mkdirSync(join(this.root, "log"), { recursive: true });
    this.#file = join(this.root, "log", "events.jsonl");
    // A running driver's, which it renews.
    writeFileSync(join(this.root, "lock"), "");
  }

  write(...lines: readonly LogLine[]): void {
    appendFileSync(this.#file, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  }

  job(state: "running" | "ended", atMs: number): void {
    const who = { jobId: this.#jobId, pid: process.pid, host: hostname() };
    this.write({ type: "job", atMs, state, ...who });
  }

  /** An executor that is ready. */
  executor(executor: string, atMs: number): void {
    const has = { cpus: 2, memoryBytes: 4 * 2 ** 30 };
    this.write({ type: "executor", atMs, event: "ready", executor, ...has });
  }

  started(task: TaskOfTest, atMs: number): void {
    this.write({ type: "task", atMs, event: "started", ...task });
  }

  finished(task: TaskOfTest, atMs: number, elapsedMs: number): void {
    const took = { elapsedMs, rows: 1000, bytes: 65_536, maxRssBytes: 2 ** 27, cpuMs: elapsedMs };
    this.write({ type: "task", atMs, event: "finished", ...task, ...took });
  }
}

/** Which attempt where. */
export interface TaskOfTest {
  readonly key: string;
  readonly node: string;
  readonly attempt: number;
  readonly executor: string;
}

/** Two scans, a join of their partitions, a write. */
export function stepsOfTest(tasks: number): readonly StepLine[] {
  const at = (line: number): string => `/srv/nightly.ts:${line}`;
  return [
    {
      ...{ node: "scan#0", kind: "source", text: "prices/*.parquet", inputs: [] },
      ...{ source: at(3), tasks: 0 },
    },
    {
      ...{ node: "partition#1", kind: "partition", text: "by hash(ticker)", inputs: ["scan#0"] },
      ...{ source: at(4), tasks },
    },
    {
      ...{ node: "scan#2", kind: "source", text: "names.parquet", inputs: [] },
      ...{ source: at(6), tasks: 0 },
    },
    {
      ...{ node: "join#3", kind: "sql", inputs: ["partition#1", "scan#2"] },
      text: "SELECT ticker, name, max(price) AS high FROM {0} JOIN {1} USING (ticker) GROUP BY ALL",
      ...{ source: at(9), tasks },
    },
  ];
}

/** A job that is over: of each step one task a time on three executors, one of them failed. */
export function finishedJob(dataRoot: string, jobId: string, startMs: number, tasks: number): void {
  const log = new JobLog(dataRoot, jobId);
  const executors = ["local-0", "local-1", "local-2"];
  log.job("running", startMs);
  for (const executor of executors) log.executor(executor, startMs + 200);
  log.write({ type: "action", atMs: startMs + 300, steps: stepsOfTest(tasks) });
  let nowMs = startMs + 400;
  for (const node of ["partition#1", "join#3"]) {
    for (let i = 0; i < tasks; i++) {
      const executor = executors[i % 3] as string;
      const task = { key: `${i.toString(16).padStart(8, "0")}ffff`, node, attempt: 0, executor };
      const key = `${node.slice(0, 1)}${task.key}`;
      const elapsedMs = 300 + ((i * 97) % 400);
      log.started({ ...task, key }, nowMs + Math.floor(i / 3) * 800);
      log.finished({ ...task, key }, nowMs + Math.floor(i / 3) * 800 + elapsedMs, elapsedMs);
    }
    nowMs += Math.ceil(tasks / 3) * 800;
  }
  const last = { key: "bad0bad0ffff", node: "join#3", executor: "local-1" };
  for (const [attempt, event] of ["retried", "failed"].entries()) {
    log.started({ ...last, attempt }, nowMs + attempt * 900);
    const error = `out of memory: ${attempt + 1} GiB used\nquery: SELECT ticker FROM prices`;
    log.write({ type: "task", atMs: nowMs + attempt * 900 + 600, event, ...last, attempt, error });
  }
  log.job("ended", nowMs + 2_000);
}

/** `open-infra smallpond console`, as a person starts it. */
export async function startJobsConsole(
  dataRoot: string,
): Promise<{ readonly url: string } & AsyncDisposable> {
  const main = fileURLToPath(new URL("../../../cli/src/main.ts", import.meta.url));
  const args = ["--conditions=@open-infra/source", main, "smallpond", "console"];
  const child = spawn(process.execPath, [...args, "--data-root", dataRoot], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  let printed = "";
  const url = await new Promise<string>((resolve, reject) => {
    const take = (bytes: Buffer): void => {
      printed += bytes.toString();
      const found = /ready on (\S+)/.exec(printed)?.[1];
      if (found !== undefined) resolve(found);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("close", () => reject(new Error(`it ended: ${printed}`)));
  });
  return {
    url,
    async [Symbol.asyncDispose](): Promise<void> {
      child.kill("SIGTERM");
      await ended;
    },
  };
}
