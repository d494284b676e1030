// The oracle: products in float64 over the dequantised operands, rounded once at the end. Not for
// speed, and on purpose without any of the kernels' blocking.

import { encodeInto, type Tensor } from "@open-infra/tensor";
import { type GemmCall, sizesOf, slabAndRowDims } from "./call.ts";
import { applyEpilogue, QUANTISED_COLUMNS } from "./epilogue.ts";
import { fp8ScaleOf } from "./fp8-scale.ts";
import { dataOf, defaultGrains, type Grain, type Operand, scalesOf } from "./operand.ts";
import { kGroupsOf, outputSlab, type Segment, segmentsOf } from "./segments.ts";

/** Writes dense row-major `values` into a matrix whose rows may be apart. */
export function storeMatrix(tensor: Tensor, values: Float64Array): void {
  const columns = tensor.dim(1);
  if (tensor.size === 0) return;
  if (tensor.isContiguous) {
    encodeInto(tensor.dtype, values, tensor.raw());
    return;
  }
  for (let m = 0; m < tensor.dim(0); m++) {
    const row = tensor.select(0, m);
    encodeInto(tensor.dtype, values.subarray(m * columns, (m + 1) * columns), row.raw());
  }
}

/** Values of a matrix with its scales applied. */
function dequantise(data: Tensor, scales: Tensor | null, grain: Grain): Float64Array {
  const values = data.toFloat64();
  if (scales === null) return values;
  const k = data.dim(1);
  const factors = scales.toFloat64();
  const blocks = scales.dim(1);
  for (let i = 0; i < values.length; i++) {
    const block = Math.floor((i % k) / grain.k);
    const row = Math.floor(Math.floor(i / k) / grain.mn);
    values[i] = (values[i] as number) * (factors[row * blocks + block] as number);
  }
  return values;
}

/** A matrix of an operand, dequantised once however many segments use it. */
type Matrices = (index: number) => Float64Array;

function matricesOf(
  operand: Operand,
  grain: Grain,
  pick: (tensor: Tensor, i: number) => Tensor,
): Matrices {
  const seen = new Map<number, Float64Array>();
  const scales = scalesOf(operand);
  return (i) => {
    let values = seen.get(i);
    if (values === undefined) {
      values = dequantise(pick(dataOf(operand), i), scales && pick(scales, i), grain);
      seen.set(i, values);
    }
    return values;
  };
}

/** Matrices of a k-grouped operand: group g's own stretch of K. */
function kGroupMatrices(call: GemmCall, operand: Operand, rows: number, grain: Grain): Matrices {
  const groups = kGroupsOf(call);
  const alignment = call.kind === "k-ends" ? (call.alignment ?? 1) : 1;
  const scales = scalesOf(operand);
  return (g) => {
    const { start, size } = groups[g] as { start: number; size: number };
    const data = call.flat
      ? dataOf(operand)
          .slice(0, start * rows, (start + size) * rows)
          .reshape([rows, size])
      : dataOf(operand).slice(1, start, start + size);
    if (scales === null) return data.toFloat64();
    const before = groups.slice(0, g).reduce((sum, group) => {
      return sum + Math.ceil((Math.ceil(group.size / alignment) * alignment) / grain.k);
    }, 0);
    const own = scales.slice(1, before, before + Math.ceil(size / grain.k));
    return dequantise(data, own, grain);
  };
}

function operandMatrices(call: GemmCall): { a: Matrices; b: Matrices } {
  const { kind } = call;
  const grains = call.grains ?? defaultGrains;
  const { m, n } = sizesOf(call);
  if (kind === "k-sizes" || kind === "k-ends") {
    return {
      a: kGroupMatrices(call, call.a, m, grains.a),
      b: kGroupMatrices(call, call.b, n, grains.b),
    };
  }
  const { slab } = slabAndRowDims(kind);
  const slabOf = (t: Tensor, i: number): Tensor => (slab === null ? t : t.select(slab, i));
  const groupOf = (t: Tensor, g: number): Tensor => (kind === "dense" ? t : t.select(0, g));
  return {
    a: matricesOf(call.a, grains.a, slabOf),
    b: matricesOf(call.b, grains.b, groupOf),
  };
}

