// Writes into users' folders: modes, forms, folders by columns, clashes of names, crashes halfway.

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DataFrame, init, type Session } from "../src/index.ts";

const root = mkdtempSync(join(tmpdir(), "smallpond-writes-"));
let sp: Session;
let frame: DataFrame;

beforeAll(async () => {
  sp = await init({ jobId: "writes", dataRoot: root, numExecutors: 1, executorCpus: 2 });
  const rows = Array.from({ length: 60 }, (_, i) => ({
    id: i,
    kind: `k${i % 3}`,
    text: `a,"${i}"`,
  }));
  frame = (await sp.fromItems(rows)).repartition(3, { byRows: true }).map("*");
});

afterAll(async () => {
  await sp.shutdown();
  rmSync(root, { recursive: true, force: true });
});

const at = (name: string): string => join(root, name);
const parts = ["part-00000-0.parquet", "part-00001-0.parquet", "part-00002-0.parquet"];

async function ids(path: string): Promise<number[]> {
  const read = await sp.readParquet(path, { recursive: true });
  return (await read.takeAll()).map(({ id }) => Number(id)).sort((a, b) => a - b);
}

const once = Array.from({ length: 60 }, (_, i) => i);
const twice = once.flatMap((i) => [i, i]);

test("append never replaces a file: names that are taken get a number", async () => {
  const path = at("append");
  await frame.writeParquet(path);
  expect(readdirSync(path).sort()).toEqual(parts);
  await frame.writeParquet(path);
  const again = parts.map((name) => name.replace(".parquet", "-1.parquet"));
  expect(readdirSync(path).sort()).toEqual([...parts, ...again].sort());
  expect(await ids(path)).toEqual(twice);
});

test("overwrite replaces all, error and ignore nothing", async () => {
  const path = at("modes");
  await frame.filter("id < 30").writeParquet(path, { mode: "error" });
  writeFileSync(join(path, "other.txt"), "x");
  const run = frame.writeParquet(path, { mode: "error" });
  await expect(run).rejects.toThrow(/path to write is .*modes with 4 files; expected an empty/);
  await frame.writeParquet(path, { mode: "ignore" });
  expect(readdirSync(path)).toHaveLength(4);
  await frame.writeParquet(path, { mode: "overwrite" });
  expect(readdirSync(path).sort()).toEqual(parts);
  expect(await ids(path)).toEqual(once);
  expect(readdirSync(root).filter((name) => name.startsWith(".modes"))).toEqual([]);
  await expect(frame.writeParquet(path, { mode: "replace" as never })).rejects.toThrow(
    /mode is replace; expected append, overwrite, error, ignore/,
  );
  await expect(frame.writeParquet(path, { modus: "x" } as never)).rejects.toThrow(
    /writeParquet: option is modus; expected kind, mode/,
  );
  writeFileSync(at("file"), "");
  await expect(frame.writeParquet(at("file"))).rejects.toThrow(/a folder, not a file/);
});

test("a failed computation leaves the folder as it was", async () => {
  const path = at("failed");
  await frame.writeParquet(path);
  await expect(frame.map("no_column").writeParquet(path, { mode: "overwrite" })).rejects.toThrow();
  expect(await ids(path)).toEqual(once);
});

test("files are links, or copies, or a list", async () => {
  await frame.writeParquet(at("linked"), { kind: "link" });
  expect(statSync(join(at("linked"), parts[0] as string)).nlink).toBeGreaterThan(1);
  await frame.writeParquet(at("copied"), { kind: "copy" });
  expect(statSync(join(at("copied"), parts[0] as string)).nlink).toBe(1);
  await frame.writeParquet(at("listed"), { kind: "manifest" });
  expect(readdirSync(at("listed"))).toEqual([".MANIFEST.txt"]);
  const list = readFileSync(join(at("listed"), ".MANIFEST.txt"), "utf8")
    .trim()
    .split("\n");
  expect(list.map((path) => existsSync(path))).toEqual([true, true, true]);
});

test("folders by columns, read back with them", async () => {
  const path = at("by");
  await frame.writeParquet(path, { partitionBy: "kind" });
  expect(readdirSync(path).sort()).toEqual(["kind=k0", "kind=k1", "kind=k2"]);
  expect(readdirSync(join(path, "kind=k0"))).toHaveLength(3);
  await frame.writeParquet(path, { partitionBy: "kind" });
  expect(readdirSync(join(path, "kind=k0"))).toHaveLength(6);
  const read = await sp.readParquet(path, { recursive: true, hivePartitioning: true });
  const rows = await read.filter("kind = 'k' || (id % 3)").count();
  expect(rows).toBe(120);
  const plain = await sp.readParquet(path, { recursive: true });
  expect(await plain.columns()).toEqual(["id", "text"]);
});

test("Parquet options, CSV and JSON", async () => {
  await frame.writeParquet(at("packed"), { compression: "snappy", rowGroupRows: 2048 });
  const file = join(at("packed"), parts[0] as string);
  const meta = await sp.query(`SELECT DISTINCT compression AS c FROM parquet_metadata('${file}')`);
  expect(meta).toEqual([{ c: "SNAPPY" }]);
  const schema = { id: "BIGINT", kind: "VARCHAR", text: "VARCHAR" };
  await frame.writeCsv(at("csv"), { delimiter: "|" });
  expect(readdirSync(at("csv")).sort()[0]).toBe("part-00000-0.csv");
  const csv = await sp.readCsv(at("csv"), { schema, delimiter: "|", header: true });
  await frame.writeJson(at("json"), { compression: "gzip" });
  expect(readdirSync(at("json")).sort()[0]).toBe("part-00000-0.json.gz");
  const json = await sp.readJson(at("json"), { schema });
  const all = await frame.takeAll();
  expect(await csv.takeAll()).toEqual(all);
  expect(await json.takeAll()).toEqual(all);
});

test("what a crash left is carried out or undone by the next write", async () => {
  const path = at("crash");
  await frame.writeParquet(path);
  // A committed append of which one file was moved, and one that was never committed.
  const staging = join(path, ".staging-999999999-aaaa");
  mkdirSync(staging);
  renameSync(join(path, parts[0] as string), join(path, "late-0.parquet"));
  renameSync(join(path, parts[1] as string), join(staging, "late-1.parquet"));
  writeFileSync(join(staging, "commit.json"), JSON.stringify(["late-0.parquet", "late-1.parquet"]));
  const torn = join(path, ".staging-999999999-bbbb");
  mkdirSync(torn);
  writeFileSync(join(torn, "half.parquet"), "no Parquet");
  await frame.writeParquet(path, { mode: "ignore" });
  expect(readdirSync(path).sort()).toEqual(["late-0.parquet", "late-1.parquet", parts[2]]);
  expect(await ids(path)).toEqual(once);
  // A folder that was moved away to be replaced, and the new one never came.
  renameSync(path, at(".crash.replaced-cccc"));
  await frame.writeParquet(path, { mode: "ignore" });
  expect(await ids(path)).toEqual(once);
});
