// Every family of products beside the plain `nt` product of as many multiply-adds, turn by turn
// (A B A B): what a layout, a recipe, groups or an epilogue cost. Alone:
// `node --conditions=@open-infra/source packages/deep-gemm/bench/families.bench.ts [--quick]
// [--threads N]`.

import { parseArgs } from "node:util";
import { createDevice, type Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { type BenchRow, formatRows, median } from "@open-infra/testing";
import {
  bf16GemmNn,
  bf16GemmNt,
  bf16GemmTn,
  bf16GemmTt,
  einsum,
  fp8GemmNn,
  fp8GemmNt,
  fp8GemmTn,
  fp8GemmTt,
  kGroupedBf16GemmTnContiguous,
  kGroupedFp8GemmTnContiguous,
  mGroupedBf16GemmNnContiguous,
  mGroupedBf16GemmNtContiguous,
  mGroupedBf16GemmNtMasked,
  mGroupedFp8GemmNtContiguous,
  mGroupedFp8GemmNtMasked,
  type ScaledTensor,
} from "../src/index.ts";

export interface FamiliesBenchOptions {
  readonly quick?: boolean;
  /** @default the machine's available parallelism */
  readonly threads?: number;
}

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

interface Family {
  readonly name: string;
  readonly sizes: Sizes;
  readonly peer: string;
  run(): void;
  beside(): void;
}

function random(shape: readonly number[], dtype: DType): Tensor {
  let state = 1;
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32 - 0.5) * 4;
  };
  const size = shape.reduce((x, y) => x * y, 1);
  return Tensor.from(Float32Array.from({ length: size }, next), shape, dtype);
}

function codes(shape: readonly number[], granM: number): ScaledTensor {
  const [rows, k] = shape.slice(-2) as [number, number];
  const blocks = [...shape.slice(0, -2), Math.ceil(rows / granM), Math.ceil(k / 128)];
  const scales = Tensor.empty(blocks, "f32");
  scales.fill(1);
  return { data: random(shape, "e4m3fn"), scales };
}

const turnedTensor = (t: Tensor): Tensor => t.transpose(-2, -1).clone();
const turned = ({ data, scales }: ScaledTensor): ScaledTensor => ({
  data: turnedTensor(data),
  scales: turnedTensor(scales),
});

/** The three other layouts, 1D1D, FP4, and epilogues. */
function denseFamilies(device: Device, sizes: Sizes): Family[] {
  const { m, n, k } = sizes;
  const [a, b] = [random([m, k], "bf16"), random([n, k], "bf16")];
  const [at, bt] = [turnedTensor(a), turnedTensor(b)];
  const [x, y, rows] = [codes([m, k], 1), codes([n, k], 128), codes([n, k], 1)];
  const [xt, yt, rowsT] = [turned(x), turned(y), turned(rows)];
  const nibble = {
    data: Tensor.empty([n, k], "e2m1").fill(1.5),
    scales: Tensor.empty([n, k / 32], "f32").fill(1),
  };
  const [d, c] = [Tensor.empty([m, n], "bf16"), Tensor.empty([m, n], "f32")];
  const half = Tensor.empty([m, n / 2], "bf16");
  const packed = {
    data: Tensor.empty([m, n / 2], "e4m3fn"),
    scales: Tensor.empty([m, Math.ceil(n / 256)], "f32"),
  };
  const bf16 = (): void => bf16GemmNt(device, { a, b, d });
  const fp8 = (): void => fp8GemmNt(device, { a: x, b: y, d });
  const recipe = [1, 1, 128] as const;
  const gated = { activation: "swiglu" } as const;
  const mixed = { recipeA: [1, 128], recipeB: [1, 32] } as const;
  const family = (name: string, peer: string, run: () => void): Family => ({
    name,
    sizes,
    peer,
    run,
    beside: peer === "bf16 nt" ? bf16 : fp8,
  });
  return [
    family("bf16 nn", "bf16 nt", () => bf16GemmNn(device, { a, b: bt, d })),
    family("bf16 tn", "bf16 nt", () => bf16GemmTn(device, { a: at, b: bt, d })),
    family("bf16 tt", "bf16 nt", () => bf16GemmTt(device, { a: at, b, d })),
    family("fp8 nt", "bf16 nt", fp8),
    family("fp8 nn", "fp8 nt", () => fp8GemmNn(device, { a: x, b: yt, d })),
    family("fp8 tn", "fp8 nt", () => fp8GemmTn(device, { a: xt, b: yt, d })),
    family("fp8 tt", "fp8 nt", () => fp8GemmTt(device, { a: xt, b: y, d })),
    family("fp8 nt, 1D1D", "fp8 nt", () => fp8GemmNt(device, { a: x, b: rows, d, recipe })),
    family("fp8 tn, 1D1D, C of f32", "fp8 nt", () =>
      fp8GemmTn(device, { a: xt, b: rowsT, d: c, c, recipe }),
    ),
    family("fp8 × fp4 nt", "fp8 nt", () => fp8GemmNt(device, { a: x, b: nibble, d, ...mixed })),
    family("bf16 nt, SwiGLU", "bf16 nt", () =>
      bf16GemmNt(device, { a, b, d: half, epilogue: gated }),
    ),
    family("bf16 nt, SwiGLU, requantised", "bf16 nt", () =>
      bf16GemmNt(device, { a, b, d: packed, epilogue: gated }),
    ),
  ];
}

