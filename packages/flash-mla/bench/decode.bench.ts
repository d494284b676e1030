// Attention against this machine's own limits, measured just before: decode over a paged latent
// cache from bandwidth-bound (few heads) to compute-bound (many), chunked prefill, and packed
// sequences. Alone: node --conditions=@open-infra/source packages/flash-mla/bench/decode.bench.ts
// [--quick]

import { pathToFileURL } from "node:url";
import { createDevice, type Device, type MachineLimits, measureMachine } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { type BenchRow, formatRows } from "@open-infra/testing";
import { flashAttnVarlenFunc, flashMlaVarlen, getMlaMetadata } from "../src/index.ts";

interface Case {
  readonly name: string;
  readonly shape: string;
  readonly flops: number;
  readonly bytes: number;
  readonly call: () => void;
}

/** bf16 numbers near ±0.1, cheap to make in any amount. */
function filled(shape: readonly number[]): Tensor<"bf16"> {
  const tensor = Tensor.empty(shape, "bf16");
  const raw = tensor.raw();
  for (let i = 0; i < raw.length; i++) raw[i] = 0x3d00 + ((i * 7919) & 0x80ff);
  return tensor;
}

const sums = (lens: readonly number[]): Tensor => {
  const out = [0];
  for (const n of lens) out.push((out.at(-1) as number) + n);
  return Tensor.from(out, [out.length], "i32");
};

/** `requests` sequences with `queries` new tokens at the end of `keys`. */
function mla(device: Device, requests: number, queries: number, keys: number, heads: number): Case {
  const d = 576;
  const dv = 512;
  const columns = Math.ceil(keys / 64);
  const blocks = requests * columns;
  const kCache = filled([blocks, 64, 1, d]);
  const total = requests * queries;
  const options = {
    q: filled([total, heads, d]),
    kCache,
    blockTable: Tensor.from(
      Array.from({ length: blocks }, (_, i) => (i * 7919) % blocks),
      [requests, columns],
      "i32",
    ),
    cuSeqlensQ: sums(new Array<number>(requests).fill(queries)),
    contextLens: Tensor.from(new Array<number>(requests).fill(keys), [requests], "i32"),
    headDimV: dv,
    out: Tensor.empty([total, heads, dv], "bf16"),
    schedMeta: getMlaMetadata(),
  };
  return {
    name:
      `${queries === 1 ? "MLA decode" : "MLA prefill"}, ` +
      `${device.threads} thread${device.threads > 1 ? "s" : ""}`,
    shape: `b ${requests}, s_q ${queries}, s_k ${keys}, h ${heads}, 576/512`,
    flops: 2 * total * heads * (keys - (queries - 1) / 2) * (d + dv),
    bytes: requests * keys * d * 2 + total * heads * (d + dv) * 2,
    call: () => flashMlaVarlen(device, options),
  };
}

function mha(device: Device, tokens: number, heads: number): Case {
  const q = filled([tokens, heads, 192]);
  const k = filled([tokens, heads, 192]);
  const v = filled([tokens, heads, 128]);
  const cu = sums([tokens]);
  const out = Tensor.empty([tokens, heads, 128], "bf16");
  return {
    name: `MHA forward, ${device.threads} thread${device.threads > 1 ? "s" : ""}`,
    shape: `causal ${tokens}, h ${heads}, 192/128`,
    flops: tokens * (tokens + 1) * heads * (192 + 128),
    bytes: tokens * heads * (192 + 192 + 128 + 128) * 2,
    call: () =>
      flashAttnVarlenFunc(device, { q, k, v, cuSeqlensQ: cu, cuSeqlensK: cu, causal: true, out }),
  };
}

/** Best of repeated calls: the machine may be shared, and noise only adds. */
function measure(item: Case, seconds: number): Case & { readonly us: number } {
  item.call();
  let us = Number.POSITIVE_INFINITY;
  const end = performance.now() + seconds * 1e3;
  for (let n = 0; n < 3 || performance.now() < end; n++) {
    const start = performance.now();
    item.call();
    us = Math.min(us, (performance.now() - start) * 1e3);
  }
  return { ...item, us };
}

function row(item: Case & { readonly us: number }, limits: MachineLimits): BenchRow {
  const { us } = item;
  const computeUs = item.flops / (limits.f32Gflops * 1e3);
  const memoryUs = item.bytes / (limits.readGBs * 1e3);
  return {
    case: item.name,
    shape: item.shape,
    us,
    gflops: item.flops / us / 1e3,
    gbs: item.bytes / us / 1e3,
    boundRatio: Math.max(computeUs, memoryUs) / us,
    bound: computeUs > memoryUs ? "compute" : "bandwidth",
  };
}

/** All rows, on one thread and on all. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const quick = options.quick ?? false;
  const scale = quick ? 8 : 1;
  const rows: BenchRow[] = [];
  for (const threads of [1, undefined]) {
    using device = createDevice({ backend: "cpu", ...(threads !== undefined && { threads }) });
    if (threads === undefined && device.threads === 1) break;
    const cases = [
      () => mla(device, 16, 1, 8192 / scale, 1),
      () => mla(device, 16, 1, 8192 / scale, 4),
      () => mla(device, 1, 1, 8192 / scale, 8),
      () => mla(device, 1, 1, 8192 / scale, 16),
      () => mla(device, 16, 1, 1024 / scale, 16),
      () => mla(device, 1, 1, 8192 / scale, 128),
      () => mla(device, 1, 256, 2048 / scale, 16),
      () => mha(device, 1024 / scale, 16),
    ];
    const before = measureMachine(device);
    const measured = cases.map((make) => measure(make(), quick ? 0.05 : 1));
    // The larger of two looks: a limit is what is possible, and other programs only take away.
    const after = measureMachine(device);
    const limits = {
      ...before,
      f32Gflops: Math.max(before.f32Gflops, after.f32Gflops),
      readGBs: Math.max(before.readGBs, after.readGBs),
    };
    rows.push(...measured.map((item) => row(item, limits)));
  }
  return rows;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  console.log(formatRows(await run({ quick: process.argv.includes("--quick") })));
}
