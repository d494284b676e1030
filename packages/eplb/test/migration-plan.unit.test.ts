// Migration plans on a strict cluster: any start, any target, any budget; at every moment what is
// routed is whole.

import { type Random, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import type { MigrationOptions, MigrationPlan, SlotShape } from "../src/index.ts";
import { planMigration, routeSlots } from "../src/index.ts";
import { Cluster } from "./cluster.ts";

const seed = testSeed();

function shuffled(random: Random, items: number[]): number[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = random.int(0, i + 1);
    [items[i], items[j]] = [items[j] as number, items[i] as number];
  }
  return items;
}

/** Slots of live GPUs with every expert at least once, in any order. */
function randomSlots(random: Random, shape: SlotShape, failed: ReadonlySet<number>): Int32Array {
  const { numLayers, numLogical, numReplicas, numGpus } = shape;
  const perGpu = numReplicas / numGpus;
  const slots = new Int32Array(numLayers * numReplicas).fill(-1);
  for (let layer = 0; layer < numLayers; layer++) {
    const live = numReplicas - failed.size * perGpu;
    const experts = shuffled(
      random,
      Array.from({ length: live }, (_, i) => (i < numLogical ? i : random.int(0, numLogical))),
    );
    for (let slot = 0; slot < numReplicas; slot++) {
      if (failed.has(Math.floor(slot / perGpu))) continue;
      slots[layer * numReplicas + slot] = experts.pop() as number;
    }
  }
  return slots;
}

function randomShape(random: Random, spare: number): SlotShape {
  const numGpus = random.int(2, 7);
  const perGpu = random.int(1, 7);
  const numReplicas = numGpus * perGpu;
  const numLogical = Math.max(1, numReplicas - spare - random.int(0, 4));
  return { numLayers: random.int(1, 4), numLogical, numReplicas, numGpus };
}

/** Runs a plan on the strict cluster, checking each step's place in the budget. */
function execute(
  plan: MigrationPlan,
  held: Int32Array,
  shape: SlotShape,
  options: MigrationOptions,
  random: Random,
  note: string,
): void {
  const cluster = new Cluster({
    shape,
    slots: held,
    staging: plan.staging,
    ...(options.stagingSlotsPerGpu && { stagingSlotsPerGpu: options.stagingSlotsPerGpu }),
    note,
  });
  const now = held.slice();
  for (const { copies, commits, bytes } of plan.steps) {
    expect(copies.length, note).toBeGreaterThan(0);
    expect(bytes, note).toBe(copies.length * (options.bytesPerExpert ?? 1));
    expect(bytes, note).toBeLessThanOrEqual(options.maxBytesPerStep ?? Number.POSITIVE_INFINITY);
    const layers = new Set(copies.map(({ layer }) => layer)).size;
    expect(layers, note).toBeLessThanOrEqual(options.layersPerStep ?? shape.numLayers);
    if (plan.staging === "in-place") {
      for (const { layer, to } of copies) now[layer * shape.numReplicas + to] = -1;
    }
    cluster.route(routeSlots(now, shape));
    cluster.begin(copies);
    cluster.end(copies.toSorted(() => random.next() - 0.5));
    cluster.commit(commits);
    for (const { layer, slot, expert } of commits) now[layer * shape.numReplicas + slot] = expert;
    cluster.route(routeSlots(now, shape));
  }
  expect(now, note).toEqual(plan.final);
}

/** Experts of each GPU, sorted: what loads depend on. */
function byGpu(slots: Int32Array, shape: SlotShape): number[][] {
  const perGpu = shape.numReplicas / shape.numGpus;
  return Array.from({ length: slots.length / perGpu }, (_, i) =>
    [...slots.subarray(i * perGpu, (i + 1) * perGpu)].sort((a, b) => a - b),
  );
}

