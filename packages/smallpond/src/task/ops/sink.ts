// The tasks of a sink. Each partition's files are put aside, side by side; one task then gives all
// of them their names and shows them; the last one tidies up. Every step can be done again after a
// crash in it, and none shows a part that looks like the whole: into a new folder all files come by
// one rename, beside other files by a list that is carried out once it is written. That list has
// the form that writes of DataFrames know and finish, should nobody else.

import {
  copyFile,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  stat,
  writeFile,
} from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { DataSet, FilePart } from "../../dataset/dataset.ts";
import { fromClause, literal } from "../../dataset/sql-text.ts";
import type { SinkKind, SinkPlace, Task, TaskOp } from "../task.ts";
import { nameFiles } from "./sink-names.ts";
import { execute, partOf, taskCopyOptions } from "./write.ts";

type Stage = Extract<TaskOp, { kind: "sink-stage" }>;
type Publish = Extract<TaskOp, { kind: "sink-publish" }>;
type Clean = Extract<TaskOp, { kind: "sink-clean" }>;

export const manifestName = ".MANIFEST.txt";
const planName = ".plan.json";
/** As in session/folder-writer.ts, which carries it out for a crashed sink. */
const listName = "commit.json";
/** In the staging folder: all files have been moved. */
const doneName = ".sink-done";
/** In the user's folder: it was the staging folder. */
const wholeName = ".sink-whole";

/** A partition's files put aside; where they are not whole files, as new ones. */
export async function stageSink(
  task: Task,
  { place, partition }: Stage,
  data: DataSet,
  connection: DuckDBConnection,
  folder: string,
): Promise<DataSet> {
  const manifest = place.kind === "manifest";
  if (manifest && isWhole(data)) return data;
  if (!manifest) await mkdir(place.staging, { recursive: true });
  if (!isWhole(data)) {
    const path = join(manifest ? folder : place.staging, `${partition}-0-part-0.parquet`);
    const copy = `COPY (SELECT * FROM ${fromClause(data)}) TO ${literal(path)}`;
    const rows = await execute(task, `${copy} (${taskCopyOptions(task)})`, connection);
    return { format: "parquet", parts: [partOf(path, rows)] };
  }
  const parts: FilePart[] = [];
  for (const [i, part] of data.parts.entries()) {
    const path = join(place.staging, `${partition}-${i}-${basename(part.path)}`);
    await put(part.path, path, place.kind);
    parts.push({ ...part, path });
  }
  return { ...data, parts };
}

/** Whether the data is its files, all of them and nothing else. */
function isWhole(data: DataSet): boolean {
  if (data.generated !== undefined || data.selects !== undefined) return false;
  if (data.format !== "parquet") return true;
  if (data.columns !== undefined || data.hivePartitioning) return false;
  return data.parts.every((part) => part.rows === undefined);
}

async function put(from: string, to: string, kind: SinkKind): Promise<void> {
  const fresh = `${to}.${process.pid}`;
  await rm(fresh, { force: true });
  if (kind === "copy") await copyDurably(from, fresh);
  else if (kind === "link") await link(from, fresh);
  else await link(from, fresh).catch(() => copyDurably(from, fresh));
  await rename(fresh, to);
  // Where both are links of one file, a rename does nothing and leaves both.
  await rm(fresh, { force: true });
}

