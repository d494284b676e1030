// What a write makes of a frame's partitions: the tasks that put rows into another form where that
// is due, and the names that files get where the user looks.

import { relative } from "node:path";
import { InputError } from "@open-infra/errors";
import type { DataSet } from "../dataset/dataset.ts";
import { engineVersion } from "../executor/engine.ts";
import { fromModule } from "../functions/function-ref.ts";
import { ownModule } from "../own-module.ts";
import type { TaskGraph } from "../plan/planner.ts";
import { taskKey } from "../task/key.ts";
import { type ExportForm, extensionOf } from "../task/ops/export.ts";
import type { InputRef, ParquetOptions, Task, TaskOp } from "../task/task.ts";
import { openFolder, type WrittenFile, writeFolder } from "./folder-writer.ts";
import type { ParquetWriteOptions, WriteOptions } from "./frame-options.ts";

const modes = ["append", "overwrite", "error", "ignore"];
const kinds = ["link", "copy", "link-or-copy", "manifest"];

/** A frame as a write needs it. */
export interface Writable {
  /** The data of each partition, as results are kept. */
  compute(): Promise<readonly DataSet[]>;
  runTasks(graph: TaskGraph): Promise<readonly DataSet[]>;
  readonly parquet: ParquetOptions;
}

/** Computes a frame and puts it into a folder. */
export async function writeFrame(
  frame: Writable,
  path: string,
  form: ExportForm,
  options: WriteOptions & Pick<ParquetWriteOptions, "kind">,
): Promise<void> {
  const { mode = "append", kind = "link-or-copy" } = options;
  if (!modes.includes(mode)) throw new InputError("write: mode", mode, modes.join(", "));
  if (!kinds.includes(kind)) throw new InputError("write: kind", kind, kinds.join(", "));
  if (!(await openFolder(path, mode))) return;
  const data = await frame.compute();
  const asIs = form.format === "parquet" && form.parquet === undefined;
  const whole = asIs && form.partitionBy.length === 0 && data.every(isWholeParquet);
  const files = whole ? namesOfParts(data) : await exported(frame, data, form);
  await writeFolder(path, files, { mode, kind });
}

function namesOfParts(data: readonly DataSet[]): WrittenFile[] {
  return data.flatMap((set, i) =>
    set.parts.map(({ path }, j) => ({ from: path, name: `part-${padded(i)}-${j}.parquet` })),
  );
}

const padded = (i: number): string => String(i).padStart(5, "0");

/** Every partition written anew, each by a task. */
async function exported(
  frame: Writable,
  data: readonly DataSet[],
  form: ExportForm,
): Promise<WrittenFile[]> {
  const full: ExportForm =
    form.format === "parquet" ? { ...form, parquet: form.parquet ?? frame.parquet } : form;
  const url = ownModule("../task/ops/export", import.meta.url);
  const { ref } = fromModule(url, "exportRows", [full]);
  const filled = data.map((set, i) => ({ set, i })).filter(({ set }) => set.parts.length > 0);
  const tasks = filled.map(({ set, i }) => exportTask({ kind: "script", fn: ref }, set, i));
  const roots = tasks.map(({ key }): readonly InputRef[] => [{ task: key, output: 0 }]);
  const unique = [...new Map(tasks.map((task) => [task.key, task])).values()];
  const results = await frame.runTasks({ tasks: unique, roots });
  const end = extensionOf(full);
  return results.flatMap((result, k) => {
    const task = tasks[k] as Task;
    const partition = padded(filled[k]?.i ?? 0);
    return result.parts.map(({ path }, j) => {
      const name = `part-${partition}-${j}${end}`;
      if (form.partitionBy.length === 0) return { from: path, name };
      const inside = relative(path.slice(0, path.indexOf(task.key) + task.key.length), path);
      return { from: path, name: `${inside.slice(0, inside.lastIndexOf("/"))}/${name}` };
    });
  });
}

function exportTask(op: TaskOp, set: DataSet, partition: number): Task {
  const inputs = [[{ data: set }]];
  const parquet: ParquetOptions = { compression: "zstd" };
  const key = taskKey({ op, inputs, parquet, seed: partition, engine: engineVersion() });
  const resources = { cpus: 1 };
  const node = "write";
  return {
    key,
    node,
    partition: { partition },
    op,
    inputs,
    outputs: 1,
    resources,
    parquet,
    seed: partition,
  };
}

function isWholeParquet(data: DataSet): boolean {
  if (data.format !== "parquet" || data.columns !== undefined) return false;
  if (data.hivePartitioning) return false;
  return data.parts.every((part) => part.rows === undefined);
}
