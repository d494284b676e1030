// The scheduler without processes, files and real time: its rules one at a time, and thousands of
// simulated jobs in which everything goes wrong.

import { testSeed } from "@open-infra/testing";
import { describe, expect, test } from "vitest";
import { InfeasibleTaskError, NoExecutorError, TaskError } from "../src/errors.ts";
import type { Capacity } from "../src/executor/protocol.ts";
import { Scheduler, type SchedulerOptions, type TaskEvent } from "../src/scheduler/scheduler.ts";
import { FakeExecutor, graphOf, resultOf, taskOf } from "./sim/fake-fleet.ts";
import { simulate } from "./sim/simulate.ts";
import { SimStore } from "./sim/store.ts";

interface Fixture {
  readonly scheduler: Scheduler;
  readonly events: TaskEvent[];
  readonly store: SimStore;
  add(id: string, capacity?: Partial<Capacity>): FakeExecutor;
  types(key?: string): string[];
}

function fixture(options: SchedulerOptions = {}): Fixture {
  const store = new SimStore();
  const scheduler = new Scheduler(store, { speculation: false, boost: 1, ...options });
  const events: TaskEvent[] = [];
  scheduler.listen((event) => events.push(event));
  return {
    scheduler,
    events,
    store,
    add: (id, capacity) => {
      const executor = new FakeExecutor(id, capacity);
      scheduler.addExecutor(executor);
      return executor.ready();
    },
    types: (key) => events.filter(({ task }) => !key || task.key === key).map(({ type }) => type),
  };
}

/** What a promise has come to by now: its error, its value, or `pending`. */
async function settled(promise: Promise<unknown>): Promise<unknown> {
  let state: unknown = "pending";
  promise.then(
    (value) => (state = value),
    (error) => (state = error),
  );
  for (let i = 0; i < 20; i++) await Promise.resolve();
  return state;
}

test("simulated jobs keep every rule", { timeout: 120_000 }, async () => {
  const seed = testSeed();
  const kinds = new Set<string>();
  let [events, succeeded, failed] = [0, 0, 0];
  for (let i = 0; i < 1500; i++) {
    const outcome = await simulate((seed + i) >>> 0);
    events += outcome.events;
    succeeded += outcome.succeeded;
    failed += outcome.failed;
    for (const kind of outcome.kinds) kinds.add(kind);
  }
  // The simulation is worth something only if everything happens in it.
  expect([...kinds].sort()).toEqual(
    ["failed", "finished", "released", "retried", "reused", "skipped", "speculated"].concat([
      "started",
      "stopped",
    ]),
  );
  expect(Math.min(succeeded, failed)).toBeGreaterThan(500);
  expect(events).toBeGreaterThan(50_000);
});

test("one seed is one history", async () => {
  const { kinds: _, ...first } = await simulate(4242);
  const { kinds: __, ...second } = await simulate(4242);
  expect(second).toEqual(first);
});

describe("resources", () => {
  test("shares of GPUs are devices, whole ones stay whole, and none is given twice", async () => {
    const { scheduler, add } = fixture();
    const x = add("x", { cpus: 16, gpus: 2 });
    const shares = [0.25, 0.5, 0.25, 1, 0.5];
    const tasks = shares.map((gpus, i) => taskOf(`g${i}`, { gpus, memoryBytes: 1 }));
    void scheduler.run(graphOf(...tasks)).catch(() => {});
    expect(x.runs.map(({ gpus }) => gpus)).toEqual([
      [{ device: 0, share: 0.25 }],
      [{ device: 0, share: 0.5 }],
      [{ device: 1, share: 1 }],
      [{ device: 0, share: 0.25 }],
    ]);
    x.finish(x.runs[1]);
    expect(x.runs.at(-1)?.gpus).toEqual([{ device: 0, share: 0.5 }]);
  });

  test("nodes take turns, so that later ones get on", async () => {
    const { scheduler, add } = fixture();
    const x = add("x");
    const a = Array.from({ length: 3 }, (_, i) => taskOf(`a${i}`, {}, { node: "a" }));
    const b = Array.from({ length: 3 }, (_, i) => taskOf(`b${i}`, {}, { node: "b" }));
    void scheduler.run(graphOf(...a, ...b));
    const order: (string | undefined)[] = [];
    for (let i = 0; i < 6; i++) {
      order.push(x.runs[0]?.run.task.key);
      x.finish();
    }
    expect(order).toEqual(["a0", "b0", "a1", "b1", "a2", "b2"]);
  });

  test("the last tasks get more where it is idle and they allow it", async () => {
    const { scheduler, add } = fixture({ boost: 2 });
    const x = add("x", { cpus: 4, memoryBytes: 4 * 2 ** 30 });
    void scheduler.run(graphOf(taskOf("t")));
    expect(x.runs[0]).toMatchObject({ cpus: 2, memoryBytes: 2 * 2 ** 30 });
    void scheduler.run(graphOf(taskOf("u", { boost: false })));
    expect(x.runs[1]?.cpus).toBeUndefined();
    void scheduler.run(graphOf(taskOf("v", {}, { kind: "call" })));
    expect(x.runs[2]?.cpus).toBeUndefined();
  });

  test("a machine that is short of memory gets one task at a time", async () => {
    const { scheduler, add } = fixture();
    const x = add("x", { cpus: 4 });
    x.say({ alive: 0, load: { freeMemoryBytes: 1, totalMemoryBytes: 100 } });
    void scheduler.run(graphOf(taskOf("a"), taskOf("b")));
    expect(x.runs).toHaveLength(1);
    x.say({ alive: 0, load: { freeMemoryBytes: 50, totalMemoryBytes: 100 } });
    expect(x.runs).toHaveLength(2);
  });
});