/** Ragged groups of rows and of k, beside one product of all rows. */
function groupedFamilies(device: Device, sizes: Sizes): Family[] {
  const { m, n, k } = sizes;
  const groups = 8;
  const shares = [0.3, 0, 0.15, 0.05, 0.2, 0, 0.1, 0.2];
  let share = 0;
  const ends = shares.map((part) => {
    share += part;
    return Math.round(share * m);
  });
  const ids = Array.from({ length: m }, (_, i) => ends.findIndex((end) => i < end));
  const groupedLayout = Tensor.from(ids, [m], "i32");
  const psum = { groupedLayout: Tensor.from(ends, [groups], "i32"), usePsumLayout: true };
  const counts = Tensor.from(
    ends.map((end, g) => end - (ends[g - 1] ?? 0)),
    [groups],
    "i32",
  );
  const [a, b] = [random([m, k], "bf16"), random([groups, n, k], "bf16")];
  const [x, y] = [codes([m, k], 1), codes([groups, n, k], 128)];
  const bt = turnedTensor(b);
  const slabs = random([groups, m, k], "bf16");
  const slabs8 = codes([groups, m, k], 1);
  const d = Tensor.empty([m, n], "bf16");
  const deep = Tensor.empty([groups, m, n], "bf16");
  const one = b.select(0, 0);
  const one8 = { data: y.data.select(0, 0), scales: y.scales.select(0, 0) };
  const bf16 = (): void => bf16GemmNt(device, { a, b: one, d });
  const fp8 = (): void => fp8GemmNt(device, { a: x, b: one8, d });
  const family = (name: string, peer: string, run: () => void): Family => ({
    name: `${name}, 6 of 8 groups`,
    sizes,
    peer: `${peer}, one group`,
    run,
    beside: peer === "bf16 nt" ? bf16 : fp8,
  });
  return [
    family("bf16 contiguous nt", "bf16 nt", () =>
      mGroupedBf16GemmNtContiguous(device, { a, b, d, groupedLayout }),
    ),
    family("bf16 contiguous nt, psum", "bf16 nt", () =>
      mGroupedBf16GemmNtContiguous(device, { a, b, d, ...psum, alignment: 1 }),
    ),
    family("bf16 contiguous nn", "bf16 nt", () =>
      mGroupedBf16GemmNnContiguous(device, { a, b: bt, d, groupedLayout }),
    ),
    family("bf16 masked", "bf16 nt", () =>
      mGroupedBf16GemmNtMasked(device, { a: slabs, b, d: deep, maskedM: counts }),
    ),
    family("fp8 contiguous nt", "fp8 nt", () =>
      mGroupedFp8GemmNtContiguous(device, { a: x, b: y, d, groupedLayout }),
    ),
    family("fp8 masked", "fp8 nt", () =>
      mGroupedFp8GemmNtMasked(device, { a: slabs8, b: y, d: deep, maskedM: counts }),
    ),
  ];
}

