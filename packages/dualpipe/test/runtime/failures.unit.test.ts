// What goes wrong: wrong arguments are refused before anything runs; a failure on one rank ends all
// ranks, and each says what it knows.

import { InputError, serializeError } from "@open-infra/errors";
import { Tensor } from "@open-infra/tensor";
import { describe, expect, it } from "vitest";
import { DualPipe, DualPipeV } from "../../src/runtime/dual-pipe.ts";
import {
  deserializeError,
  PipelineAbortedError,
  RankLostError,
  ScheduleExecutionError,
  StageError,
  WaitTimeoutError,
} from "../../src/runtime/errors.ts";
import { InProcessNetwork } from "../../src/runtime/in-process.ts";
import { rankPrograms } from "../../src/runtime/rank-programs.ts";
import { MlpStage, mseLoss } from "../../src/runtime/reference/mlp-stage.ts";
import { PipelineRunner } from "../../src/runtime/runner.ts";
import type { Criterion, Stage } from "../../src/runtime/stage.ts";
import { MessageKind, parseMessageKey } from "../../src/runtime/transport.ts";
import { buildSchedule } from "../../src/schedule/build.ts";
import { pipesOf } from "./in-process-ranks.ts";

const mlp = { features: 4, hidden: 4, dtype: "f64" } as const;
const batch = (rows: number): Tensor => Tensor.empty([rows, 4], "f64");
const errorOf = (promise: Promise<unknown>): Promise<unknown> => promise.catch((e: unknown) => e);

describe("refused before anything runs", () => {
  const first = (P = 2): DualPipe => pipesOf(DualPipe, P, mlp).pipes[0] as DualPipe;
  const options = { numChunks: 8, criterion: mseLoss };

  it("odd numbers of ranks and chunks, and too few chunks", async () => {
    const transport = new InProcessNetwork({ numRanks: 3 }).transport(0);
    const stages = [new MlpStage(mlp, 0), new MlpStage(mlp, 1)] as const;
    expect(() => new DualPipe({ stages, transport })).toThrow(
      "numRanks is 3; expected an even number",
    );
    for (const numChunks of [5, 2]) {
      const error = await errorOf(first().step([batch(8)], { ...options, numChunks }));
      expect(error).toBeInstanceOf(InputError);
      expect((error as Error).message).toContain(
        `numChunks is ${numChunks}; expected an even number of at least 2 · numRanks = 4`,
      );
    }
    const v = pipesOf(DualPipeV, 2, mlp).pipes[0] as DualPipeV;
    expect(String(await errorOf(v.step([batch(3)], { ...options, numChunks: 3 })))).toContain(
      "at least 2 · numRanks = 4",
    );
  });

  const cases: [string, (pipe: DualPipe) => Promise<unknown>, string][] = [
    [
      "an uneven batch",
      (pipe) => pipe.step([batch(10)], { ...options, labels: [batch(8)] }),
      "inputs[0] is [10,4] with 10 rows in dimension 0; expected a multiple of the 4",
    ],
    [
      "uneven labels",
      (pipe) => pipe.step([batch(8)], { ...options, labels: [batch(6)] }),
      "labels[0] is [6,4] with 6 rows in dimension 0; expected a multiple of the 4",
    ],
    [
      "a list of another length",
      (pipe) => pipe.step({ microBatches: [[batch(1)]] }, { ...options, labels: [batch(8)] }),
      "inputs.microBatches is 1 long; expected 4",
    ],
    [
      "no inputs",
      (pipe) => pipe.step(undefined, { ...options, labels: [batch(8)] }),
      "inputs on rank 0 for direction 0 is undefined; expected 4 micro-batches",
    ],
    [
      "no tensors",
      (pipe) => pipe.step([], { ...options, labels: [batch(8)] }),
      "inputs is empty; expected at least one tensor",
    ],
    [
      "no labels",
      (pipe) => pipe.step([batch(8)], options),
      "labels on rank 0 for direction 1 is undefined; expected 4 micro-batches",
    ],
    [
      "no criterion",
      (pipe) => pipe.step([batch(8)], { numChunks: 8, labels: [batch(8)] }),
      "criterion is undefined; expected a criterion: the last stage of direction 1 is on rank 0",
    ],
  ];
  it.each(cases)("%s", async (_, step, message) => {
    const error = await errorOf(step(first()));
    expect(error).toBeInstanceOf(InputError);
    expect((error as Error).message).toContain(message);
  });

  it("and the other ranks do not wait for the one that was called wrongly", async () => {
    const { pipes } = pipesOf(DualPipe, 2, mlp);
    const [wrong, waiting] = await Promise.all(
      [undefined, [batch(8)]].map((inputs, rank) =>
        errorOf((pipes[rank] as DualPipe).step(inputs, { ...options, labels: [batch(8)] })),
      ),
    );
    expect(wrong).toBeInstanceOf(InputError);
    expect(waiting).toBeInstanceOf(PipelineAbortedError);
    expect((waiting as Error).cause).toBe(wrong);
  });

  it("inputs on a rank without a first stage, and a mapping that is no permutation", async () => {
    const inner = pipesOf(DualPipe, 4, mlp).pipes[1] as DualPipe;
    const error = await errorOf(inner.step([batch(8)], options));
    expect(String(error)).toContain(
      "inputs on rank 1 is given; expected none: no first stage here",
    );
    const transport = new InProcessNetwork({ numRanks: 2 }).transport(0);
    const stages = [new MlpStage(mlp, 0), new MlpStage(mlp, 1)] as const;
    expect(() => new DualPipe({ stages, transport, rankMapping: [1, 1] })).toThrow(
      "rankMapping is [1,1]; expected each of 0 to 1 once",
    );
    expect(() => new DualPipe({ stages, transport, timeoutMs: 0 })).toThrow("timeoutMs is 0");
  });
});

