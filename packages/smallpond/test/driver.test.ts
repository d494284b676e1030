// The scheduler's process itself is killed, run twice, or finds damage: a job goes on where it was,
// executors without a driver end, and two drivers never share a folder.

import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { init, JobLockedError, type Session } from "../src/index.ts";

const undo: (() => unknown)[] = [];

afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

function rootFolder(): string {
  const root = mkdtempSync(join(tmpdir(), "smallpond-driver-"));
  undo.push(() => rmSync(root, { recursive: true, force: true }));
  return root;
}

interface Said {
  readonly pids?: number[];
  readonly finished?: number;
  readonly rows?: number;
  readonly started?: number;
  readonly ms?: number;
}

class Driver {
  readonly child: ChildProcess;
  readonly said: Said[] = [];

  constructor(root: string, kind: string) {
    const file = new URL("./driver-steps.ts", import.meta.url);
    const execArgv = ["--conditions=@open-infra/source"];
    this.child = fork(file, [root, kind], {
      execArgv,
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    this.child.on("message", (message) => this.said.push(message as Said));
    undo.push(() => this.child.kill("SIGKILL"));
  }

  async until(what: (said: Said) => boolean): Promise<Said> {
    for (let waited = 0; waited < 20_000; waited += 20) {
      const found = this.said.find(what);
      if (found !== undefined) return found;
      await sleep(20);
    }
    throw new Error(`the driver said only ${JSON.stringify(this.said.slice(-3))}`);
  }
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

/** Processes below one, of all generations. */
async function childrenOf(pid: number): Promise<number[]> {
  const { spawnSync } = await import("node:child_process");
  const text = spawnSync("ps", ["-eo", "pid=,ppid="], { encoding: "utf8" }).stdout;
  const rows = text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number));
  const found = [pid];
  for (const parent of found)
    for (const [id, of] of rows) if (of === parent) found.push(id as number);
  return found.slice(1);
}

test("a killed driver's executors end; the next does what is left, a third nothing", async () => {
  const root = rootFolder();
  const first = new Driver(root, "slow");
  await first.until(({ finished = 0 }) => finished >= 12);
  const below = await childrenOf(first.child.pid as number);
  expect(below.length).toBeGreaterThanOrEqual(2);
  first.child.kill("SIGKILL");
  const done = readdirSync(join(root, "job", "output")).length;
  const second = new Driver(root, "slow");
  const end = await second.until(({ rows }) => rows !== undefined);
  expect(end.rows).toBe(300);
  // What was in flight when the driver died may be done by then as well.
  expect(end.started).toBeLessThanOrEqual(32 - done);
  await sleep(500);
  expect(below.filter(isAlive)).toEqual([]);
  const third = new Driver(root, "slow");
  const again = await third.until(({ rows }) => rows !== undefined);
  expect(again).toMatchObject({ rows: 300, started: 0 });
});

test("a killed driver's executors end even while a function loops for ever", async () => {
  const driver = new Driver(rootFolder(), "endless");
  await driver.until(({ finished = 0 }) => finished >= 1);
  await sleep(1500);
  const below = await childrenOf(driver.child.pid as number);
  expect(below.length).toBeGreaterThanOrEqual(3);
  driver.child.kill("SIGKILL");
  for (let waited = 0; waited < 6000 && below.some(isAlive); waited += 50) await sleep(50);
  expect(below.filter(isAlive)).toEqual([]);
});

async function session(root: string): Promise<Session> {
  const made = await init({ jobId: "job", dataRoot: root, numExecutors: 1, executorCpus: 1 });
  undo.push(() => made.shutdown());
  return made;
}

test("two drivers are refused, a dead one's lock is taken over", async () => {
  const root = rootFolder();
  const first = await session(root);
  await expect(session(root)).rejects.toThrow(JobLockedError);
  await expect(session(root)).rejects.toThrow(new RegExp(`process ${process.pid} on `));
  await first.shutdown();
  const dead = {
    pid: 2 ** 22 + 1,
    host: (await import("node:os")).hostname(),
    began: "1",
    token: "x",
  };
  writeFileSync(join(root, "job", "lock"), JSON.stringify(dead));
  const second = await session(root);
  expect(await (await second.fromItems([1])).count()).toBe(1);
});

test("damaged results are found at resume, and their tasks run again", async () => {
  const root = rootFolder();
  const make = async (of: Session): Promise<number> => {
    const frame = (await of.fromItems([1, 2, 3, 4])).repartition(4, { byRows: true });
    return (await frame.map("item + 1 AS item").takeAll()).reduce(
      (n, { item }) => n + Number(item),
      0,
    );
  };
  const first = await session(root);
  expect(await make(first)).toBe(14);
  await first.shutdown();
  const output = join(root, "job", "output");
  const folders = readdirSync(output).filter((key) =>
    readdirSync(join(output, key)).some((name) => name.endsWith(".parquet")),
  );
  expect(folders).toHaveLength(4);
  const [a, b, c] = folders.map((key) => join(output, key)) as [string, string, string];
  writeFileSync(join(a, "result.json"), '{"outputs":[{"form');
  rmSync(join(b, readdirSync(b).find((name) => name.endsWith(".parquet")) as string));
  truncateSync(join(c, readdirSync(c).find((name) => name.endsWith(".parquet")) as string), 10);
  const second = await session(root);
  let finished = 0;
  second.listen(({ type, task }) => type === "finished" && task.op.kind === "sql" && finished++);
  expect(await make(second)).toBe(14);
  expect(finished).toBe(3);
});
