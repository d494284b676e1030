// The two operations of sampling: a pass over rows of logits that finds the best token and sorts
// the rest into bins by distance from it, and one that lists the tokens of some bins. With them a
// nucleus is found without sorting a vocabulary. What to do with the bins is in sampler.ts.

import { defineKernel, type Operation } from "@open-infra/jit";
import { expectContiguous, expectRows, expectTensor, type Tensor } from "@open-infra/tensor";

/** Bins of one row: 1/32 nat wide up to 16 nats below the best token, then half a nat. */
export const BINS = 1024;

/** What the scan found of a row. */
export const RowStatus = { ok: 0, nan: 1, infinite: 2 } as const;

const f = Math.fround;

/** The bin of a token whose scaled logit lies `d` below the best one; the kernels agree exactly. */
export function binOf(d: number): number {
  return Math.trunc(Math.min(d * 32, d * 2 + 480, BINS - 1));
}

/** Scaled distance below the best token, rounded as the kernels round it. */
export function distance(maximum: number, logit: number, scale: number): number {
  return f(f(maximum - logit) * scale);
}

export interface ScanLogitsArgs {
  /** f32 [R, V] */
  readonly logits: Tensor;
  /** i32 [J]: the row each job looks at. */
  readonly rows: Tensor;
  /** f32 [J]: 1 / temperature; 0 finds the best token only and leaves the bins as they are. */
  readonly scales: Tensor;
  /** f32 [J], out: the largest logit. */
  readonly maxima: Tensor;
  /**
   * i32 [J, 2], out: first index of the largest logit (−1 if unusable), and a {@link RowStatus}.
   */
  readonly heads: Tensor;
  /** i32 [J, BINS], out: tokens in each bin. */
  readonly counts: Tensor;
  /** f32 [J, BINS], out: sum of exp((logit − max) · scale) over each bin. */
  readonly masses: Tensor;
}

function checkScan(args: ScanLogitsArgs): void {
  const dims = {};
  const op = "scanLogits";
  expectTensor(op, "logits", args.logits, ["f32"], ["R", "V"], dims);
  expectRows(op, "logits", args.logits);
  expectTensor(op, "rows", args.rows, ["i32"], ["J"], dims);
  expectTensor(op, "scales", args.scales, ["f32"], ["J"], dims);
  expectTensor(op, "maxima", args.maxima, ["f32"], ["J"], dims);
  expectTensor(op, "heads", args.heads, ["i32"], ["J", 2], dims);
  expectTensor(op, "counts", args.counts, ["i32"], ["J", BINS], dims);
  expectTensor(op, "masses", args.masses, ["f32"], ["J", BINS], dims);
  for (const name of ["rows", "scales", "maxima", "heads", "counts", "masses"] as const) {
    expectContiguous(op, name, args[name]);
  }
}

function referenceScan(args: ScanLogitsArgs): void {
  const rows = args.rows.raw() as Int32Array;
  const scales = args.scales.raw() as Float32Array;
  const maxima = args.maxima.raw() as Float32Array;
  const heads = args.heads.raw() as Int32Array;
  const counts = args.counts.raw() as Int32Array;
  const masses = args.masses.raw() as Float32Array;
  for (const [job, row] of rows.entries()) {
    const x = args.logits.select(0, row).raw() as Float32Array;
    let argmax = 0;
    let nan = false;
    for (let i = 0; i < x.length; i++) {
      if (Number.isNaN(x[i])) nan = true;
      if ((x[i] as number) > (x[argmax] as number)) argmax = i;
    }
    const max = x[argmax] as number;
    const status = nan ? RowStatus.nan : Number.isFinite(max) ? RowStatus.ok : RowStatus.infinite;
    maxima[job] = max;
    heads[2 * job] = status === RowStatus.ok ? argmax : -1;
    heads[2 * job + 1] = status;
    const scale = scales[job] as number;
    if (status !== RowStatus.ok || scale === 0) continue;
    counts.fill(0, job * BINS, (job + 1) * BINS);
    const sums = new Float64Array(BINS);
    for (const logit of x) {
      const d = distance(max, logit, scale);
      const bin = binOf(d);
      counts[job * BINS + bin] = (counts[job * BINS + bin] as number) + 1;
      sums[bin] = (sums[bin] as number) + Math.exp(-d);
    }
    masses.set(sums, job * BINS);
  }
}

