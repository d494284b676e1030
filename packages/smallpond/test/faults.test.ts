// What may happen to executors: killed, frozen, out of memory, too slow, never enough. The job ends
// right or with an error that says why.

import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { afterEach, expect, test } from "vitest";
import {
  type DataFrame,
  fromModule,
  InfeasibleTaskError,
  init,
  type Session,
  type SessionOptions,
  type TaskEvent,
} from "../src/index.ts";

const roots: string[] = [];
const sessions: Session[] = [];

async function open(options: SessionOptions): Promise<Session> {
  const root = options.dataRoot ?? mkdtempSync(join(tmpdir(), "smallpond-faults-"));
  roots.push(root);
  const session = await init({ jobId: "job", dataRoot: root, ...options });
  sessions.push(session);
  return session;
}

afterEach(async () => {
  for (const session of sessions.splice(0)) await session.shutdown();
  for (const root of roots.splice(0)) rmSync(root, { recursive: true, force: true });
});

const steps = new URL("./steps.ts", import.meta.url);

/** As many partitions, each of ten rows, that take a while. */
async function slowRows(session: Session, partitions: number, ms: number): Promise<DataFrame> {
  const items = Array.from({ length: partitions * 10 }, (_, i) => i);
  const frame = (await session.fromItems(items)).repartition(partitions, { byRows: true });
  return frame.mapBatches(fromModule(steps, "slow", [ms]));
}

async function sum(frame: DataFrame): Promise<number> {
  const rows = await frame.takeAll();
  return rows.reduce((total, row) => total + Number(row.item), 0);
}

const expected = (count: number): number => (count * (count - 1)) / 2;

/** Kills so many of a session's executors at random moments. */
function killAtRandom(session: Session, random: Random, count: number): Set<number> {
  const killed = new Set<number>();
  session.listen((event) => {
    if (killed.size >= count || (event.type !== "finished" && event.type !== "started")) return;
    if (random.next() < 0.8) return;
    // At once, or in the middle of what the executor does next: a query, a commit, its message.
    setTimeout(
      () => {
        const left = Object.values(session.executorPids).filter((pid) => !killed.has(pid));
        if (killed.size >= count || left.length === 0) return;
        const pid = random.pick(left);
        killed.add(pid);
        process.kill(pid, "SIGKILL");
      },
      random.int(0, 30),
    );
  });
  return killed;
}

test("four of six executors are killed at random moments and the result is whole", async () => {
  const seed = testSeed();
  for (let round = 0; round < 2; round++) {
    const random = seededRandom((seed + round) >>> 0);
    const session = await open({ numExecutors: 6, executorCpus: 1, maxRestarts: 0, maxLosses: 6 });
    const cut = (await slowRows(session, 60, 15)).repartition(5, { by: "item % 5" });
    const killed = killAtRandom(session, random, 4);
    const events: TaskEvent[] = [];
    session.listen((event) => events.push(event));
    const note = `seed ${random.seed}`;
    expect(await sum(cut), note).toBe(expected(600));
    // Random moments may be too few in a short job; each round is worth its kills.
    expect(killed.size, note).toBeGreaterThan(0);
    const accepted = events.filter(({ type }) => type === "finished" || type === "reused");
    expect(new Set(accepted.map(({ task }) => task.key)).size, note).toBe(accepted.length);
    await session.folder.settled();
    const staging = readdirSync(join(session.folder.root, "staging"));
    const abandoned = staging.filter((name) => /^[0-9a-f]{32}\./.test(name));
    expect(abandoned, note).toEqual([]);
    await session.shutdown();
    rmSync(session.folder.root, { recursive: true, force: true });
  }
});

test("a frozen executor is taken for lost", async () => {
  const session = await open({
    numExecutors: 2,
    executorCpus: 1,
    heartbeatTimeoutMs: 1500,
    speculation: false,
  });
  const frame = await slowRows(session, 12, 20);
  let frozen = 0;
  session.listen((event) => {
    // While it runs a task: one that is not up yet is waited for longer.
    if (frozen > 0 || event.type !== "started" || event.task.op.kind !== "call") return;
    frozen = session.executorPids[event.executor as string] as number;
    process.kill(frozen, "SIGSTOP");
  });
  expect(await sum(frame)).toBe(expected(120));
  expect(Object.values(session.executorPids)).not.toContain(frozen);
});

