// Products beside the libraries others would use, on the original's table of (N, K): the same
// matrices, bursts of calls in turn (A B A B), medians, weights from memory, one thread and all.
// Peers run in processes of their own (bench/peers/README.md says how to install them); one that is
// missing is named in its row. Alone: `node --conditions=@open-infra/source
// packages/deep-gemm/bench/peers.bench.ts [--quick] [--full]`.

import { parseArgs } from "node:util";
import {
  computePeak,
  createDevice,
  type Device,
  largestLimits,
  type MachineLimits,
  measureMachine,
  roofline,
} from "@open-infra/jit";
import { type DType, type HostStorage, Tensor } from "@open-infra/tensor";
import { type BenchRow, calcDiff, formatRows, median } from "@open-infra/testing";
import { gemmNt, type Operand, scaleBlocks } from "../src/index.ts";
import { adapters } from "./peers/adapters.ts";
import { checkedValues, fillPattern, type PeerDType, type Problem } from "./peers/problem.ts";
import { PeerProcess } from "./peers/process.ts";

export interface PeersBenchOptions {
  /** Two sizes and short bursts. */
  readonly quick?: boolean;
  /** Every M of the table for every (N, K); some ten minutes. */
  readonly full?: boolean;
}

/** The (N, K) of the original's benchmark. */
const weightShapes: readonly (readonly [n: number, k: number])[] = [
  [4096, 7168],
  [2112, 7168],
  [576, 7168],
  [24576, 1536],
  [32768, 512],
  [7168, 16384],
  [7168, 2048],
];

const rowCounts = [1, 4, 8, 16, 64, 128, 512, 4096] as const;

/** Length of the largest problems at the machine's peak; 4096 rows are cut to it. */
const LARGEST_MS = 250;

/** The pause before a burst, for the threads of whoever ran before to stop spinning. */
const PAUSE_MS = 40;

type Kind = "bf16" | "fp8" | "f32";

interface Pools {
  readonly bytes: number;
  /** Weights of bf16, whose bytes also serve as e4m3, and of f32. */
  of(dtype: PeerDType): Tensor;
}

function openPools(bytes: number): Pools {
  const made = new Map<PeerDType, Tensor>();
  const of = (dtype: PeerDType): Tensor => {
    let pool = made.get(dtype);
    if (pool === undefined) {
      pool = Tensor.empty([Math.floor(bytes / (dtype === "bf16" ? 2 : 4))], dtype, "weights");
      fillPattern(pool.raw() as Uint16Array | Float32Array, 2);
      made.set(dtype, pool);
    }
    return pool;
  };
  return { bytes, of };
}

/** Ours or a peer's. */
interface Contender {
  burst(milliseconds: number): Promise<readonly number[]>;
}

interface Ours extends Contender {
  readonly kind: Kind;
  readonly bytes: number;
  readonly d: Tensor;
}

function ones(shape: readonly number[]): Tensor {
  const tensor = Tensor.empty(shape, "f32");
  tensor.raw().fill(1);
  return tensor;
}

function ours(device: Device, pools: Pools, kind: Kind, problem: Problem): Ours {
  const { m, n, k, dtype } = problem;
  const pool = pools.of(dtype);
  const stored: DType = kind === "fp8" ? "e4m3fn" : dtype;
  const size = { bf16: 2, fp8: 1, f32: 4 }[kind];
  const copies = kind === "fp8" ? problem.copies * 2 : problem.copies;
  const raw = Tensor.empty([m * k * size], "u8");
  const words = raw.bytes();
  fillPattern(
    kind === "f32"
      ? new Float32Array(words.buffer)
      : new Uint16Array(words.buffer, 0, words.length >> 1),
    1,
  );
  const matrix = (storage: HostStorage, index: number, rows: number, granM: number): Operand => {
    const offset = index * rows * k;
    const data = new Tensor({ dtype: stored, shape: [rows, k], offset, storage });
    if (kind !== "fp8") return data;
    return { data, scales: ones([Math.ceil(rows / granM), scaleBlocks(k)]) };
  };
  const a = matrix(raw.storage as HostStorage, 0, m, 1);
  const weights = Array.from({ length: copies }, (_, i) =>
    matrix(pool.storage as HostStorage, i, n, 128),
  );
  const d = Tensor.empty([m, n], kind === "f32" ? "f32" : "bf16");
  let turn = 0;
  const call = (): number => {
    const start = performance.now();
    gemmNt(device, { a, b: weights[turn++ % copies] as Operand, d });
    return (performance.now() - start) * 1000;
  };
  call();
  const burst = async (milliseconds: number): Promise<readonly number[]> => {
    const samples: number[] = [];
    const end = performance.now() + milliseconds;
    while (samples.length === 0 || performance.now() < end) samples.push(call());
    return samples;
  };
  return { kind, burst, d, bytes: (n * k + m * k) * size + d.byteLength };
}

/** Bursts in turn, each after a pause; all samples of each contender. */
async function interleave(
  contenders: readonly Contender[],
  rounds: number,
  milliseconds: number,
): Promise<Map<Contender, number>> {
  const samples = new Map<Contender, number[]>(contenders.map((one) => [one, []]));
  for (let round = 0; round < rounds; round++) {
    for (const one of contenders) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      samples.get(one)?.push(...(await one.burst(milliseconds)));
    }
  }
  return new Map([...samples].map(([one, times]) => [one, median(times)]));
}

interface Rival extends Contender {
  /** The peer, its version, and the way it was fastest. */
  readonly name: string;
}

