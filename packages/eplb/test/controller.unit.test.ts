// When the controller acts and when it does not, on a clock of the test's own.

import { InputError } from "@open-infra/errors";
import { describe, expect, it } from "vitest";
import type {
  EplbAction,
  EplbControllerOptions,
  EplbReport,
  MoveAction,
  Placement,
  RebalanceFunction,
  SlotShape,
} from "../src/index.ts";
import { EplbController, linearSlots, routeSlots } from "../src/index.ts";

const shape = {
  numLayers: 1,
  numLogical: 4,
  numReplicas: 6,
  numGroups: 1,
  numNodes: 1,
  numGpus: 2,
};

/** Balanced when loads are equal: linear slots are 0 1 2 | 3 0 1. */
const even = [6, 6, 6, 6];
/** GPU 0 holds experts 0, 1, 2: with these loads it has 22 of 28. */
const uneven = [4, 4, 18, 2];

/** Experts in order, then again from the first: 0 1 2 | 3 0 1. */
function linear(of: SlotShape): Placement {
  return routeSlots(linearSlots(of), of);
}

/** Sets the whole of the placement by hand. */
function fixedPolicy(...slots: number[]): RebalanceFunction {
  return () => ({ phy2log: Int32Array.from(slots) });
}

class Driver {
  readonly controller: EplbController;
  readonly reports: EplbReport[] = [];
  #time = 0;

  constructor(options: Partial<EplbControllerOptions> = {}) {
    this.controller = new EplbController({
      ...shape,
      policy: "deepseek",
      intervalSteps: 20,
      initial: linear({ ...shape, ...options }),
      ...options,
    });
  }

  /** Steps with the same loads; acknowledges moves unless told not to. */
  steps(count: number, loads: readonly number[] | undefined, ack = true): EplbAction[] {
    const all: EplbAction[] = [];
    for (let i = 0; i < count; i++) {
      this.#time += 1000;
      const input = { timeUs: this.#time, ...(loads && { loads }) };
      this.#take(this.controller.step(input), all, ack);
    }
    return all;
  }

  #take(actions: readonly EplbAction[], all: EplbAction[], ack: boolean): void {
    for (const action of actions) {
      all.push(action);
      if (action.kind === "report") this.reports.push(action.report);
      if (action.kind === "move" && ack) {
        this.#take(this.controller.moveCompleted(action), all, ack);
      }
    }
  }

  events(): string[] {
    return this.reports.map(({ event }) => event);
  }
}

function movesOf(actions: readonly EplbAction[]): MoveAction[] {
  return actions.filter((action) => action.kind === "move");
}

describe("interval", () => {
  it("looks first after a quarter of it, then after the whole", () => {
    const driver = new Driver({ rebalance: fixedPolicy(0, 1, 2, 3, 2, 0), stopBelow: 1 });
    expect(movesOf(driver.steps(4, uneven))).toEqual([]);
    expect(movesOf(driver.steps(1, uneven))).toHaveLength(1);
    expect(driver.reports[0]).toMatchObject({ event: "started", step: 5, reason: "imbalance" });
    driver.reports.length = 0;
    // The policy has nothing better, and says so at the next check only.
    driver.steps(19, uneven);
    expect(driver.reports).toEqual([]);
    driver.steps(1, uneven);
    expect(driver.reports).toMatchObject([{ event: "declined", why: "nothing-to-move", step: 25 }]);
  });

  it("does nothing without loads", () => {
    const driver = new Driver();
    expect(driver.steps(100, undefined)).toEqual([]);
    expect(driver.controller.metrics()).toMatchObject({ step: 100, balancedness: 1 });
  });
});