/** Weight gradients of groups, and einsums. */
function otherFamilies(device: Device, { m, n, k }: Sizes): Family[] {
  const ends = [0.3, 0.3, 0.55, 0.6, 1].map((part) => Math.round(part * k));
  const ks = ends.map((end, g) => end - (ends[g - 1] ?? 0));
  const [a, b] = [random([k, m], "bf16"), random([k, n], "bf16")];
  const blocks = ks.reduce((sum, size) => sum + Math.ceil(size / 128), 0);
  const side = (width: number): ScaledTensor => ({
    data: random([k, width], "e4m3fn"),
    scales: Tensor.empty([blocks, width], "f32").fill(1),
  });
  const [x, y] = [side(m), side(n)];
  const dense = codes([m, k], 1);
  const dense8 = codes([n, k], 1);
  const [one, each] = [Tensor.empty([m, n], "f32"), Tensor.empty([ks.length, m, n], "f32")];
  const heads = 8;
  const [p, q] = [random([m, heads, k / heads], "bf16"), random([heads, n, k / heads], "bf16")];
  const byHead = Tensor.empty([m, heads, n], "bf16");
  const [flatP, flatQ] = [random([m * heads, k / heads], "bf16"), q.select(0, 0)];
  const flat = Tensor.empty([m * heads, n], "bf16");
  const [s, t] = [random([heads, m, k / heads], "bf16"), random([heads, n, k / heads], "bf16")];
  const [joinedS, joinedT] = [random([m, k], "bf16"), random([n, k], "bf16")];
  const sizes = { m, n, k };
  return [
    {
      name: "bf16 k-grouped tn, 4 of 5 groups",
      sizes,
      peer: "bf16 tn, one group",
      run: () => kGroupedBf16GemmTnContiguous(device, { a, b, d: each, ks }),
      beside: () => bf16GemmTn(device, { a, b, d: one }),
    },
    {
      name: "fp8 k-grouped tn, C, 4 of 5 groups",
      sizes,
      peer: "fp8 nt, 1D1D, C",
      run: () => kGroupedFp8GemmTnContiguous(device, { a: x, b: y, d: each, c: each, ks }),
      beside: () => fp8GemmNt(device, { a: dense, b: dense8, d: one, c: one, recipe: [1, 1, 128] }),
    },
    {
      name: "einsum bhr,hdr->bhd",
      sizes,
      peer: "bf16 nt, one head",
      run: () => einsum(device, "bhr,hdr->bhd", { a: p, b: q, d: byHead }),
      beside: () => bf16GemmNt(device, { a: flatP, b: flatQ, d: flat }),
    },
    {
      name: "einsum bmk,bnk->mn",
      sizes,
      peer: "bf16 nt, one long k",
      run: () => einsum(device, "bmk,bnk->mn", { a: s, b: t, d: one }),
      beside: () => bf16GemmNt(device, { a: joinedS, b: joinedT, d: one }),
    },
  ];
}

function measure({ name, sizes, peer, run, beside }: Family, quick: boolean): BenchRow {
  const [ours, theirs]: [number[], number[]] = [[], []];
  const time = (call: () => void, into: number[]): void => {
    const start = performance.now();
    call();
    into.push((performance.now() - start) * 1000);
  };
  run();
  beside();
  const end = performance.now() + (quick ? 60 : 400);
  for (let i = 0; i < 5 || (i < 200 && performance.now() < end); i++) {
    time(run, ours);
    time(beside, theirs);
  }
  const us = median(ours);
  const { m, n, k } = sizes;
  return {
    case: name,
    shape: `${m}×${n}×${k}`,
    us,
    gflops: (2 * m * n * k) / us / 1000,
    peer,
    // Of neighbouring calls: what else the machine does moves both.
    peerRatio: median(ours.map((mine, i) => (theirs[i] as number) / mine)),
  };
}

export async function run(options: FamiliesBenchOptions = {}): Promise<readonly BenchRow[]> {
  const { quick = false, threads } = options;
  using device = createDevice({ backend: "cpu", ...(threads === undefined ? {} : { threads }) });
  const sizes = quick ? { m: 128, n: 256, k: 512 } : { m: 512, n: 1024, k: 2048 };
  const families = [
    ...denseFamilies(device, sizes),
    ...groupedFamilies(device, sizes),
    ...otherFamilies(device, sizes),
  ];
  const rows = families.map((family) => measure(family, quick));
  if (quick) return rows;
  const few = denseFamilies(device, { ...sizes, m: 128 }).slice(0, 9);
  return [...rows, ...few.map((family) => measure(family, quick))];
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { quick: { type: "boolean" }, threads: { type: "string" } },
  });
  const rows = await run({
    quick: values.quick ?? false,
    ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
  });
  console.log(formatRows(rows));
}
