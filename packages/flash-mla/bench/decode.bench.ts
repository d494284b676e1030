// Attention against this machine's own limits, measured just before: decode over a paged latent
// cache from bandwidth-bound (few heads) to compute-bound (many), sparse decode over FP8 caches,
// and chunked prefill. Alone: node --conditions=@open-infra/source
// packages/flash-mla/bench/decode.bench.ts [--quick] [filter]

import { pathToFileURL } from "node:url";
import {
  createDevice,
  type Device,
  largestLimits,
  type MachineLimits,
  measureMachine,
  roofline,
} from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import { type BenchRow, formatRows } from "@open-infra/testing";
import {
  emptyKCache,
  type Fp8KvLayoutName,
  flashMlaVarlen,
  flashMlaWithKvcache,
  fp8KvLayouts,
  getMlaMetadata,
} from "../src/index.ts";
import { bestUs } from "./measure.ts";

interface Case {
  readonly name: string;
  readonly shape: string;
  readonly heads: number;
  readonly flops: number;
  readonly bytes: number;
  readonly call: () => void;
}

/** bf16 numbers near ±0.1, cheap to make in any amount; in huge pages, as a server's cache is. */
function filled(device: Device, shape: readonly number[]): Tensor<"bf16"> {
  const tensor = Tensor.empty(shape, "bf16");
  device.adviseHuge?.(tensor);
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
  const kCache = filled(device, [blocks, 64, 1, d]);
  const total = requests * queries;
  const options = {
    q: filled(device, [total, heads, d]),
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
    name: queries <= 4 ? "MLA decode" : "MLA prefill",
    heads,
    shape: `b ${requests}, s_q ${queries}, s_k ${keys}, h ${heads}, 576/512`,
    flops: 2 * total * heads * (keys - (queries - 1) / 2) * (d + dv),
    bytes: requests * keys * d * 2 + total * heads * (d + dv) * 2,
    call: () => flashMlaVarlen(device, options),
  };
}

/** An FP8 cache of ordinary numbers: scales 2^-4, codes of all magnitudes. */
function fp8Cache(
  device: Device,
  layout: Fp8KvLayoutName,
  numBlocks: number,
  page: number,
): Tensor<"u8"> {
  const cache = emptyKCache(layout, numBlocks, page);
  device.adviseHuge?.(cache);
  const bytes = cache.storage as unknown as { bytes: Uint8Array };
  for (let i = 0; i < bytes.bytes.length; i++) bytes.bytes[i] = 0x20 + ((i * 7919) & 0x8f);
  for (let block = 0; block < numBlocks; block++) {
    const start = block * cache.stride(0);
    for (let t = 0; t < page; t++) {
      if (layout === "v32") {
        for (let s = 0; s < 4; s++) {
          bytes.bytes.set([0, 0, 0x80, 0x3d], start + t * 656 + 512 + s * 4);
        }
      } else bytes.bytes.fill(123, start + page * 576 + t * 8, start + page * 576 + t * 8 + 8);
    }
  }
  return cache;
}

/** Every query lists `topk` keys of a large FP8 cache, scattered, none of them twice. */
function sparse(
  device: Device,
  layout: Fp8KvLayoutName,
  requests: number,
  heads: number,
  topk: number,
  keys: number,
): Case {
  const { headDim: d, bytesPerToken } = fp8KvLayouts[layout];
  const queries = requests;
  const kCache = fp8Cache(device, layout, Math.ceil(keys / 64), 64);
  const indices = Int32Array.from({ length: queries * topk }, (_, i) => (i * 7919) % keys);
  const options = {
    q: filled(device, [requests, 1, heads, d]),
    kCache,
    indices: Tensor.from(indices, [requests, 1, topk], "i32"),
    headDimV: 512,
    out: Tensor.empty([requests, 1, heads, 512], "bf16"),
    lse: Tensor.empty([requests, heads, 1], "f32"),
    schedMeta: getMlaMetadata(),
  };
  const listed = queries * topk;
  return {
    name: `sparse decode, FP8 ${layout}`,
    heads,
    shape: `b ${requests}, topk ${topk} of ${keys}, h ${heads}, ${d}/512`,
    flops: 2 * listed * heads * (d + 512),
    bytes: listed * (bytesPerToken + 4) + queries * heads * (d + 512) * 2,
    call: () => {
      flashMlaWithKvcache(device, options);
    },
  };
}

function row(
  item: Case & { readonly us: number },
  limits: MachineLimits,
  device: Device,
): BenchRow {
  const { us } = item;
  const { threads } = device;
  // Tiles multiply where there are any and five heads or more share a key.
  const tiles = device.description.startsWith("cpu (amx") && item.heads > 4;
  const unit = tiles ? "bf16Tiles" : "bf16";
  const { bound, boundRatio, bestRatio } = roofline(limits, item, us, { unit, threads });
  return {
    case: `${item.name}, ${threads} thread${threads > 1 ? "s" : ""}`,
    shape: item.shape,
    us,
    gflops: item.flops / us / 1e3,
    gbs: item.bytes / us / 1e3,
    boundRatio,
    bound,
    ...(bestRatio < boundRatio * 0.99 && { bestRatio }),
  };
}

function casesOf(device: Device, scale: number): (() => Case)[] {
  const v32 = (heads: number, b = 16) => sparse(device, "v32", b, heads, 2048, 524288 / scale);
  return [
    () => mla(device, 16, 1, 8192 / scale, 1),
    () => mla(device, 16, 2, 8192 / scale, 1),
    () => mla(device, 16, 1, 8192 / scale, 4),
    () => mla(device, 1, 1, 8192 / scale, 8),
    () => mla(device, 1, 1, 8192 / scale, 16),
    () => mla(device, 16, 1, 1024 / scale, 16),
    () => mla(device, 1, 1, 8192 / scale, 64),
    () => mla(device, 1, 1, 8192 / scale, 128),
    () => mla(device, 1, 256, 2048 / scale, 16),
    () => v32(1),
    () => v32(2),
    () => v32(4),
    () => sparse(device, "model1", 16, 1, 1024, 524288 / scale),
    () => v32(16, 4),
    () => v32(128, 1),
  ];
}

/** All rows, on one thread and on all. */
export async function run(
  options: { readonly quick?: boolean; readonly filter?: string } = {},
): Promise<BenchRow[]> {
  const quick = options.quick ?? false;
  const rows: BenchRow[] = [];
  for (const threads of [1, undefined]) {
    using device = createDevice({ backend: "cpu", ...(threads !== undefined && { threads }) });
    if (threads === undefined && device.threads === 1) break;
    const before = measureMachine(device);
    const measured: (Case & { readonly us: number })[] = [];
    for (const make of casesOf(device, quick ? 8 : 1)) {
      const item = make();
      if (!`${item.name}, ${item.shape}`.includes(options.filter ?? "")) continue;
      measured.push({ ...item, us: bestUs(() => item.call(), quick ? 0.05 : 0.7, device.threads) });
    }
    const limits = largestLimits(before, measureMachine(device));
    rows.push(...measured.map((item) => row(item, limits, device)));
  }
  return rows;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const filter = process.argv.slice(2).find((argument) => !argument.startsWith("--"));
  const options = {
    quick: process.argv.includes("--quick"),
    ...(filter !== undefined && { filter }),
  };
  console.log(formatRows(await run(options)));
}