describe("thresholds", () => {
  it("begin above startAbove and go on until below stopBelow", () => {
    const asked: number[] = [];
    const driver = new Driver({
      intervalSteps: 1,
      startAbove: 1.5,
      stopBelow: 1.2,
      predict: () => Float64Array.from(current),
      rebalance: () => {
        asked.push(driver.controller.metrics().step);
        return { phy2log: Int32Array.of(0, 1, 2, 3, 0, 1) };
      },
    });
    // Max ÷ mean on linear slots 0 1 2 | 3 0 1, where experts 0 and 1 are halved.
    const ratio = (two: number): number[] => [0, 0, two, 2 - two];
    let current = ratio(1.4);
    // A policy without a better answer makes it quiet for an interval, which is one step here.
    driver.steps(3, even);
    expect(asked).toEqual([]);
    current = ratio(1.6);
    driver.steps(1, even);
    expect(driver.controller.metrics().correcting).toBe(true);
    current = ratio(1.3);
    driver.steps(2, even);
    expect(asked).toEqual([4, 5, 6]);
    current = ratio(1.1);
    driver.steps(1, even);
    expect(driver.controller.metrics().correcting).toBe(false);
    current = ratio(1.4);
    driver.steps(2, even);
    expect(asked).toEqual([4, 5, 6]);
  });

  it("refuse what gains too little, and layers that gain too little", () => {
    const declined = new Driver({
      rebalance: fixedPolicy(0, 1, 2, 3, 2, 0),
      minGain: 0.9,
    });
    declined.steps(5, uneven);
    expect(declined.reports).toMatchObject([{ event: "declined", why: "gain" }]);
    const gain = (declined.reports[0] as { gain: number }).gain;
    // From GPU 0's 2 + 2 + 18 tokens to 2 + 4 + 9.
    expect(gain).toBeCloseTo(1 - 15 / 22, 12);

    const twoLayers = new Driver({
      numLayers: 2,
      rebalance: fixedPolicy(0, 1, 2, 3, 2, 0, 0, 1, 2, 3, 2, 0),
      minLayerGain: 0.1,
    });
    const actions = twoLayers.steps(5, [...uneven, 6, 6, 5, 7]);
    expect(movesOf(actions).flatMap(({ copies }) => copies.map(({ layer }) => layer))).toEqual([0]);
  });

  it("weigh the time saved against the time it costs", () => {
    const rebalance = fixedPolicy(0, 1, 2, 3, 2, 0);
    // 7 tokens a step saved × 10 µs × 4 steps = 280 µs, for one copy of 100 bytes.
    const payback = { usPerToken: 10, usPerByte: 2.81, withinSteps: 4 };
    const dear = new Driver({ rebalance, bytesPerExpert: 100, payback });
    dear.steps(5, uneven);
    expect(dear.reports).toMatchObject([{ event: "declined", why: "payback" }]);
    const cheap = new Driver({
      rebalance,
      bytesPerExpert: 100,
      payback: { ...payback, usPerByte: 2.79 },
    });
    cheap.steps(5, uneven);
    expect(cheap.events()).toEqual(["started", "completed"]);
  });

  it("report a policy that refuses, and go on serving", () => {
    const driver = new Driver({
      rebalance: () => {
        throw new InputError("weight[0]", "not to my liking", "better loads");
      },
    });
    driver.steps(30, uneven);
    expect(driver.reports).toMatchObject([
      { event: "policy-failed", step: 5, cause: expect.stringContaining("not to my liking") },
      { event: "policy-failed", step: 25 },
    ]);
    expect(driver.controller.metrics()).toMatchObject({ policyFailures: 2, state: "idle" });
    const broken = new Driver({
      rebalance: () => {
        throw new TypeError("a defect");
      },
    });
    expect(() => broken.steps(5, uneven)).toThrow("a defect");
  });

  it("wait for the cooldown after a migration", () => {
    const targets = [
      [0, 1, 2, 3, 2, 0],
      [0, 1, 2, 3, 2, 1],
    ];
    const driver = new Driver({
      intervalSteps: 1,
      cooldownSteps: 10,
      stopBelow: 1,
      minGain: 0,
      rebalance: () => ({ phy2log: Int32Array.from(targets.shift() ?? [0, 1, 2, 3, 2, 1]) }),
    });
    driver.steps(1, uneven);
    driver.steps(9, [4, 6, 16, 2]);
    expect(driver.events()).toEqual(["started", "completed"]);
    driver.steps(1, [4, 6, 16, 2]);
    expect(driver.controller.metrics().step).toBe(11);
    expect(driver.reports.at(2)).toMatchObject({ step: 11 });
  });
});

