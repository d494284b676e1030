// One simulated job from a seed: a random plan, random executors, random weather, actions that
// overlap, and the real scheduler in the middle. Everything is decided by the seed.

import { type Random, seededRandom } from "@open-infra/testing";
import type { DataSet } from "../../src/dataset/dataset.ts";
import type { Capacity } from "../../src/executor/protocol.ts";
import type { TaskGraph } from "../../src/plan/planner.ts";
import { type FaultOptions, faultPolicy } from "../../src/scheduler/policy.ts";
import { Scheduler } from "../../src/scheduler/scheduler.ts";
import type { TaskResult } from "../../src/task/task.ts";
import { VirtualClock } from "./clock.ts";
import { SimExecutor, type Weather } from "./executor.ts";
import { mib, randomPlans, type World } from "./graph.ts";
import { Judge } from "./judge.ts";
import { SimStore } from "./store.ts";

/** What a simulated job came to. */
export interface SimOutcome {
  readonly tasks: number;
  readonly events: number;
  readonly virtualMs: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly kinds: ReadonlySet<string>;
}

/** No job takes longer than this in virtual time, whatever happens. */
const hangMs = 30 * 60_000;
const tickMs = 200;

/** @throws Error that names the seed and every rule that was broken */
export async function simulate(seed: number): Promise<SimOutcome> {
  const job = new SimJob(seed);
  try {
    return await job.run();
  } catch (error) {
    throw new Error(`seed ${seed}: ${error}\nreplay: simulate(${seed}) of test/sim/simulate.ts`, {
      cause: error,
    });
  }
}

function weatherOf(random: Random): Weather {
  const often = (most: number): number => (random.next() < 0.5 ? 0 : random.next() * most);
  if (random.next() < 0.15) {
    const none = { dies: 0, freezes: 0, thaws: 0, neverStarts: 0, leaves: 0, low: 0, deaf: 0 };
    return { ...none, duplicates: often(0.3), fails: 0, wrong: 0, straggles: 0, latencyMs: 5 };
  }
  return {
    dies: often(0.8),
    freezes: often(0.5),
    thaws: random.next(),
    neverStarts: often(0.3),
    leaves: often(0.4),
    low: often(0.3),
    duplicates: often(0.3),
    deaf: often(0.3),
    fails: often(0.3),
    wrong: often(0.01),
    straggles: often(0.1),
    latencyMs: random.pick([0, 1, 20, 300]),
  };
}

function policyOf(random: Random): FaultOptions {
  return {
    maxFailures: random.int(1, 5),
    maxLosses: random.int(0, 5),
    retryErrors: random.pick(["machine", "all"]),
    prioritizeRetry: random.next() < 0.5,
    crashIsMemory: random.next() < 0.3,
    stopExecutorOnFailure: random.next() < 0.3,
    heartbeatTimeoutMs: 3000,
    executorStartMs: 5000,
    noExecutorMs: 9000,
    stopGraceMs: 2000,
    speculation: random.pick([false, true, "aggressive"]),
    stragglerMs: 1000,
    boost: random.pick([1, 2, 4]),
    keepIntermediates: random.pick([true, false, "while-space"]),
    ...(random.next() < 0.1 && { maxDiskBytes: random.int(5, 60) }),
  };
}

class SimJob {
  readonly #random: Random;
  readonly #clock = new VirtualClock();
  readonly #weather: Weather;
  readonly #world: World;
  readonly #store: SimStore;
  readonly #judge: Judge;
  readonly #scheduler: Scheduler;
  readonly #wanted = new Map<number, ReadonlySet<string>>();
  readonly #kinds = new Set<string>();
  readonly #calm: boolean;
  #executors = 0;
  #restarts: number;
  #steps = 0;
  #succeeded = 0;
  #failed = 0;
  #waiting = 0;