/** A peer with the problem in place, or the text that its rows carry instead of a ratio. */
async function rivalOf(
  process: PeerProcess,
  problem: Problem,
  expected: readonly number[],
): Promise<Rival | string> {
  const { adapter, label, installed } = process;
  if (!installed) return label;
  const { m, n, k } = problem;
  if (m * n * k > (adapter.maxMultiplyAdds ?? Number.POSITIVE_INFINITY)) return "";
  const values = await process.prepare(problem);
  if (typeof values === "string") return `${label}: ${values}`;
  const difference = calcDiff(values, expected);
  if (!(difference < 1e-5)) {
    throw new Error(`${label} computes something else: [${m},${n},${k}] differs by ${difference}`);
  }
  const { variant } = await process.burst(0);
  return { name: `${label} (${variant})`, burst: async (ms) => (await process.burst(ms)).samples };
}

interface Measured {
  readonly ours: Ours;
  readonly problem: Problem;
  readonly threads: number;
  readonly us: number;
  readonly peer: string;
  readonly peerUs: number | undefined;
}

async function measure(
  device: Device,
  pools: Pools,
  processes: readonly PeerProcess[],
  item: { readonly kinds: readonly Kind[]; readonly problem: Problem },
  quick: boolean,
): Promise<Measured[]> {
  const { kinds, problem } = item;
  const own = kinds.map((kind) => ours(device, pools, kind, problem));
  const first = own[0] as Ours;
  const expected = checkedValues(first.d.raw() as Uint16Array | Float32Array, problem);
  const rivals: (Rival | string)[] = [];
  for (const process of processes) {
    if (!process.adapter.dtypes.includes(problem.dtype)) continue;
    const rival = await rivalOf(process, problem, expected);
    if (rival !== "") rivals.push(rival);
  }
  const present = rivals.filter((rival) => typeof rival !== "string");
  const [rounds, milliseconds] = quick ? [2, 30] : [3, 80];
  const times = await interleave([...own, ...present], rounds, milliseconds);
  return own.flatMap((one) =>
    rivals.map((rival) => ({
      ours: one,
      problem,
      threads: device.threads,
      us: times.get(one) as number,
      peer: typeof rival === "string" ? rival : rival.name,
      peerUs: typeof rival === "string" ? undefined : times.get(rival),
    })),
  );
}

function rowOf(
  { ours, problem, threads, us, peer, peerUs }: Measured,
  limits: MachineLimits,
): BenchRow {
  const { m, n, k } = problem;
  const work = { flops: 2 * m * n * k, bytes: ours.bytes };
  const unit = ours.kind === "f32" ? "f32" : limits.bf16Unit;
  const { bestRatio, ...bound } = roofline(limits, work, us, { unit, threads });
  return {
    case: `${ours.kind}, ${threads} thread${threads > 1 ? "s" : ""}`,
    shape: `${m}×${n}×${k}`,
    us,
    gflops: work.flops / us / 1e3,
    gbs: work.bytes / us / 1e3,
    ...bound,
    ...(limits.tiles !== undefined && unit === "bf16" && { bestRatio }),
    peer,
    ...(peerUs !== undefined && { peerRatio: peerUs / us }),
  };
}

/** What is measured: kinds that share their peers are one item. */
function* items(
  limits: MachineLimits,
  poolBytes: number,
  { quick = false, full = false }: PeersBenchOptions,
): Generator<{ readonly kinds: readonly Kind[]; readonly problem: Problem }> {
  const problem = (dtype: PeerDType, m: number, n: number, k: number): Problem => {
    const bytes = n * k * (dtype === "bf16" ? 2 : 4);
    return { dtype, m, n, k, copies: Math.max(1, Math.floor(poolBytes / bytes)) };
  };
  const fitting = (m: number, n: number, k: number): number => {
    const most = (computePeak(limits, limits.bf16Unit) * LARGEST_MS * 1e6) / (2 * n * k);
    return m <= 512 ? m : Math.min(m, Math.max(512, Math.floor(most / 256) * 256));
  };
  for (const [i, [n, k]] of weightShapes.entries()) {
    if (quick && i > 0) break;
    const counts = quick ? [1, 128] : full || i === 0 ? rowCounts : ([1, 128, 4096] as const);
    const rows = new Set(counts.map((m) => fitting(m, n, k)));
    for (const m of rows) yield { kinds: ["bf16", "fp8"], problem: problem("bf16", m, n, k) };
  }
  const [n, k] = weightShapes[0] as readonly [number, number];
  for (const m of quick ? [128] : [1, 16, 128, 512]) {
    yield { kinds: ["f32"], problem: problem("f32", m, n, k) };
  }
}

async function runThreads(threads: number, options: PeersBenchOptions): Promise<BenchRow[]> {
  using device = createDevice({ backend: "cpu", threads });
  using open = new DisposableStack();
  const before = measureMachine(device);
  const pools = openPools(before.readBytes);
  const processes: PeerProcess[] = [];
  for (const adapter of adapters) {
    processes.push(open.use(await PeerProcess.start(adapter, threads)));
  }
  const measured: Measured[] = [];
  for (const item of items(before, pools.bytes, options)) {
    measured.push(...(await measure(device, pools, processes, item, options.quick ?? false)));
  }
  const limits = largestLimits(before, measureMachine(device));
  return measured.map((one) => rowOf(one, limits));
}

/** All rows: one thread, then all. */
export async function run(options: PeersBenchOptions = {}): Promise<readonly BenchRow[]> {
  const all = createDevice({ backend: "cpu" });
  const { threads } = all;
  all[Symbol.dispose]();
  const rows = await runThreads(1, options);
  if (threads > 1) rows.push(...(await runThreads(threads, options)));
  return rows;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { quick: { type: "boolean" }, full: { type: "boolean" } },
  });
  const { quick = false, full = false } = values;
  console.log(formatRows(await run({ quick, full })));
}
