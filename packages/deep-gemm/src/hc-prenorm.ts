// The projection of hyper-connections together with the statistic of the RMS norm before it: one
// pass over a wide activation gives both. The original multiplies in TF32; here it is float32.

import { type Device, defineKernel, type Operation, type Target } from "@open-infra/jit";
import { expectRows, expectTensor, ShapeError, type Tensor } from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";

/** Arguments of {@link tf32HcPrenormGemm}. */
export interface HcPrenormArgs {
  /** bf16 [M,K] */
  readonly a: Tensor;
  /** f32 [N,K], few rows */
  readonly b: Tensor;
  /** f32 [M,N], or [splits,M,N]: each split's share of K; the sum over splits is the product. */
  readonly d: Tensor;
  /** f32 [M], or [splits,M]: the sums of a² over the same k. */
  readonly sqrSum: Tensor;
  /** Splits of K, the first dimension of `d` and `sqrSum`. @default none */
  readonly numSplits?: number | undefined;
  /** Threads to use at most; never changes a result. @default the device's */
  readonly threads?: number | undefined;
}

interface HcCall extends HcPrenormArgs {
  readonly splits: number;
}

const operationName = "tf32HcPrenormGemm";

/** Splits begin at multiples of this many k. */
const splitStep = 64;

function checkHc({ a, b, d, sqrSum, numSplits }: HcCall): void {
  const dims = {};
  expectTensor(operationName, "a", a, ["bf16"], ["M", "K"], dims);
  expectTensor(operationName, "b", b, ["f32"], ["N", "K"], dims);
  const lead = numSplits === undefined ? [] : [numSplits];
  expectTensor(operationName, "d", d, ["f32"], [...lead, "M", "N"], dims);
  expectTensor(operationName, "sqrSum", sqrSum, ["f32"], [...lead, "M"], dims);
  for (const [name, tensor] of Object.entries({ a, b, d })) expectRows(operationName, name, tensor);
  for (const [name, tensor] of Object.entries({ d, sqrSum })) {
    const inputs = [a.storage, b.storage, (name === "d" ? sqrSum : d).storage];
    if (tensor.size === 0 || !inputs.includes(tensor.storage)) continue;
    const got = "a view of memory that holds another argument";
    throw new ShapeError(operationName, name, got, "memory of its own");
  }
}

/** First k of each split, and K: blocks of 64 shared evenly, the first splits get the rest. */
function splitStarts(k: number, splits: number): number[] {
  const blocks = Math.ceil(k / splitStep);
  const each = Math.floor(blocks / splits);
  return Array.from({ length: splits + 1 }, (_, s) =>
    Math.min(k, (s * each + Math.min(s, blocks % splits)) * splitStep),
  );
}

function hcReference({ a, b, d, sqrSum, numSplits, splits }: HcCall): void {
  const [m, k] = [a.dim(0), a.dim(1)];
  const n = b.dim(0);
  const [x, y] = [a.toFloat64(), b.toFloat64()];
  const starts = splitStarts(k, splits);
  for (let s = 0; s < splits; s++) {
    const [from, to] = [starts[s] as number, starts[s + 1] as number];
    for (let i = 0; i < m; i++) {
      const sums = new Float64Array(n);
      let squares = 0;
      for (let l = from; l < to; l++) {
        const value = x[i * k + l] as number;
        squares += value * value;
        for (let j = 0; j < n; j++) {
          sums[j] = (sums[j] as number) + value * (y[j * k + l] as number);
        }
      }
      const pick = (t: Tensor): Tensor => (numSplits === undefined ? t : t.select(0, s));
      if (n > 0) (pick(d).select(0, i).raw() as Float32Array).set(sums);
      (
        pick(sqrSum)
          .slice(0, i, i + 1)
          .raw() as Float32Array
      )[0] = squares;
    }
  }
}

/** As in `hc_prenorm.c`: rows of a unit and of a tile, k of a block, floats of a panel's row. */
const mostRows = 12;
const tileRows = 6;
const blockK = 512;
const panelRow = blockK + 16;

/** Work below this is done before a second thread would have woken. */
const flopsPerThread = 400_000;

function planOf(call: HcCall, target: Target): { unitRows: number; threads: number } {
  const [m, k, n] = [call.a.dim(0), call.a.dim(1), call.b.dim(0)];
  const useful = Math.floor((2 * m * k * n) / flopsPerThread);
  const most = Math.min(target.threads, call.threads ?? target.threads);
  const threads = Math.max(1, Math.min(most, useful));
  let unitRows = mostRows;
  while (unitRows > tileRows && Math.ceil(m / unitRows) * call.splits < 4 * threads) unitRows /= 2;
  return { unitRows, threads };
}

const hcOperation: Operation<HcCall> = {
  name: operationName,
  check: checkHc,
  reference: hcReference,
  kernels: {
    cpu: defineKernel({
      language: "c",
      source: new URL("../kernels/hc_prenorm.c", import.meta.url),
      entry: "hc_prenorm",
      params: {
        a: "ptr",
        b: "ptr",
        d: "ptr",
        sqr_sum: "ptr",
        m: "i64",
        n: "i64",
        k: "i64",
        splits: "i64",
        a_row: "i64",
        b_row: "i64",
        d_split: "i64",
        d_row: "i64",
        s_split: "i64",
        s_row: "i64",
        unit_rows: "i64",
      },
      constants: () => ({}),
      pack(call: HcCall, target) {
        const { a, b, d, sqrSum, splits } = call;
        const split = call.numSplits !== undefined;
        return {
          a,
          b,
          d,
          sqr_sum: sqrSum,
          m: a.dim(0),
          n: b.dim(0),
          k: a.dim(1),
          splits,
          a_row: a.stride(0),
          b_row: b.stride(0),
          d_split: split ? d.stride(0) : 0,
          d_row: d.stride(-2),
          s_split: split ? sqrSum.stride(0) : 0,
          s_row: sqrSum.stride(-1),
          unit_rows: planOf(call, target).unitRows,
        };
      },
      threads: (call, target) => planOf(call, target).threads,
      scratchBytes({ b, splits }) {
        const columns = 4 * Math.ceil(b.dim(0) / 4);
        const longest = splitStarts(b.dim(1), splits)[1] as number;
        const blocks = Math.ceil(longest / blockK);
        // Sums are vectors of up to 16 floats.
        return 4 * panelRow * (mostRows + blocks * columns) + 64 * mostRows * (1 + columns);
      },
    }),
  },
  work: ({ a, b, d }) => ({
    flops: 2 * a.size * (b.dim(0) + 1),
    bytes: a.byteLength + b.byteLength + d.byteLength,
  }),
};

/**
 * d = a · bᵀ and sqrSum = Σ a² over K in one pass (DeepGEMM `tf32_hc_prenorm_gemm`, of mHC). Any M,
 * N and K; float32 products and sums where the original rounds b to TF32. A row depends on its row
 * of a and the number of splits alone, to the bit. K = 0 gives zeros.
 *
 * @throws DTypeError, ShapeError, ArgumentError naming the argument, before anything is written.
 */
export function tf32HcPrenormGemm(device: Device, args: HcPrenormArgs): void {
  const splits = args.numSplits ?? 1;
  if (!Number.isSafeInteger(splits) || splits < 1) {
    throw new ArgumentError(operationName, "numSplits", `${splits}`, "a positive integer");
  }
  device.run(hcOperation, { ...args, splits });
}
