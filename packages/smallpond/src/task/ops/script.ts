// A task that is a function over files: it is given its inputs as data sets and a folder, and says
// what it wrote there. For what neither SQL nor rows express: records of a format of their own,
// other programs.

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataSet, FilePart } from "../../dataset/dataset.ts";
import { TaskError } from "../../errors.ts";
import { loadFunction } from "../../functions/function-ref.ts";
import type { Task, TaskOp } from "../task.ts";
import { allEmpty, withFunction } from "./write.ts";

/** What a script is given. */
export interface ScriptContext {
  /** One a slot. */
  readonly inputs: readonly DataSet[];
  /** An empty folder of its own; what is in it at the end is kept. */
  readonly folder: string;
  /** With the task's memory and threads; its `random()` is seeded. */
  readonly connection: DuckDBConnection;
  readonly task: Task;
  /** Its place in each dimension, by name; empty for a task over all data. */
  readonly partition: Readonly<Record<string, number>>;
}

/**
 * A script: gives one data set an output, or nothing if it has none. One of a script node may say
 * nothing: then the files in its folder are its output; or `false`: then it has failed.
 *
 * Whoever computes for seconds lets go of the thread now and then, as the executor has to say that
 * it is alive.
 */
export type Script = (
  context: ScriptContext,
  ...args: never[]
) => ScriptResult | Promise<ScriptResult>;

// biome-ignore lint/suspicious/noConfusingVoidType: a function without a return gives nothing else.
export type ScriptResult = readonly DataSet[] | boolean | undefined | void;

/** Calls a script. */
export async function runScript(
  task: Task,
  { fn, collect, skipEmpty }: Extract<TaskOp, { kind: "script" }>,
  inputs: readonly DataSet[],
  connection: DuckDBConnection,
  folder: string,
): Promise<readonly DataSet[]> {
  const fail = (message: string): TaskError => new TaskError(task.node, 1, "function", message);
  if (skipEmpty && allEmpty(inputs)) return [{ format: "files", parts: [] }];
  const outputs: unknown = await withFunction(task, async () => {
    const script = await loadFunction(fn);
    const { partition } = task;
    const context: ScriptContext = { inputs, folder, connection, task, partition };
    return await script(context);
  });
  if (collect && (outputs === undefined || outputs === true)) {
    return [{ format: "files", parts: filesIn(folder) }];
  }
  if (collect && outputs === false) throw fail("the script said that it failed (it gave false)");
  if (Array.isArray(outputs) && outputs.length === task.outputs) return outputs as DataSet[];
  const got = Array.isArray(outputs) ? `${outputs.length}` : String(outputs);
  throw fail(`the script gave ${got} outputs, ${task.outputs} are due`);
}

/** All files below a folder, in order of path. */
function filesIn(folder: string): FilePart[] {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();
  return names.flatMap((name) => {
    const path = join(folder, name);
    const info = statSync(path);
    return info.isFile() ? [{ path, bytes: info.size }] : [];
  });
}
