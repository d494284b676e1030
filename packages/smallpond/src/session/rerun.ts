// Runs one recorded task of a job again, alone and in this process, to see what is wrong with it:
// its inputs are the job's, its output goes to a folder of its own, the job is not touched. The
// original's tool for it reads a pickled task; this one a line of `log/tasks.jsonl`.

import { rmSync } from "node:fs";
import { mkdtemp, readFile } from "node:fs/promises";
import { availableParallelism, freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "@open-infra/errors";
import { concatData, type DataSet, knownRows } from "../dataset/dataset.ts";
import { literal } from "../dataset/sql-text.ts";
import { attemptError } from "../executor/attempt-errors.ts";
import { EnginePool } from "../executor/engine.ts";
import { JobFolder } from "../task/commit.ts";
import { runTask } from "../task/run.ts";
import { dataOf, type Task } from "../task/task.ts";

/** Which task, and with what. */
export interface RerunOptions {
  /** The job's folder. */
  readonly jobRoot: string;
  /** A task's key or the beginning of it; or a node's name, for its first task. */
  readonly task: string;
  /** Where its output goes. @default a temporary folder */
  readonly output?: string;
  /** @default what the task asked for, else 80 % of what is free */
  readonly memoryBytes?: number;
}

/** How it went. */
export interface RerunReport {
  readonly task: Task;
  readonly outputs: readonly DataSet[];
  readonly output: string;
  readonly inputRows: number | undefined;
  readonly outputRows: number | undefined;
  readonly elapsedMs: number;
  /** DuckDB's own account of the last statement, where the task ran SQL. */
  readonly profile: string | undefined;
}

/**
 * Runs it. Functions run in this process, so that a debugger reaches them.
 *
 * @throws InputError for a task that the job does not know, or whose inputs are gone; what the task
 * throws
 */
export async function rerunTask(options: RerunOptions): Promise<RerunReport> {
  const task = findTask(await readTasks(join(options.jobRoot, "log")), options.task);
  const folder = new JobFolder(options.jobRoot);
  const inputs = task.inputs.map((refs) =>
    concatData(refs.map((ref) => dataOf(ref, (key) => outputsOf(key, task, folder)))),
  );
  const output = options.output ?? (await mkdtemp(join(tmpdir(), "smallpond-rerun-")));
  const spill = join(output, ".spill");
  const profile = join(output, ".profile.txt");
  const engine = new EnginePool(spill);
  const { cpus, memoryBytes = Math.floor(freemem() * 0.8) } = task.resources;
  const limits = {
    threads: Math.min(Math.max(1, Math.ceil(cpus)), availableParallelism()),
    memoryBytes: options.memoryBytes ?? memoryBytes,
    seed: task.seed,
    once: true,
  };
  const startMs = performance.now();
  try {
    return await engine.with(limits, async (connection) => {
      await connection.run("PRAGMA enable_profiling = 'query_tree'");
      await connection.run(`SET profiling_output = ${literal(profile)}`);
      const outputs = await runTask({ task, inputs }, connection, output);
      const elapsedMs = performance.now() - startMs;
      return {
        ...{
          task,
          outputs,
          output,
          elapsedMs,
          profile: await readFile(profile, "utf8").catch(() => undefined),
        },
        ...{ inputRows: rowsOf(inputs), outputRows: rowsOf(outputs) },
      };
    });
  } catch (error) {
    throw attemptError(error, task, { memoryBytes: limits.memoryBytes, folder: output });
  } finally {
    engine.close();
    for (const path of [spill, profile]) rmSync(path, { recursive: true, force: true });
  }
}

/** The tasks a job has started, in order. A line that a killed job left half is passed over. */
export async function readTasks(log: string): Promise<Task[]> {
  const tasks: Task[] = [];
  for (const line of (await readFile(join(log, "tasks.jsonl"), "utf8")).split("\n")) {
    if (line === "") continue;
    try {
      tasks.push(JSON.parse(line) as Task);
    } catch {
      // Half a line.
    }
  }
  return tasks;
}

function findTask(tasks: readonly Task[], wanted: string): Task {
  const byKey = [...new Map(tasks.map((task) => [task.key, task])).values()];
  const matches = byKey.filter(({ key }) => wanted.length >= 4 && key.startsWith(wanted));
  const [found, second] = matches;
  if (found !== undefined && second === undefined) return found;
  if (second !== undefined) {
    throw new InputError("task", wanted, `more of the key: ${matches.length} tasks begin with it`);
  }
  const named = byKey.find(({ node }) => node === wanted);
  if (named !== undefined) return named;
  const nodes = [...new Set(byKey.map(({ node }) => node))].slice(0, 12);
  throw new InputError("task", wanted, `a key of the job, or a node: ${nodes.join(", ")}`);
}

function outputsOf(key: string, task: Task, folder: JobFolder): readonly DataSet[] {
  const result = folder.finished(key);
  if (result !== undefined) return result.outputs;
  throw new InputError(
    `${task.node}: input ${key.slice(0, 8)}`,
    "gone",
    "there: results stay with keepIntermediates, or if the job has a jobId or failed",
  );
}

function rowsOf(sets: readonly DataSet[]): number | undefined {
  const rows = sets.map(knownRows);
  return rows.some((n) => n === undefined) ? undefined : rows.reduce((a, b) => (a ?? 0) + (b ?? 0));
}
