// The operation behind every product of this package and its C kernel: constants, parameters and
// scratch. What a call means is in call.ts, how work is cut in heuristics.ts.

import { defineKernel, type Operation, type Target } from "@open-infra/jit";
import { dtypeBits, type Tensor } from "@open-infra/tensor";
import { checkCall, countSegments, type GemmCall, segmentsOf, slabAndRowDims } from "./call.ts";
import {
  MAX_UNIT_COLS,
  MAX_UNIT_ROWS,
  planWork,
  type WorkPlan,
  type WorkShape,
} from "./heuristics.ts";
import { dataOf, scalesOf } from "./operand.ts";
import { gemmReference } from "./reference.ts";

/** The kernel's numbers for types, in `elements.h`. */
const typeCodes: Readonly<Record<string, number>> = { f32: 0, bf16: 1, f16: 2, e4m3fn: 3 };

/** The kernel's numbers for kinds, in `segments.h`. */
const kindCodes = { dense: 0, batched: 0, offsets: 1, "row-ids": 2, masked: 3 } as const;

/** Constants of the microkernels, in `lanes.h` and `panels.h`, for the widest machine. */
const K_BLOCK = 512;
const A_STRIDE = K_BLOCK + 16;
/** Rows of A that are packed for all of K at once, in `gemm.c`. */
const KEPT_ROWS = 24;
/** Rows whose sums wait between the halves of a K block, in `gemm.c`; four vectors each. */
const HALVES_ROWS = 48;
const CHAIN_FLOATS = 64;

function tileColumns(isa: string): number {
  if (isa.startsWith("avx512")) return 16;
  return isa === "avx2" ? 8 : 4;
}

/** Cheap enough to be asked twice a launch (threads, parameters) rather than kept. */
function planOf(call: GemmCall, target: Target): WorkPlan {
  const b = dataOf(call.b);
  const shape: WorkShape = {
    ...countSegments(call),
    n: b.dim(-2),
    k: b.dim(-1),
    scaledB: scalesOf(call.b) !== null,
    bytesB: dtypeBits[b.dtype] / 8,
    tileColumns: tileColumns(target.isa),
  };
  return planWork(shape, target.threads);
}

/** Strides of a matrix of rows, in elements: from slab to slab, from row to row. */
function rowStrides(tensor: Tensor, call: GemmCall): { slab: number; row: number } {
  const { slab, row } = slabAndRowDims(call.kind);
  return { slab: slab === null ? 0 : tensor.stride(slab), row: tensor.stride(row) };
}

function scratchBytes(call: GemmCall): number {
  const k = dataOf(call.b).dim(-1);
  const few = KEPT_ROWS * Math.ceil(k / K_BLOCK);
  const panel = Math.max(MAX_UNIT_ROWS, few) * A_STRIDE;
  const chains = HALVES_ROWS * CHAIN_FLOATS;
  return 4 * (K_BLOCK * 16 + MAX_UNIT_ROWS * MAX_UNIT_COLS + chains + panel);
}

const cpuKernel = defineKernel({
  language: "c",
  source: new URL("../kernels/gemm.c", import.meta.url),
  entry: "gemm",
  params: {
    a: "ptr",
    sa: "ptr",
    b: "ptr",
    sb: "ptr",
    c: "ptr",
    d: "ptr",
    index: "ptr",
    kind: "i64",
    groups: "i64",
    m: "i64",
    n: "i64",
    k: "i64",
    lda: "i64",
    a_group: "i64",
    sa_m: "i64",
    sa_k: "i64",
    sa_group: "i64",
    ldb: "i64",
    b_group: "i64",
    sb_n: "i64",
    sb_k: "i64",
    sb_group: "i64",
    ldc: "i64",
    c_group: "i64",
    ldd: "i64",
    d_group: "i64",
    unit_rows: "i64",
    unit_cols: "i64",
  },
  constants: ({ a, b, d }: GemmCall) => ({
    A_TYPE: typeCodes[dataOf(a).dtype] as number,
    B_TYPE: typeCodes[dataOf(b).dtype] as number,
    D_TYPE: typeCodes[d.dtype] as number,
  }),
  pack(call, target) {
    const { kind, c, d, index } = call;
    const a = dataOf(call.a);
    const b = dataOf(call.b);
    const sa = scalesOf(call.a);
    const sb = scalesOf(call.b);
    const aStrides = rowStrides(a, call);
    const saStrides = sa === null ? { slab: 0, row: 0 } : rowStrides(sa, call);
    const cStrides = c === null ? { slab: 0, row: 0 } : rowStrides(c, call);
    const dStrides = rowStrides(d, call);
    const plan = planOf(call, target);
    return {
      a,
      sa,
      b,
      sb,
      c,
      d,
      index,
      kind: kindCodes[kind],
      groups: kind === "dense" ? 1 : b.dim(0),
      m: a.dim(slabAndRowDims(kind).row),
      n: b.dim(-2),
      k: b.dim(-1),
      lda: aStrides.row,
      a_group: aStrides.slab,
      sa_m: saStrides.row,
      sa_k: sa === null ? 0 : sa.stride(-1),
      sa_group: saStrides.slab,
      ldb: b.stride(-2),
      b_group: kind === "dense" ? 0 : b.stride(0),
      sb_n: sb === null ? 0 : sb.stride(-2),
      sb_k: sb === null ? 0 : sb.stride(-1),
      sb_group: sb === null || kind === "dense" ? 0 : sb.stride(0),
      ldc: cStrides.row,
      c_group: cStrides.slab,
      ldd: dStrides.row,
      d_group: dStrides.slab,
      unit_rows: plan.unitRows,
      unit_cols: plan.unitCols,
    };
  },
  threads: (call, target) => planOf(call, target).threads,
  scratchBytes: (call) => scratchBytes(call),
});

/** Floating-point operations and least memory traffic of a call. */
export function gemmWork(call: GemmCall): { flops: number; bytes: number } {
  const a = dataOf(call.a);
  const b = dataOf(call.b);
  const n = b.dim(-2);
  const k = b.dim(-1);
  let rows = 0;
  let matrices = 0;
  for (const segment of segmentsOf(call)) {
    if (segment.group < 0) continue;
    rows += segment.rows;
    matrices++;
  }
  const outBits = dtypeBits[call.d.dtype] * (call.c === null ? 1 : 2);
  const bits = rows * k * dtypeBits[a.dtype] + matrices * n * k * dtypeBits[b.dtype];
  return { flops: 2 * rows * n * k, bytes: (bits + rows * n * outBits) / 8 };
}

const operations = new Map<string, Operation<GemmCall>>();

/** The operation under a public function's name, so that traces and errors show that name. */
export function gemmOperation(name: string): Operation<GemmCall> {
  let operation = operations.get(name);
  if (operation === undefined) {
    operation = {
      name,
      check: checkCall,
      reference: gemmReference,
      kernels: { cpu: cpuKernel },
      work: gemmWork,
    };
    operations.set(name, operation);
  }
  return operation;
}
