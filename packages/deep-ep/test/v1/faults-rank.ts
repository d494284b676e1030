// Ranks that die or fall behind in the middle of things.

import assert from "node:assert/strict";
import { Buffer } from "@open-infra/deep-ep";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import type { LowLatencyCase } from "./low-latency-case.ts";
import { LowLatencyChecker } from "./low-latency-rank.ts";

const die = (): never => {
  process.kill(process.pid, "SIGKILL");
  throw new Error("still here");
};

const shape: LowLatencyCase = {
  seed: 3,
  tokens: [5, 4, 5, 3],
  most: 5,
  hidden: 256,
  topk: 3,
  numExperts: 8,
  useFp8: false,
  roundScale: false,
  useUe8m0: false,
  hook: false,
  async: false,
  zeroCopy: false,
  useLogfmt: false,
  maskedRatio: 0.1,
};

async function openLowLatency(group: Group, enableShrink: boolean): Promise<LowLatencyChecker> {
  const buffer = await Buffer.create(group, {
    numNvlBytes: 1 << 20,
    lowLatencyMode: true,
    numRdmaBytes: 1 << 21,
    enableShrink,
  });
  return new LowLatencyChecker(group, buffer, shape);
}

/** Rank 1 dies before a dispatch, rank 3 between one and its combine; the others stay exact. */
export async function shrink(group: Group): Promise<number[]> {
  const checker = await openLowLatency(group, true);
  const round = (deadBefore: readonly number[], deadAfter: readonly number[]): void => {
    const result = checker.dispatch();
    checker.checkReceived(result, deadBefore);
    if (deadAfter.length > deadBefore.length && deadAfter.includes(group.rank)) die();
    checker.combine(result, deadAfter);
  };
  round([], []);
  if (group.rank === 1) die();
  round([1], [1]);
  round([1], [1]);
  round([1], [1, 3]);
  round([1, 3], [1, 3]);
  return [...checker.buffer.lowLatencyQueryMaskBuffer().raw()];
}

/** Rank 2 is there but does not come; after the timeout the others do without it. */
export async function late(group: Group): Promise<number[]> {
  const checker = await openLowLatency(group, true);
  checker.checkReceived(checker.dispatch());
  await group.exchange("first round", "");
  let mask = [0, 0, 1, 0];
  if (group.rank !== 2) {
    const result = checker.dispatch();
    checker.checkReceived(result, [2]);
    checker.combine(result, [2]);
    mask = [...checker.buffer.lowLatencyQueryMaskBuffer().raw()];
    checker.buffer.lowLatencyUpdateMaskBuffer(2, false);
    assert.equal(checker.buffer.lowLatencyQueryMaskBuffer().raw()[2], 0);
    checker.buffer.lowLatencyCleanMaskBuffer();
  } else {
    // Longer than the others wait for it.
    await new Promise((resolve) => setTimeout(resolve, group.timeoutMs * 1.4));
  }
  await group.exchange("end", "");
  return mask;
}

/** Dispatches and combines for ever; `victim` dies before its third of a phase, or is killed. */
export async function loop(
  group: Group,
  data: { readonly phase: "dispatch" | "combine" | "low-latency" | "killed"; victim: number },
): Promise<never> {
  const { phase, victim } = data;
  const mortal = group.rank === victim;
  if (phase === "low-latency") {
    const checker = await openLowLatency(group, false);
    for (let round = 0; ; round++) {
      const result = checker.dispatch();
      if (mortal && round === 2) die();
      checker.combine(result);
    }
  }
  const buffer = await Buffer.create(group, { numNvlBytes: 256 << 20 });
  const tokens = 512;
  const experts = Array.from({ length: tokens }, (_, t) => t % group.size);
  const topkIdx = Tensor.from(experts, [tokens, 1], "i64");
  const x = Tensor.empty([tokens, 2048], "bf16");
  const { event: _, ...layout } = buffer.getDispatchLayout(topkIdx, group.size);
  for (let round = 0; ; round++) {
    if (mortal && round === 2 && phase === "dispatch") die();
    const result = buffer.dispatch(x, layout);
    if (mortal && round === 2 && phase === "combine") die();
    const combined = buffer.combine(result.recvX as Tensor<"bf16">, { handle: result.handle });
    combined[Symbol.dispose]();
    result[Symbol.dispose]();
  }
}

/** Two batches in flight, their hooks called late and in turn; a third is refused. */
export async function twoBatches(group: Group): Promise<string[]> {
  const refused: string[] = [];
  const refuse = (call: () => unknown): void => {
    try {
      call();
      refused.push("nothing was thrown");
    } catch (error) {
      refused.push((error as Error).message);
    }
  };
  const hooked = { ...shape, hook: true, tokens: shape.tokens.slice(0, group.size) };
  const base = await openLowLatency(group, false);
  const checkers = [4, 5].map(
    (seed) => new LowLatencyChecker(group, base.buffer, { ...hooked, seed }),
  );
  for (let round = 0; round < 3; round++) {
    const sent = checkers.map(({ input }) =>
      base.buffer.lowLatencyDispatch(input.x, {
        topkIdx: input.topkIdx,
        numMaxDispatchTokensPerRank: shape.most,
        numExperts: shape.numExperts,
        useFp8: false,
        returnRecvHook: true,
      }),
    );
    if (round === 2) {
      const { x, topkIdx } = (checkers[0] as LowLatencyChecker).input;
      const { most: numMaxDispatchTokensPerRank, numExperts } = shape;
      refuse(() =>
        base.buffer.lowLatencyDispatch(x, { topkIdx, numMaxDispatchTokensPerRank, numExperts }),
      );
      refuse(() =>
        base.buffer.cleanLowLatencyBuffer({
          numMaxDispatchTokensPerRank: 500_000,
          hidden: 7168,
          numExperts,
        }),
      );
    }
    sent.forEach((result, i) => {
      result.hook();
      checkers[i]?.checkReceived(result);
    });
    sent.forEach((result, i) => void checkers[i]?.combine(result));
    if (round === 2) refuse(() => sent[0]?.hook());
  }
  return refused;
}
