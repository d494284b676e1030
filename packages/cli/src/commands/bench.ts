// `open-infra bench`: how fast this machine serves a model, beside what bounds it. It drives the
// same engine that `serve` does, worker thread and all; the kernels' own benches are `npm run
// bench`.

import { type EngineClient, startEngine } from "@open-infra/engine";
import { createDevice, type MachineLimits, measureMachine } from "@open-infra/jit";
import type { ComputeDType } from "@open-infra/model";
import { type CliContext, note, printJson, printLine } from "../context.ts";
import { modelDir } from "../model-dir.ts";
import { createProgress, formatBytes } from "../progress.ts";

interface Flags {
  readonly model?: string;
  readonly dtype: ComputeDType;
  readonly threads?: number;
  readonly concurrency: number;
  readonly tokens: number;
  readonly json: boolean;
}

interface DecodeRate {
  readonly requests: number;
  readonly tokensPerSecond: number;
}

const PROMPT_TOKENS = 32;
const PREFILL_TOKENS = 512;

/** Prompts that share no beginning, so that the prefix cache gives nothing away. */
function prompt(engine: EngineClient, index: number, length: number): number[] {
  const { vocabSize } = engine.model;
  return Array.from({ length }, (_, t) => (11 + index * 7919 + t * 131) % vocabSize);
}

/**
 * Tokens per second while every request decodes: from when the last has its first token to when the
 * first has its last one. Before that prefills, after it smaller batches are in the way.
 */
async function decodeRate(
  engine: EngineClient,
  requests: number,
  tokens: number,
  round: number,
): Promise<DecodeRate> {
  const times: number[][] = [];
  const one = async (index: number): Promise<void> => {
    const mine: number[] = [];
    times.push(mine);
    const events = engine.generate({
      id: `bench-${round}-${index}`,
      promptTokenIds: prompt(engine, round * 1000 + index, PROMPT_TOKENS),
      sampling: { temperature: 0, maxTokens: tokens, ignoreEos: true },
    });
    for await (const event of events) {
      if (event.type !== "delta") continue;
      const now = performance.now();
      for (const _ of event.tokenIds) mine.push(now);
    }
  };
  await Promise.all(Array.from({ length: requests }, (_, index) => one(index)));
  const start = Math.max(...times.map((mine) => mine[0] as number));
  const end = Math.min(...times.map((mine) => mine.at(-1) as number));
  const generated = times.flat().filter((time) => time > start && time <= end).length;
  return { requests, tokensPerSecond: (generated / (end - start)) * 1000 };
}

async function prefillRate(engine: EngineClient, round: number): Promise<number> {
  const length = Math.min(PREFILL_TOKENS, engine.model.maxModelLen - 1);
  const start = performance.now();
  const events = engine.generate({
    id: `prefill-${round}`,
    promptTokenIds: prompt(engine, 500_000 + round, length),
    sampling: { temperature: 0, maxTokens: 1, ignoreEos: true },
  });
  for await (const event of events) if (event.type === "finish") break;
  return (length / (performance.now() - start)) * 1000;
}

function measureLimits(threads: number | undefined): MachineLimits | undefined {
  using device = createDevice({ ...(threads && { threads }) });
  return device.backend === "cpu" ? measureMachine(device) : undefined;
}

export default async function bench(this: CliContext, flags: Flags): Promise<void> {
  using progress = createProgress(this, {
    format: (phase, done, total) =>
      phase === "weights" ? `${formatBytes(done)} of ${formatBytes(total)}` : `${done}/${total}`,
  });
  const limits = measureLimits(flags.threads);
  await using engine = await startEngine({
    modelDir: modelDir(flags.model),
    dtype: flags.dtype,
    maxSequences: Math.max(64, flags.concurrency),
    ...(flags.threads && { threads: flags.threads }),
    onProgress: (phase, done, total) => progress.update(phase, done, total),
    onLog: (line) => note(this, line),
  });
  const { model } = engine;
  const tokens = Math.min(flags.tokens, model.maxModelLen - PROMPT_TOKENS);
  await decodeRate(engine, 1, Math.min(8, tokens), 0); // warms caches and clocks
  const single = await decodeRate(engine, 1, tokens, 1);
  const batched = await decodeRate(engine, flags.concurrency, tokens, 2);
  const again = await decodeRate(engine, 1, tokens, 3);
  const one = Math.max(single.tokensPerSecond, again.tokensPerSecond);
  const prefill = await prefillRate(engine, 1);
  const weightGBs = (one * model.activeWeightBytes) / 1e9;
  const report = {
    model: model.id,
    dtype: model.dtype,
    device: model.device,
    activeWeightBytes: model.activeWeightBytes,
    machine: limits,
    decodeOneTokensPerSecond: one,
    decodeOneWeightGBs: weightGBs,
    decodeOneOfReadBandwidth: limits && weightGBs / limits.readGBs,
    concurrency: flags.concurrency,
    decodeBatchedTokensPerSecond: batched.tokensPerSecond,
    decodeBatchedOverOne: batched.tokensPerSecond / one,
    prefillTokensPerSecond: prefill,
  };
  if (flags.json) {
    printJson(this, report);
    return;
  }
  printLine(this, `${model.id} (${model.dtype}) on ${model.device}`);
  if (limits)
    printLine(
      this,
      `machine: reads ${limits.readGBs.toFixed(1)} GB/s, ` +
        `f32 ${limits.f32Gflops.toFixed(0)} GFLOP/s`,
    );
  const bound = report.decodeOneOfReadBandwidth;
  printLine(
    this,
    `decode, 1 request:   ${one.toFixed(1)} tokens/s, ` +
      `${formatBytes(model.activeWeightBytes)} of weights a token` +
      (bound === undefined ? "" : ` = ${(bound * 100).toFixed(0)} % of read bandwidth`),
  );
  printLine(
    this,
    `decode, ${flags.concurrency} requests: ${batched.tokensPerSecond.toFixed(1)} tokens/s, ` +
      `${report.decodeBatchedOverOne.toFixed(2)}× one`,
  );
  printLine(this, `prefill:             ${prefill.toFixed(0)} tokens/s`);
}
