// Attention of ordinary heads over packed sequences, forward and backward, against this machine's
// own limits, measured before and after. Flops are those the original counts: two products forward,
// five backward, masked pairs left out. Alone: node --conditions=@open-infra/source
// packages/flash-mla/bench/mha.bench.ts [--quick] [filter]

import { pathToFileURL } from "node:url";
import {
  createDevice,
  type Device,
  largestLimits,
  type MachineLimits,
  measureMachine,
  roofline,
} from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { type BenchRow, formatRows, seededRandom } from "@open-infra/testing";
import { flashAttnVarlenBackward, flashAttnVarlenFunc } from "../src/index.ts";
import { bestUs } from "./measure.ts";

interface Shape {
  readonly lens: readonly number[];
  readonly h: number;
  readonly hkv: number;
  readonly dqk: number;
  readonly causal: boolean;
  readonly dtype: DType;
  readonly probabilities?: "bf16";
}

interface Case {
  readonly name: string;
  readonly shape: string;
  readonly flops: number;
  readonly bytes: number;
  readonly unit: "f32" | "bf16";
  readonly call: () => void;
}

const dv = 128;
const random = seededRandom(1);

/** Normal numbers: what is cheap to multiply must not be what is measured. */
function normal(shape: readonly number[], dtype: DType): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  const block = Float64Array.from({ length: Math.min(count, 4096) }, () => random.normal());
  const values = Float64Array.from(
    { length: count },
    (_, i) => block[(i * 31) % block.length] ?? 0,
  );
  return Tensor.from(values, shape, dtype);
}

/** The forward and the backward case of one shape. */
function casesOf(device: Device, shape: Shape): Case[] {
  const { lens, h, hkv, dqk, causal, dtype, probabilities } = shape;
  const cu = [0];
  for (const n of lens) cu.push((cu.at(-1) ?? 0) + n);
  const tokens = cu.at(-1) ?? 0;
  const cuSeqlens = Tensor.from(cu, [cu.length], "i32");
  const q = normal([tokens, h, dqk], dtype);
  const k = normal([tokens, hkv, dqk], dtype);
  const v = normal([tokens, hkv, dv], dtype);
  const out = Tensor.empty([tokens, h, dv], dtype);
  const lse = Tensor.empty([tokens, h], "f32");
  const inputs = {
    ...{ q, k, v, out, lse, cuSeqlensQ: cuSeqlens, cuSeqlensK: cuSeqlens, causal },
    ...(probabilities !== undefined && { probabilities }),
  };
  const gradients = {
    dOut: normal([tokens, h, dv], dtype),
    dq: Tensor.empty(q.shape, dtype),
    dk: Tensor.empty(k.shape, dtype),
    dv: Tensor.empty(v.shape, dtype),
  };
  const pairs = lens.reduce((sum, n) => sum + (causal ? (n * (n + 1)) / 2 : n * n), 0) * h;
  const bytes = [q, k, v, out].reduce((sum, t) => sum + t.byteLength, 0);
  const described = lens.length === 1 ? `${tokens}` : `${lens.length} of ${lens.join("+")}`;
  const common = {
    shape: `${causal ? "causal " : ""}${described}, h ${h}/${hkv}, ${dqk}/${dv}, ${dtype}`,
    unit: dtype === "bf16" ? ("bf16" as const) : ("f32" as const),
  };
  const rounded = probabilities === undefined ? "" : ", P in bf16";
  return [
    {
      ...common,
      name: `MHA forward${rounded}`,
      flops: 2 * pairs * (dqk + dv),
      bytes,
      call: () => flashAttnVarlenFunc(device, inputs),
    },
    {
      ...common,
      name: `MHA backward${rounded}`,
      flops: 2 * pairs * (3 * dqk + 2 * dv),
      bytes: 2 * bytes,
      call: () => flashAttnVarlenBackward(device, { ...inputs, ...gradients }),
    },
  ];
}

/** Calls of a few milliseconds: on a shared machine longer ones never meet a quiet moment. */
function shapesOf(limits: MachineLimits, scale: number): Shape[] {
  const long = 1024 / scale;
  const causal = { causal: true, dtype: "bf16" as const };
  const mixed = [411, 37, 128, 1, 225].map((n) => Math.ceil(n / scale));
  const list: Shape[] = [
    { lens: [long], h: 4, hkv: 4, dqk: 192, ...causal },
    { lens: [long], h: 4, hkv: 4, dqk: 128, ...causal },
    { lens: [long], h: 2, hkv: 2, dqk: 192, causal: false, dtype: "bf16" },
    { lens: [long], h: 4, hkv: 1, dqk: 128, ...causal },
    { lens: [long / 2], h: 16, hkv: 16, dqk: 192, ...causal },
    { lens: mixed, h: 4, hkv: 4, dqk: 192, ...causal },
    { lens: [long], h: 4, hkv: 4, dqk: 192, causal: true, dtype: "f32" },
  ];
  if (!limits.bf16Instruction && limits.tiles === undefined) return list;
  return [...list, ...list.slice(0, 3).map((s): Shape => ({ ...s, probabilities: "bf16" }))];
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
    const measured: { readonly item: Case; readonly us: number }[] = [];
    for (const shape of shapesOf(before, quick ? 8 : 1)) {
      for (const item of casesOf(device, shape)) {
        if (!`${item.name}, ${item.shape}`.includes(options.filter ?? "")) continue;
        measured.push({ item, us: bestUs(() => item.call(), quick ? 0.05 : 0.5, device.threads) });
      }
    }
    const limits = largestLimits(before, measureMachine(device));
    for (const { item, us } of measured) {
      const tiles = device.description.startsWith("cpu (amx") && item.unit === "bf16";
      const unit = tiles ? "bf16Tiles" : item.unit;
      const { bound, boundRatio, bestRatio } = roofline(limits, item, us, { unit });
      rows.push({
        case: `${item.name}, ${device.threads} thread${device.threads > 1 ? "s" : ""}`,
        shape: item.shape,
        us,
        gflops: item.flops / us / 1e3,
        boundRatio,
        bound,
        ...(bestRatio < boundRatio * 0.99 && { bestRatio }),
      });
    }
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
