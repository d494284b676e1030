// The one product that every public function of this package is lowered to, its shape rules, and
// which rows of A meet which matrix of B. The reference and the kernels know this form only.

import {
  type Dims,
  DTypeError,
  expectContiguous,
  expectRows,
  expectTensor,
  InfraError,
  ShapeError,
  type Tensor,
} from "@open-infra/tensor";
import { dataOf, expectOperand, isScaled, type Operand, scaleBlocks } from "./operand.ts";

/**
 * How rows find their B:
 * - `dense`: a [M,K], b [N,K], d [M,N].
 * - `batched`: a [M,H,K], b [H,N,K], d [M,H,N]; head h uses b[h].
 * - `offsets`: a [M,K], b [G,N,K], d [M,N]; rows index[g] … index[g+1] use b[g], others are left.
 * - `row-ids`: as before, but row m uses b[index[m]]; rows with −1 become zero.
 * - `masked`: a [G,M,K], b [G,N,K], d [G,M,N]; the first index[g] rows of slab g use b[g].
 */
export type CallKind = "dense" | "batched" | "offsets" | "row-ids" | "masked";

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
}

/** A number, or the content of an index tensor, is outside what the operation takes. */
export class ArgumentError extends InfraError {
  readonly argument: string;

  constructor(operation: string, argument: string, got: string, allowed: string) {
    super("argument", `${operation}: ${argument} is ${got}; expected ${allowed}`);
    this.argument = argument;
  }
}

const patterns: Readonly<Record<CallKind, Readonly<Record<"a" | "b" | "d", readonly string[]>>>> = {
  dense: { a: ["M", "K"], b: ["N", "K"], d: ["M", "N"] },
  batched: { a: ["M", "H", "K"], b: ["H", "N", "K"], d: ["M", "H", "N"] },
  offsets: { a: ["M", "K"], b: ["G", "N", "K"], d: ["M", "N"] },
  "row-ids": { a: ["M", "K"], b: ["G", "N", "K"], d: ["M", "N"] },
  masked: { a: ["G", "M", "K"], b: ["G", "N", "K"], d: ["G", "M", "N"] },
};

const outputs = ["f32", "bf16", "f16"] as const;

/** The name that index tensors have in the public function of a kind. */
export const indexNames = {
  offsets: "offsets",
  "row-ids": "groupedLayout",
  masked: "maskedM",
} as const;

/** Checks a call completely: types, shapes, strides, aliasing, and the content of `index`. */
export function checkCall(call: GemmCall): void {
  const { operation, kind, a, b, d, c } = call;
  const pattern = patterns[kind];
  const dims: Dims = {};
  expectOperand(operation, "a", a);
  expectOperand(operation, "b", b);
  const aData = dataOf(a);
  const bData = dataOf(b);
  expectTensor(operation, dataName("a", a), aData, [aData.dtype], pattern.a, dims);
  expectTensor(operation, dataName("b", b), bData, [bData.dtype], pattern.b, dims);
  expectTensor(operation, "d", d, outputs, pattern.d, dims);
  expectRows(operation, "d", d);
  if (isScaled(a)) expectScales(operation, "a.scales", a.scales, aData.shape.slice(0, -1), aData);
  if (isScaled(b)) {
    const rows = [...bData.shape.slice(0, -2), scaleBlocks(bData.dim(-2))];
    expectScales(operation, "b.scales", b.scales, rows, bData);
  }
  if (c !== null) {
    if (c.dtype !== d.dtype) throw new DTypeError(operation, "c", c.dtype, `${d.dtype}, as d`);
    expectTensor(operation, "c", c, [d.dtype], pattern.d, dims);
    expectRows(operation, "c", c);
    expectSameOrApart(operation, c, d);
  }
  checkIndex(call, dims);
}

function dataName(argument: string, operand: Operand): string {
  return isScaled(operand) ? `${argument}.data` : argument;
}