  constructor(seed: number) {
    const random = seededRandom(seed);
    this.#random = random;
    this.#weather = weatherOf(random);
    const { dies, neverStarts, leaves, fails, wrong, straggles, freezes } = this.#weather;
    this.#calm = dies + neverStarts + leaves + fails + wrong + straggles + freezes === 0;
    this.#restarts = random.int(0, 10);
    const gpus = random.next() < 0.3;
    this.#world = randomPlans(random, { gpus });
    const options = policyOf(random);
    this.#judge = new Judge(faultPolicy(options));
    this.#store = new SimStore(this.#earlier());
    this.#scheduler = new Scheduler(this.#store, {
      ...options,
      onLost: ({ capacity }) => this.#replace(capacity),
    });
    this.#scheduler.listen((event) => {
      this.#kinds.add(event.type);
      this.#judge.hear(event);
    });
    for (let i = random.int(1, 7); i > 0; i--) {
      const capacity = {
        cpus: random.int(1, 5),
        memoryBytes: random.pick([512, 1024, 4096]) * mib,
        gpus: gpus ? random.int(0, 3) : 0,
      };
      this.#add(capacity);
    }
  }

  async run(): Promise<SimOutcome> {
    const random = this.#random;
    for (const [i, graph] of this.#world.graphs.entries()) {
      const times = random.next() < 0.3 ? 2 : 1;
      for (let again = 0; again < times; again++) {
        const id = 2 * i + again;
        this.#waiting++;
        this.#clock.after(random.int(0, 3000), () => void this.#act(id, graph));
      }
    }
    for (let i = random.int(0, 3); i > 0; i--) {
      this.#clock.after(random.int(0, 6000), () => this.#disturb());
    }
    this.#tick();
    while (this.#waiting > 0) {
      if (!this.#clock.step()) throw new Error("nothing will ever happen again");
      this.#steps++;
      // What actions' callers do next, they do now.
      await Promise.resolve();
      await Promise.resolve();
      await Promise.resolve();
      if (this.#clock.nowMs > hangMs) throw new Error(`${this.#waiting} actions hang`);
      if (this.#judge.violations.length > 0) break;
    }
    if (this.#judge.violations.length === 0) this.#judge.finish();
    const { violations } = this.#judge;
    if (violations.length > 0) throw new Error(violations.slice(0, 5).join("; "));
    return {
      tasks: this.#world.truths.size,
      events: this.#steps,
      virtualMs: this.#clock.nowMs,
      succeeded: this.#succeeded,
      failed: this.#failed,
      kinds: this.#kinds,
    };
  }

  /** What others do to a session while it runs. */
  #disturb(): void {
    const random = this.#random;
    const seats = this.#scheduler.executors;
    const kind = random.int(0, 3);
    if (kind === 0) this.#add({ cpus: random.int(1, 9), memoryBytes: 2048 * mib, gpus: 0 });
    else if (kind === 1 && seats.length > 1 && !this.#calm) {
      this.#scheduler.drain(random.pick(seats).handle.id, "not needed");
    } else if (kind === 2) {
      const roots = random.pick(this.#world.graphs).roots.flat();
      for (const key of this.#scheduler.forget(roots)) this.#judge.forgotten(key);
    }
  }

  #tick(): void {
    this.#scheduler.tick(this.#clock.nowMs);
    this.#clock.after(tickMs, () => this.#tick());
  }

  #add(capacity: Capacity): void {
    const executor = new SimExecutor(`x${this.#executors++}`, capacity, {
      clock: this.#clock,
      random: this.#random,
      store: this.#store,
      truths: this.#world.truths,
      weather: this.#weather,
      witness: this.#judge,
    });
    executor.onMissing = (key, attempt) => this.#judge.isLive(key, attempt);
    this.#judge.added(executor.id, capacity);
    this.#scheduler.addExecutor(executor);
    executor.begin();
  }

  #replace(capacity: Capacity): boolean {
    if (this.#restarts <= 0) return false;
    this.#restarts--;
    this.#clock.after(200, () => this.#add(capacity));
    return true;
  }

  /** Some tasks of a plan may be done by an earlier run. */
  #earlier(): TaskResult[] {
    const random = this.#random;
    if (random.next() < 0.7) return [];
    const plan = this.#world.graphs[0] as TaskGraph;
    const done = new Map<string, TaskResult>();
    for (const task of plan.tasks) {
      const inputs = task.inputs.flat();
      if (inputs.some((ref) => "task" in ref && !done.has(ref.task))) continue;
      if (random.next() < 0.3) continue;
      const own = { path: `/job/output/${task.key}/part-0`, numRows: 1, bytes: 1 };
      const outputs = [{ format: "parquet", parts: [own] }] as const;
      const metrics = { startedMs: 0, elapsedMs: 1, inputRows: 1, outputRows: 1 };
      const more = { outputBytes: 1, cpuMs: 1, maxRssBytes: 1, executor: "earlier" };
      done.set(task.key, { key: task.key, outputs, metrics: { ...metrics, ...more } });
    }
    return [...done.values()].filter(() => random.next() < 0.8);
  }

  /** One action, as a user's program would run it. */
  async #act(id: number, graph: TaskGraph): Promise<void> {
    const controller = new AbortController();
    if (this.#random.next() < 0.2) {
      const reason = new Error("aborted by the test");
      // At some time, or in the middle of what the scheduler does.
      if (this.#random.next() < 0.5) {
        this.#clock.after(this.#random.int(0, 4000), () => controller.abort(reason));
      } else {
        let left = this.#random.int(1, 60);
        this.#scheduler.listen(() => --left === 0 && controller.abort(reason));
      }
    }
    this.#wanted.set(id, new Set(graph.tasks.map(({ key }) => key)));
    try {
      this.#check(graph, await this.#scheduler.run(graph, { signal: controller.signal }));
      this.#succeeded++;
    } catch (error) {
      this.#failed++;
      this.#judge.explain(error, this.#calm && !this.#starved(error));
    }
    this.#wanted.delete(id);
    const wanted = [...this.#wanted.values()];
    this.#judge.settle((key) => !wanted.some((keys) => keys.has(key)));
    this.#waiting--;
  }

  /** Random plans may ask for what random executors never had. */
  #starved(error: unknown): boolean {
    const code = error instanceof Error && "code" in error ? error.code : "";
    const reason = error instanceof Error && "reason" in error ? error.reason : "";
    return code === "infeasible" || code === "disk" || reason === "memory" || reason === "timeout";
  }

  /** What an action gives is whole, there, and what the plan says. */
  #check(graph: TaskGraph, roots: readonly DataSet[]): void {
    for (const [i, data] of roots.entries()) {
      const refs = graph.roots[i] ?? [];
      const key = refs[0] !== undefined && "task" in refs[0] ? refs[0].task : "";
      if (!this.#store.has(key)) this.#judge.violation(`the output of ${key} is not there`);
      if (!this.#store.isIntact({ outputs: [data] })) {
        this.#judge.violation(`files of ${key} are not there`);
      }
      const passes = this.#world.truths.get(key)?.passes;
      const own = data.parts.every(({ path }) => this.#store.ownerOf(path) === key);
      if (!passes && !own) this.#judge.violation(`${key} has another task's data`);
    }
  }
}
