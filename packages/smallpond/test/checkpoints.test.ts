// A function's task that is broken off in the middle goes on from its last checkpoint: it is called
// again for few rows only, and what comes out is what an unbroken run gives.

import { fork } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { fromModule, init, type Session, type SessionOptions } from "../src/index.ts";
import { CheckpointChain } from "../src/task/checkpoint-chain.ts";
import { textOf } from "./checkpoint-steps.ts";

const undo: (() => unknown)[] = [];

afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

const steps = new URL("./checkpoint-steps.ts", import.meta.url);
const rowCount = 3000;
const options = { batchRows: 10, checkpointRows: 100 };

function newFolder(): string {
  const root = mkdtempSync(join(tmpdir(), "smallpond-checkpoints-"));
  undo.push(() => rmSync(root, { recursive: true, force: true }));
  return root;
}

async function open(root: string, more: SessionOptions = {}): Promise<Session> {
  const session = await init({
    jobId: "job",
    dataRoot: root,
    numExecutors: 1,
    executorCpus: 1,
    ...more,
  });
  undo.push(() => session.shutdown());
  return session;
}

const items = Array.from({ length: rowCount }, (_, i) => ({ i }));

async function unbroken(): Promise<string> {
  const root = newFolder();
  const noted = fromModule(steps, "noted", [join(root, "log")]);
  const session = await open(root);
  const frame = (await session.fromItems(items)).mapBatches(noted, { batchRows: 10 });
  return textOf(await frame.takeAll());
}

/** Rows that calls were given, of all attempts. */
function calledRows(log: string): number {
  const lines = readFileSync(log, "utf8").trim().split("\n");
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** The process that made the last call, once there were as many rows. */
async function calledFor(log: string, rows: number): Promise<number> {
  for (let waited = 0; waited < 20_000; waited += 5) {
    if (existsSync(log) && calledRows(log) >= rows) {
      return Number(readFileSync(log, "utf8").trim().split("\n").at(-1)?.split(" ")[0]);
    }
    await sleep(5);
  }
  throw new Error(`the function was not called for ${rows} rows`);
}

test.each(["task process", "executor"] as const)("a killed %s's task goes on", async (what) => {
  const expected = await unbroken();
  const root = newFolder();
  const log = join(root, "log");
  const session = await open(root);
  const frame = (await session.fromItems(items)).mapBatches(
    fromModule(steps, "noted", [log]),
    options,
  );
  const rows = frame.takeAll();
  const pid = await calledFor(log, 2000);
  process.kill(
    what === "executor" ? (Object.values(session.executorPids)[0] as number) : pid,
    "SIGKILL",
  );
  expect(textOf(await rows)).toBe(expected);
  expect(calledRows(log)).toBeGreaterThanOrEqual(rowCount);
  expect(calledRows(log)).toBeLessThan(1.2 * rowCount);
  await session.folder.settled();
  const left = readdirSync(join(session.folder.root, "staging"));
  expect(left.filter((name) => name.endsWith(".checkpoint"))).toEqual([]);
});

test("functions of one row go on too, after types are known", async () => {
  const root = newFolder();
  const log = join(root, "log");
  const session = await open(root);
  const frame = (await session.fromItems(items)).flatMap(fromModule(steps, "deadlyOnce", [log]), {
    checkpointRows: 100,
    schema: { i: "BIGINT" },
  });
  const expected = items.flatMap(({ i }) => (i % 2 === 0 ? [] : [i, -i]));
  expect((await frame.takeAll()).map(({ i }) => Number(i))).toEqual(expected);
  expect(existsSync(`${log}.died`)).toBe(true);
  expect(calledRows(log)).toBeLessThan(1.2 * rowCount);
});

test.each([undefined, { i: "DOUBLE" }])("Arrow tables go on too, as %o", async (schema) => {
  const root = newFolder();
  const log = join(root, "log");
  const session = await open(root);
  const frame = (await session.fromItems(items)).mapBatches(
    fromModule(steps, "deadlyTable", [log]),
    { ...options, format: "arrow", ...(schema && { schema }) },
  );
  expect((await frame.takeAll()).map(({ i }) => Number(i))).toEqual(items.map(({ i }) => i));
  expect(existsSync(`${log}.died`)).toBe(true);
  expect(calledRows(log)).toBeLessThan(1.2 * rowCount);
});

interface Rows {
  readonly rows: string;
}

/** What a driver came to; undefined if it was killed. */
async function drive(root: string, log: string, killAt?: number): Promise<string | undefined> {
  const file = new URL("./checkpoint-driver.ts", import.meta.url);
  const child = fork(file, [root, log], {
    execArgv: ["--conditions=@open-infra/source"],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  undo.push(() => child.kill("SIGKILL"));
  let rows: string | undefined;
  child.on("message", (message: Rows) => {
    rows = message.rows;
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  if (killAt !== undefined) {
    await calledFor(log, killAt);
    child.kill("SIGKILL");
  }
  await ended;
  return rows;
}

test("a killed driver's job goes on from the newest checkpoint that is whole", async () => {
  const expected = await unbroken();
  const root = newFolder();
  const log = join(root, "log");
  expect(await drive(root, log, 2000)).toBeUndefined();
  const staging = join(root, "job", "staging");
  const folder = readdirSync(staging).find((name) => name.endsWith(".checkpoint")) as string;
  const place = join(staging, folder);
  // Further along than any, but not whole.
  writeFileSync(join(place, "9999999999999999.x.json"), `${"0".repeat(64)} {"version":1}`);
  const before = calledRows(log);
  expect(await drive(root, log)).toBe(expected);
  expect(calledRows(log)).toBeLessThan(1.2 * rowCount);
  expect(calledRows(log) - before).toBeLessThan(rowCount / 2);
});

test("a damaged file takes its checkpoint along; attempts do not touch each other's", () => {
  const root = newFolder();
  const attempt = (name: string): CheckpointChain<string> => {
    const staging = join(root, name);
    rmSync(staging, { recursive: true, force: true });
    return new CheckpointChain<string>(join(root, "k.checkpoint"), newFolder());
  };
  const write = (checkpoints: CheckpointChain<string>, text: string): string => {
    const path = checkpoints.nextFile();
    writeFileSync(path, text);
    return path;
  };
  const [a, b] = [attempt("a"), attempt("b")];
  expect(a.resume()).toBeUndefined();
  a.save(10, "a1", { path: write(a, "aaa"), rows: 3 }, undefined);
  b.save(20, "b1", { path: write(b, "bbbb"), rows: 4 }, Buffer.from("held"));
  const c = attempt("c");
  const fromB = c.resume();
  expect(fromB).toMatchObject({ inputRows: 20, state: "b1" });
  expect(Buffer.from(fromB?.held ?? []).toString()).toBe("held");
  c.save(30, "c1", { path: write(c, "cc"), rows: 2 }, undefined);
  const d = attempt("d").resume();
  expect(d?.files.map(({ path }) => readFileSync(path, "utf8"))).toEqual(["bbbb", "cc"]);
  const damaged = d?.files[0]?.path as string;
  // The same bytes under all names of the file, as a disk's fault would be.
  writeFileSync(damaged, "bbxb");
  expect(attempt("e").resume()).toMatchObject({ inputRows: 10, state: "a1" });
});