test("a job goes on where a killed one ended", async () => {
  const root = mkdtempSync(join(tmpdir(), "smallpond-resume-"));
  const first = await open({
    dataRoot: root,
    numExecutors: 2,
    executorCpus: 1,
    maxRestarts: 0,
  });
  let finished = 0;
  const half = new Promise<void>((resolve) => {
    first.listen((event) => event.type === "finished" && ++finished === 10 && resolve());
  });
  const ends = sum(await slowRows(first, 30, 20)).catch((error: Error) => error);
  await half;
  for (const pid of Object.values(first.executorPids)) process.kill(pid, "SIGKILL");
  expect(await ends).toBeInstanceOf(Error);
  await first.shutdown();
  const second = await open({ dataRoot: root, numExecutors: 2, executorCpus: 1 });
  const events: TaskEvent[] = [];
  second.listen((event) => events.push(event));
  expect(await sum(await slowRows(second, 30, 20))).toBe(expected(300));
  expect(events.filter(({ type }) => type === "reused").length).toBeGreaterThanOrEqual(10);
  expect(events.filter(({ type }) => type === "started").length).toBeLessThanOrEqual(21);
});

test("a dead executor is replaced, but not for ever", async () => {
  const session = await open({ numExecutors: 1, executorCpus: 1, maxRestarts: 2 });
  const [pid] = Object.values(session.executorPids) as [number];
  const frame = await slowRows(session, 6, 20);
  let killed = false;
  session.listen((event) => {
    if (killed || event.type !== "finished") return;
    killed = true;
    process.kill(pid, "SIGKILL");
  });
  expect(await sum(frame)).toBe(expected(60));
  const deadly = (await session.fromItems([1])).mapBatches(fromModule(steps, "deadly"));
  // A function that ends its process takes no executor along.
  await expect(deadly.compute()).rejects.toThrow(/the process that ran it ended \(SIGKILL\)/);
  expect(await sum(await slowRows(session, 2, 1))).toBe(expected(20));
});

test("what no executor has is refused at once", async () => {
  const session = await open({ numExecutors: 1, executorCpus: 2 });
  const frame = (await session.fromItems([1])).map("item", { cpus: 16 });
  await expect(frame.compute()).rejects.toThrow(InfeasibleTaskError);
  await expect(frame.compute()).rejects.toThrow(/16 cores.*2 cores/);
});

test("a task that is out of memory gets more", async () => {
  const session = await open({ numExecutors: 1, executorCpus: 1 });
  const frame = (await session.fromItems([1])).map(
    "(SELECT count(DISTINCT md5(range::VARCHAR)) FROM range(300000)) AS n",
    { memoryBytes: 8 * 2 ** 20 },
  );
  const events: TaskEvent[] = [];
  session.listen((event) => events.push(event));
  expect(await frame.takeAll()).toEqual([{ n: 300000 }]);
});

test("a task that takes longer than it may is ended, and says so", async () => {
  const session = await open({ numExecutors: 2, executorCpus: 1, maxFailures: 1 });
  const frame = (await session.fromItems([1])).mapBatches(fromModule(steps, "endless"), {
    timeoutMs: 500,
  });
  await expect(frame.compute()).rejects.toThrow(/timeout of 500 ms/);
  expect(await sum(await slowRows(session, 2, 1))).toBe(expected(20));
});

test("a straggler among 100 tasks is raced: sooner done, and one winner's files", async () => {
  const times: number[] = [];
  for (const speculation of [false, true]) {
    const session = await open({ numExecutors: 2, executorCpus: 1, speculation });
    const marker = join(session.folder.root, "log", "straggler");
    const items = Array.from({ length: 200 }, (_, i) => i);
    const frame = (await session.fromItems(items))
      .repartition(100, { byRows: true })
      .mapBatches(fromModule(steps, "straggle", [marker, 6000]));
    const events: TaskEvent[] = [];
    session.listen((event) => events.push(event));
    const start = performance.now();
    expect(await sum(frame)).toBe(expected(200));
    times.push(performance.now() - start);
    const raced = events.filter(({ type }) => type === "speculated");
    expect(raced.length > 0).toBe(speculation);
    expect(events.filter(({ type }) => type === "finished")).toHaveLength(101);
    await session.shutdown();
    const { root } = session.folder;
    for (const { task } of raced) {
      const files = readdirSync(join(root, "output", task.key)).filter((name) =>
        name.endsWith(".parquet"),
      );
      expect(files).toHaveLength(1);
    }
    // The loser's files went with it, or with the session.
    const staging = join(root, "staging");
    const left = existsSync(staging) ? readdirSync(staging) : [];
    expect(left.filter((name) => /^[0-9a-f]{32}\./.test(name))).toEqual([]);
    rmSync(root, { recursive: true, force: true });
  }
  // Which of the two is faster is what the race is for, not how fast this machine is.
  expect(times[1]).toBeLessThan(times[0] as number);
});
