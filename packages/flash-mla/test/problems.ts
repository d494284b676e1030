// Attention problems with hostile surroundings (NaN in every unused slot, nonsense in unused table
// entries, poisoned outputs) and an oracle of their own, in float64, written apart from the
// package's reference so that the reference is tested too.

import { createDevice, type Device, findCompiler } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { calcDiff, type Random, requirement } from "@open-infra/testing";

export interface Backend {
  readonly name: string;
  /** Too slow for shapes of the real size: float64 in TypeScript, or matrix tiles in C. */
  readonly slow: boolean;
  open(threads?: number): Device;
}

const cpu = (isa?: string): Backend => ({
  name: isa === undefined ? "cpu" : `cpu/${isa}`,
  slow: isa === "amx-emulated",
  open: (threads = 2) =>
    createDevice({ backend: "cpu", threads, ...(isa !== undefined && { isa }) }),
});

/** The machine's best, tiles and dot products of bf16 emulated, and narrower vectors. */
const isas = [undefined, "amx-emulated", "avx512bf16-emulated", "avx512", "avx2", "scalar"];

/** Every backend that can be had here; the rest print a SKIP line that says why. */
export function backends(test: string, options: { reference?: boolean } = {}): Backend[] {
  const list: Backend[] = [];
  if (options.reference !== false) {
    list.push({
      name: "reference",
      slow: true,
      open: () => createDevice({ backend: "reference" }),
    });
  }
  const compiler =
    findCompiler() !== undefined || "no C compiler; install one, e.g. 'apt-get install gcc'";
  if (requirement(`${test} on cpu`, compiler)) return list;
  for (const isa of isas) {
    if (isa?.startsWith("a") === true && process.arch !== "x64") continue;
    try {
      cpu(isa).open(1)[Symbol.dispose]();
      list.push(cpu(isa));
    } catch (error) {
      if (isa === undefined) throw error;
      requirement(
        `${test} on ${isa}`,
        `${(error as Error).message}; run it on such a machine`,
        "optional",
      );
    }
  }
  return list;
}

/** Clamped normal numbers, as the original's tests draw them. */
export function drawn(random: Random, count: number): Float64Array {
  return Float64Array.from({ length: count }, () =>
    Math.max(-1, Math.min(1, random.normal() / 10)),
  );
}

/** A tensor whose every element is NaN, so that what a kernel leaves unwritten shows. */
export function poisoned<D extends DType>(shape: readonly number[], dtype: D): Tensor<D> {
  const count = shape.reduce((a, b) => a * b, 1);
  return Tensor.from(new Float64Array(count).fill(Number.NaN), shape, dtype, "poisoned");
}

export interface PagedShape {
  readonly sq: number;
  readonly hq: number;
  readonly hk?: number;
  readonly d: number;
  readonly dv: number;
  readonly page: number;
  readonly dtype: DType;
  readonly lens: readonly number[];
  /** Multiplies the drawn queries: larger ones make sharper softmaxes. @default 1 */
  readonly sharp?: number;
}

export interface PagedProblem extends PagedShape {
  readonly q: Tensor;
  readonly kCache: Tensor;
  readonly blockTable: Tensor;
  readonly cacheSeqlens: Tensor;
  /** Row of request r, query i, head h in float64. */
  row(r: number, i: number, h: number, causal: boolean): { out: Float64Array; lse: number };
}