describe("failures", () => {
  test("a failed task goes to another executor where there is one", async () => {
    const { scheduler, add } = fixture({ maxFailures: 3 });
    const [x, y] = [add("x"), add("y")];
    void scheduler.run(graphOf(taskOf("t")));
    x.fail("internal");
    expect([x.runs.length, y.runs.length]).toEqual([0, 1]);
    x.exit();
    y.fail("internal");
    expect(y.runs).toHaveLength(1);
  });

  test("after so many failures the action fails, with the number of attempts", async () => {
    const { scheduler, add, types } = fixture({ maxFailures: 2 });
    const x = add("x");
    const run = scheduler.run(graphOf(taskOf("t")));
    x.fail("crash");
    x.fail("crash");
    const error = await settled(run);
    expect(error).toBeInstanceOf(TaskError);
    expect(error).toMatchObject({ attempts: 2, reason: "crash" });
    expect(types()).toEqual(["started", "retried", "started", "failed"]);
  });

  test("an error of a query ends at once, unless all errors are tried again", async () => {
    const once = fixture();
    const x = once.add("x");
    const run = once.scheduler.run(graphOf(taskOf("t")));
    x.fail("sql");
    expect(await settled(run)).toMatchObject({ reason: "sql", attempts: 1 });
    const all = fixture({ retryErrors: "all" });
    const y = all.add("y");
    void all.scheduler.run(graphOf(taskOf("t")));
    y.fail("function");
    expect(y.runs).toHaveLength(1);
  });

  test("out of memory doubles the limit up to the largest executor's", async () => {
    const { scheduler, add } = fixture({ maxFailures: 2 });
    const x = add("x", { memoryBytes: 10 * 2 ** 20 });
    const run = scheduler.run(graphOf(taskOf("t", { memoryBytes: 2 ** 20 })));
    const given: number[] = [];
    while (x.runs[0] !== undefined) {
      given.push(x.runs[0].memoryBytes / 2 ** 20);
      x.fail("memory");
    }
    expect(given).toEqual([1, 2, 4, 8, 10]);
    expect(await settled(run)).toMatchObject({ reason: "memory", attempts: 5 });
    await expect(run).rejects.toThrow(/no executor has more memory/);
  });

  test("a crash counts as out of memory where it is said to", async () => {
    const { scheduler, add } = fixture({ crashIsMemory: true });
    const x = add("x");
    void scheduler.run(graphOf(taskOf("t", { memoryBytes: 2 ** 20 })));
    x.fail("crash");
    expect(x.runs[0]?.memoryBytes).toBe(2 ** 21);
  });

  test("what failed takes turns with what is fresh, or goes first", async () => {
    for (const [prioritizeRetry, then] of [
      [false, "b"],
      [true, "a"],
    ] as const) {
      const { scheduler, add } = fixture({ prioritizeRetry, maxFailures: 5 });
      const x = add("x");
      void scheduler.run(graphOf(taskOf("a"), taskOf("b"), taskOf("c")));
      x.fail("internal");
      x.fail("internal");
      expect(x.runs[0]?.run.task.key).toBe(then);
    }
  });

  test("a timeout ends the attempt and leaves the executor its time to obey", async () => {
    const { scheduler, add } = fixture({ maxFailures: 1, stopGraceMs: 2000 });
    const x = add("x", { cpus: 2 });
    const slow = scheduler.run(graphOf(taskOf("slow", { timeoutMs: 500 })));
    const other = scheduler.run(graphOf(taskOf("other")));
    scheduler.tick(600);
    expect(await settled(slow)).toMatchObject({ reason: "timeout" });
    expect(x.stops).toEqual(["slow/0"]);
    expect(x.killed).toBe(false);
    x.finish(x.runs[1]);
    await other;
    scheduler.tick(2700);
    expect(x.killed).toBe(true);
  });

  test("one action fails, the other goes on, and the task may be asked for again", async () => {
    const { scheduler, add } = fixture({ maxFailures: 1 });
    const x = add("x", { cpus: 4 });
    const shared = taskOf("shared");
    const bad = scheduler.run(graphOf(shared, taskOf("bad", {}, { inputs: ["shared"] })));
    const good = scheduler.run(graphOf(shared, taskOf("good", {}, { inputs: ["shared"] })));
    x.finish();
    x.fail(
      "sql",
      x.runs.find(({ run }) => run.task.key === "bad"),
    );
    x.finish();
    await good;
    await expect(bad).rejects.toThrow(TaskError);
    const again = scheduler.run(graphOf(shared, taskOf("bad", {}, { inputs: ["shared"] })));
    expect(x.runs[0]).toMatchObject({ attempt: 1 });
    x.finish();
    await again;
  });
});

