// The oracle: products in float64 over the dequantised operands, rounded once at the end. Not for
// speed, and on purpose without any of the kernels' blocking.

import { encodeInto, type Tensor } from "@open-infra/tensor";
import { type GemmCall, groupOf, segmentsOf, slabOf } from "./call.ts";
import { dataOf, type Operand, SCALE_BLOCK, scalesOf } from "./operand.ts";

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

/** Values of a matrix with its scales applied; `scaleRows` rows share one row of scales. */
function dequantise(data: Tensor, scales: Tensor | null, scaleRows: number): Float64Array {
  const values = data.toFloat64();
  if (scales === null) return values;
  const k = data.dim(1);
  const factors = scales.toFloat64();
  const blocks = scales.dim(1);
  for (let i = 0; i < values.length; i++) {
    const block = Math.floor((i % k) / SCALE_BLOCK);
    const row = Math.floor(Math.floor(i / k) / scaleRows);
    values[i] = (values[i] as number) * (factors[row * blocks + block] as number);
  }
  return values;
}

function matrixOf(
  operand: Operand,
  scaleRows: number,
  pick: (tensor: Tensor) => Tensor,
): Float64Array {
  const scales = scalesOf(operand);
  return dequantise(pick(dataOf(operand)), scales === null ? null : pick(scales), scaleRows);
}

/** Computes a checked call in float64 and stores it. */
export function gemmReference(call: GemmCall): void {
  const { a, b, c, d, kind } = call;
  const k = dataOf(a).dim(-1);
  const n = d.dim(-1);
  for (const { group, slab, row, rows } of segmentsOf(call)) {
    const rowsOf = (t: Tensor): Tensor => slabOf(t, kind, slab).slice(0, row, row + rows);
    const out = c === null ? new Float64Array(rows * n) : rowsOf(c).toFloat64();
    if (group >= 0) {
      const x = matrixOf(a, 1, rowsOf);
      const y = matrixOf(b, SCALE_BLOCK, (t) => groupOf(t, kind, group));
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let l = 0; l < k; l++) sum += (x[i * k + l] as number) * (y[j * k + l] as number);
          out[i * n + j] = (out[i * n + j] as number) + sum;
        }
      }
    }
    storeMatrix(rowsOf(d), out);
  }
}
