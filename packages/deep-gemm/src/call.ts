// The one product that every public function of this package is lowered to, and its rules. Which
// rows of A meet which matrix of B is in segments.ts. The reference and the kernels know this form
// only.

import {
  type Dims,
  DTypeError,
  expectContiguous,
  expectRows,
  expectTensor,
  ShapeError,
  type Tensor,
} from "@open-infra/tensor";
import {
  type Epilogue,
  expectEpilogue,
  expectHeads,
  expectQuantised,
  type HeadSplits,
  outputColumns,
} from "./epilogue.ts";
import { ArgumentError } from "./errors.ts";
import {
  dataName,
  dataOf,
  defaultGrains,
  expectGrain,
  expectMajor,
  expectOperand,
  type Grain,
  type Grains,
  isScaled,
  type Operand,
  type ScaledTensor,
} from "./operand.ts";

export { ArgumentError } from "./errors.ts";

/**
 * How rows find their B:
 * - `dense`: a [M,K], b [N,K], d [M,N].
 * - `batched`: a [M,H,K], b [H,N,K], d [M,H,N]; head h uses b[h].
 * - `offsets`: a [M,K], b [G,N,K], d [M,N]; rows index[g] … index[g+1] use b[g], others are left.
 * - `row-ids`: as before, but row m uses b[index[m]]; rows with −1 become zero.
 * - `ends`: as before, but group g ends before row index[g] and starts at the end of the group
 *   before it, aligned; rows between become zero.
 * - `masked`: a [G,M,K], b [G,N,K], d [G,M,N]; the first index[g] rows of slab g use b[g].
 * - `summed`: a [S,M,K], b [S,N,K], d [M,N], the sum of S products.
 * - `k-sizes`: a [M,K], b [N,K], d [G,M,N]; d[g] is the product over the g-th stretch of K,
 *   index[g] long. Where `flat` is set, a and b have one dimension, a matrix [M,index[g]] or
 *   [N,index[g]] for each group.
 * - `k-ends`: as before, but the g-th stretch ends at index[g] and starts aligned, as in `ends`.
 */
export type CallKind =
  | "dense"
  | "batched"
  | "offsets"
  | "row-ids"
  | "ends"
  | "masked"
  | "summed"
  | "k-sizes"
  | "k-ends";

export interface GemmCall {
  /** Public function, for messages and traces. */
  readonly operation: string;
  readonly kind: CallKind;
  readonly a: Operand;
  readonly b: Operand;
  readonly d: Tensor;
  /** Added to the product; may be `d` itself. */
  readonly c: Tensor | null;
  /** i32, contiguous, in host memory: [G+1], [M] or [G] by kind. */
  readonly index: Tensor | null;
  /** @default recipe (1, 128, 128) */
  readonly grains?: Grains | undefined;
  readonly epilogue?: Epilogue | undefined;
  /** Scales of a requantised `d`: [..., ceil(columns/128)]. */
  readonly dScales?: Tensor | undefined;
  readonly heads?: HeadSplits | undefined;
  /** Where groups of `ends` and `k-ends` may start. @default 1 */
  readonly alignment?: number | undefined;
  /** Whether rows of no group become zero or are left alone. @default true */
  readonly zeroPadding?: boolean | undefined;
  readonly flat?: boolean | undefined;
  /** Whether the caller's operand has its last two dimensions the other way, for messages. */
  readonly turned?: { readonly a?: boolean; readonly b?: boolean } | undefined;
  /** Threads to use at most. @default the device's */
  readonly threads?: number | undefined;
}

type Patterns = Readonly<Record<"a" | "b" | "d", readonly string[]>>;

const grouped: Patterns = { a: ["M", "K"], b: ["G", "N", "K"], d: ["M", "N"] };
const alongK: Patterns = { a: ["M", "K"], b: ["N", "K"], d: ["G", "M", "N"] };

const patterns: Readonly<Record<CallKind, Patterns>> = {
  dense: { a: ["M", "K"], b: ["N", "K"], d: ["M", "N"] },
  batched: { a: ["M", "H", "K"], b: ["H", "N", "K"], d: ["M", "H", "N"] },
  offsets: grouped,
  "row-ids": grouped,
  ends: grouped,
  masked: { a: ["G", "M", "K"], b: ["G", "N", "K"], d: ["G", "M", "N"] },
  summed: { a: ["S", "M", "K"], b: ["S", "N", "K"], d: ["M", "N"] },
  "k-sizes": alongK,
  "k-ends": alongK,
};

const outputs = ["f32", "bf16", "f16", "e4m3fn"] as const;