function expectScales(
  operation: string,
  argument: string,
  scales: Tensor,
  rows: readonly number[],
  data: Tensor,
): void {
  expectTensor(operation, argument, scales, ["f32"], [...rows, scaleBlocks(data.dim(-1))], {});
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

function checkIndex({ operation, kind, index }: GemmCall, dims: Dims): void {
  if (kind === "dense" || kind === "batched") return;
  const name = indexNames[kind];
  const g = dims.G as number;
  const m = dims.M as number;
  if (index === null) throw new ArgumentError(operation, name, "missing", "an i32 tensor");
  const size = kind === "offsets" ? g + 1 : kind === "masked" ? g : m;
  expectTensor(operation, name, index, ["i32"], [size], {});
  expectContiguous(operation, name, index);
  const values = index.raw() as Int32Array;
  let previous = 0;
  for (let i = 0; i < size; i++) {
    const value = values[i] as number;
    if (kind === "offsets") {
      if (value < previous || value > m) {
        const allowed = `rows in ascending order, ${previous} to M=${m}`;
        throw new ArgumentError(operation, `${name}[${i}]`, `${value}`, allowed);
      }
      previous = value;
    } else if (kind === "masked") {
      if (value < 0 || value > m)
        throw new ArgumentError(operation, `${name}[${i}]`, `${value}`, `0 to M=${m}`);
    } else if (value < -1 || value >= g) {
      throw new ArgumentError(operation, `${name}[${i}]`, `${value}`, `-1 or 0 to ${g - 1}`);
    }
  }
}

/** A run of rows that share one matrix of B. */
export interface Segment {
  /** Matrix of B; −1 for rows that become zero. */
  readonly group: number;
  /** Matrix of A and D, 0 where they are two-dimensional. */
  readonly slab: number;
  readonly row: number;
  readonly rows: number;
}

/** The segments of a checked call in order, empty ones left out. */
export function segmentsOf(call: GemmCall): Segment[] {
  const { kind, index } = call;
  const a = dataOf(call.a);
  if (kind === "dense") return [{ group: 0, slab: 0, row: 0, rows: a.dim(0) }];
  const groups = dataOf(call.b).dim(0);
  const out: Segment[] = [];
  if (kind === "batched") {
    for (let h = 0; h < groups; h++) out.push({ group: h, slab: h, row: 0, rows: a.dim(0) });
    return out;
  }
  const values = (index as Tensor).raw() as Int32Array;
  if (kind === "row-ids") {
    for (let from = 0, end = 0; from < values.length; from = end) {
      while (end < values.length && values[end] === values[from]) end++;
      out.push({ group: values[from] as number, slab: 0, row: from, rows: end - from });
    }
    return out;
  }
  for (let g = 0; g < groups; g++) {
    const first = kind === "offsets" ? (values[g] as number) : 0;
    const rows = (kind === "offsets" ? (values[g + 1] as number) : (values[g] as number)) - first;
    if (rows > 0) out.push({ group: g, slab: kind === "masked" ? g : 0, row: first, rows });
  }
  return out;
}

/** Rows of all segments, rows of the largest, and how many there are: `segmentsOf` without a list. */
export function countSegments(call: GemmCall): {
  readonly rows: number;
  readonly largest: number;
  readonly segments: number;
} {
  const { kind, index } = call;
  const m = dataOf(call.a).dim(slabAndRowDims(kind).row);
  if (kind === "dense") return { rows: m, largest: m, segments: 1 };
  const groups = dataOf(call.b).dim(0);
  if (kind === "batched") return { rows: m * groups, largest: m, segments: groups };
  const values = (index as Tensor).raw() as Int32Array;
  let rows = 0;
  let largest = 0;
  let segments = 0;
  const count = (n: number): void => {
    if (n === 0) return;
    rows += n;
    segments++;
    if (n > largest) largest = n;
  };
  if (kind === "row-ids") {
    for (let from = 0, end = 0; from < m; from = end) {
      while (end < m && values[end] === values[from]) end++;
      count(end - from);
    }
  } else {
    for (let g = 0; g < groups; g++) {
      const first = kind === "offsets" ? (values[g] as number) : 0;
      count((kind === "offsets" ? (values[g + 1] as number) : (values[g] as number)) - first);
    }
  }
  return { rows, largest, segments };
}

/** The dimension that counts matrices in A, C and D, and the one that counts rows. */
export function slabAndRowDims(kind: CallKind): { slab: number | null; row: number } {
  if (kind === "batched") return { slab: 1, row: 0 };
  if (kind === "masked") return { slab: 0, row: 1 };
  return { slab: null, row: 0 };
}

/** Slab `i` of an operand or result as a matrix. */
export function slabOf(tensor: Tensor, kind: CallKind, i: number): Tensor {
  const { slab } = slabAndRowDims(kind);
  return slab === null ? tensor : tensor.select(slab, i);
}

/** Matrix `g` of B or of its scales. */
export function groupOf(tensor: Tensor, kind: CallKind, g: number): Tensor {
  return kind === "dense" ? tensor : tensor.select(0, g);
}