describe("executors", () => {
  test("what nobody could run is refused with what the largest has", async () => {
    const { scheduler, add } = fixture();
    add("x", { cpus: 2 });
    const run = scheduler.run(graphOf(taskOf("t", { cpus: 16 })));
    await expect(run).rejects.toThrow(/16 cores.*2 cores/);
  });

  test("what only a lost executor could run is refused when no other comes", async () => {
    const { scheduler, add } = fixture();
    add("small");
    const big = add("big", { cpus: 8 });
    const run = scheduler.run(graphOf(taskOf("t", { cpus: 8 })));
    big.exit();
    const error = await settled(run);
    expect(error).toBeInstanceOf(InfeasibleTaskError);
    expect(String(error)).toMatch(/8 cores.*1 cores.*big was lost \(SIGKILL\)/);
  });

  test("what only a lost executor could run waits for the one that takes its place", async () => {
    const { scheduler, add } = fixture({ onLost: () => true });
    const big = add("big", { cpus: 8 });
    const run = scheduler.run(graphOf(taskOf("t", { cpus: 8 })));
    big.exit();
    const next = add("next", { cpus: 8 });
    next.finish();
    await run;
  });

  test("no executor that comes up is an error in time, with what it said", async () => {
    const { scheduler } = fixture();
    const x = new FakeExecutor("x");
    x.stderr = "node: command not found\n";
    scheduler.addExecutor(x);
    const run = scheduler.run(graphOf(taskOf("t")));
    scheduler.tick(1);
    scheduler.tick(8_000);
    expect(await settled(run)).toBe("pending");
    scheduler.tick(9_500);
    const error = await settled(run);
    expect(error).toBeInstanceOf(NoExecutorError);
    expect(String(error)).toMatch(/within 9000 ms: x has not answered.*\n.*command not found/);
  });

  test("the last executor is lost, and the action says so", async () => {
    const { scheduler, add } = fixture();
    const x = add("x");
    const run = scheduler.run(graphOf(taskOf("t")));
    x.exit("SIGSEGV");
    await expect(run).rejects.toThrow(/no executor is left: x was lost \(SIGSEGV\)/);
  });

  test("a result that was in place before its executor was lost counts", async () => {
    const { scheduler, add, store, types } = fixture();
    const [x, y] = [add("x"), add("y")];
    const run = scheduler.run(graphOf(taskOf("t")));
    const { task } = (x.runs[0] as (typeof x.runs)[0]).run;
    store.commit(resultOf(task, "x"));
    x.exit();
    await run;
    expect(y.runs).toHaveLength(0);
    expect(types()).toEqual(["started", "retried", "reused"]);
  });

  test("an executor that leaves gets nothing new, and what it ends runs elsewhere", async () => {
    const { scheduler, add, types } = fixture({ maxFailures: 1 });
    const x = add("x");
    const run = scheduler.run(graphOf(taskOf("t")));
    const y = add("y");
    x.say({ leaving: "its time is over" });
    x.fail("stopped");
    expect(x.closed).toBe(true);
    y.finish();
    await run;
    expect(types()).toEqual(["started", "stopped", "started", "finished"]);
  });

  test("an executor whose machine fails tasks is drained where that is wanted", async () => {
    const { scheduler, add } = fixture({ stopExecutorOnFailure: true });
    const [x, y] = [add("x"), add("y")];
    void scheduler.run(graphOf(taskOf("t")));
    x.fail("disk");
    expect(x.closed).toBe(true);
    expect(y.runs).toHaveLength(1);
  });
});

