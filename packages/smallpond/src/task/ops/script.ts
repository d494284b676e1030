// A task that is a function over files: it is given its inputs as data sets and a folder, and says
// what it wrote there. For what neither SQL nor rows express: records of a format of their own,
// other programs.

import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataSet } from "../../dataset/dataset.ts";
import { TaskError } from "../../errors.ts";
import { type FunctionRef, loadFunction } from "../../functions/function-ref.ts";
import type { Task } from "../task.ts";

/** What a script is given. */
export interface ScriptContext {
  /** One a slot. */
  readonly inputs: readonly DataSet[];
  /** An empty folder of its own; what is in it at the end is kept. */
  readonly folder: string;
  /** With the task's memory and threads; its `random()` is seeded. */
  readonly connection: DuckDBConnection;
  readonly task: Task;
}

/**
 * A script: gives one data set an output, or nothing if it has none.
 *
 * Whoever computes for seconds lets go of the thread now and then, as the executor has to say that
 * it is alive.
 */
export type Script = (
  context: ScriptContext,
  ...args: never[]
) => readonly DataSet[] | Promise<readonly DataSet[]>;

/** Calls a script. */
export async function runScript(
  task: Task,
  fn: FunctionRef,
  inputs: readonly DataSet[],
  connection: DuckDBConnection,
  folder: string,
): Promise<readonly DataSet[]> {
  const fail = (message: string, cause?: unknown): TaskError =>
    new TaskError(task.node, 1, "function", message, { cause });
  let outputs: unknown;
  try {
    const script = await loadFunction(fn);
    outputs = await script({ inputs, folder, connection, task } satisfies ScriptContext);
  } catch (cause) {
    if (cause instanceof TaskError) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    // A full disk is not the script's fault, and may not be full on another try.
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOSPC" || code === "EDQUOT") {
      throw new TaskError(task.node, 1, "disk", message, { cause });
    }
    throw fail(message, cause);
  }
  if (Array.isArray(outputs) && outputs.length === task.outputs) return outputs as DataSet[];
  const got = Array.isArray(outputs) ? `${outputs.length}` : String(outputs);
  throw fail(`the script gave ${got} outputs, ${task.outputs} are due`);
}