describe("moves", () => {
  it("hand out one budgeted step at a time and route only to what has arrived", () => {
    const driver = new Driver({
      rebalance: fixedPolicy(3, 1, 2, 0, 2, 0),
      bytesPerExpert: 10,
      maxBytesPerStep: 10,
    });
    const first = movesOf(driver.steps(5, uneven, false))[0] as MoveAction;
    expect(first).toMatchObject({ plan: 0, index: 0, attempt: 0, bytes: 10 });
    const written = first.copies[0]?.to as number;
    expect(first.routing.phy2log[written]).toBe(-1);
    expect(first.routing).toBe(driver.controller.routing);
    expect(driver.steps(3, uneven, false)).toEqual([]);
    expect(driver.controller.metrics().state).toBe("moving");
    const [route] = driver.controller.moveCompleted(first);
    expect(route).toMatchObject({ kind: "route", commits: [{ slot: written }] });
    expect(driver.controller.routing.phy2log[written]).toBe(first.copies[0]?.expert);
    const rest = movesOf(driver.steps(10, uneven));
    expect(rest.map(({ index }) => index)).toEqual([1, 2]);
    expect(driver.events()).toEqual(["started", "completed"]);
    const { bytesIssued, copiesCompleted, emptySlots } = driver.controller.metrics();
    expect(bytesIssued).toBe(10 * (1 + rest.length));
    expect(copiesCompleted).toBe(1 + rest.length);
    expect(emptySlots).toBe(0);
  });

  it("keep slots in service with staging buffers", () => {
    const driver = new Driver({
      rebalance: fixedPolicy(0, 1, 2, 3, 2, 0),
      staging: "double-buffer",
    });
    const before = driver.controller.routing;
    const [move] = movesOf(driver.steps(5, uneven, false));
    expect(move?.routing).toBe(before);
    driver.controller.moveCompleted(move as MoveAction);
    expect([...driver.controller.routing.phy2log]).toEqual([0, 1, 2, 3, 0, 2]);
  });

  it("ignore and count acknowledgements of what is not running", () => {
    const driver = new Driver({ rebalance: fixedPolicy(0, 1, 2, 3, 2, 0) });
    const [move] = movesOf(driver.steps(5, uneven, false)) as [MoveAction];
    expect(driver.controller.moveCompleted({ ...move, attempt: 1 })).toEqual([]);
    expect(driver.controller.moveCompleted({ ...move, plan: 7 })).toEqual([]);
    expect(driver.controller.moveCompleted(move).length).toBe(2);
    expect(driver.controller.moveCompleted(move)).toEqual([]);
    expect(driver.controller.metrics().staleAcks).toBe(3);
  });
});

describe("input", () => {
  it("may be tokens of slots and the table they went by", () => {
    const driver = new Driver({ rebalance: fixedPolicy(0, 1, 2, 3, 2, 0) });
    const { controller } = driver;
    const routing = controller.routing;
    const counts = [2, 2, 18, 2, 2, 2];
    for (let i = 1; i < 5; i++) controller.step({ timeUs: i, slotTokens: { counts, routing } });
    const actions = controller.step({ timeUs: 5, slotTokens: { counts, routing } });
    expect(movesOf(actions)).toHaveLength(1);
    expect(controller.metrics().balancedness).toBeCloseTo(14 / 22, 12);
  });

  it("is refused with the numbers", () => {
    const controller = new EplbController(shape);
    controller.step({ timeUs: 10 });
    expect(() => controller.step({ timeUs: 9 })).toThrow("timeUs is 9; expected a time from 10 on");
    expect(() => controller.step({ timeUs: 11, loads: [1] })).toThrow("1 layers × 4 experts = 4");
    expect(() => controller.rankFailed(2, 12)).toThrow("gpu is 2; expected a GPU from 0 to 1");
    const make = (options: Partial<EplbControllerOptions>) => () =>
      new EplbController({ ...shape, ...options });
    expect(make({ stopBelow: 1.2 })).toThrow(
      "stopBelow is 1.2; expected at most startAbove (1.05)",
    );
    expect(make({ startAbove: 0.9 })).toThrow("startAbove is 0.9");
    expect(make({ intervalSteps: 0 })).toThrow("intervalSteps is 0");
    expect(make({ minGain: 1 })).toThrow("minGain is 1; expected a share");
    expect(make({ numReplicas: 4 })).toThrow("without a redundant slot nothing can be overwritten");
    expect(make({ numReplicas: 5 })).toThrow("numReplicas is 5; expected a multiple of numGpus 2");
    expect(make({ maxBytesPerStep: 1, bytesPerExpert: 2 })).toThrow("maxBytesPerStep is 1");
    expect(make({ moveDeadlineSteps: 0 })).toThrow("moveDeadlineSteps is 0");
    expect(make({ initial: new EplbController({ ...shape, numLayers: 2 }).routing })).toThrow(
      "initial.numLayers is 2; expected 1",
    );
  });

  it("is logged in a ring and told to the counter", () => {
    const seen: string[] = [];
    const driver = new Driver({
      logSteps: 3,
      rebalance: fixedPolicy(0, 1, 2, 3, 2, 0),
      onCounter: (lane, name, values) => seen.push(`${lane} ${name} ${Object.keys(values)}`),
    });
    driver.steps(2, even);
    driver.steps(3, uneven);
    const { balancednessLog, balancedness } = driver.controller.metrics();
    expect(balancednessLog.map((x) => x.toFixed(3))).toEqual(["0.636", "0.636", "0.636"]);
    expect(balancedness).toBeCloseTo(14 / 22, 12);
    expect(new Set(seen)).toEqual(
      new Set(["eplb balance balancedness,maxOverMean", "eplb moved bytes"]),
    );
  });
});