describe("actions", () => {
  test("an aborted action ends what only it wanted; the session goes on", async () => {
    const { scheduler, add, types } = fixture();
    const x = add("x", { cpus: 2 });
    const controller = new AbortController();
    const run = scheduler.run(graphOf(taskOf("a"), taskOf("b"), taskOf("c")), controller);
    const kept = scheduler.run(graphOf(taskOf("b")));
    controller.abort(new Error("enough"));
    await expect(run).rejects.toThrow("enough");
    expect(x.stops).toEqual(["a/0"]);
    x.fail("stopped", x.runs[0]);
    x.finish();
    await kept;
    expect(types("a")).toEqual(["started", "stopped"]);
    expect(types("c")).toEqual([]);
    const again = scheduler.run(graphOf(taskOf("a")));
    x.finish();
    await again;
  });

  test("what is made of a task stands for it; a root is made anew from its inputs", async () => {
    const { scheduler, add, types } = fixture();
    const x = add("x");
    const graph = graphOf(taskOf("a"), taskOf("b", {}, { inputs: ["a"] }));
    const run = scheduler.run(graph);
    x.finish();
    x.finish();
    await run;
    await scheduler.run(graph);
    expect(types()).toEqual(["started", "finished", "started", "finished"]);
    scheduler.forget([{ task: "b", output: 0 }]);
    const anew = scheduler.run(graph);
    x.finish();
    await anew;
    expect(types("a")).toEqual(["started", "finished"]);
  });

  test("outputs that nobody reads again go at once, or when space is short", async () => {
    const chain = graphOf(
      taskOf("a"),
      taskOf("b", {}, { inputs: ["a"] }),
      taskOf("c", {}, { inputs: ["b"] }),
    );
    for (const [options, released] of [
      [{ keepIntermediates: false }, ["a", "b"]],
      [{ keepIntermediates: true }, []],
      [{ maxDiskBytes: 2 }, ["a"]],
      [{}, []],
    ] as const) {
      const { scheduler, add, events } = fixture(options);
      const x = add("x");
      const run = scheduler.run(chain);
      for (let i = 0; i < 3; i++) x.finish();
      await run;
      const gone = events.filter(({ type }) => type === "released").map(({ task }) => task.key);
      expect(gone).toEqual(released);
    }
    const { scheduler, add } = fixture({ maxDiskBytes: 1 });
    const x = add("x");
    const run = scheduler.run(graphOf(taskOf("a"), taskOf("b")));
    x.finish();
    x.finish();
    await expect(run).rejects.toThrow(/outputs of the job take 2 of maxDiskBytes 1/);
  });
});

describe("stragglers", () => {
  test("a late task is raced once others are known; the first result counts", async () => {
    const { scheduler, add, types } = fixture({ speculation: true, stragglerMs: 100 });
    const [x, y] = [add("x"), add("y")];
    const tasks = Array.from({ length: 7 }, (_, i) => taskOf(`t${i}`));
    const run = scheduler.run(graphOf(...tasks));
    let nowMs = 0;
    for (let i = 0; i < 6; i++) {
      nowMs += 10;
      scheduler.tick(nowMs);
      y.finish();
    }
    expect(y.runs).toHaveLength(0);
    scheduler.tick(nowMs + 50);
    expect(y.runs).toHaveLength(0);
    scheduler.tick(nowMs + 200);
    expect(y.runs).toHaveLength(1);
    y.finish();
    await run;
    expect(x.stops).toEqual(["t0/0"]);
    expect(types("t0")).toEqual(["started", "speculated", "finished", "stopped"]);
  });

  test("what must not run twice is never raced", async () => {
    const options = { speculation: "aggressive", stragglerMs: 0, heartbeatTimeoutMs: 1e6 } as const;
    const { scheduler, add, types } = fixture(options);
    const [, y] = [add("x"), add("y")];
    const tasks = Array.from({ length: 9 }, (_, i) => taskOf(`t${i}`, { speculate: false }));
    void scheduler.run(graphOf(...tasks));
    for (let i = 0; i < 8; i++) y.finish();
    scheduler.tick(1e5 - 1);
    expect(types("t0")).not.toContain("speculated");
  });
});

test("100,000 tasks over 100 executors cost the scheduler little each", {
  timeout: 120_000,
}, async () => {
  const { scheduler, add } = fixture();
  const fleet = Array.from({ length: 100 }, (_, i) => add(`x${i}`, { cpus: 8 }));
  const width = 10_000;
  const tasks = Array.from({ length: 10 * width }, (_, i) =>
    taskOf(
      `t${i}`,
      {},
      { node: `node-${Math.floor(i / width)}`, inputs: i < width ? [] : [`t${i - width}`] },
    ),
  );
  let finished = 0;
  scheduler.listen(({ type }) => type === "finished" && finished++);
  const run = scheduler.run(graphOf(...tasks));
  while (finished < tasks.length) {
    for (const executor of fleet) while (executor.runs.length > 0) executor.finish();
  }
  await run;
  expect(finished).toBe(tasks.length);
});
