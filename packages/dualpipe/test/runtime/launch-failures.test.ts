// Whatever goes wrong in a thread, the step that runs fails with that cause, nothing hangs, and no
// thread is left over.

import type { Worker } from "node:worker_threads";
import { InputError } from "@open-infra/errors";
import { Tensor } from "@open-infra/tensor";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  PipelineClosedError,
  RankLostError,
  StageError,
  WaitTimeoutError,
} from "../../src/runtime/errors.ts";
import { launchPipeline, type Pipeline } from "../../src/runtime/launch.ts";
import type { LaunchOptions } from "../../src/runtime/launch-options.ts";
import type { Trouble, TroubledOptions } from "./stages.ts";

const stageModule = new URL("stages.ts", import.meta.url);
const mlp = { features: 4, hidden: 4, dtype: "f64" } as const;
const batch = Tensor.empty([8, 4], "f64");

const started: Worker[] = [];
const onWorker = (worker: Worker): void => void started.push(worker);
beforeAll(() => void process.on("worker", onWorker));
afterAll(() => void process.off("worker", onWorker));

/** A thread that has ended has no id. */
const alive = (): number => started.filter(({ threadId }) => threadId !== -1).length;

afterEach(() => {
  const left = alive();
  started.length = 0;
  expect(left, "threads left over").toBe(0);
});

const errorOf = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(
    () => new Error("it did not fail"),
    (error: Error) => error,
  );

function launch(more: Partial<LaunchOptions> = {}): Promise<Pipeline> {
  const common = { stageModule, stageExport: "createMlpStage", criterionExport: "mseLoss" };
  const shape = { numRanks: 2, schedule: "dualpipe", stageOptions: mlp } as const;
  return launchPipeline({ ...common, ...shape, ...more });
}

function troubled(trouble: Trouble, more: Partial<LaunchOptions> = {}): Promise<Pipeline> {
  const at = { op: "I", stage: 1, microBatch: 1 } as const;
  const stageOptions: TroubledOptions = { ...mlp, trouble, at };
  return launch({ stageExport: "createTroubled", stageOptions, ...more });
}

const train = (pipeline: Pipeline): Promise<unknown> =>
  pipeline.step([batch], { numChunks: 4, labels: [batch] });

/** Later calls fail with the same cause. */
async function expectOver(pipeline: Pipeline, cause: Error): Promise<void> {
  for (const call of [() => train(pipeline), () => pipeline.gradients()]) {
    const error = await errorOf(call());
    expect(error).toBeInstanceOf(PipelineClosedError);
    if (cause instanceof PipelineClosedError) expect(error.message).toBe(cause.message);
    else expect(error.cause).toBe(cause);
  }
  await pipeline.close();
}

