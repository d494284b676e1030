// From a step's logits to one token a sequence. The heavy passes over the vocabulary are device
// operations (logits-ops.ts); here are the order of things and the bookkeeping around them:
// log-probabilities of the model's own logits first, then the request's changes to them, then the
// choice. A row's outcome depends on its request alone, never on its neighbours.

import type { Device } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { BINS, collectBins, RowStatus, scanLogits } from "./logits-ops.ts";
import { type BinnedRow, logSumExp, pickToken, topTokens } from "./nucleus.ts";
import { uniformAt } from "./philox.ts";
import { applyProcessors, hasProcessors, type TokenHistory } from "./processors.ts";
import type { ResolvedSampling } from "./sampling-params.ts";

/** A row to choose a token from. */
export interface SampleInput extends TokenHistory {
  readonly row: number;
  readonly sampling: ResolvedSampling;
  readonly seed: number;
}

/** A row whose token is known, and of which log-probabilities are wanted. */
export interface ScoreInput {
  readonly row: number;
  readonly tokenId: number;
  readonly top: number;
}

/** Log-probabilities under softmax of the unchanged logits (temperature 1, no penalties). */
export interface RowLogprobs {
  readonly logprob: number;
  /** Most likely tokens with theirs, best first. */
  readonly top: readonly (readonly [tokenId: number, logprob: number])[];
}

export type SampleOutcome =
  | { readonly tokenId: number; readonly logprobs: RowLogprobs | undefined }
  | { readonly problem: string };

interface RawRow {
  readonly lse: number;
  readonly top: readonly (readonly [number, number])[];
  readonly problem: string | undefined;
}

/** Buffers of one scan, for up to `capacity` rows. */
interface ScanBuffers {
  readonly rows: Tensor<"i32">;
  readonly scales: Tensor<"f32">;
  readonly maxima: Tensor<"f32">;
  readonly heads: Tensor<"i32">;
  readonly counts: Tensor<"i32">;
  readonly masses: Tensor<"f32">;
}

export class Sampler {
  readonly #device: Device;
  readonly #indices: Tensor<"i32">;
  #capacity = 0;
  #buffers: ScanBuffers;

  constructor(device: Device, vocabSize: number) {
    this.#device = device;
    this.#indices = Tensor.empty([vocabSize], "i32", "indices");
    this.#buffers = this.#grow(16);
  }

  /** Compiles the kernels. */
  async warmup(): Promise<void> {
    const logits = Tensor.empty([1, this.#indices.size], "f32", "logits");
    await this.#device.warmup(() => {
      this.#device.run(scanLogits, { logits, ...this.#slice(1) });
      const row = logits.select(0, 0);
      const args = { logits: row, maximum: 0, scale: 1, first: 0, last: 0, indices: this.#indices };
      this.#device.run(collectBins, args);
    });
  }

  /** Log-probabilities of given tokens, for prompts. */
  score(logits: Tensor<"f32">, inputs: readonly ScoreInput[]): (RowLogprobs | string)[] {
    const raw = this.#rawRows(logits, inputs);
    return inputs.map(({ row, tokenId }, i) => {
      const { lse, top, problem } = raw[i] as RawRow;
      if (problem !== undefined) return problem;
      const values = logits.select(0, row).raw();
      return { logprob: (values[tokenId] as number) - lse, top };
    });
  }

  /** Chooses a token for every input. Rows of requests with penalties or bias are changed. */
  sample(logits: Tensor<"f32">, inputs: readonly SampleInput[]): SampleOutcome[] {
    const scored = inputs.filter(({ sampling }) => sampling.logprobs !== undefined);
    const raw = this.#rawRows(
      logits,
      scored.map(({ row, sampling }) => ({ row, top: sampling.logprobs ?? 0 })),
    );
    const originals = inputs.map((input) => this.#process(logits, input));
    this.#scan(
      logits,
      inputs.map(({ row, sampling }) => [row, sampling.greedy ? 0 : 1 / sampling.temperature]),
    );
    let nextRaw = 0;
    return inputs.map((input, job): SampleOutcome => {
      const own = input.sampling.logprobs === undefined ? undefined : raw[nextRaw++];
      const problem = own?.problem ?? this.#problem(job);
      if (problem !== undefined) return { problem };
      const tokenId = this.#choose(logits, input, job);
      if (own === undefined) return { tokenId, logprobs: undefined };
      const logit =
        originals[job]?.get(tokenId) ?? (logits.select(0, input.row).raw()[tokenId] as number);
      return { tokenId, logprobs: { logprob: logit - own.lse, top: own.top } };
    });
  }