/** Finds every row's best token and sorts the others into bins below it. */
export const scanLogits: Operation<ScanLogitsArgs> = {
  name: "engine.scanLogits",
  check: checkScan,
  reference: referenceScan,
  work: ({ logits, rows }) => ({
    flops: 12 * rows.size * logits.dim(1),
    bytes: 4 * rows.size * (logits.dim(1) + 2 * BINS),
  }),
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: new URL("../kernels/scan_logits.c", import.meta.url),
      entry: "scan_logits",
      params: {
        logits: "ptr",
        rows: "ptr",
        scales: "ptr",
        maxima: "ptr",
        heads: "ptr",
        counts: "ptr",
        masses: "ptr",
        num_jobs: "i64",
        row_stride: "i64",
        vocab: "i64",
      },
      constants: () => ({ BINS }),
      threads: ({ rows }: ScanLogitsArgs) => rows.size,
      scratchBytes: () => BINS * 8,
      pack: (args: ScanLogitsArgs) => ({
        logits: args.logits,
        rows: args.rows,
        scales: args.scales,
        maxima: args.maxima,
        heads: args.heads,
        counts: args.counts,
        masses: args.masses,
        num_jobs: args.rows.size,
        row_stride: args.logits.stride(0),
        vocab: args.logits.dim(1),
      }),
    }),
  },
};

export interface CollectBinsArgs {
  /** f32 [V] */
  readonly logits: Tensor;
  /** The row's largest logit, and the scale its bins were made with. */
  readonly maximum: number;
  readonly scale: number;
  /** Bins wanted, both ends included. */
  readonly first: number;
  readonly last: number;
  /** i32 [N], out: token ids, ascending; N is the bins' count as the scan found it. */
  readonly indices: Tensor;
}

function referenceCollect(args: CollectBinsArgs): void {
  const x = args.logits.raw() as Float32Array;
  const out = args.indices.raw() as Int32Array;
  let found = 0;
  for (let i = 0; i < x.length && found < out.length; i++) {
    const bin = binOf(distance(args.maximum, x[i] as number, args.scale));
    if (bin >= args.first && bin <= args.last) out[found++] = i;
  }
}

/** Lists the tokens of a range of bins of one row. */
export const collectBins: Operation<CollectBinsArgs> = {
  name: "engine.collectBins",
  check(args) {
    expectTensor("collectBins", "logits", args.logits, ["f32"], ["V"], {});
    expectRows("collectBins", "logits", args.logits);
    expectTensor("collectBins", "indices", args.indices, ["i32"], ["N"], {});
    expectContiguous("collectBins", "indices", args.indices);
  },
  reference: referenceCollect,
  work: ({ logits, indices }) => ({
    flops: 4 * logits.size,
    bytes: 4 * (logits.size + indices.size),
  }),
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: new URL("../kernels/collect_bins.c", import.meta.url),
      entry: "collect_bins",
      params: {
        logits: "ptr",
        indices: "ptr",
        vocab: "i64",
        capacity: "i64",
        first: "i64",
        last: "i64",
        maximum: "f64",
        scale: "f64",
      },
      constants: () => ({ BINS }),
      threads: () => 1,
      pack: (args: CollectBinsArgs) => ({
        logits: args.logits,
        indices: args.indices,
        vocab: args.logits.size,
        capacity: args.indices.size,
        first: args.first,
        last: args.last,
        maximum: args.maximum,
        scale: args.scale,
      }),
    }),
  },
};
