// Stalled moves, failing and returning ranks, alone and at random: the controller always comes back
// to a placement that serves, and says what happened.

import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { EplbControllerOptions, EplbReport, MoveAction } from "../src/index.ts";
import { EplbController, linearSlots, routeSlots } from "../src/index.ts";
import { Cluster } from "./cluster.ts";

const seed = testSeed();

const shape = {
  numLayers: 2,
  numLogical: 8,
  numReplicas: 12,
  numGroups: 4,
  numNodes: 2,
  numGpus: 4,
};
const skewed = Array.from({ length: 16 }, (_, i) => 1 + (i % 5) * 10);

/** A controller on a strict cluster; moves arrive when the test lets them. */
class Rig {
  readonly controller: EplbController;
  readonly cluster: Cluster;
  time = 0;
  readonly #budget: number;
  readonly #note: string;

  constructor(options: EplbControllerOptions, note: string) {
    this.controller = new EplbController(options);
    this.cluster = new Cluster({
      shape: options,
      slots: this.controller.routing.phy2log,
      staging: options.staging ?? "in-place",
      note,
    });
    this.#budget = options.maxBytesPerStep ?? Number.POSITIVE_INFINITY;
    this.#note = note;
  }

  step(loads?: readonly number[]): void {
    this.cluster.beginStep();
    this.time += 1000;
    this.cluster.run(this.controller.step({ timeUs: this.time, ...(loads && { loads }) }));
    this.checkBudget();
  }