describe("a step in which", () => {
  it("a stage throws fails with its place, its message and its stack", async () => {
    const pipeline = await troubled("throw");
    const error = await errorOf(train(pipeline));
    expect(error).toBeInstanceOf(StageError);
    expect(error).toMatchObject({ direction: expect.any(Number), stage: 1, microBatch: 1 });
    expect(error.message).toMatch(
      /of direction \d, stage 1, micro-batch 1 on rank \d failed: not today$/,
    );
    expect(error.cause).toMatchObject({ name: "MyError", message: "not today" });
    expect((error.cause as Error).stack).toContain("stages.ts");
    expect(alive()).toBe(0);
    await expectOver(pipeline, error);
  });

  it("a thread exits names the rank and the code", async () => {
    const pipeline = await troubled("exit");
    const error = await errorOf(train(pipeline));
    expect(error).toBeInstanceOf(RankLostError);
    expect(error.message).toMatch(/^rank \d is lost: its thread ended with code 7$/);
    expect(alive()).toBe(0);
    await expectOver(pipeline, error);
  });

  it.each(["uncaught", "reject"] as const)("an error is %s keeps it as the cause", async (how) => {
    const pipeline = await troubled(how);
    const error = await errorOf(train(pipeline));
    expect(error).toBeInstanceOf(RankLostError);
    const text = how === "uncaught" ? "from a timer" : "nobody catches this";
    expect(error.message).toContain(`its thread threw: ${text}`);
    expect((error.cause as Error).stack).toContain("stages.ts");
    await expectOver(pipeline, error);
  });

  it("a thread is terminated, computing or waiting, ends them all", async () => {
    for (const [trouble, victim] of [
      ["spin", 0],
      ["spin", 1],
      ["hang", 0],
      ["hang", 1],
    ] as const) {
      started.length = 0;
      const pipeline = await troubled(trouble);
      const step = errorOf(train(pipeline));
      await new Promise((resolve) => setTimeout(resolve, 15));
      await started[victim]?.terminate();
      const error = await step;
      expect(error, trouble).toBeInstanceOf(RankLostError);
      expect(error, trouble).toMatchObject({ rank: victim });
      expect(alive()).toBe(0);
      await expectOver(pipeline, error);
    }
  });

  it.each(["spin", "hang"] as const)("a stage never returns (%s) is a timeout", async (how) => {
    const pipeline = await troubled(how, { timeoutMs: 400 });
    const error = await errorOf(train(pipeline));
    expect(error).toBeInstanceOf(WaitTimeoutError);
    expect(error.message).toMatch(
      /^(rank \d|the host) waited 400 ms for the .* of direction \d, stage \d, .* from rank \d$/,
    );
    expect(alive()).toBe(0);
    await expectOver(pipeline, error);
  });

  it("the last rank at work never returns is a timeout that names the operation", async () => {
    // One rank: nobody else waits for it.
    const at = { op: "F", stage: 0, microBatch: 3 } as const;
    const stageOptions: TroubledOptions = { ...mlp, trouble: "spin", at };
    const pipeline = await troubled("spin", {
      numRanks: 1,
      schedule: "1f1b",
      stageOptions,
      timeoutMs: 700,
    });
    const error = await errorOf(train(pipeline));
    expect(error).toBeInstanceOf(WaitTimeoutError);
    expect(error.message).toBe(
      "the host waited 700 ms for the end of F of direction 0, stage 0, micro-batch 3 from rank 0",
    );
    await expectOver(pipeline, error);
  });
});

