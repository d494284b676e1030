// What the tests of products share: devices of every instruction set this machine has, random
// operands, and oracles written without the package's own reference.

import { createDevice, type Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { type Random, requirement } from "@open-infra/testing";
import { dotProductPays } from "../src/dot-product.ts";
import { dataOf, isScaled, type Operand, type ScaledTensor } from "../src/operand.ts";

export interface NamedDevice {
  readonly name: string;
  readonly device: Device;
}

/**
 * Compiled devices, best instruction set first, each with two threads. Matrix tiles and the bf16 dot
 * product of processors that lack them are there as their emulations.
 */
export function cpuDevices(): NamedDevice[] {
  const names =
    process.arch === "x64"
      ? [
          ...["amx", "amx-emulated", "avx512bf16", "avx512bf16-emulated"],
          ...["avx512", "avx2", "scalar"],
        ]
      : ["neon"];
  const devices: NamedDevice[] = [];
  for (const isa of names) {
    // Where the real dot product is slower than float32, only its emulation takes the way through it.
    const real = isa.replace("-emulated", "");
    const there = devices.some(({ name }) => name === `cpu ${real}`);
    if (isa !== real && there && (real === "amx" || dotProductPays(real))) continue;
    try {
      const device = createDevice({ backend: "cpu", isa, threads: 2 });
      devices.push({ name: `cpu ${isa}`, device });
    } catch (error) {
      requirement(`deep-gemm on ${isa}`, `${(error as Error).message}`, "optional");
    }
  }
  return devices;
}

/** Whether a device multiplies bf16 as such, which rounds differently from float32. */
export function hasPairs({ name }: NamedDevice): boolean {
  if (name.endsWith("emulated") || hasTiles({ name })) return true;
  return name.includes("bf16") && dotProductPays("avx512bf16");
}

/** Whether a device multiplies by matrix tiles, codes too. */
export function hasTiles({ name }: Pick<NamedDevice, "name">): boolean {
  return name.startsWith("cpu amx");
}

/** Every backend. */
export function allDevices(): NamedDevice[] {
  const reference = { name: "reference", device: createDevice({ backend: "reference" }) };
  return [reference, ...cpuDevices()];
}

/**
 * Every backend once: without the emulation, and without AVX-512 where its bf16 sibling runs the
 * same instructions but for products of bf16.
 */
export function familyDevices(): NamedDevice[] {
  const all = allDevices().filter(({ name }) => !name.endsWith("emulated"));
  const sibling = all.some(({ name }) => name === "cpu avx512bf16");
  return all.filter(({ name }) => !(sibling && name === "cpu avx512"));
}

export function randomTensor(
  random: Random,
  shape: readonly number[],
  dtype: DType,
  next: () => number = () => random.normal(),
): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return Tensor.from(Float64Array.from({ length: count }, next), shape, dtype);
}

/** What FP4 can hold. */
const e2m1Values = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6];

/** Codes with scales between 0.5 and 1.5; `granM` rows of the last matrix share a scale. */
export function randomScaled(
  random: Random,
  shape: readonly number[],
  granM: number,
  granK = 128,
  dtype: "e4m3fn" | "e2m1" = "e4m3fn",
): ScaledTensor {
  const [rows, k] = shape.slice(-2) as [number, number];
  const blocks = [...shape.slice(0, -2), Math.ceil(rows / granM), Math.ceil(k / granK)];
  const next = dtype === "e2m1" ? () => random.pick(e2m1Values) : () => random.normal() * 8;
  return {
    data: randomTensor(random, shape, dtype, next),
    scales: randomTensor(random, blocks, "f32", () => 0.5 + random.next()),
  };
}

export type OperandKind = "f32" | "bf16" | "f16" | "fp8";

export function randomOperand(
  random: Random,
  kind: OperandKind,
  shape: readonly number[],
  granM: number,
): Operand {
  return kind === "fp8" ? randomScaled(random, shape, granM) : randomTensor(random, shape, kind);
}

/** An output full of NaN, so that an element nobody writes is seen. */
export function poisoned(shape: readonly number[], dtype: DType): Tensor {
  const tensor = Tensor.empty(shape, dtype);
  poison(tensor);
  return tensor;
}

/** Fills every byte of a tensor's storage with NaN patterns. */
export function poison(tensor: Tensor): void {
  (tensor.storage as unknown as { bytes: Uint8Array }).bytes.fill(0xff);
}

/** A view with `gap` elements between rows, its storage filled with NaN patterns, then `source`. */
export function withRowGaps(source: Tensor, gap: number): Tensor {
  const columns = source.dim(-1);
  const wide = Tensor.empty([...source.shape.slice(0, -1), columns + gap], source.dtype);
  poison(wide);
  const view = wide.slice(wide.rank - 1, 0, columns);
  copyInto(source, view);
  return view;
}

function copyInto(from: Tensor, to: Tensor): void {
  if (from.size === 0) return;
  if (from.rank === 1) {
    to.bytes().set(from.contiguous().bytes());
    return;
  }
  for (let i = 0; i < from.dim(0); i++) copyInto(from.select(0, i), to.select(0, i));
}

/** Numbers of a matrix with scales applied; `granK` elements along K share one. */
export function valuesOf(operand: Operand, granM: number, granK = 128): Float64Array {
  const values = dataOf(operand).toFloat64();
  if (!isScaled(operand)) return values;
  const [rows, k] = operand.data.shape.slice(-2) as [number, number];
  const scales = operand.scales.toFloat64();
  const [perMatrix, columns] = [Math.ceil(rows / granM), Math.ceil(k / granK)];
  return values.map((value, i) => {
    const [matrix, row, at] = [Math.floor(i / (rows * k)), Math.floor(i / k) % rows, i % k];
    const block = (matrix * perMatrix + Math.floor(row / granM)) * columns + Math.floor(at / granK);
    return value * (scales[block] as number);
  });
}

/** The last two dimensions swapped, as a dense copy. */
export function turnedCopy(tensor: Tensor): Tensor {
  return tensor.transpose(-2, -1).clone();
}

/** The same of an operand, with poisoned gaps of `gap` elements behind the rows of its data. */
export function turnedOperand<T extends Operand>(operand: T, gap = 0): T {
  if (!isScaled(operand)) return withRowGaps(turnedCopy(operand as Tensor), gap) as Tensor as T;
  const { data, scales } = operand;
  return { data: withRowGaps(turnedCopy(data), gap), scales: turnedCopy(scales) } as T;
}

/** Σ x[m,k] · y[n,k] in float64. */
export function product(
  x: Float64Array,
  y: Float64Array,
  [m, n, k]: readonly [number, number, number],
): Float64Array {
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += (x[i * k + l] as number) * (y[j * k + l] as number);
      out[i * n + j] = sum;
    }
  }
  return out;
}

/** The bytes of rows [from, to) of a matrix, for comparisons to the bit. */
export function rowBytes(tensor: Tensor, from: number, to: number): Uint8Array {
  return tensor.slice(0, from, to).contiguous().bytes().slice();
}

/** Largest difference to calcDiff that one rounding to the output's type explains. */
export function tolerance(dtype: DType): number {
  return dtype === "f32" ? 1e-10 : 5e-6;
}
