// The operation behind every product of this package and its C kernel: constants, parameters and
// scratch. What a call means is in call.ts, how work is cut in heuristics.ts.

import { bf16Products, defineKernel, type Operation, type Target } from "@open-infra/jit";
import { dtypeBits, Tensor } from "@open-infra/tensor";
import { checkCall, type GemmCall, outputDims, sizesOf, slabAndRowDims } from "./call.ts";
import { dotProductPays } from "./dot-product.ts";
import { MAX_UNIT_ROWS, planWork, type WorkPlan, type WorkShape } from "./heuristics.ts";
import { dataOf, defaultGrains, isKMajor, isScaled, scalesOf } from "./operand.ts";
import { gemmReference } from "./reference.ts";
import { countSegments, segmentsOf } from "./segments.ts";

/** The kernel's numbers for types, in `elements.h`. */
const typeCodes: Readonly<Record<string, number>> = { f32: 0, bf16: 1, f16: 2, e4m3fn: 3, e2m1: 4 };

/** The kernel's numbers for kinds, in `segments.h`. */
const kindCodes = {
  dense: 0,
  batched: 0,
  summed: 0,
  offsets: 1,
  "row-ids": 2,
  masked: 3,
  ends: 4,
  "k-sizes": 5,
  "k-ends": 6,
} as const;

/** The kernel's numbers for where B's scales go, in `elements.h`. */
const SCALES_NONE = 0;
const SCALES_FOLDED = 1;
const SCALES_ROWS = 2;

/** Constants of the microkernels, in `lanes.h` and `panels.h`, for the widest machine. */
const K_BLOCK = 512;
const A_STRIDE = K_BLOCK + 16;
/** Rows of A, and K blocks, that are packed at once at most, in `gemm.c`. */
const KEPT_ROWS = 24;
const KEPT_BLOCKS = 64;
/** Rows whose sums wait between the halves of a K block, in `gemm.c`; four vectors each. */
const HALVES_ROWS = 48;
const CHAIN_FLOATS = 64;
/** Columns of B that are brought together where they lie across K, in `panels.h`. */
const STAGE_COLS = 64;
/** From one row of sums to the next, in `epilogue.h`. */
const SUM_STRIDE = 288;

function tileColumns(isa: string): number {
  if (isa.startsWith("avx512") || isa === "amx") return 16;
  return isa === "avx2" ? 8 : 4;
}

/** Whether matrix tiles multiply; `elements.h` says the same. They hold what is exact in bf16. */
function isTiled(call: GemmCall, { isa }: Target): boolean {
  const types = [dataOf(call.a).dtype, dataOf(call.b).dtype];
  return bf16Products(isa) === "tiles" && types.every((type) => type !== "f32" && type !== "f16");
}

/** Bytes of a thread beside the right operand's panel in `drive_tiles.h`, for the largest unit. */
const TILED_LEFT_BYTES = 2 * (128 << 10);
const TILED_SUM_FLOATS = 192 * 512 + 2 * 1024 + 16 * 528 + 2 * 2048;

/** Whether B's scales are folded into A's panel or multiplied into B's tiles. */
function scalePlace({ b, grains }: GemmCall): number {
  if (!isScaled(b)) return SCALES_NONE;
  return (grains ?? defaultGrains).b.mn === defaultGrains.b.mn ? SCALES_FOLDED : SCALES_ROWS;
}

/** Matrices whose products are summed. */
function slicesOf(call: GemmCall): number {
  return call.kind === "summed" ? dataOf(call.a).dim(0) : 1;
}

function planOf(call: GemmCall, target: Target): WorkPlan {
  const b = dataOf(call.b);
  const { n, k } = sizesOf(call);
  const groups = call.kind === "k-sizes" || call.kind === "k-ends" ? call.d.dim(0) : 1;
  const gated = call.epilogue?.activation !== undefined;
  const tiled = isTiled(call, target);
  const folded = scalePlace(call) === SCALES_FOLDED && !tiled;
  const shape: WorkShape = {
    ...countSegments(call),
    n: gated ? n / 2 : n,
    k: (k * slicesOf(call) * (gated ? 2 : 1)) / Math.max(1, groups),
    slices: slicesOf(call),
    lengthK: k,
    tiled,
    blockColumns: folded || gated || call.dScales !== undefined,
    wholeBlocks: call.dScales !== undefined,
    bytesB: dtypeBits[b.dtype] / 8,
    tileColumns: tiled ? 32 : tileColumns(target.isa),
  };
  return planWork(shape, Math.min(target.threads, call.threads ?? target.threads));
}