  #choose(logits: Tensor<"f32">, input: SampleInput, job: number): number {
    if (input.sampling.greedy) return this.#buffers.heads.raw()[2 * job] as number;
    const row = this.#binned(logits, input.row, job);
    return pickToken(row, input.sampling, uniformAt(input.seed, input.outputTokens));
  }

  #process(logits: Tensor<"f32">, input: SampleInput): Map<number, number> | undefined {
    if (!hasProcessors(input.sampling, input)) return undefined;
    const originals = input.sampling.logprobs === undefined ? undefined : new Map();
    applyProcessors(logits.select(0, input.row).raw(), input.sampling, input, originals);
    return originals;
  }

  /** Normaliser and best tokens of the logits as the model gave them. */
  #rawRows(
    logits: Tensor<"f32">,
    wanted: readonly { readonly row: number; readonly top: number }[],
  ): RawRow[] {
    if (wanted.length === 0) return [];
    this.#scan(
      logits,
      wanted.map(({ row }) => [row, 1]),
    );
    return wanted.map(({ row, top }, job) => {
      const problem = this.#problem(job);
      if (problem !== undefined) return { lse: 0, top: [], problem };
      const binned = this.#binned(logits, row, job);
      const lse = logSumExp(binned);
      const best = topTokens(binned, top);
      return {
        lse,
        top: best.map((id) => [id, (binned.logits[id] as number) - lse] as const),
        problem: undefined,
      };
    });
  }

  #scan(logits: Tensor<"f32">, jobs: readonly (readonly [row: number, scale: number])[]): void {
    if (jobs.length === 0) return;
    if (jobs.length > this.#capacity) this.#buffers = this.#grow(jobs.length);
    const rows = this.#buffers.rows.raw();
    const scales = this.#buffers.scales.raw();
    for (const [job, [row, scale]] of jobs.entries()) {
      rows[job] = row;
      scales[job] = scale;
    }
    this.#device.run(scanLogits, { logits, ...this.#slice(jobs.length) });
  }

  #binned(logits: Tensor<"f32">, row: number, job: number): BinnedRow {
    const view = logits.select(0, row);
    const counts = this.#buffers.counts.raw().subarray(job * BINS, (job + 1) * BINS);
    const maximum = this.#buffers.maxima.raw()[job] as number;
    const scale = this.#buffers.scales.raw()[job] as number;
    return {
      logits: view.raw(),
      maximum,
      scale,
      counts,
      masses: this.#buffers.masses.raw().subarray(job * BINS, (job + 1) * BINS),
      collect: (first, last) => {
        let found = 0;
        for (let bin = first; bin <= last; bin++) found += counts[bin] as number;
        const indices = this.#indices.slice(0, 0, found);
        this.#device.run(collectBins, { logits: view, maximum, scale, first, last, indices });
        return indices.raw().slice();
      },
    };
  }

  #problem(job: number): string | undefined {
    const status = this.#buffers.heads.raw()[2 * job + 1];
    if (status === RowStatus.ok) return undefined;
    return status === RowStatus.nan ? "contain NaN" : "have no finite maximum";
  }

  #slice(jobs: number): ScanBuffers {
    const { rows, scales, maxima, heads, counts, masses } = this.#buffers;
    return {
      rows: rows.slice(0, 0, jobs),
      scales: scales.slice(0, 0, jobs),
      maxima: maxima.slice(0, 0, jobs),
      heads: heads.slice(0, 0, jobs),
      counts: counts.slice(0, 0, jobs),
      masses: masses.slice(0, 0, jobs),
    };
  }

  #grow(capacity: number): ScanBuffers {
    this.#capacity = capacity;
    return {
      rows: Tensor.empty([capacity], "i32", "rows"),
      scales: Tensor.empty([capacity], "f32", "scales"),
      maxima: Tensor.empty([capacity], "f32", "maxima"),
      heads: Tensor.empty([capacity, 2], "i32", "heads"),
      counts: Tensor.empty([capacity, BINS], "i32", "counts"),
      masses: Tensor.empty([capacity, BINS], "f32", "masses"),
    };
  }
}