/** All ranks of a DualPipe with the stages changed by `alter`; what each rank's step ends with. */
async function outcomes(
  alter: (stage: Stage, rank: number, copy: number) => Stage,
  options: { criterion?: Criterion; timeoutMs?: number; network?: InProcessNetwork } = {},
): Promise<unknown[]> {
  const P = 4;
  const network = options.network ?? new InProcessNetwork({ numRanks: P });
  const pipes = Array.from({ length: P }, (_, rank) => {
    const stages = [rank, P - 1 - rank].map((i, copy) => alter(new MlpStage(mlp, i), rank, copy));
    const transport = network.transport(rank);
    const { timeoutMs = 20_000 } = options;
    return new DualPipe({ stages: stages as unknown as [Stage, Stage], transport, timeoutMs });
  });
  const { criterion = mseLoss } = options;
  return Promise.all(
    pipes.map((pipe, rank) => {
      const ends = rank === 0 || rank === P - 1;
      const labels = ends ? { labels: [batch(4)] } : {};
      return errorOf(
        pipe.step(ends ? [batch(4)] : undefined, { numChunks: 8, criterion, ...labels }),
      );
    }),
  );
}

/** A stage with some methods replaced. */
function altered(stage: Stage, methods: Partial<Stage>): Stage {
  return {
    forward: (inputs, context) => stage.forward(inputs, context),
    backwardInput: (saved, grads, context) => stage.backwardInput(saved, grads, context),
    ...methods,
  };
}

