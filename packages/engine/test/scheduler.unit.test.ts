import { seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { BlockManager } from "../src/block-manager.ts";
import { EngineOverloadedError } from "../src/errors.ts";
import { resolveRequest } from "../src/sampling-params.ts";
import { Scheduler, type SchedulerOptions, type StepPlan } from "../src/scheduler.ts";
import { Sequence } from "../src/sequence.ts";

const limits = { vocabSize: 1000, maxModelLen: 512, eosTokenIds: [] };

let nextToken = 0;

function sequence(order: number, promptTokens: number, more: { promptLogprobs?: boolean } = {}) {
  const promptTokenIds = Array.from({ length: promptTokens }, () => nextToken++ % 1000);
  const request = { id: `s${order}`, promptTokenIds, sampling: more };
  return new Sequence(request, resolveRequest(request, limits), { order, seed: 0, arrivalMs: 0 });
}

function setup(options: Partial<SchedulerOptions & { numBlocks: number }> = {}) {
  const blocks = new BlockManager({ numBlocks: options.numBlocks ?? 100, blockTokens: 4 });
  const scheduler = new Scheduler(blocks, {
    maxBatchedTokens: 16,
    maxSequences: 4,
    maxQueue: 100,
    maxLogitRows: 8,
    ...options,
  });
  return { blocks, scheduler };
}

/** What the engine does after a step, without a model: every sequence that can gets a token. */
function computed(scheduler: Scheduler, plan: StepPlan): void {
  scheduler.complete(plan);
  for (const { sequence: s } of plan.slices) if (s.pending === 0) s.append(nextToken++ % 1000);
}

const shape = (plan: StepPlan) => plan.slices.map((s) => [s.sequence.id, s.tokens]);

describe("Scheduler", () => {
  it("decodes first, then fills the budget with prompts in order of arrival", () => {
    const { scheduler } = setup();
    for (const [i, n] of [3, 30, 5].entries()) scheduler.add(sequence(i, n), 1);
    const steps: (string | number)[][][] = [];
    for (let i = 0; i < 4; i++) {
      const plan = scheduler.schedule();
      steps.push(shape(plan));
      computed(scheduler, plan);
    }
    expect(steps).toEqual([
      [
        ["s0", 3],
        ["s1", 13],
      ],
      [
        ["s0", 1],
        ["s1", 15],
      ],
      [
        ["s0", 1],
        ["s1", 2],
        ["s2", 5],
      ],
      [
        ["s0", 1],
        ["s1", 1],
        ["s2", 1],
      ],
    ]);
  });

  it("refuses when all places are taken, and says when to come again", () => {
    const { scheduler } = setup({ maxSequences: 2, maxQueue: 1 });
    for (let i = 0; i < 3; i++) scheduler.add(sequence(i, 3), 9);
    expect(() => scheduler.add(sequence(3, 3), 9)).toThrow(EngineOverloadedError);
    expect(() => scheduler.add(sequence(3, 3), 9)).toThrow(
      expect.objectContaining({ retryAfterSeconds: 9, pending: 3, limit: 3 }),
    );
  });

  it("preempts the newest when blocks run out, and brings it back first", () => {
    const { scheduler, blocks } = setup({ numBlocks: 5 });
    const [old, young, waiting] = [sequence(0, 8), sequence(1, 4), sequence(2, 4)];
    for (const s of [old, young, waiting]) scheduler.add(s as Sequence, 1);
    // Step 1 fills three blocks and a spare is kept for the one that runs.
    computed(scheduler, scheduler.schedule());
    expect(scheduler.running.map((s) => s.id)).toEqual(["s0", "s1"]);
    let steps = 0;
    let plan = scheduler.schedule();
    for (; plan.preempted.length === 0 && steps < 50; steps++) {
      computed(scheduler, plan);
      plan = scheduler.schedule();
    }
    expect(plan.preempted.map((s) => s.id)).toEqual(["s1"]);
    expect(scheduler.waiting.map((s) => s.id)).toEqual(["s1", "s2"]);
    expect(young?.computed).toBe(0);
    expect(young?.tokens.length).toBeGreaterThan(4);
    computed(scheduler, plan);
    scheduler.remove(old as Sequence);
    expect(shape(scheduler.schedule())[0]?.[0]).toBe("s1");
    expect(blocks.used).toBeGreaterThan(0);
  });

  it("limits the rows of logits that prompts may ask for", () => {
    const { scheduler } = setup();
    const asks = sequence(0, 14, { promptLogprobs: true });
    scheduler.add(asks, 1);
    scheduler.add(sequence(1, 3), 1);
    const first = scheduler.schedule();
    expect(shape(first)).toEqual([["s0", 8]]);
  });

  it("frees the blocks of a removed sequence in any state", () => {
    const { scheduler, blocks } = setup();
    const all = [0, 1, 2, 3, 4, 5].map((i) => sequence(i, 6));
    for (const s of all) scheduler.add(s, 1);
    computed(scheduler, scheduler.schedule());
    for (const s of all) scheduler.remove(s);
    for (const s of all) scheduler.remove(s);
    expect(blocks.used).toBe(0);
    expect(scheduler.hasWork).toBe(false);
  });
});

it("keeps its promises under random load", () => {
  const random = seededRandom(testSeed());
  for (let round = 0; round < 40; round++) {
    const maxSequences = random.int(1, 6);
    const options = {
      maxSequences,
      maxBatchedTokens: maxSequences + random.int(0, 20),
      maxQueue: 1000,
      maxLogitRows: maxSequences + random.int(1, 8),
      numBlocks: random.int(8, 20),
    };
    const { scheduler, blocks } = setup(options);
    const room = options.numBlocks * 4;
    const total = random.int(1, 25);
    const goal = new Map<Sequence, number>();
    const firstRuns: number[] = [];
    const finished: Sequence[] = [];
    const message = `seed ${random.seed}, round ${round}, ${JSON.stringify(options)}`;
    let added = 0;
    for (let step = 0; finished.length < total; step++) {
      expect(step, `${message}: someone starves`).toBeLessThan(5000);
      while (added < total && random.next() < 0.4) {
        const prompt = random.int(1, room - 1);
        const s = sequence(added++, prompt, { promptLogprobs: random.next() < 0.2 });
        goal.set(s, prompt + random.int(1, room - prompt + 1));
        scheduler.add(s, 1);
      }
      if (!scheduler.hasWork) continue;
      const decoding = scheduler.running.filter((s) => s.pending === 1);
      const plan = scheduler.schedule();
      const planned = new Map(plan.slices.map((s) => [s.sequence, s.tokens]));
      expect(plan.slices.length, `${message}: nothing planned`).toBeGreaterThan(0);
      expect(planned.size, message).toBe(plan.slices.length);
      expect(plan.totalTokens, message).toBeLessThanOrEqual(options.maxBatchedTokens);
      expect(plan.totalTokens, message).toBe(plan.slices.reduce((sum, s) => sum + s.tokens, 0));
      expect(scheduler.running.length, message).toBeLessThanOrEqual(maxSequences);
      for (const s of decoding) {
        if (!plan.preempted.includes(s)) expect(planned.get(s), `${message}: decode`).toBe(1);
      }
      for (const { sequence: s, tokens } of plan.slices) {
        expect(s.table?.blocks.length, message).toBeGreaterThanOrEqual(
          Math.ceil((s.computed + tokens) / 4),
        );
        if (s.computed === 0 && s.preemptions === 0) firstRuns.push(s.order);
      }
      const orders = scheduler.running.map((s) => s.order);
      expect(orders, `${message}: order`).toEqual(orders.toSorted((a, b) => a - b));
      for (const s of plan.preempted) {
        expect(s.order, `${message}: the newest goes`).toBeGreaterThan(Math.max(-1, ...orders));
      }
      computed(scheduler, plan);
      for (const { sequence: s } of plan.slices) {
        // What the engine would have reported by now.
        if (s.promptLogprobs !== undefined) {
          const known = Math.min(s.promptTokens, s.computed + 1);
          while (s.promptLogprobs.length < known) s.promptLogprobs.push(null);
        }
        if (s.tokens.length < (goal.get(s) as number) && random.next() > 0.01) continue;
        scheduler.remove(s);
        finished.push(s);
      }
    }
    expect(firstRuns, `${message}: FIFO`).toEqual(firstRuns.toSorted((a, b) => a - b));
    expect(blocks.used, `${message}: leak`).toBe(0);
    expect(blocks.available, `${message}: leak`).toBe(options.numBlocks);
  }
});
