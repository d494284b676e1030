// Times decode and prefill steps of a model, and where a step's time goes.
//   node --conditions=@open-infra/source packages/model/bench/step.ts DIR [dtype] [context]

import { createDevice } from "@open-infra/jit";
import { TraceRecorder } from "@open-infra/profile";
import { type ComputeDType, loadModel } from "../src/index.ts";

const [dir, dtype = "auto", contextArg = "64"] = process.argv.slice(2);
if (dir === undefined) throw new Error("usage: step.ts DIR [dtype] [context]");
const context = Number(contextArg);

const recorder = new TraceRecorder();
let recording = false;
using device = createDevice({
  recorder: new Proxy(recorder, {
    get: (target, key) => {
      if (key === "enabled") return recording;
      const value: unknown = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  }),
});
const started = performance.now();
using model = await loadModel(dir, { device, dtype: dtype as ComputeDType });
const loaded = performance.now();
await model.warmup();
console.log(
  `${dir}: ${(model.parameters / 1e6).toFixed(1)} M parameters, ${model.dtype}, loaded in ` +
    `${((loaded - started) / 1000).toFixed(1)} s, kernels in ` +
    `${((performance.now() - loaded) / 1000).toFixed(1)} s; ${device.description}`,
);

/** Best and median milliseconds of a step of `sequences` × `tokens`. */
function time(label: string, sequences: number, tokens: number, repeats: number): void {
  const perSequence = Math.ceil((context + tokens) / 64);
  using cache = model.createKvCache({ numBlocks: sequences * perSequence, blockTokens: 64 });
  const slices = Array.from({ length: sequences }, (_, s) => ({
    queryTokens: tokens,
    contextTokens: context + tokens,
    blocks: Array.from({ length: perSequence }, (_, i) => s * perSequence + i),
  }));
  const total = sequences * tokens;
  const batch = {
    tokenIds: Int32Array.from({ length: total }, (_, i) => (i * 7919) % model.config.vocabSize),
    sequences: slices,
    logitRows: Int32Array.from({ length: sequences }, (_, s) => (s + 1) * tokens - 1),
  };
  const times: number[] = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    model.forward(batch, cache);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  const [best, median] = [times[0] as number, times[times.length >> 1] as number];
  const gbs = (model.activeWeightBytes / best / 1e6).toFixed(1);
  const weights = total === 1 ? `, ${gbs} GB/s of active weights` : "";
  console.log(
    `${label.padEnd(24)} best ${best.toFixed(2)} ms, median ${median.toFixed(2)} ms, ` +
      `${((total / median) * 1000).toFixed(0)} tokens/s${weights}`,
  );
  profile(() => model.forward(batch, cache));
}

function profile(step: () => void): void {
  const before = recorder.events.length;
  recording = true;
  step();
  recording = false;
  const sums = new Map<string, { us: number; count: number }>();
  for (const { name, dur } of recorder.events.slice(before)) {
    if (dur === undefined) continue;
    const sum = sums.get(name) ?? { us: 0, count: 0 };
    sums.set(name, { us: sum.us + dur, count: sum.count + 1 });
  }
  const rows = [...sums].sort((a, b) => b[1].us - a[1].us);
  console.log(
    `    ${rows.map(([name, { us, count }]) => `${name} ${us.toFixed(0)} µs/${count}`).join(", ")}`,
  );
}

const repeats = model.parameters > 1e9 ? 5 : 50;
time("decode 1", 1, 1, repeats);
time("decode 16", 16, 1, repeats);
time("prefill 128", 1, 128, Math.min(repeats, 10));
time("prefill 512", 1, 512, 3);