export function pagedProblem(random: Random, shape: PagedShape): PagedProblem {
  const { sq, hq, hk = 1, d, page, dtype, lens } = shape;
  const b = lens.length;
  const columns = Math.max(1, ...lens.map((n) => Math.ceil(n / page))) + 1;
  const numBlocks = lens.reduce((sum, n) => sum + Math.ceil(n / page), 0) + 3;
  const order = Array.from({ length: numBlocks }, (_, i) => i);
  for (let i = numBlocks - 1; i > 0; i--) {
    const j = random.int(0, i + 1);
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  const table = new Int32Array(b * columns).fill(2147480000);
  const cache = new Float64Array(numBlocks * page * hk * d).fill(Number.NaN);
  let block = 0;
  for (let r = 0; r < b; r++) {
    for (let j = 0; j < (lens[r] as number); j++) {
      const column = r * columns + Math.floor(j / page);
      if (j % page === 0) table[column] = order[block++] as number;
      cache.set(drawn(random, hk * d), ((table[column] as number) * page + (j % page)) * hk * d);
    }
  }
  const q = Tensor.from(
    drawn(random, b * sq * hq * d).map((x) => x * (shape.sharp ?? 1)),
    [b, sq, hq, d],
    dtype,
    "q",
  );
  const kCache = Tensor.from(cache, [numBlocks, page, hk, d], dtype, "kCache");
  const blockTable = Tensor.from(table, [b, columns], "i32", "blockTable");
  const queries = q.toFloat64();
  const keys = kCache.toFloat64();
  const key = (r: number, j: number, head: number): Float64Array => {
    const at = (table[r * columns + Math.floor(j / page)] as number) * page + (j % page);
    return keys.subarray((at * hk + head) * d, (at * hk + head + 1) * d);
  };
  return {
    ...shape,
    q,
    kCache,
    blockTable,
    cacheSeqlens: Tensor.from(lens, [b], "i32", "cacheSeqlens"),
    row: (r, i, h, causal) => {
      const n = lens[r] as number;
      const head = Math.floor(h / (hq / hk));
      const at = (r * sq + i) * hq + h;
      const visible = causal ? Math.max(0, n - sq + i + 1) : n;
      return softmaxRow(queries.subarray(at * d, (at + 1) * d), visible, d ** -0.5, shape.dv, (j) =>
        key(r, j, head),
      );
    },
  };
}

/** Plain two-pass softmax attention of one query. */
export function softmaxRow(
  q: Float64Array,
  visible: number,
  scale: number,
  dv: number,
  key: (j: number) => Float64Array,
  value: (j: number) => Float64Array = key,
): { out: Float64Array; lse: number } {
  const out = new Float64Array(dv);
  if (visible === 0) return { out, lse: Number.POSITIVE_INFINITY };
  const scores = Array.from({ length: visible }, (_, j) => {
    const k = key(j);
    let dot = 0;
    for (let c = 0; c < q.length; c++) dot += (q[c] as number) * (k[c] as number);
    return dot * scale;
  });
  const top = Math.max(...scores);
  const weights = scores.map((s) => Math.exp(s - top));
  const sum = weights.reduce((a, b) => a + b, 0);
  weights.forEach((p, j) => {
    const v = value(j);
    for (let c = 0; c < dv; c++) out[c] = (out[c] as number) + (p / sum) * (v[c] as number);
  });
  return { out, lse: top + Math.log(sum) };
}

/**
 * The original's `check_is_allclose`: same infinities, every element within abs or rel, and the
 * whole within cos. Returns what is wrong, or an empty string.
 */
export function notClose(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  abs: number,
  rel: number,
  cos: number,
): string {
  const finiteGot: number[] = [];
  const finiteWant: number[] = [];
  for (let i = 0; i < want.length; i++) {
    const g = got[i] as number;
    const w = want[i] as number;
    if (!Number.isFinite(w) || !Number.isFinite(g)) {
      if (!Object.is(g, w)) return `element ${i}: ${g} instead of ${w}`;
      continue;
    }
    const error = Math.abs(g - w);
    if (!(error < abs || error / (Math.abs(w) + 1e-6) < rel)) return `element ${i}: ${g}, not ${w}`;
    finiteGot.push(g);
    finiteWant.push(w);
  }
  const energy = finiteWant.reduce((sum, w) => sum + w * w, 0);
  const diff = energy < 1e-12 ? 0 : Math.abs(calcDiff(finiteGot, finiteWant));
  return diff <= cos ? "" : `cosine difference ${diff}`;
}

/** The bytes of a tensor, for bitwise comparison. */
export function bits(tensor: Tensor): string {
  return Buffer.from(tensor.contiguous().bytes()).toString("base64");
}