interface Strides {
  readonly slab: number;
  readonly row: number;
}

/** Strides of an operand's rows or a result's, in elements: from slab to slab, from row to row. */
function stridesOf(tensor: Tensor | null, dims: { slab: number | null; row: number }): Strides {
  if (tensor === null) return { slab: 0, row: 0 };
  const { slab, row } = dims;
  return { slab: slab === null ? 0 : tensor.stride(slab), row: tensor.stride(row) };
}

function scratchBytes(call: GemmCall, target: Target, plan: WorkPlan): number {
  if (isTiled(call, target)) {
    // A scale of each of 32 columns for every 32 k at most, of two bytes each.
    const scaleBytes = plan.panelBytes / 16;
    return plan.panelBytes + scaleBytes + TILED_LEFT_BYTES + 4 * TILED_SUM_FLOATS;
  }
  const blocks = slicesOf(call) * Math.ceil(sizesOf(call).k / K_BLOCK);
  const few = KEPT_ROWS * Math.min(KEPT_BLOCKS, blocks);
  const panel = Math.max(MAX_UNIT_ROWS, few) * A_STRIDE;
  const chains = HALVES_ROWS * CHAIN_FLOATS;
  const stage = K_BLOCK * STAGE_COLS; // Four bytes an element at most.
  return 4 * (K_BLOCK * 16 + MAX_UNIT_ROWS * SUM_STRIDE + chains + panel + stage);
}

/** What few calls have, as the doubles that `epilogue.h` names; null for plain calls. */
function extraOf(call: GemmCall): Tensor<"f64"> | null {
  const { epilogue, heads, dScales } = call;
  if (epilogue === undefined && heads === undefined && dScales === undefined) return null;
  const out = outputDims(call.kind);
  const scales = dScales === undefined ? null : dScales;
  const scaleStrides = stridesOf(scales, out);
  const bias = epilogue?.bias;
  const extra = Tensor.empty([11], "f64");
  extra
    .raw()
    .set([
      epilogue?.alpha ?? 1,
      epilogue?.activation === undefined ? 0 : 1,
      epilogue?.activationClamp ?? Number.POSITIVE_INFINITY,
      epilogue?.useUe8m0 ? 1 : 0,
      bias === undefined || bias.rank === 1 ? 0 : bias.stride(0),
      heads?.left ?? 0,
      heads?.mid ?? 0,
      heads?.right ?? 0,
      scaleStrides.row,
      scales === null ? 0 : scales.stride(-1),
      scaleStrides.slab,
    ]);
  return extra;
}

function biasOf({ epilogue }: GemmCall): Tensor | null {
  const bias = epilogue?.bias;
  if (bias === undefined) return null;
  return bias.dtype === "f32" ? bias : bias.to("f32");
}

type GemmConstants = Readonly<Record<string, number>>;

/** Constants that differ in a few bits only, so that a launch finds those it had before. */
const plainConstants = new Map<number, GemmConstants>();