describe("planMigration", () => {
  it("leads from anything to anything with what is routed always whole", () => {
    const random = seededRandom(seed);
    for (let round = 0; round < 250; round++) {
      const staging = random.pick(["in-place", "double-buffer"] as const);
      const shape = randomShape(random, staging === "in-place" ? 1 : 0);
      const options: MigrationOptions = {
        staging,
        bytesPerExpert: 10,
        maxBytesPerStep: random.pick([10, 25, 70, 1000]),
        layersPerStep: random.int(1, 4),
      };
      const note = `seed ${seed} round ${round} ${JSON.stringify({ shape, options })}`;
      const held = randomSlots(random, shape, new Set());
      const target = randomSlots(random, shape, new Set());
      const plan = planMigration(held, target, shape, options);
      execute(plan, held, shape, options, random, note);
      expect(plan.skippedSlots, note).toBe(0);
      expect(byGpu(plan.final, shape), note).toEqual(byGpu(target, shape));
      if (staging === "double-buffer") expect(plan.copies, note).toBe(plan.movedSlots);
      expect(plan.bytes, note).toBe(plan.copies * 10);
      expect(plan.hostCopies, note).toBe(0);
    }
  });

  it("fills empty slots and fetches lost experts from the host once", () => {
    const random = seededRandom(seed + 1);
    for (let round = 0; round < 150; round++) {
      const staging = random.pick(["in-place", "double-buffer"] as const);
      const numGpus = random.int(3, 7);
      const perGpu = random.int(2, 6);
      const numReplicas = numGpus * perGpu;
      const failed = new Set([random.int(0, numGpus)]);
      const numLogical = random.int(1, numReplicas - perGpu);
      const shape = { numLayers: random.int(1, 3), numLogical, numReplicas, numGpus };
      const note = `seed ${seed} round ${round} ${JSON.stringify({ shape, staging })}`;
      const held = randomSlots(random, shape, failed);
      for (let i = 0; i < held.length; i++) if (random.next() < 0.2) held[i] = -1;
      const target = randomSlots(random, shape, failed);
      const lost = routeSlots(held, shape).logcnt.filter((count) => count === 0).length;
      const plan = planMigration(held, target, shape, { staging, maxBytesPerStep: 3 });
      execute(plan, held, shape, { maxBytesPerStep: 3 }, random, note);
      expect(plan.hostCopies, note).toBe(lost);
      expect(byGpu(plan.final, shape), note).toEqual(byGpu(target, shape));
      expect([...routeSlots(plan.final, shape).logcnt], note).not.toContain(0);
    }
  });

  it("breaks a swap through a redundant slot on one of its GPUs with one copy more", () => {
    const shape = { numLayers: 1, numLogical: 5, numReplicas: 6, numGpus: 2 };
    // 0 and 3 trade places; 4 is on both GPUs.
    const held = Int32Array.of(0, 1, 4, 3, 2, 4);
    const target = Int32Array.of(3, 1, 4, 0, 2, 4);
    const inPlace = planMigration(held, target, shape);
    expect(inPlace.copies).toBe(3);
    expect(byGpu(inPlace.final, shape)).toEqual(byGpu(target, shape));
    const buffered = planMigration(held, target, shape, { staging: "double-buffer" });
    expect(buffered.copies).toBe(2);
    expect(buffered.steps).toHaveLength(1);
  });

  it("bounces through another GPU when no redundant slot is near", () => {
    const shape = { numLayers: 1, numLogical: 5, numReplicas: 6, numGpus: 3 };
    const held = Int32Array.of(0, 1, 2, 3, 4, 4);
    const target = Int32Array.of(2, 1, 0, 3, 4, 4);
    const plan = planMigration(held, target, shape);
    execute(plan, held, shape, {}, seededRandom(seed), "bounce");
    expect(plan.copies).toBe(4);
    expect(byGpu(plan.final, shape)).toEqual(byGpu(target, shape));
  });

  it("opens a ring for nothing with a slot that is written anyway", () => {
    const shape = { numLayers: 1, numLogical: 5, numReplicas: 8, numGpus: 2 };
    // 0 and 3 trade places, and one replica of 4 on the first GPU becomes one of 2.
    const held = Int32Array.of(0, 1, 4, 4, 3, 2, 4, 1);
    const target = Int32Array.of(3, 1, 2, 4, 0, 2, 4, 1);
    const plan = planMigration(held, target, shape);
    execute(plan, held, shape, {}, seededRandom(seed), "merge");
    expect(plan.copies).toBe(3);
    expect(plan.movedSlots).toBe(3);
  });

  it("keeps the ring of a layer without redundancy and says so", () => {
    const shape = { numLayers: 2, numLogical: 4, numReplicas: 4, numGpus: 2 };
    const held = Int32Array.of(0, 1, 2, 3, 0, 1, 2, 3);
    const target = Int32Array.of(2, 1, 0, 3, 0, 1, 2, 3);
    const plan = planMigration(held, target, shape);
    expect(plan.skippedSlots).toBe(2);
    expect(plan.final).toEqual(held);
    expect(planMigration(held, target, shape, { staging: "double-buffer" }).skippedSlots).toBe(0);
  });

  it("moves nothing for slots traded inside a GPU", () => {
    const shape = { numLayers: 1, numLogical: 4, numReplicas: 6, numGpus: 2 };
    const held = Int32Array.of(0, 1, 2, 3, 0, 1);
    const plan = planMigration(held, Int32Array.of(2, 0, 1, 1, 3, 0), shape);
    expect(plan.copies).toBe(0);
    expect(plan.steps).toEqual([]);
  });

  it("reads from the same GPU, else the same node, and spreads reads", () => {
    const shape = { numLayers: 1, numLogical: 6, numReplicas: 16, numGpus: 8 };
    // Expert 0 is on GPUs 0, 2 and 4, each the first of a node; 1, 3 and 5 get it over expert 3.
    const held = Int32Array.of(0, 1, 2, 3, 0, 4, 5, 3, 0, 1, 2, 3, 4, 5, 1, 3);
    const target = Int32Array.of(0, 1, 2, 0, 0, 4, 5, 0, 0, 1, 2, 0, 4, 5, 1, 3);
    const sources = (numNodes: number): number[][] =>
      planMigration(held, target, shape, { numNodes }).steps.flatMap(({ copies }) =>
        copies.map(({ from, to }) => [from, to]),
      );
    const own = [
      [0, 3],
      [4, 7],
      [8, 11],
    ];
    expect(sources(4)).toEqual(own);
    expect(sources(1)).toEqual(own);
    // On two nodes GPU 7 is beside GPU 4, though GPU 0 would have as few reads.
    const far = Int32Array.of(0, 1, 2, 3, 4, 4, 5, 3, 0, 1, 2, 3, 4, 5, 1, 3);
    const last = Int32Array.of(0, 1, 2, 3, 4, 4, 5, 3, 0, 1, 2, 3, 4, 5, 1, 0);
    const [copy] = planMigration(far, last, shape, { numNodes: 2 }).steps[0]?.copies ?? [];
    expect(copy).toMatchObject({ from: 8, to: 15 });
    const [nearest] = planMigration(far, last, shape).steps[0]?.copies ?? [];
    expect(nearest).toMatchObject({ from: 0, to: 15 });
    const { crossGpuCopies, crossNodeCopies } = planMigration(far, last, shape, { numNodes: 8 });
    expect({ crossGpuCopies, crossNodeCopies }).toEqual({ crossGpuCopies: 1, crossNodeCopies: 1 });
  });

  it("takes layers in the order it is given", () => {
    const shape = { numLayers: 3, numLogical: 3, numReplicas: 4, numGpus: 2 };
    const held = Int32Array.of(0, 1, 2, 0, 0, 1, 2, 0, 0, 1, 2, 0);
    const target = Int32Array.of(0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1);
    const options = { layerOrder: [2, 0, 1], maxBytesPerStep: 1 };
    const { steps } = planMigration(held, target, shape, options);
    expect(steps.map(({ copies }) => copies[0]?.layer)).toEqual([2, 0, 1]);
  });

  it("names what cannot be", () => {
    const shape = { numLayers: 1, numLogical: 3, numReplicas: 4, numGpus: 2 };
    const held = Int32Array.of(0, 1, 2, 0);
    const plan = (target: number[], options: MigrationOptions = {}) =>
      planMigration(held, Int32Array.from(target), shape, options);
    expect(() => plan([0, 1, 1, 0])).toThrow("without expert 2 of layer 0");
    expect(() => plan([0, 1, 2])).toThrow("an array of 3; expected 1 layers × 4 slots = 4");
    expect(() => plan([0, 1, 2, 3])).toThrow("target[0][3] is 3; expected an expert from 0 to 2");
    const small = { bytesPerExpert: 10, maxBytesPerStep: 9 };
    expect(() => plan([0, 1, 2, 1], small)).toThrow("maxBytesPerStep is 9; expected at least");
    expect(() => plan([0, 1, 2, 1], { layersPerStep: 0 })).toThrow("layersPerStep is 0");
  });
});