/** The name that index tensors have in the public function of a kind. */
export const indexNames = {
  offsets: "offsets",
  "row-ids": "groupedLayout",
  ends: "groupedLayout",
  masked: "maskedM",
  "k-sizes": "ks",
  "k-ends": "groupedLayout",
} as const;

/** The dimension that counts matrices in A, C and D, and the one that counts rows of A. */
export function slabAndRowDims(kind: CallKind): { slab: number | null; row: number } {
  if (kind === "batched") return { slab: 1, row: 0 };
  if (kind === "masked" || kind === "summed") return { slab: 0, row: 1 };
  return { slab: null, row: 0 };
}

/** The same of C and D. */
export function outputDims(kind: CallKind): { slab: number | null; row: number } {
  if (kind === "k-sizes" || kind === "k-ends") return { slab: 0, row: 1 };
  return kind === "summed" ? { slab: null, row: 0 } : slabAndRowDims(kind);
}

/** M, N and K of a call; K of all groups together, in flat ones the sum of `index`. */
export function sizesOf(call: GemmCall): { m: number; n: number; k: number } {
  const { d, flat, index } = call;
  if (flat) {
    const k = (index as Tensor<"i32">).raw().reduce((sum, size) => sum + size, 0);
    return { m: d.dim(1), n: d.dim(2), k };
  }
  const b = dataOf(call.b);
  return { m: dataOf(call.a).dim(slabAndRowDims(call.kind).row), n: b.dim(-2), k: b.dim(-1) };
}

/** Checks a call completely: types, shapes, strides, aliasing, and the content of `index`. */
export function checkCall(call: GemmCall): void {
  const { operation, kind, a, b, d, c, flat } = call;
  const grains = call.grains ?? defaultGrains;
  expectOperand(operation, "a", a);
  expectOperand(operation, "b", b);
  if (isScaled(a)) expectGrain(operation, "a", grains.a);
  if (isScaled(b)) expectGrain(operation, "b", grains.b);
  const dims: Dims = {};
  if (flat) checkFlat(call, dims);
  else checkShapes(call, dims);
  expectRows(operation, "d", d);
  checkOptions(call, dims);
  if (c !== null) {
    if (c.dtype !== d.dtype) throw new DTypeError(operation, "c", c.dtype, `${d.dtype}, as d`);
    expectTensor(operation, "c", c, [d.dtype], d.shape, {});
    expectRows(operation, "c", c);
    expectSameOrApart(operation, c, d);
  }
  checkIndex(call, dims);
  const blocks = (grain: number): number | undefined => scalesAlongK(call, grain);
  if (isScaled(a) && !scalesFit(call, a, grains.a)) {
    const { row } = slabAndRowDims(kind);
    const rows = flat ? [dims.M as number] : a.data.shape.slice(0, -1);
    rows[row] = Math.ceil((rows[row] as number) / grains.a.mn);
    expectScales(call, "a", a.scales, rows, blocks(grains.a.k));
  }
  if (isScaled(b) && !scalesFit(call, b, grains.b)) {
    const rows = flat ? [dims.N as number] : b.data.shape.slice(0, -1);
    rows[rows.length - 1] = Math.ceil((rows.at(-1) as number) / grains.b.mn);
    expectScales(call, "b", b.scales, rows, blocks(grains.b.k));
  }
}

/** Checks a shape as the caller wrote it: `turned` operands have come as a transposed view. */
function expectLying(
  operation: string,
  argument: string,
  tensor: Tensor,
  pattern: readonly (string | number)[],
  dims: Dims,
  turned: boolean | undefined,
): void {
  if (!turned || tensor.rank < 2) {
    expectTensor(operation, argument, tensor, [tensor.dtype], pattern, dims);
    return;
  }
  const [x, y] = pattern.slice(-2) as [string | number, string | number];
  const swapped = [...pattern.slice(0, -2), y, x];
  expectTensor(operation, argument, tensor.transpose(-2, -1), [tensor.dtype], swapped, dims);
}

/** Binds M, N, K and the counts of matrices. */
function checkShapes(call: GemmCall, dims: Dims): void {
  const { operation, kind, a, b, d, heads, epilogue, turned } = call;
  const pattern = patterns[kind];
  const [aData, bData] = [dataOf(a), dataOf(b)];
  expectLying(operation, dataName("a", a), aData, pattern.a, dims, turned?.a);
  expectLying(operation, dataName("b", b), bData, pattern.b, dims, turned?.b);
  const n = dims.N as number;
  if (heads !== undefined) expectHeads(operation, heads, n);
  // The name in messages is the product's where D has its columns.
  const columns = outputColumns(n, epilogue, heads);
  const out = columns === n ? pattern.d : [...pattern.d.slice(0, -1), columns];
  expectTensor(operation, "d", d, outputs, out, dims);
  expectMajor(operation, "a", a, slabAndRowDims(kind).row);
  expectMajor(operation, "b", b, bData.rank - 2);
}

