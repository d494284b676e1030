// Which rows of a checked call meet which matrix of B, over which stretch of K. segments.h walks
// the same list in the kernel.

import type { Tensor } from "@open-infra/tensor";
import { type GemmCall, outputDims, sizesOf, slabAndRowDims } from "./call.ts";
import { dataOf } from "./operand.ts";

/** A run of rows that share one matrix of B. */
export interface Segment {
  /** Matrix of B; −1 for rows that become zero. */
  readonly group: number;
  /** Matrix of A, C and D, 0 where they are two-dimensional. */
  readonly slab: number;
  readonly row: number;
  readonly rows: number;
  /** First k, and how many; the whole of K but for groups along K. */
  readonly k: number;
  readonly length: number;
}

type Visit = (group: number, slab: number, row: number, rows: number) => void;

/** Calls `visit` for every segment of a call whose groups are of rows, in order, empty ones not. */
function visitRows(call: GemmCall, visit: Visit): void {
  const { kind } = call;
  const m = dataOf(call.a).dim(slabAndRowDims(kind).row);
  if (kind === "dense" || kind === "summed") {
    if (m > 0) visit(0, 0, 0, m);
    return;
  }
  const groups = dataOf(call.b).dim(0);
  if (kind === "batched") {
    for (let h = 0; h < groups && m > 0; h++) visit(h, h, 0, m);
    return;
  }
  const values = (call.index as Tensor).raw() as Int32Array;
  if (kind === "row-ids") visitIds(call, values, visit);
  else if (kind === "ends") visitEnds(call, values, m, visit);
  else {
    for (let g = 0; g < groups; g++) {
      const first = kind === "offsets" ? (values[g] as number) : 0;
      const rows = (kind === "offsets" ? (values[g + 1] as number) : (values[g] as number)) - first;
      if (rows > 0) visit(g, kind === "masked" ? g : 0, first, rows);
    }
  }
}

function visitIds({ zeroPadding }: GemmCall, ids: Int32Array, visit: Visit): void {
  for (let from = 0, end = 0; from < ids.length; from = end) {
    const id = ids[from] as number;
    while (end < ids.length && ids[end] === id) end++;
    if (id >= 0 || zeroPadding !== false) visit(id, 0, from, end - from);
  }
}

function visitEnds(call: GemmCall, ends: Int32Array, m: number, visit: Visit): void {
  const alignment = call.alignment ?? 1;
  const pad = (from: number, to: number): void => {
    if (to > from && call.zeroPadding !== false) visit(-1, 0, from, to - from);
  };
  let start = 0;
  for (let g = 0; g < ends.length; g++) {
    const end = ends[g] as number;
    if (end > start) visit(g, 0, start, end - start);
    start = Math.min(Math.ceil(end / alignment) * alignment, m);
    pad(end, start);
  }
  pad(start, m);
}

/** The stretches of K of a call whose groups lie along K. */
export function kGroupsOf(call: GemmCall): { readonly start: number; readonly size: number }[] {
  const values = (call.index as Tensor).raw() as Int32Array;
  const alignment = call.alignment ?? 1;
  const out: { start: number; size: number }[] = [];
  let start = 0;
  for (const value of values) {
    const size = call.kind === "k-ends" ? value - start : value;
    out.push({ start, size });
    start += call.kind === "k-ends" ? Math.ceil(size / alignment) * alignment : size;
  }
  return out;
}

function isAlongK({ kind }: GemmCall): boolean {
  return kind === "k-sizes" || kind === "k-ends";
}

/** The segments of a checked call in order, empty ones left out. */
export function segmentsOf(call: GemmCall): Segment[] {
  const out: Segment[] = [];
  const { m, k } = sizesOf(call);
  if (isAlongK(call)) {
    if (m === 0) return out;
    kGroupsOf(call).forEach(({ start, size }, g) => {
      out.push({ group: g, slab: g, row: 0, rows: m, k: start, length: size });
    });
    return out;
  }
  visitRows(call, (group, slab, row, rows) => {
    out.push({ group, slab, row, rows, k: 0, length: k });
  });
  return out;
}

/**
 * Rows of all segments, rows of the largest, and how many there are: `segmentsOf` without a list.
 */
export function countSegments(call: GemmCall): {
  readonly rows: number;
  readonly largest: number;
  readonly segments: number;
} {
  if (isAlongK(call)) {
    const { m } = sizesOf(call);
    const groups = m === 0 ? 0 : call.d.dim(0);
    return { rows: m * groups, largest: m, segments: groups };
  }
  let rows = 0;
  let largest = 0;
  let segments = 0;
  visitRows(call, (_group, _slab, _row, n) => {
    rows += n;
    segments++;
    if (n > largest) largest = n;
  });
  return { rows, largest, segments };
}

/** Slab `i` of C, D or its scales as a matrix. */
export function outputSlab(tensor: Tensor, call: GemmCall, i: number): Tensor {
  const { slab } = outputDims(call.kind);
  return slab === null ? tensor : tensor.select(slab, i);
}