function constants(call: GemmCall, { isa }: Target): GemmConstants {
  const a = dataOf(call.a);
  const b = dataOf(call.b);
  const { flat, epilogue, heads, dScales } = call;
  const aType = typeCodes[a.dtype] as number;
  const bType = typeCodes[b.dtype] as number;
  const dType = typeCodes[call.d.dtype] as number;
  const aMajor = flat || isKMajor(a, slabAndRowDims(call.kind).row) ? 1 : 0;
  const bMajor = flat || isKMajor(b, b.rank - 2) ? 1 : 0;
  const place = scalePlace(call);
  const plain = epilogue === undefined && heads === undefined && dScales === undefined;
  const dot = dotProductPays(isa) ? 1 : 0;
  const grains = call.grains ?? defaultGrains;
  const bits = [aType, bType, dType, place].reduce((all, part) => all * 8 + part, 0);
  const key = bits * 16 + aMajor * 8 + bMajor * 4 + dot * 2 + (plain ? 1 : 0);
  const known = grains === defaultGrains ? plainConstants.get(key) : undefined;
  if (known !== undefined) return known;
  const scaled = isScaled(call.a) || isScaled(call.b);
  const made = {
    A_TYPE: aType,
    B_TYPE: bType,
    D_TYPE: dType,
    A_K_MAJOR: aMajor,
    B_K_MAJOR: bMajor,
    A_GRAIN_M: isScaled(call.a) ? grains.a.mn : 1,
    A_GRAIN_K: scaled ? grains.a.k : defaultGrains.a.k,
    B_GRAIN_N: isScaled(call.b) ? grains.b.mn : 1,
    B_GRAIN_K: isScaled(call.b) ? grains.b.k : defaultGrains.b.k,
    B_SCALES: place,
    DOT_PAYS: dot,
    EPILOGUE: plain ? 0 : 1,
  };
  if (grains === defaultGrains) plainConstants.set(key, made);
  return made;
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
    sd: "ptr",
    bias: "ptr",
    extra: "ptr",
    index: "ptr",
    kind: "i64",
    groups: "i64",
    slices: "i64",
    alignment: "i64",
    zero_padding: "i64",
    flat: "i64",
    m: "i64",
    n: "i64",
    k: "i64",
    a_row: "i64",
    a_k: "i64",
    a_slab: "i64",
    a_slice: "i64",
    sa_row: "i64",
    sa_k: "i64",
    sa_slab: "i64",
    b_row: "i64",
    b_k: "i64",
    b_slab: "i64",
    b_slice: "i64",
    sb_row: "i64",
    sb_k: "i64",
    sb_slab: "i64",
    c_row: "i64",
    c_slab: "i64",
    d_row: "i64",
    d_slab: "i64",
    unit_rows: "i64",
    unit_cols: "i64",
    panel_bytes: "i64",
  },
  constants,
  plan: planOf,
  pack(call, _target, plan) {
    const { kind, c, d, index, flat } = call;
    const a = dataOf(call.a);
    const b = dataOf(call.b);
    const sa = scalesOf(call.a);
    const sb = scalesOf(call.b);
    const rows = slabAndRowDims(kind);
    const out = outputDims(kind);
    const aStrides = flat ? { slab: 0, row: 0 } : stridesOf(a, rows);
    const saStrides = stridesOf(sa, rows);
    const bSlab = b.rank === 3 ? b.stride(0) : 0;
    const summed = kind === "summed";
    const cStrides = stridesOf(c, out);
    const dStrides = stridesOf(d, out);
    const { m, n, k } = sizesOf(call);
    const alongK = kind === "k-sizes" || kind === "k-ends";
    return {
      a,
      sa,
      b,
      sb,
      c,
      d,
      sd: call.dScales ?? null,
      bias: biasOf(call),
      extra: extraOf(call),
      index,
      kind: kindCodes[kind],
      groups: alongK ? d.dim(0) : kind === "dense" || summed ? 1 : b.dim(0),
      slices: slicesOf(call),
      alignment: call.alignment ?? 1,
      zero_padding: call.zeroPadding === false ? 0 : 1,
      flat: flat ? 1 : 0,
      m,
      n,
      k,
      a_row: aStrides.row,
      a_k: a.stride(-1),
      a_slab: summed ? 0 : aStrides.slab,
      a_slice: summed ? aStrides.slab : 0,
      sa_row: saStrides.row,
      sa_k: sa === null ? 0 : sa.stride(-1),
      sa_slab: saStrides.slab,
      b_row: flat ? 0 : b.stride(-2),
      b_k: b.stride(-1),
      b_slab: summed ? 0 : bSlab,
      b_slice: summed ? bSlab : 0,
      sb_row: sb === null ? 0 : sb.stride(-2),
      sb_k: sb === null ? 0 : sb.stride(-1),
      sb_slab: sb === null || sb.rank < 3 ? 0 : sb.stride(0),
      c_row: cStrides.row,
      c_slab: cStrides.slab,
      d_row: dStrides.row,
      d_slab: dStrides.slab,
      unit_rows: plan.unitRows,
      unit_cols: plan.unitCols,
      panel_bytes: plan.panelBytes,
    };
  },
  threads: (_call, _target, plan) => plan.threads,
  scratchBytes,
});

/** Floating-point operations and least memory traffic of a call. */
export function gemmWork(call: GemmCall): { flops: number; bytes: number } {
  const { kind, c, d } = call;
  const a = dataOf(call.a);
  const b = dataOf(call.b);
  const { n } = sizesOf(call);
  const slices = slicesOf(call);
  let [flops, bits] = [0, 0];
  let rowsWritten = 0;
  for (const { group, rows, length } of segmentsOf(call)) {
    if (group < 0) continue;
    rowsWritten += rows;
    flops += 2 * rows * n * length * slices;
    bits += (rows * dtypeBits[a.dtype] + n * dtypeBits[b.dtype]) * length * slices;
  }
  const columns = kind === "dense" && call.heads !== undefined ? n : d.dim(-1);
  const outBits = dtypeBits[d.dtype] * (c === null ? 1 : 2);
  return { flops, bytes: (bits + rowsWritten * columns * outBits) / 8 };
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