/** Flat operands: their sizes follow from D and `index`. */
function checkFlat(call: GemmCall, dims: Dims): void {
  const { operation, kind, a, b, d, index } = call;
  expectTensor(operation, "d", d, outputs, ["G", "M", "N"], dims);
  expectIndex(operation, kind, index, [dims.G as number]);
  const ks = (index as Tensor).raw() as Int32Array;
  const k = ks.reduce((sum, size) => sum + size, 0);
  checkSizes(call, ks, k);
  dims.K = k;
  for (const [argument, operand, rows] of [
    ["a", a, dims.M as number] as const,
    ["b", b, dims.N as number] as const,
  ]) {
    const data = dataOf(operand);
    const name = dataName(argument, operand);
    expectTensor(operation, name, data, [data.dtype], [rows * k], {});
    expectContiguous(operation, name, data);
  }
}

function checkOptions(call: GemmCall, dims: Dims): void {
  const { operation, kind, d, c, epilogue, dScales, heads, alignment, threads } = call;
  if (epilogue !== undefined) {
    const groups = dims.G ?? dims.H ?? null;
    const n = dims.N as number;
    const alongK = kind === "k-sizes" || kind === "k-ends";
    expectEpilogue(operation, epilogue, { n, groups: alongK ? null : groups, c: c !== null });
  }
  if (dScales !== undefined) {
    expectQuantised(operation, d, dScales);
    if (c !== null) throw new ArgumentError(operation, "c", "given", "none: d is requantised");
    if (heads !== undefined) {
      throw new ArgumentError(operation, "headSplits", "given", "none: d is requantised");
    }
  }
  if (heads !== undefined && epilogue?.activation !== undefined) {
    throw new ArgumentError(operation, "headSplits", "given", "none: d has gated columns");
  }
  expectPositive(operation, "alignment", alignment);
  expectPositive(operation, "threads", threads);
}

function expectPositive(operation: string, name: string, value: number | undefined): void {
  if (value === undefined || (Number.isSafeInteger(value) && value > 0)) return;
  throw new ArgumentError(operation, name, `${value}`, "a positive integer");
}

/** Scales of a row along K; undefined where the last group's may be more than it needs. */
function scalesAlongK(call: GemmCall, grain: number): number | undefined {
  const { kind, index } = call;
  if (kind === "k-ends") return undefined;
  if (kind !== "k-sizes") return Math.ceil(dataOf(call.a).dim(-1) / grain);
  const ks = (index as Tensor).raw() as Int32Array;
  return ks.reduce((sum, k) => sum + Math.ceil(k / grain), 0);
}

/** Whether scales have the plain shape of a matrix's: the usual case, without making a pattern. */
function scalesFit(call: GemmCall, { data, scales }: ScaledTensor, grain: Grain): boolean {
  if (call.kind !== "dense" || data.rank !== 2 || scales.rank !== 2) return false;
  const [rows, k] = data.shape as [number, number];
  const fits = scales.shape[0] === Math.ceil(rows / grain.mn);
  return fits && scales.shape[1] === Math.ceil(k / grain.k);
}

function expectScales(
  { operation, turned }: GemmCall,
  argument: "a" | "b",
  scales: Tensor,
  rows: readonly number[],
  blocks: number | undefined,
): void {
  const pattern = [...rows, blocks ?? "blocks"];
  expectLying(operation, `${argument}.scales`, scales, pattern, {}, turned?.[argument]);
}

/** `c` is either exactly `d` or shares no memory with it. */
function expectSameOrApart(operation: string, c: Tensor, d: Tensor): void {
  if (c.storage !== d.storage || c.size === 0) return;
  const same =
    c.offset === d.offset && c.strides.every((s, i) => s === d.strides[i] || d.shape[i] === 1);
  if (same) return;
  const end = (t: Tensor): number =>
    t.shape.reduce((at, n, i) => at + Math.max(0, (n - 1) * (t.strides[i] as number)), t.offset);
  if (c.offset > end(d) || d.offset > end(c)) return;
  throw new ShapeError(
    operation,
    "c",
    `offset ${c.offset} strides [${c.strides}], overlapping d`,
    `the same view as d (offset ${d.offset} strides [${d.strides}]) or other memory`,
  );
}

