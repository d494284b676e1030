// Tokens per second of the whole engine, stepped in process: decoding for 1 and for 16 requests at
// once, and prefill of one prompt. The model is the demo, or the folder that
// OPEN_INFRA_BENCH_MODEL names (`open-infra make-model --preset v2-lite-8l DIR` writes a large
// one).

import { basename } from "node:path";
import { demoModelDir } from "@open-infra/demo-model";
import { createDevice, measureMachine } from "@open-infra/jit";
import { type BenchRow, median } from "@open-infra/testing";
import { type OpenedEngine, openEngine } from "../src/open.ts";
import { checkOptions } from "../src/options.ts";

export interface EngineBenchOptions {
  readonly quick?: boolean;
  /** @default OPEN_INFRA_BENCH_MODEL or the demo model */
  readonly modelDir?: string;
}

const PROMPT_TOKENS = 64;

/** Median time of a pure decode step over `requests` sequences, microseconds. */
function decodeStepUs({ core, info }: OpenedEngine, requests: number, steps: number): number {
  for (let i = 0; i < requests; i++) {
    const promptTokenIds = Array.from(
      { length: PROMPT_TOKENS },
      (_, t) => (7 + i * 131 + t * 17) % info.vocabSize,
    );
    const sampling = { temperature: 0, ignoreEos: true };
    core.add(i, { id: `bench${i}`, promptTokenIds, sampling });
  }
  const decoding = (): boolean => {
    const { lastStep, running } = core.board.snapshot();
    return running === requests && lastStep.tokens === requests && lastStep.sequences === requests;
  };
  while (!decoding()) core.step();
  for (let i = 0; i < 3; i++) core.step();
  const times: number[] = [];
  for (let i = 0; i < steps; i++) {
    const start = performance.now();
    core.step();
    times.push((performance.now() - start) * 1000);
  }
  core.abortAll();
  core.step();
  return median(times);
}

/** Time to the first token of one prompt, microseconds. */
function prefillUs({ core, info }: OpenedEngine, tokens: number, round: number): number {
  core.blocks.clearCache();
  const promptTokenIds = Array.from(
    { length: tokens },
    (_, t) => (3 + round + t * 29) % info.vocabSize,
  );
  core.add(0, { id: "prefill", promptTokenIds, sampling: { temperature: 0, maxTokens: 1 } });
  const start = performance.now();
  while (core.hasWork) core.step();
  return (performance.now() - start) * 1000;
}

export async function run(options: EngineBenchOptions = {}): Promise<readonly BenchRow[]> {
  const modelDir = options.modelDir ?? process.env.OPEN_INFRA_BENCH_MODEL ?? demoModelDir;
  const name = basename(modelDir);
  using limitsDevice = createDevice();
  const limits = measureMachine(limitsDevice);
  using engine = await openEngine(checkOptions({ modelDir, maxModelLen: 1024, maxSequences: 16 }));
  const bytes = engine.info.activeWeightBytes;
  const steps = options.quick ? 16 : 64;
  const one = decodeStepUs(engine, 1, steps);
  const sixteen = decodeStepUs(engine, 16, steps);
  const promptTokens = 512;
  const rounds = options.quick ? 2 : 5;
  const prefill = median(
    Array.from({ length: rounds }, (_, i) => prefillUs(engine, promptTokens, i)),
  );
  // A lower bound of what is read: sixteen requests together touch more experts than one.
  const row = (label: string, us: number, tokens: number): BenchRow => {
    const gbs = bytes / us / 1000;
    return {
      case: `${label}: ${((tokens / us) * 1e6).toFixed(0)} tokens/s`,
      shape: `${name} ${engine.info.dtype}, ${tokens} a step`,
      us,
      gbs,
      bound: "bandwidth",
      boundRatio: gbs / limits.readGBs,
    };
  };
  return [
    row("decode", one, 1),
    { ...row("decode", sixteen, 16), peer: "one request", peerRatio: (16 * one) / sixteen },
    row("prefill", prefill, promptTokens),
  ];
}