async function copyDurably(from: string, to: string): Promise<void> {
  await copyFile(from, to);
  const file = await open(to, "r+");
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Which staged file becomes what. */
interface SinkPlan {
  /** Whether the staging folder becomes the user's. */
  readonly whole: boolean;
  readonly files: readonly { readonly part: FilePart; readonly name: string }[];
}

/** Names all files and shows them. */
export async function publishSink(op: Publish, partitions: readonly DataSet[]): Promise<DataSet> {
  const plan = await planOf(op, partitions);
  const data = publishedData(op, plan, partitions[0]);
  if (await isShown(op, plan)) return data;
  const names = op.place.kind === "manifest" ? [] : plan.files.map(({ name }) => name);
  const all = [...names, manifestName];
  const listed = join(op.place.staging, listName);
  // From the list on, files are on their way to where the user looks.
  if (plan.whole || !(await exists(listed))) await arrange(op.place, plan, data);
  if (plan.whole) await showWhole(op.place, all);
  else await showEach(op.place, all);
  return data;
}

/** Gives the files in the staging folder their names, and lists them. */
async function arrange(place: SinkPlace, plan: SinkPlan, data: DataSet): Promise<void> {
  const { staging, kind } = place;
  if (kind !== "manifest") {
    for (const { part, name } of plan.files) await move(part.path, join(staging, name));
  }
  const lines = data.parts.map((part) => `${part.path}\n`);
  await writeFile(join(staging, manifestName), lines.join(""));
}

/** The staging folder becomes the user's. */
async function showWhole({ path, staging }: SinkPlace, all: readonly string[]): Promise<void> {
  await writeFile(join(staging, wholeName), "");
  const expected = new Set([...all, wholeName]);
  for (const name of await readdir(staging)) {
    if (!expected.has(name)) await rm(join(staging, name), { recursive: true, force: true });
  }
  await rmdir(path).catch(ignore(["ENOENT"]));
  await mkdir(dirname(path), { recursive: true });
  await rename(staging, path);
}

/** Files go beside those that are there. */
async function showEach({ path, staging }: SinkPlace, all: readonly string[]): Promise<void> {
  const list = join(staging, listName);
  if (!(await exists(list))) {
    const fresh = `${list}.${process.pid}`;
    await writeFile(fresh, JSON.stringify(all));
    await rename(fresh, list);
  }
  await mkdir(path, { recursive: true });
  for (const name of all) await move(join(staging, name), join(path, name));
  await writeFile(join(staging, doneName), "");
}

/** Whether an attempt before this one has shown everything. */
async function isShown({ place: { path, staging } }: Publish, plan: SinkPlan): Promise<boolean> {
  return await exists(plan.whole ? join(path, wholeName) : join(staging, doneName));
}

/** The plan that the first attempt made. */
async function planOf(op: Publish, partitions: readonly DataSet[]): Promise<SinkPlan> {
  const { path, staging, kind } = op.place;
  const file = join(staging, planName);
  const there = await namesIn(path);
  // A folder that came by a rename has lost its plan, and its names are those it has.
  const done = there.includes(wholeName);
  const taken = done || kind === "manifest" ? [] : there;
  const whole = done || (there.length === 0 && dirname(staging) === dirname(path));
  const files = nameFiles(op, partitions, taken);
  if (done) return { whole, files };
  await mkdir(staging, { recursive: true });
  const fresh = `${file}.${process.pid}.${Math.random().toString(36).slice(2)}`;
  await writeFile(fresh, JSON.stringify({ whole, files }));
  // Two attempts may be at it: the first one's names count.
  await link(fresh, file).catch(ignore(["EEXIST"]));
  await rm(fresh, { force: true });
  return JSON.parse(await readFile(file, "utf8")) as SinkPlan;
}

function publishedData(op: Publish, plan: SinkPlan, first: DataSet | undefined): DataSet {
  const { path, kind } = op.place;
  const form: DataSet = first ?? { format: "files", parts: [] };
  const parts = plan.files.map(({ part, name }) => {
    return kind === "manifest" ? part : { ...part, path: join(path, name) };
  });
  return { ...form, parts };
}

/** Removes what was put aside. The user's files stay. */
export async function cleanSink({ place }: Clean, published: DataSet): Promise<DataSet> {
  await rm(place.staging, { recursive: true, force: true });
  await rm(join(place.path, wholeName), { force: true });
  return published;
}

/** Undoes a sink that will not be tried again, unless it has begun to show files. */
export async function abandonSink({ path, staging }: SinkPlace): Promise<void> {
  await rm(join(path, wholeName), { force: true });
  if (await exists(join(staging, listName))) return;
  await rm(staging, { recursive: true, force: true });
}

/** Moves a file that an attempt before this one may have moved. */
async function move(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || !(await exists(to))) throw error;
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => !name.startsWith(".staging-"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

const exists = async (path: string): Promise<boolean> =>
  (await stat(path).catch(() => undefined)) !== undefined;

const ignore =
  (codes: readonly string[]) =>
  (error: NodeJS.ErrnoException): void => {
    if (!codes.includes(error.code ?? "")) throw error;
  };