function expectIndex(
  operation: string,
  kind: CallKind,
  index: Tensor | null,
  shape: readonly number[],
): void {
  const name = indexNames[kind as keyof typeof indexNames];
  if (index === null) throw new ArgumentError(operation, name, "missing", "an i32 tensor");
  expectTensor(operation, name, index, ["i32"], shape, {});
  expectContiguous(operation, name, index);
}

function checkIndex(call: GemmCall, dims: Dims): void {
  const { operation, kind, index } = call;
  if (kind === "dense" || kind === "batched" || kind === "summed") return;
  const g = dims.G as number;
  const size = kind === "offsets" ? g + 1 : kind === "row-ids" ? (dims.M as number) : g;
  expectIndex(operation, kind, index, [size]);
  const values = (index as Tensor).raw() as Int32Array;
  if (kind === "offsets") checkOffsets(call, values, dims.M as number);
  else if (kind === "ends") checkEnds(call, values, `M=${dims.M}`, dims.M as number);
  else if (kind === "k-ends") checkKEnds(call, values, dims.K as number);
  else if (kind === "k-sizes") checkSizes(call, values, dims.K as number);
  else if (kind === "masked") checkRange(call, values, 0, dims.M as number, `M=${dims.M}`);
  else checkRange(call, values, -1, g - 1, `${g - 1}`);
}

function refuse({ operation, kind }: GemmCall, i: number, got: number, allowed: string): never {
  const name = indexNames[kind as keyof typeof indexNames];
  throw new ArgumentError(operation, `${name}[${i}]`, `${got}`, allowed);
}

function checkRange(
  call: GemmCall,
  values: Int32Array,
  low: number,
  high: number,
  highName: string,
): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (value >= low && value <= high) continue;
    refuse(call, i, value, low < 0 ? `-1 or 0 to ${highName}` : `${low} to ${highName}`);
  }
}

function checkOffsets(call: GemmCall, values: Int32Array, m: number): void {
  let previous = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    const allowed = `rows in ascending order, ${previous} to M=${m}`;
    if (value < previous || value > m) refuse(call, i, value, allowed);
    previous = value;
  }
}

/** Every group ends at or after its own, aligned, start. */
function checkEnds(call: GemmCall, values: Int32Array, limit: string, most: number): void {
  const alignment = call.alignment ?? 1;
  let start = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (value < start || value > most)
      refuse(call, i, value, `the group's end, ${start} to ${limit}`);
    start = Math.ceil(value / alignment) * alignment;
  }
}

function checkKEnds(call: GemmCall, values: Int32Array, k: number): void {
  checkEnds(call, values, `K=${k}`, k);
  const { operation, a, b } = call;
  const { a: grainA, b: grainB } = call.grains ?? defaultGrains;
  for (const [argument, operand, grain] of [["a", a, grainA] as const, ["b", b, grainB] as const]) {
    if (!isScaled(operand)) continue;
    const [least, most] = scalesOfEnds(values, call.alignment ?? 1, grain.k);
    const got = operand.scales.dim(-1);
    if (operand.scales.rank === 2 && (got < least || got > most)) {
      const allowed = least === most ? `${least}` : `${least} to ${most}`;
      const shape = `[${operand.scales.shape}]`;
      throw new ShapeError(operation, `${argument}.scales`, shape, `${allowed} scales along K`);
    }
  }
  checkSameGrainK(call);
}

/** Scales along K: groups as long as their aligned size, the last one's padding optional. */
function scalesOfEnds(ends: Int32Array, alignment: number, grain: number): [number, number] {
  let [start, least, most] = [0, 0, 0];
  for (const end of ends) {
    const size = end - start;
    const aligned = Math.ceil(size / alignment) * alignment;
    least = most + Math.ceil(size / grain);
    most += Math.ceil(aligned / grain);
    start += aligned;
  }
  return [least, most];
}

function checkSizes(call: GemmCall, values: Int32Array, k: number): void {
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (value < 0) refuse(call, i, value, "a size, 0 or more");
    sum += value;
  }
  if (sum !== k) {
    const allowed = `sizes that add up to K=${k}`;
    throw new ArgumentError(call.operation, indexNames["k-sizes"], `${values} (${sum})`, allowed);
  }
  checkSameGrainK(call);
}

/** Groups along K count their scales together. */
function checkSameGrainK({ operation, a, b, grains }: GemmCall): void {
  if (grains === undefined || !isScaled(a) || !isScaled(b) || grains.a.k === grains.b.k) return;
  const got = `${grains.a.k} and ${grains.b.k} along K`;
  throw new ArgumentError(operation, "recipe", got, "the same along K for a and b");
}