describe("a failure on one rank", () => {
  it("ends all with the cause, and names rank, operation, stage and micro-batch", async () => {
    const cause = new RangeError("the weights are gone");
    const errors = await outcomes((stage, rank, copy) =>
      rank !== 2 || copy !== 0
        ? stage
        : altered(stage, {
            backwardInput: (saved, grads, context) => {
              if (context.microBatch === 1) throw cause;
              return stage.backwardInput(saved, grads, context);
            },
          }),
    );
    expect(errors[2]).toBeInstanceOf(StageError);
    expect(errors[2]).toMatchObject({ rank: 2, direction: 0, stage: 2, microBatch: 1, cause });
    expect(String(errors[2])).toMatch(
      /: (FB|B|I) of direction 0, stage 2, micro-batch 1 on rank 2 failed: the weights are gone$/,
    );
    for (const rank of [0, 1, 3]) {
      expect(errors[rank]).toBeInstanceOf(PipelineAbortedError);
      expect(errors[rank]).toMatchObject({ abortedBy: 2, cause: errors[2] });
    }
  });

  const bad: [string, Partial<Stage>, string][] = [
    ["no outputs", { forward: () => ({}) as never }, "forward gave no outputs; expected Tensor[]"],
    [
      "an output that is no tensor",
      { forward: () => ({ outputs: [3], saved: 0 }) as never },
      "forward: outputs[0] is number; expected a Tensor",
    ],
    [
      "too many gradients",
      { backwardInput: () => [batch(1), batch(1)] },
      "backward gave 2 gradients; expected 1",
    ],
    [
      "a gradient of another shape",
      { backwardInput: () => [batch(7)] },
      "backward gave a gradient of shape [7,4] for tensor 0; expected [1,4]",
    ],
  ];
  it.each(bad)("%s", async (_, methods, message) => {
    const errors = await outcomes((stage, rank, copy) =>
      rank === 1 && copy === 0 ? altered(stage, methods) : stage,
    );
    expect(errors[1]).toBeInstanceOf(StageError);
    expect((errors[1] as Error).message).toContain(message);
  });

  it("a criterion that throws, or gives no gradients", async () => {
    const boom: Criterion = {
      forward: () => {
        throw new Error("no loss");
      },
    };
    const error = (await outcomes((stage) => stage, { criterion: boom })).find(
      (e) => e instanceof StageError,
    );
    expect(error).toMatchObject({ op: "criterion", stage: 3 });
    const none: Criterion = { forward: () => ({ loss: 1 }) };
    const errors = await outcomes((stage) => stage, { criterion: none });
    const text = "the criterion gave no gradOutputs; expected Tensor[]";
    expect(errors.some((e) => (e as Error).message.includes(text))).toBe(true);
  });

  it("a lost message is a timeout that says what was awaited from whom", async () => {
    const network = new InProcessNetwork({
      numRanks: 4,
      drop: (from, _, key) => {
        const { kind, direction, microBatch } = parseMessageKey(key);
        return from === 1 && kind === MessageKind.F && direction === 0 && microBatch === 2;
      },
    });
    const errors = await outcomes((stage) => stage, { network, timeoutMs: 150 });
    const timeouts = errors.filter((e) => e instanceof WaitTimeoutError);
    expect(timeouts.length).toBeGreaterThan(0);
    // The rank that misses the message, or one that misses what would follow from it.
    for (const error of errors) {
      expect(error instanceof WaitTimeoutError || error instanceof PipelineAbortedError).toBe(true);
    }
    expect((timeouts[0] as Error).message).toMatch(
      /^rank \d waited 150 ms for the .* from rank \d$/,
    );
  });

  it("a lost rank ends the others", async () => {
    const network = new InProcessNetwork({ numRanks: 4, delayTurns: () => 3 });
    setImmediate(() => network.lose(3));
    for (const error of await outcomes((stage) => stage, { network })) {
      expect(error).toBeInstanceOf(PipelineAbortedError);
      expect((error as Error).cause).toBeInstanceOf(RankLostError);
    }
  });
});

describe("a wrong schedule", () => {
  it("is told by what it leaves undone, or uses before it is there", async () => {
    const schedule = buildSchedule("1f1b", { numRanks: 1, numMicroBatches: 2 });
    const [program] = rankPrograms(schedule);
    const rest = { labels: new Map([[0, [[batch(1)], [batch(1)]]]]), criterion: mseLoss };
    const start = (ops: object): Promise<unknown> => {
      const transport = new InProcessNetwork({ numRanks: 1 }).transport(0);
      const stages = [{ direction: 0, stage: 0, model: new MlpStage(mlp, 0) }];
      const runner = new PipelineRunner({ transport, stages });
      const wrong = { ...program!, ops: { ...program!.ops, ...ops } };
      return runner.run(wrong, { inputs: rest.labels, ...rest, returnOutputs: false });
    };
    const short = await errorOf(start({ length: program!.ops.length - 1 }));
    expect(short).toBeInstanceOf(ScheduleExecutionError);
    expect(String(short)).toContain(
      "rank 0: the schedule 1f1b leaves 1 results without a use, " +
        "1 micro-batches without their B or W",
    );
    const backFirst = await errorOf(start({ kind: program!.ops.kind.toReversed() }));
    expect(String(backFirst)).toContain("has a backward before its forward");
  });
});

describe("errors across threads", () => {
  it("keep class, fields, stack and causes", () => {
    const place = { rank: 1, op: "F", direction: 0, stage: 2, microBatch: 3 };
    const error = new StageError(place, new InputError("x", "1", "2", { cause: "text" }));
    const again = deserializeError(structuredClone(serializeError(error)));
    expect(again).toBeInstanceOf(StageError);
    expect(again).toMatchObject({ ...place, code: "stage", message: error.message });
    expect(again.stack).toBe(error.stack);
    expect(again.cause).toBeInstanceOf(InputError);
    expect(again.cause).toMatchObject({ parameter: "x", code: "input" });
    expect((again.cause as Error).cause).toMatchObject({ message: "text" });
    const plain = deserializeError(serializeError(new RangeError("r")));
    expect([plain.name, plain.message]).toEqual(["RangeError", "r"]);
  });
});