  checkBudget(): void {
    expect(this.cluster.stepBytes, this.#note).toBeLessThanOrEqual(this.#budget);
  }

  arrive(): void {
    const move = this.cluster.running;
    if (move === undefined) return;
    this.cluster.running = undefined;
    this.cluster.end(move.copies);
    this.cluster.run(this.controller.moveCompleted(move));
  }

  fail(gpu: number): void {
    this.cluster.fail(gpu);
    this.cluster.run(this.controller.rankFailed(gpu, this.time));
    this.checkBudget();
  }

  recover(gpu: number): void {
    this.cluster.failed.delete(gpu);
    this.cluster.run(this.controller.rankRecovered(gpu, this.time));
    this.checkBudget();
  }

  /** Steps with prompt arrivals until nothing is to be done. */
  settle(loads: readonly number[], steps = 200): void {
    for (let i = 0; i < steps; i++) {
      this.step(loads);
      this.arrive();
    }
  }

  events(): EplbReport["event"][] {
    return this.cluster.reports.map(({ event }) => event);
  }

  report<E extends EplbReport["event"]>(event: E): Extract<EplbReport, { event: E }> {
    const found = this.cluster.reports.find((report) => report.event === event);
    if (found === undefined) throw new Error(`no report of ${event} in ${this.events()}`);
    return found as Extract<EplbReport, { event: E }>;
  }
}

function rig(options: Partial<EplbControllerOptions> = {}): Rig {
  return new Rig(
    {
      ...shape,
      policy: "deepseek",
      initial: routeSlots(linearSlots(shape), shape),
      intervalSteps: 8,
      startAbove: 1,
      stopBelow: 1,
      minGain: 0,
      moveDeadlineSteps: 5,
      maxRetries: 2,
      cooldownSteps: 10,
      maxBytesPerStep: 2,
      ...options,
    },
    "rig",
  );
}

/** Steps until a move is under way. */
function untilMoving(r: Rig): MoveAction {
  for (let i = 0; i < 50 && r.cluster.running === undefined; i++) r.step(skewed);
  return r.cluster.running as MoveAction;
}

describe("watchdog", () => {
  it("tries a stalled move again, then gives up and reports, and goes on later", () => {
    const r = rig();
    untilMoving(r);
    const routed = r.controller.routing;
    for (let i = 0; i < 5; i++) r.step(skewed);
    expect(r.events()).toEqual(["started", "retried"]);
    expect(r.report("retried").cause).toBe("not acknowledged within 5 steps, 5000 µs");
    expect(r.cluster.running?.attempt).toBe(1);
    for (let i = 0; i < 10; i++) r.step(skewed);
    expect(r.events()).toEqual(["started", "retried", "retried", "aborted"]);
    expect(r.cluster.running).toBeUndefined();
    // What was being written stays out of service until it is written again.
    expect(r.controller.routing).toBe(routed);
    const { retries, plansAborted, emptySlots, state } = r.controller.metrics();
    expect({ retries, plansAborted, state }).toEqual({
      retries: 2,
      plansAborted: 1,
      state: "idle",
    });
    expect(emptySlots).toBe(2);
    for (let i = 0; i < 9; i++) r.step(skewed);
    expect(r.events()).toHaveLength(4);
    r.settle(skewed);
    expect(r.events().slice(4, 6)).toEqual(["started", "completed"]);
    expect(r.cluster.reports[4]).toMatchObject({ reason: "empty-slots" });
    expect(r.controller.metrics().emptySlots).toBe(0);
  });

  it("looks at the clock too, also while no steps run", () => {
    const r = rig({ moveDeadlineSteps: 1000, moveDeadlineUs: 300, maxRetries: 0 });
    untilMoving(r);
    expect(r.controller.tick(r.time + 299)).toEqual([]);
    r.cluster.run(r.controller.tick(r.time + 300));
    expect(r.report("aborted").cause).toBe("not acknowledged within 0 steps, 300 µs");
  });

  it("waits twice as long after each plan that was given up", () => {
    const r = rig({ maxRetries: 0 });
    const aborts: number[] = [];
    for (let i = 0; i < 200; i++) {
      const before = r.controller.metrics().plansAborted;
      r.step(skewed);
      if (r.controller.metrics().plansAborted > before) aborts.push(i);
    }
    const waits = aborts.slice(1).map((step, i) => step - (aborts[i] as number));
    // The cooldown of 10 steps, doubled each time, and the deadline of 5.
    expect(waits.slice(0, 4)).toEqual([15, 25, 45, 85]);
  });

  it("takes a reported failure like a stall, without waiting", () => {
    const r = rig({ maxRetries: 1 });
    const move = untilMoving(r);
    r.cluster.run(r.controller.moveFailed(move, "connection reset"));
    // Two bytes of this engine step are spent; the second attempt waits for the next.
    expect(r.cluster.running).toBeUndefined();
    r.step(skewed);
    const again = r.cluster.running as unknown as MoveAction;
    expect(again).toMatchObject({ plan: move.plan, index: move.index, attempt: 1 });
    expect(r.controller.moveFailed(move, "late")).toEqual([]);
    r.cluster.run(r.controller.moveFailed(again, "connection reset"));
    expect(r.events()).toEqual(["started", "retried", "aborted"]);
    expect(r.report("aborted").cause).toBe("connection reset");
  });
});

describe("ranks", () => {
  it("that fail are masked, their experts placed at once, the rest rebalanced", () => {
    const r = rig();
    r.step(skewed);
    r.fail(1);
    // Slots 3 to 5 held experts 3, 4 and 5; only 0 to 3 are redundant at the start.
    const lost = r.report("rank-failed").lost.filter(({ layer }) => layer === 0);
    expect(lost.map(({ expert }) => expert)).toEqual([4, 5]);
    expect(r.cluster.running?.copies.every(({ from }) => from === -1)).toBe(true);
    expect(r.controller.metrics()).toMatchObject({ state: "degraded", failedGpus: [1] });
    r.settle(skewed);
    const started = r.cluster.reports.filter(({ event }) => event === "started");
    expect(started[0]).toMatchObject({ reason: "lost-experts", copies: 4 });
    expect(started[1]).toMatchObject({ reason: "rank-failed" });
    expect(r.controller.metrics().state).toBe("idle");
    const { phy2log, logcnt } = r.controller.routing;
    expect([...phy2log.subarray(3, 6), ...phy2log.subarray(15, 18)]).toEqual(Array(6).fill(-1));
    expect([...logcnt]).not.toContain(0);
  });

  it("that return are filled", () => {
    const r = rig();
    r.fail(0);
    r.settle(skewed);
    r.recover(0);
    expect(r.controller.metrics().emptySlots).toBe(6);
    r.settle(skewed);
    expect(r.controller.metrics()).toMatchObject({ emptySlots: 0, failedGpus: [], state: "idle" });
    expect([...r.controller.routing.phy2log]).not.toContain(-1);
  });

  it("that leave too few slots are reported with the experts that cannot be served", () => {
    const r = rig();
    r.fail(0);
    r.fail(1);
    r.settle(skewed);
    const capacity = r.cluster.reports.filter(({ event }) => event === "capacity").at(-1);
    expect(capacity).toMatchObject({ liveSlots: 6, numLogical: 8 });
    // 6 slots serve 6 of 8 experts in each of two layers.
    expect([...r.controller.routing.logcnt].filter((count) => count === 0)).toHaveLength(4);
    expect(r.controller.metrics().state).toBe("degraded");
    r.recover(1);
    r.settle(skewed);
    expect([...r.controller.routing.logcnt]).not.toContain(0);
    expect(r.controller.metrics().state).toBe("idle");
  });

  it("may fail in the middle of a migration", () => {
    for (const gpu of [0, 1, 2, 3]) {
      const r = rig();
      untilMoving(r);
      r.arrive();
      r.step(skewed);
      r.fail(gpu);
      expect(r.report("aborted").cause).toBe(`rank ${gpu} failed`);
      r.settle(skewed);
      expect([...r.controller.routing.logcnt]).not.toContain(0);
      expect(r.controller.metrics()).toMatchObject({ state: "idle", emptySlots: 0 });
    }
  });

  it("may all fail, twice", () => {
    const r = rig();
    for (const gpu of [0, 1, 2, 3, 3]) r.fail(gpu);
    r.settle(skewed, 20);
    expect(new Set(r.controller.routing.phy2log)).toEqual(new Set([-1]));
    for (const gpu of [0, 1, 2, 3, 3]) r.recover(gpu);
    r.settle(skewed);
    expect([...r.controller.routing.logcnt]).not.toContain(0);
    expect(r.events().filter((event) => event === "rank-failed")).toHaveLength(4);
  });
});

const policies = ["deepseek", "minimal-migration", "minimal-migration", "optimized"] as const;

function randomOptions(random: Random): EplbControllerOptions {
  const numGpus = random.int(3, 7);
  const perGpu = random.int(2, 5);
  const numReplicas = numGpus * perGpu;
  const staging = random.pick(["in-place", "double-buffer"] as const);
  const most = numReplicas - (staging === "in-place" ? 1 : 0);
  const numNodes = numGpus % 2 === 0 && random.next() < 0.7 ? 2 : 1;
  const numGroups = numNodes * random.int(1, 3);
  const numLogical = numGroups * random.int(1, Math.floor(most / numGroups) + 1);
  return {
    numLayers: random.int(1, 4),
    numLogical,
    numReplicas,
    numGroups,
    numNodes,
    numGpus,
    policy: random.pick(policies),
    staging,
    intervalSteps: random.int(1, 12),
    startAbove: 1,
    stopBelow: 1,
    minGain: 0,
    minLayerGain: 0,
    cooldownSteps: random.int(0, 4),
    maxRetries: random.int(0, 3),
    moveDeadlineSteps: random.int(2, 6),
    maxBytesPerStep: random.int(1, 8),
    layersPerStep: random.int(1, 3),
  };
}

describe("any sequence of events", () => {
  it("keeps what is routed whole, within the budget, and settles", () => {
    const random = seededRandom(seed);
    for (let round = 0; round < 40; round++) {
      const options = randomOptions(random);
      const note = `seed ${seed} round ${round} ${JSON.stringify(options)}`;
      const r = new Rig(options, note);
      const draw = (): number[] =>
        Array.from({ length: options.numLayers * options.numLogical }, () =>
          Math.round(Math.exp(2 * random.normal()) * 50),
        );
      let loads = draw();
      for (let step = 0; step < 120; step++) {
        if (random.next() < 0.1) loads = draw();
        r.step(loads);
        if (random.next() < 0.6) r.arrive();
        else if (random.next() < 0.1 && r.cluster.running !== undefined) {
          r.cluster.run(r.controller.moveFailed(r.cluster.running, "drawn"));
        }
        if (random.next() < 0.03) r.fail(random.int(0, options.numGpus));
        if (random.next() < 0.05) r.recover(random.int(0, options.numGpus));
      }
      for (let gpu = 0; gpu < options.numGpus; gpu++) r.recover(gpu);
      r.settle(loads, 150);
      const { state, emptySlots, failedGpus } = r.controller.metrics();
      expect({ emptySlots, failedGpus }, note).toEqual({ emptySlots: 0, failedGpus: [] });
      expect(state, note).not.toBe("degraded");
      expect([...r.controller.routing.phy2log], note).toEqual([...r.cluster.weights]);
    }
  });
});