describe("a pipeline", () => {
  it("that is closed or aborted ends the step that runs, and starts no other", async () => {
    const closed = await troubled("spin");
    const step = errorOf(train(closed));
    await new Promise((resolve) => setTimeout(resolve, 15));
    await closed.close();
    expect(await step).toBeInstanceOf(PipelineClosedError);
    expect((await step).message).toBe("the pipeline was closed during a call");
    await closed.close();
    await expectOver(closed, await step);

    const controller = new AbortController();
    const aborted = await troubled("hang", { signal: controller.signal });
    const running = errorOf(train(aborted));
    await new Promise((resolve) => setTimeout(resolve, 15));
    controller.abort(new Error("the user left"));
    const error = await running;
    expect(error).toBeInstanceOf(PipelineClosedError);
    expect(error.cause).toMatchObject({ message: "the user left" });
    const late = await errorOf(troubled("hang", { signal: controller.signal }));
    expect(late.cause).toMatchObject({ message: "the user left" });
  });

  it("goes on after a call that a stage refused, and after wrong arguments", async () => {
    await using pipeline = await troubled("slow");
    const refused = await errorOf(pipeline.call("square", [-2], { rank: 1, direction: 0 }));
    expect(refused).toBeInstanceOf(StageError);
    expect(refused.message).toBe(
      "call square of direction 0, stage 1 on rank 1 failed: no square of -2",
    );
    const missing = await errorOf(pipeline.call("cube", [2], { stage: 0 }));
    expect(missing.message).toContain("the stage has no method cube");
    const nowhere = await errorOf(pipeline.call("square", [2], { stage: 9 }));
    expect(nowhere.message).toBe(
      'where is {"stage":9}; expected a stage of the 2 ranks and 2 stages',
    );
    const fn = await errorOf(pipeline.call("square", [() => 1]));
    expect(fn.message).toContain("argument 0 of square is a function; expected plain data");
    const odd = await errorOf(pipeline.step([batch], { numChunks: 3, labels: [batch] }));
    expect(odd).toBeInstanceOf(InputError);
    const uneven = await errorOf(pipeline.step([batch], { numChunks: 6, labels: [batch] }));
    expect(uneven.message).toContain(
      "[8,4] with 8 rows in dimension 0; expected a multiple of the 6",
    );
    const unlabelled = await errorOf(pipeline.step([batch], { numChunks: 4 }));
    expect(unlabelled.message).toBe("labels is undefined; expected a batch, to train");
    const squares = await pipeline.call("square", [3]);
    expect(squares.map(({ value }) => value)).toEqual([9, 9, 9, 9]);
    await train(pipeline);
  });

  it("that never gets its stages is a timeout", async () => {
    const error = await errorOf(
      launch({ stageExport: "createSlowly", numRanks: 1, schedule: "1f1b", loadTimeoutMs: 50 }),
    );
    expect(error.message).toBe("the host waited 50 ms for its stages from rank 0");
  });

  it("lets its stages go when it is closed, and says if one cannot", async () => {
    const gone = new Int32Array(new SharedArrayBuffer(4));
    const stageExport = "createDisposed";
    const good = await launch({ stageExport, stageOptions: { gone, fails: false } });
    await good.close();
    expect(gone[0]).toBe(4);
    const bad = await launch({ stageExport, stageOptions: { gone, fails: true } });
    const error = await errorOf(bad.close());
    expect(error).toMatchObject({ name: "MyError", message: "cannot let go" });
    expect(alive()).toBe(0);
  });
});

describe("a launch", () => {
  const refused: [string, Partial<LaunchOptions>, string][] = [
    ["a function", { stageModule: (() => 0) as never }, "functions cannot cross threads"],
    ["a bare name", { stageModule: "stages" }, "stageModule is 'stages'; expected the URL"],
    [
      "a function in the options",
      { stageOptions: { layers: [{ act: Math.sin }] } },
      "stageOptions.layers[0].act is a function; expected plain data",
    ],
    ["an unknown schedule", { schedule: "gpipe" as never }, "schedule is gpipe; expected one of"],
    ["odd ranks", { numRanks: 3 }, "numRanks is 3; expected an even number"],
    ["no ranks", { numRanks: 0 }, "numRanks is 0; expected a whole number of at least 1"],
    ["no export name", { stageExport: 3 as never }, "stageExport is number"],
  ];
  it.each(refused)("with %s is refused", async (_, more, message) => {
    const error = await errorOf(launch(more));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(message);
    expect(started).toEqual([]);
  });

  const failing: [string, Partial<LaunchOptions>, string][] = [
    ["no such module", { stageModule: new URL("nowhere.ts", stageModule) }, "nowhere.ts"],
    [
      "no such module",
      { stageModule: new URL("no-such-stages.ts", import.meta.url) },
      "no-such-stages.ts, absent; expected a module",
    ],
    ["no such export", { stageExport: "create" }, "stageExport is 'create', absent in"],
    ["an export of another kind", { stageExport: "notAFunction" }, "'notAFunction', number in"],
    ["no such criterion", { criterionExport: "l1" }, "criterionExport is 'l1', absent in"],
    ["no stage", { stageExport: "notAStage" }, "notAStage gave no Stage"],
    [
      "a stage that cannot be made",
      { stageExport: "createBroken" },
      "load of direction 0, stage 0 on rank 0 failed: no weights here",
    ],
  ];
  it.each(failing)("with %s fails, and leaves no thread", async (_, more, message) => {
    const error = await errorOf(launch({ ...more, numRanks: 1, schedule: "1f1b" }));
    expect(error.message).toContain(message);
    expect(alive()).toBe(0);
  });
});