/** out[i, j] += Σ x[row + i, l] · y[j, l]. */
function addProduct(
  out: Float64Array,
  x: Float64Array,
  y: Float64Array,
  { row, rows, length: k }: Segment,
): void {
  const n = out.length / rows;
  for (let i = 0; i < rows; i++) {
    const from = (row + i) * k;
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += (x[from + l] as number) * (y[j * k + l] as number);
      out[i * n + j] = (out[i * n + j] as number) + sum;
    }
  }
}

/** The bias of group g as numbers. */
function biasOf({ epilogue }: GemmCall, g: number): Float64Array | null {
  const bias = epilogue?.bias;
  if (bias === undefined) return null;
  return (bias.rank === 2 ? bias.select(0, g) : bias).toFloat64();
}

/** Computes a checked call in float64 and stores it. */
export function gemmReference(call: GemmCall): void {
  const { kind, epilogue } = call;
  const { n } = sizesOf(call);
  const { a, b } = operandMatrices(call);
  const summed = kind === "summed" ? dataOf(call.a).dim(0) : 1;
  for (const segment of segmentsOf(call)) {
    const { group, slab, rows } = segment;
    const sums = new Float64Array(rows * n);
    for (let s = 0; s < summed && group >= 0; s++) {
      const [x, y] = kind === "summed" ? [a(s), b(s)] : [a(slab), b(group)];
      addProduct(sums, x, y, segment);
    }
    if (epilogue === undefined) store(call, segment, sums);
    else if (group >= 0) {
      store(call, segment, applyEpilogue(sums, n, epilogue, biasOf(call, group)));
    } else {
      const columns = epilogue.activation === undefined ? n : n / 2;
      store(call, segment, new Float64Array(rows * columns));
    }
  }
}

/** Adds C and writes a segment's rows of D. */
function store(call: GemmCall, { slab, row, rows }: Segment, values: Float64Array): void {
  const { c, d, dScales, heads, epilogue } = call;
  const rowsOf = (t: Tensor): Tensor => outputSlab(t, call, slab).slice(0, row, row + rows);
  const out = rowsOf(d);
  if (dScales !== undefined) {
    storeQuantised(out, rowsOf(dScales), values, epilogue?.useUe8m0 ?? false);
    return;
  }
  const columns = values.length / Math.max(1, rows);
  if (heads === undefined) {
    storePlain(out, c === null ? null : rowsOf(c), values);
    return;
  }
  const { left, mid, right } = heads;
  for (let head = 0; head * (left + right) < columns; head++) {
    const from = head * (left + right);
    const to = head * (left + mid + right);
    for (const [skip, at, width] of [
      [0, to, left] as const,
      [left, to + left + mid, right] as const,
    ]) {
      const part = new Float64Array(rows * width);
      for (let i = 0; i < rows; i++) {
        const start = i * columns + from + skip;
        part.set(values.subarray(start, start + width), i * width);
      }
      const view = (t: Tensor): Tensor => t.slice(1, at, at + width);
      storePlain(view(out), c === null ? null : view(rowsOf(c)), part);
    }
  }
}

function storePlain(d: Tensor, c: Tensor | null, values: Float64Array): void {
  if (c !== null) {
    const more = c.toFloat64();
    for (let i = 0; i < values.length; i++) {
      values[i] = (values[i] as number) + (more[i] as number);
    }
  }
  if (d.dtype !== "e4m3fn") {
    storeMatrix(d, values);
    return;
  }
  // Codes without scales hold what they can.
  storeMatrix(
    d,
    values.map((x) => (x > 448 ? 448 : x < -448 ? -448 : x)),
  );
}

/** A row's codes and scales as a cast of the row gives them. */
function storeQuantised(d: Tensor, scales: Tensor, values: Float64Array, useUe8m0: boolean): void {
  const columns = d.dim(1);
  const codes = values.map(Math.fround);
  for (let i = 0; i < d.dim(0); i++) {
    for (let from = 0; from < columns; from += QUANTISED_COLUMNS) {
      const end = Math.min(columns, from + QUANTISED_COLUMNS);
      const block = codes.subarray(i * columns + from, i * columns + end);
      const scale = fp8ScaleOf(
        block.reduce((most, x) => Math.max(most, Math.abs(x)), 0),
        useUe8m0,
      );
      const inverse = Math.fround(1 / scale);
      block.forEach((x, j) => {
        block[j] = Math.fround(x * inverse);
      });
      const at = from / QUANTISED_COLUMNS;
      const one = scales.select(0, i).slice(0, at, at + 1);
      encodeInto("f32", [scale], one.raw());
    }
  }
  storeMatrix(d, codes);
}
