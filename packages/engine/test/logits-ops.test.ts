import { createDevice, ReferenceDevice } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { hasProgram, requirement, seededRandom, testSeed } from "@open-infra/testing";
import { describe, expect, it } from "vitest";
import { BINS, collectBins, type ScanLogitsArgs, scanLogits } from "../src/logits-ops.ts";
import { Sampler } from "../src/sampler.ts";
import { resolveRequest } from "../src/sampling-params.ts";

const compiler = hasProgram("cc") || hasProgram("gcc") || hasProgram("clang");
const missing = requirement(
  "engine logits kernels",
  compiler || "no C compiler; install one, e.g. 'apt-get install gcc'",
);

function scanArgs(logits: Tensor<"f32">, scales: readonly number[]): ScanLogitsArgs {
  const jobs = scales.length;
  return {
    logits,
    rows: Tensor.from(
      scales.map((_, i) => i % logits.dim(0)),
      [jobs],
      "i32",
    ),
    scales: Tensor.from(scales, [jobs], "f32"),
    maxima: Tensor.empty([jobs], "f32"),
    heads: Tensor.empty([jobs, 2], "i32"),
    counts: Tensor.empty([jobs, BINS], "i32"),
    masses: Tensor.empty([jobs, BINS], "f32"),
  };
}

describe.skipIf(missing)("logits kernels", () => {
  it.each([["best"], ["avx2"], ["scalar"]])("agree with the reference (%s)", (isa) => {
    if (isa !== "best" && process.arch !== "x64") return;
    const random = seededRandom(testSeed());
    using device = createDevice({ backend: "cpu", threads: 2, ...(isa !== "best" && { isa }) });
    const reference = new ReferenceDevice();
    for (const vocab of [1, 3, 16, 17, 63, 100, 1000, 4097]) {
      const rows = 5;
      const spread = random.pick([0, 0.5, 4, 40]);
      const values = Array.from({ length: rows * vocab }, () => random.normal() * spread);
      if (vocab > 3) {
        values[vocab + 2] = Number.NaN;
        values[2 * vocab + 1] = Number.POSITIVE_INFINITY;
        values[3 * vocab + 1] = Number.NEGATIVE_INFINITY;
      }
      const logits = Tensor.from(values, [rows, vocab], "f32");
      const scales = [1, 1, 1, 2.5, 0, 0.1, 1, 1, 1 / 0.7, 30];
      const got = scanArgs(logits, scales);
      const want = scanArgs(logits, scales);
      device.run(scanLogits, got);
      reference.run(scanLogits, want);
      const message = `seed ${random.seed}, vocab ${vocab}, spread ${spread}`;
      expect(got.heads.raw(), message).toEqual(want.heads.raw());
      expect(got.counts.raw(), message).toEqual(want.counts.raw());
      for (const [job, scale] of scales.entries()) {
        if (want.heads.raw()[2 * job + 1] !== 0) continue;
        // == and not Object.is: which zero is the largest does not matter.
        expect(got.maxima.raw()[job] === want.maxima.raw()[job], message).toBe(true);
        if (scale === 0) continue;
        compareMasses(got, want, job, message);
        compareBins([device, reference], got, job, message);
      }
    }
  });

  it("choose the same tokens as the reference over a large vocabulary", () => {
    const vocab = 102_400;
    const random = seededRandom(testSeed());
    using device = createDevice({ backend: "cpu" });
    const values = Float32Array.from({ length: vocab }, () => random.normal() * 2.5);
    const samplings = [
      { temperature: 0 },
      {},
      { temperature: 0.6, topP: 0.95 },
      { temperature: 1.5, topK: 5000, topP: 0.99, minP: 1e-4, logprobs: 20 },
    ];
    const outcomes = [device, new ReferenceDevice()].map((on) =>
      new Sampler(on, vocab).sample(
        Tensor.from(values, [1, vocab], "f32"),
        samplings.map((sampling, seed) => ({
          row: 0,
          sampling: resolveRequest(
            { id: "t", promptTokenIds: [1], sampling },
            { vocabSize: vocab, maxModelLen: 100, eosTokenIds: [] },
          ),
          seed,
          outputTokens: 0,
          outputCounts: undefined,
          promptSet: undefined,
        })),
      ),
    );
    const ids = outcomes.map((list) => list.map((o) => ("tokenId" in o ? o.tokenId : o.problem)));
    expect(ids[0], `seed ${random.seed}`).toEqual(ids[1]);
  });
});

function compareMasses(got: ScanLogitsArgs, want: ScanLogitsArgs, job: number, message: string) {
  const a = got.masses.select(0, job).raw() as Float32Array;
  const b = want.masses.select(0, job).raw() as Float32Array;
  for (let bin = 0; bin < BINS; bin++) {
    const x = a[bin] as number;
    const y = b[bin] as number;
    expect(Math.abs(x - y), `${message}, bin ${bin}`).toBeLessThanOrEqual(1e-6 * y + 1e-37);
  }
}

function compareBins(
  devices: readonly { run: ReferenceDevice["run"] }[],
  scan: ScanLogitsArgs,
  job: number,
  message: string,
) {
  const counts = scan.counts.select(0, job).raw() as Int32Array;
  const bins = Array.from(counts.keys()).filter((bin) => (counts[bin] as number) > 0);
  const first = bins[Math.floor(bins.length / 3)] as number;
  const last = bins.at(-1) as number;
  let total = 0;
  for (let bin = first; bin <= last; bin++) total += counts[bin] as number;
  const lists = devices.map((device) => {
    const indices = Tensor.empty([total], "i32");
    device.run(collectBins, {
      logits: scan.logits.select(0, (scan.rows.raw() as Int32Array)[job] as number),
      maximum: (scan.maxima.raw() as Float32Array)[job] as number,
      scale: (scan.scales.raw() as Float32Array)[job] as number,
      first,
      last,
      indices,
    });
    return Array.from(indices.raw());
  });
  expect(lists[0], message).toEqual(lists[1]);
}
